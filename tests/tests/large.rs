//! Large files: many at once, up and down, without being held. The measure is the memory of this process, in which the
//! gateway runs beside callers and a provider that hold next to nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_core::limits;
use tidegate_tests::client::{Client, call, field, request};
use tidegate_tests::time::{now, pause_ms, variable};
use tidegate_tests::{Gateway, both_drivers};

const KEY: &str = "vk-large-0123456789-0123456789-01234567";
/// Bytes of one piece that callers and the provider send.
const PIECE: usize = 64 * 1024;
/// What each transfer may add to the process: two threads of the test with their pieces, the kernel's buffers apart, and
/// the gateway's part of it.
const BYTES_PER_TRANSFER_MAX: u64 = 1024 * 1024;

/// Transfers at once, and MiB of each: short, or as `TIDEGATE_LARGE=100x100` says.
fn extent() -> (usize, usize) {
    let stated = variable("TIDEGATE_LARGE");
    let stated = stated.as_deref().and_then(|it| it.split_once('x'));
    stated.map_or((8, 20), |(count, mib)| (count.parse().expect("a number"), mib.parse().expect("a number")))
}

fn yaml(address: SocketAddr) -> String {
    format!(
        r#"
providers: {{ one: {{ kind: anthropic, base_url: "http://{address}", keys: [{{ name: a, value: "key-a" }}] }} }}
virtual_keys: [{{ name: large, key: "{KEY}", operations: [files] }}]
"#
    )
}

/// A provider that reads uploads into nothing and sends downloads out of nothing.
struct Sink {
    address: SocketAddr,
    received: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
struct Manners {
    download_bytes: u64,
    /// Answers with a 413 after so many bytes.
    refuses_after: Option<u64>,
}

impl Sink {
    fn start(manners: Manners) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (received, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let acceptor = std::thread::spawn({
            let (received, over) = (received.clone(), over.clone());
            move || {
                let mut threads = Vec::new();
                for socket in listener.incoming().flatten() {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    let received = received.clone();
                    let serve = move || drop(serve(socket, manners, &received));
                    threads.push(small_thread(serve));
                }
                threads.into_iter().for_each(|it: JoinHandle<()>| it.join().expect("no panic"));
            }
        });
        Sink { address, received, over, acceptor: Some(acceptor) }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        drop(self.acceptor.take().map(JoinHandle::join));
    }
}

fn small_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::Builder::new().stack_size(256 * 1024).spawn(run).expect("a thread")
}

/// One connection, one request after another, until it ends.
fn serve(mut socket: TcpStream, manners: Manners, received: &AtomicU64) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let (head, mut body) = head(&mut socket, &mut piece)?;
        received.fetch_add(body, Ordering::Relaxed);
        let length: u64 = field(&head, "content-length").map_or(0, |it| it.parse().expect("a length"));
        while body < length {
            if manners.refuses_after.is_some_and(|it| body >= it) {
                let error = r#"{"type":"error","error":{"type":"request_too_large","message":"too large"}}"#;
                answer(&mut socket, "413 Too Large", error.as_bytes())?;
                // As servers do: what still comes is read for a moment, so that the answer arrives.
                socket.set_read_timeout(Some(Duration::from_millis(300)))?;
                while socket.read(&mut piece)? > 0 {}
                return Ok(());
            }
            let count = socket.read(&mut piece)? as u64;
            if count == 0 {
                return Ok(());
            }
            body += count;
            received.fetch_add(count, Ordering::Relaxed);
        }
        if head.starts_with("POST ") {
            answer(&mut socket, "200 OK", br#"{"id":"file_1","type":"file"}"#)?;
        } else {
            let bytes = manners.download_bytes;
            write!(socket, "HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n")?;
            piece.fill(b'd');
            let mut left = bytes;
            while left > 0 {
                let count = left.min(PIECE as u64);
                socket.write_all(&piece[..count as usize])?;
                left -= count;
            }
        }
    }
}

fn answer(socket: &mut TcpStream, status: &str, body: &[u8]) -> std::io::Result<()> {
    write!(
        socket,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )?;
    socket.write_all(body)
}

/// A head, and how much of its body came along.
fn head(socket: &mut TcpStream, piece: &mut [u8]) -> std::io::Result<(String, u64)> {
    let mut text = Vec::new();
    loop {
        if let Some(at) = text.windows(4).position(|it| it == b"\r\n\r\n") {
            let body = (text.len() - at - 4) as u64;
            return Ok((String::from_utf8_lossy(&text[..at]).into_owned(), body));
        }
        let count = socket.read(piece)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(&piece[..count]);
    }
}

const FIELDS: [(&str, &str); 2] = [("anthropic-version", "2023-06-01"), ("x-api-key", KEY)];

fn upload(address: SocketAddr, bytes: u64) -> u16 {
    let mut client = Client::connect(address);
    client.send(format!(
        "POST /v1/files HTTP/1.1\r\nhost: h\r\nanthropic-version: 2023-06-01\r\nx-api-key: {KEY}\r\n\
         content-type: multipart/form-data; boundary=X\r\ncontent-length: {bytes}\r\n\r\n"
    ));
    let piece = vec![b'u'; PIECE];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(PIECE as u64);
        if !client.try_send(&piece[..count as usize]) {
            break;
        }
        left -= count;
    }
    client.reply().status
}

/// How many bytes a download has, and how many of them are not what was sent.
fn download(address: SocketAddr) -> (u64, u64) {
    let mut socket = TcpStream::connect(address).expect("the gateway listens");
    socket.write_all(&request("GET /v1/files/file_1/content", &FIELDS, "")).expect("sent");
    let mut piece = vec![0; PIECE];
    let (head, _) = head(&mut socket, &mut piece[..1]).expect("a head");
    let length: u64 = field(&head, "content-length").expect("a length").parse().expect("a number");
    let (mut received, mut wrong) = (0, 0);
    while received < length {
        let count = socket.read(&mut piece).expect("no cut");
        assert!(count > 0, "cut at {received} of {length}");
        wrong += piece[..count].iter().filter(|it| **it != b'd').count() as u64;
        received += count as u64;
    }
    (received, wrong)
}

/// One test at a time measures the process.
struct Alone;

static MEASURING: AtomicBool = AtomicBool::new(false);

impl Alone {
    fn wait() -> Alone {
        while MEASURING.swap(true, Ordering::SeqCst) {
            pause_ms(5);
        }
        Alone
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        MEASURING.store(false, Ordering::SeqCst);
    }
}

/// Memory of this process that is its own, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process");
    let line = status.lines().find_map(|it| it.strip_prefix("RssAnon:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// The highest of what `resident` says while `run` runs.
fn peak<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let (over, highest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watch = std::thread::spawn({
        let (over, highest) = (over.clone(), highest.clone());
        move || {
            while !over.load(Ordering::SeqCst) {
                highest.fetch_max(resident(), Ordering::SeqCst);
                pause_ms(2);
            }
        }
    });
    let outcome = run();
    over.store(true, Ordering::SeqCst);
    watch.join().expect("no panic");
    (outcome, highest.load(Ordering::SeqCst))
}

both_drivers! {
    fn many_large_files_at_once_are_not_held(driver) {
        let _alone = Alone::wait();
        let (count, mib) = extent();
        let bytes = mib as u64 * 1024 * 1024;
        let sink = Sink::start(Manners { download_bytes: bytes, refuses_after: None });
        let gateway = Gateway::start(driver, 2, &yaml(sink.address));
        let address = gateway.address();
        assert_eq!(upload(address, 100), 200, "warm, and the file is this caller's");
        let before = resident();
        let began = now();
        let (statuses, peak_up) = peak(|| {
            let callers: Vec<_> = (0..count).map(|_| small_thread(move || upload(address, bytes))).collect();
            callers.into_iter().map(|it| it.join().expect("no panic")).collect::<Vec<u16>>()
        });
        assert_eq!(statuses, vec![200; count]);
        assert!(sink.received.load(Ordering::Relaxed) >= count as u64 * bytes, "all of it arrived");
        let (downloads, peak_down) = peak(|| {
            let callers: Vec<_> = (0..count).map(|_| small_thread(move || download(address))).collect();
            callers.into_iter().map(|it| it.join().expect("no panic")).collect::<Vec<_>>()
        });
        assert_eq!(downloads, vec![(bytes, 0); count]);
        let grown = peak_up.max(peak_down).saturating_sub(before);
        // The driver's buffers are there once, whatever is moved.
        let rings = gateway.plane().options().workers * limits::RECV_BUFFER_BYTES * usize::from(limits::RECV_BUFFERS);
        let allowed = count as u64 * BYTES_PER_TRANSFER_MAX + rings as u64 + 16 * 1024 * 1024;
        assert!(grown <= allowed, "grown by {grown} bytes, {allowed} allowed");
        assert!(peak_up.max(peak_down) <= gateway.plane().memory_bound_bytes(), "below the bound that is printed");
        let measured = format!("{count} x {mib} MiB up and down: grown by {} KiB, {:?}\n", grown / 1024, began.elapsed());
        std::io::stderr().write_all(measured.as_bytes()).expect("told");
    }

    /// The provider's answer counts although it comes before the request was sent whole.
    fn an_early_refusal_is_passed_on(driver) {
        let sink = Sink::start(Manners { download_bytes: 0, refuses_after: Some(2_000_000) });
        let gateway = Gateway::start(driver, 1, &yaml(sink.address));
        assert_eq!(upload(gateway.address(), 8_000_000), 413);
        assert!(sink.received.load(Ordering::Relaxed) < 8_000_000);
        let lost = call(gateway.address(), request("GET /v1/files/file_1", &FIELDS, ""));
        assert_eq!(lost.status, 404, "nothing was made");
    }
}
