//! A host that forbids io_uring, as containers do: a seccomp filter denies its three system calls on one thread.

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use support::*;
use tidegate_ring::{Conn, Driver, IoChoice, Listener, ProbeStage, run, select, spawn};

const IO_URING_CALLS: [i64; 3] = [425, 426, 427];

/// Denies the calls on this thread, for good.
fn deny(calls: &[i64], errno: i32) {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("a known machine");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)
        .expect("valid");
    seccompiler::apply_filter(&BpfProgram::try_from(filter).expect("it compiles")).expect("it applies");
}

fn on_a_thread_without(calls: &'static [i64], errno: i32, test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        deny(calls, errno);
        test();
    });
    thread.join().expect("the test passes");
}

async fn serve_one() {
    let listener = Listener::bind(loopback()).expect("a port");
    let addr = listener.local_addr().expect("an address");
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).expect("connects");
        stream.write_all(b"ping").expect("writes");
        let mut reply = [0; 4];
        stream.read_exact(&mut reply).expect("answered");
        reply
    });
    let conn = listener.accept().await.expect("accepts");
    let upstream = Conn::connect(echo_peer()).await.expect("connects");
    let relay = spawn(async move {
        upstream.send(&[&conn.recv().await.expect("receives")]).await.expect("sends");
        conn.send(&[&upstream.recv().await.expect("receives")]).await.expect("sends");
    });
    relay.await.expect("no panic");
    sleep_ms(2).await;
    assert_eq!(&client.join().expect("no panic"), b"ping");
}

#[test]
fn auto_takes_epoll_says_why_and_serves() {
    on_a_thread_without(&IO_URING_CALLS, libc::EPERM, || {
        let selection = select(IoChoice::Auto).expect("auto always finds one");
        assert_eq!(selection.driver, Driver::Epoll);
        assert!(
            selection.reason.contains("io_uring_setup is refused") && selection.reason.contains("seccomp"),
            "{}",
            selection.reason
        );
        run(selection.driver, &OPTIONS, serve_one).expect("epoll serves");
    });
}

#[test]
fn io_uring_by_choice_is_an_error_and_not_a_fallback() {
    on_a_thread_without(&IO_URING_CALLS, libc::EPERM, || {
        let refusal = select(IoChoice::IoUring).expect_err("it is denied");
        assert_eq!((refusal.stage(), refusal.errno()), (ProbeStage::Setup, Some(libc::EPERM)));
        assert!(run(Driver::IoUring, &OPTIONS, serve_one).is_err(), "an error, not a panic");
        assert_eq!(select(IoChoice::Epoll).expect("needs no probe").driver, Driver::Epoll);
    });
}

#[test]
fn each_way_of_being_refused_has_its_own_reason() {
    on_a_thread_without(&IO_URING_CALLS, libc::ENOSYS, || {
        let refusal = select(IoChoice::IoUring).expect_err("it is denied");
        assert!(refusal.to_string().contains("has no io_uring"), "{refusal}");
    });
    // Rings can be made, but nothing can be registered with them (427), or done with them (426).
    on_a_thread_without(&[427], libc::EPERM, || {
        let refusal = select(IoChoice::IoUring);
        assert_ne!(refusal.expect_err("it is denied").stage(), ProbeStage::Setup);
    });
    on_a_thread_without(&[426], libc::EPERM, || {
        let refusal = select(IoChoice::IoUring).expect_err("it is denied");
        assert_ne!(refusal.stage(), ProbeStage::Operations);
    });
}

#[test]
fn without_a_filter_the_choice_is_kept_and_both_serve() {
    for driver in drivers() {
        run(driver, &OPTIONS, serve_one).expect("serves");
    }
    let auto = select(IoChoice::Auto).expect("auto always finds one");
    assert_eq!(auto.driver == Driver::IoUring, drivers().contains(&Driver::IoUring), "{}", auto.reason);
}
