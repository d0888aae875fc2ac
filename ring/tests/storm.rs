//! Thousands of connections dropped at random moments while their peers write. In a binary of its own,
//! since it counts the descriptors of the process.

mod support;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::*;
use tidegate_ring::{Conn, Either, Listener, RingOptions, counts, race, random_u64, spawn, yield_now};

const CONNECTIONS: usize = 4_000;
const AT_ONCE: usize = 200;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("a list").count()
}

/// Writes its number for ever, on one connection after the other.
fn writer(addr: std::net::SocketAddr, stop: &AtomicBool) {
    let mut number = 0_u8;
    while !stop.load(Ordering::SeqCst) {
        number = number.wrapping_add(1);
        let Ok(mut stream) = TcpStream::connect(addr) else { continue };
        stream.set_write_timeout(Some(std::time::Duration::from_millis(200))).expect("a timeout");
        // It may be that the reader waits for more than there is.
        stream.set_read_timeout(Some(std::time::Duration::from_millis(5))).expect("a timeout");
        for _ in 0..usize::from(number) {
            if stream.write_all(&[number; 1_500]).is_err() {
                break;
            }
        }
        drop(stream.read(&mut [0; 16]));
    }
}

/// Reads for a while, in one of several ways, and is then dropped where it stands.
async fn reader(conn: Conn) {
    let mut number = None;
    for _ in 0..random_u64() % 12 {
        let chunk = match random_u64() % 4 {
            0 => match race(conn.recv(), yield_now()).await {
                Either::Left(chunk) => chunk,
                Either::Right(()) => continue,
            },
            1 => {
                let _ = race(conn.closed(), sleep_ms(1)).await;
                continue;
            }
            _ => conn.recv().await,
        };
        let Ok(chunk) = chunk else { return };
        if chunk.is_empty() {
            return;
        }
        let expected = *number.get_or_insert(chunk[0]);
        assert!(chunk.iter().all(|byte| *byte == expected), "a byte of another connection");
        if random_u64().is_multiple_of(8) {
            sleep_ms(random_u64() % 3).await;
        }
    }
    if random_u64().is_multiple_of(4) {
        conn.abort();
    }
}

#[test]
fn dropped_connections_leave_no_descriptor_no_buffer_and_no_foreign_byte() {
    // What a process opens once and keeps (the runtime's signal pair, where another crate of the build asks for it)
    // is open before the count, so that the count sees only what connections and workers leave behind.
    on_each_with(OPTIONS, async |_| {});
    let before = descriptors();
    on_each_with(RingOptions { recv_buffers: 64, ..OPTIONS }, async |driver| {
        let listener = Listener::bind(loopback()).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || writer(addr, &stop))
            })
            .collect();
        let (open, dropped) = (Rc::new(Cell::new(0_usize)), Rc::new(Cell::new(0_usize)));
        for _ in 0..CONNECTIONS {
            let conn = listener.accept().await.expect("accepts");
            open.set(open.get() + 1);
            let (open_after, dropped_after) = (Rc::clone(&open), Rc::clone(&dropped));
            let task = spawn(async move {
                reader(conn).await;
                open_after.set(open_after.get() - 1);
                dropped_after.set(dropped_after.get() + 1);
            });
            if random_u64().is_multiple_of(3) {
                // Cancelled from outside, at any await.
                let open = Rc::clone(&open);
                spawn(async move {
                    sleep_ms(random_u64() % 4).await;
                    if !task.is_finished() {
                        open.set(open.get() - 1);
                    }
                    drop(task);
                })
                .detach();
            } else {
                task.detach();
            }
            while open.get() >= AT_ONCE {
                sleep_ms(1).await;
            }
        }
        stop.store(true, Ordering::SeqCst);
        drop(listener);
        until("the readers end", || open.get() == 0).await;
        until("buffers come home", || counts().buffers_lent == 0).await;
        assert_eq!(tidegate_ring::panics(), 0, "{driver}");
        assert!(dropped.get() > CONNECTIONS / 3);
        // The peers' threads end when their connection does, so this also shows that each was closed.
        until("the writers end", || writers.iter().all(std::thread::JoinHandle::is_finished)).await;
    });
    // The kernel takes a closed ring apart by itself, a moment after its descriptor was closed.
    let until_ns = tidegate_ring::fresh_now_ns() + 5_000_000_000;
    while descriptors() > before && tidegate_ring::fresh_now_ns() < until_ns {
        std::thread::yield_now();
    }
    let after = descriptors();
    assert!(after <= before, "{before} descriptors before, {after} after");
}
