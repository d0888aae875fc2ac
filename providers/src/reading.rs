//! Lenient reading of JSON that a provider sent: what cannot be read is as if it were not there. Never used on
//! callers' bodies, which are held to the grammar.

use std::borrow::Cow;

use tidegate_core::Tokens;
use tidegate_wire::json;

/// The value of a member, as it stands in the text; `None` also where the text is no object.
pub(crate) fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    json::member(object, name).ok().flatten()
}

/// The values of several members in one pass; all `None` where the text is no object.
pub(crate) fn members<'a, const N: usize>(object: &'a [u8], names: [&str; N]) -> [Option<&'a [u8]>; N] {
    json::members(object, names).unwrap_or([None; N])
}

/// A string, decoded.
pub(crate) fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    json::as_str(value)
}

/// A count of tokens. Some servers send whole numbers as floats or as strings; `null` and what is no count are
/// `None`.
pub(crate) fn tokens(value: &[u8]) -> Option<Tokens> {
    if let Some(count) = json::as_u64(value) {
        return Some(count);
    }
    let quoted = text(value);
    let float: f64 = match &quoted {
        Some(text) => text.parse().ok()?,
        None => std::str::from_utf8(value).ok()?.parse().ok()?,
    };
    // Beyond 2^53 a float is no count any more, and no provider bills that much in one call.
    ((0.0..=9_007_199_254_740_992.0).contains(&float)).then_some(float as Tokens)
}

/// A count in a header field.
pub(crate) fn count(value: &[u8]) -> Option<u64> {
    json::as_u64(value.trim_ascii())
}

/// Whether a value holds anything: not `null`, not an empty string, array or object.
pub(crate) fn holds_something(value: &[u8]) -> bool {
    match value.first() {
        None | Some(b'n') => false,
        Some(b'"') => value.len() > 2,
        Some(b'[' | b'{') => value.get(1..value.len() - 1).is_some_and(|it| !it.trim_ascii().is_empty()),
        Some(_) => true,
    }
}

/// Whether a text is one JSON object and nothing else.
pub(crate) fn is_object(text: &[u8]) -> bool {
    text.first() == Some(&b'{') && json::Members::new(text).all(|it| it.is_ok())
}

/// Appends `"name":"text"`.
pub(crate) fn write_member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    json::write_str(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_leniently() {
        for (value, count) in [
            (&b"12"[..], Some(12)),
            (b"12.0", Some(12)),
            (b"\"12\"", Some(12)),
            (b"1e3", Some(1000)),
            (b"0", Some(0)),
            (b"null", None),
            (b"-1", None),
            (b"true", None),
            (b"\"\"", None),
            (b"\"inf\"", None),
            (b"\"NaN\"", None),
            (b"1e300", None),
            (b"{}", None),
            (b"\xff", None),
        ] {
            assert_eq!(tokens(value), count, "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn empty_values_hold_nothing() {
        for empty in [&b""[..], b"null", b"\"\"", b"[]", b"{ }"] {
            assert!(!holds_something(empty), "{}", String::from_utf8_lossy(empty));
        }
        for full in [&b"\"x\""[..], b"[1]", b"{\"a\":1}", b"0", b"false", b"["] {
            let expected = full != b"[";
            assert_eq!(holds_something(full), expected, "{}", String::from_utf8_lossy(full));
        }
    }
}
