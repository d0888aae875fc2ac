//! HTTPS towards providers: a certificate is accepted for the name and by the authority it should be, or nothing is
//! sent. Never plain, never unverified; the caller and the operator read which check failed. The provider is the mock
//! behind a certificate of this test's own, and a wire between the two that keeps what the gateway sent.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tidegate_loadtest::mock::{Mock, MockConfig, MockHandle, TlsConfig};
use tidegate_tests::client::{self, Reply, call, messages};
use tidegate_tests::messages as protocol;
use tidegate_tests::time::wait_for;
use tidegate_tests::tls::{Authority, Identity};
use tidegate_tests::{Gateway, IoChoice, Setup, both_drivers};

const MODEL: &str = "claude-sonnet-5-5";
/// The key that must not be on the wire.
const KEY: &str = "sk-mock";

/// A mock that proves to be `identity`.
fn mock(driver: IoChoice, identity: Identity) -> MockHandle {
    let tls = TlsConfig { chain_pem: identity.chain_pem, key_pem: identity.key_pem };
    let driver = tidegate_gateway::select(driver).expect("a driver").driver;
    Mock::start(MockConfig { tls: Some(tls), ..MockConfig::default() }, driver).expect("a mock")
}

/// What was sent on each connection of the gateway.
struct Tapped {
    address: SocketAddr,
    sent: Receiver<Vec<u8>>,
}

/// Listens in front of what `serve` does with each connection, and hands on what the gateway sent on it.
fn tap(serve: impl Fn(TcpStream, &mut Vec<u8>) + Send + Sync + 'static) -> Tapped {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (sender, sent): (SyncSender<Vec<u8>>, _) = sync_channel(64);
    std::thread::spawn(move || {
        let serve = Arc::new(serve);
        for socket in listener.incoming().flatten() {
            let (serve, sender) = (serve.clone(), sender.clone());
            std::thread::spawn(move || {
                let mut heard = Vec::new();
                serve(socket, &mut heard);
                // A test that is over no longer listens.
                let _ = sender.send(heard);
            });
        }
    });
    Tapped { address, sent }
}

/// Passes everything on to `to` and back.
fn relay(to: SocketAddr) -> Tapped {
    tap(move |mut near, heard| {
        let mut far = TcpStream::connect(to).expect("the mock listens");
        let (mut near_back, mut far_back) =
            (near.try_clone().expect("a copy"), far.try_clone().expect("a copy"));
        let back = std::thread::spawn(move || {
            let _ = std::io::copy(&mut far_back, &mut near_back);
            let _ = near_back.shutdown(Shutdown::Both);
        });
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = near.read(&mut buffer) {
            heard.extend_from_slice(&buffer[..count]);
            if far.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = far.shutdown(Shutdown::Both);
        let _ = back.join();
    })
}

/// Reads something, answers with these bytes, and leaves.
fn answers(bytes: &'static [u8]) -> Tapped {
    tap(move |mut socket, heard| {
        let mut buffer = [0; 4096];
        let count = socket.read(&mut buffer).unwrap_or(0);
        heard.extend_from_slice(&buffer[..count]);
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(Shutdown::Write);
        while let Ok(count @ 1..) = socket.read(&mut buffer) {
            heard.extend_from_slice(&buffer[..count]);
        }
    })
}

fn trusting(authority: &Authority) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, authority.pem()).expect("a file");
    (folder, path)
}

fn yaml(address: SocketAddr, ca_file: &std::path::Path) -> String {
    format!(
        "admin: {{ listen: \"127.0.0.1:0\" }}\nproviders:\n  main: {{ kind: anthropic, base_url: \"https://{address}\", ca_file: \"{}\", keys: [{{ name: k, value: {KEY} }}] }}\n",
        ca_file.display()
    )
}

/// A call through a gateway that trusts `authority` alone beside the host's roots: it fails with 502 by this check,
/// which is named to the caller and in the metrics, and nothing but the beginning of a handshake was sent.
#[track_caller]
fn refused_as(check: &str, driver: IoChoice, authority: &Authority, tapped: &Tapped) {
    let (_folder, ca_file) = trusting(authority);
    let gateway = Setup::with_control(driver).start(&yaml(tapped.address, &ca_file));
    let reply: Reply = call(gateway.address(), messages(&protocol::request(MODEL)));
    assert_eq!(reply.status, 502, "{}", reply.text());
    let error = &reply.json()["error"];
    assert_eq!(error["details"]["error_code"], format!("upstream_tls_{check}"), "{error}");
    let text = reply.text();
    for secret in ["127.0.0.1", &tapped.address.port().to_string(), "rustls", "main", KEY] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let series =
        format!("tidegate_attempts_total{{provider=\"main\",account=\"k\",verdict=\"failed_tls_{check}\"}}");
    wait_for(&series, Duration::from_secs(5), || gateway.control().metrics().contains(&series));
    drop(gateway);
    let mut connections = 0;
    while let Ok(sent) = tapped.sent.recv_timeout(Duration::from_millis(300)) {
        connections += 1;
        assert_eq!(sent.get(..2), Some(&[0x16, 3][..]), "not TLS: {:?}", String::from_utf8_lossy(&sent));
        assert!(!String::from_utf8_lossy(&sent).contains(KEY), "a key went out");
        assert!(!String::from_utf8_lossy(&sent).contains("HTTP/1.1"), "a request went out");
    }
    assert!(connections >= 1, "the provider was asked");
}

both_drivers! {
    /// An authority from `ca_file`: whole replies and streams come over TLS.
    fn a_trusted_certificate_is_spoken_to(driver) {
        let authority = Authority::named("ours");
        let mock = mock(driver, authority.issue("127.0.0.1"));
        let (_folder, ca_file) = trusting(&authority);
        let gateway = Gateway::start(driver, 1, &yaml(mock.addr(), &ca_file));
        let reply = call(gateway.address(), messages(&protocol::request(MODEL)));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let (head, events, ended) = client::stream(gateway.address(), &protocol::stream_request(MODEL));
        assert_eq!((head.status, ended), (200, Ok(())));
        assert!(client::joined(&events).contains("message_stop"));
    }

    /// An authority that nobody named.
    fn an_unknown_authority_gets_nothing(driver) {
        let mock = mock(driver, Authority::named("theirs").issue("127.0.0.1"));
        refused_as("unknown_issuer", driver, &Authority::named("ours"), &relay(mock.addr()));
    }

    /// A chain whose intermediate certificate is missing leads to nobody.
    fn a_chain_with_a_gap_gets_nothing(driver) {
        let authority = Authority::named("ours");
        let mut between = CertificateParams::new(Vec::new()).expect("no names");
        between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        between.distinguished_name.push(rcgen::DnType::CommonName, "between");
        let between = Issuer::new(between, KeyPair::generate().expect("a key"));
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name").signed_by(&key, &between);
        let identity = Identity { chain_pem: leaf.expect("signed").pem(), key_pem: key.serialize_pem() };
        refused_as("unknown_issuer", driver, &authority, &relay(mock(driver, identity).addr()));
    }

    /// A certificate for somebody else, though by a trusted authority.
    fn another_name_gets_nothing(driver) {
        let authority = Authority::named("ours");
        let mock = mock(driver, authority.issue("elsewhere.test"));
        refused_as("wrong_name", driver, &authority, &relay(mock.addr()));
    }

    /// A certificate that was good until last year.
    fn an_expired_certificate_gets_nothing(driver) {
        let authority = Authority::named("ours");
        let expired = authority.issue_with("127.0.0.1", |it| {
            it.not_before = date_time_ymd(2020, 1, 1);
            it.not_after = date_time_ymd(2021, 1, 1);
        });
        let mock = mock(driver, expired);
        refused_as("expired", driver, &authority, &relay(mock.addr()));
    }

    /// A handshake that is cut in the middle of the server's first message, and one that is cut before it.
    fn a_cut_handshake_gets_nothing(driver) {
        let authority = Authority::named("ours");
        refused_as("truncated", driver, &authority, &answers(&[0x16, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3, 1, 2, 3]));
        refused_as("truncated", driver, &authority, &answers(b""));
    }

    /// A port where no TLS is spoken. It would answer plain requests; it gets none.
    fn a_plain_port_gets_nothing(driver) {
        let authority = Authority::named("ours");
        let plain = answers(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        refused_as("protocol", driver, &authority, &plain);
    }
}
