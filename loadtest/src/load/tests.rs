//! Runs against a small server with known habits, so that what the generator says can be held against what happened.

use std::sync::atomic::Ordering::Relaxed;

use tidegate_ring::{Conn, Listener, RingOptions, Trigger, signal, sleep_until, spawn};
use tidegate_wire::body::BodyReader;
use tidegate_wire::head::{HeadLimits, Parse, RequestHead};

use super::*;

/// What the server does with each call.
#[derive(Clone, Copy, PartialEq)]
enum Habit {
    /// Answers at once.
    Prompt,
    /// Answers after so long.
    Slow(u64),
    /// The tenth call takes so long, all others none.
    StallsOnce(u64),
    /// Streams a content event each few ms, for a long time.
    Talks,
    /// 429 to every third call.
    Refuses,
    /// Streams end without their last event.
    Unfinished,
    /// An error event after the first content.
    InBand,
    /// Closes in the middle of the reply.
    Cuts,
    /// Says nothing.
    Silent,
}

#[derive(Default)]
struct Seen {
    calls: AtomicU64,
    body_bytes: AtomicU64,
    /// Connections that the client closed while a reply was going out.
    deserted: AtomicU64,
    /// Events that were sent.
    events: AtomicU64,
}

struct Server {
    addr: SocketAddr,
    seen: Arc<Seen>,
    stop: Trigger,
    thread: Option<JoinHandle<()>>,
}

const RING: RingOptions =
    RingOptions { recv_buffer_bytes: 4096, recv_buffers: 64, lent_chunks_max: 4, entries: 64 };
const MS: u64 = 1_000_000;

impl Server {
    fn start(habit: Habit) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let seen = Arc::new(Seen::default());
        let (stop, stopped) = signal();
        let shared = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let served = tidegate_ring::run(Driver::Epoll, &RING, move || async move {
                let listener = Listener::from_std(listener).expect("a listener");
                let accepting = spawn(async move {
                    while let Ok(conn) = listener.accept().await {
                        let seen = Arc::clone(&shared);
                        spawn(async move { serve(conn, habit, seen).await }).detach();
                    }
                });
                stopped.wait().await;
                drop(accepting);
            });
            served.expect("the server's ring");
        });
        Server { addr, seen, stop, thread: Some(thread) }
    }

    fn config(&self) -> LoadConfig {
        LoadConfig {
            seconds: 1.0,
            pace: Pace::Open { rate_per_s: 200.0 },
            call_timeout: Duration::from_secs(5),
            ..LoadConfig::new(self.target())
        }
    }

    fn target(&self) -> Target {
        Target { addr: self.addr, keys: vec!["one".to_owned(), "two".to_owned()], model: "m".to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.fire();
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the server panicked");
        }
    }
}

async fn serve(conn: Conn, habit: Habit, seen: Arc<Seen>) {
    let limits = HeadLimits { head_bytes_max: 8192, fields_max: 32 };
    let mut inbox = Vec::new();
    loop {
        let mut head = RequestHead::default();
        while !matches!(head.parse(&inbox, &limits), Ok(Parse::Complete { .. })) {
            match conn.recv().await {
                Ok(chunk) if !chunk.is_empty() => inbox.extend_from_slice(&chunk),
                _ => return,
            }
        }
        let Ok(Parse::Complete { head_bytes }) = head.parse(&inbox, &limits) else { return };
        inbox.drain(..head_bytes);
        let mut reader = BodyReader::new(head.framing(), 1 << 24).expect("a body that fits");
        let mut body = Vec::new();
        while !reader.ended() {
            let step = reader.next(&inbox).expect("a sound body");
            body.extend_from_slice(&inbox[step.data]);
            inbox.drain(..step.consumed);
            if !reader.ended() && inbox.is_empty() {
                let chunk = conn.recv().await.expect("the rest of the body");
                assert!(!chunk.is_empty(), "a request was cut");
                inbox.extend_from_slice(&chunk);
            }
        }
        let body: serde_json::Value = serde_json::from_slice(&body).expect("a body of JSON");
        seen.body_bytes.fetch_add(reader.received_bytes(), Relaxed);
        let call = seen.calls.fetch_add(1, Relaxed);
        if !answer(&conn, habit, call, body["stream"] == true, &seen).await {
            return;
        }
    }
}

/// False if the connection is to close.
async fn answer(conn: &Conn, habit: Habit, call: u64, streamed: bool, seen: &Seen) -> bool {
    match habit {
        Habit::Slow(ms) => sleep_until(fresh_now_ns() + ms * MS).await,
        Habit::StallsOnce(ms) if call == 9 => sleep_until(fresh_now_ns() + ms * MS).await,
        Habit::Silent => sleep_until(u64::MAX).await,
        Habit::Refuses if call.is_multiple_of(3) => {
            let text = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\n\r\n{}";
            return conn.send(&[text]).await.is_ok();
        }
        _ => {}
    }
    if !streamed {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 23\r\n\r\n{\"usage\":{\"tokens\":10}}";
        let sent = if habit == Habit::Cuts { &whole[..50] } else { &whole[..] };
        return conn.send(&[sent]).await.is_ok() && habit != Habit::Cuts;
    }
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut events = vec!["message_start", "content_block_start"];
    match habit {
        Habit::Talks => events.extend(["content_block_delta"; 400]),
        Habit::InBand => events.push("error"),
        Habit::Unfinished => {}
        _ => events.extend(["content_block_delta", "message_stop"]),
    }
    if conn.send(&[head]).await.is_err() {
        return false;
    }
    for name in events {
        let event = format!("event: {name}\ndata: {{}}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        if conn.send(&[chunk.as_bytes()]).await.is_err() {
            seen.deserted.fetch_add(1, Relaxed);
            return false;
        }
        seen.events.fetch_add(1, Relaxed);
        if habit == Habit::Talks {
            sleep_until(fresh_now_ns() + 5 * MS).await;
        }
    }
    habit != Habit::Cuts && conn.send(&[b"0\r\n\r\n"]).await.is_ok()
}

fn drivers() -> Vec<Driver> {
    let mut drivers = vec![Driver::Epoll];
    if tidegate_ring::select(tidegate_ring::IoChoice::IoUring).is_ok() {
        drivers.push(Driver::IoUring);
    }
    drivers
}

fn go(config: LoadConfig) -> LoadReport {
    run(config, Driver::Epoll).expect("a run")
}

fn assert_adds_up(summary: &Summary) {
    assert_eq!(summary.sent, summary.ok + summary.left + summary.failed, "{summary:?}");
    assert_eq!(summary.failed, summary.failures.values().sum::<u64>());
}

#[test]
fn counts_add_up_and_agree_with_the_server_on_each_driver() {
    for driver in drivers() {
        let server = Server::start(Habit::Refuses);
        let config = LoadConfig { threads: 2, body_bytes: (1_000, 60_000), ..server.config() };
        let counters = Arc::clone(&config.counters);
        let report = run(config, driver).expect("a run");
        let found = &report.gateway;
        assert_adds_up(found);
        assert!((130..280).contains(&found.sent), "about 200 were offered: {found:?}");
        assert_eq!(found.sent, server.seen.calls.load(Relaxed));
        assert_eq!(found.failures.keys().collect::<Vec<_>>(), ["status_429"]);
        assert_eq!(found.failed, found.sent.div_ceil(3));
        assert_eq!(found.statuses[&200] + found.statuses[&429], found.sent);
        assert_eq!((found.timed, found.lag.count, found.latency.count), (found.sent, found.sent, found.ok));
        assert!(found.first_content.count > 20 && found.first_content.count < found.ok, "half are streams");
        assert_eq!(counters.sent(), found.sent);
        assert_eq!(counters.ok(), found.ok);
        assert_eq!(counters.failed(), found.failed);
        assert_eq!(counters.status(429), found.failed);
        assert_eq!(counters.in_flight(), 0);
        assert!(server.seen.body_bytes.load(Relaxed) > found.sent * 2_000, "sizes vary");
        assert!(found.connects < found.sent, "connections are used again");
    }
}

#[test]
fn a_stall_is_charged_to_all_who_were_due_meanwhile() {
    let server = Server::start(Habit::StallsOnce(500));
    let found = go(LoadConfig { in_flight_max: 1, ..server.config() }).gateway;
    assert_eq!(found.failed, 0, "{found:?}");
    // One call in two hundred stalled: by the time from its start nobody else noticed. Half the calls were due then.
    assert!(found.service.p90_us < 100_000.0, "{found:?}");
    assert!(found.latency.p90_us > 200_000.0, "the wait of those behind is missing: {found:?}");
    assert!(found.latency.max_us > 450_000.0);
}

#[test]
fn callers_that_are_to_leave_do_and_the_server_sees_it() {
    let server = Server::start(Habit::Talks);
    let pace = Pace::Open { rate_per_s: 8.0 };
    let config = LoadConfig { streamed_share: 1.0, leave_share: 1.0, pace, seconds: 2.0, ..server.config() };
    let found = go(config).gateway;
    assert_adds_up(&found);
    assert!(found.left > 5 && found.left == found.sent, "{found:?}");
    assert_eq!(found.connects, found.left, "a deserted connection serves nobody");
    assert_eq!((found.latency.count, found.first_content.count), (0, found.left));
    // The server notices at one of its next events, 5 ms apart; it would talk for two seconds.
    let until_ns = fresh_now_ns() + 1_000 * MS;
    while server.seen.deserted.load(Relaxed) < found.left {
        assert!(fresh_now_ns() < until_ns, "a connection was kept open");
        std::thread::yield_now();
    }
    // Callers leave after at most eight content events. One that kept its connection until the next call came, 125 ms
    // later on average, would have been sent 25 more.
    let events = server.seen.events.load(Relaxed);
    assert!(events < found.left * 18, "{events} events to {} callers: they left late", found.left);
}

#[test]
fn failures_are_told_apart() {
    let cases = [
        (Habit::Unfinished, 1.0, Failure::Unfinished),
        (Habit::InBand, 1.0, Failure::InBand),
        (Habit::Cuts, 1.0, Failure::Cut),
        (Habit::Cuts, 0.0, Failure::Cut),
        (Habit::Silent, 0.0, Failure::TimedOut),
    ];
    for (habit, streamed_share, failure) in cases {
        let server = Server::start(habit);
        let call_timeout = Duration::from_millis(300);
        let config = LoadConfig { streamed_share, call_timeout, requests_max: Some(5), ..server.config() };
        let found = go(config).gateway;
        assert_eq!(found.failures, [(failure.to_string(), 5)].into(), "{found:?}");
        assert_eq!((found.ok, found.latency.count), (0, 0));
    }
}

#[test]
fn nobody_there_and_nobody_answering_are_failures_that_are_counted() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let target = Target { addr: free.expect("a port"), keys: vec!["k".to_owned()], model: "m".to_owned() };
    let config = LoadConfig { requests_max: Some(7), ..LoadConfig::new(target) };
    assert_eq!(go(config).gateway.failures, [("connect".to_owned(), 7)].into());

    let server = Server::start(Habit::Silent);
    let call_timeout = Duration::from_millis(400);
    let config = LoadConfig { in_flight_max: 1, call_timeout, seconds: 0.5, ..server.config() };
    let found = go(config).gateway;
    assert_adds_up(&found);
    assert!(found.failures["not_started"] > 50, "{found:?}");
    assert!(found.failures["timed_out"] <= 3, "{found:?}");
}

#[test]
fn windows_alternate_and_show_what_lies_between() {
    let (behind, direct) = (Server::start(Habit::Slow(30)), Server::start(Habit::Prompt));
    let config = LoadConfig {
        direct: Some(direct.target()),
        seconds: 2.0,
        warm_up_s: 0.1,
        pid: Some(std::process::id()),
        ..behind.config()
    };
    let report = go(config);
    assert_eq!(report.windows.iter().map(|w| w.direct).collect::<Vec<_>>(), [false, true, false, true]);
    let found = report.direct.as_ref().expect("direct windows");
    assert_eq!(report.gateway.sent, behind.seen.calls.load(Relaxed));
    assert_eq!(found.sent, direct.seen.calls.load(Relaxed));
    assert!(report.gateway.timed < report.gateway.sent, "the warm-up is not timed");
    let added = report.added.as_ref().expect("a difference");
    assert!((20_000.0..60_000.0).contains(&added.service.p50_us), "{added:?}");
    assert!((20_000.0..60_000.0).contains(&added.first_content.p50_us), "{added:?}");
    assert_eq!(added.service_p50_us_by_pair.len(), 2);
    assert!(report.cpu.is_some_and(|cpu| cpu.calls > 50), "{:?}", report.cpu);
    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["windows"][1]["direct"], true);
    assert!(report.to_string().contains("added by the gateway"));
}

#[test]
fn a_closed_loop_keeps_its_callers_busy_and_no_more() {
    let server = Server::start(Habit::Slow(20));
    let pace = Pace::Closed { connections: 5 };
    let found = go(LoadConfig { pace, threads: 2, ..server.config() }).gateway;
    assert_adds_up(&found);
    assert!((50..=250).contains(&found.ok) && found.failed == 0, "5 callers, 20 ms each, 1 s: {found:?}");
    assert_eq!(found.connects, 5);
}

#[test]
fn it_ends_when_told_and_never_makes_more_calls_than_allowed() {
    let server = Server::start(Habit::Prompt);
    let config = LoadConfig { requests_max: Some(40), threads: 2, ..server.config() };
    assert_eq!(go(config).gateway.sent, 40);

    let config = LoadConfig { seconds: 60.0, ..server.config() };
    let counters = Arc::clone(&config.counters);
    let started_ns = fresh_now_ns();
    let thread = std::thread::spawn(move || go(config));
    while counters.ended() < 10 {
        std::thread::yield_now();
    }
    counters.stop();
    let report = thread.join().expect("a report");
    assert!(report.stopped && fresh_now_ns() - started_ns < 20_000 * MS);
    assert_adds_up(&report.gateway);
}

#[test]
fn nothing_leaves_this_machine_and_bad_settings_are_refused() {
    let server = Server::start(Habit::Prompt);
    for addr in ["192.0.2.1:80", "0.0.0.0:80", "[2001:db8::1]:80", "[::ffff:192.0.2.1]:80"] {
        let addr = addr.parse().expect("an address");
        let away = Target { addr, ..server.target() };
        let refused = run(LoadConfig { target: away.clone(), ..server.config() }, Driver::Epoll);
        assert!(matches!(refused, Err(LoadError::NotLoopback(a)) if a == addr), "{addr}");
        let refused = run(LoadConfig { direct: Some(away), ..server.config() }, Driver::Epoll);
        assert!(matches!(refused, Err(LoadError::NotLoopback(a)) if a == addr), "{addr}");
    }
    let bad = [
        LoadConfig { seconds: f64::NAN, ..server.config() },
        LoadConfig { warm_up_s: 1.0, ..server.config() },
        LoadConfig { pace: Pace::Open { rate_per_s: 0.0 }, ..server.config() },
        LoadConfig { body_bytes: (2, 1), ..server.config() },
        LoadConfig { leave_share: 1.5, ..server.config() },
        LoadConfig { threads: 0, ..server.config() },
    ];
    for config in bad {
        assert!(matches!(run(config, Driver::Epoll), Err(LoadError::Setting(_))));
    }
    let keys = vec!["a\r\nb".to_owned()];
    let target = Target { keys, ..server.target() };
    let refused = run(LoadConfig { target, ..server.config() }, Driver::Epoll);
    assert!(matches!(refused, Err(LoadError::Target(_))));
    assert_eq!(server.seen.calls.load(Relaxed), 0);
}
