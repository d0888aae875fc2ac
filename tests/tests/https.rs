//! HTTPS towards providers: a certificate is accepted for the name and by the authority it should be, or nothing is
//! sent. Never plain, never unverified. The provider is the mock behind a certificate of this test's own.

use std::io::Write;

use tidegate_loadtest::mock::{Mock, MockConfig, MockHandle, TlsConfig};
use tidegate_tests::client::{self, Reply, call, messages};
use tidegate_tests::messages as protocol;
use tidegate_tests::{Gateway, IoChoice, both_drivers};

const MODEL: &str = "claude-sonnet-5-5";

/// A mock behind a certificate for `name`, and the file that holds the certificate.
fn provider(driver: IoChoice, name: &str) -> (MockHandle, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let tls = TlsConfig { chain_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() };
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(tls.chain_pem.as_bytes()).expect("written");
    let driver = tidegate_gateway::select(driver).expect("a driver").driver;
    let mock = Mock::start(MockConfig { tls: Some(tls), ..MockConfig::default() }, driver).expect("a mock");
    (mock, file)
}

fn call_through(driver: IoChoice, mock: &MockHandle, ca_file: Option<&tempfile::NamedTempFile>) -> Reply {
    let ca_file = ca_file.map_or(String::new(), |it| format!(", ca_file: \"{}\"", it.path().display()));
    let yaml = format!(
        "providers:\n  main: {{ kind: anthropic, base_url: \"https://{}\", keys: [{{ name: k, value: sk-mock }}]{ca_file} }}\n",
        mock.addr()
    );
    let gateway = Gateway::start(driver, 1, &yaml);
    call(gateway.address(), messages(&protocol::request(MODEL)))
}

both_drivers! {
    /// An authority from `ca_file`: whole replies and streams come over TLS.
    fn a_trusted_certificate_is_spoken_to(driver) {
        let (mock, file) = provider(driver, "127.0.0.1");
        let reply = call_through(driver, &mock, Some(&file));
        assert_eq!(reply.status, 200, "{}", reply.text());
        let yaml = format!(
            "providers:\n  main: {{ kind: anthropic, base_url: \"https://{}\", ca_file: \"{}\", keys: [{{ name: k, value: sk-mock }}] }}\n",
            mock.addr(),
            file.path().display()
        );
        let gateway = Gateway::start(driver, 1, &yaml);
        let (head, events, ended) = client::stream(gateway.address(), &protocol::stream_request(MODEL));
        assert_eq!((head.status, ended), (200, Ok(())));
        assert!(client::joined(&events).contains("message_stop"));
    }

    /// An authority that nobody named: the call fails, and no key went out.
    fn an_unknown_authority_gets_nothing(driver) {
        let (mock, _file) = provider(driver, "127.0.0.1");
        assert_eq!(call_through(driver, &mock, None).status, 502);
    }

    /// A certificate for somebody else, though by a trusted authority.
    fn another_name_gets_nothing(driver) {
        let (mock, file) = provider(driver, "elsewhere.test");
        assert_eq!(call_through(driver, &mock, Some(&file)).status, 502);
    }
}
