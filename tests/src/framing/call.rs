//! The calls that the vectors and the generated requests are made of: one that is whole and good, and the same with a mark,
//! to stand where it must never be taken for a request.

use super::vector::{Vector, vectors};
use crate::messages::VIRTUAL_KEY;

/// A body that the gateway passes on.
pub const BODY: &str = r#"{"model":"front","max_tokens":1,"messages":[]}"#;

/// The fields that a call needs beside `Host`.
pub fn key() -> String {
    format!("x-api-key: {VIRTUAL_KEY}\r\nanthropic-version: 2023-06-01\r\n")
}

/// A whole call; `mark` stands behind its path.
pub fn call(mark: &str) -> String {
    let (key, length) = (key(), BODY.len());
    format!(
        "POST /v1/messages{mark} HTTP/1.1\r\nHost: gateway\r\n{key}Content-Length: {length}\r\n\r\n{BODY}"
    )
}

/// The vectors of what callers may send.
pub fn requests() -> Vec<Vector> {
    let (attack, second) = (call("?smuggled"), call(""));
    let (length, hex) = (BODY.len().to_string(), format!("{:x}", BODY.len()));
    let (attack_length, attack_hex) = (attack.len().to_string(), format!("{:x}", attack.len()));
    vectors(
        include_str!("../../framing/requests.txt"),
        &[
            ("post", "POST /v1/messages HTTP/1.1\r\n"),
            ("host", "Host: gateway\r\n"),
            ("key", &key()),
            ("body", BODY),
            ("length", &length),
            ("hex", &hex),
            ("attack", &attack),
            ("attack-length", &attack_length),
            ("attack-hex", &attack_hex),
            ("second", &second),
        ],
    )
}
