//! The smallest parts of JSON text: where white space, a string, a number or a word ends that begins at an offset.
//!
//! Plain functions from offset to offset, so that the cursor stays in a register while text is passed over.

use crate::json::{JsonError, JsonErrorKind};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// What is at `at` is not what the grammar asks for: wrong, or missing because the text ends.
#[cold]
pub(crate) fn unexpected(text: &[u8], at: usize) -> JsonError {
    let kind = if at >= text.len() { JsonErrorKind::Ended } else { JsonErrorKind::Syntax };
    JsonError { offset: at, kind }
}

/// Where the white space ends.
#[inline]
pub(crate) fn space_end(text: &[u8], mut at: usize) -> usize {
    // Most text has none: one comparison tells.
    while let Some(&byte) = text.get(at) {
        if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            break;
        }
        at += 1;
    }
    at
}

/// Where the content of a string that begins at `at` (behind the opening quote) ends, which is at its closing
/// quote, and
/// whether there is an escape in it.
#[inline]
pub(crate) fn string_end(text: &[u8], mut at: usize) -> Result<(usize, bool), JsonError> {
    let mut escaped = false;
    loop {
        at = string_stop(text, at);
        match text.get(at) {
            Some(b'"') => return Ok((at, escaped)),
            Some(b'\\') => at = escape_end(text, at)?,
            _ => return Err(unexpected(text, at)),
        }
        escaped = true;
    }
}

#[inline]
fn escape_end(text: &[u8], at: usize) -> Result<usize, JsonError> {
    match text.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            let wrong = (at + 2..at + 6).find(|&place| !text.get(place).is_some_and(u8::is_ascii_hexdigit));
            wrong.map_or(Ok(at + 6), |place| Err(unexpected(text, place)))
        }
        _ => Err(unexpected(text, at + 1)),
    }
}

/// Where the number ends that begins at `at`, with a minus or a digit.
pub(crate) fn number_end(text: &[u8], mut at: usize) -> Result<usize, JsonError> {
    if text.get(at) == Some(&b'-') {
        at += 1;
    }
    at = if text.get(at) == Some(&b'0') { at + 1 } else { digits_end(text, at)? };
    if text.get(at) == Some(&b'.') {
        at = digits_end(text, at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1;
        if matches!(text.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
        at = digits_end(text, at)?;
    }
    Ok(at)
}

/// Where the digits end, of which there must be one.
fn digits_end(text: &[u8], at: usize) -> Result<usize, JsonError> {
    let rest = text.get(at..).unwrap_or_default();
    match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
        0 => Err(unexpected(text, at)),
        digits => Ok(at + digits),
    }
}

/// Where `word` ends, which must be at `at`.
pub(crate) fn word_end(text: &[u8], at: usize, word: &[u8]) -> Result<usize, JsonError> {
    let rest = text.get(at..).unwrap_or_default();
    match rest.iter().zip(word).take_while(|(there, due)| there == due).count() {
        same if same == word.len() => Ok(at + same),
        same => Err(unexpected(text, at + same)),
    }
}

/// Where the run of plain string bytes that begins at `from` stops: at a quote, a backslash, a control byte, or the
/// end. Words first (most strings are short), then blocks that the compiler turns into vector instructions.
#[inline]
pub(crate) fn string_stop(text: &[u8], from: usize) -> usize {
    let mut at = from;
    let mut words = 0;
    while let Some(word) = word_at(text, at) {
        let stops = stops_in(word);
        if stops != 0 {
            return at + (stops.trailing_zeros() / 8) as usize;
        }
        at += 8;
        words += 1;
        if words == 2 {
            at += plain_blocks(text.get(at..).unwrap_or_default());
        }
    }
    while text.get(at).is_some_and(|&byte| !is_stop(byte)) {
        at += 1;
    }
    at
}

fn word_at(text: &[u8], at: usize) -> Option<u64> {
    let bytes = text.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}

/// The high bit of each byte that stops a run. Borrows can set bits above the first true one, never below it, and
/// only the lowest is used.
fn stops_in(word: u64) -> u64 {
    // Flipping 0x02 puts the quote (0x22) next to the control bytes, and moves none of them out of its range.
    let flipped = word ^ (ONES * 0x02);
    let backslashes = word ^ (ONES * b'\\' as u64);
    let low = flipped.wrapping_sub(ONES * 0x21) & !flipped;
    let zero = backslashes.wrapping_sub(ONES) & !backslashes;
    (low | zero) & HIGHS
}

/// How many bytes at the front lie in whole blocks without a stop.
fn plain_blocks(text: &[u8]) -> usize {
    let (blocks, _) = text.as_chunks::<32>();
    32 * blocks.iter().take_while(|block| is_plain(block)).count()
}

fn is_plain(block: &[u8; 32]) -> bool {
    block.iter().fold(0, |stops, &byte| stops | u8::from(is_stop(byte))) == 0
}

fn is_stop(byte: u8) -> bool {
    // See `stops_in`.
    ((byte ^ 0x02) < 0x21) | (byte == b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_found_at_every_place_and_nothing_else_is() {
        for stop in (0..=0x1f).chain([b'"', b'\\']) {
            for place in 0..100 {
                let mut text = vec![b'x'; 100];
                text[place] = stop;
                assert_eq!(string_stop(&text, 0), place, "byte {stop:#x}");
            }
        }
        for plain in (0x20..=0xff).filter(|byte| ![b'"', b'\\'].contains(byte)) {
            assert_eq!(string_stop(&[plain; 100], 3), 100, "byte {plain:#x}");
        }
    }

    #[test]
    fn the_first_of_several_stops_counts() {
        // 0x01 above a stop is where a borrow would show.
        for first in 0..40 {
            let mut text = [0x21; 64];
            text[first] = b'\\';
            text[first + 1..].fill(0x01);
            assert_eq!(string_stop(&text, 0), first);
            text[first] = b'"';
            assert_eq!(string_stop(&text, 0), first);
        }
    }
}
