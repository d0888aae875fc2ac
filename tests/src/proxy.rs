//! A proxy that makes tunnels (`CONNECT`), or refuses to as a test says, and notes who asked for what. It knows every
//! name: whatever is asked for, the tunnel leads to the port on this host.

#![expect(clippy::disallowed_types, reason = "a test's journal, written by a thread for each connection")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::client::field;

/// A running proxy; its threads end with the test's process.
pub struct ConnectProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// One that makes every tunnel.
    pub fn open() -> ConnectProxy {
        ConnectProxy::start(|_| None)
    }

    /// One that asks for these credentials, the value of `proxy-authorization`.
    pub fn guarded(credentials: &'static str) -> ConnectProxy {
        ConnectProxy::start(move |head| {
            let good = field(head, "proxy-authorization") == Some(credentials);
            let refusal = "HTTP/1.1 407 Who\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n";
            (!good).then(|| refusal.to_owned())
        })
    }

    /// One that answers everybody with these bytes and leaves.
    pub fn answering(bytes: &'static str) -> ConnectProxy {
        ConnectProxy::start(move |_| Some(bytes.to_owned()))
    }

    fn start(refuse: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> ConnectProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (journal, refuse) = (asked.clone(), Arc::new(refuse));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (journal, refuse) = (journal.clone(), refuse.clone());
                std::thread::spawn(move || serve(socket, &journal, &*refuse));
            }
        });
        ConnectProxy { address, asked }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The heads of all that was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic while noting").clone()
    }
}

fn serve(mut near: TcpStream, journal: &Mutex<Vec<String>>, refuse: &dyn Fn(&str) -> Option<String>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match near.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).trim_end().to_owned();
    journal.lock().expect("no panic while noting").push(head.clone());
    if let Some(refusal) = refuse(&head) {
        let _ = near.write_all(refusal.as_bytes());
        let _ = near.shutdown(Shutdown::Write);
        while matches!(near.read(&mut [0; 1024]), Ok(1..)) {}
        return;
    }
    let target = head.split(' ').nth(1).unwrap_or_default();
    let port: u16 = target.rsplit(':').next().and_then(|it| it.parse().ok()).expect("a target with a port");
    let mut far = TcpStream::connect(("127.0.0.1", port)).expect("the upstream listens");
    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").expect("the gateway waits");
    let (mut near_back, mut far_back) = (near.try_clone().expect("a copy"), far.try_clone().expect("a copy"));
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut far_back, &mut near_back);
        let _ = near_back.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut near, &mut far);
    let _ = far.shutdown(Shutdown::Write);
    let _ = back.join();
}
