//! Vectors as text that a person can read and that says every byte.
//!
//! ```text
//! [name]
//! from: RFC 9112 6.3; what else the case is known as
//! expect: accept 12; refuse 400 start_line
//! gateway: 200 400 closes
//! | POST / HTTP/1.1\r\n
//! | Host: a\r\n\r\n
//! ```
//!
//! The bytes are the lines behind the bars, joined with nothing between them. `\r \n \t \0 \\ \xNN` are escapes;
//! `<word>` stands for a text that the test gives, `<a*300>` for a text that many times.

use std::collections::BTreeSet;

/// One vector.
#[derive(Clone, Debug)]
pub struct Vector {
    /// Its name, unique in its file.
    pub name: String,
    /// Which rule or attack it is of.
    pub from: String,
    /// What the readers must make of it, in the words of its file.
    pub expect: String,
    /// What the gateway must make of it, where that does not follow from `expect`.
    pub gateway: Option<String>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The vectors of a file; `words` are the texts that it may name.
///
/// # Panics
/// Where the file is not of the format.
pub fn vectors(text: &str, words: &[(&str, &str)]) -> Vec<Vector> {
    let mut all: Vec<Vector> = Vec::new();
    let mut names = BTreeSet::new();
    for line in text.lines().filter(|it| !it.trim().is_empty() && !it.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            assert!(names.insert(name), "two vectors are called {name}");
            let (from, expect, gateway, bytes) = Default::default();
            all.push(Vector { name: name.to_owned(), from, expect, gateway, bytes });
            continue;
        }
        let vector = all.last_mut().unwrap_or_else(|| panic!("before the first name: {line}"));
        match line.split_once(' ') {
            Some(("|", bytes)) => vector.bytes.extend(unescaped(bytes, words)),
            Some(("from:", from)) => vector.from = from.trim().to_owned(),
            Some(("expect:", expect)) => vector.expect = expect.trim().to_owned(),
            Some(("gateway:", gateway)) => vector.gateway = Some(gateway.trim().to_owned()),
            _ => panic!("not of the format: {line}"),
        }
    }
    for vector in &all {
        let whole = !vector.from.is_empty() && !vector.expect.is_empty() && !vector.bytes.is_empty();
        assert!(whole, "{} lacks something", vector.name);
    }
    all
}

fn unescaped(text: &str, words: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        match first {
            '\\' => {
                let (byte, length) = escape(rest);
                bytes.push(byte);
                rest = &rest[length..];
            }
            '<' => {
                let end = rest.find('>').unwrap_or_else(|| panic!("no `>` in {text}"));
                word(&rest[1..end], words, &mut bytes);
                rest = &rest[end + 1..];
            }
            _ => {
                bytes.extend_from_slice(&rest.as_bytes()[..first.len_utf8()]);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    bytes
}

/// The byte that an escape stands for, and how long the escape is.
fn escape(text: &str) -> (u8, usize) {
    match text.as_bytes().get(1) {
        Some(b'r') => (b'\r', 2),
        Some(b'n') => (b'\n', 2),
        Some(b't') => (b'\t', 2),
        Some(b'0') => (0, 2),
        Some(b'\\') => (b'\\', 2),
        Some(b'x') => {
            let digits = text.get(2..4).and_then(|it| u8::from_str_radix(it, 16).ok());
            (digits.unwrap_or_else(|| panic!("not two digits: {text}")), 4)
        }
        _ => panic!("no such escape: {text}"),
    }
}

fn word(word: &str, words: &[(&str, &str)], bytes: &mut Vec<u8>) {
    let given = |name: &str| words.iter().find(|it| it.0 == name).map(|it| it.1);
    if let Some(text) = given(word) {
        return bytes.extend_from_slice(text.as_bytes());
    }
    let parts = word.rsplit_once('*').and_then(|(part, times)| Some((part, times.parse().ok()?)));
    let (part, times): (&str, usize) = parts.unwrap_or_else(|| panic!("no such word: <{word}>"));
    let part = given(part).map_or_else(|| unescaped(part, &[]), |it| it.as_bytes().to_vec());
    bytes.extend(part.repeat(times));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_every_byte() {
        let text = "# note\n[a]\nfrom: x\nexpect: y\n| <word>\\r\\n\n|  \\x00\\t\\\\<ab*2><\\r*2>\n\n[b]\nfrom: x\nexpect: z\ngateway: g\n| c\n";
        let all = vectors(text, &[("word", "w\\r")]);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].bytes, b"w\\r\r\n \0\t\\abab\r\r");
        assert_eq!((all[1].name.as_str(), all[1].gateway.as_deref()), ("b", Some("g")));
    }
}
