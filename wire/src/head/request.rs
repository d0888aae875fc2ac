//! The head of a request.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Request, Status};

use super::fields::{FieldTable, is_origin_form, is_token, range_in};
use super::framing::Controls;
use super::lines::{Bounds, LineScan};
use super::{FIELDS_CEILING, Framing, HeadLimits, Parse, Refusal, is_other_version, refusal_of};

/// The head of a request, used again for the next one. Empty until `parse` says it is complete.
#[derive(Debug, Default)]
pub struct RequestHead {
    table: FieldTable,
    scan: LineScan,
    start: StartLine,
    controls: Controls,
}

/// Where the parts of the request line lie.
#[derive(Clone, Copy, Debug, Default)]
struct StartLine {
    method_end: u16,
    path_start: u16,
    path_end: u16,
    target_end: u16,
    version_minor: u8,
}

impl RequestHead {
    /// Parses the head at the front of `input`. One pair of CRLF before it is tolerated and counted as part of it.
    ///
    /// # Errors
    /// The first rule that is broken. Nothing else may be read from the connection after that.
    pub fn parse(&mut self, input: &[u8], limits: &HeadLimits) -> Result<Parse, Refusal> {
        self.clear_message();
        match self.scan.advance(input, limits, true) {
            Ok(Some(bounds)) => {
                self.scan = LineScan::default();
                self.complete(input, bounds, limits)
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

    /// The method as sent, a token.
    pub fn method(&self) -> &str {
        self.table.text(0, self.start.method_end)
    }

    /// The path as sent, without the query: begins with a slash, visible ASCII, not decoded.
    pub fn path(&self) -> &str {
        self.table.text(self.start.path_start, self.start.path_end)
    }

    /// What follows the first question mark, if there is one; may be empty.
    pub fn query(&self) -> Option<&str> {
        let begins = self.start.path_end.checked_add(1).filter(|&begins| begins <= self.start.target_end)?;
        Some(self.table.text(begins, self.start.target_end))
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

    /// How the body ends. Never [`Framing::UntilClose`].
    pub fn framing(&self) -> Framing {
        match (self.controls.chunked, self.controls.length) {
            (true, _) => Framing::Chunked,
            (false, Some(bytes)) => Framing::Length(bytes),
            (false, None) => Framing::None,
        }
    }

    /// Whether the client means to send another request on this connection.
    pub fn keep_alive(&self) -> bool {
        self.controls.connection_stays(self.start.version_minor)
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.controls.expects_continue
            && !self.http_1_0()
            && !matches!(self.framing(), Framing::None | Framing::Length(0))
    }

    /// Whether the request is of HTTP/1.0.
    pub fn http_1_0(&self) -> bool {
        self.start.version_minor == 0
    }

    /// Whether `connection` names this field, which then is for this hop only and must not be passed on.
    pub fn connection_names(&self, name: &str) -> bool {
        self.table.connection_names(name)
    }

    fn clear_message(&mut self) {
        self.table.clear();
        self.start = StartLine::default();
        self.controls = Controls::default();
    }

    fn complete(&mut self, input: &[u8], bounds: Bounds, limits: &HeadLimits) -> Result<Parse, Refusal> {
        let head = input.get(bounds.start..bounds.end).unwrap_or_default();
        let outcome = self.read(head, limits);
        if outcome.is_err() {
            self.clear();
        }
        outcome.map(|()| Parse::Complete { head_bytes: bounds.end })
    }

    fn read(&mut self, head: &[u8], limits: &HeadLimits) -> Result<(), Refusal> {
        let mut room = [const { MaybeUninit::uninit() }; FIELDS_CEILING];
        let Some((request, start)) = parse_fields(head, &mut room, limits)? else {
            // The line scan saw an empty line, so the parser must have seen it too.
            return Err(Refusal::StartLine);
        };
        self.table.fill(head, request.headers)?;
        self.start = start;
        self.controls = Controls::gather(&self.table, start.version_minor)?;
        if self.controls.hosts == 0 && start.version_minor == 1 {
            return Err(Refusal::HostMissing);
        }
        Ok(())
    }

    fn check_early(&mut self, input: &[u8], limits: &HeadLimits) -> Result<Parse, Refusal> {
        if !self.scan.worth_checking(input.len()) {
            return Ok(Parse::Partial);
        }
        let mut room = [const { MaybeUninit::uninit() }; FIELDS_CEILING];
        let head = input.get(self.scan.start()..).unwrap_or_default();
        match parse_fields(head, &mut room, limits) {
            Ok(_) => Ok(Parse::Partial),
            Err(refusal) => Err(self.refuse(refusal)),
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.clear();
        refusal
    }
}

/// Parses what is there of a head; `None` while it is not whole.
fn parse_fields<'room, 'head>(
    head: &'head [u8],
    room: &'room mut [MaybeUninit<Header<'head>>; FIELDS_CEILING],
    limits: &HeadLimits,
) -> Result<Option<(Request<'room, 'head>, StartLine)>, Refusal> {
    let mut request = Request::new(&mut []);
    let room = room.get_mut(..limits.fields_max.min(FIELDS_CEILING)).unwrap_or_default();
    let status = ParserConfig::default()
        .parse_request_with_uninit_headers(&mut request, head, room)
        .map_err(|error| refusal_of(error, start_line_refusal(error, head)))?;
    if let Some(target) = request.path
        && !is_origin_form(target.as_bytes())
    {
        return Err(Refusal::Target);
    }
    let (Status::Complete(_), Some(method), Some(target), Some(version_minor)) =
        (status, request.method, request.path, request.version)
    else {
        return Ok(None);
    };
    let (path_start, target_end) = range_in(head, target.as_bytes());
    let path_bytes = target.find('?').unwrap_or(target.len());
    let (_, path_end) = range_in(head, target.get(..path_bytes).unwrap_or_default().as_bytes());
    let (_, method_end) = range_in(head, method.as_bytes());
    Ok(Some((request, StartLine { method_end, path_start, path_end, target_end, version_minor })))
}

/// Tells a version that is not spoken here from a line that is no request line, and a bad target from both.
fn start_line_refusal(error: httparse::Error, head: &[u8]) -> Refusal {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let (method, _target, version) = (parts.next(), parts.next(), parts.next());
    match (error, version) {
        (httparse::Error::Version, Some(version)) if is_other_version(version) => Refusal::Version,
        (httparse::Error::Token, Some(version))
            if version.starts_with(b"HTTP/") && method.is_some_and(is_token) =>
        {
            Refusal::Target
        }
        _ => Refusal::StartLine,
    }
}
