//! HTTP/1.1 as far as callers, providers and the watcher of the wire need it. Written apart from `wire` on purpose:
//! the same mistake must not stand on both sides of the gateway.

/// A head and a body, as far as they have come.
#[derive(Debug, Default)]
pub struct Message {
    buffer: Vec<u8>,
    head: Option<Head>,
    body: Vec<u8>,
    state: State,
}

/// The first line and the fields.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The request or status line.
    pub start: String,
    /// Names in lower case, and values.
    pub fields: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// So much of the body is to come.
    Length(u64),
    ChunkSize,
    Chunk(u64),
    UntilEnd,
    Done,
    Broken,
}

/// Which kind of message it is: they differ in what the absence of a length means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request.
    Request,
    /// A reply.
    Reply,
}

impl Head {
    /// The value of a field; of several the first.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|it| it.0 == name).map(|it| it.1.as_str())
    }

    /// The status of a reply; zero where there is none.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0)
    }

    /// The path of a request.
    pub fn path(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or("")
    }
}

impl Message {
    /// Takes in bytes; what is behind the end stays for [`Message::next`].
    pub fn feed(&mut self, kind: Kind, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while self.step(kind) {}
    }

    /// The head, once it is there.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// What came of the body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Nothing has come.
    pub fn is_empty(&self) -> bool {
        self.head.is_none() && self.buffer.is_empty()
    }

    /// It is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// It is none.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// The connection ended: complete only where that is how the message ends.
    pub fn at_end(&mut self) {
        if self.state == State::UntilEnd {
            self.state = State::Done;
        }
    }

    /// Bytes behind the end.
    pub fn surplus(&self) -> &[u8] {
        if self.is_done() { &self.buffer } else { &[] }
    }

    /// Leaves a complete message for the one behind it.
    pub fn next(&mut self, kind: Kind) {
        let rest = std::mem::take(&mut self.buffer);
        *self = Message::default();
        self.feed(kind, &rest);
    }

    /// Gives up the body's room: who has read it needs it no more.
    pub fn forget_body(&mut self) {
        self.body.clear();
    }

    fn step(&mut self, kind: Kind) -> bool {
        match self.state {
            State::Head => self.step_head(kind),
            State::Length(0) => {
                self.state = State::Done;
                true
            }
            State::Length(left) => {
                let taken = self.take(left);
                self.state = State::Length(left - taken);
                taken > 0
            }
            State::ChunkSize => self.step_chunk_size(),
            State::Chunk(0) => self.line().is_some_and(|line| {
                self.state = if line.is_empty() { State::ChunkSize } else { State::Broken };
                true
            }),
            State::Chunk(left) => {
                let taken = self.take(left);
                self.state = State::Chunk(left - taken);
                taken > 0
            }
            State::UntilEnd => self.take(u64::MAX) > 0,
            State::Done | State::Broken => false,
        }
    }

    fn step_head(&mut self, kind: Kind) -> bool {
        let Some(end) = find(&self.buffer, b"\r\n\r\n") else { return false };
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or("").to_owned();
        let fields = lines.filter_map(|it| it.split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        let head = Head { start, fields: fields.collect() };
        self.state = framing(kind, &head);
        self.head = Some(head);
        true
    }

    fn step_chunk_size(&mut self) -> bool {
        let Some(line) = self.line() else { return false };
        let size = std::str::from_utf8(&line).ok().and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
        self.state = match size {
            // No trailers are ever sent here.
            Some(0) => State::Length(2),
            Some(size) => State::Chunk(size),
            None => State::Broken,
        };
        if self.state == State::Length(2) {
            // The empty line behind the last chunk is no body.
            match self.line() {
                Some(_) => self.state = State::Done,
                None => {
                    self.state = State::ChunkSize;
                    self.buffer.splice(0..0, *b"0\r\n");
                    return false;
                }
            }
        }
        true
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = find(&self.buffer, b"\r\n")?;
        let line = self.buffer[..end].to_vec();
        self.buffer.drain(..end + 2);
        Some(line)
    }

    fn take(&mut self, most: u64) -> u64 {
        let taken = (self.buffer.len() as u64).min(most) as usize;
        self.body.extend(self.buffer.drain(..taken));
        taken as u64
    }
}

fn framing(kind: Kind, head: &Head) -> State {
    if head.field("transfer-encoding").is_some_and(|it| it.eq_ignore_ascii_case("chunked")) {
        return State::ChunkSize;
    }
    match head.field("content-length").map(str::parse) {
        Some(Ok(length)) => State::Length(length),
        Some(Err(_)) => State::Broken,
        None if kind == Kind::Request || matches!(head.status(), 204 | 304) => State::Done,
        None => State::UntilEnd,
    }
}

/// Where `needle` first stands.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|it| it == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nmore";

    #[test]
    fn a_message_is_the_same_however_it_is_cut() {
        for size in 1..CHUNKED.len() {
            let mut message = Message::default();
            CHUNKED.chunks(size).for_each(|it| message.feed(Kind::Reply, it));
            assert!(message.is_done(), "{size}");
            assert_eq!((message.body(), message.surplus()), (&b"abcde"[..], &b"more"[..]), "{size}");
        }
    }

    #[test]
    fn what_ends_with_the_connection_is_complete_only_then() {
        let mut message = Message::default();
        message.feed(Kind::Reply, b"HTTP/1.1 200 OK\r\n\r\nall");
        assert!(!message.is_done());
        message.at_end();
        assert!(message.is_done() && message.body() == b"all");
        let mut cut = Message::default();
        cut.feed(Kind::Reply, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall");
        cut.at_end();
        assert!(!cut.is_done());
    }

    #[test]
    fn requests_follow_each_other() {
        let mut message = Message::default();
        message.feed(Kind::Request, b"GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\ncontent-length: 1\r\n\r\nx");
        assert!(message.is_done());
        message.next(Kind::Request);
        assert_eq!((message.is_done(), message.head().map(Head::path)), (true, Some("/b")));
    }
}
