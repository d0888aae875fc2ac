//! Connections on both real arms: bytes in order and whole, ends noticed, sockets handed over.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::sync_channel;

use support::*;
use tidegate_ring::{Conn, Either, Listener, Task, now_ns, race, run, sleep_until, spawn, yield_now};

/// Sends everything back until the peer has finished.
async fn echo(conn: Conn) {
    loop {
        let chunk = conn.recv().await.expect("receives");
        if chunk.is_empty() {
            conn.shutdown_write();
            return;
        }
        conn.send(&[&chunk]).await.expect("sends");
    }
}

async fn pump(from: Rc<Conn>, to: Rc<Conn>) {
    loop {
        let chunk = from.recv().await.expect("receives");
        if chunk.is_empty() {
            to.shutdown_write();
            return;
        }
        to.send(&[&chunk]).await.expect("sends");
    }
}

async fn serve(listener: Listener, serve: impl Fn(Conn) -> Task) {
    loop {
        serve(listener.accept().await.expect("accepts")).detach();
    }
}

async fn exchange(conn: &Conn, seed: u64, bytes: usize) {
    let message = pattern(seed, bytes);
    let (head, body) = message.split_at(bytes / 3);
    conn.send(&[head, &[], body]).await.expect("sends");
    let mut got = 0;
    while got < bytes {
        let chunk = conn.recv().await.expect("receives");
        assert!(!chunk.is_empty(), "ended early");
        assert_eq!(*chunk, message[got..got + chunk.len()], "a byte lost, doubled or foreign");
        got += chunk.len();
    }
}

#[test]
fn a_relay_between_client_and_server_keeps_every_byte() {
    on_each(async |_| {
        let server = Listener::bind(loopback()).expect("a port");
        let upstream = server.local_addr().expect("an address");
        spawn(serve(server, |conn| spawn(echo(conn)))).detach();
        let relay = Listener::bind(loopback()).expect("a port");
        let addr = relay.local_addr().expect("an address");
        spawn(serve(relay, move |client| {
            spawn(async move {
                let client = Rc::new(client);
                let upstream = Rc::new(Conn::connect(upstream).await.expect("connects"));
                let back = spawn(pump(Rc::clone(&upstream), Rc::clone(&client)));
                pump(client, upstream).await;
                back.await.expect("no panic");
            })
        }))
        .detach();
        let clients: Vec<Task> = (0..32_u64)
            .map(|client| {
                spawn(async move {
                    let conn = Conn::connect(addr).await.expect("connects");
                    for round in 0..20 {
                        exchange(&conn, client << 32 | round, (client * round * 37 % 9_000 + 1) as usize)
                            .await;
                        assert!(conn.is_quiet());
                    }
                    conn.shutdown_write();
                    assert!(conn.recv().await.expect("receives").is_empty());
                    assert!(conn.recv().await.expect("receives").is_empty(), "the end stays");
                })
            })
            .collect();
        for client in clients {
            client.await.expect("no panic");
        }
        until("buffers come home", || tidegate_ring::counts().buffers_lent == 0).await;
        assert_eq!(tidegate_ring::panics(), 0);
    });
}

#[test]
fn ten_megabytes_to_a_slow_reader_while_bytes_come_the_other_way() {
    const OUT: usize = 10 << 20;
    const IN: usize = 2 << 20;
    on_each(async |_| {
        let (done, outcome) = sync_channel(1);
        let addr = peer(move |mut stream| {
            let mut writing = stream.try_clone().expect("a descriptor");
            let writer = std::thread::spawn(move || writing.write_all(&pattern(2, IN)).is_ok());
            let mut all = Vec::new();
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                all.extend_from_slice(&buffer[..bytes]);
                pause(3);
            }
            let whole = writer.join().is_ok_and(|written| written) && all == pattern(1, OUT);
            done.send(whole).expect("the test waits");
        });
        let conn = Rc::new(Conn::connect(addr).await.expect("connects"));
        let reader = Rc::clone(&conn);
        let receiving = spawn(async move {
            let (mut got, expected) = (0, pattern(2, IN));
            while got < IN {
                let chunk = reader.recv().await.expect("receives");
                assert_eq!(*chunk, expected[got..got + chunk.len()]);
                got += chunk.len();
            }
        });
        let message = pattern(1, OUT);
        conn.send(&[&message[..1], &message[1..OUT / 2], &message[OUT / 2..]]).await.expect("sends");
        conn.shutdown_write();
        receiving.await.expect("no panic");
        assert!(conn.recv().await.expect("the peer's end").is_empty());
        let mut whole = None;
        until("the peer's answer", || {
            whole = outcome.try_recv().ok();
            whole.is_some()
        })
        .await;
        assert_eq!(whole, Some(true), "the peer got every byte");
    });
}

#[test]
fn a_send_to_a_peer_that_resets_fails_instead_of_waiting_for_ever() {
    on_each(async |_| {
        let addr = peer(|stream| {
            pause(30);
            socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).expect("linger");
        });
        let conn = Conn::connect(addr).await.expect("connects");
        let error = conn.send(&[&vec![7; 64 << 20]]).await.expect_err("the peer is gone");
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    });
}

#[test]
fn closed_completes_when_the_peer_leaves_and_not_before() {
    for reset in [false, true] {
        on_each(move |driver| async move {
            let (go, gone) = sync_channel::<()>(1);
            let addr = peer(move |mut stream| {
                stream.write_all(b"bytes before the end").expect("writes");
                gone.recv().expect("the test goes on");
                if reset {
                    socket2::SockRef::from(&stream)
                        .set_linger(Some(std::time::Duration::ZERO))
                        .expect("linger");
                }
            });
            let conn = Conn::connect(addr).await.expect("connects");
            let early = race(conn.closed(), sleep_ms(60)).await;
            assert_eq!(early, Either::Right(()), "{driver}: data is no end");
            go.send(()).expect("the peer waits");
            conn.closed().await;
            conn.closed().await;
            assert!(!conn.is_quiet());
            if !reset {
                // A reset may throw unread bytes away: that is the kernel's, and differs with when it comes.
                assert_eq!(&*conn.recv().await.expect("buffered"), b"bytes before the end");
                assert!(conn.recv().await.expect("the end").is_empty());
            }
        });
    }
}

#[test]
fn closed_is_noticed_although_the_connection_has_used_all_its_credit() {
    // Little enough for the kernel's receive buffer: an end that is queued behind a closed window is nobody's to see.
    const SENT: usize = 40_000;
    for reads_first in [0, 1] {
        on_each(move |driver| async move {
            let (go, gone) = sync_channel::<()>(1);
            let addr = peer(move |mut stream| {
                stream.set_nonblocking(false).expect("blocking");
                for part in pattern(3, SENT).chunks(1_000) {
                    stream.write_all(part).expect("the kernel's buffers take it");
                }
                gone.recv().expect("the test goes on");
            });
            let conn = Conn::connect(addr).await.expect("connects");
            let mut held = Vec::new();
            for _ in 0..reads_first {
                held.push(conn.recv().await.expect("receives"));
            }
            assert_eq!(race(conn.closed(), sleep_ms(150)).await, Either::Right(()));
            let lent = tidegate_ring::counts().buffers_lent;
            assert!(lent <= 4 + reads_first, "{driver}: {lent} buffers for one connection");
            go.send(()).expect("the peer waits");
            conn.closed().await;
            let mut all: Vec<u8> = held.drain(..).flat_map(|chunk| chunk.to_vec()).collect();
            loop {
                let chunk = conn.recv().await.expect("buffered");
                if chunk.is_empty() {
                    break;
                }
                all.extend_from_slice(&chunk);
            }
            assert!(all == pattern(3, SENT), "{driver}: {} bytes of {SENT}", all.len());
        });
    }
}

#[test]
fn is_quiet_sees_a_stray_byte_and_an_end() {
    for stray in [&b""[..], b"?"] {
        on_each(move |driver| async move {
            let (go, gone) = sync_channel::<()>(1);
            let addr = peer(move |mut stream| {
                stream.write_all(b"reply").expect("writes");
                gone.recv().expect("the test goes on");
                stream.write_all(stray).expect("writes");
                pause(if stray.is_empty() { 0 } else { 2_000 });
            });
            let conn = Conn::connect(addr).await.expect("connects");
            assert_eq!(&*conn.recv().await.expect("receives"), b"reply");
            sleep_ms(20).await;
            assert!(conn.is_quiet(), "{driver}: idle");
            go.send(()).expect("the peer waits");
            until("it shows", || !conn.is_quiet()).await;
            assert!(!conn.is_quiet());
        });
    }
}

#[test]
fn abort_resets_and_a_plain_drop_does_not() {
    for abort in [false, true] {
        on_each(move |driver| async move {
            let (done, outcome) = sync_channel(1);
            let addr = peer(move |mut stream| {
                done.send(stream.read(&mut [0; 8]).map_err(|error| error.kind())).expect("the test waits");
            });
            let conn = Conn::connect(addr).await.expect("connects");
            assert_eq!(conn.peer_addr(), Some(addr));
            // A receive is armed, so the close has to wait for its cancel.
            assert_eq!(race(conn.closed(), yield_now()).await, Either::Right(()));
            if abort {
                conn.abort();
            }
            drop(conn);
            let mut seen = None;
            until("the peer's answer", || {
                seen = outcome.try_recv().ok();
                seen.is_some()
            })
            .await;
            let seen = seen.expect("it came");
            assert_eq!(seen, if abort { Err(ErrorKind::ConnectionReset) } else { Ok(0) }, "{driver}");
        });
    }
}

#[test]
fn connect_says_what_is_wrong_and_a_dropped_connect_leaves_nothing() {
    on_each(async |_| {
        let closed =
            TcpListener::bind(loopback()).and_then(|listener| listener.local_addr()).expect("a port");
        let error = Conn::connect(closed).await.err().expect("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        // A backlog of none, filled: the next connect waits.
        let full =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        full.bind(&loopback().into()).expect("a port");
        full.listen(0).expect("listens");
        let addr = full.local_addr().expect("an address").as_socket().expect("IPv4");
        let _first = TcpStream::connect(addr).expect("there is room for one");
        let waited = race(Conn::connect(addr), sleep_ms(100)).await;
        assert!(matches!(waited, Either::Right(())), "it should still wait");
    });
}

#[test]
fn a_dropped_accept_loses_no_connection() {
    const CLIENTS: usize = 200;
    on_each(async |_| {
        let listener = Listener::bind(loopback()).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let clients = std::thread::spawn(move || {
            let streams: Vec<TcpStream> =
                (0..CLIENTS).map(|_| TcpStream::connect(addr).expect("connects")).collect();
            for (n, mut stream) in streams.into_iter().enumerate() {
                stream.write_all(&[n as u8]).expect("writes");
            }
        });
        let mut seen = [false; CLIENTS];
        let mut conns = Vec::new();
        while conns.len() < CLIENTS {
            match race(listener.accept(), yield_now()).await {
                Either::Left(conn) => conns.push(conn.expect("accepts")),
                Either::Right(()) => sleep_until(now_ns() + 10_000).await,
            }
        }
        for conn in &conns {
            let chunk = conn.recv().await.expect("receives");
            assert!(!std::mem::replace(&mut seen[usize::from(chunk[0])], true));
        }
        clients.join().expect("no panic");
    });
}

/// What the kernel accepted ahead comes out of the stop; what comes later waits for whoever holds the socket.
#[test]
fn a_stopped_listener_loses_no_connection() {
    on_each(async |_| {
        let socket = TcpListener::bind(loopback()).expect("a port");
        let other = socket.try_clone().expect("a handle");
        let mode = socket.try_clone().expect("a handle");
        let addr = socket.local_addr().expect("an address");
        let listener = Listener::from_std(socket).expect("a listener");
        let mut callers: Vec<TcpStream> =
            (0..10).map(|_| TcpStream::connect(addr).expect("listens")).collect();
        let mut accepted = vec![listener.accept().await.expect("accepts")];
        accepted.extend(listener.stop().await);
        callers.extend((0..5).map(|_| TcpStream::connect(addr).expect("still listens")));
        sleep_ms(20).await;
        let mut peers: Vec<_> = accepted.iter().map(|it| it.peer_addr().expect("open")).collect();
        let rest = callers.len() - peers.len();
        assert!(rest >= 5, "nothing is accepted after the stop");
        let (sender, receiver) = sync_channel(rest);
        std::thread::spawn(move || {
            (0..rest).for_each(|_| sender.send(other.accept().expect("it waits").1).expect("the test waits"));
        });
        let waited = || receiver.recv_timeout(std::time::Duration::from_secs(5)).expect("all others wait");
        peers.extend((0..rest).map(|_| waited()));
        peers.sort_unstable();
        let mut expect: Vec<_> = callers.iter().map(|it| it.local_addr().expect("open")).collect();
        expect.sort_unstable();
        assert_eq!(peers, expect);
        // A holder on the other arm has left the socket as it needs it.
        for nonblocking in [true, false] {
            mode.set_nonblocking(nonblocking).expect("an option");
            listener.reclaim().expect("an option");
            let again = TcpStream::connect(addr).expect("listens");
            let conn = listener.accept().await.expect("begins anew");
            assert_eq!(conn.peer_addr(), again.local_addr().ok());
            assert!(listener.stop().await.is_empty());
        }
    });
}

#[test]
fn a_dropped_receive_loses_no_byte() {
    on_each(async |_| {
        const SENT: usize = 300_000;
        let addr = peer(|mut stream| {
            for part in pattern(4, SENT).chunks(700) {
                stream.write_all(part).expect("writes");
            }
        });
        let conn = Conn::connect(addr).await.expect("connects");
        let (mut got, expected) = (0, pattern(4, SENT));
        while got < SENT {
            if let Either::Left(chunk) = race(conn.recv(), yield_now()).await {
                let chunk = chunk.expect("receives");
                assert_eq!(*chunk, expected[got..got + chunk.len()]);
                got += chunk.len();
            }
        }
    });
}

#[test]
fn an_accepted_connection_moves_to_another_worker() {
    for from in drivers() {
        for to in drivers() {
            let (hand_over, taken) = sync_channel(1);
            let (tell, told) = sync_channel(1);
            let first = std::thread::spawn(move || {
                run(from, &OPTIONS, || async move {
                    let listener = Listener::bind(loopback()).expect("a port");
                    tell.send(listener.local_addr().expect("an address")).expect("the test waits");
                    let conn = listener.accept().await.expect("accepts");
                    hand_over.send(conn.release().expect("fresh")).expect("the test waits");
                    let used = listener.accept().await.expect("accepts");
                    assert_eq!(&*used.recv().await.expect("receives"), b"x");
                    if from != tidegate_ring::Driver::Epoll {
                        assert_eq!(used.release().expect_err("read from").kind(), ErrorKind::Unsupported);
                    }
                })
            });
            let addr = told.recv().expect("an address");
            let (told_pause, paused) = sync_channel(1);
            let client = std::thread::spawn(move || {
                let mut stream = TcpStream::connect(addr).expect("connects");
                stream.write_all(b"hello").expect("writes");
                let mut reply = [0; 5];
                stream.read_exact(&mut reply).expect("reads");
                assert_eq!(&reply, b"world");
                pause(30);
                stream.write_all(b"again").expect("writes");
                paused.recv().expect("it came");
            });
            let fd = taken.recv().expect("handed over");
            run(to, &OPTIONS, || async move {
                let conn = Conn::adopt(fd).expect("adopts");
                assert_eq!(&*conn.recv().await.expect("receives"), b"hello");
                conn.send(&[b"world"]).await.expect("sends");
                // Nothing is there for a while: the receive has to wait, not to report that it would.
                assert_eq!(&*conn.recv().await.expect("receives"), b"again");
                told_pause.send(()).expect("the client waits");
            })
            .expect("runs");
            client.join().expect("no panic");
            TcpStream::connect(addr).expect("connects").write_all(b"x").expect("writes");
            first.join().expect("no panic").expect("runs");
        }
    }
}

#[test]
fn what_outlives_its_worker_is_readable_or_an_error_and_never_a_panic() {
    for driver in drivers() {
        let (conn, listener, chunk) = run(driver, &OPTIONS, || async {
            let conn = Conn::connect(echo_peer()).await.expect("connects");
            conn.send(&[b"kept"]).await.expect("sends");
            let chunk = conn.recv().await.expect("receives");
            assert_eq!(race(conn.closed(), yield_now()).await, Either::Right(()));
            (conn, Listener::bind(loopback()).expect("a port"), chunk)
        })
        .expect("runs");
        assert_eq!(&*chunk, b"kept");
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut receive = std::pin::pin!(conn.recv());
        let received = std::future::Future::poll(receive.as_mut(), &mut cx);
        assert!(matches!(received, std::task::Poll::Ready(Err(_))), "{driver}");
        let mut accept = std::pin::pin!(listener.accept());
        let accepted = std::future::Future::poll(accept.as_mut(), &mut cx);
        assert!(matches!(accepted, std::task::Poll::Ready(Err(_))), "{driver}");
        conn.abort();
        drop(chunk);
    }
}
