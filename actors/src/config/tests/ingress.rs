//! `tls` of the listener: files that can be used, and each mistake with its place.

use super::*;

/// A certificate for the listener and its key, both PEM.
fn issued(change: impl FnOnce(&mut rcgen::CertificateParams)) -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec!["gateway.test".to_owned()]).expect("a name");
    change(&mut params);
    let key = rcgen::KeyPair::generate().expect("a key");
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

/// A host on 2026-01-01 with a good pair, one that has ended, one that has not begun, and some that are neither.
fn host() -> Given {
    let mut given = given();
    given.wall_s = 1_767_225_600;
    let mut put = |name: &str, text: String| given.files.insert(name.to_owned(), text.into_bytes());
    let (cert, key) = issued(|it| it.not_after = rcgen::date_time_ymd(2030, 1, 1));
    let (_, other) = issued(|_| {});
    put("cert", cert.clone());
    put("key", key.clone());
    put("other", other);
    put("pair", format!("{cert}{key}"));
    let (ended, ended_key) = issued(|it| it.not_after = rcgen::date_time_ymd(2025, 12, 31));
    put("ended", format!("{ended}{ended_key}"));
    let (early, early_key) = issued(|it| it.not_before = rcgen::date_time_ymd(2027, 1, 1));
    put("early", format!("{early}{early_key}"));
    put("text", "no PEM at all".into());
    put(
        "locked",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n".into(),
    );
    put("frame", CERTIFICATE.into());
    given
}

fn check_tls(tls: &str) -> Result<Checked, Complaints> {
    let providers = "providers: { p: { kind: anthropic, keys: [{ name: k, value: \"${env:ACME_1}\" }] } }";
    check("t.yaml", &format!("tls: {tls}\n{providers}\n"), &host())
}

#[test]
fn a_pair_and_its_end() {
    for (tls, proves) in [
        ("{ cert_file: cert, key_file: key }", false),
        ("{ cert_file: pair, key_file: pair }", false),
        ("{ cert_file: cert, key_file: key, client_ca_file: cert }", true),
    ] {
        let checked = check_tls(tls).unwrap_or_else(|it| panic!("{it}"));
        assert_eq!(checked.warnings, [], "{tls}");
        let ingress = checked.draft.ingress.tls.expect("TLS");
        assert_eq!(ingress.expires_s, 1_893_456_000);
        assert_eq!(ingress.client_ca_pem.is_some(), proves);
        assert!(!format!("{ingress:?}").contains("PRIVATE"), "the key is a secret");
    }
}

#[test]
fn each_mistake_has_its_place() {
    for (tls, expect) in [
        ("{ cert_file: cert }", "1:6 `tls` has no `key_file`"),
        ("{ key_file: key }", "1:6 `tls` has no `cert_file`"),
        ("{ cert_file: none, key_file: key }", "1:19 cannot read `none`: no such file"),
        ("{ cert_file: cert, key_file: none }", "1:35 cannot read `none`: no such file"),
        ("{ cert_file: text, key_file: key }", "1:19 `text` holds no certificate in PEM form"),
        ("{ cert_file: key, key_file: key }", "1:19 `key` holds no certificate in PEM form"),
        ("{ cert_file: cert, key_file: cert }", "1:35 `cert` holds no private key in PEM form"),
        ("{ cert_file: cert, key_file: locked }", "1:35 `locked` holds no private key in PEM form"),
        (
            "{ cert_file: cert, key_file: other }",
            "1:35 the key in `other` does not belong to the first certificate in `cert`",
        ),
        (
            "{ cert_file: frame, key_file: key }",
            "1:36 the key in `key` does not belong to the first certificate in `frame`",
        ),
        (
            "{ cert_file: cert, key_file: key, client_ca_file: text }",
            "1:56 `text` holds no certificate in PEM form",
        ),
        (
            "{ cert_file: cert, key_file: key, client_ca_file: frame }",
            "1:56 a certificate in `frame` cannot be an authority",
        ),
        ("{ cert_file: cert, key_file: key, min_version: 1 }", "1:40 unknown field"),
    ] {
        let complaints = check_tls(tls).expect_err(tls);
        let [only] = complaints.list() else { panic!("{tls}: {complaints}") };
        let place = only.place.as_ref().map_or(String::new(), |it| format!("{}:{}", it.line, it.column));
        assert!(format!("{place} {}", only.message).starts_with(expect), "{tls}: {place} {}", only.message);
    }
}

#[test]
fn a_certificate_out_of_its_time_is_a_warning() {
    for (pair, expect) in [("ended", "has expired"), ("early", "is not valid yet")] {
        let checked =
            check_tls(&format!("{{ cert_file: {pair}, key_file: {pair} }}")).expect("a warning only");
        let [only] = &checked.warnings[..] else { panic!("{:?}", checked.warnings) };
        assert_eq!(only.message, format!("the certificate in `{pair}` {expect}"));
        assert_eq!(only.place.as_ref().map(|it| it.column), Some(19));
    }
}

#[test]
fn a_wide_listener_without_tls_is_warned_of() {
    let keys = "virtual_keys: [{ name: t, key: \"${env:TEAM_CHAT}\" }]";
    let providers = "providers: { p: { kind: anthropic, keys: [{ name: k, value: \"${env:ACME_1}\" }] } }";
    for (listener, warned) in [
        ("listen: 0.0.0.0:4000", true),
        ("listen: 127.0.0.1:4000", false),
        ("listen: 0.0.0.0:4000\ntls: { cert_file: cert, key_file: key }", false),
    ] {
        let text = format!("{listener}\n{keys}\n{providers}\n");
        let checked = check("t.yaml", &text, &host()).unwrap_or_else(|it| panic!("{it}"));
        let found = checked.warnings.iter().any(|it| it.message.contains("without TLS"));
        assert_eq!(found, warned, "{listener}: {:?}", checked.warnings);
    }
    // TLS alone lets nobody in that has no key.
    let text = format!("listen: 0.0.0.0:4000\ntls: {{ cert_file: cert, key_file: key }}\n{providers}\n");
    assert!(check("t.yaml", &text, &host()).is_err());
}

#[test]
fn proxies_in_front() {
    let providers = "providers: { p: { kind: anthropic, keys: [{ name: k, value: \"${env:ACME_1}\" }] } }";
    let check_ingress = |ingress: &str| check("t.yaml", &format!("{ingress}\n{providers}\n"), &host());
    let good =
        "trusted_proxies: [10.0.0.0/8, \"fd00::/8\", 192.0.2.7, \"::ffff:192.0.2.8\"]\nproxy_protocol: true";
    let checked = check_ingress(good).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(checked.warnings, []);
    let ingress = checked.draft.ingress;
    assert!(ingress.proxy_protocol);
    for (address, expect) in [
        ("10.9.9.9", true),
        ("192.0.2.7", true),
        ("192.0.2.8", true),
        ("fd12::1", true),
        ("192.0.2.9", false),
    ] {
        assert_eq!(ingress.trusted_proxies.trusts(address.parse().expect("an address")), expect, "{address}");
    }
    for (ingress, expect) in [
        ("proxy_protocol: true", "1:17 nobody is trusted to send a PROXY header"),
        ("proxy_protocol: true\ntrusted_proxies: []", "1:17 nobody is trusted"),
        ("trusted_proxies: [10.0.0.1/8]", "1:19 `10.0.0.1/8` is neither an address nor a network"),
        ("trusted_proxies: [10.0.0.0/33]", "1:19 `10.0.0.0/33` is neither"),
        ("trusted_proxies: [10.0.0.0/]", "1:19 `10.0.0.0/` is neither"),
        ("trusted_proxies: [proxy.example]", "1:19 `proxy.example` is neither"),
    ] {
        let complaints = check_ingress(ingress).expect_err(ingress);
        let [only] = complaints.list() else { panic!("{ingress}: {complaints}") };
        let place = only.place.as_ref().map_or(String::new(), |it| format!("{}:{}", it.line, it.column));
        assert!(
            format!("{place} {}", only.message).starts_with(expect),
            "{ingress}: {place} {}",
            only.message
        );
    }
    let everybody = check_ingress("trusted_proxies: [0.0.0.0/0]").expect("a warning only");
    assert_eq!(everybody.warnings[0].message, "`0.0.0.0/0` trusts everybody");
    // Behind a proxy that may end TLS, a plain listener is nobody's slip.
    let wide = "listen: 0.0.0.0:4000\ntrusted_proxies: [10.0.0.0/8]\nvirtual_keys: [{ name: t, key: \"${env:TEAM_CHAT}\" }]";
    assert_eq!(check_ingress(wide).expect("a good file").warnings, []);
}
