//! The real program inside the cages that the packages put it into: the container's seccomp profile, and the system
//! calls that the systemd unit allows. Both are read from the files that ship. In each it serves over io_uring, reloads,
//! answers the healthcheck and drains; without the three calls of io_uring it serves over epoll.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use seccompiler::{BpfProgram, TargetArch, compile_from_json};
use serde_json::{Value, json};
use tidegate_tests::cage::{self, Program, confined, free_address, wait_until_open};
use tidegate_tests::client::{self, call, messages, request};
use tidegate_tests::messages as protocol;
use tidegate_tests::say;
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::Upstream;

const IO_URING: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
/// More kinds of sockets than any kernel has.
const FAMILIES_MAX: i32 = 64;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

/// The container's profile, as Docker and Podman read it.
fn profile() -> Value {
    let path = packaging().join("seccomp-io_uring.json");
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// One filter that allows `rules` and refuses the rest with `errno`, or the other way round.
fn filter(mut rules: Vec<Value>, allows: bool, errno: i32) -> BpfProgram {
    let (matched, otherwise) = match allows {
        true => (json!("allow"), json!({ "errno": errno })),
        false => (json!({ "errno": errno }), json!("allow")),
    };
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture with filters");
    loop {
        let map = json!({ "a": { "match_action": matched, "mismatch_action": otherwise, "filter": rules } });
        let error = match compile_from_json(map.to_string().as_bytes(), arch) {
            Ok(mut programs) => return programs.remove("a").expect("the one filter"),
            Err(error) => error.to_string(),
        };
        // Calls of other architectures stand in a list, too: as elsewhere, a name that is unknown here is passed over.
        let unknown = error.split("Invalid syscall name: ").nth(1).and_then(|it| it.split(' ').next());
        let unknown = unknown.unwrap_or_else(|| panic!("{error}")).to_owned();
        rules.retain(|it| it["syscall"] != unknown.as_str());
    }
}

/// The filters that the profile amounts to, without the calls in `without`: a list of what is allowed, and before it one
/// of what is refused in a way of its own.
fn filters(profile: &Value, without: &[&str]) -> Vec<BpfProgram> {
    let (mut allowed, mut refused) = (Vec::new(), Vec::new());
    for group in profile["syscalls"].as_array().expect("groups") {
        let names = group["names"].as_array().expect("names").iter().filter_map(Value::as_str);
        for name in names.filter(|it| !without.contains(it)) {
            allowed.push(match &group["args"][0] {
                Value::Null => json!({ "syscall": name }),
                it => {
                    assert_eq!(it["op"], "SCMP_CMP_MASKED_EQ", "{it}");
                    let op = json!({ "masked_eq": it["value"] });
                    let arg =
                        json!({ "index": it["index"], "type": "qword", "op": op, "val": it["valueTwo"] });
                    json!({ "syscall": name, "args": [arg] })
                }
            });
            if group["action"] == "SCMP_ACT_ERRNO" {
                assert_eq!(group["errnoRet"], libc::ENOSYS, "{group}");
                refused.push(json!({ "syscall": name }));
            }
        }
    }
    // The list itself comes last: under it no further filter could be set.
    vec![filter(refused, false, libc::ENOSYS), filter(allowed, true, libc::EPERM)]
}

/// The calls that the unit allows: systemd says what its groups hold. `None` without systemd.
fn allowed_by_unit() -> Option<BTreeSet<String>> {
    let unit = std::fs::read_to_string(packaging().join("tidegate.service")).expect("a file");
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|it| it.strip_prefix("SystemCallFilter=")) {
        let (names, takes_away) = match line.strip_prefix('~') {
            Some(names) => (names, true),
            None => (line, false),
        };
        for name in names.split_whitespace() {
            for call in calls_of(name)? {
                if takes_away {
                    allowed.remove(&call);
                } else {
                    allowed.insert(call);
                }
            }
        }
    }
    // Always allowed, whatever a unit says.
    allowed.extend(calls_of("@default")?);
    Some(allowed)
}

fn calls_of(name: &str) -> Option<BTreeSet<String>> {
    if !name.starts_with('@') {
        return Some(BTreeSet::from([name.to_owned()]));
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", name]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().skip(1).map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#'));
    let mut calls = BTreeSet::new();
    for name in names {
        calls.extend(calls_of(name)?);
    }
    Some(calls)
}

/// A whole life under `filters`; returns the driver that served.
fn live(filters: &[BpfProgram], workers: usize) -> String {
    let upstream = Upstream::good("served in a cage");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tidegate.yaml");
    let (data, admin) = (free_address(), free_address());
    let yaml = |key: &str| {
        format!(
            "listen: {data}\nadmin: {{ listen: \"{admin}\" }}\nworkers: {workers}\nproviders:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: {key}, value: {key} }}] }}\n  named: {{ kind: anthropic, base_url: \"https://localhost:9\", keys: [{{ name: a, value: a }}] }}\n",
            upstream.url()
        )
    };
    std::fs::write(&file, yaml("first")).expect("a file");
    let mut program = Program::serve(&file, filters);
    wait_until_open(&[data, admin]);
    serves(data);
    let ready = call(admin, request("GET /readyz", &[], "")).json();
    // Written anew as an editor does, and asked for by a signal.
    std::fs::write(folder.path().join("new"), yaml("second")).expect("a file");
    std::fs::rename(folder.path().join("new"), &file).expect("a file");
    program.signal("HUP");
    wait_for("the reload", Duration::from_secs(10), || {
        call(data, messages(&protocol::request("claude-sonnet-5-5")));
        !upstream.heard_of("second").is_empty()
    });
    let name = file.display().to_string();
    let health = cage::run(&["healthcheck", "-c", &name], filters);
    assert!(health.status.success(), "{health:?}");
    let checked = cage::run(&["check", "-c", &name], filters);
    assert!(checked.status.success(), "{checked:?}");
    serves(data);
    program.signal("TERM");
    wait_for("it ends", Duration::from_secs(20), || program.0.try_wait().expect("a child").is_some());
    assert!(program.0.wait().expect("a child").success(), "a drain ends with 0");
    ready["driver"].as_str().unwrap_or_default().to_owned()
}

fn serves(data: SocketAddr) {
    let reply = call(data, messages(&protocol::request("claude-sonnet-5-5")));
    assert_eq!((reply.status, reply.text()), (200, protocol::message("served in a cage")));
    let (head, _, ended) = client::stream(data, &protocol::stream_request("claude-sonnet-5-5"));
    assert_eq!((head.status, ended), (200, Ok(())));
}

/// As many workers as processors are pinned, fewer are not.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn the_containers_profile_lets_io_uring_serve() {
    let filters = filters(&profile(), &[]);
    assert_eq!(live(&filters, processors()), "io_uring");
}

#[test]
fn the_same_profile_without_the_three_calls_lets_epoll_serve() {
    assert_eq!(live(&filters(&profile(), &IO_URING), 1), "epoll");
}

#[test]
fn the_containers_profile_allows_io_uring_and_refuses_what_is_not_in_it() {
    let profile = profile();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let groups = profile["syscalls"].as_array().expect("groups").iter();
    let allowed: Vec<&str> = groups
        .filter(|it| it["action"] == "SCMP_ACT_ALLOW" && it["args"].is_null())
        .flat_map(|it| it["names"].as_array().expect("names").iter().filter_map(Value::as_str))
        .collect();
    let once: BTreeSet<&str> = allowed.iter().copied().collect();
    assert_eq!(once.len(), allowed.len(), "each name stands there once");
    for name in IO_URING {
        assert!(once.contains(name), "{name}");
    }
    for name in ["bpf", "keyctl", "mount", "perf_event_open", "ptrace", "setns", "unshare", "clone", "clone3"]
    {
        assert!(!once.contains(name), "{name} must not be allowed without a condition");
    }
    // Everybody may give a file to whom it belongs already; the profile does not know that call.
    let folder = tempfile::tempdir().expect("a folder");
    let owner = std::fs::metadata(folder.path()).expect("a folder");
    let change_owner = |filters: &[BpfProgram]| {
        let mut command = Command::new("chown");
        command.arg(format!("{}:{}", owner.uid(), owner.gid())).arg(folder.path());
        confined(filters, move || command.output()).status.success()
    };
    assert!(change_owner(&[]), "without the profile");
    assert!(!change_owner(&filters(&profile, &[])), "under the profile");
}

/// The unit's other bounds that are filters as well: kinds of sockets, and memory that is written and then executed.
fn further_bounds_of_unit() -> Vec<Value> {
    let unit = std::fs::read_to_string(packaging().join("tidegate.service")).expect("a file");
    let value = |name: &str| unit.lines().find_map(|it| it.strip_prefix(name)).expect("a line of the unit");
    assert_eq!(value("MemoryDenyWriteExecute="), "yes");
    let argument = |index: u8, op: Value, value: i32| json!([{ "index": index, "type": "dword", "op": op, "val": value }]);
    let both = libc::PROT_WRITE | libc::PROT_EXEC;
    let mut refused = vec![
        json!({ "syscall": "mmap", "args": argument(2, json!({ "masked_eq": both }), both) }),
        json!({ "syscall": "mprotect", "args": argument(2, json!({ "masked_eq": libc::PROT_EXEC }), libc::PROT_EXEC) }),
    ];
    let families: Vec<i32> = value("RestrictAddressFamilies=")
        .split(' ')
        .map(|it| match it {
            "AF_INET" => libc::AF_INET,
            "AF_INET6" => libc::AF_INET6,
            "AF_NETLINK" => libc::AF_NETLINK,
            "AF_UNIX" => libc::AF_UNIX,
            other => panic!("{other} is new here"),
        })
        .collect();
    let others = (0..FAMILIES_MAX).filter(|it| !families.contains(it));
    refused.extend(others.map(|it| json!({ "syscall": "socket", "args": argument(0, json!("eq"), it) })));
    refused
}

#[test]
fn the_units_filter_lets_io_uring_serve() {
    let Some(allowed) = allowed_by_unit() else {
        say("skipped: systemd is not there to say what its groups of system calls hold");
        return;
    };
    for name in ["mount", "ptrace", "bpf", "reboot", "init_module", "chown", "setuid"] {
        assert!(!allowed.contains(name), "{name} must not be allowed");
    }
    let rules = allowed.iter().map(|it| json!({ "syscall": it })).collect();
    let filters = [filter(further_bounds_of_unit(), false, libc::EPERM), filter(rules, true, libc::EPERM)];
    assert_eq!(live(&filters, processors()), "io_uring");
}
