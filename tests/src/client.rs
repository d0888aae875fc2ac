//! A blocking client over a socket, with TLS where a test says so: sends the bytes it is given, reads whole replies or event by event. It is
//! strict where a lenient client would hide a mistake of the gateway: a body must end exactly where its head says.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::time::now;
use crate::tls::Trust;

/// Longer than anything a test waits for, so that a lost reply fails a test instead of hanging it.
const READ_TIMEOUT: Duration = Duration::from_secs(40);

/// One connection.
pub struct Client {
    wire: Wire,
    received: Vec<u8>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Status line and fields, as received, without the empty line.
    pub head: String,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

/// One event of a stream, or one comment.
#[derive(Clone, Debug)]
pub struct Event {
    /// When its last byte came.
    pub at: Instant,
    /// All of its lines, with the empty one.
    pub text: String,
}

/// How a body is framed.
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Client {
    /// A new connection.
    pub fn connect(address: SocketAddr) -> Client {
        Client { wire: Wire::Plain(dial(address)), received: Vec::new() }
    }

    /// A new connection with TLS; the handshake is complete.
    #[track_caller]
    pub fn connect_tls(address: SocketAddr, trust: &Trust) -> Client {
        Client::try_connect_tls(address, trust, b"").unwrap_or_else(|wrong| panic!("no TLS: {wrong}"))
    }

    /// The same, with bytes that go out before the handshake; the error says why there is no TLS.
    pub fn try_connect_tls(address: SocketAddr, trust: &Trust, before: &[u8]) -> Result<Client, String> {
        let mut socket = dial(address);
        socket.write_all(before).map_err(|it| it.to_string())?;
        let mut session = trust.session();
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(|it| it.to_string())?;
        }
        let wire = Wire::Tls(Box::new(StreamOwned::new(session, socket)));
        Ok(Client { wire, received: Vec::new() })
    }

    /// The TLS session of a connection that has one.
    #[track_caller]
    pub fn session(&self) -> &ClientConnection {
        match &self.wire {
            Wire::Plain(_) => panic!("no TLS"),
            Wire::Tls(stream) => &stream.conn,
        }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.write_all(bytes.as_ref()).expect("the connection is open");
    }

    /// Sends bytes that the other side may not want any more.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.write_all(bytes.as_ref()).is_ok()
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        if let Wire::Tls(stream) = &mut self.wire {
            stream.conn.send_close_notify();
            stream.flush().expect("the connection is open");
        }
        self.wire.socket().shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// The same, where the other side may have left.
    pub fn try_finish(&mut self) -> bool {
        self.wire.socket().shutdown(Shutdown::Write).is_ok()
    }

    /// Reads one whole reply.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply(false).unwrap_or_else(|wrong| panic!("no whole reply: {wrong}"))
    }

    /// Reads one whole reply, whose body is left out when it answers a `HEAD`.
    pub fn try_reply(&mut self, to_head: bool) -> Result<Reply, String> {
        let mut reply = self.try_head()?;
        if to_head || reply.status / 100 == 1 || reply.status == 204 {
            return Ok(reply);
        }
        let mut framing = framing(&reply.head)?;
        while let Some(data) = self.data(&mut framing)? {
            reply.body.extend_from_slice(&data);
        }
        Ok(reply)
    }

    /// Reads the head of a reply; its body is then read by [`Client::events`] or not at all.
    pub fn try_head(&mut self) -> Result<Reply, String> {
        loop {
            if let Some(at) = find(&self.received, b"\r\n\r\n") {
                let head = String::from_utf8(self.received.drain(..at + 4).collect())
                    .map_err(|it| it.to_string())?;
                let head = head.trim_end().to_owned();
                let status = head.strip_prefix("HTTP/1.1 ").and_then(|it| it.get(..3)?.parse().ok());
                let status = status.ok_or_else(|| format!("not a status line: {head}"))?;
                return Ok(Reply { status, head, body: Vec::new() });
            }
            if !self.more()? {
                return Err(format!(
                    "closed before the end of a head: {:?}",
                    String::from_utf8_lossy(&self.received)
                ));
            }
        }
    }

    /// Reads so many bytes of a body whose head was read.
    #[track_caller]
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut body = Vec::new();
        let mut framing = Framing::Length(length);
        while let Some(data) =
            self.data(&mut framing).unwrap_or_else(|wrong| panic!("no whole body: {wrong}"))
        {
            body.extend_from_slice(&data);
        }
        body
    }

    /// Reads the events of a reply whose head was read, to their end. The error says how the body broke off.
    pub fn events(&mut self, head: &Reply) -> (Vec<Event>, Result<(), String>) {
        let mut events = Vec::new();
        let ended = self.each_event(head, |event| events.push(event));
        (events, ended)
    }

    /// As [`Client::events`], one at a time.
    pub fn each_event(&mut self, head: &Reply, mut take: impl FnMut(Event)) -> Result<(), String> {
        let mut framing = framing(&head.head)?;
        let mut text = Vec::new();
        loop {
            let Some(data) = self.data(&mut framing)? else {
                let rest = String::from_utf8_lossy(&text);
                return if text.is_empty() {
                    Ok(())
                } else {
                    Err(format!("half an event at the end: {rest:?}"))
                };
            };
            text.extend_from_slice(&data);
            while let Some(end) = end_of_event(&text) {
                let event = String::from_utf8(text.drain(..end).collect()).map_err(|it| it.to_string())?;
                take(Event { at: now(), text: event });
            }
        }
    }

    /// Whether the other side closes the connection within `limit` without a further byte.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.wire.socket().set_read_timeout(Some(limit)).expect("a timeout");
        let mut byte = [0];
        let mut read = self.wire.read(&mut byte);
        while matches!(&read, Err(error) if error.kind() == ErrorKind::Interrupted) {
            read = self.wire.read(&mut byte);
        }
        self.wire.socket().set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout");
        match read {
            Ok(0) => true,
            Ok(_) => {
                self.received.extend_from_slice(&byte);
                false
            }
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    /// Whether bytes that no reply accounts for were received.
    pub fn has_surplus(&self) -> bool {
        !self.received.is_empty()
    }

    /// The next piece of a body; `None` at its end.
    fn data(&mut self, framing: &mut Framing) -> Result<Option<Vec<u8>>, String> {
        match framing {
            Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                if self.received.is_empty() && !self.more()? {
                    return Err(format!("cut with {left} bytes to come"));
                }
                let taken = self.received.len().min(*left);
                *left -= taken;
                Ok(Some(self.received.drain(..taken).collect()))
            }
            Framing::Chunked => self.chunk(),
            Framing::UntilClose => {
                if self.received.is_empty() && !self.more()? {
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.received)))
            }
        }
    }

    fn chunk(&mut self) -> Result<Option<Vec<u8>>, String> {
        let cut = || "cut within a chunked body".to_owned();
        let line_end = loop {
            match find(&self.received, b"\r\n") {
                Some(at) => break at,
                None if self.more()? => {}
                None => return Err(cut()),
            }
        };
        let line = String::from_utf8_lossy(&self.received[..line_end]).into_owned();
        let size = usize::from_str_radix(&line, 16).map_err(|_| format!("not a chunk size: {line:?}"))?;
        let end = line_end + 2 + size;
        while self.received.len() < end + 2 {
            if !self.more()? {
                return Err(cut());
            }
        }
        let whole: Vec<u8> = self.received.drain(..end + 2).collect();
        if &whole[end..] != b"\r\n" {
            return Err("a chunk does not end where it says".into());
        }
        Ok((size > 0).then(|| whole[line_end + 2..end].to_vec()))
    }

    fn more(&mut self) -> Result<bool, String> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.wire.read(&mut buffer) {
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    return Ok(count > 0);
                }
                // A read with a time-out is not begun anew by the kernel when work for a ring interrupts the thread.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl Wire {
    fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(socket) => socket,
            Wire::Tls(stream) => &stream.sock,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.read(buffer),
            Wire::Tls(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Wire::Plain(socket) => socket.write_all(bytes),
            Wire::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }
}

fn dial(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("the gateway listens");
    socket.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout");
    socket.set_write_timeout(Some(READ_TIMEOUT)).expect("a timeout");
    socket.set_nodelay(true).expect("an option");
    socket
}

impl Reply {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// How often the gateway tried.
    pub fn attempts(&self) -> u32 {
        self.field("x-tidegate-attempts").and_then(|it| it.parse().ok()).unwrap_or(0)
    }
}

/// The value of a field of a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    fields(head).find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Names and values of a head's fields.
pub fn fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim()))
}

/// A request of raw parts; the length is added.
pub fn request(line: &str, fields: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!("{line} HTTP/1.1\r\nhost: gateway\r\n").into_bytes();
    for (name, value) in fields {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !line.starts_with("GET ") && !line.starts_with("HEAD ") {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// What every call to the Messages API carries.
pub const MESSAGES_FIELDS: [(&str, &str); 3] = [
    ("content-type", "application/json"),
    ("anthropic-version", "2023-06-01"),
    ("x-api-key", crate::messages::VIRTUAL_KEY),
];

/// A call to the Messages API.
pub fn messages(body: &str) -> Vec<u8> {
    request("POST /v1/messages", &MESSAGES_FIELDS, body)
}

/// One call on a connection of its own.
#[track_caller]
pub fn call(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Reply {
    let mut client = Client::connect(address);
    client.send(bytes);
    client.reply()
}

/// One streamed call on a connection of its own: head, events, how it ended.
#[track_caller]
pub fn stream(address: SocketAddr, body: &str) -> (Reply, Vec<Event>, Result<(), String>) {
    let mut client = Client::connect(address);
    client.send(messages(body));
    let head = client.try_head().unwrap_or_else(|wrong| panic!("no head: {wrong}"));
    let (events, ended) = client.events(&head);
    (head, events, ended)
}

/// The text of all events.
pub fn joined(events: &[Event]) -> String {
    events.iter().map(|it| it.text.as_str()).collect()
}

fn framing(head: &str) -> Result<Framing, String> {
    match (field(head, "content-length"), field(head, "transfer-encoding")) {
        (Some(_), Some(_)) => Err("two framings".into()),
        (Some(length), None) => length.parse().map(Framing::Length).map_err(|_| format!("length {length}")),
        (None, Some("chunked")) => Ok(Framing::Chunked),
        (None, Some(other)) => Err(format!("transfer-encoding {other}")),
        (None, None) => Ok(Framing::UntilClose),
    }
}

fn end_of_event(text: &[u8]) -> Option<usize> {
    let ends = [b"\n\n".as_slice(), b"\r\n\r\n".as_slice()];
    ends.iter().filter_map(|it| find(text, it).map(|at| at + it.len())).min()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|it| it == part)
}
