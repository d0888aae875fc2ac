//! A worker that fails: its loop panics and is built anew, it panics too often, it makes no progress. What waits in the
//! kernel's queue outlives it, and what it held is given back.

use std::time::Duration;

use tidegate_tests::client::{Client, call, messages};
use tidegate_tests::messages as protocol;
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::{Upstream, good, paced};
use tidegate_tests::{Gateway, IoChoice, Setup, both_drivers};

const MARK: &str = "panic-mark-8f1c";
const PATIENCE: Duration = Duration::from_secs(20);

fn upstream() -> Upstream {
    Upstream::start(|heard| match heard.wants_stream() {
        true => paced(&protocol::stream("slow"), Duration::from_secs(5)),
        false => good(heard, "fine"),
    })
}

fn start(driver: IoChoice, workers: usize, upstream: &Upstream) -> Gateway {
    let yaml = format!(
        "admin: {{ listen: 127.0.0.1:0 }}\nproviders:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: a, value: a }}] }}\n",
        upstream.url()
    );
    let setup = Setup { workers, danger_panic_mark: Some(MARK), ..Setup::with_control(driver) };
    setup.start(&yaml)
}

fn marked(fault: &str) -> Vec<u8> {
    messages(&protocol::request("claude-sonnet-5-5").replace("hi", &format!("{MARK}{fault}")))
}

fn plain() -> Vec<u8> {
    messages(&protocol::request("claude-sonnet-5-5"))
}

both_drivers! {
    /// The only worker's loop panics under an open stream and a held body: the stream's caller sees a cut, and every
    /// later call is served, those too that came while there was no loop.
    fn a_loop_that_panics_is_built_anew(driver) {
        let upstream = upstream();
        let gateway = start(driver, 1, &upstream);
        let address = gateway.address();
        for number in 1..=3 {
            let before = upstream.count();
            let mut stream = Client::connect(address);
            stream.send(messages(&protocol::stream_request("claude-sonnet-5-5")));
            wait_for("the stream is upstream", PATIENCE, || upstream.count() > before);
            let mut doomed = Client::connect(address);
            doomed.send(marked("-loop"));
            // Whether it is answered before the loop ends is chance; it may not be answered wrongly.
            if let Ok(reply) = doomed.try_reply(false) {
                assert_eq!(reply.status, 200);
            }
            wait_for("the loop is built anew", PATIENCE, || gateway.plane().rebuilds() == number);
            let ended = stream.try_head().and_then(|head| stream.events(&head).1);
            assert!(ended.is_err(), "the connections of a failed loop close: {ended:?}");
            assert_eq!(call(address, plain()).status, 200);
        }
        assert_eq!(gateway.plane().workers_alive(), 1);
        wait_for("nothing is held", PATIENCE, || {
            gateway.plane().connections() == 0 && gateway.plane().body_bytes() == 0
        });
        let metrics = gateway.control().metrics();
        assert!(metrics.contains("tidegate_worker_rebuilds 3"), "{metrics}");
    }

    /// A worker that fails again and again: the process is told to end.
    fn a_loop_that_panics_too_often_ends_the_process(driver) {
        let upstream = upstream();
        let gateway = start(driver, 1, &upstream);
        for number in 1..=tidegate_core::limits::WORKER_REBUILDS_MAX as u64 + 1 {
            let mut doomed = Client::connect(gateway.address());
            doomed.send(marked("-loop"));
            wait_for("the loop failed", PATIENCE, || gateway.plane().rebuilds() == number);
        }
        let gave_up = gateway.plane().gave_up();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(PATIENCE, gave_up).await }).expect("the process is told");
        gateway.expect_failure("failed too often");
    }

    /// A blocked worker is named by readiness and metrics while it is blocked, and no longer.
    fn a_worker_without_progress_is_found(driver) {
        let upstream = upstream();
        let gateway = start(driver, 1, &upstream);
        let ready = || gateway.control().ready();
        wait_for("it is ready", PATIENCE, || ready()["ready"] == true);
        let mut stalling = Client::connect(gateway.address());
        stalling.send(marked("-stall"));
        wait_for("it is noticed", PATIENCE, || ready()["workers"]["stalled"] == serde_json::json!([0]));
        let body = ready();
        assert_eq!((&body["ready"], &body["why"]), (&false.into(), &"a worker makes no progress".into()));
        assert!(gateway.control().metrics().contains("tidegate_workers_stalled 1"));
        // Its own deadlines may have passed meanwhile; an answer it gets.
        assert!([200, 502].contains(&stalling.reply().status));
        wait_for("it is ready again", PATIENCE, || ready()["ready"] == true);
        assert!(gateway.control().metrics().contains("tidegate_worker_stalls 1"));
    }

    /// Workers without a slot hand what they accept to one that has: as many connections are served as there are slots,
    /// wherever the kernel put them, and the next one as soon as one of them ends.
    fn a_full_worker_hands_over(driver) {
        const SLOTS: usize = 12;
        let upstream = Upstream::start(|heard| good(heard, "fine"));
        let yaml = format!(
            "providers:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: a, value: a }}] }}\n",
            upstream.url()
        );
        let gateway = Setup { workers: 3, slots: Some(SLOTS), ..Setup::new(driver) }.start(&yaml);
        wait_for("all workers run", PATIENCE, || gateway.plane().workers_alive() == 3);
        let mut clients: Vec<Client> = (0..SLOTS).map(|_| Client::connect(gateway.address())).collect();
        for client in &mut clients {
            client.send(plain());
            assert_eq!(client.reply().status, 200);
        }
        assert_eq!(gateway.plane().connections(), SLOTS as u64);
        let mut late = Client::connect(gateway.address());
        late.send(plain());
        assert!(!late.is_closed_within(Duration::from_millis(200)), "it waits, and is not refused");
        assert!(!late.has_surplus(), "all slots are taken");
        drop(clients.pop());
        assert_eq!(late.reply().status, 200);
    }

    /// One worker accepts all connections, because nobody connects to the other's socket: the other gets its share.
    fn a_worker_far_above_the_mean_hands_over(driver) {
        const CLIENTS: u64 = 120;
        let upstream = Upstream::start(|heard| good(heard, "fine"));
        let yaml = format!(
            "providers:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: a, value: a }}] }}\n",
            upstream.url()
        );
        let sockets = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let gateway = Setup::new(driver).start_on(sockets, &yaml);
        wait_for("both workers run", PATIENCE, || gateway.plane().workers_alive() == 2);
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(gateway.address())).collect();
        for client in &mut clients {
            client.send(plain());
            assert_eq!(client.reply().status, 200);
        }
        let each = gateway.plane().connections_each();
        assert_eq!(each.iter().sum::<u64>(), CLIENTS, "{each:?}");
        // One and a half times the mean and a few: from there on the other one takes what comes.
        assert!(each[0] <= CLIENTS / 2 * 3 / 2 + 10, "{each:?}");
        assert_eq!(gateway.plane().handed_over(), each[1]);
    }
}
