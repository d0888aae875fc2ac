//! Proxies towards providers: the URL of one, which origins the environment's do not serve. Pure.
//!
//! The environment is read as curl and the official SDKs do: `https_proxy` before `HTTPS_PROXY` before `all_proxy`
//! before `ALL_PROXY`, and `no_proxy` before `NO_PROXY`. This host itself never goes through them.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidegate_core::Secret;
use tidegate_core::snapshot::{ForwardProxy, Reach};
use tidegate_core::source::Network;

use super::url;
use crate::reach::{Ground, ground};

/// Variables that name a proxy for origins with TLS, the first that is set wins.
pub(super) const VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// Variables that list what is reached without one.
pub(super) const EXCEPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// What is wrong with a proxy's URL, and perhaps what to do. Never with its credentials in it.
pub(super) type Refusal = (String, Option<&'static str>);

/// Reads the URL of a proxy: `http://[user[:password]@]host:port`, the scheme may be left out.
pub(super) fn parse(text: &str, named_by: &'static str) -> Result<ForwardProxy, Refusal> {
    let rest = match text.split_once("://") {
        None => text,
        Some(("http", rest)) => rest,
        Some(_) => {
            let hint = "write http://host:port: TLS to the provider runs inside of the tunnel";
            return Err(("a proxy is spoken to in plain HTTP".into(), Some(hint)));
        }
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (credentials, authority) = match rest.rsplit_once('@') {
        Some((credentials, authority)) => (Some(credentials), authority),
        None => (None, rest),
    };
    let (host, literal, port) = url::parse_authority(authority)?;
    let port =
        port.ok_or(("the proxy's URL has no port".into(), Some("for example http://proxy.example:3128")))?;
    if let Some(address) = literal
        && matches!(ground(address), Ground::LinkLocal | Ground::Metadata | Ground::Nowhere)
    {
        return Err((format!("`{address}` is no place for a proxy"), None));
    }
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    Ok(ForwardProxy {
        authority: format!("{bracketed}:{port}").into(),
        reach: if literal.is_some() || host == "localhost" { Reach::Literal } else { Reach::Private },
        host: host.into(),
        port,
        authorization: credentials.map(basic).transpose()?,
        named_by,
    })
}

/// The value of `proxy-authorization` for percent-encoded credentials (RFC 7617).
fn basic(credentials: &str) -> Result<Secret, Refusal> {
    let wrong = || {
        ("the proxy's credentials are malformed".to_owned(), Some("percent-encode what is special in them"))
    };
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let mut pair = decoded(user).filter(|it| !it.is_empty() && !it.contains(&b':')).ok_or_else(wrong)?;
    pair.push(b':');
    pair.extend(decoded(password).ok_or_else(wrong)?);
    if pair.iter().any(u8::is_ascii_control) {
        return Err(wrong());
    }
    Ok(Secret::new(format!("Basic {}", STANDARD.encode(pair))))
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        let value = |it: u8| char::from(it).to_digit(16);
        bytes.push(u8::try_from(value(digits[0])? * 16 + value(digits[1])?).ok()?);
        rest = behind;
    }
    Some(bytes)
}

/// Whether the environment's proxy is not for this origin: `exceptions` is a list of `*`, names (of their subdomains,
/// too), addresses and networks, the first three perhaps with a port.
pub(super) fn is_exempt(exceptions: &str, host: &str, port: u16) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    let local = host == "localhost" || address.is_some_and(|it| ground(it) == Ground::Loopback);
    local || exceptions.split(',').map(str::trim).any(|it| exempts(it, host, address, port))
}

fn exempts(exception: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if exception == "*" {
        return true;
    }
    if let Some((network, bits)) = exception.split_once('/') {
        let network =
            network.parse().ok().zip(bits.parse().ok()).and_then(|(it, bits)| Network::new(it, bits));
        return network.zip(address).is_some_and(|(network, address)| network.contains(address));
    }
    if let Ok(literal) = exception.trim_matches(['[', ']']).parse::<IpAddr>() {
        return address == Some(literal);
    }
    let (name, only_port) = match exception.rsplit_once(':') {
        Some((name, digits)) => (name, Some(digits)),
        None => (exception, None),
    };
    if only_port.is_some_and(|it| it.parse() != Ok(port)) {
        return false;
    }
    if let Ok(literal) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
        return address == Some(literal);
    }
    let name = name.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
    let below = || host.strip_suffix(name.as_str()).is_some_and(|it| it.ends_with('.'));
    !name.is_empty() && address.is_none() && (host == name || below())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_proxies() {
        for (text, authority, authorization, reach) in [
            ("http://proxy.example:3128", "proxy.example:3128", None, Reach::Private),
            ("proxy.example:3128/", "proxy.example:3128", None, Reach::Private),
            ("http://10.0.0.7:8080", "10.0.0.7:8080", None, Reach::Literal),
            ("http://[::1]:8080", "[::1]:8080", None, Reach::Literal),
            ("http://localhost:8080", "localhost:8080", None, Reach::Literal),
            (
                "http://Aladdin:open%20sesame@proxy:1",
                "proxy:1",
                Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
                Reach::Private,
            ),
            ("http://user@proxy:1", "proxy:1", Some("Basic dXNlcjo="), Reach::Private),
            ("http://u:p%40s:s@proxy:1", "proxy:1", Some("Basic dTpwQHM6cw=="), Reach::Private),
        ] {
            let proxy = parse(text, "proxy").unwrap_or_else(|it| panic!("{text}: {it:?}"));
            let found = proxy.authorization.as_ref().map(Secret::expose);
            assert_eq!((&*proxy.authority, found, proxy.reach), (authority, authorization, reach), "{text}");
        }
    }

    #[test]
    fn urls_that_are_none_show_no_credentials() {
        for text in [
            "https://u:canary@proxy:1",
            "socks5://u:canary@proxy:1",
            "http://u:canary@proxy",
            "http://u:canary@proxy:0",
            "http://u:canary@proxy:1/path",
            "http://u:canary@proxy:1?x",
            "http://u:canary@",
            "http://u:canary%zz@proxy:1",
            "http://u:canary%0a@proxy:1",
            "http://u%3a:canary@proxy:1",
            "http://:canary@proxy:1",
            "http://u:canary@a b:1",
            "http://u:canary@169.254.169.254:80",
            "http://u:canary@0.0.0.0:80",
            "",
        ] {
            let (message, _) = parse(text, "proxy").expect_err(text);
            assert!(!message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn exceptions_as_others_read_them() {
        for (exceptions, host, expect) in [
            ("", "api.example", false),
            ("", "localhost", true),
            ("", "127.0.0.9", true),
            ("", "::1", true),
            ("*", "api.example", true),
            ("api.example", "api.example", true),
            ("example", "api.example", true),
            (".example", "api.example", true),
            ("*.example", "api.example", true),
            ("ple", "api.example", false),
            ("API.Example", "api.example", true),
            ("other , api.example:443", "api.example", true),
            ("api.example:8443", "api.example", false),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7:443", "10.0.0.7", true),
            ("0.7", "10.0.0.7", false),
            ("10.0.0.0/8", "10.0.0.7", true),
            ("10.0.0.0/8", "11.0.0.7", false),
            ("10.0.0.1/8", "10.0.0.7", false),
            ("[2001:db8::7]:443", "2001:db8::7", true),
            ("2001:db8::/32", "2001:db8::7", true),
            (",,.,:", "api.example", false),
        ] {
            assert_eq!(is_exempt(exceptions, host, 443), expect, "{exceptions} {host}");
        }
    }
}
