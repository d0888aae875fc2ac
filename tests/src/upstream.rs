//! A provider that does exactly what a test says: each request is answered by the steps a closure returns for it, down
//! to the byte, the pause and the cut. It notes what it was sent, when, and which connections were left in mid reply.
//!
//! It has no quotas of its own; tests that hold the gateway against true quotas use the mock provider of `loadtest`.

#![expect(clippy::disallowed_types, reason = "a test's journal, written by a thread for each connection")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::field;
use crate::time::now;

/// How often a waiting connection looks whether the test is over.
const LOOK: Duration = Duration::from_millis(20);

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Position among the requests of this upstream, from zero.
    pub number: usize,
    /// Position of its connection among those of this upstream, from zero.
    pub connection: usize,
    /// When its last byte was read.
    pub at: Instant,
    /// When the last step of its answer was done.
    pub answered: Option<Instant>,
    /// Request line and fields.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

/// A part of an answer.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Lets time pass, and notes if the other side leaves meanwhile.
    Pause(Duration),
    /// Closes the connection.
    Close,
    /// Answers nothing more until the other side leaves.
    Hang,
}

/// A running upstream.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

type Decide = dyn Fn(&Heard) -> Vec<Step> + Send + Sync;

struct Shared {
    decide: Box<Decide>,
    heard: Mutex<Vec<Heard>>,
    over: AtomicBool,
    connections: AtomicUsize,
    left: AtomicUsize,
}

impl Heard {
    /// The credential it presents.
    pub fn key(&self) -> &str {
        let bearer = || field(&self.head, "authorization").and_then(|it| it.strip_prefix("Bearer "));
        field(&self.head, "x-api-key").or_else(bearer).unwrap_or("")
    }

    /// Method and target.
    pub fn target(&self) -> &str {
        self.head.lines().next().and_then(|it| it.strip_suffix(" HTTP/1.1")).unwrap_or("")
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether it asks for a stream.
    pub fn wants_stream(&self) -> bool {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["stream"] == true
    }
}

impl Upstream {
    /// Starts one that answers as `decide` says.
    pub fn start(decide: impl Fn(&Heard) -> Vec<Step> + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            decide: Box::new(decide),
            heard: Mutex::default(),
            over: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        });
        let acceptor = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Upstream { address, shared, acceptor: Some(acceptor) }
    }

    /// One that gives the same good answers to every call.
    pub fn good(text: &'static str) -> Upstream {
        Upstream::start(move |heard| good(heard, text))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL for a configuration.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was sent so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().expect("no panic while noting").clone()
    }

    /// What it was sent with this credential.
    pub fn heard_of(&self, key: &str) -> Vec<Heard> {
        self.heard().into_iter().filter(|it| it.key() == key).collect()
    }

    /// Requests so far.
    pub fn count(&self) -> usize {
        self.shared.heard.lock().expect("no panic while noting").len()
    }

    /// Connections that the other side left in mid reply.
    pub fn left(&self) -> usize {
        self.shared.left.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// The steps of a good answer, whole or streamed as it was asked for.
pub fn good(heard: &Heard, text: &str) -> Vec<Step> {
    if heard.wants_stream() {
        streamed(&crate::messages::stream(text))
    } else {
        whole(200, &[], &crate::messages::message(text))
    }
}

/// The steps of a whole answer.
pub fn whole(status: u16, fields: &[(&str, &str)], body: &str) -> Vec<Step> {
    let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    vec![Step::Send(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes())]
}

/// The head of a stream.
pub fn stream_head() -> Step {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nrequest-id: req_01\r\ntransfer-encoding: chunked\r\n\r\n";
    Step::Send(head.into())
}

/// Bytes as one chunk.
pub fn chunk(data: &str) -> Step {
    Step::Send(format!("{:x}\r\n{data}\r\n", data.len()).into_bytes())
}

/// The end of a chunked body.
pub fn last_chunk() -> Step {
    Step::Send(b"0\r\n\r\n".to_vec())
}

/// The steps of a stream, each event in a chunk of its own.
pub fn streamed(events: &[String]) -> Vec<Step> {
    paced(events, Duration::ZERO)
}

/// The steps of a stream with a pause before each event.
pub fn paced(events: &[String], pause: Duration) -> Vec<Step> {
    let mut steps = vec![stream_head()];
    for event in events {
        if !pause.is_zero() {
            steps.push(Step::Pause(pause));
        }
        steps.push(chunk(event));
    }
    steps.push(last_chunk());
    steps
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    for socket in listener.incoming() {
        if shared.over.load(Ordering::SeqCst) {
            break;
        }
        let Ok(socket) = socket else { continue };
        let (shared, number) = (shared.clone(), shared.connections.fetch_add(1, Ordering::SeqCst));
        threads.push(std::thread::spawn(move || serve(socket, &shared, number)));
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn serve(mut socket: TcpStream, shared: &Shared, connection: usize) {
    let _ = socket.set_nodelay(true);
    let mut received = Vec::new();
    while let Some((head, body)) = read_request(&mut socket, &mut received, shared) {
        let heard = note(shared, connection, head, body);
        let number = heard.number;
        for step in (shared.decide)(&heard) {
            if !carry_out(&mut socket, step, shared) {
                return;
            }
        }
        shared.heard.lock().expect("no panic while noting")[number].answered = Some(now());
    }
}

fn note(shared: &Shared, connection: usize, head: String, body: Vec<u8>) -> Heard {
    let mut journal = shared.heard.lock().expect("no panic while noting");
    let heard = Heard { number: journal.len(), connection, at: now(), answered: None, head, body };
    journal.push(heard.clone());
    heard
}

/// False when the connection is over.
fn carry_out(socket: &mut TcpStream, step: Step, shared: &Shared) -> bool {
    match step {
        Step::Send(bytes) => {
            let sent = socket.write_all(&bytes).is_ok();
            if !sent {
                shared.left.fetch_add(1, Ordering::SeqCst);
            }
            sent
        }
        Step::Pause(duration) => stays(socket, shared, duration),
        Step::Close => {
            let _ = socket.shutdown(Shutdown::Both);
            false
        }
        Step::Hang => stays(socket, shared, Duration::from_secs(3600)),
    }
}

/// Waits; false when the other side left or the test is over.
fn stays(socket: &TcpStream, shared: &Shared, duration: Duration) -> bool {
    let until = now() + duration;
    while !shared.over.load(Ordering::SeqCst) {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return true;
        }
        let _ = socket.set_read_timeout(Some(left.min(LOOK)));
        match socket.peek(&mut [0]) {
            Ok(1..) => crate::time::pause(left.min(LOOK)),
            Err(error) if is_timeout(&error) => {}
            Ok(0) | Err(_) => {
                shared.left.fetch_add(1, Ordering::SeqCst);
                return false;
            }
        }
    }
    false
}

/// The next request; `None` when the connection or the test is over.
fn read_request(
    socket: &mut TcpStream,
    received: &mut Vec<u8>,
    shared: &Shared,
) -> Option<(String, Vec<u8>)> {
    let head_bytes = loop {
        match received.windows(4).position(|it| it == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None => more(socket, received, shared)?,
        }
    };
    let head = String::from_utf8_lossy(&received[..head_bytes]).trim_end().to_owned();
    if field(&head, "transfer-encoding").is_some() {
        received.drain(..head_bytes);
        return Some((head, read_chunks(socket, received, shared)?));
    }
    // What a front passes on may be anything; a length that is none ends the connection.
    let length: usize = field(&head, "content-length").unwrap_or("0").parse().ok()?;
    while received.len() < head_bytes + length {
        more(socket, received, shared)?;
    }
    let body = received[head_bytes..head_bytes + length].to_vec();
    received.drain(..head_bytes + length);
    Some((head, body))
}

/// A body in chunks: what the gateway sends only where a caller did.
fn read_chunks(socket: &mut TcpStream, received: &mut Vec<u8>, shared: &Shared) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(socket, received, shared)?;
        let size = usize::from_str_radix(&line, 16).expect("a chunk's size");
        if size == 0 {
            // Trailers, down to the empty line.
            while !read_line(socket, received, shared)?.is_empty() {}
            return Some(body);
        }
        while received.len() < size + 2 {
            more(socket, received, shared)?;
        }
        body.extend(received.drain(..size));
        received.drain(..2);
    }
}

/// A line, without its end.
fn read_line(socket: &mut TcpStream, received: &mut Vec<u8>, shared: &Shared) -> Option<String> {
    let end = loop {
        match received.windows(2).position(|it| it == b"\r\n") {
            Some(at) => break at,
            None => more(socket, received, shared)?,
        }
    };
    let line = String::from_utf8_lossy(&received[..end]).into_owned();
    received.drain(..end + 2);
    Some(line)
}

fn more(socket: &mut TcpStream, received: &mut Vec<u8>, shared: &Shared) -> Option<()> {
    let mut buffer = [0; 64 * 1024];
    let _ = socket.set_read_timeout(Some(LOOK));
    while !shared.over.load(Ordering::SeqCst) {
        match socket.read(&mut buffer) {
            Ok(0) => return None,
            Ok(count) => {
                received.extend_from_slice(&buffer[..count]);
                return Some(());
            }
            Err(error) if is_timeout(&error) => {}
            Err(_) => return None,
        }
    }
    None
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trailer is the end of its body and not the beginning of the next request.
    #[test]
    fn a_body_in_chunks_ends_behind_its_trailers() {
        let upstream = Upstream::start(|_| whole(200, &[], "{}"));
        let mut socket = TcpStream::connect(upstream.address()).expect("it listens");
        let request = "POST /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n";
        let next = "GET /b HTTP/1.1\r\nhost: h\r\n\r\n";
        write!(socket, "{request}content-length: 5\r\n\r\n{next}").expect("sent");
        crate::time::wait_for("both are heard", Duration::from_secs(5), || upstream.count() == 2);
        let heard = upstream.heard();
        assert_eq!(heard[0].body, b"hi");
        assert!(heard[1].head.starts_with("GET /b "), "{}", heard[1].head);
    }
}
