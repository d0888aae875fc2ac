//! TLS on the data port: what is spoken and what is refused, who has to prove what, and that neither a renewed
//! certificate nor a crowd of clients at their handshake is felt by a call that runs.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustls::{HandshakeKind, ProtocolVersion};
use tidegate_core::limits::{HANDSHAKE_STEPS_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX};
use tidegate_tests::client::{Client, joined, messages};
use tidegate_tests::messages as protocol;
use tidegate_tests::time::{now, pause_ms, wait_for};
use tidegate_tests::tls::{Authority, Identity, Trust};
use tidegate_tests::upstream::{Step, Upstream, good, paced};
use tidegate_tests::{Gateway, IoChoice, Setup, both_drivers};

/// What begins a handshake of 512 bytes, of which no more than this comes.
const HALF_A_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

fn yaml(upstream: &Upstream, folder: &Path, more: &str) -> String {
    let folder = folder.display();
    format!(
        "admin: {{ listen: \"127.0.0.1:0\" }}\ntls: {{ cert_file: {folder}/cert.pem, key_file: {folder}/key.pem{more} }}\n\
         providers:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: k, value: sk-mock }}] }}\n",
        upstream.url()
    )
}

struct Fixture {
    folder: tempfile::TempDir,
    authority: Authority,
    upstream: Upstream,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::named("ours");
        authority.issue("localhost").write(folder.path());
        let upstream = Upstream::start(|heard| match heard.wants_stream() {
            true => paced(&protocol::stream("steady"), Duration::from_millis(100)),
            false => good(heard, "fine"),
        });
        Fixture { folder, authority, upstream }
    }

    fn start(&self, setup: Setup, more: &str) -> Gateway {
        let text = yaml(&self.upstream, self.folder.path(), more);
        let file = self.folder.path().join("tidegate.yaml");
        std::fs::write(&file, &text).expect("a file");
        Setup { file: Some(file), ..setup }.start(&text)
    }

    fn trust(&self) -> Trust {
        Trust::new(&self.authority)
    }
}

/// One whole call.
#[track_caller]
fn call(client: &mut Client) {
    client.send(messages(&protocol::request("claude-sonnet-5-5")));
    let reply = client.reply();
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// How many handshakes ended so.
fn ended(gateway: &Gateway, end: &str) -> u64 {
    gateway.plane().handshakes().iter().find(|it| it.0 == end).expect("a known end").1
}

/// The serial number tells certificates apart.
fn certificate(client: &Client) -> Vec<u8> {
    client.session().peer_certificates().expect("a server's certificate")[0].to_vec()
}

fn stalled(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("the gateway listens");
    socket.write_all(HALF_A_HELLO).expect("sent");
    socket
}

both_drivers! {
    /// Whole replies and streams over TLS 1.3 and 1.2, one after another on a connection, ended by a close_notify.
    fn calls_and_streams(driver) {
        let fixture = Fixture::new();
        let gateway = fixture.start(Setup::new(driver), "");
        for (trust, version) in [
            (fixture.trust(), ProtocolVersion::TLSv1_3),
            (Trust::tls12(&fixture.authority), ProtocolVersion::TLSv1_2),
        ] {
            let mut client = Client::connect_tls(gateway.address(), &trust.offering(&["h2", "http/1.1"]));
            assert_eq!(client.session().protocol_version(), Some(version));
            assert_eq!(client.session().alpn_protocol(), Some(&b"http/1.1"[..]));
            call(&mut client);
            client.send(messages(&protocol::stream_request("claude-sonnet-5-5")));
            let head = client.try_head().expect("a head");
            let (events, ended) = client.events(&head);
            assert_eq!((head.status, ended), (200, Ok(())));
            assert_eq!(joined(&events), protocol::stream("steady").concat());
            call(&mut client);
            client.send("GET / HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n");
            assert_eq!(client.reply().status, 200);
            // An end without close_notify would be an error of another kind.
            let end = client.try_reply(false).err();
            assert_eq!(end.as_deref(), Some("closed before the end of a head: \"\""));
        }
        assert_eq!(ended(&gateway, "full"), 2);
    }

    /// A second connection takes the session up again, on whichever worker, with TLS 1.3 and 1.2.
    fn sessions_are_resumed(driver) {
        let fixture = Fixture::new();
        let gateway = fixture.start(Setup { workers: 4, ..Setup::new(driver) }, "");
        for trust in [fixture.trust(), Trust::tls12(&fixture.authority)] {
            let kinds: Vec<HandshakeKind> = (0..8).map(|_| {
                let mut client = Client::connect_tls(gateway.address(), &trust);
                call(&mut client);
                client.session().handshake_kind().expect("a handshake")
            }).collect();
            assert!(matches!(kinds[0], HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest));
            assert_eq!(kinds[1..], [HandshakeKind::Resumed; 7]);
        }
        assert_eq!((ended(&gateway, "full"), ended(&gateway, "resumed")), (2, 14));
    }

    /// `http/1.1` or no word about it; a client that wants something else alone is refused.
    fn another_protocol_is_refused(driver) {
        let fixture = Fixture::new();
        let gateway = fixture.start(Setup::new(driver), "");
        let mut silent = Client::connect_tls(gateway.address(), &fixture.trust());
        assert_eq!(silent.session().alpn_protocol(), None);
        call(&mut silent);
        let refused = Client::try_connect_tls(gateway.address(), &fixture.trust().offering(&["h2"]), b"").err();
        assert!(refused.as_ref().is_some_and(|it| it.contains("NoApplicationProtocol")), "{refused:?}");
        wait_for("it is counted", Duration::from_secs(5), || ended(&gateway, "not_spoken") == 1);
    }

    /// Plain requests on the TLS port get no answer in HTTP, and no call is made of them.
    fn plain_requests_are_not_served(driver) {
        let fixture = Fixture::new();
        let gateway = fixture.start(Setup::new(driver), "");
        let mut client = Client::connect(gateway.address());
        client.send(messages(&protocol::request("claude-sonnet-5-5")));
        let wrong = client.try_reply(false).expect_err("no reply in HTTP");
        assert!(!wrong.contains("HTTP/1.1"), "{wrong}");
        wait_for("it is counted", Duration::from_secs(5), || ended(&gateway, "not_spoken") == 1);
        assert_eq!(fixture.upstream.count(), 0);
    }

    /// With `client_ca_file` a client needs a certificate of those authorities; others get nothing.
    fn clients_prove_who_they_are(driver) {
        let fixture = Fixture::new();
        let clients = Authority::named("clients");
        let ca_file = fixture.folder.path().join("clients.pem");
        std::fs::write(&ca_file, clients.pem()).expect("a file");
        let gateway = fixture.start(Setup::new(driver), &format!(", client_ca_file: {}", ca_file.display()));
        let known = Trust::proving(&fixture.authority, &clients.issue("team"));
        call(&mut Client::connect_tls(gateway.address(), &known));
        // Its session is resumed, and is still that client's.
        call(&mut Client::connect_tls(gateway.address(), &known));
        let foreign = Authority::named("clients").issue("team");
        let expired = clients.issue_with("team", |it| it.not_after = rcgen::date_time_ymd(2020, 1, 1));
        for (trust, end) in [
            (fixture.trust(), "no_certificate"),
            (Trust::proving(&fixture.authority, &foreign), "bad_certificate"),
            (Trust::proving(&fixture.authority, &expired), "bad_certificate"),
        ] {
            let before = ended(&gateway, end);
            // In TLS 1.3 a client learns of its refusal with the first read.
            let outcome = Client::try_connect_tls(gateway.address(), &trust, b"").and_then(|mut client| {
                client.try_send(messages(&protocol::request("claude-sonnet-5-5")));
                client.try_reply(false)
            });
            assert!(outcome.is_err(), "{end}");
            wait_for(end, Duration::from_secs(5), || ended(&gateway, end) == before + 1);
        }
        assert_eq!((fixture.upstream.count(), ended(&gateway, "resumed")), (2, 1));
    }

    /// A renewed certificate: new connections see it, those that are open go on, sessions are still resumed. A pair
    /// that does not belong together changes nothing.
    fn a_renewal_cuts_nothing(driver) {
        let fixture = Fixture::new();
        let gateway = fixture.start(Setup::with_control(driver), "");
        let trust = fixture.trust();
        let mut kept = Client::connect_tls(gateway.address(), &trust);
        call(&mut kept);
        let mut streaming = Client::connect_tls(gateway.address(), &fixture.trust());
        streaming.send(messages(&protocol::stream_request("claude-sonnet-5-5")));
        let head = streaming.try_head().expect("a head");
        let before = certificate(&kept);
        let renewed = fixture.authority.issue("localhost");
        renewed.write(fixture.folder.path());
        gateway.control().reload().expect("a good configuration");
        let (events, stream_ended) = streaming.events(&head);
        assert_eq!(stream_ended, Ok(()));
        assert_eq!(joined(&events), protocol::stream("steady").concat());
        call(&mut kept);
        let fresh = Client::connect_tls(gateway.address(), &fixture.trust());
        assert_ne!(certificate(&fresh), before);
        let resumed = Client::connect_tls(gateway.address(), &trust);
        assert_eq!(resumed.session().handshake_kind(), Some(HandshakeKind::Resumed));
        // Half of the next renewal.
        let other = Identity { key_pem: renewed.key_pem, ..fixture.authority.issue("localhost") };
        other.write(fixture.folder.path());
        let wrong = gateway.control().reload().expect_err("a key of another certificate");
        assert!(wrong.contains("does not belong to the first certificate"), "{wrong}");
        call(&mut kept);
        assert_eq!(certificate(&Client::connect_tls(gateway.address(), &fixture.trust())), certificate(&fresh));
    }

    /// The files are looked at: nobody has to say that a certificate was renewed. Operators see how long it is good.
    fn a_renewal_is_found(driver) {
        let fixture = Fixture::new();
        let gateway = fixture.start(Setup::with_control(driver), "");
        let before = certificate(&Client::connect_tls(gateway.address(), &fixture.trust()));
        pause_ms(500);
        let in_a_year = |it: &mut rcgen::CertificateParams| it.not_after = rcgen::date_time_ymd(2070, 1, 1);
        fixture.authority.issue_with("localhost", in_a_year).write(fixture.folder.path());
        wait_for("the new certificate is shown", Duration::from_secs(10), || {
            certificate(&Client::connect_tls(gateway.address(), &fixture.trust())) != before
        });
        let metrics = gateway.control().metrics();
        let left = metrics.lines().find_map(|it| it.strip_prefix("tidegate_tls_certificate_expiry_seconds "));
        let left_s: i64 = left.expect("the gauge").parse().expect("seconds");
        let until_2070_s = 3_155_760_000 - tidegate_tests::time::wall_s();
        assert!((left_s - until_2070_s).abs() < 60, "{left_s} {until_2070_s}");
        assert!(metrics.contains("tidegate_tls_handshakes_total{end=\"full\"}"), "{metrics}");
    }

    /// Who does not get on with the handshake is let go at its deadline.
    fn a_slow_handshake_ends_at_its_deadline(driver) {
        let fixture = Fixture::new();
        let gateway = fixture.start(Setup::new(driver), "");
        let mut silent = Client::connect(gateway.address());
        let mut halfway = Client::connect(gateway.address());
        halfway.send(HALF_A_HELLO);
        let began = now();
        for client in [&mut halfway, &mut silent] {
            assert!(client.is_closed_within(HANDSHAKE_TIMEOUT + Duration::from_secs(3)));
            assert!(began.elapsed() > HANDSHAKE_TIMEOUT - Duration::from_secs(1));
        }
        assert_eq!(ended(&gateway, "timed_out"), 2);
    }

    /// As many unfinished handshakes as there may be: calls that run do not feel it, the next client waits its turn.
    fn a_crowd_at_the_door_does_not_stop_calls(driver) {
        let fixture = Fixture::new();
        let gateway = fixture.start(Setup { workers: 1, ..Setup::new(driver) }, "");
        let mut running = Client::connect_tls(gateway.address(), &fixture.trust());
        call(&mut running);
        let crowd: Vec<TcpStream> = (0..HANDSHAKES_MAX).map(|_| stalled(gateway.address())).collect();
        wait_for("all of them are in", Duration::from_secs(5), || {
            gateway.plane().connections() == HANDSHAKES_MAX as u64 + 1
        });
        let (address, trust) = (gateway.address(), fixture.trust());
        let next = std::thread::spawn(move || call(&mut Client::connect_tls(address, &trust)));
        let began = now();
        for _ in 0..50 {
            call(&mut running);
        }
        assert!(began.elapsed() < Duration::from_secs(3), "{:?} for 50 calls", began.elapsed());
        pause_ms(200);
        assert!(!next.is_finished(), "there was no turn for it");
        drop(crowd);
        next.join().expect("its turn came");
        wait_for("all left", Duration::from_secs(5), || ended(&gateway, "left") == HANDSHAKES_MAX as u64);
    }

    /// Many more handshakes at once than a worker computes in one turn of its loop: each client gets its own.
    fn a_burst_of_handshakes_comes_through(driver) {
        const CLIENTS: usize = 16 * HANDSHAKE_STEPS_MAX;
        let fixture = Fixture::new();
        let gateway = fixture.start(Setup { workers: 1, ..Setup::new(driver) }, "");
        let clients: Vec<_> = (0..CLIENTS).map(|_| {
            let (address, trust) = (gateway.address(), fixture.trust());
            std::thread::spawn(move || call(&mut Client::connect_tls(address, &trust)))
        }).collect();
        clients.into_iter().for_each(|it| it.join().expect("served"));
        assert_eq!((ended(&gateway, "full"), fixture.upstream.count()), (CLIENTS as u64, CLIENTS));
    }

    /// A drain waits for nobody who has not begun, and a handshake under way gets no call through.
    fn a_drain_ends_what_has_not_begun(driver) {
        let fixture = Fixture::new();
        let gateway = fixture.start(Setup::new(driver), "");
        let mut silent = Client::connect(gateway.address());
        wait_for("it is in", Duration::from_secs(5), || gateway.plane().connections() == 1);
        let mut idle = Client::connect_tls(gateway.address(), &fixture.trust());
        call(&mut idle);
        gateway.plane().drain();
        assert!(silent.is_closed_within(Duration::from_secs(3)));
        // An idle connection is told that nothing was cut.
        assert_eq!(idle.try_reply(false).err().as_deref(), Some("closed before the end of a head: \"\""));
    }

    /// A caller who leaves while the provider thinks is noticed through TLS, too.
    fn a_caller_who_leaves_is_noticed(driver) {
        let fixture = Fixture::new();
        let slow = Upstream::start(|_| vec![Step::Pause(Duration::from_secs(20)), Step::Close]);
        let gateway = Setup::new(driver).start(&yaml(&slow, fixture.folder.path(), ""));
        for orderly in [true, false] {
            let (asked, left) = (slow.count(), slow.left());
            let mut client = Client::connect_tls(gateway.address(), &fixture.trust());
            client.send(messages(&protocol::stream_request("claude-sonnet-5-5")));
            wait_for("the provider is asked", Duration::from_secs(5), || slow.count() == asked + 1);
            if orderly {
                client.finish();
            }
            drop(client);
            wait_for("the provider is left", Duration::from_secs(5), || slow.left() == left + 1);
        }
    }

    /// What a client proved to authorities that are no longer asked is forgotten with them.
    fn sessions_end_with_the_authorities_they_were_proved_to(driver) {
        let fixture = Fixture::new();
        let (old, new) = (Authority::named("old"), Authority::named("new"));
        let ca_file = fixture.folder.path().join("clients.pem");
        std::fs::write(&ca_file, old.pem()).expect("a file");
        let more = format!(", client_ca_file: {}", ca_file.display());
        let gateway = fixture.start(Setup::with_control(driver), &more);
        let known = Trust::proving(&fixture.authority, &old.issue("team"));
        call(&mut Client::connect_tls(gateway.address(), &known));
        std::fs::write(&ca_file, new.pem()).expect("a file");
        gateway.control().reload().expect("a good configuration");
        let outcome = Client::try_connect_tls(gateway.address(), &known, b"").and_then(|mut client| {
            client.try_send(messages(&protocol::request("claude-sonnet-5-5")));
            client.try_reply(false)
        });
        assert!(outcome.is_err(), "{outcome:?}");
        call(&mut Client::connect_tls(gateway.address(), &Trust::proving(&fixture.authority, &new.issue("team"))));
        assert_eq!(fixture.upstream.count(), 2);
    }
}

/// The outcome of a handshake by `openssl s_client` with these arguments: what it reports, or `None` where it failed.
fn openssl(address: SocketAddr, arguments: &[&str]) -> Option<String> {
    let output = Command::new("openssl")
        .args(["s_client", "-brief", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("it was there a moment ago");
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success() && report.contains("CONNECTION ESTABLISHED")).then_some(report)
}

/// What another implementation is offered: every suite it knows, one at a time, and every protocol.
#[test]
#[expect(clippy::print_stderr, reason = "a test that could not ask says so")]
fn no_weak_offer() {
    let known = Command::new("openssl").args(["ciphers", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]).output();
    let Ok(known) = known else {
        eprintln!("skipped: no `openssl` on this host to ask with");
        return;
    };
    let fixture = Fixture::new();
    let gateway = fixture.start(Setup::new(IoChoice::Epoll), "");
    let address = gateway.address();
    for old in ["-tls1", "-tls1_1"] {
        assert_eq!(openssl(address, &[old, "-cipher", "ALL:@SECLEVEL=0"]), None, "{old}");
    }
    let modern = openssl(address, &["-tls1_3"]).expect("TLS 1.3");
    assert!(modern.contains("Protocol version: TLSv1.3"), "{modern}");
    let mut taken: Vec<String> = Vec::new();
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    for suite in known.trim().split(':').filter(|it| !it.starts_with("TLS_")) {
        let only = format!("{suite}:@SECLEVEL=0");
        if openssl(address, &["-tls1_2", "-cipher", &only]).is_some() {
            taken.push(suite.to_owned());
        }
    }
    taken.sort();
    // The certificate is ECDSA's; with an RSA one the same three stand with `RSA` in their names.
    let strong =
        ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];
    assert_eq!(taken, strong);
    let weaker_first = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384";
    let chosen = openssl(address, &["-tls1_2", "-cipher", weaker_first]).expect("either");
    assert!(
        chosen.contains("Ciphersuite: ECDHE-ECDSA-AES256-GCM-SHA384"),
        "the gateway's order counts: {chosen}"
    );
}
