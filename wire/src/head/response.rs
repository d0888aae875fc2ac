//! The head of a reply.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Response, Status};

use super::fields::{FieldTable, range_in};
use super::framing::Controls;
use super::lines::{Bounds, LineScan};
use super::{FIELDS_CEILING, Framing, HeadLimits, Parse, Refusal, is_other_version, refusal_of};

/// What must be known of the request to tell where its reply ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestKind {
    /// The request's method was HEAD: the reply has no body, whatever its fields say.
    pub head_method: bool,
}

/// The head of a reply, used again for the next one. Empty until `parse` says it is complete.
#[derive(Debug, Default)]
pub struct ResponseHead {
    table: FieldTable,
    scan: LineScan,
    line: StatusLine,
    controls: Controls,
    framing: Framing,
}

#[derive(Clone, Copy, Debug, Default)]
struct StatusLine {
    status: u16,
    reason_start: u16,
    reason_end: u16,
    version_minor: u8,
}

impl ResponseHead {
    /// Parses the head at the front of `input`. An interim reply (1xx) is returned like any other: see
    /// [`ResponseHead::is_interim`]; the final one follows behind it.
    ///
    /// # Errors
    /// The first rule that is broken. The connection is of no use after that.
    pub fn parse(
        &mut self,
        input: &[u8],
        limits: &HeadLimits,
        request: RequestKind,
    ) -> Result<Parse, Refusal> {
        self.clear_message();
        match self.scan.advance(input, limits, false) {
            Ok(Some(bounds)) => {
                self.scan = LineScan::default();
                self.complete(input, bounds, limits, request)
            }
            Ok(None) => self.check_early(input, limits),
            Err(refusal) => Err(self.refuse(refusal)),
        }
    }

    /// Forgets everything, the progress of an unfinished head too, and keeps the memory.
    pub fn clear(&mut self) {
        self.clear_message();
        self.scan = LineScan::default();
    }

    /// The status, 100 to 599.
    pub fn status(&self) -> u16 {
        self.line.status
    }

    /// The reason phrase; empty if it is missing or not ASCII.
    pub fn reason(&self) -> &str {
        self.table.text(self.line.reason_start, self.line.reason_end)
    }

    /// Whether this is a 1xx, which another head must follow.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.line.status)
    }

    /// All fields in order: the name as sent, the value without spaces around it.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.table.iter()
    }

    /// How many fields there are.
    pub fn fields_len(&self) -> usize {
        self.table.len()
    }

    /// The value of the first field of this name, in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.table.first(name)
    }

    /// The values of all fields of this name, in any case.
    pub fn field_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.table.all(name)
    }

    /// The head as it was received.
    pub fn bytes(&self) -> &[u8] {
        self.table.bytes()
    }

    /// Lets `change` write over the bytes of each field's value, after its meaning was read; none gets longer or
    /// shorter, and each is checked again where it is written.
    pub fn each_value(&mut self, change: impl FnMut(&mut [u8])) {
        self.table.each_value(change);
    }

    /// How the body ends, the request and the status taken into account.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the connection may carry another request, once this reply has ended exactly.
    pub fn keep_alive(&self) -> bool {
        self.framing != Framing::UntilClose && self.controls.connection_stays(self.line.version_minor)
    }

    /// Whether the reply is of HTTP/1.0.
    pub fn http_1_0(&self) -> bool {
        self.line.version_minor == 0
    }

    /// Whether `connection` names this field, which then is for this hop only and must not be passed on.
    pub fn connection_names(&self, name: &str) -> bool {
        self.table.connection_names(name)
    }

    fn clear_message(&mut self) {
        self.table.clear();
        self.line = StatusLine::default();
        self.controls = Controls::default();
        self.framing = Framing::None;
    }

    fn complete(
        &mut self,
        input: &[u8],
        bounds: Bounds,
        limits: &HeadLimits,
        request: RequestKind,
    ) -> Result<Parse, Refusal> {
        let head = input.get(bounds.start..bounds.end).unwrap_or_default();
        let outcome = self.read(head, limits, request);
        if outcome.is_err() {
            self.clear();
        }
        outcome.map(|()| Parse::Complete { head_bytes: bounds.end })
    }

    fn read(&mut self, head: &[u8], limits: &HeadLimits, request: RequestKind) -> Result<(), Refusal> {
        let mut room = [const { MaybeUninit::uninit() }; FIELDS_CEILING];
        let Some((response, line)) = parse_fields(head, &mut room, limits)? else {
            return Err(Refusal::StartLine);
        };
        self.table.fill(head, response.headers)?;
        self.line = line;
        self.controls = Controls::gather(&self.table, line.version_minor)?;
        self.framing = framing_of(line.status, &self.controls, request)?;
        Ok(())
    }

    fn check_early(&mut self, input: &[u8], limits: &HeadLimits) -> Result<Parse, Refusal> {
        if !self.scan.worth_checking(input.len()) {
            return Ok(Parse::Partial);
        }
        let mut room = [const { MaybeUninit::uninit() }; FIELDS_CEILING];
        match parse_fields(input, &mut room, limits) {
            Ok(_) => Ok(Parse::Partial),
            Err(refusal) => Err(self.refuse(refusal)),
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.clear();
        refusal
    }
}

/// RFC 9112 §6.3. Framing where a status forbids it is refused: a peer that sends it may also send the body, and
/// its bytes would be taken for the next reply.
fn framing_of(status: u16, controls: &Controls, request: RequestKind) -> Result<Framing, Refusal> {
    if matches!(status, 100..=199 | 204) {
        let stated = controls.chunked || controls.length.is_some_and(|bytes| bytes > 0);
        return if stated { Err(Refusal::BodyForbidden) } else { Ok(Framing::None) };
    }
    if request.head_method || status == 304 {
        return Ok(Framing::None);
    }
    Ok(match (controls.chunked, controls.length) {
        (true, _) => Framing::Chunked,
        (false, Some(bytes)) => Framing::Length(bytes),
        (false, None) => Framing::UntilClose,
    })
}

/// Parses what is there of a head; `None` while it is not whole.
fn parse_fields<'room, 'head>(
    head: &'head [u8],
    room: &'room mut [MaybeUninit<Header<'head>>; FIELDS_CEILING],
    limits: &HeadLimits,
) -> Result<Option<(Response<'room, 'head>, StatusLine)>, Refusal> {
    let mut response = Response::new(&mut []);
    let room = room.get_mut(..limits.fields_max.min(FIELDS_CEILING)).unwrap_or_default();
    let parsed = ParserConfig::default()
        .parse_response_with_uninit_headers(&mut response, head, room)
        .map_err(|error| refusal_of(error, start_line_refusal(error, head)))?;
    if let Some(status) = response.code {
        match status {
            101 => return Err(Refusal::Upgraded),
            100..=599 => {}
            _ => return Err(Refusal::Status),
        }
    }
    let (Status::Complete(_), Some(status), Some(version_minor)) = (parsed, response.code, response.version)
    else {
        return Ok(None);
    };
    let reason = response.reason.unwrap_or_default();
    let (reason_start, reason_end) =
        if reason.is_empty() { (0, 0) } else { range_in(head, reason.as_bytes()) };
    Ok(Some((response, StatusLine { status, reason_start, reason_end, version_minor })))
}

/// Tells a version that is not spoken here, or the beginning of one, from a line that is no status line.
fn start_line_refusal(error: httparse::Error, head: &[u8]) -> Refusal {
    let version = head.split(|&byte| byte == b' ').next().unwrap_or_default();
    match error {
        httparse::Error::Version if is_other_version(version) => Refusal::Version,
        _ => Refusal::StartLine,
    }
}
