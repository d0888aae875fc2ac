//! What the product's readers make of a connection's bytes: which messages, and how it goes on behind them. The loop is
//! that of the gateway's connections without sockets: a head, its body, the next head.

use tidegate_wire::body::BodyReader;
use tidegate_wire::head::{Framing, HeadLimits, Parse, RequestHead, RequestKind, ResponseHead};

use tidegate_core::limits;

const HEAD_LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: limits::HEAD_BYTES_MAX, fields_max: limits::HEAD_FIELDS_MAX };

/// A message that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Method and path of a request, the status of a reply.
    pub line: String,
    /// Its body without framing.
    pub body: Vec<u8>,
    /// One past its last byte.
    pub end: usize,
}

/// How it goes on behind the last message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// More bytes may come; whether a message was begun.
    More {
        /// Something of the next message is there.
        begun: bool,
    },
    /// The last message ends the connection: nothing behind it is read.
    Closed,
    /// What follows is refused with this status and code, and the connection ends.
    Refused(u16, &'static str),
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The messages in order.
    pub messages: Vec<Message>,
    /// What is behind them.
    pub end: End,
}

/// Reads requests that arrive in `pieces`.
pub fn read_requests<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Reading {
    let line = Line { role: Role::Requests(RequestHead::default()), ..Line::new() };
    line.read(pieces, false)
}

/// Reads replies to requests that were no `HEAD`; `finished`: the connection ends behind the last piece.
pub fn read_replies<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, finished: bool) -> Reading {
    Line::new().read(pieces, finished)
}

enum Role {
    Requests(RequestHead),
    Replies(ResponseHead),
}

struct Line {
    role: Role,
    buffer: Vec<u8>,
    /// Bytes before the buffer.
    passed: usize,
    body: Option<(String, BodyReader, Vec<u8>, bool)>,
    messages: Vec<Message>,
    end: End,
}

impl Line {
    fn new() -> Line {
        Line {
            role: Role::Replies(ResponseHead::default()),
            buffer: Vec::new(),
            passed: 0,
            body: None,
            messages: Vec::new(),
            end: End::More { begun: false },
        }
    }

    fn read<'p>(mut self, pieces: impl IntoIterator<Item = &'p [u8]>, finished: bool) -> Reading {
        for piece in pieces {
            self.buffer.extend_from_slice(piece);
            while matches!(self.end, End::More { .. }) && self.step() {}
        }
        if finished && let Some((line, mut reader, body, _)) = self.body.take() {
            match reader.finish_at_eof() {
                Ok(()) => {
                    self.messages.push(Message { line, body, end: self.passed + self.buffer.len() });
                    self.end = End::Closed;
                }
                Err(error) => self.refuse(error.status(), error.code()),
            }
        }
        if let End::More { begun } = &mut self.end {
            *begun = !self.buffer.is_empty() || self.body.is_some();
        }
        Reading { messages: self.messages, end: self.end }
    }

    /// One head, or one piece of a body; false where more bytes are needed.
    fn step(&mut self) -> bool {
        if let Some((line, mut reader, mut body, stays)) = self.body.take() {
            let before = self.buffer.len();
            let step = match reader.next(&self.buffer) {
                Ok(step) => step,
                Err(error) => {
                    self.refuse(error.status(), error.code());
                    return false;
                }
            };
            body.extend_from_slice(&self.buffer[step.data.clone()]);
            self.consume(step.consumed);
            if reader.ended() {
                self.messages.push(Message { line, body, end: self.passed });
                if !stays {
                    self.end = End::Closed;
                }
                return true;
            }
            self.body = Some((line, reader, body, stays));
            return before > 0 && step.consumed > 0;
        }
        if self.buffer.is_empty() {
            return false;
        }
        match self.head() {
            Ok(Some((head_bytes, line, framing, stays))) => {
                self.consume(head_bytes);
                match BodyReader::new(framing, limits::BODY_BYTES_MAX as u64) {
                    Ok(reader) => self.body = Some((line, reader, Vec::new(), stays)),
                    Err(error) => self.refuse(error.status(), error.code()),
                }
                true
            }
            Ok(None) => false,
            Err((status, code)) => {
                self.refuse(status, code);
                false
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "what the next lines take apart")]
    fn head(&mut self) -> Result<Option<(usize, String, Framing, bool)>, (u16, &'static str)> {
        let refused = |it: tidegate_wire::head::Refusal| (it.status(), it.code());
        Ok(match &mut self.role {
            Role::Requests(head) => match head.parse(&self.buffer, &HEAD_LIMITS).map_err(refused)? {
                Parse::Partial => None,
                Parse::Complete { head_bytes } => {
                    let line = format!("{} {}", head.method(), head.path());
                    Some((head_bytes, line, head.framing(), head.keep_alive()))
                }
            },
            Role::Replies(head) => {
                let kind = RequestKind { head_method: false };
                match head.parse(&self.buffer, &HEAD_LIMITS, kind).map_err(refused)? {
                    Parse::Partial => None,
                    Parse::Complete { head_bytes } => {
                        let stays = head.keep_alive();
                        Some((head_bytes, head.status().to_string(), head.framing(), stays))
                    }
                }
            }
        })
    }

    fn refuse(&mut self, status: u16, code: &'static str) {
        self.end = End::Refused(status, code);
    }

    fn consume(&mut self, count: usize) {
        self.buffer.drain(..count);
        self.passed += count;
    }
}
