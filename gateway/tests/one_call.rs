//! One call through real workers on both drivers, against an upstream of a few lines: what goes out, what comes
//! back, and where a call moves when the first account refuses.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tidegate_core::snapshot::{
    AccountDraft, ClassDraft, Draft, KeyDraft, OriginDraft, ProviderDraft, QuotaLimits, Reach, Timeouts,
};
use tidegate_core::{Secret, Snapshot};
use tidegate_gateway::{IoChoice, Launch, Launched, launch, now};

const BODY: &str =
    r#"{"model":"claude-sonnet-5-5","max_tokens":8,"messages":[{"role":"user","content":"Hi"}]}"#;

fn reply(head: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn whole() -> String {
    let body = r#"{"type":"message","usage":{"input_tokens":3,"output_tokens":2}}"#;
    reply("200 OK\r\nrequest-id: req_1\r\nset-cookie: a=b", body)
}

fn limited() -> String {
    let body = r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}"#;
    reply("429 Too Many Requests\r\nretry-after: 7", body)
}

/// Answers each request with the next of `replies`, and hands on what it received.
fn upstream(replies: Vec<String>) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (sender, receiver) = sync_channel(16);
    std::thread::spawn(move || {
        let mut replies = replies.into_iter();
        while let Ok((stream, _)) = listener.accept() {
            if answer(stream, &mut replies, &sender).is_none() {
                return;
            }
        }
    });
    (address, receiver)
}

fn answer(
    mut stream: TcpStream,
    replies: &mut impl Iterator<Item = String>,
    received: &SyncSender<String>,
) -> Option<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            return Some(());
        }
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text.contains("\r\n\r\n") && text.ends_with('}') {
            received.send(text).ok()?;
            bytes.clear();
            stream.write_all(replies.next()?.as_bytes()).ok()?;
        }
    }
}

fn account(name: &str) -> AccountDraft {
    let key = KeyDraft { name: name.into(), weight: 1.0, secret: Secret::new(format!("key-of-{name}")) };
    AccountDraft {
        name: name.into(),
        keys: vec![key],
        limits: vec![QuotaLimits::default()],
        shared_quota: None,
    }
}

fn gateway(io: IoChoice, upstream: SocketAddr, accounts: &[&str]) -> Launched {
    let timeouts = Timeouts {
        connect: Duration::from_secs(2),
        first_byte: Duration::from_secs(5),
        first_byte_whole: Duration::from_secs(5),
        idle: Duration::from_secs(5),
        total: None,
    };
    let origin = OriginDraft {
        tls: false,
        host: upstream.ip().to_string(),
        port: upstream.port(),
        base_path: String::new(),
        ca_pem: None,
        reach: Reach::Literal,
        proxy: None,
    };
    let provider = ProviderDraft {
        name: "main".into(),
        dialect: tidegate_providers::by_kind("anthropic").expect("a dialect").id,
        origin,
        classes: vec![ClassDraft { name: "other".into(), patterns: vec!["*".into()] }],
        accounts: accounts.iter().map(|it| account(it)).collect(),
        state_account: None,
        passthrough: false,
        timeouts,
    };
    let draft = Draft { providers: vec![provider], ..Draft::default() };
    let snapshot = Snapshot::build(draft, None, now());
    snapshot.providers[0].origin.addresses.publish(vec![upstream]);
    let listen = "127.0.0.1:0".parse().expect("an address");
    let what = Launch { io, workers: Some(1), listen, slots: None, danger_panic_mark: Some("MARK-OF-PANIC") };
    launch(&what, Arc::new(snapshot), Vec::new()).expect("a gateway")
}

fn call(address: SocketAddr, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let head = format!(
        "POST /v1/messages?beta=true HTTP/1.1\r\nHost: gateway\r\nx-api-key: mine\r\nanthropic-version: 2023-06-01\r\n\
         anthropic-beta: b-1\r\nX-Secret: no\r\ncontent-type: application/json\r\nConnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body.as_bytes()).expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    reply
}

fn on_both_drivers(test: impl Fn(IoChoice)) {
    test(IoChoice::Epoll);
    if tidegate_ring::select(IoChoice::IoUring).is_ok() {
        test(IoChoice::IoUring);
    }
}

fn end(gateway: Launched) {
    gateway.plane.cut();
    gateway.join().expect("workers end");
}

#[test]
fn a_whole_reply_comes_back_and_only_listed_fields_travel() {
    on_both_drivers(|io| {
        let (address, received) = upstream(vec![whole()]);
        let gateway = gateway(io, address, &["a"]);
        let reply = call(gateway.listen, BODY);
        let request = received.recv_timeout(Duration::from_secs(5)).expect("a request");
        assert!(request.starts_with("POST /v1/messages?beta=true HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with(BODY), "{request}");
        assert!(request.contains("x-api-key: key-of-a\r\n"), "{request}");
        assert!(request.contains("anthropic-beta: b-1\r\n"), "{request}");
        assert!(!request.contains("mine") && !request.to_lowercase().contains("x-secret"), "{request}");
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
        assert!(
            reply.contains("request-id: req_1\r\n") && reply.contains("x-tidegate-attempts: 1\r\n"),
            "{reply}"
        );
        assert!(!reply.contains("set-cookie"), "{reply}");
        assert!(reply.ends_with("\"output_tokens\":2}}"), "{reply}");
        end(gateway);
    });
}

#[test]
fn a_limited_account_is_left_for_another_unseen() {
    on_both_drivers(|io| {
        let (address, _received) = upstream(vec![limited(), whole()]);
        let gateway = gateway(io, address, &["a", "b"]);
        let reply = call(gateway.listen, BODY);
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
        assert!(reply.contains("x-tidegate-attempts: 2\r\n"), "{reply}");
        end(gateway);
    });
}

#[test]
fn with_every_account_resting_the_caller_learns_the_true_time() {
    on_both_drivers(|io| {
        let (address, _received) = upstream(vec![limited()]);
        let gateway = gateway(io, address, &["a"]);
        let reply = call(gateway.listen, BODY);
        assert!(reply.starts_with("HTTP/1.1 429 "), "{reply}");
        assert!(reply.contains("retry-after: 7\r\n"), "{reply}");
        end(gateway);
    });
}

#[test]
fn a_panic_ends_its_own_request_only() {
    on_both_drivers(|io| {
        let (address, _received) = upstream(vec![whole()]);
        let gateway = gateway(io, address, &["a"]);
        assert_eq!(call(gateway.listen, &BODY.replace("Hi", "MARK-OF-PANIC")), "");
        assert!(call(gateway.listen, BODY).starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(gateway.plane.panics(), 1);
        assert_eq!(gateway.plane.body_bytes(), 0, "the body memory came home");
        end(gateway);
    });
}
