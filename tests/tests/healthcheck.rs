//! `tidegate healthcheck` against the real program: ready, draining, gone; and that it finds the admin port in a
//! configuration which could no longer be served.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tidegate_tests::cage::{self, Program, free_address, wait_until_open};
use tidegate_tests::client::messages;
use tidegate_tests::messages as protocol;
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::{Step, Upstream, chunk, stream_head};
use tidegate_tests::{Client, IoChoice, both_drivers};

fn write(file: &Path, driver: IoChoice, (data, admin): (SocketAddr, SocketAddr), key: &str, url: &str) {
    let io = if driver == IoChoice::Epoll { "epoll" } else { "io_uring" };
    let provider =
        format!("{{ kind: anthropic, base_url: \"{url}\", keys: [{{ name: a, value: \"{key}\" }}] }}");
    let yaml = format!(
        "listen: {data}\nadmin: {{ listen: \"{admin}\" }}\nio: {io}\nworkers: 1\nproviders:\n  mock: {provider}\n"
    );
    std::fs::write(file, yaml).expect("a file");
}

/// The exit code and what was said.
fn healthcheck(arguments: &[&str]) -> (Option<i32>, String) {
    let output = cage::run(&[&["healthcheck"], arguments].concat(), &[]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).trim_end().to_owned())
}

both_drivers! {
    fn it_says_ready_draining_and_gone(driver) {
        let upstream = Upstream::start(|_| {
            let mut steps = vec![stream_head()];
            steps.extend(protocol::stream("begun")[..3].iter().map(|it| chunk(it)));
            steps.push(Step::Pause(Duration::from_secs(60)));
            steps
        });
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tidegate.yaml");
        let (data, admin) = (free_address(), free_address());
        write(&file, driver, (data, admin), "a", &upstream.url());
        let program = Program::serve(&file, &[]);
        wait_until_open(&[data, admin]);
        let named = file.display().to_string();
        let name = if driver == IoChoice::Epoll { "epoll" } else { "io_uring" };
        let ready = (Some(0), format!("ready: {name}, 1 of 1 workers, revision 1"));
        wait_for("it is ready", Duration::from_secs(20), || healthcheck(&["-c", &named]).0 == Some(0));
        assert_eq!(healthcheck(&["-c", &named]), ready);
        assert_eq!(healthcheck(&["--admin", &admin.to_string()]), ready);
        // What runs is healthy, whatever became of the file since.
        write(&file, driver, (data, admin), "${env:NOT_SET_ANYWHERE}", "nonsense");
        assert_eq!(healthcheck(&["-c", &named]), ready);
        // The data port is not the admin port.
        let (code, said) = healthcheck(&["--admin", &data.to_string()]);
        assert_eq!(code, Some(1));
        assert!(said.contains("is not the admin port"), "{said}");
        // A stream that goes on keeps it draining.
        let mut client = Client::connect(data);
        client.send(messages(&protocol::stream_request("claude-sonnet-5-5")));
        let head = client.try_head().expect("a head");
        program.signal("TERM");
        wait_for("it drains", Duration::from_secs(10), || {
            healthcheck(&["-c", &named]) == (Some(1), "not ready: draining".into())
        });
        drop(program);
        let (code, said) = healthcheck(&["-c", &named]);
        assert_eq!(code, Some(1));
        assert!(said.contains("does not answer"), "{said}");
        assert!(client.events(&head).1.is_err(), "the stream was cut with the program");
    }
}

#[test]
fn a_file_that_names_no_admin_port_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tidegate.yaml");
    std::fs::write(&file, "admin: { listen: nowhere }\n").expect("a file");
    let (code, said) = healthcheck(&["-c", &file.display().to_string()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("`nowhere` is not an address with a port"), "{said}");
    let (code, said) = healthcheck(&["-c", &folder.path().join("none.yaml").display().to_string()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot read"), "{said}");
}
