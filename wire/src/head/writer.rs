//! Writes heads. Every name and value is checked again on the way out, so that nothing read leniently elsewhere can
//! split a message; framing is written at most once. It adds no field of its own.

use std::io::Write;

use super::fields::{is_field_value, is_origin_form, is_token};
use super::framing::parse_length;

/// Something that must not go into a head. What had been written before it stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InvalidField {
    /// A method that is not a token.
    Method,
    /// A path or query that is not in origin form.
    Target,
    /// A field name that is not a token.
    Name,
    /// A field value with a control byte, or with spaces around it.
    Value,
    /// A second framing field, a `content-length` that is not a number, a `transfer-encoding` other than `chunked`.
    Framing,
}

impl std::fmt::Display for InvalidField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            InvalidField::Method => "the method is not a token",
            InvalidField::Target => "the target is not in origin form",
            InvalidField::Name => "the field name is not a token",
            InvalidField::Value => "the field value holds a control byte",
            InvalidField::Framing => "the framing is stated twice or wrongly",
        })
    }
}

impl std::error::Error for InvalidField {}

/// Writes the head of a request behind what the buffer holds already.
#[derive(Debug)]
#[must_use = "a head without `finish` has no end"]
pub struct RequestWriter<'a> {
    fields: FieldWriter<'a>,
}

impl<'a> RequestWriter<'a> {
    /// Begins with the request line of HTTP/1.1.
    ///
    /// # Errors
    /// [`InvalidField::Method`] or [`InvalidField::Target`]; nothing has been written then.
    pub fn new(
        out: &'a mut Vec<u8>,
        method: &str,
        path: &str,
        query: Option<&str>,
    ) -> Result<RequestWriter<'a>, InvalidField> {
        if !is_token(method.as_bytes()) {
            return Err(InvalidField::Method);
        }
        let path_is_path = is_origin_form(path.as_bytes()) && !path.contains('?');
        let query_is_query =
            query.is_none_or(|query| query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
        if !path_is_path || !query_is_query {
            return Err(InvalidField::Target);
        }
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        out.extend_from_slice(path.as_bytes());
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        Ok(RequestWriter { fields: FieldWriter { out, framed: false } })
    }

    /// Adds a field. Framing fields are accepted too, under their rules: at most one, and well formed.
    ///
    /// # Errors
    /// The part that is not valid; nothing of the field has been written then.
    pub fn field(&mut self, name: &str, value: &[u8]) -> Result<(), InvalidField> {
        self.fields.field(name, value)
    }

    /// Adds `content-length`.
    ///
    /// # Errors
    /// [`InvalidField::Framing`] if framing was stated before.
    pub fn content_length(&mut self, bytes: u64) -> Result<(), InvalidField> {
        self.fields.content_length(bytes)
    }

    /// Adds `transfer-encoding: chunked`.
    ///
    /// # Errors
    /// [`InvalidField::Framing`] if framing was stated before.
    pub fn chunked(&mut self) -> Result<(), InvalidField> {
        self.fields.chunked()
    }

    /// Ends the head.
    pub fn finish(self) {
        self.fields.finish();
    }
}

/// Writes the head of a reply behind what the buffer holds already.
#[derive(Debug)]
#[must_use = "a head without `finish` has no end"]
pub struct ResponseWriter<'a> {
    fields: FieldWriter<'a>,
}

impl<'a> ResponseWriter<'a> {
    /// Begins with the status line of HTTP/1.1. A status outside 100 to 599 cannot be meant and becomes 500.
    pub fn new(out: &'a mut Vec<u8>, status: u16) -> ResponseWriter<'a> {
        let status = if (100..=599).contains(&status) { status } else { 500 };
        let digits = [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + (digit % 10) as u8);
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(&digits);
        out.push(b' ');
        out.extend_from_slice(reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        ResponseWriter { fields: FieldWriter { out, framed: false } }
    }

    /// Adds a field. Framing fields are accepted too, under their rules: at most one, and well formed.
    ///
    /// # Errors
    /// The part that is not valid; nothing of the field has been written then.
    pub fn field(&mut self, name: &str, value: &[u8]) -> Result<(), InvalidField> {
        self.fields.field(name, value)
    }

    /// Adds `content-length`.
    ///
    /// # Errors
    /// [`InvalidField::Framing`] if framing was stated before.
    pub fn content_length(&mut self, bytes: u64) -> Result<(), InvalidField> {
        self.fields.content_length(bytes)
    }

    /// Adds `transfer-encoding: chunked`.
    ///
    /// # Errors
    /// [`InvalidField::Framing`] if framing was stated before.
    pub fn chunked(&mut self) -> Result<(), InvalidField> {
        self.fields.chunked()
    }

    /// Ends the head.
    pub fn finish(self) {
        self.fields.finish();
    }
}

#[derive(Debug)]
struct FieldWriter<'a> {
    out: &'a mut Vec<u8>,
    framed: bool,
}

impl FieldWriter<'_> {
    fn field(&mut self, name: &str, value: &[u8]) -> Result<(), InvalidField> {
        if !is_token(name.as_bytes()) {
            return Err(InvalidField::Name);
        }
        let padded = matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
        if padded || !is_field_value(value) {
            return Err(InvalidField::Value);
        }
        if name.eq_ignore_ascii_case("content-length") {
            self.frame(parse_length(value).is_ok())?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.frame(value.eq_ignore_ascii_case(b"chunked"))?;
        }
        self.write(name, value);
        Ok(())
    }

    fn content_length(&mut self, bytes: u64) -> Result<(), InvalidField> {
        self.frame(true)?;
        // Writing to a `Vec` cannot fail.
        let _ = write!(self.out, "content-length: {bytes}\r\n");
        Ok(())
    }

    fn chunked(&mut self) -> Result<(), InvalidField> {
        self.frame(true)?;
        self.write("transfer-encoding", b"chunked");
        Ok(())
    }

    fn frame(&mut self, well_formed: bool) -> Result<(), InvalidField> {
        if self.framed || !well_formed {
            return Err(InvalidField::Framing);
        }
        self.framed = true;
        Ok(())
    }

    fn write(&mut self, name: &str, value: &[u8]) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }

    fn finish(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// The usual phrase of a status; empty where there is none, which the grammar allows.
const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        424 => "Failed Dependency",
        425 => "Too Early",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        529 => "Overloaded",
        _ => "",
    }
}
