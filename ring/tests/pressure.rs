//! Too many connections for too few buffers, on both real arms: everybody is served, nobody holds more than
//! is due to it, and everything comes home.

mod support;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::*;
use tidegate_ring::fault::{self, Script};
use tidegate_ring::{Conn, Driver, Listener, RingOptions, counts, fresh_now_ns, run, spawn};

#[test]
fn two_hundred_senders_and_sixteen_buffers() {
    const SENDERS: usize = 200;
    const ROUNDS: usize = 5;
    let options = RingOptions { recv_buffers: 16, ..OPTIONS };
    on_each_with(options, async |driver| {
        let listener = Listener::bind(loopback()).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let senders = std::thread::spawn(move || {
            let mut streams: Vec<TcpStream> =
                (0..SENDERS).map(|_| TcpStream::connect(addr).expect("connects")).collect();
            for round in 0..ROUNDS {
                for (n, stream) in streams.iter_mut().enumerate() {
                    stream.write_all(&pattern((n * ROUNDS + round) as u64, 3_000)).expect("writes");
                }
                for (n, stream) in streams.iter_mut().enumerate() {
                    let mut reply = vec![0; 3_000];
                    stream.read_exact(&mut reply).expect("answered");
                    assert!(reply == pattern((n * ROUNDS + round) as u64, 3_000), "a foreign byte");
                }
            }
        });
        // A worker that is busy now and then, so that many connections have bytes waiting when it looks.
        let busy = spawn(async {
            loop {
                sleep_ms(2).await;
                let until_ns = fresh_now_ns() + 5 * MS;
                while fresh_now_ns() < until_ns {}
            }
        });
        let mut tasks = Vec::new();
        for _ in 0..SENDERS {
            let conn = listener.accept().await.expect("accepts");
            tasks.push(spawn(async move {
                loop {
                    let chunk = conn.recv().await.expect("receives");
                    if chunk.is_empty() {
                        return;
                    }
                    // Held, as by a reader that waits for something else.
                    sleep_ms(20).await;
                    conn.send(&[&chunk]).await.expect("sends");
                }
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        drop(busy);
        senders.join().expect("all were answered");
        let counts = counts();
        assert_eq!(counts.buffers_lent, 0, "{driver}");
        if driver == Driver::IoUring {
            assert!(counts.recv_starved > 0, "the ring never ran dry: {counts:?}");
            // Arming all of them on each free buffer gave thousands.
            assert!(counts.recv_starved < (SENDERS * ROUNDS * 3) as u64, "{counts:?}");
        }
    });
}

#[test]
fn slow_readers_hold_at_most_their_credit_and_starve_nobody() {
    const SLOW: usize = 60;
    const BYTES: usize = 60_000;
    // Sixty times the credit is far more than there are buffers.
    let options = RingOptions { recv_buffers: 64, ..OPTIONS };
    on_each_with(options, async |driver| {
        let listener = Listener::bind(loopback()).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let written = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&written);
        let peers = std::thread::spawn(move || {
            let mut streams: Vec<TcpStream> =
                (0..SLOW).map(|_| TcpStream::connect(addr).expect("connects")).collect();
            for (n, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&[n as u8]).expect("writes");
                for part in pattern(n as u64, BYTES).chunks(500) {
                    stream.write_all(part).expect("the kernel's buffers take it");
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
            streams
        });
        // Each reads one chunk, holds it, and then does something else for long.
        let mut slow = Vec::new();
        for _ in 0..SLOW {
            let conn = listener.accept().await.expect("accepts");
            let first = conn.recv().await.expect("receives");
            slow.push((conn, first));
        }
        until("all is written", || written.load(Ordering::SeqCst) == SLOW).await;
        sleep_ms(50).await;
        let lent = counts().buffers_lent;
        if driver == Driver::IoUring {
            assert!(lent <= 64 - 64 / 4, "{lent} buffers lent: the reserve is gone");
            assert!(counts().recv_paused >= SLOW as u64 / 2, "{:?}", counts());
        } else {
            assert_eq!(lent, SLOW, "a buffer for each chunk that is held");
        }
        // A quick one beside them is served at once.
        let quick = Conn::connect(echo_peer()).await.expect("connects");
        let start_ns = fresh_now_ns();
        for round in 0..50 {
            let message = pattern(round, 3_500);
            quick.send(&[&message]).await.expect("sends");
            let mut got = 0;
            while got < message.len() {
                let chunk = quick.recv().await.expect("receives");
                assert_eq!(*chunk, message[got..got + chunk.len()]);
                got += chunk.len();
            }
        }
        assert!(fresh_now_ns() - start_ns < 5_000 * MS, "{driver}: starved by slow readers");
        for (conn, first) in slow {
            let mut all = first.to_vec();
            drop(first);
            while all.len() < BYTES + 1 {
                let chunk = conn.recv().await.expect("receives");
                assert!(!chunk.is_empty(), "ended early");
                all.extend_from_slice(&chunk);
            }
            assert!(all[1..] == pattern(u64::from(all[0]), BYTES), "a byte lost, doubled or foreign");
        }
        drop(peers.join().expect("no panic"));
        assert_eq!(counts().buffers_lent, 0);
    });
}

#[test]
fn one_slow_reader_holds_its_credit_and_no_more() {
    on_each(async |driver| {
        let addr = peer(|mut stream| {
            for part in pattern(1, 30_000).chunks(100) {
                stream.write_all(part).expect("the kernel's buffers take it");
            }
            pause(1_000);
        });
        let conn = Conn::connect(addr).await.expect("connects");
        let held = conn.recv().await.expect("receives");
        // Busy for a while, so that much is there at once when the worker looks.
        let until_ns = fresh_now_ns() + 50 * MS;
        while fresh_now_ns() < until_ns {}
        for _ in 0..100 {
            sleep_ms(1).await;
            let most = if driver == Driver::IoUring { usize::from(OPTIONS.lent_chunks_max) } else { 1 };
            assert!(counts().buffers_lent <= most, "{driver}: {:?}", counts());
        }
        drop(held);
    });
}

#[test]
fn a_worker_that_ends_with_armed_connections_leaves_nothing_behind() {
    // More than the kernel hands back in fifty calls.
    const ARMED: usize = 1_500;
    raise_descriptor_limit();
    for driver in drivers() {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let peers = std::thread::spawn(move || {
            let addr = told.recv().expect("an address");
            let mut streams: Vec<TcpStream> =
                (0..ARMED).map(|_| TcpStream::connect(addr).expect("connects")).collect();
            for stream in &mut streams {
                stream.write_all(b"!").expect("writes");
            }
            for mut stream in streams {
                let ended = stream.read(&mut [0; 8]);
                assert!(matches!(ended, Ok(0)), "{driver}: {ended:?}");
            }
        });
        let started_ns = fresh_now_ns();
        run(driver, &OPTIONS, || async move {
            let listener = Listener::bind(loopback()).expect("a port");
            tell.send(listener.local_addr().expect("an address")).expect("the peers wait");
            let taken = Rc::new(Cell::new(0));
            for n in 0..ARMED {
                let conn = Rc::new(listener.accept().await.expect("accepts"));
                let (other, taken) = (Rc::clone(&conn), Rc::clone(&taken));
                spawn(async move {
                    loop {
                        let bytes = conn.recv().await.expect("receives").len();
                        taken.set(taken.get() + bytes);
                    }
                })
                .detach();
                if n % 2 == 0 {
                    spawn(async move { other.closed().await }).detach();
                }
            }
            // One that waits to send, and a listener that waits to accept.
            let full = Conn::connect(listener.local_addr().expect("an address")).await.expect("connects");
            spawn(async move { drop(full.send(&[&vec![0; 32 << 20]]).await) }).detach();
            spawn(async move { drop(listener.accept().await) }).detach();
            // The peers have to see an end and no reset, so their byte must have been read.
            until("every byte was taken", || taken.get() == ARMED).await;
        })
        .expect("runs");
        assert!(fresh_now_ns() - started_ns < 20_000 * MS, "{driver}: slow to end");
        peers.join().expect("every peer saw the end");
    }
}

/// What a peer can get rid of is what the kernel keeps for it and the credit, however fast it is: neither data that is
/// always there nor buffers that run out may keep a receive alive that nobody reads from.
#[test]
fn a_peer_that_pours_is_stopped_by_a_reader_that_stands_still() {
    const POURERS: usize = 16;
    // Far more than the kernel keeps for a connection, at either end.
    const MOST_BYTES: usize = POURERS * (32 << 20);
    // Few buffers run dry all the time, many never.
    for (recv_buffers, receives_once) in [(16, false), (4096, false), (16, true), (4096, true)] {
        on_each_with(RingOptions { recv_buffers, ..OPTIONS }, |driver| async move {
            fault::install(Script { receives_once, ..Script::default() });
            let poured = Arc::new(AtomicUsize::new(0));
            let mut held = Vec::new();
            for _ in 0..POURERS {
                let count = Arc::clone(&poured);
                let addr = peer(move |mut stream| {
                    let piece = vec![b'p'; 64 << 10];
                    while stream.write_all(&piece).is_ok() {
                        count.fetch_add(piece.len(), Ordering::SeqCst);
                    }
                });
                let conn = Conn::connect(addr).await.expect("connects");
                let first = conn.recv().await.expect("receives");
                held.push((conn, first));
            }
            let (mut last, mut still) = (0, 0);
            while still < 10 {
                sleep_ms(20).await;
                let now = poured.load(Ordering::SeqCst);
                assert!(now < MOST_BYTES, "{driver}: {now} bytes were taken and not read: {:?}", counts());
                still = if now == last { still + 1 } else { 0 };
                last = now;
            }
            // Two passes of a receive at most: what was begun before the last chunk was held, and what came with it.
            let copied_max = (2 * POURERS * usize::from(OPTIONS.lent_chunks_max)) as u64;
            assert!(counts().recv_copied <= copied_max, "{driver}: {:?}", counts());
            drop(held);
            fault::clear();
        });
    }
}
