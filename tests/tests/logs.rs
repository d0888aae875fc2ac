//! The real program's logs: rotation under load, standard output, format and level, and that no secret is in them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidegate_tests::client::{Client, call, messages, request};
use tidegate_tests::messages as protocol;
use tidegate_tests::time::{pause_ms, wait_for};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::{IoChoice, Running, both_drivers};

const UPSTREAM_KEY: &str = "sk-canary-upstream-0123456789";

fn yaml(driver: IoChoice, upstream: &Upstream, logs: &str) -> String {
    let io = match driver {
        IoChoice::IoUring => "io_uring",
        _ => "epoll",
    };
    format!(
        "io: {io}\n{logs}\nproviders:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: a, value: {UPSTREAM_KEY} }}] }}\nvirtual_keys: [{{ name: team, key: {} }}]\n",
        upstream.url(),
        protocol::VIRTUAL_KEY
    )
}

fn one_call(program: &Running) {
    let reply = call(program.data(), messages(&protocol::request("claude-sonnet-5-5")));
    assert_eq!(reply.status, 200, "{}", reply.text());
}

fn without_secrets(text: &str) {
    for secret in ["canary", protocol::VIRTUAL_KEY] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// Each line as JSON.
fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|it| serde_json::from_str(it).unwrap_or_else(|error| panic!("{error}: {it}"))).collect()
}

both_drivers! {
    /// Who tries many keys is named once, with what to do about it, and without any of the keys.
    fn who_guesses_keys_is_named(driver) {
        let upstream = Upstream::good("fine");
        let mut program = Running::serve(&yaml(driver, &upstream, ""));
        let mut client = Client::connect(program.data());
        for guess in 0..300 {
            client.send(request("POST /v1/messages", &[("x-api-key", &format!("vk-canary-{guess}"))], "{}"));
            assert_eq!(client.reply().status, 401);
        }
        assert!(program.end());
        let said = program.stderr();
        let lines: Vec<&str> = said.lines().filter(|it| it.contains("many different wrong keys")).collect();
        // The minute may have turned meanwhile.
        assert!(matches!(lines.len(), 1 | 2), "{said}");
        assert!(lines[0].contains("source=127.0.0.1") && lines[0].contains("trusted_proxies"), "{said}");
        without_secrets(&said);
    }

    /// The file is moved away under load, five times, and the program told: every call is in one of the files, once.
    fn rotation_by_rename_and_signal(driver) {
        let upstream = Upstream::good("fine");
        let mut program = Running::serve(&yaml(driver, &upstream, "access_log: { to: calls }"));
        let stop = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..2).map(|_| {
            let (stop, address) = (stop.clone(), program.data());
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let bytes = messages(&protocol::request("claude-sonnet-5-5"));
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.send(&bytes);
                    assert_eq!(client.reply().status, 200);
                    calls += 1;
                }
                calls
            })
        }).collect();
        let current = program.path("calls");
        for number in 1..=5 {
            wait_for("the file is there", Duration::from_secs(10), || current.exists());
            pause_ms(200);
            std::fs::rename(&current, program.path(&format!("calls.{number}"))).expect("rotated");
            program.signal("USR1");
        }
        wait_for("the last file is there", Duration::from_secs(10), || current.exists());
        pause_ms(100);
        stop.store(true, Ordering::Relaxed);
        let calls: usize = callers.into_iter().map(|it| it.join().expect("no call failed")).sum();
        assert!(program.end(), "{}", program.stderr());
        let mut ids = HashSet::new();
        for name in ["calls.1", "calls.2", "calls.3", "calls.4", "calls.5", "calls"] {
            let text = std::fs::read_to_string(program.path(name)).expect("a file");
            let lines = objects(&text);
            assert!(!lines.is_empty(), "{name}");
            without_secrets(&text);
            for line in lines {
                assert!(ids.insert(line["id"].as_str().expect("an id").to_owned()), "twice: {line}");
            }
        }
        assert_eq!(ids.len(), calls, "every call, once");
    }

    /// Standard output carries the calls and nothing else; standard error, as JSON, the program's own log.
    fn lines_on_standard_output_and_json_on_standard_error(driver) {
        let upstream = Upstream::good("fine");
        let logs = "access_log: { to: stdout }\nlog: { format: json }";
        let mut program = Running::serve(&yaml(driver, &upstream, logs));
        (0..3).for_each(|_| one_call(&program));
        assert!(program.end(), "{}", program.stderr());
        let calls = objects(&program.stdout());
        assert_eq!(calls.len(), 3);
        assert!(calls.iter().all(|it| it["caller"] == "team" && it["status"] == 200));
        let said = objects(&program.stderr());
        assert!(said.iter().any(|it| it["level"] == "INFO" && it["message"] == "serving"), "{said:?}");
        assert!(said.iter().any(|it| it["level"] == "WARN"), "the warning of literal keys: {said:?}");
        without_secrets(&program.stdout());
        without_secrets(&program.stderr());
    }

    /// A log that nobody takes, and much to be said: both planes go on, the end is in order.
    fn a_stuck_log_holds_nobody_up(driver) {
        let upstream = Upstream::good("fine");
        let good = yaml(driver, &upstream, "");
        let mut program = Running::serve_unheard(&good);
        // Two hundred complaints with their lines are more than a pipe holds, told more than once.
        let wrong: String = (0..200).map(|it| format!("field_{it}: \"{}\"\n", "x".repeat(400))).collect();
        for round in 0..6 {
            program.configure(&format!("{wrong}# {round}\n{good}"));
            program.signal("HUP");
            one_call(&program);
            let live = call(program.admin(), request("GET /livez", &[], ""));
            assert_eq!(live.status, 200);
            let refused = || call(program.admin(), request("GET /metrics", &[], "")).text().contains("tidegate_configuration_refused 1");
            wait_for("it is read, and refused", Duration::from_secs(10), refused);
        }
        one_call(&program);
        assert!(program.end(), "in order");
    }

    /// The level follows a reload, down and up; a wrong configuration is told of and changes nothing.
    fn the_level_follows_a_reload(driver) {
        let upstream = Upstream::good("fine");
        let program = Running::serve(&yaml(driver, &upstream, "log: { level: error }"));
        let reload = |logs: &str| {
            program.configure(&yaml(driver, &upstream, logs));
            program.signal("HUP");
        };
        let said = |part: &str| program.stderr().contains(part);
        one_call(&program);
        assert!(!said("serving") && !said("INFO"), "{}", program.stderr());
        reload("log: { level: debug }");
        wait_for("info is said", Duration::from_secs(5), || said("a new configuration is in force"));
        let gone = Upstream::good("gone");
        let address = gone.address();
        drop(gone);
        let elsewhere = yaml(driver, &upstream, "log: { level: debug }").replace(&upstream.address().to_string(), &address.to_string());
        program.configure(&elsewhere);
        program.signal("HUP");
        wait_for("debug is said", Duration::from_secs(10), || {
            call(program.data(), messages(&protocol::request("claude-sonnet-5-5")));
            said("no connection")
        });
        reload("log: { level: loud }");
        wait_for("it is refused", Duration::from_secs(5), || said("the old configuration stays"));
        reload("log: { level: warn, format: json }");
        wait_for("the format takes a restart", Duration::from_secs(5), || said("`log.format` changed"));
        without_secrets(&program.stderr());
    }
}
