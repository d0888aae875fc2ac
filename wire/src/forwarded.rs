//! What proxies of HTTP say about the hops of a request: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Decides which address an element names, if one. Which of them may be believed is not its concern. Elements come in
//! the order of the text: each proxy appends the address that it was asked from, so that the nearest stands last.

use std::net::{IpAddr, SocketAddr};

/// The addresses of one `X-Forwarded-For` field. `None`: an element that names none.
pub fn x_forwarded_for(value: &[u8]) -> impl Iterator<Item = Option<IpAddr>> {
    value.split(|&byte| byte == b',').map(|element| address(element.trim_ascii()))
}

/// The addresses of one `Forwarded` field. `None`: an element that names none, for it hides it or is malformed.
pub fn forwarded(value: &[u8]) -> impl Iterator<Item = Option<IpAddr>> {
    split_unquoted(value, b',').map(address_of_element)
}

fn address_of_element(element: &[u8]) -> Option<IpAddr> {
    let mut node = None;
    for pair in split_unquoted(element, b';') {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"for") && node.replace(value).is_some() {
            return None;
        }
    }
    // What an open quote swallowed is another hop's word.
    if ends_quoted(element) {
        return None;
    }
    let node = node?;
    // A quoted address has no escapes: with one, it is none.
    address(node.strip_prefix(b"\"").map_or(Some(node), |it| it.strip_suffix(b"\""))?)
}

/// `address`, `address:port`, `[address]` or `[address]:port`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|it| it.ip());
    text.parse().ok().or_else(with_port).or_else(bracketed).map(|it: IpAddr| it.to_canonical())
}

fn ends_quoted(text: &[u8]) -> bool {
    let mut escaped = false;
    text.iter().fold(false, |quoted, &byte| {
        let literal = escaped;
        escaped = quoted && !literal && byte == b'\\';
        quoted != (byte == b'"' && !literal)
    })
}

/// The parts of a text between separators that do not stand in quotes.
fn split_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |&byte| {
        let literal = escaped;
        escaped = quoted && !literal && byte == b'\\';
        if byte == b'"' && !literal {
            quoted = !quoted;
        }
        byte == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(hops: impl Iterator<Item = Option<IpAddr>>) -> String {
        let text = |it: Option<IpAddr>| it.map_or("-".to_owned(), |it| it.to_string());
        hops.map(text).collect::<Vec<String>>().join(" ")
    }

    #[test]
    fn lists_of_addresses() {
        for (value, expect) in [
            ("203.0.113.7", "203.0.113.7"),
            (" 203.0.113.7 ,10.0.0.1", "203.0.113.7 10.0.0.1"),
            (
                "203.0.113.7:4711, [2001:db8::7]:1, [2001:db8::8], 2001:db8::9",
                "203.0.113.7 2001:db8::7 2001:db8::8 2001:db8::9",
            ),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("unknown, 10.0.0.1", "- 10.0.0.1"),
            ("", "-"),
            ("1.2.3.4,,5.6.7.8", "1.2.3.4 - 5.6.7.8"),
            ("1.2.3, 01.2.3.4, 1.2.3.4.5, 1.2.3.4:x, [1.2.3.4]", "- - - - -"),
        ] {
            assert_eq!(texts(x_forwarded_for(value.as_bytes())), expect, "{value}");
        }
    }

    #[test]
    fn elements_of_the_standard() {
        for (value, expect) in [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=192.0.2.43, for=198.51.100.17", "192.0.2.43 198.51.100.17"),
            ("for=_hidden, for=unknown, for=\"_SEVKISEK\"", "- - -"),
            ("by=203.0.113.43", "-"),
            ("for=192.0.2.60;x=\", for=203.0.113.9", "-"),
            ("for=1.2.3.4;for=5.6.7.8", "-"),
            ("for", "-"),
            ("proto=\"a,b;for=6.6.6.6\";for=1.2.3.4", "1.2.3.4"),
            ("proto=\"a\\\",for=6.6.6.6\", for=1.2.3.4", "- 1.2.3.4"),
            ("for=\"1.2.3.4", "-"),
            ("for=\"1.2.3.\\4\"", "-"),
        ] {
            assert_eq!(texts(forwarded(value.as_bytes())), expect, "{value}");
        }
    }

    proptest! {
        #[test]
        fn hostile_values_end(value in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(forwarded(&value).count() <= value.len() + 1);
            prop_assert!(x_forwarded_for(&value).count() <= value.len() + 1);
        }
    }
}
