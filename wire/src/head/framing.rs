//! What the fields of a head say about the message and the connection: where the body ends, whether the connection
//! may be used again, what is expected. It never looks at a body.

use super::Refusal;
use super::fields::{FieldTable, is_token, trim};

/// Digits a `content-length` may have: one fewer than could overflow a `u64`.
const LENGTH_DIGITS_MAX: usize = 19;

/// How the end of a message's body is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// The body has exactly this many bytes.
    Length(u64),
    /// The body comes in chunks.
    Chunked,
    /// The body ends where the connection does. Replies only.
    UntilClose,
}

/// The fields that decide about the message, gathered in one walk over the table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Controls {
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) hosts: usize,
    pub(super) expects_continue: bool,
}

impl Controls {
    /// Reads the fields that control the message. The table itself has been checked already.
    pub(super) fn gather(table: &FieldTable, version_minor: u8) -> Result<Controls, Refusal> {
        let mut controls = Controls::default();
        for (name, value) in table.iter() {
            // The lengths come first: nearly every field is none of these.
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => controls.host(value)?,
                6 if name.eq_ignore_ascii_case("expect") => controls.expect(value)?,
                10 if name.eq_ignore_ascii_case("connection") => controls.connection(value)?,
                14 if name.eq_ignore_ascii_case("content-length") => controls.content_length(value)?,
                17 if name.eq_ignore_ascii_case("transfer-encoding") => controls.transfer_encoding(value)?,
                _ => {}
            }
        }
        match (controls.chunked, controls.length) {
            (true, _) if version_minor == 0 => Err(Refusal::CodingOn10),
            (true, Some(_)) => Err(Refusal::LengthWithCoding),
            _ => Ok(controls),
        }
    }

    /// Whether the connection may carry another message after this one.
    pub(super) fn connection_stays(&self, version_minor: u8) -> bool {
        !self.close && (version_minor == 1 || self.keep_alive)
    }

    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        self.hosts += 1;
        if self.hosts > 1 {
            return Err(Refusal::HostRepeated);
        }
        if value.is_empty() || !value.iter().all(|&byte| is_host_byte(byte)) {
            return Err(Refusal::HostInvalid);
        }
        Ok(())
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.expects_continue || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::Expectation);
        }
        self.expects_continue = true;
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for option in value.split(|&byte| byte == b',').map(trim) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if !option.is_empty() && !is_token(option) {
                return Err(Refusal::ConnectionOption);
            }
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::LengthRepeated);
        }
        self.length = Some(parse_length(value)?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(Refusal::CodingRepeated);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::CodingUnsupported);
        }
        self.chunked = true;
        Ok(())
    }
}

/// A `content-length`: digits and nothing else.
pub(super) fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::LengthInvalid);
    }
    if value.len() > LENGTH_DIGITS_MAX {
        return Err(Refusal::LengthTooLarge);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Bytes of `uri-host [":" port]`: what a registered name, an address or a bracketed address may hold.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&byte)
}
