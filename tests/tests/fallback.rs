//! A host that forbids io_uring, as most containers do: the real program takes epoll, says so, and serves. Started
//! under
//! a filter that answers the three system calls with EPERM.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use tempfile::TempDir;
use tidegate_tests::cage::{Program, free_address, wait_until_open};
use tidegate_tests::client::{self, call, joined, messages, request};
use tidegate_tests::messages as protocol;
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::Upstream;

/// io_uring_setup, io_uring_enter, io_uring_register: the same numbers on every architecture.
const IO_URING_CALLS: [i64; 3] = [425, 426, 427];

/// A filter that answers the three calls with EPERM and allows the rest.
fn denying() -> BpfProgram {
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> =
        IO_URING_CALLS.iter().map(|it| (*it, Vec::new())).collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture with filters");
    let deny = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, deny, arch).expect("a filter");
    filter.try_into().expect("a program")
}

fn config(folder: &TempDir, upstream: &Upstream, io: &str, ports: (SocketAddr, SocketAddr)) -> PathBuf {
    let path = folder.path().join("tidegate.yaml");
    let yaml = format!(
        "listen: {}\nadmin: {{ listen: \"{}\" }}\nio: {io}\nworkers: 2\nproviders:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: a, value: a }}] }}\n",
        ports.0,
        ports.1,
        upstream.url()
    );
    std::fs::write(&path, yaml).expect("a file");
    path
}

#[test]
fn without_io_uring_epoll_serves() {
    let upstream = Upstream::good("served by epoll");
    let folder = tempfile::tempdir().expect("a folder");
    let (data, admin) = (free_address(), free_address());
    let path = config(&folder, &upstream, "auto", (data, admin));
    let _program = Program::serve(&path, &[denying()]);
    wait_until_open(&[data, admin]);
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
    let path = config(&folder, &upstream, "io_uring", (free_address(), free_address()));
    let mut program = Program::serve(&path, &[denying()]);
    wait_for("the program ends", Duration::from_secs(20), || {
        program.0.try_wait().expect("a child").is_some()
    });
    assert!(!program.0.wait().expect("a child").success());
    let said: String =
        BufReader::new(program.0.stderr.take().expect("piped")).lines().map_while(Result::ok).collect();
    assert!(said.contains("io_uring"), "{said}");
}
