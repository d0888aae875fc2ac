//! Where a call comes from: the word of a trusted proxy, by PROXY header or by a field of HTTP, and nobody else's.

use std::net::IpAddr;
use std::time::Duration;

use tidegate_tests::client::{Client, MESSAGES_FIELDS, request};
use tidegate_tests::messages as protocol;
use tidegate_tests::time::{pause_ms, wait_for};
use tidegate_tests::tls::{Authority, Trust};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::{Gateway, IoChoice, Setup, both_drivers};

/// The tests' own address is a proxy's, and those of a network.
const TRUSTING: &str = "trusted_proxies: [127.0.0.1, 10.0.0.0/8]\n";
/// It is a stranger's.
const DISTRUSTING: &str = "trusted_proxies: [10.0.0.0/8]\n";
const ANNOUNCED: &str = "proxy_protocol: true\n";
const HEADER: &str = "PROXY TCP4 203.0.113.7 127.0.0.1 40000 443\r\n";

struct Fixture {
    gateway: Gateway,
    upstream: Upstream,
    trust: Option<Trust>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new(driver: IoChoice, ingress: &str) -> Fixture {
        Fixture::start(driver, ingress, false)
    }

    fn with_tls(driver: IoChoice, ingress: &str) -> Fixture {
        Fixture::start(driver, ingress, true)
    }

    fn start(driver: IoChoice, ingress: &str, tls: bool) -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        let upstream = Upstream::good("fine");
        let authority = Authority::named("ours");
        let (cert, key) = authority.issue("localhost").write(folder.path());
        let pair = format!("tls: {{ cert_file: {}, key_file: {} }}\n", cert.display(), key.display());
        let provider = format!(
            "providers:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: k, value: sk-mock }}] }}\n",
            upstream.url()
        );
        let yaml = format!("{ingress}{}{provider}", if tls { &pair } else { "" });
        let gateway = Setup::new(driver).start(&yaml);
        Fixture { gateway, upstream, trust: tls.then(|| Trust::new(&authority)), _folder: folder }
    }

    fn connect(&self, before: &[u8]) -> Client {
        match &self.trust {
            Some(trust) => Client::try_connect_tls(self.gateway.address(), trust, before).expect("TLS"),
            None => {
                let mut client = Client::connect(self.gateway.address());
                client.send(before);
                client
            }
        }
    }

    /// The source that is reported of a call on `client` with these fields.
    #[track_caller]
    fn source(&mut self, client: &mut Client, fields: &[(&str, &str)]) -> String {
        self.gateway.calls();
        let fields = [&MESSAGES_FIELDS, fields].concat();
        client.send(request("POST /v1/messages", &fields, protocol::request("claude-sonnet-5-5")));
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let mut calls = Vec::new();
        wait_for("the call is reported", Duration::from_secs(5), || {
            calls.extend(self.gateway.calls());
            !calls.is_empty()
        });
        calls[0].source.as_ref().map_or("-".into(), IpAddr::to_string)
    }
}

/// A version 2 header from 2001:db8::7, with something more behind the addresses.
fn header_v2(command: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x21, 0, 36 + 5]);
    header.extend("2001:db8::7".parse::<std::net::Ipv6Addr>().expect("an address").octets());
    header.extend([0; 16]);
    header.extend([0x9c, 0x40, 0x01, 0xbb]);
    header.extend([0x04, 0, 2, 7, 7]);
    header
}

both_drivers! {
    /// Both versions, in front of plain requests and below TLS, for all calls of a connection.
    fn a_proxy_header_names_the_caller(driver) {
        for mut fixture in [Fixture::new(driver, &[TRUSTING, ANNOUNCED].concat()), Fixture::with_tls(driver, &[TRUSTING, ANNOUNCED].concat())] {
            for (header, expect) in [
                (HEADER.as_bytes().to_vec(), "203.0.113.7"),
                (header_v2(1), "2001:db8::7"),
                // The proxy's own, and one that it does not know.
                (header_v2(0), "127.0.0.1"),
                (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
            ] {
                let mut client = fixture.connect(&header);
                assert_eq!(fixture.source(&mut client, &[]), expect);
                assert_eq!(fixture.source(&mut client, &[]), expect);
            }
            assert_eq!(fixture.gateway.plane().proxy_headers_refused(), 0);
        }
    }

    /// Byte by byte, and together with the request behind it.
    fn a_proxy_header_comes_in_any_pieces(driver) {
        let mut fixture = Fixture::new(driver, &[TRUSTING, ANNOUNCED].concat());
        for header in [HEADER.as_bytes().to_vec(), header_v2(1)] {
            let mut slow = fixture.connect(b"");
            for byte in &header {
                slow.send([*byte]);
                pause_ms(1);
            }
            assert_ne!(fixture.source(&mut slow, &[]), "127.0.0.1");
        }
        let mut at_once = fixture.connect(b"");
        at_once.send([HEADER.as_bytes(), &request("GET /", &[], "")].concat());
        assert_eq!(at_once.reply().status, 200);
        assert_eq!(fixture.source(&mut at_once, &[]), "203.0.113.7");
    }

    /// A trusted proxy that does not say whose connection it is gets no answer, whatever it says instead.
    fn a_trusted_proxy_must_announce(driver) {
        let fixture = Fixture::new(driver, &[TRUSTING, ANNOUNCED].concat());
        let endless = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x21\xff\xff"[..], &[7; 4096]].concat();
        let wrong: [&[u8]; 4] = [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"PROXY TCP4 nobody\r\n", b"\x16\x03\x01\x02\x00", &endless];
        for (at, bytes) in wrong.into_iter().enumerate() {
            let mut client = Client::connect(fixture.gateway.address());
            client.try_send(bytes);
            assert!(client.is_closed_within(Duration::from_secs(5)) && !client.has_surplus());
            wait_for("it is counted", Duration::from_secs(5), || fixture.gateway.plane().proxy_headers_refused() == at as u64 + 1);
        }
        assert_eq!(fixture.upstream.count(), 0);
    }

    /// From anybody else such a header is no header but a bad request, and the fields of HTTP say nothing.
    fn forged_words_are_ignored(driver) {
        let mut plain = Fixture::new(driver, &[DISTRUSTING, ANNOUNCED].concat());
        for header in [HEADER.as_bytes().to_vec(), header_v2(1)] {
            let mut client = Client::connect(plain.gateway.address());
            client.send([&header[..], &request("GET /", &[], "")].concat());
            let reply = client.reply();
            assert_eq!(reply.status, 400, "{}", reply.text());
            assert!(client.is_closed_within(Duration::from_secs(5)));
        }
        let forged = [("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=203.0.113.7")];
        let mut honest = plain.connect(b"");
        assert_eq!(plain.source(&mut honest, &forged), "127.0.0.1");
        let tls = Fixture::with_tls(driver, &[DISTRUSTING, ANNOUNCED].concat());
        let trust = tls.trust.clone().expect("it has TLS");
        assert!(Client::try_connect_tls(tls.gateway.address(), &trust, HEADER.as_bytes()).is_err());
        assert_eq!((plain.upstream.count(), tls.upstream.count()), (1, 0));
        // Where nothing was said about proxies, nobody is one.
        let mut bare = Fixture::new(driver, "");
        let mut client = bare.connect(b"");
        assert_eq!(bare.source(&mut client, &forged), "127.0.0.1");
    }

    /// What trusted proxies say in HTTP, call by call: the nearest address that is none of theirs.
    fn fields_of_trusted_proxies_name_the_caller(driver) {
        let mut fixture = Fixture::new(driver, TRUSTING);
        let mut client = fixture.connect(b"");
        for (fields, expect) in [
            (&[][..], "127.0.0.1"),
            (&[("x-forwarded-for", "203.0.113.7")], "203.0.113.7"),
            (&[("X-Forwarded-For", "6.6.6.6, 203.0.113.7, 10.1.2.3")], "203.0.113.7"),
            (&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.7:4711, 10.1.2.3")], "203.0.113.7"),
            (&[("x-forwarded-for", "203.0.113.7, nonsense")], "127.0.0.1"),
            (&[("forwarded", "for=6.6.6.6, for=\"[2001:db8::7]:1\";proto=https, for=10.0.0.1")], "2001:db8::7"),
            (&[("forwarded", "for=203.0.113.7"), ("x-forwarded-for", "203.0.113.7")], "203.0.113.7"),
            (&[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "203.0.113.7")], "127.0.0.1"),
        ] {
            assert_eq!(fixture.source(&mut client, fields), expect, "{fields:?}");
        }
    }

    /// A load balancer that announces a proxy of HTTP, which in turn names the caller.
    fn both_kinds_of_proxies_in_a_row(driver) {
        let mut fixture = Fixture::new(driver, &[TRUSTING, ANNOUNCED].concat());
        let mut client = fixture.connect(b"PROXY TCP4 10.9.9.9 127.0.0.1 40000 443\r\n");
        assert_eq!(fixture.source(&mut client, &[("x-forwarded-for", "203.0.113.7")]), "203.0.113.7");
        let mut stranger = fixture.connect(HEADER.as_bytes());
        assert_eq!(fixture.source(&mut stranger, &[("x-forwarded-for", "6.6.6.6")]), "203.0.113.7");
    }
}
