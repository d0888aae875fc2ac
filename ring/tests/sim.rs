//! The simulated arm: that one seed decides everything, that its network behaves as TCP does, and that its faults
//! strike and can be switched off.
#![cfg(feature = "sim")]

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;

use tidegate_ring::sim::{Faults, Outcome, Sim};
use tidegate_ring::{
    Chunk, Conn, Elapsed, Listener, deadline, fresh_now_ns, now_ns, panics, random_u64, sleep_until, spawn,
    wall_ms, yield_now,
};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const HOUR: u64 = 3_600 * SECOND;

fn addr(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], port))
}

/// Connects, however long the listener takes to come up.
async fn connect(to: SocketAddr) -> Conn {
    loop {
        match Conn::connect(to).await {
            Ok(conn) => return conn,
            Err(_) => sleep_until(now_ns() + MS).await,
        }
    }
}

async fn read_to_end(conn: &Conn) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let chunk = conn.recv().await?;
        if chunk.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&chunk);
    }
}

/// Moves bytes from one connection to the other until the first ends.
async fn pump(from: &Conn, to: &Conn) -> std::io::Result<()> {
    loop {
        let chunk = from.recv().await?;
        if chunk.is_empty() {
            to.shutdown_write();
            return Ok(());
        }
        to.send(&[&chunk]).await?;
    }
}

/// Both futures at once; `tidegate_ring::race` stops at the first.
async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    let (mut one_done, mut other_done) = (false, false);
    std::future::poll_fn(|cx| {
        one_done = one_done || one.as_mut().poll(cx).is_ready();
        other_done = other_done || other.as_mut().poll(cx).is_ready();
        if one_done && other_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn serve_echo(sim: &mut Sim, at: SocketAddr) {
    sim.worker(async move || {
        let listener = Listener::bind(at).expect("bound");
        loop {
            let Ok(conn) = listener.accept().await else { continue };
            spawn(async move { drop(pump(&conn, &conn).await) }).detach();
        }
    });
}

fn serve_relay(sim: &mut Sim, at: SocketAddr, to: SocketAddr) {
    sim.worker(async move || {
        let listener = Listener::bind(at).expect("bound");
        loop {
            let Ok(client) = listener.accept().await else { continue };
            spawn(async move {
                let Ok(server) = Conn::connect(to).await else { return };
                both(async { drop(pump(&client, &server).await) }, async {
                    drop(pump(&server, &client).await)
                })
                .await;
            })
            .detach();
        }
    });
}

/// The echo relay with `clients` clients; how many got everything back, and the digest of the run.
fn run_relay(seed: u64, clients: usize, faults: Faults) -> (usize, u64) {
    let mut sim = Sim::new(seed);
    sim.set_faults(faults);
    serve_echo(&mut sim, addr(2, 80));
    serve_relay(&mut sim, addr(1, 80), addr(2, 80));
    let whole = Rc::new(Cell::new(0));
    let counted = Rc::clone(&whole);
    let client = sim.worker(async move || {
        let tasks: Vec<_> = (0..clients)
            .map(|nth| {
                let whole = Rc::clone(&counted);
                spawn(async move {
                    let sent: Vec<u8> = (0..20_000 + nth * 1_000).map(|at| (at * 7 + nth) as u8).collect();
                    let conn = connect(addr(1, 80)).await;
                    let received = RefCell::new(Err(ErrorKind::Other.into()));
                    let exchange = both(
                        async {
                            if conn.send(&[b"", &sent[..9], &sent[9..]]).await.is_ok() {
                                conn.shutdown_write();
                            }
                        },
                        async { *received.borrow_mut() = read_to_end(&conn).await },
                    );
                    let in_time = deadline(now_ns() + HOUR, exchange).await;
                    let received = received.into_inner();
                    if let Ok(received) = received {
                        assert!(sent.starts_with(&received), "a foreign byte");
                        if received.len() == sent.len() && in_time.is_ok() {
                            whole.set(whole.get() + 1);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no client panics");
        }
    });
    while !sim.is_finished(client) {
        assert!(sim.step(), "stuck with seed {seed}");
    }
    assert_eq!(sim.panics(), 0, "seed {seed}");
    (whole.get(), sim.trace_digest())
}

#[test]
fn an_echo_relay_returns_every_byte_in_200_seeds() {
    for seed in 0..200 {
        assert_eq!(run_relay(seed, 4, Faults::NONE).0, 4, "seed {seed}");
    }
}

#[test]
fn with_faults_it_returns_no_wrong_byte_and_still_most() {
    let whole: usize = (0..100).map(|seed| run_relay(seed, 4, Faults::HARSH).0).sum();
    assert!((200..400).contains(&whole), "{whole} of 400");
}

#[test]
fn the_seed_decides_everything() {
    for seed in 0..10 {
        assert_eq!(run_relay(seed, 3, Faults::HARSH), run_relay(seed, 3, Faults::HARSH), "seed {seed}");
    }
    let digests: std::collections::BTreeSet<u64> =
        (0..50).map(|seed| run_relay(seed, 1, Faults::NONE).1).collect();
    assert_eq!(digests.len(), 50);
}

/// Runs a server's and a client's side of one connection in each of 20 seeds, on two workers.
fn on_a_connection<S, C>(server: fn(Conn) -> S, client: fn(Conn) -> C)
where
    S: Future<Output = ()> + 'static,
    C: Future<Output = ()> + 'static,
{
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        sim.worker(async move || {
            let listener = Listener::bind(addr(1, 80)).expect("bound");
            server(listener.accept().await.expect("accepted")).await;
        });
        sim.worker(async move || client(connect(addr(1, 80)).await).await);
        assert_eq!(sim.run_until(10 * HOUR), Outcome::Finished, "seed {seed}");
        while sim.step() {}
        assert_eq!(sim.open_connections(), 0, "seed {seed}");
    }
}

#[test]
fn a_peer_that_does_not_read_stops_the_sender() {
    thread_local!(static TAKEN: Cell<usize> = const { Cell::new(0) });
    on_a_connection(
        |conn| async move {
            sleep_until(now_ns() + 10 * SECOND).await;
            assert!(TAKEN.get() <= 512 * 1024, "{} bytes are in flight", TAKEN.get());
            assert_eq!(read_to_end(&conn).await.expect("all of it").len(), 1024 * 1024);
        },
        |conn| async move {
            TAKEN.set(0);
            for _ in 0..1024 {
                conn.send(&[&[7; 1024]]).await.expect("sent");
                TAKEN.set(TAKEN.get() + 1024);
            }
        },
    );
}

#[test]
fn a_reader_that_holds_its_credit_gets_no_more() {
    on_a_connection(
        |conn| async move {
            let mut held = Vec::new();
            for _ in 0..4 {
                held.push(conn.recv().await.expect("a chunk"));
            }
            let fifth = deadline(now_ns() + HOUR, conn.recv()).await;
            assert!(matches!(fifth, Err(Elapsed { .. })), "a fifth chunk came");
            held.pop();
            assert!(!conn.recv().await.expect("a chunk").is_empty());
            conn.abort();
        },
        |conn| async move { while conn.send(&[&[7; 1024]]).await.is_ok() {} },
    );
}

#[test]
fn fin_ends_one_direction_only() {
    on_a_connection(
        |conn| async move {
            assert_eq!(read_to_end(&conn).await.expect("the question"), b"question");
            assert!(conn.recv().await.expect("FIN again").is_empty());
            conn.send(&[b"ans", b"", b"wer"]).await.expect("sent");
        },
        |conn| async move {
            conn.send(&[b"question"]).await.expect("sent");
            conn.shutdown_write();
            let refused = conn.send(&[b"more"]).await.expect_err("after FIN");
            assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
            assert_eq!(read_to_end(&conn).await.expect("the answer"), b"answer");
        },
    );
}

#[test]
fn an_abort_resets_the_peer_mid_stream() {
    on_a_connection(
        |conn| async move {
            let ended = read_to_end(&conn).await.expect_err("no FIN came");
            assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
            assert!(!conn.is_quiet());
            conn.closed().await;
            let first = conn.send(&[b"x"]).await.expect_err("reset");
            let second = conn.send(&[b"x"]).await.expect_err("reset");
            assert_eq!((first.kind(), second.kind()), (ErrorKind::ConnectionReset, ErrorKind::BrokenPipe));
        },
        |conn| async move {
            conn.send(&[&[7; 10_000]]).await.expect("sent");
            conn.abort();
        },
    );
}

#[test]
fn what_arrived_before_a_reset_stays_readable() {
    on_a_connection(
        |conn| async move {
            conn.closed().await;
            let mut got = 0;
            let ended = loop {
                match conn.recv().await {
                    Ok(chunk) => got += chunk.len(),
                    Err(error) => break error,
                }
            };
            assert_eq!((got, ended.kind()), (1_000, ErrorKind::ConnectionReset));
        },
        |conn| async move {
            conn.send(&[&[7; 1_000]]).await.expect("sent");
            sleep_until(now_ns() + SECOND).await;
            conn.abort();
        },
    );
}

#[test]
fn a_close_with_unread_data_is_a_reset() {
    on_a_connection(
        |conn| async move {
            while conn.is_quiet() {
                sleep_until(now_ns() + MS).await;
            }
        },
        |conn| async move {
            conn.send(&[b"never read"]).await.expect("sent");
            assert_eq!(conn.recv().await.map(|_| ()).expect_err("reset").kind(), ErrorKind::ConnectionReset);
        },
    );
}

#[test]
fn data_for_a_side_that_is_gone_is_answered_by_a_reset() {
    on_a_connection(
        |conn| async move { drop(conn) },
        |conn| async move {
            conn.closed().await;
            conn.send(&[b"the first goes out"]).await.expect("sent");
            sleep_until(now_ns() + SECOND).await;
            let refused = conn.send(&[b"the second"]).await.expect_err("reset");
            assert_eq!(refused.kind(), ErrorKind::ConnectionReset);
        },
    );
}

#[test]
fn closed_tells_of_the_peers_end_while_data_waits() {
    on_a_connection(
        |conn| async move {
            assert!(deadline(now_ns() + SECOND, conn.closed()).await.is_err(), "nothing has happened yet");
            assert!(conn.is_quiet());
            conn.closed().await;
            assert!(!conn.is_quiet());
            assert_eq!(read_to_end(&conn).await.expect("what was sent before"), b"bye");
        },
        |conn| async move {
            sleep_until(now_ns() + 10 * SECOND).await;
            conn.send(&[b"bye"]).await.expect("sent");
        },
    );
}

#[test]
fn a_storm_of_drops_leaves_nothing_behind() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        sim.set_faults(Faults { stall: 0, connect_stall: 0, ..Faults::HARSH });
        let server = sim.worker(async || {
            let listener = Listener::bind(addr(1, 80)).expect("bound");
            loop {
                let Ok(conn) = listener.accept().await else { continue };
                spawn(async move {
                    let own = [random_u64() as u8; 3000];
                    while conn.send(&[&own]).await.is_ok() {}
                })
                .detach();
            }
        });
        let clients = sim.worker(async || {
            for _ in 0..200 {
                spawn(async {
                    let at = now_ns() + random_u64() % (20 * MS);
                    let _ = deadline(at, async {
                        let conn = connect(addr(1, 80)).await;
                        let mut held = Vec::new();
                        while let Ok(chunk) = conn.recv().await
                            && !chunk.is_empty()
                        {
                            let own = [chunk[0]; 8 * 1024];
                            assert!(*chunk == own[..chunk.len()], "a foreign byte");
                            assert!(
                                held.first().is_none_or(|first: &Chunk| first[0] == chunk[0]),
                                "a foreign chunk"
                            );
                            held.push(chunk);
                            held.truncate(2);
                        }
                    })
                    .await;
                })
                .detach();
                sleep_until(now_ns() + random_u64() % MS).await;
            }
            sleep_until(now_ns() + SECOND).await;
        });
        while !sim.is_finished(clients) {
            assert!(sim.step());
        }
        sim.set_faults(Faults::NONE);
        for _ in 0..200_000 {
            if sim.open_connections() == 0 {
                break;
            }
            sim.step();
        }
        assert_eq!(sim.open_connections(), 0, "seed {seed}");
        sim.stop(server);
        assert!(!sim.step() || sim.run_until(u64::MAX) == Outcome::Finished);
        assert_eq!(sim.panics(), 0, "seed {seed}");
    }
}

#[test]
fn every_fault_strikes_about_as_often_as_asked_and_can_be_switched_off() {
    let off = count_faults(Faults::NONE);
    assert_eq!(off, [0; 5]);
    let all = Faults {
        connect_refused: 100,
        connect_stall: 100,
        reset: 300,
        stall: 200,
        stall_max_ns: HOUR,
        accept_error: 100,
        pause: 10,
        pause_max_ns: SECOND,
    };
    let [refused, timed_out, reset, slow, no_descriptor] = count_faults(all);
    assert!((50..150).contains(&refused), "{refused} of 1000 refused");
    assert!((50..150).contains(&timed_out), "{timed_out} of 1000 without an answer");
    assert!((100..400).contains(&reset), "{reset} of 1000 reset");
    assert!((50..300).contains(&slow), "{slow} of 1000 stalled");
    assert!((40..160).contains(&no_descriptor), "{no_descriptor} of 1000 accepts without descriptor");
}

/// 1,000 connections, one after the other, each bringing 100 KB; `[refused, timed out, reset, slow, EMFILE]`.
fn count_faults(faults: Faults) -> [usize; 5] {
    let counts = Rc::new(RefCell::new([0; 5]));
    let mut sim = Sim::new(11);
    let emfile = Rc::clone(&counts);
    sim.worker(async move || {
        let listener = Listener::bind(addr(1, 80)).expect("bound");
        loop {
            match listener.accept().await {
                Ok(conn) => spawn(async move { drop(conn.send(&[&[7; 100_000]]).await) }).detach(),
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                    emfile.borrow_mut()[4] += 1;
                }
            }
        }
    });
    let tally = Rc::clone(&counts);
    let client = sim.worker(async move || {
        sleep_until(now_ns() + SECOND).await;
        for _ in 0..1000 {
            let since = now_ns();
            let outcome = async { read_to_end(&Conn::connect(addr(1, 80)).await?).await }.await;
            let fault = match outcome.map_err(|error| error.kind()) {
                Err(ErrorKind::ConnectionRefused) => 0,
                Err(ErrorKind::TimedOut) => 1,
                Err(ErrorKind::ConnectionReset) => 2,
                Ok(_) if now_ns() - since > 60 * SECOND => 3,
                Ok(all) => {
                    assert_eq!(all.len(), 100_000);
                    continue;
                }
                Err(other) => panic!("{other}"),
            };
            tally.borrow_mut()[fault] += 1;
        }
    });
    sim.run_until(2 * SECOND);
    sim.set_faults(faults);
    while !sim.is_finished(client) {
        assert!(sim.step());
    }
    counts.take()
}

#[test]
fn a_pause_holds_up_one_worker_and_not_the_other() {
    let mut sim = Sim::new(3);
    sim.set_faults(Faults { pause: 1000, pause_max_ns: SECOND, ..Faults::NONE });
    let worst = Rc::new(Cell::new(0));
    for _ in 0..2 {
        let worst = Rc::clone(&worst);
        sim.worker(async move || {
            for _ in 0..50 {
                let before = fresh_now_ns();
                yield_now().await;
                sleep_until(before + 1).await;
                worst.set(worst.get().max(fresh_now_ns() - before));
            }
        });
    }
    assert_eq!(sim.run_until(HOUR), Outcome::Finished);
    assert!(worst.get() > 300 * MS, "{} ns", worst.get());
}

#[test]
fn time_leaps_to_the_next_timer_and_timers_are_never_early() {
    let mut sim = Sim::new(5);
    sim.worker(async || {
        let (start_ns, start_ms) = (now_ns(), wall_ms());
        sleep_until(start_ns + 10 * HOUR).await;
        assert!(now_ns() >= start_ns + 10 * HOUR);
        assert!(now_ns() < start_ns + 10 * HOUR + 10 * MS, "late by {} ns", now_ns() - start_ns - 10 * HOUR);
        assert!((36_000_000..36_000_100).contains(&(wall_ms() - start_ms)));
    });
    assert_eq!(sim.run_until(5 * HOUR), Outcome::Deadline);
    assert_eq!(sim.now_ns(), 5 * HOUR);
    assert_eq!(sim.run_until(u64::MAX), Outcome::Finished);
}

#[test]
fn a_deadlock_is_told_from_a_deadline() {
    let mut sim = Sim::new(1);
    sim.worker(async || std::future::pending().await);
    assert_eq!(sim.run_until(HOUR), Outcome::Stuck);
    assert!(!sim.step());
}

#[test]
fn a_task_that_always_wakes_itself_starves_nobody() {
    let mut sim = Sim::new(9);
    sim.worker(async || {
        spawn(async {
            loop {
                yield_now().await;
            }
        })
        .detach();
        let due = now_ns() + 10 * MS;
        sleep_until(due).await;
        assert!(now_ns() < due + 5 * MS);
    });
    assert_eq!(sim.run_until(SECOND * 2), Outcome::Finished);
}

#[test]
fn a_panic_ends_its_task_alone() {
    let mut sim = Sim::new(2);
    sim.worker(async || {
        let task = spawn(async {
            let _conn = connect(addr(1, 80)).await;
            panic!("of one task");
        });
        assert_eq!(task.await.expect_err("a panic").message(), "of one task");
        assert_eq!(panics(), 1);
    });
    sim.worker(async || {
        let listener = Listener::bind(addr(1, 80)).expect("bound");
        let conn = listener.accept().await.expect("accepted");
        assert!(conn.recv().await.expect("FIN").is_empty());
    });
    assert_eq!(sim.run_until(HOUR), Outcome::Finished);
    assert_eq!(sim.panics(), 1);
}

#[test]
fn a_panic_of_a_main_future_names_the_seed() {
    let caught = std::panic::catch_unwind(|| {
        let mut sim = Sim::new(4242);
        sim.worker(async || panic!("the assertion"));
        sim.run_until(HOUR)
    });
    let said = *caught.expect_err("passed on").downcast::<String>().expect("text");
    assert!(said.contains("4242") && said.contains("the assertion"), "{said}");
}

#[test]
fn workers_share_an_address_and_each_gets_its_part() {
    let mut sim = Sim::new(6);
    let counts = Rc::new(RefCell::new([0; 3]));
    for nth in 0..3 {
        let counts = Rc::clone(&counts);
        sim.worker(async move || {
            let listener = Listener::bind("0.0.0.0:80".parse().expect("an address")).expect("bound");
            loop {
                drop(listener.accept().await);
                counts.borrow_mut()[nth] += 1;
            }
        });
    }
    let client = sim.worker(async || {
        for _ in 0..300 {
            drop(connect(addr(1, 80)).await.recv().await);
        }
    });
    while !sim.is_finished(client) {
        assert!(sim.step());
    }
    assert!(counts.borrow().iter().all(|count| *count > 60), "{counts:?}");
}

#[test]
fn a_listener_that_goes_resets_what_it_had_not_accepted() {
    let mut sim = Sim::new(8);
    sim.worker(async || {
        let listener = Listener::bind(addr(1, 80)).expect("bound");
        sleep_until(now_ns() + SECOND).await;
        drop(listener);
        sleep_until(now_ns() + HOUR).await;
    });
    sim.worker(async || {
        let conn = connect(addr(1, 80)).await;
        assert_eq!(conn.recv().await.map(|_| ()).expect_err("reset").kind(), ErrorKind::ConnectionReset);
        let refused = Conn::connect(addr(1, 80)).await.map(|_| ()).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
    assert_eq!(sim.run_until(2 * HOUR), Outcome::Finished);
}

#[test]
fn who_gives_up_while_it_connects_leaves_nobody_waiting() {
    for seed in 0..200 {
        let mut sim = Sim::new(seed);
        sim.worker(async || {
            let listener = Listener::bind(addr(1, 80)).expect("bound");
            loop {
                let Ok(conn) = listener.accept().await else { continue };
                spawn(async move { drop(conn.recv().await) }).detach();
            }
        });
        let client = sim.worker(async || {
            sleep_until(now_ns() + MS).await;
            // A part of a flight is enough for the question, and too little for the answer.
            let _ = deadline(now_ns() + 1 + random_u64() % (4 * MS), Conn::connect(addr(1, 80))).await;
        });
        while !sim.is_finished(client) {
            assert!(sim.step());
        }
        while sim.step() {}
        assert_eq!(sim.open_connections(), 0, "seed {seed}");
    }
}

#[test]
fn addresses_are_told_to_both_sides() {
    let mut sim = Sim::new(8);
    sim.worker(async || {
        let listener = Listener::bind(addr(1, 0)).expect("bound");
        let at = listener.local_addr().expect("an address");
        assert_ne!(at.port(), 0);
        let conn = connect(at).await;
        assert_eq!(conn.peer_addr(), Some(at));
        let accepted = listener.accept().await.expect("accepted");
        assert!(accepted.peer_addr().is_some_and(|peer| peer.ip().is_loopback()));
    });
    assert_eq!(sim.run_until(HOUR), Outcome::Finished);
}

#[test]
fn a_signal_reaches_every_worker() {
    let mut sim = Sim::new(4);
    let (trigger, signal) = tidegate_ring::signal();
    for _ in 0..3 {
        let signal = signal.clone();
        sim.worker(async move || {
            assert!(!signal.fired());
            signal.wait().await;
            assert!(now_ns() >= SECOND);
        });
    }
    assert_eq!(sim.run_until(5 * SECOND), Outcome::Stuck);
    sim.worker(async move || {
        sleep_until(now_ns() + SECOND).await;
        trigger.fire();
    });
    assert_eq!(sim.run_until(HOUR), Outcome::Finished);
}

#[test]
fn a_connection_moves_from_one_worker_to_another() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let moving = Rc::new(RefCell::new(Vec::new()));
        let given = Rc::clone(&moving);
        sim.worker(async move || {
            let listener = Listener::bind(addr(1, 80)).expect("bound");
            for _ in 0..2 {
                let conn = listener.accept().await.expect("accepted");
                given.borrow_mut().push(conn.release().expect("released"));
            }
        });
        sim.worker(async move || {
            while moving.borrow().len() < 2 {
                sleep_until(now_ns() + MS).await;
            }
            let forgotten = moving.borrow_mut().pop();
            drop(forgotten);
            let fd = moving.borrow_mut().pop().expect("the first");
            let conn = Conn::adopt(fd).expect("adopted");
            assert!(conn.peer_addr().is_some());
            assert_eq!(read_to_end(&conn).await.expect("all of it"), b"hello");
        });
        sim.worker(async move || {
            for _ in 0..2 {
                let conn = connect(addr(1, 80)).await;
                spawn(async move {
                    conn.send(&[b"hello"]).await.expect("sent");
                    conn.shutdown_write();
                    drop(conn.recv().await);
                })
                .detach();
            }
            sleep_until(now_ns() + SECOND).await;
        });
        assert_eq!(sim.run_until(HOUR), Outcome::Finished, "seed {seed}");
    }
}

#[test]
fn a_stopped_worker_closes_its_connections() {
    let mut sim = Sim::new(4);
    let server = sim.worker(async || {
        let listener = Listener::bind(addr(1, 80)).expect("bound");
        let _conn = listener.accept().await.expect("accepted");
        std::future::pending().await
    });
    let client = sim.worker(async || {
        let conn = connect(addr(1, 80)).await;
        assert!(conn.recv().await.expect("FIN").is_empty());
    });
    assert_eq!(sim.run_until(10 * SECOND), Outcome::Stuck);
    assert_eq!(sim.open_connections(), 1);
    sim.stop(server);
    assert!(sim.is_finished(server) && !sim.is_finished(client));
    assert_eq!(sim.run_until(HOUR), Outcome::Finished);
    assert_eq!(sim.open_connections(), 0);
}

#[test]
fn workers_draw_numbers_of_their_own_the_same_in_each_run() {
    let draw = |seed| {
        let drawn = Rc::new(RefCell::new(Vec::new()));
        let mut sim = Sim::new(seed);
        for _ in 0..2 {
            let drawn = Rc::clone(&drawn);
            sim.worker(async move || drawn.borrow_mut().push(random_u64()));
        }
        assert_eq!(sim.run_until(HOUR), Outcome::Finished);
        let mut drawn = drawn.take();
        drawn.sort_unstable();
        drawn
    };
    let first = draw(1);
    assert_ne!(first[0], first[1]);
    assert_eq!(first, draw(1));
    assert_ne!(first, draw(2));
}
