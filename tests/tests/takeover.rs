//! Restart without a lost call: the real program takes over from the real program, under load, with streams open; and
//! what happens when the next one fails, or is not one of ours.
//!
//! `TIDEGATE_TAKEOVERS` sets how many there are in a row; so many as are promised (20) come at the promised load.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_loadtest::load::{self, LoadConfig, Pace, Target};
use tidegate_loadtest::mock::{Mock, MockConfig};
use tidegate_tests::cage::free_address;
use tidegate_tests::client::{Client, call, joined, messages};
use tidegate_tests::messages as protocol;
use tidegate_tests::process::{Program, io};
use tidegate_tests::sdk::program;
use tidegate_tests::time::{now, pause_ms, variable, wait_for};
use tidegate_tests::upstream::{Step, Upstream, chunk, good, last_chunk, paced, stream_head, whole};
use tidegate_tests::{IoChoice, both_drivers};

const PATIENCE: Duration = Duration::from_secs(30);
/// Take-overs and calls a second that are promised.
const PROMISED: (usize, f64) = (20, 2_000.0);
/// The same where the length is not asked for.
const SHORT: (usize, f64) = (3, 300.0);
/// What the log says once the next process serves, at either end.
const SERVES: &str = "serving";
const RETIRED: &str = "another process serves now";

/// A folder with a configuration, and the ports in it.
struct Place {
    folder: tempfile::TempDir,
    data: SocketAddr,
    admin: SocketAddr,
    starts: usize,
}

impl Place {
    /// A configuration of `driver` with these parts.
    fn new(driver: IoChoice, parts: &str) -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place { folder, data: free_address(), admin: free_address(), starts: 0 };
        place.write("tidegate.yaml", place.data, driver, parts);
        place
    }

    fn write(&self, name: &str, data: SocketAddr, driver: IoChoice, parts: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        let yaml = format!(
            "listen: {data}\nadmin: {{ listen: {} }}\nio: {}\ntakeover: {{ socket: \"{}\" }}\n{parts}",
            self.admin,
            io(driver),
            self.socket().display(),
        );
        std::fs::write(&path, yaml).expect("a file");
        path
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("takeover.sock")
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("tidegate.yaml")
    }

    fn log(&mut self) -> PathBuf {
        self.starts += 1;
        self.folder.path().join(format!("log-{}", self.starts))
    }

    /// The first process.
    #[track_caller]
    fn start(&mut self, more: &[&str]) -> Program {
        let log = self.log();
        let program = Program::serve(&self.config(), &log, more);
        program.wait_until_ready(self.admin);
        wait_for("it offers itself", PATIENCE, || self.socket().exists());
        program
    }

    /// The next one; returns once it serves and the old one has retired.
    #[track_caller]
    fn take_over(&mut self, old: &Program, more: &[&str]) -> Program {
        let log = self.log();
        let new = Program::serve(&self.config(), &log, &[&["--takeover"], more].concat());
        wait_for("the old process has retired", PATIENCE, || old.said().contains(RETIRED));
        wait_for("the next process serves", PATIENCE, || new.said().contains(SERVES));
        new
    }
}

fn providers(upstreams: &[(&str, String)]) -> String {
    let mut text = "providers:\n".to_owned();
    for (name, url) in upstreams {
        text.push_str(&format!(
            "  {name}: {{ kind: anthropic, base_url: \"{url}\", keys: [{{ name: {name}-key, value: sk-mock }}] }}\n"
        ));
    }
    text.push_str("models:\n");
    for (name, _) in upstreams {
        text.push_str(&format!("  {name}-model: {{ chain: [{name}/claude-sonnet-5-5] }}\n"));
    }
    text
}

/// A stream of many events that lasts `span` and says what it said.
fn long_stream(span: Duration) -> (Vec<String>, Vec<Step>) {
    let mut events = protocol::stream("steady");
    let delta = events[2].clone();
    let count = (span.as_millis() / 100) as usize;
    events.splice(3..3, std::iter::repeat_n(delta, count));
    let mut steps = vec![stream_head()];
    for event in &events {
        steps.extend([chunk(event), Step::Pause(Duration::from_millis(100))]);
    }
    steps.push(last_chunk());
    (events, steps)
}

/// A caller in the middle of a stream; ends with its text and how it broke off.
fn open_stream(address: SocketAddr, model: &str) -> JoinHandle<(u16, String, Result<(), String>)> {
    let mut client = Client::connect(address);
    client.send(messages(&protocol::stream_request(model)));
    let head = client.try_head().unwrap_or_else(|wrong| panic!("no head: {wrong}"));
    std::thread::spawn(move || {
        let (events, ended) = client.events(&head);
        (head.status, joined(&events), ended)
    })
}

/// A caller of a stream; counts itself once the first event is there, and ends with its text and how it broke off.
fn stream_counted(address: SocketAddr, begun: &Arc<AtomicUsize>) -> JoinHandle<(String, Result<(), String>)> {
    let begun = begun.clone();
    std::thread::spawn(move || {
        let mut client = Client::connect(address);
        client.send(messages(&protocol::stream_request("mock-model")));
        let head = client.try_head().unwrap_or_else(|wrong| panic!("no head: {wrong}"));
        assert_eq!(head.status, 200);
        let mut text = String::new();
        let ended = client.each_event(&head, |event| {
            begun.fetch_add(usize::from(text.is_empty()), Ordering::Relaxed);
            text.push_str(&event.text);
        });
        (text, ended)
    })
}

/// A connection that has made a call and waits for the next.
fn idle_client(address: SocketAddr, model: &str) -> Client {
    let mut client = Client::connect(address);
    client.send(messages(&protocol::request(model)));
    assert_eq!(client.reply().status, 200);
    client
}

fn plan() -> (usize, f64) {
    match variable("TIDEGATE_TAKEOVERS").and_then(|it| it.parse().ok()) {
        Some(count) if count >= PROMISED.0 => (count, PROMISED.1),
        Some(count) => (count, SHORT.1),
        None => SHORT,
    }
}

both_drivers! {
    /// Again and again under load: no call fails, no stream is cut, whatever number of workers comes next; idle
    /// connections stay open and end with their next answer; each old process ends by itself, well.
    fn take_overs_lose_no_call(driver) {
        let (count, rate_per_s) = plan();
        let seconds = 2.0 + 1.5 * count as f64;
        let arm = tidegate_gateway::select(driver).expect("a driver").driver;
        let mock = Mock::start(MockConfig::default(), arm).expect("a mock provider");
        let (events, steps) = long_stream(Duration::from_secs_f64(seconds));
        let slow = Upstream::start(move |heard| match heard.wants_stream() {
            true => steps.clone(),
            false => good(heard, "fine"),
        });
        let mut place = Place::new(driver, &providers(&[("mock", mock.base_url()), ("slow", slow.url())]));
        let mut programs = vec![place.start(&["--workers", "2"])];
        let target = Target { addr: place.data, keys: vec!["any".into()], model: "mock-model".into() };
        let pace = Pace::Open { rate_per_s };
        let config = LoadConfig { pace, seconds, streamed_share: 0.1, ..LoadConfig::new(target) };
        let counters = config.counters.clone();
        let load = std::thread::spawn(move || load::run(config, arm));
        let mut streams = Vec::new();
        for round in 0..count {
            streams.push(open_stream(place.data, "slow-model"));
            let mut idle = idle_client(place.data, "slow-model");
            pause_ms(300);
            let workers = ["1", "3", "2"][round % 3];
            let next = place.take_over(programs.last().expect("one"), &["--workers", workers]);
            programs.push(next);
            assert!(!idle.is_closed_within(Duration::from_millis(200)), "no idle connection is closed");
            idle.send(messages(&protocol::request("slow-model")));
            let last = idle.reply();
            assert_eq!((last.status, last.field("connection")), (200, Some("close")));
            assert!(idle.is_closed_within(Duration::from_secs(5)), "its last answer is given");
        }
        let report = load.join().expect("no panic").expect("a run");
        figures(count, rate_per_s, &counters, &report);
        assert_eq!(counters.failed(), 0, "{:?}", counters.statuses());
        assert!(counters.ok() as f64 > rate_per_s * seconds * 0.9, "{} calls are no {rate_per_s}/s", counters.ok());
        for stream in streams {
            let (status, text, ended) = stream.join().expect("a caller");
            assert_eq!((status, ended), (200, Ok(())));
            assert!(text == events.concat(), "a stream is whole");
        }
        let serving = programs.pop().expect("one");
        for mut old in programs {
            assert_eq!(old.wait(Duration::from_secs(90)).code(), Some(0), "{}", old.said());
        }
        drop(serving);
    }

    /// What callers have spent stays spent, a quota that rests goes on resting, and what a running call turns out to
    /// have used is charged where the next calls are decided.
    fn limits_and_rests_go_along(driver) {
        const RESTS_S: u64 = 60;
        let upstream = Upstream::start(|heard| {
            if heard.text().contains("rest-now") {
                let body = protocol::error("rate_limit_error", "slow down");
                return whole(429, &[("retry-after", &RESTS_S.to_string())], &body);
            }
            let mut steps = good(heard, "fine");
            if heard.text().contains("use-much") {
                let body = protocol::message("fine").replace("\"input_tokens\":11", "\"input_tokens\":50000");
                steps = vec![Step::Pause(Duration::from_secs(3))];
                steps.extend(whole(200, &[], &body));
            }
            steps
        });
        let keys = "virtual_keys:\n  - { name: few, key: few-0123456789-0123456789-0123456789, limits: { rpm: 10 } }\n  - { name: tokens, key: tokens-0123456789-0123456789-01234567, limits: { tpm: 20000 } }\n  - { name: free, key: free-0123456789-0123456789-0123456789 }\n";
        let both = [("one", upstream.url()), ("two", upstream.url())];
        let mut place = Place::new(driver, &(providers(&both) + keys));
        let ask = |address: SocketAddr, key: &str, model: &str, text: &str| {
            let body = protocol::request(model).replace("hi", text);
            let fields = [("content-type", "application/json"), ("anthropic-version", "2023-06-01"), ("x-api-key", key)];
            call(address, tidegate_tests::client::request("POST /v1/messages", &fields, body))
        };
        let few = |address| ask(address, "few-0123456789-0123456789-0123456789", "two-model", "hi").status;
        let free = |address, text: &str| ask(address, "free-0123456789-0123456789-0123456789", "one-model", text);
        let tokens = move |address, text: &str| ask(address, "tokens-0123456789-0123456789-01234567", "two-model", text);
        let old = place.start(&[]);
        let began = now();
        assert!((0..6).all(|_| few(place.data) == 200));
        assert_eq!(free(place.data, "rest-now").status, 429);
        let address = place.data;
        let running = std::thread::spawn(move || tokens(address, "use-much"));
        wait_for("the call is upstream", PATIENCE, || upstream.heard().iter().any(|it| it.text().contains("use-much")));
        let asked = upstream.count();
        let _new = place.take_over(&old, &[]);
        let resting = free(place.data, "hi");
        let waits: u64 = resting.field("retry-after").and_then(|it| it.parse().ok()).expect("a time");
        assert_eq!((resting.status, upstream.count()), (429, asked), "it rests, and nobody asks");
        assert!(waits <= RESTS_S && waits + 20 >= RESTS_S, "{waits}");
        let more = (0..10).take_while(|_| few(place.data) == 200).count();
        let refilled = began.elapsed().as_secs() as usize / 6 + 1;
        assert!((4..=4 + refilled).contains(&more), "{more} of 4 left, {refilled} refilled");
        assert_eq!(tokens(place.data, "hi").status, 200, "the running call has not said yet what it uses");
        assert_eq!(running.join().expect("a caller").status, 200);
        wait_for("what it used is charged here", Duration::from_secs(3), || tokens(address, "hi").status == 429);
    }

    /// A next process that cannot serve, and one that dies at each step, leave the old one as it was.
    fn a_next_process_that_fails_changes_nothing(driver) {
        let upstream = Upstream::good("fine");
        let parts = providers(&[("mock", upstream.url())]);
        let mut place = Place::new(driver, &parts);
        let mut old = place.start(&[]);
        let mut idle = idle_client(place.data, "mock-model");
        let elsewhere = place.write("elsewhere.yaml", free_address(), driver, &parts);
        let nowhere = place.write("nowhere.yaml", place.data, driver, "providers: 7\n");
        for (config, why) in [(elsewhere, "takes a restart"), (nowhere, "providers")] {
            let log = place.log();
            let mut wrong = Program::serve(&config, &log, &["--takeover"]);
            assert_eq!(wrong.wait(PATIENCE).code(), Some(1));
            assert!(wrong.said().contains(why), "{}", wrong.said());
        }
        for steps in 0..=3 {
            let socket = dies_after(&place, steps);
            // Came while nobody accepted, or might not have been.
            let address = place.data;
            let waiting = std::thread::spawn(move || call(address, messages(&protocol::request("mock-model"))).status);
            pause_ms(100);
            drop(socket);
            assert_eq!(waiting.join().expect("a caller"), 200, "{steps} steps");
        }
        idle.send(messages(&protocol::request("mock-model")));
        let reply = idle.reply();
        assert_eq!((reply.status, reply.field("connection")), (200, None), "as if nothing had been");
        assert!(old.runs());
        let _new = place.take_over(&old, &[]);
        idle.send(messages(&protocol::request("mock-model")));
        assert_eq!(idle.reply().field("connection"), Some("close"));
        assert_eq!(old.wait(PATIENCE).code(), Some(0));
    }

    /// The socket is the user's alone, and the word of another user's process counts for nothing even where the file
    /// lets it in.
    fn another_user_is_refused(driver) {
        let upstream = Upstream::good("fine");
        let mut place = Place::new(driver, &providers(&[("mock", upstream.url())]));
        let mut old = place.start(&[]);
        let mode = std::fs::metadata(place.socket()).expect("a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let own_is_root = std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
        if own_is_root {
            // Opened wide, as a mistake would: only root may play another user.
            for (path, mode) in [(place.folder.path().to_owned(), 0o777), (place.socket(), 0o666), (place.config(), 0o644)] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("own files");
            }
            let copy = place.folder.path().join("tidegate");
            std::fs::copy(program("tidegate"), &copy).expect("a copy that others can run");
            let mut command = Command::new(copy);
            command.args(["serve", "--takeover", "-c"]).arg(place.config()).uid(65_534).gid(65_534);
            let log = place.log();
            let mut stranger = Program::start(&mut command, &log);
            assert_eq!(stranger.wait(PATIENCE).code(), Some(1), "{}", stranger.said());
            assert!(stranger.said().contains("user 0"), "it does not trust this one either: {}", stranger.said());
            wait_for("the old process has seen who it was", PATIENCE, || old.said().contains("user 65534"));
        }
        assert_eq!(call(place.data, messages(&protocol::request("mock-model"))).status, 200);
        assert!(old.runs());
    }

    /// SIGTERM under load: every stream ends whole; with a second one, whole or with an in-band error. Exit 0 both
    /// times.
    fn a_signal_under_load_ends_every_stream_well(driver) {
        for in_a_hurry in [false, true] {
            let upstream = Upstream::start(move |heard| match heard.wants_stream() {
                true if in_a_hurry && heard.number % 2 == 0 => {
                    let mut steps = paced(&protocol::stream("steady")[..4], Duration::from_millis(50));
                    steps.pop();
                    steps.push(Step::Hang);
                    steps
                }
                true => paced(&protocol::stream("steady"), Duration::from_millis(200)),
                false => good(heard, "fine"),
            });
            let mut place = Place::new(driver, &providers(&[("mock", upstream.url())]));
            let mut program = place.start(&[]);
            let begun = Arc::new(AtomicUsize::new(0));
            let streams: Vec<_> = (0..20).map(|_| stream_counted(place.data, &begun)).collect();
            wait_for("all streams have begun", PATIENCE, || begun.load(Ordering::Relaxed) == 20);
            program.signal("TERM");
            if in_a_hurry {
                wait_for("it drains", PATIENCE, || program.said().contains("draining"));
                pause_ms(500);
                program.signal("TERM");
            }
            let whole = protocol::stream("steady").concat();
            let mut in_band = 0;
            for stream in streams {
                let (text, ended) = stream.join().expect("a caller");
                assert_eq!(ended, Ok(()), "{text}");
                if text != whole {
                    in_band += 1;
                    let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
                    assert!(last.starts_with("event: error\n"), "neither whole nor an error: {text}");
                }
            }
            assert_eq!(in_band > 0, in_a_hurry, "{in_band}");
            assert_eq!(program.wait(PATIENCE).code(), Some(0), "{}", program.said());
        }
    }
}

/// From one driver to the other and back: they want the shared sockets in different modes.
#[test]
fn the_driver_may_change() {
    let upstream = Upstream::good("fine");
    let parts = providers(&[("mock", upstream.url())]);
    let mut place = Place::new(IoChoice::Epoll, &parts);
    let mut programs = vec![place.start(&["--workers", "2"])];
    for driver in [IoChoice::IoUring, IoChoice::Epoll, IoChoice::IoUring] {
        place.write("tidegate.yaml", place.data, driver, &parts);
        let next = place.take_over(programs.last().expect("one"), &["--workers", "3"]);
        programs.push(next);
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let address = place.data;
                std::thread::spawn(move || {
                    for _ in 0..20 {
                        assert_eq!(call(address, messages(&protocol::request("mock-model"))).status, 200);
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|it| it.join().expect("every call is answered"));
    }
    drop(programs.pop());
    for mut old in programs {
        assert_eq!(old.wait(PATIENCE).code(), Some(0), "{}", old.said());
    }
}

/// A next process that goes so many steps and then says nothing more.
fn dies_after(place: &Place, steps: usize) -> UnixStream {
    let mut socket = UnixStream::connect(place.socket()).expect("the old process offers itself");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    if steps >= 1 {
        say(&mut socket, r#"{"step":"hello","version":1}"#);
        let sockets: serde_json::Value = serde_json::from_str(&hear(&mut socket)).expect("JSON");
        let count = sockets["data"].as_u64().expect("a count") as usize + 1;
        // Descriptors that a plain read passes over are closed by the kernel.
        socket.read_exact(&mut vec![0; count]).expect("the sockets' bytes");
    }
    if steps >= 2 {
        say(&mut socket, r#"{"step":"ready"}"#);
        let cells: serde_json::Value = serde_json::from_str(&hear(&mut socket)).expect("JSON");
        assert!(cells["cells"].as_array().is_some_and(|it| !it.is_empty()), "{cells}");
    }
    if steps >= 3 {
        say(&mut socket, r#"{"step":"ready"}"#);
    }
    socket
}

fn say(socket: &mut UnixStream, message: &str) {
    socket.write_all(&(message.len() as u32).to_le_bytes()).expect("the old process listens");
    socket.write_all(message.as_bytes()).expect("the old process listens");
}

fn hear(socket: &mut UnixStream) -> String {
    let mut length = [0; 4];
    socket.read_exact(&mut length).expect("an answer");
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    socket.read_exact(&mut body).expect("an answer");
    String::from_utf8(body).expect("text")
}

#[expect(clippy::print_stderr, reason = "figures of a run are reported, and gate nothing")]
fn figures(count: usize, rate_per_s: f64, counters: &load::LoadCounters, report: &load::LoadReport) {
    let statuses = counters.statuses();
    eprintln!(
        "{count} take-overs at {rate_per_s}/s: {} good, {} failed, {statuses:?}",
        counters.ok(),
        counters.failed()
    );
    let (all, latency) = (&report.gateway, &report.gateway.latency);
    eprintln!(
        "{} connections, {:.0} calls/s, latency from when due: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        all.connects,
        all.calls_per_s,
        latency.p50_us / 1000.0,
        latency.p99_us / 1000.0,
        latency.max_us / 1000.0,
    );
}
