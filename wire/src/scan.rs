//! One pass over JSON text by its strict grammar (RFC 8259), without a tree and without allocation.
//!
//! It decides whether text is JSON and where its parts begin and end. It does not check UTF-8 (`skim` does, once, over
//! the whole text) and gives no part a meaning. `json` and `skim` are its users.

use std::ops::Range;

use crate::json::{JsonError, JsonErrorKind};

mod lexemes;

pub(crate) use lexemes::string_stop;
use lexemes::{number_end, space_end, string_end, unexpected, word_end};

/// The deepest nesting there can be, whatever the limit says: one bit is kept for each level.
pub(crate) const DEPTH_CEILING: usize = 256;

/// What lies between the quotes of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawString<'a> {
    pub(crate) raw: &'a [u8],
    /// Whether there is a backslash in it.
    pub(crate) escaped: bool,
}

/// Is shown every key of the objects inside a value, at any depth.
pub(crate) trait KeyWatch<'a> {
    /// `value` is the text from the key's value on, which was not checked yet.
    fn key(&mut self, key: RawString<'a>, value: &'a [u8]);
}

/// Nobody wants to know.
impl<'a> KeyWatch<'a> for () {
    #[inline]
    fn key(&mut self, _key: RawString<'a>, _value: &'a [u8]) {}
}

/// A place in a text.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth_max: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8], depth_max: usize) -> Scanner<'a> {
        Scanner { text, at: 0, depth_max: depth_max.min(DEPTH_CEILING) }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// All of the text from here on.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn slice(&self, span: &Range<usize>) -> &'a [u8] {
        self.text.get(span.clone()).unwrap_or_default()
    }

    pub(crate) fn skip_space(&mut self) {
        self.at = space_end(self.text, self.at);
    }

    /// Nothing but white space may be left.
    pub(crate) fn expect_end(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.error(JsonErrorKind::Trailing)) }
    }

    /// Steps into the object or array that begins here and would nest `depth` deep.
    pub(crate) fn open(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth > self.depth_max {
            return Err(self.error(JsonErrorKind::TooDeep));
        }
        self.at += 1;
        Ok(())
    }

    /// The next key of the object that was opened, and the scanner at the value, which must be taken before the next
    /// call. `None` behind the closing brace. `first` starts as true.
    pub(crate) fn next_member(&mut self, first: &mut bool) -> Result<Option<RawString<'a>>, JsonError> {
        if !self.next_in_container(first, b'}')? {
            return Ok(None);
        }
        let (key, value) = key_and_value(self.text, self.at)?;
        self.at = value;
        Ok(Some(key))
    }

    /// Whether the array that was opened has another element, and the scanner at it, which must be taken before the
    /// next call. False behind the closing bracket. `first` starts as true.
    pub(crate) fn next_element(&mut self, first: &mut bool) -> Result<bool, JsonError> {
        self.next_in_container(first, b']')
    }

    /// Takes one value of any kind and returns where it lies. `depth` is how deep its container nests.
    pub(crate) fn value(
        &mut self,
        depth: usize,
        watch: &mut impl KeyWatch<'a>,
    ) -> Result<Range<usize>, JsonError> {
        let start = self.at;
        self.at = value_end(self.text, start, Nesting::new(depth, self.depth_max), watch)?;
        Ok(start..self.at)
    }

    /// Takes the string that begins here, at its opening quote.
    pub(crate) fn string(&mut self) -> Result<RawString<'a>, JsonError> {
        let start = self.at + 1;
        let (end, escaped) = string_end(self.text, start)?;
        self.at = end + 1;
        Ok(RawString { raw: self.slice(&(start..end)), escaped })
    }

    pub(crate) fn error(&self, kind: JsonErrorKind) -> JsonError {
        JsonError { offset: self.at, kind }
    }

    pub(crate) fn unexpected(&self) -> JsonError {
        unexpected(self.text, self.at)
    }

    fn next_in_container(&mut self, first: &mut bool, close: u8) -> Result<bool, JsonError> {
        self.skip_space();
        let opened_just_now = std::mem::replace(first, false);
        match self.peek() {
            Some(byte) if byte == close => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !opened_just_now => {
                self.at += 1;
                self.skip_space();
            }
            Some(_) if opened_just_now => {}
            _ => return Err(self.unexpected()),
        }
        Ok(true)
    }
}

/// Whether `text` is a number, `true`, `false` or `null`, and nothing else.
pub(crate) fn is_scalar(text: &[u8]) -> bool {
    matches!(text, b"true" | b"false" | b"null") || number_end(text, 0) == Ok(text.len())
}

/// The containers that are open: one bit each, set for an object.
struct Nesting {
    objects: [u64; DEPTH_CEILING / 64],
    base: usize,
    depth: usize,
    depth_max: usize,
}

impl Nesting {
    fn new(depth: usize, depth_max: usize) -> Nesting {
        Nesting { objects: [0; DEPTH_CEILING / 64], base: depth, depth, depth_max }
    }

    #[inline]
    fn push(&mut self, object: bool) -> bool {
        let Some(word) = self.objects.get_mut(self.depth / 64).filter(|_| self.depth < self.depth_max) else {
            return false;
        };
        let bit = 1 << (self.depth % 64);
        *word = if object { *word | bit } else { *word & !bit };
        self.depth += 1;
        true
    }

    #[inline]
    fn in_object(&self) -> bool {
        let level = self.depth.wrapping_sub(1);
        self.objects.get(level / 64).is_some_and(|word| word & (1 << (level % 64)) != 0)
    }
}

/// Where the value ends that begins at `at`. A loop and no recursion: nesting costs bits, not stack.
fn value_end<'a>(
    text: &'a [u8],
    mut at: usize,
    mut nesting: Nesting,
    watch: &mut impl KeyWatch<'a>,
) -> Result<usize, JsonError> {
    loop {
        at = match text.get(at) {
            Some(b'"') => string_end(text, at + 1)?.0 + 1,
            Some(&open @ (b'{' | b'[')) => {
                if !nesting.push(open == b'{') {
                    return Err(JsonError { offset: at, kind: JsonErrorKind::TooDeep });
                }
                let inside = space_end(text, at + 1);
                // The closing brackets are two above the opening ones in ASCII.
                if text.get(inside) != Some(&(open + 2)) {
                    at = if open == b'{' { watched_key(text, inside, watch)? } else { inside };
                    continue;
                }
                inside
            }
            Some(b'-' | b'0'..=b'9') => number_end(text, at)?,
            Some(b't') => word_end(text, at, b"true")?,
            Some(b'f') => word_end(text, at, b"false")?,
            Some(b'n') => word_end(text, at, b"null")?,
            _ => return Err(unexpected(text, at)),
        };
        // Behind a value, or at the bracket that closes an empty container.
        loop {
            if nesting.depth == nesting.base {
                return Ok(at);
            }
            at = space_end(text, at);
            match (text.get(at), nesting.in_object()) {
                (Some(b'}'), true) | (Some(b']'), false) => nesting.depth -= 1,
                (Some(b','), true) => {
                    at = watched_key(text, space_end(text, at + 1), watch)?;
                    break;
                }
                (Some(b','), false) => {
                    at = space_end(text, at + 1);
                    break;
                }
                _ => return Err(unexpected(text, at)),
            }
            at += 1;
        }
    }
}

/// Passes over a key and its colon to the value, and shows the key.
#[inline]
fn watched_key<'a>(text: &'a [u8], at: usize, watch: &mut impl KeyWatch<'a>) -> Result<usize, JsonError> {
    let (key, value) = key_and_value(text, at)?;
    watch.key(key, text.get(value..).unwrap_or_default());
    Ok(value)
}

/// The key that begins at `at`, and where its value begins.
#[inline]
fn key_and_value(text: &[u8], at: usize) -> Result<(RawString<'_>, usize), JsonError> {
    if text.get(at) != Some(&b'"') {
        return Err(unexpected(text, at));
    }
    let (end, escaped) = string_end(text, at + 1)?;
    let colon = space_end(text, end + 1);
    if text.get(colon) != Some(&b':') {
        return Err(unexpected(text, colon));
    }
    let raw = text.get(at + 1..end).unwrap_or_default();
    Ok((RawString { raw, escaped }, space_end(text, colon + 1)))
}
