//! A panic inside one request ends that request, and no other on its worker.

use std::time::Duration;

use tidegate_tests::client::{self, Client, call, joined, messages};
use tidegate_tests::messages as protocol;
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::{Upstream, good, paced};
use tidegate_tests::{Setup, both_drivers};

const MARK: &str = "panic-mark-8f1c";

both_drivers! {
    /// Streams on the same worker go on, its next calls are served, and what the panicked one held is given back.
    fn one_request_panics(driver) {
        let upstream = Upstream::start(|heard| match heard.wants_stream() {
            true => paced(&protocol::stream("steady"), Duration::from_millis(200)),
            false => good(heard, "fine"),
        });
        let yaml = format!(
            "providers:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: a, value: a }}] }}\n",
            upstream.url()
        );
        let setup = Setup { workers: 1, danger_panic_mark: Some(MARK), ..Setup::new(driver) };
        let gateway = setup.start(&yaml);
        let address = gateway.address();
        let steady = std::thread::spawn(move || client::stream(address, &protocol::stream_request("claude-sonnet-5-5")));
        wait_for("the stream is upstream", Duration::from_secs(5), || upstream.count() == 1);
        for number in 1..=5 {
            let mut client = Client::connect(address);
            client.send(messages(&protocol::request("claude-sonnet-5-5").replace("hi", MARK)));
            match client.try_reply(false) {
                Ok(reply) => assert_eq!(reply.status, 500, "{}", reply.text()),
                Err(cut) => assert!(cut.contains("closed") || cut.contains("reset"), "{cut}"),
            }
            wait_for("the panic is counted", Duration::from_secs(2), || gateway.plane().panics() == number);
            assert_eq!(call(address, messages(&protocol::request("claude-sonnet-5-5"))).status, 200);
        }
        let (head, events, ended) = steady.join().expect("the stream's caller");
        assert_eq!((head.status, ended), (200, Ok(())));
        assert_eq!(joined(&events), protocol::stream("steady").concat());
        assert_eq!(gateway.plane().workers_alive(), 1);
        wait_for("nothing is held", Duration::from_secs(2), || {
            gateway.plane().connections() == 0 && gateway.plane().body_bytes() == 0
        });
    }
}
