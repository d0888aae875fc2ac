//! Callers that are slow on purpose, or stand still: nobody else notices. Calls of others all succeed, their median stays
//! within a quarter of what it is without them, and everything comes home once they are gone.
//!
//! Windows without and with the slow ones alternate. `TIDEGATE_SLOW_SECONDS` sets how long each is; where it is set, one
//! kind of slow caller comes after the other and the provider answers faster, so that less of the gateway is forgiven.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_loadtest::load::{self, Pace};
use tidegate_loadtest::mock::{Draw, LatencyConfig, MockConfig, OutputConfig};
use tidegate_tests::client::request;
use tidegate_tests::messages as protocol;
use tidegate_tests::rig::{KEY, KEYED, Rig};
use tidegate_tests::time::{now, pause, variable, wait_for};
use tidegate_tests::{IoChoice, both_drivers, say};

/// How much the median of other calls may grow.
const RATIO_MAX: f64 = 1.25;
/// Calls a second of the others.
const RATE_PER_S: f64 = 100.0;
/// Readers that stand still.
const READERS: usize = 100;
/// What each of them may cost the gateway: what is held for it at either end, and a task.
const READER_BYTES_MAX: u64 = 512 * 1024;
/// Connections of each run of slowhttptest.
const SLOW_CONNECTIONS: &str = "200";
/// What it sends: late head fields, a late body, requests for many ranges, and reads of a few bytes.
const MODES: [(&str, &[&str]); 4] = [
    ("slow heads", &["-H", "-i", "1"]),
    ("slow bodies", &["-B", "-i", "1", "-s", "8192"]),
    ("ranges", &["-R"]),
    ("slow reads", &["-X", "-n", "1", "-k", "3"]),
];

/// Seconds of a window; whether that is the promised form.
fn window() -> (Duration, bool) {
    let stated = variable("TIDEGATE_SLOW_SECONDS").and_then(|it| it.parse().ok());
    (Duration::from_secs(stated.unwrap_or(3)), stated.is_some())
}

/// Whole replies come after a pause, streams as fast as they are read.
fn provider(promised: bool) -> MockConfig {
    let first_ms = Draw::Fixed(if promised { 20.0 } else { 50.0 });
    MockConfig {
        latency: LatencyConfig { first_ms, ..LatencyConfig::default() },
        output: OutputConfig { tokens: Draw::Fixed(16.0), tokens_per_event: 4 },
        requests_kept: 0,
        calls_kept: 0,
        ..MockConfig::default()
    }
}

/// The median in µs of the others' calls in one window; none fails.
#[track_caller]
fn median_us(rig: &Rig, driver: IoChoice, seed: u64) -> f64 {
    let mut wanted = rig.load();
    wanted.pace = Pace::Open { rate_per_s: RATE_PER_S };
    wanted.seconds = window().0.as_secs_f64();
    wanted.streamed_share = 0.0;
    wanted.seed = seed;
    let io = tidegate_gateway::select(driver).expect("a driver").driver;
    let found = load::run(wanted, io).expect("a load").gateway;
    assert_eq!(found.failed, 0, "{:?}", found.failures);
    assert!(found.ok > 0);
    found.latency.p50_us
}

/// Compares windows without and with what `begin` starts; it ends with its value.
#[track_caller]
fn assert_unnoticed<T>(what: &str, rig: &Rig, driver: IoChoice, begin: impl Fn() -> T) {
    let mut ratios = Vec::new();
    for pair in 0..2 {
        let alone = median_us(rig, driver, pair);
        let slow = begin();
        let beside = median_us(rig, driver, pair);
        drop(slow);
        rig.wait_until_all_is_home();
        ratios.push(beside / alone);
    }
    say(&format!("{what}, {driver:?}: the others' median is {ratios:.3?} of what it is alone"));
    let best = ratios.into_iter().fold(f64::INFINITY, f64::min);
    assert!(best <= RATIO_MAX, "{what}: {best} of what it is alone");
}

/// A provider whose streams never end and come as fast as they are read; it counts the bytes that it got rid of.
struct Torrent {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
}

impl Torrent {
    /// Its threads end with the connections of the gateway.
    fn start() -> Torrent {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let torrent = Torrent { address: listener.local_addr().expect("an address"), sent: Arc::default() };
        let sent = torrent.sent.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let sent = sent.clone();
                std::thread::spawn(move || drop(pour(socket, &sent)));
            }
        });
        torrent
    }

    /// Waits until nothing more is taken from it.
    #[track_caller]
    fn wait_until_still(&self) {
        let (mut last, mut since) = (0, now());
        wait_for("the streams stand still", Duration::from_secs(30), || {
            let sent = self.sent.load(Ordering::SeqCst);
            if sent != last {
                (last, since) = (sent, now());
            }
            sent > 0 && since.elapsed() > Duration::from_millis(500)
        });
    }
}

/// Answers the first request with events of 16 KB until nobody takes them.
fn pour(mut socket: TcpStream, sent: &AtomicU64) -> std::io::Result<()> {
    let mut asked = Vec::new();
    while !asked.ends_with(b"}]}") {
        let mut piece = [0; 4096];
        let count = socket.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        asked.extend_from_slice(&piece[..count]);
    }
    let delta =
        format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"text":"{}"}}}}"#, "w".repeat(16_000));
    let piece = chunk(&protocol::event("content_block_delta", &delta));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes())?;
    for event in &protocol::stream("hi")[..2] {
        socket.write_all(&chunk(event))?;
    }
    loop {
        socket.write_all(&piece)?;
        sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
    }
}

fn chunk(event: &str) -> Vec<u8> {
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

/// A caller who asks for a stream and reads nothing of it.
fn stalled(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("the gateway listens");
    let fields =
        [("x-api-key", KEY), ("anthropic-version", "2023-06-01"), ("content-type", "application/json")];
    let body = protocol::stream_request("torrent/endless");
    socket.write_all(&request("POST /v1/messages", &fields, body)).expect("sent");
    socket
}

/// One run of slowhttptest; dropping it ends it.
struct Slow(Child);

impl Slow {
    fn start(address: SocketAddr, options: &[&str]) -> Slow {
        let url = format!("http://{address}/v1/messages");
        let seconds = (window().0.as_secs() + 5).to_string();
        let mut command = Command::new("slowhttptest");
        command.args(options).args(["-c", SLOW_CONNECTIONS, "-r", "200", "-l", &seconds, "-u", &url]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Slow(command.spawn().expect("slowhttptest starts"))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_installed() -> bool {
    Command::new("slowhttptest").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

both_drivers! {
    /// The gateway reads from their upstreams only what it may hold, and goes on with everybody else.
    fn readers_who_stand_still_starve_nobody(driver) {
        let torrent = Torrent::start();
        let keys = "keys: [{ name: t, value: key-t }]";
        let beside = format!("  torrent: {{ kind: anthropic, base_url: \"http://{}\", {keys} }}", torrent.address);
        let rig = Rig::beside(driver, provider(window().1), &beside, KEYED);
        let before = rig.gateway.resident_bytes();
        assert_unnoticed("stalled readers", &rig, driver, || {
            let readers: Vec<TcpStream> = (0..READERS).map(|_| stalled(rig.data())).collect();
            wait_for("all streams run", Duration::from_secs(20), || {
                rig.metric("tidegate_calls_in_flight") >= Some(READERS as f64)
            });
            torrent.wait_until_still();
            let grown = rig.gateway.resident_bytes().saturating_sub(before);
            say(&format!("{driver:?}: grown by {} KiB for {READERS} readers that read nothing", grown / 1024));
            assert!(grown <= READERS as u64 * READER_BYTES_MAX, "grown by {grown} bytes for readers that read nothing");
            readers
        });
        rig.end();
    }

    /// Without virtual keys, so that a body is waited for instead of refused.
    fn slow_requests_and_reads_starve_nobody(driver) {
        if !is_installed() {
            say("skipped: slowhttptest is not installed");
            return;
        }
        let rig = Rig::start(driver, provider(window().1), "");
        let begin = |modes: &[(&str, &[&str])]| {
            let running: Vec<Slow> = modes.iter().map(|(_, options)| Slow::start(rig.data(), options)).collect();
            wait_for("they are connected", Duration::from_secs(20), || rig.metric("tidegate_connections_open") >= Some(100.0));
            running
        };
        if window().1 {
            for mode in MODES {
                let begin = || {
                    let slow = Slow::start(rig.data(), mode.1);
                    pause(Duration::from_secs(1));
                    slow
                };
                assert_unnoticed(mode.0, &rig, driver, begin);
            }
        } else {
            assert_unnoticed("slow heads, bodies, ranges and reads", &rig, driver, || begin(&MODES));
        }
        rig.end();
    }
}
