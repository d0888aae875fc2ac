//! Follows JSON that passes by in pieces and is never held whole, and shows the strings that stand under chosen names:
//! the models and files of a batch of many megabytes.
//!
//! Strict: text that two readers could take for different things is refused, so that whoever reads it next reads the
//! same strings. What is kept is bounded by the longest string that is wanted. It gives no name a meaning.

use crate::json;
use crate::scan::{is_scalar, string_stop};

/// How deep the text may nest.
pub const DEPTH_MAX: usize = 128;
/// In a path: an element of an array.
pub const ITEM: u8 = 0xfe;
/// In a path: a member that nobody looks at.
pub const OTHER: u8 = 0xff;

/// A key as sent may be this long and still be one of the names: each character can be an escape of six.
const KEY_BYTES_MAX: usize = 192;
/// Longest number.
const WORD_BYTES_MAX: usize = 512;

/// What is shown, with its path from the outermost object: positions of names, [`ITEM`], [`OTHER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'t> {
    /// An object or an array ended.
    Closed,
    /// A string.
    Text(&'t str),
    /// A string that is longer than wanted, or not UTF-8.
    Unreadable,
}

/// What is wrong with the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowError {
    /// It ended in the middle.
    Ended,
    /// A line end inside of an object that has to stand in one line.
    SeveralLines,
    /// A byte that the grammar does not allow there.
    Syntax,
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
}

impl std::fmt::Display for FollowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FollowError::Ended => "the JSON ends too early",
            FollowError::SeveralLines => "each JSON object has to stand in one line",
            FollowError::Syntax => "it is not valid JSON",
            FollowError::TooDeep => "the JSON nests too deep",
        })
    }
}

impl std::error::Error for FollowError {}

/// Follows one object, or one a line.
#[derive(Debug)]
pub struct Follow {
    names: &'static [&'static str],
    text_bytes_max: usize,
    lines: bool,
    expect: Expect,
    token: Token,
    escape: Escape,
    /// For each open object or array: the member or element that is being read.
    path: [u8; DEPTH_MAX],
    /// One bit for each level, set for an object.
    objects: u128,
    depth: usize,
    /// The key, string or number being read, as sent.
    raw: Vec<u8>,
    /// It is longer than what may be kept.
    overlong: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The outermost object.
    Start,
    Value,
    ValueOrClose,
    Key,
    KeyOrClose,
    Colon,
    CommaOrClose,
    /// Nothing but white space.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    None,
    Key,
    Text {
        kept: bool,
    },
    /// A number, `true`, `false` or `null`.
    Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    /// Behind the backslash.
    Letter,
    /// So many hexadecimal digits are to come.
    Hex(u8),
}

impl Follow {
    /// Follows one object. Strings under `names` are shown if they are at most `text_bytes_max` bytes long.
    pub fn object(names: &'static [&'static str], text_bytes_max: usize) -> Follow {
        debug_assert!(names.len() < usize::from(ITEM));
        Follow {
            names,
            text_bytes_max,
            lines: false,
            expect: Expect::Start,
            token: Token::None,
            escape: Escape::None,
            path: [OTHER; DEPTH_MAX],
            objects: 0,
            depth: 0,
            raw: Vec::new(),
            overlong: false,
        }
    }

    /// The same for any number of objects, each in a line of its own.
    pub fn lines(names: &'static [&'static str], text_bytes_max: usize) -> Follow {
        Follow { lines: true, ..Follow::object(names, text_bytes_max) }
    }

    /// Takes the next piece of the text. `see` is shown what ends in it, and may refuse.
    ///
    /// # Errors
    /// The first thing that is wrong, or what `see` says; nothing may be fed after that.
    pub fn feed<E: From<FollowError>>(
        &mut self,
        piece: &[u8],
        see: &mut impl FnMut(&[u8], Seen<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            match self.token {
                Token::Key | Token::Text { .. } => at = self.step_in_string(piece, at, see)?,
                Token::Word if is_word(byte) => {
                    self.keep(&[byte], WORD_BYTES_MAX);
                    at += 1;
                }
                Token::Word => self.end_word()?,
                Token::None => {
                    self.step(byte, see)?;
                    at += 1;
                }
            }
        }
        Ok(())
    }

    /// The text ended.
    ///
    /// # Errors
    /// It should not have.
    pub fn finish(&self) -> Result<(), FollowError> {
        let ended = match self.expect {
            Expect::End => true,
            Expect::Start => self.lines,
            _ => false,
        };
        if ended && self.token == Token::None { Ok(()) } else { Err(FollowError::Ended) }
    }

    fn step<E: From<FollowError>>(
        &mut self,
        byte: u8,
        see: &mut impl FnMut(&[u8], Seen<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match (byte, self.expect) {
            (b'\n', _) if self.lines => self.end_line()?,
            (b' ' | b'\t' | b'\r' | b'\n', _) => {}
            (b'{', Expect::Start) => self.open(true)?,
            (b']', Expect::ValueOrClose) | (b'}', Expect::KeyOrClose) => self.close(see)?,
            (_, Expect::Value | Expect::ValueOrClose) => self.begin_value(byte)?,
            (b'"', Expect::Key | Expect::KeyOrClose) => self.begin(Token::Key),
            (b':', Expect::Colon) => self.expect = Expect::Value,
            (b',', Expect::CommaOrClose) => {
                self.expect = if self.in_object() { Expect::Key } else { Expect::Value };
            }
            (b'}', Expect::CommaOrClose) if self.in_object() => self.close(see)?,
            (b']', Expect::CommaOrClose) if !self.in_object() => self.close(see)?,
            _ => return Err(FollowError::Syntax.into()),
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), FollowError> {
        match self.expect {
            Expect::Start => {}
            Expect::End => self.expect = Expect::Start,
            _ => return Err(FollowError::SeveralLines),
        }
        Ok(())
    }

    fn begin_value(&mut self, byte: u8) -> Result<(), FollowError> {
        match byte {
            b'"' => self.begin(Token::Text { kept: self.is_watched() }),
            b'{' | b'[' => self.open(byte == b'{')?,
            _ if is_word(byte) => {
                self.begin(Token::Word);
                self.keep(&[byte], WORD_BYTES_MAX);
            }
            _ => return Err(FollowError::Syntax),
        }
        Ok(())
    }

    fn begin(&mut self, token: Token) {
        self.token = token;
        self.raw.clear();
        self.overlong = false;
    }

    /// Takes the run of a string's bytes at `at`; returns where it stopped.
    fn step_in_string<E: From<FollowError>>(
        &mut self,
        piece: &[u8],
        at: usize,
        see: &mut impl FnMut(&[u8], Seen<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let bytes_max = match self.token {
            Token::Key => KEY_BYTES_MAX,
            Token::Text { kept: true } => self.text_bytes_max.saturating_mul(6),
            _ => 0,
        };
        if self.escape != Escape::None {
            let byte = piece.get(at).copied().unwrap_or_default();
            self.escape = self.escape.after(byte)?;
            self.keep(&[byte], bytes_max);
            return Ok(at + 1);
        }
        let stop = string_stop(piece, at);
        self.keep(piece.get(at..stop).unwrap_or_default(), bytes_max);
        match piece.get(stop) {
            None => return Ok(stop),
            Some(b'\\') => {
                self.escape = Escape::Letter;
                self.keep(b"\\", bytes_max);
            }
            Some(b'"') => self.end_string(see)?,
            Some(_) => return Err(FollowError::Syntax.into()),
        }
        Ok(stop + 1)
    }

    fn end_string<E: From<FollowError>>(
        &mut self,
        see: &mut impl FnMut(&[u8], Seen<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let token = std::mem::replace(&mut self.token, Token::None);
        if token == Token::Key {
            self.expect = Expect::Colon;
            let name = self.name();
            if let Some(place) = self.path.get_mut(self.depth - 1) {
                *place = name;
            }
            return Ok(());
        }
        self.expect = Expect::CommaOrClose;
        if token != (Token::Text { kept: true }) {
            return Ok(());
        }
        let path = self.path.get(..self.depth).unwrap_or_default();
        let text = std::str::from_utf8(&self.raw).ok().filter(|_| !self.overlong).map(json::decode);
        match text.filter(|it| it.len() <= self.text_bytes_max) {
            Some(text) => see(path, Seen::Text(&text)),
            None => see(path, Seen::Unreadable),
        }
    }

    fn end_word(&mut self) -> Result<(), FollowError> {
        self.token = Token::None;
        self.expect = Expect::CommaOrClose;
        if !self.overlong && is_scalar(&self.raw) { Ok(()) } else { Err(FollowError::Syntax) }
    }

    fn open(&mut self, object: bool) -> Result<(), FollowError> {
        let place = self.path.get_mut(self.depth).ok_or(FollowError::TooDeep)?;
        *place = if object { OTHER } else { ITEM };
        let bit = 1 << self.depth;
        self.objects = if object { self.objects | bit } else { self.objects & !bit };
        self.depth += 1;
        self.expect = if object { Expect::KeyOrClose } else { Expect::ValueOrClose };
        Ok(())
    }

    fn close<E>(&mut self, see: &mut impl FnMut(&[u8], Seen<'_>) -> Result<(), E>) -> Result<(), E> {
        self.depth -= 1;
        self.expect = if self.depth == 0 { Expect::End } else { Expect::CommaOrClose };
        see(self.path.get(..self.depth).unwrap_or_default(), Seen::Closed)
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & (1 << (self.depth - 1)) != 0
    }

    /// Whether the value that begins now stands under one of the names, in arrays or not.
    fn is_watched(&self) -> bool {
        let path = self.path.get(..self.depth).unwrap_or_default();
        path.iter().rev().find(|&&it| it != ITEM).is_some_and(|&it| it != OTHER)
    }

    /// The position of the key that was read.
    fn name(&self) -> u8 {
        if self.overlong {
            return OTHER;
        }
        let Ok(raw) = std::str::from_utf8(&self.raw) else { return OTHER };
        let is = |name: &&str| {
            if raw.contains('\\') { json::decoded(raw).eq(name.chars()) } else { raw == *name }
        };
        self.names.iter().position(is).map_or(OTHER, |at| at as u8)
    }

    fn keep(&mut self, bytes: &[u8], bytes_max: usize) {
        if self.overlong || self.raw.len() + bytes.len() > bytes_max {
            self.overlong = true;
        } else {
            self.raw.extend_from_slice(bytes);
        }
    }
}

impl Escape {
    fn after(self, byte: u8) -> Result<Escape, FollowError> {
        match (self, byte) {
            (Escape::Letter, b'u') => Ok(Escape::Hex(4)),
            (Escape::Letter, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(Escape::None),
            (Escape::Hex(1), _) if byte.is_ascii_hexdigit() => Ok(Escape::None),
            (Escape::Hex(left), _) if byte.is_ascii_hexdigit() => Ok(Escape::Hex(left - 1)),
            _ => Err(FollowError::Syntax),
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: &[&str] = &["requests", "params", "model", "file_id", "file_ids"];

    fn seen(mut follow: Follow, text: &[u8], step: usize) -> Result<Vec<String>, FollowError> {
        let mut all = Vec::new();
        let mut see = |path: &[u8], seen: Seen<'_>| {
            let path: Vec<String> = path
                .iter()
                .map(|it| match *it {
                    ITEM => "-".to_owned(),
                    OTHER => "?".to_owned(),
                    at => NAMES[usize::from(at)].to_owned(),
                })
                .collect();
            match seen {
                Seen::Closed => all.push(format!("{} closed", path.join("/"))),
                Seen::Text(text) => all.push(format!("{}={text}", path.join("/"))),
                Seen::Unreadable => all.push(format!("{} unreadable", path.join("/"))),
            }
            Ok::<(), FollowError>(())
        };
        for piece in text.chunks(step) {
            follow.feed(piece, &mut see)?;
        }
        follow.finish()?;
        Ok(all)
    }

    #[test]
    fn strings_under_the_names_are_shown_whatever_the_pieces() {
        let text = r#" {"requests": [ {"custom_id":"model","params":{"mod\u0065l":"cl\u0061ude","x":{"file_id":"f1"},
            "n":-1.5e3,"t":[true,false,null,[]],"s":"\"model\":\"no\""}}, {"params":{"model":3}}],
            "file_ids":[["a"],"b"]} "#;
        let expected = [
            "requests/-/params/model=claude",
            "requests/-/params/?/file_id=f1",
            "requests/-/params/? closed",
            "requests/-/params/?/- closed",
            "requests/-/params/? closed",
            "requests/-/params closed",
            "requests/- closed",
            "requests/-/params closed",
            "requests/- closed",
            "requests closed",
            "file_ids/-/-=a",
            "file_ids/- closed",
            "file_ids/-=b",
            "file_ids closed",
            " closed",
        ];
        for step in 1..text.len() {
            let all = seen(Follow::object(NAMES, 16), text.as_bytes(), step).unwrap();
            assert_eq!(all, expected, "pieces of {step}");
        }
    }

    #[test]
    fn lines_stand_each_for_themselves() {
        let text = "{\"model\":\"a\"}\r\n\n  {\"model\":\"b\"}\n";
        let all = seen(Follow::lines(NAMES, 16), text.as_bytes(), 3).unwrap();
        assert_eq!(all, ["model=a", " closed", "model=b", " closed"]);
        assert_eq!(seen(Follow::lines(NAMES, 16), b"", 1), Ok(vec![]));
        for wrong in ["{\"a\":\n1}", "{\"a\":1} {\"b\":2}\n", "{\"a\":1}\r{\"b\":2}", "[1]\n", "\u{feff}{}\n"]
        {
            assert!(seen(Follow::lines(NAMES, 16), wrong.as_bytes(), 3).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_too_long_or_no_text_is_told() {
        let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(17));
        assert_eq!(seen(Follow::object(NAMES, 16), long.as_bytes(), 5).unwrap()[0], "model unreadable");
        assert_eq!(
            seen(Follow::object(NAMES, 16), b"{\"model\":\"\xff\"}", 5).unwrap()[0],
            "model unreadable"
        );
        let escaped = format!(r#"{{"model":"{}"}}"#, r"\u0061".repeat(16));
        assert_eq!(
            seen(Follow::object(NAMES, 16), escaped.as_bytes(), 5).unwrap()[0],
            format!("model={}", "a".repeat(16))
        );
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(seen(Follow::object(NAMES, 16), deep(DEPTH_MAX - 1).as_bytes(), 9).is_ok());
        assert_eq!(seen(Follow::object(NAMES, 16), deep(DEPTH_MAX).as_bytes(), 9), Err(FollowError::TooDeep));
    }

    proptest! {
        /// It takes what a reader with a tree takes, and nothing else.
        #[test]
        fn agrees_with_a_tree(text in "[{}\\[\\]:,\"a1e.\\-\\\\u ntrlfs\n]{0,24}", step in 1..9_usize) {
            let expected = serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|it| it.is_object());
            prop_assert_eq!(seen(Follow::object(NAMES, 16), text.as_bytes(), step).is_ok(), expected, "{}", text);
        }

        #[test]
        fn no_input_breaks_it(text in proptest::collection::vec(any::<u8>(), 0..300), step in 1..50_usize) {
            let _ = seen(Follow::lines(NAMES, 4), &text, step);
        }

        /// Each model of a batch is shown, however it is spelled and cut.
        #[test]
        fn every_model_is_shown(models in proptest::collection::vec("[a-z\"\\\\é]{0,6}", 1..6), step in 1..40_usize) {
            let items: Vec<_> = models
                .iter()
                .map(|it| serde_json::json!({"custom_id":"c","params":{"messages":[{"content":it}],"model":it}}))
                .collect();
            let text = serde_json::json!({ "requests": items }).to_string();
            let all = seen(Follow::object(NAMES, 64), text.as_bytes(), step).unwrap();
            let prefix = "requests/-/params/model=";
            let shown: Vec<&str> = all.iter().filter_map(|it| it.strip_prefix(prefix)).collect();
            prop_assert_eq!(shown, models);
        }
    }
}
