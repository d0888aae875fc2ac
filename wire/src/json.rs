//! Reads single members out of JSON that a provider sent, without a tree: `usage`, `type`, `error` of a reply or an
//! event. Also writes strings.
//!
//! It checks the grammar as far as it reads, is bounded in depth, and lends slices of its input. It does not know
//! what any member means, and it does not check UTF-8 except in a string that is asked for.

use std::borrow::Cow;
use std::ops::Range;

use crate::scan::{RawString, Scanner, string_stop};

/// How deep the values read here may nest.
pub const DEPTH_MAX: usize = 128;

/// What is wrong with the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JsonErrorKind {
    /// The text ends in the middle.
    Ended,
    /// A byte that the grammar does not allow there.
    Syntax,
    /// Nested deeper than the limit.
    TooDeep,
    /// Something follows the value.
    Trailing,
    /// Another kind of value than the one that was to be read.
    WrongKind,
}

/// Text that is not the JSON it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Where it was noticed.
    pub offset: usize,
    /// What is wrong.
    pub kind: JsonErrorKind,
}

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at byte {}", self.kind, self.offset)
    }
}

impl std::error::Error for JsonError {}

/// The key of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a>(RawString<'a>);

impl<'a> Key<'a> {
    /// What lies between the quotes, as sent.
    pub fn raw(&self) -> &'a [u8] {
        self.0.raw
    }

    /// Whether the key, decoded, is `name`.
    pub fn is(&self, name: &str) -> bool {
        key_is(self.0, name)
    }
}

/// The members of one object, in order; each value as it lies in the text. `null` reads as an object without
/// members, because replies often hold it in place of one. The first error ends the iteration.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    scanner: Scanner<'a>,
    state: Walk,
}

/// The elements of one array, in order, as they lie in the text. `null` reads as an empty one. The first error ends
/// the iteration.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    scanner: Scanner<'a>,
    state: Walk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    Unopened,
    Inside { first: bool },
    Over,
}

impl<'a> Members<'a> {
    /// The members of the object that is the whole of `text`, white space around it aside.
    pub fn new(text: &'a [u8]) -> Members<'a> {
        Members { scanner: Scanner::new(text, DEPTH_MAX), state: Walk::Unopened }
    }

    fn step(&mut self) -> Result<Option<(Key<'a>, &'a [u8])>, JsonError> {
        let Some(mut first) = enter(&mut self.scanner, &mut self.state, b'{')? else { return Ok(None) };
        let Some(key) = self.scanner.next_member(&mut first)? else {
            self.state = Walk::Over;
            self.scanner.expect_end()?;
            return Ok(None);
        };
        let span = self.scanner.value(1, &mut ())?;
        self.state = Walk::Inside { first };
        Ok(Some((Key(key), self.scanner.slice(&span))))
    }
}

impl<'a> Elements<'a> {
    /// The elements of the array that is the whole of `text`, white space around it aside.
    pub fn new(text: &'a [u8]) -> Elements<'a> {
        Elements { scanner: Scanner::new(text, DEPTH_MAX), state: Walk::Unopened }
    }

    fn step(&mut self) -> Result<Option<&'a [u8]>, JsonError> {
        let Some(mut first) = enter(&mut self.scanner, &mut self.state, b'[')? else { return Ok(None) };
        if !self.scanner.next_element(&mut first)? {
            self.state = Walk::Over;
            self.scanner.expect_end()?;
            return Ok(None);
        }
        let span = self.scanner.value(1, &mut ())?;
        self.state = Walk::Inside { first };
        Ok(Some(self.scanner.slice(&span)))
    }
}

/// Opens the container at the first step. Until the step succeeds the walk counts as over, so that an error ends it.
fn enter(scanner: &mut Scanner<'_>, state: &mut Walk, open: u8) -> Result<Option<bool>, JsonError> {
    match std::mem::replace(state, Walk::Over) {
        Walk::Over => return Ok(None),
        Walk::Inside { first } => return Ok(Some(first)),
        Walk::Unopened => {}
    }
    scanner.skip_space();
    match scanner.peek() {
        Some(byte) if byte == open => {
            scanner.open(1)?;
            Ok(Some(true))
        }
        Some(b'n') => {
            scanner.value(0, &mut ())?;
            scanner.expect_end()?;
            Ok(None)
        }
        Some(_) => Err(scanner.error(JsonErrorKind::WrongKind)),
        None => Err(scanner.unexpected()),
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<(Key<'a>, &'a [u8]), JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// The value of the first member of this name. What follows it is not looked at.
///
/// # Errors
/// The text is not an object (or `null`) as far as it was read.
pub fn member<'a>(object: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, JsonError> {
    for entry in Members::new(object) {
        let (key, value) = entry?;
        if key.is(name) {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// The values of several members in one pass over the whole object; of equal names the last, as most readers do.
///
/// # Errors
/// The text is not an object (or `null`).
pub fn members<'a, const N: usize>(
    object: &'a [u8],
    names: [&str; N],
) -> Result<[Option<&'a [u8]>; N], JsonError> {
    let mut found = [None; N];
    for entry in Members::new(object) {
        let (key, value) = entry?;
        for (slot, name) in found.iter_mut().zip(names) {
            if key.is(name) {
                *slot = Some(value);
            }
        }
    }
    Ok(found)
}

/// A non-negative integer without sign, fraction or exponent that fits.
pub fn as_u64(value: &[u8]) -> Option<u64> {
    let leading_zero = value.len() > 1 && value.first() == Some(&b'0');
    if value.is_empty() || leading_zero {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// A boolean.
pub fn as_bool(value: &[u8]) -> Option<bool> {
    match value {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// Whether the value is `null`.
pub fn is_null(value: &[u8]) -> bool {
    value == b"null"
}

/// A string, decoded: lent if it has no escapes. `None` if the value is not a whole string of valid UTF-8.
pub fn as_str(value: &[u8]) -> Option<Cow<'_, str>> {
    if value.first() != Some(&b'"') {
        return None;
    }
    let mut scanner = Scanner::new(value, 0);
    let string = scanner.string().ok()?;
    scanner.expect_end().ok()?;
    let raw = simdutf8::basic::from_utf8(string.raw).ok()?;
    Some(if string.escaped { Cow::Owned(decode(raw)) } else { Cow::Borrowed(raw) })
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_str(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut at = 0;
    out.push(b'"');
    loop {
        let stop = string_stop(bytes, at);
        out.extend_from_slice(bytes.get(at..stop).unwrap_or_default());
        let Some(&byte) = bytes.get(stop) else { break };
        write_escape(out, byte);
        at = stop + 1;
    }
    out.push(b'"');
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        _ => {
            let hex = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 0xf)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Whether a key, decoded, is `name`.
#[inline]
pub(crate) fn key_is(key: RawString<'_>, name: &str) -> bool {
    if !key.escaped {
        return key.raw == name.as_bytes();
    }
    // A decoded character is never longer than its escape, so a name longer than the key cannot be meant.
    name.len() < key.raw.len() && std::str::from_utf8(key.raw).is_ok_and(|raw| decoded(raw).eq(name.chars()))
}

/// What lies between the quotes of a valid string, without its escapes. A lone surrogate, which no text can hold,
/// becomes U+FFFD.
pub(crate) fn decode(raw: &str) -> String {
    decoded(raw).collect()
}

/// The characters of what lies between the quotes of a valid string.
pub(crate) fn decoded(raw: &str) -> impl Iterator<Item = char> {
    Decoder { rest: raw }
}

/// The characters of a valid string.
struct Decoder<'a> {
    rest: &'a str,
}

impl Decoder<'_> {
    fn escape(&mut self) -> char {
        let Some(letter) = self.take() else { return char::REPLACEMENT_CHARACTER };
        match letter {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => self.unicode_escape(),
            other => other,
        }
    }

    fn unicode_escape(&mut self) -> char {
        let high = self.hex();
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER);
        }
        let before = self.rest;
        if let Some(rest) = self.rest.strip_prefix("\\u") {
            self.rest = rest;
            let low = self.hex();
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            }
        }
        // What followed was not its other half, and stands for itself.
        self.rest = before;
        char::REPLACEMENT_CHARACTER
    }

    fn hex(&mut self) -> u32 {
        let (digits, rest) = self.rest.split_at_checked(4).unwrap_or((self.rest, ""));
        self.rest = rest;
        u32::from_str_radix(digits, 16).unwrap_or(u32::from(char::REPLACEMENT_CHARACTER))
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next();
        self.rest = chars.as_str();
        next
    }
}

impl Iterator for Decoder<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        match self.take()? {
            '\\' => Some(self.escape()),
            plain => Some(plain),
        }
    }
}

/// Where `value`, a slice of `text`, lies in it: for splicing something in its place. `None` if it is not of it.
pub fn span_in(text: &[u8], value: &[u8]) -> Option<Range<usize>> {
    let start = value.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let end = start.checked_add(value.len())?;
    (end <= text.len()).then_some(start..end)
}

#[cfg(test)]
mod tests;
