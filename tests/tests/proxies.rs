//! Providers behind a proxy: calls and the checks of keys go through its tunnel, TLS runs inside, the proxy alone looks
//! up the provider's name, and what the proxy refuses is named.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tidegate_loadtest::mock::{Mock, MockConfig, MockHandle, TlsConfig};
use tidegate_tests::client::{self, Reply, call, messages};
use tidegate_tests::messages as protocol;
use tidegate_tests::proxy::ConnectProxy;
use tidegate_tests::time::wait_for;
use tidegate_tests::tls::Authority;
use tidegate_tests::upstream::{Upstream, good, whole};
use tidegate_tests::{Gateway, IoChoice, Setup, both_drivers};

const MODEL: &str = "claude-sonnet-5-5";
/// A name that nobody but the proxy can look up.
const NAME: &str = "origin.test";

/// A mock that proves to be [`NAME`].
fn mock(driver: IoChoice, authority: &Authority) -> MockHandle {
    let identity = authority.issue(NAME);
    let tls = TlsConfig { chain_pem: identity.chain_pem, key_pem: identity.key_pem };
    let driver = tidegate_gateway::select(driver).expect("a driver").driver;
    Mock::start(MockConfig { tls: Some(tls), ..MockConfig::default() }, driver).expect("a mock")
}

fn yaml(base_url: &str, proxy: &str, ca_file: &Path) -> String {
    format!(
        "admin: {{ listen: \"127.0.0.1:0\" }}\nproviders:\n  main: {{ kind: anthropic, base_url: \"{base_url}\", proxy: \"{proxy}\", ca_file: \"{}\", keys: [{{ name: k, value: sk-mock }}] }}\n",
        ca_file.display()
    )
}

/// A gateway whose provider is [`NAME`] at the mock's port, behind `proxy`, by `authority`.
fn start(setup: Setup, mock: SocketAddr, proxy: &str, authority: &Authority) -> Gateway {
    let folder = tempfile::tempdir().expect("a folder");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).expect("a file");
    setup.start(&yaml(&format!("https://{NAME}:{}", mock.port()), proxy, &ca_file))
}

#[track_caller]
fn refused_as(check: &str, gateway: &Gateway) {
    let reply: Reply = call(gateway.address(), messages(&protocol::request(MODEL)));
    assert_eq!(reply.status, 502, "{}", reply.text());
    let error = &reply.json()["error"];
    assert_eq!(error["details"]["error_code"], format!("upstream_{check}"), "{error}");
    let text = reply.text();
    for secret in ["127.0.0.1", "Basic", "user", "pass", NAME, "sk-mock"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let series = format!("verdict=\"failed_{check}\"");
    wait_for(&series, Duration::from_secs(5), || gateway.control().metrics().contains(&series));
}

both_drivers! {
    /// Whole replies and streams, several on one tunnel, TLS inside; the proxy sees the name and its own credentials, and
    /// nothing of the call.
    fn calls_go_through_the_tunnel(driver) {
        let authority = Authority::named("ours");
        let mock = mock(driver, &authority);
        // user:pass%20word
        let proxy = ConnectProxy::guarded("Basic dXNlcjpwYXNzIHdvcmQ=");
        let url = format!("http://user:pass%20word@{}", proxy.address());
        let gateway = start(Setup { workers: 1, ..Setup::new(driver) }, mock.addr(), &url, &authority);
        for _ in 0..3 {
            let reply = call(gateway.address(), messages(&protocol::request(MODEL)));
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        let (head, events, ended) = client::stream(gateway.address(), &protocol::stream_request(MODEL));
        assert_eq!((head.status, ended), (200, Ok(())));
        assert!(client::joined(&events).contains("message_stop"));
        let target = format!("{NAME}:{}", mock.addr().port());
        let expect = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nproxy-authorization: Basic dXNlcjpwYXNzIHdvcmQ=");
        assert_eq!(proxy.asked(), [expect], "one tunnel for all");
    }

    /// The control plane looks up the proxy and not the provider, whose name does not exist; another proxy after a reload
    /// gets tunnels of its own.
    fn the_proxy_alone_knows_the_name(driver) {
        let authority = Authority::named("ours");
        let mock = mock(driver, &authority);
        let (before, after) = (ConnectProxy::open(), ConnectProxy::open());
        let folder = tempfile::tempdir().expect("a folder");
        let (file, ca_file) = (folder.path().join("tidegate.yaml"), folder.path().join("ca.pem"));
        std::fs::write(&ca_file, authority.pem()).expect("a file");
        let origin = format!("https://{NAME}:{}", mock.addr().port());
        let text = |proxy: &ConnectProxy| yaml(&origin, &format!("http://{}", proxy.address()), &ca_file);
        std::fs::write(&file, text(&before)).expect("a file");
        let gateway = Setup { file: Some(file.clone()), ..Setup::with_control(driver) }.start(&text(&before));
        let good = || assert_eq!(call(gateway.address(), messages(&protocol::request(MODEL))).status, 200);
        good();
        std::fs::write(&file, text(&after)).expect("a file");
        gateway.control().reload().expect("a good configuration");
        good();
        assert_eq!((before.asked().len(), after.asked().len()), (1, 1));
        let status = "GET /api/v1/status HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
        let status = call(gateway.control().admin(), status).json();
        let address = after.address().to_string();
        assert_eq!(status["providers"][0]["proxy"], address);
        assert_eq!(status["providers"][0]["addresses"], serde_json::json!([address]));
    }

    /// What a proxy may answer, each with its name; the provider's key goes nowhere.
    fn refusals_are_named(driver) {
        let authority = Authority::named("ours");
        let mock = mock(driver, &authority);
        for (proxy, check) in [
            (ConnectProxy::guarded("Basic other"), "proxy_credentials"),
            (ConnectProxy::answering("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n"), "proxy_refused"),
            (ConnectProxy::answering("HTTP/1.1 302 Login\r\nlocation: http://login/\r\n\r\n"), "proxy_refused"),
            (ConnectProxy::answering("HTTP/1.1 502 Bad\r\ncontent-length: 0\r\n\r\n"), "proxy_origin_unreached"),
            (ConnectProxy::answering("HTTP/1.0 504 Late\r\n\r\nhtml"), "proxy_origin_unreached"),
            (ConnectProxy::answering("SSH-2.0-OpenSSH\r\n\r\n"), "proxy_broken"),
            (ConnectProxy::answering(""), "proxy_broken"),
            (ConnectProxy::answering("HTTP/1.1 200 OK\r\n\r\nsurplus"), "proxy_broken"),
        ] {
            let url = format!("http://user:pass@{}", proxy.address());
            let gateway = start(Setup::with_control(driver), mock.addr(), &url, &authority);
            refused_as(check, &gateway);
            let asked = proxy.asked().concat();
            assert!(asked.starts_with("CONNECT ") && !asked.contains("sk-mock"), "{asked}");
        }
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let gateway = start(Setup::with_control(driver), mock.addr(), &format!("http://{nobody}"), &authority);
        refused_as("proxy_unreachable", &gateway);
    }

    /// A tunnel proves nothing: the certificate behind it is judged like any other.
    fn a_tunnel_is_no_proof(driver) {
        let mock = mock(driver, &Authority::named("theirs"));
        let proxy = ConnectProxy::open();
        let url = format!("http://{}", proxy.address());
        let gateway = start(Setup::with_control(driver), mock.addr(), &url, &Authority::named("ours"));
        refused_as("tls_unknown_issuer", &gateway);
        assert_eq!(proxy.asked().len(), 1);
    }

    /// The check of a suspect key takes the same way: every connection of the provider is one of the proxy's tunnels.
    fn the_check_of_a_key_goes_through_it(driver) {
        let upstream = Upstream::start(|heard| match heard.target().starts_with("GET ") {
            true => whole(200, &[], "{\"data\":[]}"),
            false if heard.number == 0 => whole(401, &[], &protocol::error("authentication_error", "no")),
            false => good(heard, "fine"),
        });
        let proxy = ConnectProxy::open();
        let text = format!(
            "admin: {{ listen: \"127.0.0.1:0\" }}\nproviders:\n  main: {{ kind: anthropic, base_url: \"{}\", proxy: \"http://{}\", keys: [{{ name: k, value: sk-mock }}] }}\n",
            upstream.url(), proxy.address()
        );
        let gateway = Setup::with_control(driver).start(&text);
        assert_eq!(call(gateway.address(), messages(&protocol::request(MODEL))).status, 503);
        let checked = || upstream.heard().iter().any(|it| it.target().starts_with("GET "));
        wait_for("the key is checked", Duration::from_secs(10), checked);
        wait_for("and is good", Duration::from_secs(10), || call(gateway.address(), messages(&protocol::request(MODEL))).status == 200);
        assert_eq!(upstream.connections(), proxy.asked().len());
    }

    /// A proxy that is down is a failure of this target: the chain goes on.
    fn a_chain_goes_on_without_the_proxy(driver) {
        let upstream = Upstream::good("fine");
        let proxy = ConnectProxy::answering("HTTP/1.1 407 Who\r\ncontent-length: 0\r\n\r\n");
        let text = format!(
            "providers:\n  far: {{ kind: anthropic, base_url: \"{url}\", proxy: \"http://{}\", keys: [{{ name: k, value: sk-mock }}] }}\n  near: {{ kind: anthropic, base_url: \"{url}\", keys: [{{ name: k, value: sk-mock }}] }}\nmodels:\n  front: {{ chain: [far/claude-x, near/claude-x] }}\n",
            proxy.address(), url = upstream.url()
        );
        let gateway = Gateway::start(driver, 1, &text);
        let reply = call(gateway.address(), messages(&protocol::request("front")));
        assert_eq!((reply.status, reply.attempts()), (200, 2), "{}", reply.text());
    }
}
