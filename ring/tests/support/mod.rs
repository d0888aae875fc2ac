//! What the tests of both real arms share: running one piece of async code on each, and peers that are
//! plain threads, so that the other end of a connection is never the code under test.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tidegate_ring::{Driver, IoChoice, RingOptions, deadline, now_ns, run, select};

pub const OPTIONS: RingOptions =
    RingOptions { recv_buffer_bytes: 4096, recv_buffers: 256, lent_chunks_max: 4, entries: 256 };
pub const MS: u64 = 1_000_000;
/// A test that takes longer than this hangs.
const PATIENCE_NS: u64 = 60_000 * MS;

/// The arms that this host has: always epoll; io_uring unless it is forbidden here.
pub fn drivers() -> Vec<Driver> {
    let mut drivers = vec![Driver::Epoll];
    drivers.extend(select(IoChoice::IoUring).ok().map(|selection| selection.driver));
    drivers
}

/// Runs `test` on a worker of each arm.
pub fn on_each<F: Future<Output = ()> + 'static>(test: impl Fn(Driver) -> F) {
    on_each_with(OPTIONS, test);
}

pub fn on_each_with<F: Future<Output = ()> + 'static>(options: RingOptions, test: impl Fn(Driver) -> F) {
    for driver in drivers() {
        let outcome = run(driver, &options, || deadline(now_ns() + PATIENCE_NS, test(driver)));
        assert!(matches!(outcome, Ok(Ok(()))), "{driver}: {outcome:?}");
    }
}

/// Lets this process have as many descriptors as it may: the usual limit is less than what a test here needs.
pub fn raise_descriptor_limit() {
    let held = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = rustix::process::Rlimit { current: held.maximum, maximum: held.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, wanted)
        .expect("what is allowed is granted");
}

pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A peer that listens, gives its first connection to `serve` on a thread of its own, and says where it is.
pub fn peer(serve: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(loopback()).expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || serve(listener.accept().expect("a connection").0));
    addr
}

/// A peer that sends everything back, on any number of connections.
pub fn echo_peer() -> SocketAddr {
    let listener = TcpListener::bind(loopback()).expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 16 * 1024];
                while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..bytes]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

#[expect(clippy::disallowed_methods, reason = "a peer thread, not a worker")]
pub fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Bytes that tell their place, so that a lost, doubled or foreign one shows.
pub fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| ((at ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// Waits for `condition`, giving way in between.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline_ns = now_ns() + 20_000 * MS;
    while !condition() {
        assert!(now_ns() < deadline_ns, "waited in vain: {what}");
        tidegate_ring::sleep_until(now_ns() + MS).await;
    }
}

pub async fn sleep_ms(ms: u64) {
    tidegate_ring::sleep_until(now_ns() + ms * MS).await;
}
