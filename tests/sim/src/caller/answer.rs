//! The answer to one call as it comes in, judged piece by piece: one end and no second, every piece of content of one
//! attempt in order and once, and nobody else's mark.

use crate::http::{Head, Kind, Message};
use crate::ledger::{End, Ledger, Mark, marks};
use crate::script::{CallScript, Manner};

/// What providers make replies large by.
const FILLER: u8 = b'x';

/// An answer, as far as it has come.
pub struct Answer {
    call: usize,
    tenant: usize,
    expects_stream: bool,
    expects_content: bool,
    message: Message,
    bytes: usize,
    /// Text in which no whole mark was found yet.
    unread: Vec<u8>,
    attempt: Option<usize>,
    pieces: usize,
    has_last_piece: bool,
    has_end: bool,
    has_error: bool,
    head_was_read: bool,
}

impl Answer {
    /// Nothing of the answer to `call`.
    pub fn new(call: usize, it: &CallScript) -> Answer {
        Answer {
            call,
            tenant: it.tenant,
            expects_stream: it.streamed && !it.counts_tokens,
            expects_content: !it.counts_tokens && it.manner != Manner::Malformed,
            message: Message::default(),
            bytes: 0,
            unread: Vec::new(),
            attempt: None,
            pieces: 0,
            has_last_piece: false,
            has_end: false,
            has_error: false,
            head_was_read: false,
        }
    }

    /// Takes in bytes of the connection.
    pub fn feed(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        self.bytes += bytes.len();
        self.message.feed(Kind::Reply, bytes);
        self.look(ledger);
    }

    /// The connection has ended.
    pub fn at_end(&mut self, ledger: &mut Ledger) {
        self.message.at_end();
        self.look(ledger);
    }

    /// How the call ended, once it did.
    pub fn end(&self) -> Option<End> {
        if !self.message.is_done() {
            return None;
        }
        let status = self.head().map_or(0, Head::status);
        Some(match status {
            200 if self.has_error => End::ErrorEvent,
            200 => End::Complete,
            _ => End::Refused(status),
        })
    }

    /// The head, once it is there.
    pub fn head(&self) -> Option<&Head> {
        self.message.head()
    }

    /// Nothing has come.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that came.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The attempt whose content it is.
    pub fn attempt(&self) -> Option<usize> {
        self.attempt
    }

    /// Nothing can be put into it: it is no stream, and a part of it is out.
    pub fn is_opaque(&self) -> bool {
        self.head().is_some() && !self.is_stream()
    }

    /// Another request may follow on the connection.
    pub fn keeps_connection(&self) -> bool {
        let closes =
            |head: &Head| head.field("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        self.message.is_done() && self.message.surplus().is_empty() && !self.head().is_none_or(closes)
    }

    fn is_stream(&self) -> bool {
        let field = self.head().and_then(|it| it.field("content-type"));
        field.is_some_and(|it| it.starts_with("text/event-stream"))
    }

    fn look(&mut self, ledger: &mut Ledger) {
        if self.message.is_broken() {
            return ledger.fail(3, Some(self.call), "the answer is no HTTP");
        }
        if !self.head_was_read && self.message.head().is_some() {
            self.head_was_read = true;
            self.look_at_head(ledger);
        }
        // Fillers are of one letter that nothing else here needs; a long line of them is not kept.
        self.unread.extend(self.message.body().iter().filter(|it| **it != FILLER));
        self.message.forget_body();
        if contains(&self.unread, b"sk-up-") {
            ledger.fail(8, Some(self.call), "a provider's credential reached a caller");
        }
        if self.is_stream() {
            self.look_at_lines(ledger);
        } else {
            let (found, read) = marks(&self.unread);
            self.unread.drain(..read);
            found.into_iter().for_each(|it| self.look_at_mark(it, ledger));
        }
        if self.message.is_done() {
            self.look_at_whole(ledger);
        }
    }

    fn look_at_head(&mut self, ledger: &mut Ledger) {
        let fields = self.message.head().map(|it| it.fields.clone()).unwrap_or_default();
        for (_, value) in fields {
            if value.contains("sk-up-") {
                ledger.fail(8, Some(self.call), "a provider's credential reached a caller");
            }
            for mark in marks(value.as_bytes()).0 {
                self.look_at_mark(mark, ledger);
            }
        }
    }

    fn look_at_mark(&mut self, mark: Mark, ledger: &mut Ledger) {
        if (mark.tenant, mark.call) != (self.tenant, self.call) {
            return ledger.fail(8, Some(self.call), format!("it got what belongs to another: {mark:?}"));
        }
        let Some(piece) = mark.piece else { return };
        if self.attempt.is_some_and(|it| Some(it) != mark.attempt) {
            let was = self.attempt;
            return ledger.fail(4, Some(self.call), format!("content of attempt {was:?}, then {mark:?}"));
        }
        self.attempt = mark.attempt;
        if piece != self.pieces {
            let expected = self.pieces;
            return ledger.fail(4, Some(self.call), format!("piece {piece} where {expected} was due"));
        }
        self.pieces += 1;
        self.has_last_piece |= mark.is_last;
        if self.has_end || self.has_error {
            ledger.fail(3, Some(self.call), "content behind the end");
        }
    }

    /// Whole lines, in order: what they carry, and whether they are an end.
    fn look_at_lines(&mut self, ledger: &mut Ledger) {
        let Some(end) = self.unread.iter().rposition(|it| *it == b'\n') else { return };
        let lines: Vec<u8> = self.unread.drain(..=end).collect();
        for line in lines.split(|it| *it == b'\n') {
            for mark in marks(line).0 {
                self.look_at_mark(mark, ledger);
            }
            let is_end = line == b"event: message_stop" || line == b"data: [DONE]";
            let is_error = line == b"event: error" || line.starts_with(b"data: {\"error\":{");
            if (is_end || is_error) && (self.has_end || self.has_error) {
                ledger.fail(3, Some(self.call), "a second end");
            }
            self.has_end |= is_end;
            self.has_error |= is_error;
        }
    }

    fn look_at_whole(&mut self, ledger: &mut Ledger) {
        if !self.message.surplus().is_empty() {
            ledger.fail(3, Some(self.call), "bytes behind the answer");
        }
        if self.head().map_or(0, Head::status) != 200 {
            return;
        }
        if self.expects_stream && !self.has_end && !self.has_error {
            ledger.fail(3, Some(self.call), "a stream without an end of its own");
        }
        let is_good = !self.expects_stream || self.has_end;
        if is_good && self.expects_content && !self.has_last_piece {
            ledger.fail(3, Some(self.call), "it ended as if complete, without all of its content");
        }
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|it| it == needle)
}
