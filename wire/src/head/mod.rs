//! Strict HTTP/1.1 heads, read and written.
//!
//! Decides whether a head is one that every reader understands alike, and refuses it otherwise (`Refusal` has a
//! variant for each rule). It never reads a body (`body` does), never repairs anything, and honours no upgrade.
//! The workers call it for requests of callers and replies of upstreams.
//!
//! A head owns one copy of its bytes and is used again for the next message, so that a connection in steady state
//! allocates nothing. Feed `parse` the same growing buffer until it is complete; `clear` starts over early.

mod fields;
mod framing;
mod lines;
#[cfg(test)]
mod properties;
mod refusal;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod writer;

pub use framing::Framing;
pub use refusal::Refusal;
pub use request::RequestHead;
pub use response::{RequestKind, ResponseHead};
pub use writer::{InvalidField, RequestWriter, ResponseWriter};

/// The longest head there can be, whatever the limits say: offsets in a head have 16 bits.
pub const HEAD_BYTES_CEILING: usize = u16::MAX as usize;

/// The most fields a head can have, whatever the limits say: they are parsed into an array of this size.
pub const FIELDS_CEILING: usize = 256;

/// What a head may take at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first to the end of the empty line; at most [`HEAD_BYTES_CEILING`].
    pub head_bytes_max: usize,
    /// Fields; at most [`FIELDS_CEILING`].
    pub fields_max: usize,
}

/// How far parsing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parse {
    /// The head is there.
    Complete {
        /// How many bytes of the input it took; the body begins behind them.
        head_bytes: usize,
    },
    /// What is there can still become a head: call again with more behind the same bytes.
    Partial,
}

/// What httparse found wrong, in the words of this module.
fn refusal_of(error: httparse::Error, start_line: Refusal) -> Refusal {
    match error {
        httparse::Error::HeaderName => Refusal::FieldName,
        httparse::Error::HeaderValue => Refusal::FieldValue,
        httparse::Error::TooManyHeaders => Refusal::FieldsTooMany,
        _ => start_line,
    }
}

/// A version, or the beginning of one in a line that goes on, that is well formed.
fn is_other_version(version: &[u8]) -> bool {
    match version.strip_prefix(b"HTTP/") {
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        Some([major] | [major, b'.']) => major.is_ascii_digit(),
        _ => false,
    }
}

/// A byte that a field name may hold.
pub(crate) fn is_name_byte(byte: u8) -> bool {
    fields::is_tchar(byte)
}
