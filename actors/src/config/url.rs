//! Base URLs: read strictly, judged by the rules of ARCHITECTURE.md. Pure; never resolves a name.
//!
//! A literal address or `localhost` is itself the permission for loopback, private networks and plain HTTP. A name
//! needs `private: true` for inward addresses (judged at each resolution) and is never reached without TLS.

use std::net::IpAddr;

use tidegate_core::snapshot::Reach;

use crate::reach::{Ground, ground};

/// A base URL that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseUrl {
    pub(super) tls: bool,
    /// Host name, or literal address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Empty, or begins with `/` and does not end with one.
    pub(super) path: String,
    pub(super) reach: Reach,
    /// Credentials would cross the public network in the clear.
    pub(super) exposed: bool,
}

/// What is wrong with a URL, and perhaps what to do.
type Refusal = (String, Option<&'static str>);

/// Reads and judges a base URL.
pub(super) fn parse(text: &str, private: bool) -> Result<BaseUrl, Refusal> {
    let (tls, rest) = match text.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => return Err(("the URL must begin with `https://`".into(), Some("for example https://host/v1"))),
    };
    if rest.contains(['?', '#']) {
        return Err((
            "the URL has a query or fragment".into(),
            Some("give scheme, host, port and path only"),
        ));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(("the URL carries credentials".into(), Some("they belong under `keys`")));
    }
    let (host, literal, port) = parse_authority(authority)?;
    let port = port.unwrap_or(if tls { 443 } else { 80 });
    let path = check_path(path)?;
    let Some(address) = literal else {
        let local = host == "localhost";
        if !tls && !local {
            let hint = "use https://, or a literal address, or `localhost`";
            return Err((
                format!("plain HTTP to the name `{host}` would show the key to the network"),
                Some(hint),
            ));
        }
        let reach = match (local, private) {
            (true, _) => Reach::Literal,
            (false, true) => Reach::Private,
            (false, false) => Reach::Public,
        };
        return Ok(BaseUrl { tls, host, port, path, reach, exposed: false });
    };
    let ground = ground(address);
    if matches!(ground, Ground::LinkLocal | Ground::Metadata | Ground::Nowhere) {
        let hint = "link-local and metadata addresses are never upstreams";
        return Err((format!("`{address}` is no place for an upstream"), Some(hint)));
    }
    let exposed = !tls && ground == Ground::Public;
    Ok(BaseUrl { tls, host, port, path, reach: Reach::Literal, exposed })
}

/// Host and port of an authority without credentials; the host in lower case, without brackets, and as an address where
/// it is one.
pub(super) fn parse_authority(authority: &str) -> Result<(String, Option<IpAddr>, Option<u16>), Refusal> {
    let (host, port) = split_port(authority)?;
    Ok(match literal(host) {
        Some(address) => (address.to_string(), Some(address), port),
        None => (check_name(host)?, None, port),
    })
}

fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').and_then(|it| it.parse().ok()).map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), Refusal> {
    // The colons of an IPv6 literal stand inside brackets.
    let after_literal = authority.find(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after_literal..].find(':').map(|at| at + after_literal) else {
        return Ok((authority, None));
    };
    let digits = &authority[colon + 1..];
    let plain = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if plain && port > 0 => Ok((&authority[..colon], Some(port))),
        _ => Err((format!("`{digits}` is not a port"), None)),
    }
}

fn check_path(path: &str) -> Result<String, Refusal> {
    let plain = |it: u8| it.is_ascii_alphanumeric() || b"/-._~%".contains(&it);
    let odd = path.split('/').any(|segment| segment == "." || segment == "..") || path.contains("//");
    if !path.bytes().all(plain) || odd {
        return Err(("the path of the URL has characters or segments that do not belong there".into(), None));
    }
    Ok(path.trim_end_matches('/').to_owned())
}

fn check_name(host: &str) -> Result<String, Refusal> {
    let host = host.to_ascii_lowercase();
    let label_fits = |label: &str| {
        let inner = label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_');
        inner && !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    if host.len() > 253 || !host.split('.').all(label_fits) {
        return Err((format!("`{host}` is not a host name"), None));
    }
    // Resolvers take `127.1`, `2130706433` and `0x7f.1` for addresses: written so, an address hides as a name.
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|it| it.is_ascii_digit()) || last.starts_with("0x") {
        let hint = "write an IPv4 address as four decimal numbers";
        return Err((format!("`{host}` is an address in an unusual form"), Some(hint)));
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls() {
        for (text, private, tls, host, port, path, reach) in [
            ("https://api.example.com", false, true, "api.example.com", 443, "", Reach::Public),
            ("https://API.example.com:8443/v1/", false, true, "api.example.com", 8443, "/v1", Reach::Public),
            ("https://inner.example.com/a/b", true, true, "inner.example.com", 443, "/a/b", Reach::Private),
            ("http://127.0.0.1:9000", false, false, "127.0.0.1", 9000, "", Reach::Literal),
            ("http://localhost:9000/v1", false, false, "localhost", 9000, "/v1", Reach::Literal),
            ("http://[::1]:9000", false, false, "::1", 9000, "", Reach::Literal),
            ("https://10.0.0.7", false, true, "10.0.0.7", 443, "", Reach::Literal),
        ] {
            let url = parse(text, private).expect(text);
            assert_eq!(
                (url.tls, &*url.host, url.port, &*url.path, url.reach),
                (tls, host, port, path, reach)
            );
            assert!(!url.exposed, "{text}");
        }
        assert!(parse("http://160.79.104.10", false).is_ok_and(|it| it.exposed));
    }

    /// What an operator may have been talked into, in all its disguises.
    const HOSTILE: &[&str] = &[
        "http://api.example.com",
        "ftp://api.example.com",
        "api.example.com",
        "HTTPS//x",
        "https://user:pass@api.example.com",
        "https://api.example.com@evil.example",
        "https://api.example.com?x=1",
        "https://api.example.com#x",
        "https://169.254.169.254/latest",
        "http://169.254.169.254",
        "http://[::ffff:169.254.169.254]",
        "http://[fd00:ec2::254]",
        "http://100.100.100.200",
        "http://0.0.0.0",
        "http://2130706433",
        "https://127.1",
        "https://0x7f.1",
        "https://0x7f000001",
        "https://a.0x1",
        "https://[::1",
        "https://[::1]x",
        "https://host:0",
        "https://host:",
        "https://host:+80",
        "https://host:99999",
        "https://",
        "https://a..b",
        "https://-a.b",
        "https://a b",
        "https://h/a/../b",
        "https://h//b",
        "https://h/\r\nx",
        "https://hö.example",
        "https://::1",
        "http://0177.0.0.1",
        "http://017700000001",
        "http://0251.0376.0251.0376",
        "http://127.0.0.1.",
        "http://127.0.0",
        "http://127.0.0.0x1",
        "http://1.2.3.4.5",
        "http://256.0.0.1",
        "http://0x7f.0.0.1",
        "http://0X7F.1",
        "https://localhost.",
        "https://metadata.google.internal.",
        "http://169.254.169.254.nip.io",
        "http://[::]",
        "http://[::ffff:0.0.0.0]",
        "http://[::ffff:a9fe:a9fe]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[2002:a9fe:a9fe::]",
        "http://[fe80::1]",
        "http://[fe80::1%25eth0]",
        "http://[v1.x]",
        "http://168.63.129.16",
        "http://255.255.255.255",
        "http://224.0.0.1",
        "https://host\\@evil.example",
        "https://host\\.evil.example",
        "https://evil.example#@host",
        "https://host:443@evil.example",
        "https://:pass@host",
        "https://host%2eevil",
        "https://host%00.evil",
        "https://host:443:443",
        "https://host:",
        "https://host\t",
        " https://host",
        "https:// host",
        "https:///host",
        "https:host",
        "//host",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70",
        "https://１２７.0.0.1",
        "https://host/..",
        "https://host/a/./b",
        "https://host/a\\..\\b",
        "https://host/a b",
    ];

    #[test]
    fn urls_that_steal_or_confuse_are_refused() {
        for text in HOSTILE {
            assert!(parse(text, true).is_err(), "{text}");
        }
    }
}
