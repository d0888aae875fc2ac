//! Knows exactly where a message ends: content-length, chunks, or the end of the connection.
//!
//! It lends runs of data out of the caller's buffer and copies nothing. It decides what is body, what is framing
//! and when the limit is passed; it never stores a body and never guesses: a byte that is not what the grammar
//! asks for ends the message with an error. Trailers and chunk extensions are checked, bounded and dropped.

use std::ops::Range;

use crate::head::{Framing, is_name_byte};

/// Bytes that the extension of one chunk may have.
pub const EXTENSION_BYTES_MAX: u32 = 256;

/// Bytes that the extensions of one body may have together: more is not use but abuse of them.
pub const EXTENSION_BYTES_TOTAL_MAX: u32 = 4096;

/// Bytes that all trailer fields of a body may have together.
pub const TRAILER_BYTES_MAX: u32 = 8192;

/// The hexadecimal digits that a chunk size may have.
const SIZE_DIGITS_MAX: u8 = 16;

/// What ends a body written in chunks.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What follows the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Why a body cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyError {
    /// The body is, or says that it will be, larger than the limit.
    TooLarge,
    /// The connection ended before the body.
    Cut,
    /// A chunk size that is not one to sixteen hexadecimal digits, or not followed by CRLF.
    ChunkSize,
    /// A chunk extension that is too long, or not of its form: names, each with a token or a quoted text.
    ChunkExtension,
    /// The data of a chunk is not followed by CRLF.
    ChunkEnd,
    /// The trailer fields are malformed or too long.
    Trailer,
}

impl BodyError {
    /// The status that answers a request whose body failed so.
    pub const fn status(self) -> u16 {
        match self {
            BodyError::TooLarge => 413,
            _ => 400,
        }
    }

    /// A stable machine-readable name, for logs, metrics and error bodies.
    pub const fn code(self) -> &'static str {
        match self {
            BodyError::TooLarge => "body_too_large",
            BodyError::Cut => "body_cut",
            BodyError::ChunkSize => "chunk_size",
            BodyError::ChunkExtension => "chunk_extension",
            BodyError::ChunkEnd => "chunk_end",
            BodyError::Trailer => "trailer",
        }
    }
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

impl std::error::Error for BodyError {}

/// What one call of [`BodyReader::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyStep {
    /// Bytes of the input that are done with, `data` included. What follows was not looked at.
    pub consumed: usize,
    /// The next run of the body's data, a range of the input; empty if there is none yet.
    pub data: Range<usize>,
    /// The message is over. What follows `consumed` is not of it.
    pub ended: bool,
}

/// Reads one body.
#[derive(Clone, Debug)]
pub struct BodyReader {
    state: State,
    received_bytes: u64,
    body_bytes_max: u64,
    extension_bytes: u32,
    extension_bytes_total: u32,
    trailer_bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a stated length are to come.
    Length(u64),
    UntilClose,
    /// In a chunk size of which so many digits were read.
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
        place: Place,
    },
    SizeLineFeed {
        value: u64,
    },
    /// So many bytes of this chunk are to come.
    Data(u64),
    DataCarriageReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Ended,
    Failed(BodyError),
}

/// Where in a chunk extension (RFC 9112 §7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A name has to begin.
    Start,
    Name,
    /// Behind the equals sign.
    ValueStart,
    Value,
    Quoted,
    /// Behind a backslash within quotes.
    Escaped,
    QuotedEnd,
}

impl Place {
    /// Where the next byte leads; `None` if it must not stand there. White space stands in quotes only.
    fn after(self, byte: u8) -> Option<Place> {
        match (self, byte) {
            (Place::Name | Place::Value | Place::QuotedEnd, b';') => Some(Place::Start),
            (Place::Name, b'=') => Some(Place::ValueStart),
            (Place::ValueStart, b'"') => Some(Place::Quoted),
            (Place::Quoted, b'"') => Some(Place::QuotedEnd),
            (Place::Quoted, b'\\') => Some(Place::Escaped),
            // Visible ASCII, space and tab: what cannot be misread.
            (Place::Quoted | Place::Escaped, b'\t' | b' '..=b'~') => Some(Place::Quoted),
            (Place::Start | Place::Name, _) if is_name_byte(byte) => Some(Place::Name),
            (Place::ValueStart | Place::Value, _) if is_name_byte(byte) => Some(Place::Value),
            _ => None,
        }
    }

    /// Whether an extension may end here.
    fn may_end(self) -> bool {
        matches!(self, Place::Name | Place::Value | Place::QuotedEnd)
    }
}

impl BodyReader {
    /// A reader at the first byte behind the head.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] if the stated length is above the limit.
    pub fn new(framing: Framing, body_bytes_max: u64) -> Result<BodyReader, BodyError> {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Ended,
            Framing::Length(bytes) if bytes > body_bytes_max => return Err(BodyError::TooLarge),
            Framing::Length(bytes) => State::Length(bytes),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Ok(BodyReader {
            state,
            received_bytes: 0,
            body_bytes_max,
            extension_bytes: 0,
            extension_bytes_total: 0,
            trailer_bytes: 0,
        })
    }

    /// One step: takes the framing at the front of `input` and lends the run of data that follows it. Call again
    /// with what is behind `consumed` until the input is used up or the body ended.
    ///
    /// # Errors
    /// What is wrong; every later call returns the same.
    pub fn next(&mut self, input: &[u8]) -> Result<BodyStep, BodyError> {
        let outcome = self.step(input);
        if let Err(error) = outcome {
            self.state = State::Failed(error);
        }
        outcome
    }

    /// The connection ended. That is the end of a body that lasts until then, and of one that has ended already.
    ///
    /// # Errors
    /// [`BodyError::Cut`] if more had to come, or the error that ended the body before.
    pub fn finish_at_eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Ended => Ok(()),
            State::UntilClose => {
                self.state = State::Ended;
                Ok(())
            }
            State::Failed(error) => Err(error),
            _ => {
                self.state = State::Failed(BodyError::Cut);
                Err(BodyError::Cut)
            }
        }
    }

    /// Whether the last byte of the message has been consumed.
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// How many bytes of data are to come, where that is known.
    pub fn remaining_length(&self) -> Option<u64> {
        match self.state {
            State::Length(bytes) => Some(bytes),
            State::Ended => Some(0),
            _ => None,
        }
    }

    /// How many bytes of data have been lent.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    fn step(&mut self, input: &[u8]) -> Result<BodyStep, BodyError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Ended => return Ok(BodyStep { consumed: at, data: at..at, ended: true }),
                State::Failed(error) => return Err(error),
                State::Length(_) | State::Data(_) | State::UntilClose => return self.lend(input, at),
                _ => {}
            }
            let Some(&byte) = input.get(at) else {
                return Ok(BodyStep { consumed: at, data: at..at, ended: false });
            };
            at += 1;
            self.state = self.after_framing_byte(byte)?;
        }
    }

    /// Lends as much data as is there from `at` on.
    fn lend(&mut self, input: &[u8], at: usize) -> Result<BodyStep, BodyError> {
        let there = input.len().saturating_sub(at);
        let due = match self.state {
            State::Length(bytes) | State::Data(bytes) => bytes,
            _ => u64::MAX,
        };
        let lent = there.min(usize::try_from(due).unwrap_or(usize::MAX));
        let received_bytes = self.received_bytes.saturating_add(lent as u64);
        if received_bytes > self.body_bytes_max {
            return Err(BodyError::TooLarge);
        }
        self.received_bytes = received_bytes;
        let left = due - lent as u64;
        self.state = match self.state {
            State::Length(_) if left == 0 => State::Ended,
            State::Length(_) => State::Length(left),
            State::Data(_) if left == 0 => State::DataCarriageReturn,
            State::Data(_) => State::Data(left),
            other => other,
        };
        Ok(BodyStep { consumed: at + lent, data: at..at + lent, ended: self.state == State::Ended })
    }

    fn after_framing_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        match self.state {
            State::Size { value, digits } => self.after_size_byte(value, digits, byte),
            State::Extension { value, place } => self.after_extension_byte(value, place, byte),
            State::SizeLineFeed { value } if byte == b'\n' => self.after_size_line(value),
            State::SizeLineFeed { .. } => Err(BodyError::ChunkSize),
            State::DataCarriageReturn if byte == b'\r' => Ok(State::DataLineFeed),
            State::DataLineFeed if byte == b'\n' => Ok(State::Size { value: 0, digits: 0 }),
            State::DataCarriageReturn | State::DataLineFeed => Err(BodyError::ChunkEnd),
            _ => self.after_trailer_byte(byte),
        }
    }

    fn after_size_byte(&mut self, value: u64, digits: u8, byte: u8) -> Result<State, BodyError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b';' if digits > 0 => {
                self.extension_bytes = 0;
                return Ok(State::Extension { value, place: Place::Start });
            }
            b'\r' if digits > 0 => return Ok(State::SizeLineFeed { value }),
            _ => return Err(BodyError::ChunkSize),
        };
        if digits >= SIZE_DIGITS_MAX {
            return Err(BodyError::ChunkSize);
        }
        Ok(State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
    }

    fn after_extension_byte(&mut self, value: u64, place: Place, byte: u8) -> Result<State, BodyError> {
        if byte == b'\r' && place.may_end() {
            return Ok(State::SizeLineFeed { value });
        }
        self.extension_bytes += 1;
        self.extension_bytes_total += 1;
        let too_long = self.extension_bytes > EXTENSION_BYTES_MAX
            || self.extension_bytes_total > EXTENSION_BYTES_TOTAL_MAX;
        match place.after(byte) {
            Some(place) if !too_long => Ok(State::Extension { value, place }),
            _ => Err(BodyError::ChunkExtension),
        }
    }

    fn after_size_line(&mut self, value: u64) -> Result<State, BodyError> {
        if value == 0 {
            return Ok(State::TrailerStart);
        }
        // Refused as soon as the size is stated: no byte of a chunk that does not fit is lent.
        if self.received_bytes.checked_add(value).is_none_or(|bytes| bytes > self.body_bytes_max) {
            return Err(BodyError::TooLarge);
        }
        Ok(State::Data(value))
    }

    fn after_trailer_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(BodyError::Trailer);
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::LastLineFeed),
            (State::LastLineFeed, b'\n') => Ok(State::Ended),
            (State::TrailerStart | State::TrailerName, _) if is_name_byte(byte) => Ok(State::TrailerName),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerLineFeed, b'\n') => Ok(State::TrailerStart),
            _ => Err(BodyError::Trailer),
        }
    }
}

/// Writes what precedes the data of a chunk of `len` bytes; [`CHUNK_END`] follows the data.
///
/// # Panics
/// If `len` is zero: such a chunk would end the message. That is the caller's decision to make, with [`LAST_CHUNK`].
pub fn chunk_prefix(len: usize, out: &mut [u8; 18]) -> &[u8] {
    assert!(len > 0, "a chunk without data would end the message");
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4) as usize;
    for (place, slot) in out.iter_mut().take(digits).enumerate() {
        let digit = (len >> (4 * (digits - 1 - place))) & 0xf;
        *slot = b"0123456789abcdef"[digit];
    }
    out[digits] = b'\r';
    out[digits + 1] = b'\n';
    &out[..digits + 2]
}

#[cfg(test)]
mod tests;
