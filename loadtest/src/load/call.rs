//! One call on one connection: sends it, reads the reply to its exact end, and says how it ended. It keeps no figures,
//! chooses nothing, and repeats nothing. Its caller sets the deadline around it.

use tidegate_ring::{Conn, fresh_now_ns};
use tidegate_wire::body::BodyReader;
use tidegate_wire::head::{HeadLimits, Parse, RequestKind, ResponseHead};
use tidegate_wire::json;
use tidegate_wire::sse::{EventView, Splitter};

use super::Protocol;
use super::counters::{Ending, Failure};
use super::watch::{Meaning, meaning_of};

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 32 * 1024, fields_max: 200 };
/// The longest reply that is read.
const REPLY_BYTES_MAX: u64 = 1 << 30;
/// The longest whole reply and the longest event: these are held.
const HELD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A connection and its buffers, which serve one call after the other.
pub(super) struct Line {
    conn: Conn,
    head: ResponseHead,
    /// Received and not yet taken.
    inbox: Vec<u8>,
    /// Body text that is looked at: the whole reply, or what is there of an event.
    text: Vec<u8>,
    /// Whether another call may follow.
    reusable: bool,
}

/// What is sent, and what its caller does.
pub(super) struct Call<'a> {
    pub(super) protocol: Protocol,
    /// Head, begin of the body, text, end.
    pub(super) slices: [&'a [u8]; 4],
    /// Content events after which the caller leaves.
    pub(super) leaves_after: Option<u32>,
}

/// What was seen of the reply, also of one that never ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) status: Option<u16>,
    /// When the first content came: of a stream its first content event, else the end of the reply.
    pub(super) content_ns: Option<u64>,
}

impl Line {
    pub(super) fn new(conn: Conn) -> Line {
        Line { conn, head: ResponseHead::default(), inbox: Vec::new(), text: Vec::new(), reusable: true }
    }

    /// Whether another call can be made on it.
    pub(super) fn is_reusable(&self) -> bool {
        self.reusable && self.conn.is_quiet()
    }

    /// Makes a call. `seen` is filled in as the reply comes, so that it holds even if this future is dropped.
    pub(super) async fn exchange(&mut self, call: &Call<'_>, seen: &mut Seen) -> Ending {
        self.reusable = false;
        let sent = self.conn.send(&call.slices).await;
        // A server may answer before it has read everything, and close: the answer counts, if it can be had.
        let ending = match self.read_reply(call, seen).await {
            Ok(ending) => ending,
            Err(failure) => Ending::Failed(failure),
        };
        self.reusable &= sent.is_ok();
        ending
    }

    async fn read_reply(&mut self, call: &Call<'_>, seen: &mut Seen) -> Result<Ending, Failure> {
        self.inbox.clear();
        self.text.clear();
        self.read_head().await?;
        let status = self.head.status();
        seen.status = Some(status);
        let mut body =
            BodyReader::new(self.head.framing(), REPLY_BYTES_MAX).map_err(|_| Failure::Malformed)?;
        let mut reader = if status != 200 {
            Reading::Dropped
        } else if self.is_event_stream() {
            Reading::Stream(Stream::new(call))
        } else {
            Reading::Whole
        };
        loop {
            self.take_body(&mut body)?;
            if self.digest(&mut reader, seen)? == Progress::Leaves {
                return Ok(Ending::Left);
            }
            if body.ended() {
                break;
            }
            if !self.receive().await.map_err(|()| Failure::Cut)? {
                body.finish_at_eof().map_err(|_| Failure::Cut)?;
            }
        }
        self.reusable = self.head.keep_alive() && self.inbox.is_empty();
        self.judge_end(&reader, status, seen)
    }

    /// Reads the final head; what follows it stays in the inbox.
    async fn read_head(&mut self) -> Result<(), Failure> {
        loop {
            if !self.inbox.is_empty() {
                match self.head.parse(&self.inbox, &LIMITS, RequestKind::default()) {
                    Err(_) => return Err(Failure::Malformed),
                    Ok(Parse::Complete { head_bytes }) => {
                        self.inbox.drain(..head_bytes.min(self.inbox.len()));
                        if !self.head.is_interim() {
                            return Ok(());
                        }
                        continue;
                    }
                    Ok(Parse::Partial) => {}
                }
            }
            let broken = if self.inbox.is_empty() { Failure::NoReply } else { Failure::Cut };
            if !self.receive().await.map_err(|()| broken)? {
                return Err(broken);
            }
        }
    }

    /// Receives more; false at the end of the connection.
    async fn receive(&mut self) -> Result<bool, ()> {
        let chunk = self.conn.recv().await.map_err(|_| ())?;
        self.inbox.extend_from_slice(&chunk);
        Ok(!chunk.is_empty())
    }

    /// Moves what the inbox holds of the body into `text`.
    fn take_body(&mut self, body: &mut BodyReader) -> Result<(), Failure> {
        let mut taken = 0;
        while !body.ended() {
            let rest = self.inbox.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let step = body.next(rest).map_err(|_| Failure::Malformed)?;
            self.text.extend_from_slice(rest.get(step.data).unwrap_or_default());
            taken += step.consumed;
            if step.consumed == 0 {
                break;
            }
        }
        self.inbox.drain(..taken.min(self.inbox.len()));
        Ok(())
    }

    /// Looks at `text` and forgets what is done with.
    fn digest(&mut self, reading: &mut Reading, seen: &mut Seen) -> Result<Progress, Failure> {
        let progress = match reading {
            Reading::Whole => Progress::Goes,
            Reading::Dropped => {
                self.text.clear();
                Progress::Goes
            }
            Reading::Stream(stream) => stream.digest(&mut self.text, seen),
        };
        if self.text.len() > HELD_BYTES_MAX { Err(Failure::Malformed) } else { Ok(progress) }
    }

    fn judge_end(&self, reading: &Reading, status: u16, seen: &mut Seen) -> Result<Ending, Failure> {
        match reading {
            Reading::Dropped => Err(Failure::Status(status)),
            Reading::Whole => match json::members(&self.text, ["usage"]) {
                Ok([Some(_)]) => {
                    seen.content_ns = Some(fresh_now_ns());
                    Ok(Ending::Ok)
                }
                _ => Err(Failure::Malformed),
            },
            Reading::Stream(Stream { failed: true, .. }) => Err(Failure::InBand),
            Reading::Stream(Stream { ended: true, .. }) => Ok(Ending::Ok),
            Reading::Stream(_) => Err(Failure::Unfinished),
        }
    }

    fn is_event_stream(&self) -> bool {
        let kind = self.head.field("content-type").unwrap_or_default();
        let name = b"text/event-stream";
        kind.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    }
}

/// What is read.
enum Reading {
    /// A whole reply.
    Whole,
    /// The text of an error, which nobody looks at.
    Dropped,
    /// Events.
    Stream(Stream),
}

#[derive(PartialEq)]
enum Progress {
    Goes,
    Leaves,
}

struct Stream {
    protocol: Protocol,
    splitter: Splitter,
    contents: u32,
    leaves_after: Option<u32>,
    failed: bool,
    ended: bool,
}

impl Stream {
    fn new(call: &Call<'_>) -> Stream {
        Stream {
            protocol: call.protocol,
            splitter: Splitter::new(),
            contents: 0,
            leaves_after: call.leaves_after,
            failed: false,
            ended: false,
        }
    }

    fn digest(&mut self, text: &mut Vec<u8>, seen: &mut Seen) -> Progress {
        let mut done = 0;
        let mut progress = Progress::Goes;
        while let Some(span) = self.splitter.next_event(text.get(done..).unwrap_or_default()) {
            let block = text.get(done + span.start..done + span.end).unwrap_or_default();
            match meaning_of(self.protocol, &EventView::parse(block)) {
                Meaning::Other => {}
                Meaning::Error => self.failed = true,
                Meaning::End => self.ended = true,
                Meaning::Content => {
                    seen.content_ns.get_or_insert_with(fresh_now_ns);
                    self.contents = self.contents.saturating_add(1);
                    if self.leaves_after.is_some_and(|contents| self.contents >= contents) {
                        progress = Progress::Leaves;
                    }
                }
            }
            done += span.end;
        }
        text.drain(..done.min(text.len()));
        // Who was told of an error, or has the whole reply, has nothing to leave.
        if self.failed || self.ended { Progress::Goes } else { progress }
    }
}
