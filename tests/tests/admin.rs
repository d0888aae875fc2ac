//! The admin port: who is told what, on which address, with which token; and that nothing sent to it is an error of the
//! gateway's own.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_tests::client::{Client, Reply, call, fields, request};
use tidegate_tests::time::{now, wait_for};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::{Gateway, IoChoice, Setup, both_drivers};

const TOKEN: &str = "admin-token-0123456789-0123456789-0123";
const API: &str = "GET /api/v1/status";

fn start(driver: IoChoice, upstream: &Upstream, admin: &str) -> Gateway {
    let yaml = format!(
        "admin: {{ {admin} }}\nproviders:\n  anthropic: {{ base_url: \"{}\", keys: [{{ name: k, value: upstream-key-of-a-test }}] }}\n",
        upstream.url()
    );
    Setup::with_control(driver).start(&yaml)
}

/// The port of a listener that may be bound wider, reached by loopback.
fn reached(gateway: &Gateway) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], gateway.control().admin().port()))
}

fn ask(admin: SocketAddr, line: &str, host: &str, token: Option<&str>) -> Reply {
    let authorization = token.map(|it| format!("Bearer {it}"));
    let fields: Vec<(&str, &str)> = authorization.iter().map(|it| ("authorization", it.as_str())).collect();
    let bytes = String::from_utf8(request(line, &fields, "")).expect("text");
    call(admin, bytes.replace("host: gateway", &format!("host: {host}")))
}

/// Without what passes: an answer's date.
fn lasting(reply: &Reply) -> (u16, Vec<(&str, &str)>, &[u8]) {
    (reply.status, fields(&reply.head).filter(|it| !it.0.eq_ignore_ascii_case("date")).collect(), &reply.body)
}

both_drivers! {
    /// Address by token: probes and metrics answer everybody who reaches the port; the status needs the token, or on
    /// loopback and without one a request that names this host.
    fn the_status_is_shown_to_nobody_by_mistake(driver) {
        let upstream = Upstream::good("fine");
        let token = format!(", token: {TOKEN}");
        for (listen, token, presented, host, expect) in [
            ("127.0.0.1:0", "", None, "127.0.0.1", 200),
            ("127.0.0.1:0", "", None, "localhost:4001", 200),
            ("127.0.0.1:0", "", None, "evil.example", 403),
            ("127.0.0.1:0", "", None, "127.0.0.1.evil.example", 403),
            ("127.0.0.1:0", "", None, "", 403),
            ("127.0.0.1:0", "", Some(TOKEN), "evil.example", 403),
            ("0.0.0.0:0", "", None, "127.0.0.1", 403),
            ("0.0.0.0:0", "", Some(TOKEN), "127.0.0.1", 403),
            ("127.0.0.1:0", &token, None, "127.0.0.1", 401),
            ("127.0.0.1:0", &token, Some(TOKEN), "any.example", 200),
            ("0.0.0.0:0", &token, None, "127.0.0.1", 401),
            ("0.0.0.0:0", &token, Some("wrong"), "127.0.0.1", 401),
            ("0.0.0.0:0", &token, Some(TOKEN), "any.example", 200),
        ] {
            let gateway = start(driver, &upstream, &format!("listen: \"{listen}\"{token}"));
            let admin = reached(&gateway);
            let reply = ask(admin, API, host, presented);
            assert_eq!(reply.status, expect, "{listen}{token}, {presented:?}, {host}");
            assert_eq!(reply.text().contains("accounts"), expect == 200);
            for open in ["GET /livez", "GET /readyz", "GET /metrics"] {
                // Whether it is ready is another matter: its workers may just be starting.
                let status = ask(admin, open, host, None).status;
                assert!(matches!(status, 200 | 503), "{open} on {listen}{token}: {status}");
            }
        }
    }

    /// None, wrong, cut, longer, another scheme: one answer.
    fn every_wrong_token_gets_the_same_answer(driver) {
        let upstream = Upstream::good("fine");
        let gateway = start(driver, &upstream, &format!("listen: \"127.0.0.1:0\", token: {TOKEN}"));
        let admin = reached(&gateway);
        let none = ask(admin, API, "127.0.0.1", None);
        assert_eq!(none.status, 401);
        let longer = format!("{TOKEN}x");
        for token in ["", "x", &TOKEN[..TOKEN.len() - 1], &longer, &TOKEN.to_uppercase(), &"x".repeat(5_000)] {
            assert_eq!(lasting(&ask(admin, API, "127.0.0.1", Some(token))), lasting(&none), "{token}");
        }
        for value in [TOKEN.to_owned(), format!("Basic {TOKEN}"), format!("bearer{TOKEN}"), format!("Bearer  {TOKEN}")] {
            let reply = call(admin, request(API, &[("authorization", &value)], ""));
            assert_eq!(lasting(&reply), lasting(&none), "{value}");
        }
        assert_eq!(ask(admin, API, "127.0.0.1", Some(TOKEN)).status, 200);
    }

    /// It changes nothing, whoever asks: no method but reading is known, and no page of another origin may read.
    fn it_only_shows(driver) {
        let upstream = Upstream::good("fine");
        let gateway = start(driver, &upstream, "listen: \"127.0.0.1:0\"");
        let admin = reached(&gateway);
        for path in ["/livez", "/readyz", "/metrics", "/api/v1/status", "/nothing", "/"] {
            for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"] {
                let fields = [("origin", "https://evil.example"), ("content-type", "text/plain")];
                let reply = call(admin, request(&format!("{method} {path}"), &fields, "x=1"));
                assert!(matches!(reply.status, 404 | 405), "{method} {path}: {}", reply.status);
                assert_eq!(reply.field("access-control-allow-origin"), None);
            }
            let reply = call(admin, request(&format!("GET {path}"), &[("origin", "https://evil.example")], ""));
            assert_eq!(reply.field("access-control-allow-origin"), None, "{path}");
        }
    }

    /// Whatever is sent: an answer that blames the sender or a close, never a 5xx; and the next probe is answered.
    fn nothing_sent_to_it_is_its_own_error(driver) {
        let upstream = Upstream::good("fine");
        let gateway = start(driver, &upstream, &format!("listen: \"127.0.0.1:0\", token: {TOKEN}"));
        let admin = reached(&gateway);
        let long = "a".repeat(100_000);
        let many: String = (0..500).map(|it| format!("x-{it}: 1\r\n")).collect();
        let lines = ["GET /livez", "GET /readyz", "GET /metrics", "GET /api/v1/status"];
        for line in lines {
            for hostile in [
                format!("{line}?x={long} HTTP/1.1\r\nhost: g\r\n\r\n"),
                format!("{line}?%00%ff=%zz HTTP/1.1\r\nhost: g\r\n\r\n"),
                format!("{line} HTTP/1.1\r\nhost: g\r\nx-long: {long}\r\n\r\n"),
                format!("{line} HTTP/1.1\r\nhost: g\r\n{many}\r\n"),
                format!("{line} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer \u{e9}\u{ff}\r\n\r\n"),
                format!("{line} HTTP/1.1\r\nhost: g\r\nauthorization:\r\nauthorization: Bearer {TOKEN}\r\n\r\n"),
                format!("{line} HTTP/1.1\r\nhost: \u{e9}\r\nhost: two\r\n\r\n"),
                format!("{line} HTTP/1.1\r\n\r\n"),
                format!("{line} HTTP/1.0\r\n\r\n"),
                format!("{line} HTTP/9.9\r\n\r\n"),
                format!("{line} HTTP/1.1\r\nhost: g\r\ncontent-length: 99999999999\r\n\r\n"),
                format!("{line} HTTP/1.1\r\nhost: g\r\ncontent-length: -1\r\n\r\n"),
                format!("{line} HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
                format!("{line} HTTP/1.1\r\nhost: g\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"),
                format!("{line}/../../etc/passwd HTTP/1.1\r\nhost: g\r\n\r\n"),
                format!("{line}%2f..%2f HTTP/1.1\r\nhost: g\r\n\r\n"),
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
                "\0\u{1}\u{2}\r\n\r\n".into(),
            ] {
                let mut client = Client::connect(admin);
                client.try_send(&hostile);
                client.try_finish();
                let shown: String = hostile.chars().take(120).collect();
                if let Ok(reply) = client.try_head() {
                    assert!(reply.status < 500, "{shown:?}: {}", reply.status);
                }
            }
        }
        assert_eq!(ask(admin, "GET /livez", "g", None).status, 200);
    }

    /// Half a request holds one of its places for its deadline, and a crowd of them keeps nobody out for longer.
    fn a_crowd_of_halves_goes_away(driver) {
        let upstream = Upstream::good("fine");
        let gateway = start(driver, &upstream, "listen: \"127.0.0.1:0\"");
        let admin = reached(&gateway);
        let mut crowd: Vec<Client> = (0..100).map(|_| {
            let mut client = Client::connect(admin);
            client.send("GET /livez HTTP/1.1\r\nhost: g\r\n");
            client
        }).collect();
        let began = now();
        let mut answered = Client::connect(admin);
        answered.send(request("GET /livez", &[], ""));
        assert_eq!(answered.reply().status, 200);
        assert!(began.elapsed() < Duration::from_secs(35), "{:?}", began.elapsed());
        wait_for("they are closed", Duration::from_secs(35), || {
            crowd.retain_mut(|it| !it.is_closed_within(Duration::from_millis(1)));
            crowd.is_empty()
        });
    }
}
