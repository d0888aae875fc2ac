//! A host that forbids io_uring, as most containers do: the real program takes epoll, says so, and serves. Started
//! under
//! a filter that answers the three system calls with EPERM.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
use tidegate_tests::client::{self, call, joined, messages, request};
use tidegate_tests::messages as protocol;
use tidegate_tests::sdk::program;
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::Upstream;

/// io_uring_setup, io_uring_enter, io_uring_register: the same numbers on every architecture.
const IO_URING_CALLS: [i64; 3] = [425, 426, 427];

/// A running gateway program; dropping it kills it.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Starts the program under the filter. The filter belongs to a thread that ends with this call, and to its children.
fn start_denied(arguments: Vec<String>) -> Program {
    let child = std::thread::spawn(move || {
        let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> =
            IO_URING_CALLS.iter().map(|it| (*it, Vec::new())).collect();
        let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture with filters");
        let deny = SeccompAction::Errno(libc::EPERM.cast_unsigned());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny, arch).expect("a filter");
        let filter: seccompiler::BpfProgram = filter.try_into().expect("a program");
        seccompiler::apply_filter(&filter).expect("filters are allowed");
        Command::new(program("tidegate"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    });
    Program(child.join().expect("the thread with the filter").expect("the program starts"))
}

fn config(folder: &tempfile::TempDir, upstream: &Upstream, io: &str, ports: (u16, u16)) -> String {
    let path = folder.path().join("tidegate.yaml");
    let yaml = format!(
        "listen: 127.0.0.1:{}\nadmin: {{ listen: 127.0.0.1:{} }}\nio: {io}\nworkers: 2\nproviders:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: a, value: a }}] }}\n",
        ports.0,
        ports.1,
        upstream.url()
    );
    std::fs::write(&path, yaml).expect("a file");
    path.display().to_string()
}

#[test]
fn without_io_uring_epoll_serves() {
    let upstream = Upstream::good("served by epoll");
    let folder = tempfile::tempdir().expect("a folder");
    let ports = (free_port(), free_port());
    let path = config(&folder, &upstream, "auto", ports);
    let _program = start_denied(vec!["serve".into(), "-c".into(), path]);
    let (data, admin) =
        (SocketAddr::from(([127, 0, 0, 1], ports.0)), SocketAddr::from(([127, 0, 0, 1], ports.1)));
    wait_for("the program listens", Duration::from_secs(20), || {
        std::net::TcpStream::connect(data).is_ok() && std::net::TcpStream::connect(admin).is_ok()
    });
    let reply = call(data, messages(&protocol::request("claude-sonnet-5-5")));
    assert_eq!((reply.status, reply.text()), (200, protocol::message("served by epoll")));
    let (head, events, ended) = client::stream(data, &protocol::stream_request("claude-sonnet-5-5"));
    assert_eq!((head.status, ended), (200, Ok(())));
    assert_eq!(joined(&events), protocol::stream("served by epoll").concat());
    let ready = call(admin, request("GET /readyz", &[], "")).json();
    assert_eq!(ready["driver"], "epoll", "{ready}");
    assert!(ready["reason"].as_str().is_some_and(|it| !it.is_empty()), "it says why: {ready}");
    let metrics = call(admin, request("GET /metrics", &[], "")).text();
    assert!(metrics.contains("epoll"), "a metric says which driver runs");
}

#[test]
fn io_uring_or_nothing_fails_with_the_reason() {
    let upstream = Upstream::good("never");
    let folder = tempfile::tempdir().expect("a folder");
    let path = config(&folder, &upstream, "io_uring", (free_port(), free_port()));
    let mut program = start_denied(vec!["serve".into(), "-c".into(), path]);
    wait_for("the program ends", Duration::from_secs(20), || {
        program.0.try_wait().expect("a child").is_some()
    });
    assert!(!program.0.wait().expect("a child").success());
    let said: String =
        BufReader::new(program.0.stderr.take().expect("piped")).lines().map_while(Result::ok).collect();
    assert!(said.contains("io_uring"), "{said}");
}
