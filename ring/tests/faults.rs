//! Scripted faults on both real arms, and descriptors that really run out.

mod support;

use std::io::ErrorKind;
use std::net::TcpStream;
use std::rc::Rc;

use support::*;
use tidegate_ring::fault::{Call, Failure, Script, Step, clear, install};
use tidegate_ring::{Conn, Either, Listener, race, spawn};

fn step(call: Call, nth: u64, failure: Failure) -> Step {
    Step { call, nth, failure }
}

/// Sends `bytes` to an echo and compares what comes back; how many chunks it came in.
async fn exchange(conn: &Rc<Conn>, bytes: usize) -> Result<usize, ErrorKind> {
    let message = pattern(9, bytes);
    let (sender, sent) = (Rc::clone(conn), message.clone());
    let sending =
        spawn(async move { sender.send(&[&sent[..bytes / 2], &sent[bytes / 2..]]).await.expect("sends") });
    let (mut got, mut chunks) = (0, 0);
    while got < bytes {
        let chunk = conn.recv().await.map_err(|error| error.kind())?;
        assert!(!chunk.is_empty(), "ended early");
        assert_eq!(*chunk, message[got..got + chunk.len()], "a byte lost, doubled or foreign");
        (got, chunks) = (got + chunk.len(), chunks + 1);
    }
    sending.await.expect("no panic");
    Ok(chunks)
}

#[test]
fn short_reads_and_short_writes_lose_nothing() {
    on_each(async |_| {
        let conn = Rc::new(Conn::connect(echo_peer()).await.expect("connects"));
        install(Script { recv_bytes_max: 7, send_bytes_max: 3, ..Script::default() });
        assert!(exchange(&conn, 2_000).await.expect("no error") >= 2_000 / 7);
        install(Script { recv_bytes_max: 1, ..Script::default() });
        assert_eq!(exchange(&conn, 50).await, Ok(50));
        assert!(conn.is_quiet());
        clear();
        assert!(exchange(&conn, 50).await.expect("no error") < 50);
    });
}

#[test]
fn calls_that_would_block_or_find_no_buffer_are_made_again_unseen() {
    on_each(async |_| {
        let conn = Rc::new(Conn::connect(echo_peer()).await.expect("connects"));
        let steps = [Failure::WouldBlock, Failure::NoBuffers]
            .into_iter()
            .flat_map(|failure| {
                let odd = u64::from(failure == Failure::NoBuffers);
                (0..20).flat_map(move |n| {
                    [step(Call::Recv, 2 * n + odd, failure), step(Call::Send, 2 * n + odd, failure)]
                })
            })
            .collect();
        install(Script { recv_bytes_max: 100, send_bytes_max: 100, steps, ..Script::default() });
        assert!(exchange(&conn, 20_000).await.is_ok());
        clear();
        assert!(exchange(&conn, 20_000).await.is_ok());
    });
}

#[test]
fn no_buffer_on_the_first_receive_only_delays_it() {
    on_each(async |_| {
        install(Script { steps: vec![step(Call::Recv, 0, Failure::NoBuffers)], ..Script::default() });
        let conn = Rc::new(Conn::connect(echo_peer()).await.expect("connects"));
        assert!(exchange(&conn, 10_000).await.is_ok());
        clear();
    });
}

#[test]
fn the_nth_call_fails_as_scripted_and_the_others_do_not() {
    on_each(async |_| {
        let echo = echo_peer();
        install(Script {
            steps: vec![
                step(Call::Connect, 0, Failure::Refused),
                step(Call::Connect, 1, Failure::TimedOut),
                step(Call::Recv, 1, Failure::Reset),
                step(Call::Send, 2, Failure::Reset),
                step(Call::Accept, 1, Failure::TooManyFiles),
            ],
            ..Script::default()
        });
        for kind in [ErrorKind::ConnectionRefused, ErrorKind::TimedOut] {
            assert_eq!(Conn::connect(echo).await.err().map(|error| error.kind()), Some(kind));
        }
        let conn = Conn::connect(echo).await.expect("the third is real");
        conn.send(&[b"a"]).await.expect("the first is real");
        assert_eq!(&*conn.recv().await.expect("the first is real"), b"a");
        conn.send(&[b"b"]).await.expect("the second is real");
        assert_eq!(conn.recv().await.expect_err("scripted").kind(), ErrorKind::ConnectionReset);
        assert_eq!(&*conn.recv().await.expect("the fault stood in front of the call"), b"b");
        assert_eq!(conn.send(&[b"c"]).await.expect_err("scripted").kind(), ErrorKind::ConnectionReset);
        let listener = Listener::bind(loopback()).expect("a port");
        let _clients: Vec<_> = (0..2)
            .map(|_| TcpStream::connect(listener.local_addr().expect("an address")).expect("connects"))
            .collect();
        assert!(listener.accept().await.is_ok());
        let error = listener.accept().await.err().expect("scripted");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        assert!(listener.accept().await.is_ok(), "the connection was not lost");
        clear();
    });
}

/// Run by the next test in a process that may have few descriptors.
#[test]
#[ignore = "needs a process of its own with few descriptors"]
fn within_few_descriptors() {
    on_each(async |driver| {
        let listener = Listener::bind(loopback()).expect("a port");
        let addr = listener.local_addr().expect("an address");
        // As many as there are, then one back: the client takes it, and there is none for the server's side.
        let mut spare = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            spare.push(file);
        }
        assert!(spare.len() > 8, "{driver}: they ran out before the test began");
        spare.pop();
        let client = TcpStream::connect(addr).expect("it has the last one");
        let error = listener.accept().await.err().expect("no descriptor is left");
        assert!(matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)), "{driver}: {error}");
        spare.truncate(2);
        let accepted = race(listener.accept(), sleep_ms(5_000)).await;
        assert!(
            matches!(accepted, Either::Left(Ok(_))),
            "{driver}: the connection waited in the kernel's queue"
        );
        drop(client);
    });
}

#[test]
fn running_out_of_descriptors_is_reported_and_loses_no_connection() {
    let binary = std::env::current_exe().expect("this binary");
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 40; exec \"$0\" --ignored --exact within_few_descriptors"])
        .arg(binary)
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
