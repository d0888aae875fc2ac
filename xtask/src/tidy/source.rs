//! One Rust file taken apart: what is code, what is comment, where the tests are. A scanner of quotes, comments and
//! braces, not a parser: enough for rules about text, and never wrong about where a string ends.

use std::ops::Range;

/// A file and its parts. `code` and `comments` are as long as `text`, with everything else blanked out.
pub(super) struct Source {
    /// Path below the root, with `/`.
    pub(super) path: String,
    /// The whole file.
    pub(super) text: String,
    /// Code alone; what strings and characters contain is replaced by quotes.
    pub(super) code: String,
    /// Comments alone.
    pub(super) comments: String,
    /// Items under `#[cfg(test)]`, as byte ranges.
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Takes a file apart.
    pub(super) fn new(path: &str, text: String) -> Source {
        let (code, comments) = split(text.as_bytes());
        let code = String::from_utf8_lossy(&code).into_owned();
        let comments = String::from_utf8_lossy(&comments).into_owned();
        let tests = test_items(&code);
        Source { path: path.into(), text, code, comments, tests }
    }

    /// The whole file is tests: by its folder or its name.
    pub(super) fn is_test_file(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        parts.contains(&"tests") || parts.contains(&"tests.rs") || self.path.ends_with("_tests.rs")
    }

    /// The byte at `offset` belongs to a test.
    pub(super) fn is_test(&self, offset: usize) -> bool {
        self.is_test_file() || self.tests.iter().any(|range| range.contains(&offset))
    }

    /// Number of the line of a byte, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
    }

    /// Lines that are not in tests.
    pub(super) fn lines_without_tests(&self) -> usize {
        let lines_of = |range: &Range<usize>| {
            self.text
                .as_bytes()
                .get(range.clone())
                .unwrap_or_default()
                .iter()
                .filter(|b| **b == b'\n')
                .count()
        };
        self.text.lines().count().saturating_sub(self.tests.iter().map(lines_of).sum())
    }
}

/// Offsets at which `word` stands as a whole word.
pub(super) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).and_then(|i| bytes.get(i)).copied().unwrap_or(b' ');
        let after = bytes.get(at + word.len()).copied().unwrap_or(b' ');
        !is_word(before) && !is_word(after)
    })
}

/// The offset just behind the brace that closes the one at `open`, or the end of the text.
pub(super) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return offset + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// What the scanner has found at a position.
enum Piece {
    Code,
    Comment(usize),
    /// A literal: where it ends.
    Text(usize),
}

fn split(text: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let blank = |byte: &u8| if *byte == b'\n' { b'\n' } else { b' ' };
    let quoted = |byte: &u8| if *byte == b'\n' { b'\n' } else { b'"' };
    let (mut code, mut comments) = (Vec::with_capacity(text.len()), Vec::with_capacity(text.len()));
    let mut at = 0;
    while at < text.len() {
        match piece(text, at) {
            Piece::Code => {
                code.push(text[at]);
                comments.push(blank(&text[at]));
                at += 1;
            }
            Piece::Comment(end) => {
                code.extend(text[at..end].iter().map(blank));
                comments.extend(&text[at..end]);
                at = end;
            }
            Piece::Text(end) => {
                code.extend(text[at..end].iter().map(quoted));
                comments.extend(text[at..end].iter().map(blank));
                at = end;
            }
        }
    }
    (code, comments)
}

fn piece(text: &[u8], at: usize) -> Piece {
    let rest = &text[at..];
    match rest {
        [b'/', b'/', ..] => Piece::Comment(find(text, at, b'\n')),
        [b'/', b'*', ..] => Piece::Comment(block_comment(text, at)),
        [b'"', ..] => Piece::Text(string(text, at + 1)),
        [b'r', ..] if at == 0 || !is_word(text[at - 1]) || prefixed(text, at) => raw_string(text, at),
        [b'\'', ..] => character(text, at),
        _ => Piece::Code,
    }
}

/// The `r` at `at` follows a `b` or `c` that begins a word: `br"…"`.
fn prefixed(text: &[u8], at: usize) -> bool {
    matches!(text[at - 1], b'b' | b'c') && (at < 2 || !is_word(text[at - 2]))
}

fn find(text: &[u8], from: usize, wanted: u8) -> usize {
    text[from..].iter().position(|byte| *byte == wanted).map_or(text.len(), |found| from + found)
}

/// Comments nest.
fn block_comment(text: &[u8], from: usize) -> usize {
    let mut depth = 0usize;
    let mut at = from;
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The end of a string whose content begins at `from`.
fn string(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn raw_string(text: &[u8], at: usize) -> Piece {
    let hashes = text[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = at + 1 + hashes;
    if text.get(open) != Some(&b'"') {
        return Piece::Code;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let found = text[open + 1..].windows(end.len()).position(|window| window == end);
    Piece::Text(found.map_or(text.len(), |found| open + 1 + found + end.len()))
}

/// A character, unless the quote begins a lifetime.
fn character(text: &[u8], at: usize) -> Piece {
    match text.get(at + 1) {
        Some(b'\\') => Piece::Text((find(text, (at + 3).min(text.len()), b'\'') + 1).min(text.len())),
        Some(first) => {
            let width = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            let end = at + 1 + width;
            if text.get(end) == Some(&b'\'') { Piece::Text(end + 1) } else { Piece::Code }
        }
        None => Piece::Code,
    }
}

/// Items behind an attribute `cfg` that names `test`, attribute included.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut items: Vec<Range<usize>> = Vec::new();
    for (at, _) in code.match_indices("#[cfg(") {
        if items.last().is_some_and(|item| item.contains(&at)) {
            continue;
        }
        let Some(length) = code[at..].find(']') else { continue };
        let attribute = &code[at..at + length];
        if words(attribute, "test").next().is_none() || attribute.contains("not(test") {
            continue;
        }
        let from = at + length;
        let end = match code[from..].find(['{', ';']) {
            Some(found) if code.as_bytes()[from + found] == b'{' => closing(code, from + found),
            Some(found) => from + found + 1,
            None => code.len(),
        };
        items.push(at..end);
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("core/src/a.rs", text.into())
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        for text in [
            "\"unsafe\"",
            "\"\\\"unsafe\"",
            "r\"unsafe\\\"",
            "r#\"a\"unsafe\"#",
            "br##\"\"#unsafe\"##",
            "b\"unsafe\"",
            "// unsafe",
            "/* a /* b */ unsafe */",
            "\"// \" /* unsafe */",
        ] {
            let source = source(&format!("let a = {text}\n;"));
            assert!(!source.code.contains("unsafe"), "{text}: {}", source.code);
            assert!(source.code.ends_with(';'), "{text}: {}", source.code);
            assert_eq!(source.code.len(), source.text.len());
        }
    }

    #[test]
    fn characters_and_lifetimes_are_told_apart() {
        let all = source("fn a<'a>(b: &'a str) { c('\"', '\\'', '{', 'ä', b'\\\\'); unsafe {} }");
        assert!(all.code.contains("unsafe {} }"), "{}", all.code);
        assert!(all.code.contains("<'a>"));
        assert_eq!(closing(&all.code, all.code.find('{').expect("open")), all.code.len());
    }

    #[test]
    fn a_name_that_ends_in_r_before_a_string_is_no_raw_string() {
        let all = source("let r = bar\"x\"; unsafe");
        assert!(all.code.ends_with("unsafe"), "{}", all.code);
    }

    #[test]
    fn comments_alone_hold_comments() {
        let all = source("let a = \"XXX\"; // here XXX");
        assert_eq!(all.comments.match_indices("XXX").count(), 1);
    }

    #[test]
    fn test_modules_are_found_and_other_cfgs_are_not() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { \"}\" }\n}\n#[cfg(not(test))]\nfn c() {}\n";
        let all = source(text);
        let at = |name: &str| text.find(name).expect("there");
        assert!(all.is_test(at("fn b")));
        assert!(!all.is_test(at("fn a")) && !all.is_test(at("fn c")));
        assert_eq!(all.lines_without_tests(), 4);
        assert!(source("#[cfg(all(test, not(loom)))]\nmod tests;\nfn a() {}").is_test(3));
        assert!(!source("#[cfg(testing)]\nmod tests;\nfn a() {}").is_test(3));
    }

    #[test]
    fn whole_words_only() {
        assert_eq!(words("unsafe_code unsafe xunsafe", "unsafe").collect::<Vec<_>>(), [12]);
    }
}
