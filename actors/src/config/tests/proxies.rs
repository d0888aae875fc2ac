//! `proxy` of a provider, and the environment's.

use super::*;

/// Who stands in front of the only provider, and what names it.
fn proxy_of(
    provider: &str,
    variables: &[(&str, &str)],
) -> Result<Option<(String, &'static str)>, Complaints> {
    let mut given = given();
    given.variables.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let keys = "keys: [{ name: k, value: \"${env:ACME_1}\" }]";
    let checked =
        check("t.yaml", &format!("providers: {{ p: {{ kind: anthropic, {provider}{keys} }} }}\n"), &given)?;
    let proxy = checked.draft.providers[0].origin.proxy.clone();
    Ok(proxy.map(|it| (it.authority.to_string(), it.named_by)))
}

#[test]
fn the_providers_own_comes_before_the_environments() {
    let https = ("HTTPS_PROXY", "http://env.example:3128");
    let found = |authority: &str, named_by| Some((authority.to_owned(), named_by));
    for (provider, variables, expect) in [
        ("", &[][..], None),
        ("", &[https], found("env.example:3128", "HTTPS_PROXY")),
        ("", &[("https_proxy", "low.example:1"), https], found("low.example:1", "https_proxy")),
        ("", &[("https_proxy", ""), https], found("env.example:3128", "HTTPS_PROXY")),
        ("", &[("ALL_PROXY", "http://all.example:1")], found("all.example:1", "ALL_PROXY")),
        ("", &[("HTTP_PROXY", "http://plain.example:1"), ("http_proxy", "http://plain.example:1")], None),
        ("", &[https, ("NO_PROXY", "example.org,.anthropic.com")], None),
        (
            "",
            &[https, ("NO_PROXY", "*"), ("no_proxy", "example.org")],
            found("env.example:3128", "HTTPS_PROXY"),
        ),
        ("proxy: none, ", &[https], None),
        ("proxy: \"http://own.example:1\", ", &[https, ("NO_PROXY", "*")], found("own.example:1", "proxy")),
        ("base_url: \"http://10.0.0.7:80\", ", &[https], None),
        ("base_url: \"https://127.0.0.1:80\", ", &[https], None),
        ("base_url: \"https://10.0.0.7:80\", ", &[https], found("env.example:3128", "HTTPS_PROXY")),
        ("base_url: \"http://10.0.0.7:80\", proxy: \"10.0.0.8:1\", ", &[], found("10.0.0.8:1", "proxy")),
    ] {
        let proxy =
            proxy_of(provider, variables).unwrap_or_else(|it| panic!("{provider} {variables:?}: {it}"));
        assert_eq!(proxy, expect, "{provider} {variables:?}");
    }
}

#[test]
fn a_proxy_that_cannot_be_used_is_never_passed_over() {
    for (provider, variables, expect) in [
        ("proxy: \"socks5://u:canary@p:1\", ", &[][..], "a proxy is spoken to in plain HTTP"),
        ("proxy: \"http://p\", ", &[], "the proxy's URL has no port"),
        ("proxy: \"\", ", &[], "is not a host name"),
        ("", &[("HTTPS_PROXY", "https://u:canary@p:1")], "`HTTPS_PROXY` of the environment cannot be used"),
        ("", &[("all_proxy", "socks5h://u:canary@p:1")], "`all_proxy` of the environment cannot be used"),
    ] {
        let complaints = proxy_of(provider, variables).expect_err(provider).to_string();
        assert!(complaints.contains(expect), "{complaints}");
        assert!(!complaints.contains("canary"), "{complaints}");
    }
}

#[test]
fn credentials_in_the_file_are_warned_of_and_masked() {
    let text = "providers: { p: { kind: anthropic, proxy: \"http://u:canary@p:1\", keyz: [], keys: [{ name: k, value: \"${env:ACME_1}\" }] } }\n";
    let complaints = check_given(text).expect_err("a mistake in the same line");
    assert!(!complaints.to_string().contains("canary"), "{complaints}");
    let warned =
        complaints.list().iter().any(|it| it.message == "the proxy's credentials stand in the file itself");
    assert!(warned, "{complaints}");
}
