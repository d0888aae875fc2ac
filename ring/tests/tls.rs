//! TLS over every arm: bytes go through both ways, each broken peer is refused by the right name, and an end that was not
//! announced is never taken for one.

use std::cell::Cell;
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tidegate_ring::tls::{ClientTls, ConnectError, Roots, ServerName, ServerTls, TlsCheck, TlsSetupError};
use tidegate_ring::{
    Conn, Driver, IoChoice, Listener, RingOptions, deadline, fault, now_ns, race, run, select, sleep_until,
    spawn,
};

const MS: u64 = 1_000_000;
const PATIENCE_NS: u64 = 60_000 * MS;
const OPTIONS: RingOptions =
    RingOptions { recv_buffer_bytes: 16 * 1024, recv_buffers: 64, lent_chunks_max: 4, entries: 64 };

/// Runs `main` on a worker of every arm that there is; a test must end within a minute.
fn on_every_arm<F: Future<Output = ()> + 'static>(main: impl Fn() -> F + Copy + 'static) {
    let timed = async move || deadline(now_ns() + PATIENCE_NS, main()).await.expect("the test hangs");
    let mut drivers = vec![Driver::Epoll];
    match select(IoChoice::IoUring) {
        Ok(_) => drivers.push(Driver::IoUring),
        Err(refusal) => assert!(!refusal.to_string().is_empty(), "a refusal says why"),
    }
    for driver in drivers {
        run(driver, &OPTIONS, timed).unwrap_or_else(|error| panic!("{driver}: {error}"));
    }
    #[cfg(feature = "sim")]
    for seed in 0..20 {
        let mut sim = tidegate_ring::sim::Sim::new(seed);
        sim.worker(timed);
        assert_eq!(sim.run_until(u64::MAX), tidegate_ring::sim::Outcome::Finished, "seed {seed}");
        assert_eq!(sim.panics(), 0, "seed {seed}");
    }
}

/// A certificate authority and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        Authority::named("ours")
    }

    fn named(named: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, named);
        let pem = params.self_signed(&key).expect("signed").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn client(&self) -> ClientTls {
        ClientTls::new(&Roots::Only { ca_pem: self.pem.as_bytes() }).expect("roots")
    }

    fn server(&self) -> ServerTls {
        self.server_with(|_| ())
    }

    fn server_with(&self, change: impl FnOnce(&mut CertificateParams)) -> ServerTls {
        let names = ["api.test".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let chain = params.signed_by(&key, &self.issuer).expect("signed").pem();
        ServerTls::new(chain.as_bytes(), key.serialize_pem().as_bytes()).expect("an identity")
    }
}

fn name(host: &str) -> ServerName {
    ServerName::parse(host).expect("a name")
}

fn listen() -> (Listener, SocketAddr) {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound");
    let addr = listener.local_addr().expect("an address");
    (listener, addr)
}

/// Both ends of a connection with TLS.
async fn connected() -> (Conn, Conn) {
    let authority = Authority::new();
    let (listener, addr) = listen();
    let server_tls = authority.server();
    let (client_tls, host) = (authority.client(), name("api.test"));
    let (server, client) = both(
        async { Conn::accept_tls(listener.accept().await.expect("accepted"), &server_tls).await },
        Conn::connect_tls(addr, &client_tls, &host),
    )
    .await;
    (server.expect("the server's side"), client.expect("the client's side"))
}

async fn both<A: Future, B: Future>(one: A, other: B) -> (A::Output, B::Output) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut of_one, mut of_other) = (None, None);
    std::future::poll_fn(move |cx| {
        if of_one.is_none()
            && let Poll::Ready(output) = one.as_mut().poll(cx)
        {
            of_one = Some(output);
        }
        if of_other.is_none()
            && let Poll::Ready(output) = other.as_mut().poll(cx)
        {
            of_other = Some(output);
        }
        match (of_one.take(), of_other.take()) {
            (Some(one), Some(other)) => Poll::Ready((one, other)),
            (one, other) => {
                (of_one, of_other) = (one, other);
                Poll::Pending
            }
        }
    })
    .await
}

async fn read_to_end(conn: &Conn) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    loop {
        match conn.recv().await {
            Ok(chunk) if chunk.is_empty() => return (all, None),
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(error) => return (all, Some(error.kind())),
        }
    }
}

fn text(length: usize, salt: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31).wrapping_add(at >> 9).wrapping_add(salt)) as u8).collect()
}

/// What a client says of a server with this identity.
async fn verdict(client: ClientTls, server: ServerTls, host: &str) -> ConnectError {
    let (listener, addr) = listen();
    let serving = spawn(async move {
        let conn = listener.accept().await.expect("accepted");
        assert!(Conn::accept_tls(conn, &server).await.is_err(), "the server took a client that refused it");
    });
    let refused =
        Conn::connect_tls(addr, &client, &name(host)).await.err().expect("a peer that must be refused");
    serving.await.expect("the server does not panic");
    refused
}

async fn refused_as(check: TlsCheck, client: ClientTls, server: ServerTls, host: &str) {
    let refused = verdict(client, server, host).await;
    match &refused {
        ConnectError::Tls { check: found, detail } => {
            assert_eq!(*found, check, "{refused}");
            assert!(!detail.is_empty());
        }
        ConnectError::Io(error) => panic!("{error} instead of {check:?}"),
    }
}

#[test]
fn a_megabyte_goes_both_ways_at_once() {
    on_every_arm(|| async {
        let (server, client) = connected().await;
        let (down, up) = (text(1 << 20, 1), text(1 << 20, 2));
        let speak = async |conn: &Conn, bytes: &[u8]| {
            conn.send(&[&bytes[..9], b"", &bytes[9..40_000], &bytes[40_000..]]).await.expect("sent");
            conn.shutdown_write();
        };
        let ((got_up, ()), (got_down, ())) = both(
            both(read_to_end(&server), speak(&server, &down)),
            both(read_to_end(&client), speak(&client, &up)),
        )
        .await;
        assert!(got_up == (up, None) && got_down == (down, None));
    });
}

#[test]
fn small_events_arrive_as_they_are_sent() {
    on_every_arm(|| async {
        let (server, client) = connected().await;
        for nth in 0..200_usize {
            let event = text(1 + nth * 7 % 900, nth);
            let mut got = Vec::new();
            server.send(&[&event]).await.expect("sent");
            while got.len() < event.len() {
                got.extend_from_slice(&client.recv().await.expect("received"));
            }
            assert_eq!(got, event);
        }
    });
}

#[test]
fn short_reads_and_writes_change_nothing() {
    on_every_arm(|| async {
        let (server, client) = connected().await;
        let script = fault::Script { recv_bytes_max: 7, send_bytes_max: 11, ..fault::Script::default() };
        fault::install(script);
        let sent = text(30_000, 3);
        let (got, ()) = both(read_to_end(&client), async {
            server.send(&[&sent]).await.expect("sent");
            server.shutdown_write();
        })
        .await;
        fault::clear();
        assert!(got == (sent, None));
    });
}

#[test]
fn an_address_can_be_the_name() {
    on_every_arm(|| async {
        let authority = Authority::new();
        let (listener, addr) = listen();
        let server_tls = authority.server();
        spawn(async move {
            let conn = Conn::accept_tls(listener.accept().await.expect("accepted"), &server_tls).await;
            conn.expect("a client").shutdown_write();
        })
        .detach();
        let conn = Conn::connect_tls(addr, &authority.client(), &name("127.0.0.1")).await.expect("connected");
        assert_eq!(conn.peer_addr(), Some(addr));
        assert!(conn.recv().await.expect("the end").is_empty());
    });
}

#[test]
fn a_certificate_out_of_its_time_is_refused() {
    on_every_arm(|| async {
        let authority = Authority::new();
        let expired = authority.server_with(|params| params.not_after = date_time_ymd(2020, 1, 1));
        refused_as(TlsCheck::Expired, authority.client(), expired, "api.test").await;
        let early = authority.server_with(|params| params.not_before = date_time_ymd(2090, 1, 1));
        refused_as(TlsCheck::Expired, authority.client(), early, "api.test").await;
    });
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    on_every_arm(|| async {
        let authority = Authority::new();
        refused_as(TlsCheck::WrongName, authority.client(), authority.server(), "evil.test").await;
        refused_as(TlsCheck::WrongName, authority.client(), authority.server(), "127.0.0.2").await;
        refused_as(TlsCheck::WrongName, authority.client(), authority.server(), "sub.api.test").await;
    });
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    on_every_arm(|| async {
        let (ours, theirs) = (Authority::new(), Authority::named("theirs"));
        refused_as(TlsCheck::UnknownIssuer, ours.client(), theirs.server(), "api.test").await;
        // One that only calls itself by our authority's name.
        refused_as(TlsCheck::Other, ours.client(), Authority::new().server(), "api.test").await;
        let alone = rcgen::generate_simple_self_signed(["api.test".to_owned()]).expect("a certificate");
        let alone = ServerTls::new(alone.cert.pem().as_bytes(), alone.signing_key.serialize_pem().as_bytes());
        refused_as(TlsCheck::UnknownIssuer, ours.client(), alone.expect("an identity"), "api.test").await;
    });
}

#[test]
fn a_server_that_ends_in_the_handshake_is_told_from_one_that_resets() {
    on_every_arm(|| async {
        let client = Authority::new().client();
        for reset in [false, true] {
            let (listener, addr) = listen();
            let ending = spawn(async move {
                let conn = listener.accept().await.expect("accepted");
                assert!(!conn.recv().await.expect("a hello").is_empty());
                if reset {
                    conn.abort();
                } else {
                    conn.shutdown_write();
                    while !conn.recv().await.expect("the rest of the hello").is_empty() {}
                }
            });
            let error =
                Conn::connect_tls(addr, &client, &name("api.test")).await.err().expect("no handshake");
            match error {
                ConnectError::Tls { check, .. } => assert!(!reset && check == TlsCheck::Truncated),
                ConnectError::Io(error) => {
                    assert!(reset && error.kind() == ErrorKind::ConnectionReset, "{error}")
                }
            }
            ending.await.expect("no panic");
        }
    });
}

#[test]
fn a_peer_that_speaks_plain_text_is_refused_on_both_sides() {
    on_every_arm(|| async {
        let authority = Authority::new();
        let (listener, addr) = listen();
        let speaking = spawn(async move {
            let conn = listener.accept().await.expect("accepted");
            drop(conn.recv().await.expect("a hello"));
            conn.send(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"]).await.expect("sent");
            while conn.recv().await.is_ok_and(|chunk| !chunk.is_empty()) {}
        });
        let refused = Conn::connect_tls(addr, &authority.client(), &name("api.test")).await.err();
        assert!(matches!(refused, Some(ConnectError::Tls { check: TlsCheck::Protocol, .. })), "{refused:?}");
        speaking.await.expect("no panic");

        let (listener, addr) = listen();
        let server_tls = authority.server();
        let speaking = spawn(async move {
            let conn = Conn::connect(addr).await.expect("connected");
            conn.send(&[b"GET / HTTP/1.1\r\nhost: api.test\r\n\r\n"]).await.expect("sent");
            let alert = read_to_end(&conn).await.0;
            assert_eq!(alert.first(), Some(&21), "an alert and nothing else: {alert:?}");
        });
        let refused = Conn::accept_tls(listener.accept().await.expect("accepted"), &server_tls).await.err();
        assert!(matches!(refused, Some(ConnectError::Tls { check: TlsCheck::Protocol, .. })), "{refused:?}");
        speaking.await.expect("no panic");
    });
}

#[test]
fn nobody_there_is_no_matter_of_tls() {
    on_every_arm(|| async {
        let (listener, addr) = listen();
        drop(listener);
        let refused = Conn::connect_tls(addr, &Authority::new().client(), &name("api.test")).await.err();
        let kind = match refused {
            Some(ConnectError::Io(error)) => error.kind(),
            other => panic!("{other:?}"),
        };
        assert_eq!(kind, ErrorKind::ConnectionRefused);
    });
}

#[test]
fn an_end_without_close_notify_is_an_error_and_stays_one() {
    on_every_arm(|| async {
        let (server, client) = connected().await;
        server.send(&[b"half of a reply"]).await.expect("sent");
        drop(server);
        assert_eq!(read_to_end(&client).await, (b"half of a reply".to_vec(), Some(ErrorKind::UnexpectedEof)));
        assert_eq!(client.recv().await.map(|_| ()).expect_err("again").kind(), ErrorKind::UnexpectedEof);
        assert!(!client.is_quiet());
    });
}

#[test]
fn an_announced_end_is_one_direction_only() {
    on_every_arm(|| async {
        let (server, client) = connected().await;
        client.send(&[b"question"]).await.expect("sent");
        client.shutdown_write();
        assert_eq!(client.send(&[b"more"]).await.expect_err("after the end").kind(), ErrorKind::BrokenPipe);
        assert_eq!(read_to_end(&server).await, (b"question".to_vec(), None));
        assert!(server.recv().await.expect("the end again").is_empty());
        server.send(&[b"answer"]).await.expect("sent");
        server.shutdown_write();
        assert_eq!(read_to_end(&client).await, (b"answer".to_vec(), None));
    });
}

#[test]
fn a_reset_is_a_reset() {
    on_every_arm(|| async {
        let (server, client) = connected().await;
        server.abort();
        drop(server);
        assert_eq!(client.recv().await.map(|_| ()).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_changed_byte_ends_the_connection_and_is_never_read() {
    on_every_arm(|| async {
        let authority = Authority::new();
        let ((listener, addr), (middle, middle_addr)) = (listen(), listen());
        let server_tls = authority.server();
        spawn(async move {
            let (client, server) = both(middle.accept(), Conn::connect(addr)).await;
            let (client, server) = (client.expect("accepted"), server.expect("connected"));
            let mut down = 0;
            let changing = async {
                while let Ok(chunk) = server.recv().await
                    && !chunk.is_empty()
                {
                    let mut bytes = chunk.to_vec();
                    if (down..down + bytes.len()).contains(&100_000) {
                        bytes[100_000 - down] ^= 1;
                    }
                    down += bytes.len();
                    if client.send(&[&bytes]).await.is_err() {
                        break;
                    }
                }
            };
            let copying = async {
                while let Ok(chunk) = client.recv().await
                    && !chunk.is_empty()
                    && server.send(&[&chunk]).await.is_ok()
                {}
            };
            let _ = race(changing, copying).await;
        })
        .detach();
        let sent = text(300_000, 4);
        let body = sent.clone();
        let serving = spawn(async move {
            let conn = Conn::accept_tls(listener.accept().await.expect("accepted"), &server_tls).await;
            let conn = conn.expect("a client");
            drop(conn.send(&[&body]).await);
        });
        let conn =
            Conn::connect_tls(middle_addr, &authority.client(), &name("api.test")).await.expect("connected");
        let (got, error) = read_to_end(&conn).await;
        assert_eq!(error, Some(ErrorKind::InvalidData));
        assert!(sent.starts_with(&got) && (60_000..100_000).contains(&got.len()), "{} bytes", got.len());
        assert_eq!(conn.send(&[b"x"]).await.expect_err("broken").kind(), ErrorKind::BrokenPipe);
        drop(conn);
        serving.await.expect("no panic");
    });
}

#[test]
fn an_idle_connection_is_quiet_until_something_happens() {
    on_every_arm(|| async {
        let (server, client) = connected().await;
        // Session tickets arrive meanwhile; they are nobody's bytes.
        sleep_until(now_ns() + 20 * MS).await;
        assert!(client.is_quiet() && server.is_quiet());
        assert!(deadline(now_ns() + 20 * MS, client.closed()).await.is_err());
        server.send(&[b"stray"]).await.expect("sent");
        while client.is_quiet() {
            sleep_until(now_ns() + MS).await;
        }
        assert_eq!(&*client.recv().await.expect("not lost by the look"), b"stray");
        assert!(client.is_quiet());
        server.shutdown_write();
        client.closed().await;
        assert!(!client.is_quiet());
        assert!(client.recv().await.expect("the end").is_empty());
        client.closed().await;
    });
}

#[test]
fn closed_sees_the_peer_go_while_data_waits() {
    on_every_arm(|| async {
        let (server, client) = connected().await;
        client.send(&[b"a request"]).await.expect("sent");
        drop(client);
        server.closed().await;
        assert_eq!(read_to_end(&server).await.0, b"a request");
    });
}

#[test]
fn an_end_is_announced_even_when_the_socket_is_full() {
    on_every_arm(|| async {
        let (server, client) = connected().await;
        let sent = text(6 << 20, 5);
        let body = sent.clone();
        spawn(async move {
            server.send(&[&body]).await.expect("sent");
            server.shutdown_write();
            drop(server);
        })
        .detach();
        let mut got = Vec::new();
        loop {
            let chunk = client.recv().await.expect("no cut");
            if chunk.is_empty() {
                break;
            }
            got.extend_from_slice(&chunk);
            if got.len() < 1 << 20 {
                sleep_until(now_ns() + MS).await;
            }
        }
        assert!(got == sent);
    });
}

#[test]
fn a_send_dropped_halfway_leaves_nothing_to_send_on() {
    on_every_arm(|| async {
        let (server, client) = connected().await;
        let body = vec![7; 32 << 20];
        assert!(deadline(now_ns() + 50 * MS, server.send(&[&body])).await.is_err(), "nobody reads");
        assert_eq!(server.send(&[b"x"]).await.expect_err("broken").kind(), ErrorKind::BrokenPipe);
        server.shutdown_write();
        drop(server);
        let (got, error) = read_to_end(&client).await;
        assert!(got.len() < body.len() && got.iter().all(|byte| *byte == 7));
        assert_eq!(error, Some(ErrorKind::UnexpectedEof), "a cut is never an end");
    });
}

#[test]
fn a_dropped_recv_loses_nothing() {
    on_every_arm(|| async {
        let (server, client) = connected().await;
        let sent = text(200_000, 6);
        let body = sent.clone();
        spawn(async move {
            for part in body.chunks(1_777) {
                server.send(&[part]).await.expect("sent");
                sleep_until(now_ns() + MS / 4).await;
            }
            server.shutdown_write();
        })
        .detach();
        let mut got = Vec::new();
        let mut dropped = 0;
        loop {
            match deadline(now_ns() + MS, client.recv()).await {
                Ok(chunk) if chunk.as_ref().is_ok_and(|chunk| chunk.is_empty()) => break,
                Ok(chunk) => got.extend_from_slice(&chunk.expect("no error")),
                Err(_) => dropped += 1,
            }
        }
        assert!(got == sent, "{} bytes after {dropped} dropped waits", got.len());
    });
}

#[test]
fn tls_is_not_laid_over_tls() {
    on_every_arm(|| async {
        let (server, _client) = connected().await;
        let refused = Conn::accept_tls(server, &Authority::new().server()).await.err();
        assert!(matches!(refused, Some(ConnectError::Io(error)) if error.kind() == ErrorKind::InvalidInput));
    });
}

#[test]
fn the_hosts_roots_are_used_and_do_not_vouch_for_ours() {
    let authority = Authority::new();
    let with_ours = ClientTls::new(&Roots::NativeAnd { ca_pem: authority.pem.as_bytes() });
    assert!(with_ours.is_ok());
    match ClientTls::new(&Roots::Native) {
        Ok(_) => on_every_arm(|| async {
            let native = ClientTls::new(&Roots::Native).expect("as before");
            refused_as(TlsCheck::UnknownIssuer, native, Authority::new().server(), "api.test").await;
        }),
        Err(error) => assert!(matches!(error, TlsSetupError::NoNativeRoots(_)), "{error}"),
    }
}

#[cfg(feature = "sim")]
#[test]
fn certificates_are_judged_by_the_workers_clock() {
    let mut sim = tidegate_ring::sim::Sim::new(1);
    sim.worker(async || {
        let authority = Authority::new();
        let short = authority.server_with(|params| params.not_after = date_time_ymd(2026, 1, 3));
        let (listener, addr) = listen();
        let serving = short.clone();
        spawn(async move {
            let conn = Conn::accept_tls(listener.accept().await.expect("accepted"), &serving).await;
            conn.expect("a client").shutdown_write();
        })
        .detach();
        Conn::connect_tls(addr, &authority.client(), &name("api.test")).await.expect("on 1 January");
        sleep_until(now_ns() + 72 * 3_600_000 * MS).await;
        refused_as(TlsCheck::Expired, authority.client(), short, "api.test").await;
    });
    assert_eq!(sim.run_until(u64::MAX), tidegate_ring::sim::Outcome::Finished);
}

/// Whatever the network does, a reply that ends without an error is whole, and no wrong byte is ever read.
#[cfg(feature = "sim")]
#[test]
fn on_a_bad_network_an_end_without_error_means_all_of_it() {
    use std::cell::Cell;
    use std::rc::Rc;

    use tidegate_ring::random_u64;

    let (whole, cut) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for seed in 0..100 {
        let mut sim = tidegate_ring::sim::Sim::new(seed);
        sim.set_faults(tidegate_ring::sim::Faults { reset: 500, ..tidegate_ring::sim::Faults::HARSH });
        let (whole, cut) = (Rc::clone(&whole), Rc::clone(&cut));
        sim.worker(async move || {
            let authority = Authority::new();
            let (listener, addr) = listen();
            let server_tls = authority.server();
            let sent = text(100_000, seed as usize);
            let body = sent.clone();
            spawn(async move {
                loop {
                    let Ok(conn) = listener.accept().await else { continue };
                    let Ok(conn) = Conn::accept_tls(conn, &server_tls).await else { continue };
                    // One reply in three ends halfway, by a FIN and no reset: dropped as by a crash of the peer.
                    let part = if random_u64().is_multiple_of(3) { body.len() / 2 } else { body.len() };
                    if conn.send(&[&body[..part]]).await.is_ok() && part == body.len() {
                        conn.shutdown_write();
                        let _ = deadline(now_ns() + PATIENCE_NS, conn.recv()).await;
                    }
                }
            })
            .detach();
            let (client_tls, host) = (authority.client(), name("api.test"));
            for _ in 0..3 {
                let connecting = Conn::connect_tls(addr, &client_tls, &host);
                let Ok(Ok(conn)) = deadline(now_ns() + PATIENCE_NS, connecting).await else { continue };
                let Ok((got, error)) = deadline(now_ns() + 10 * PATIENCE_NS, read_to_end(&conn)).await else {
                    continue;
                };
                assert!(sent.starts_with(&got), "a wrong byte with seed {seed}");
                assert!(
                    error.is_some() || got.len() == sent.len(),
                    "a cut taken for the end with seed {seed}"
                );
                let count = if error.is_none() { &whole } else { &cut };
                count.set(count.get() + 1);
            }
        });
        assert_eq!(sim.run_until(u64::MAX), tidegate_ring::sim::Outcome::Finished, "seed {seed}");
        assert_eq!(sim.panics(), 0, "seed {seed}");
    }
    assert!(whole.get() > 30 && cut.get() > 30, "{} whole, {} cut", whole.get(), cut.get());
}

#[test]
fn what_was_read_before_the_handshake_belongs_to_it() {
    on_every_arm(|| async {
        let authority = Authority::new();
        let (listener, addr) = listen();
        let (client_tls, server_tls) = (authority.client(), authority.server());
        let serving = async {
            let conn = listener.accept().await.expect("accepted");
            let hello = conn.recv().await.expect("the client's hello");
            assert_eq!(conn.resumed(), None);
            let steps = Cell::new(0);
            let pace = async |step: &mut dyn FnMut()| {
                steps.set(steps.get() + 1);
                tidegate_ring::yield_now().await;
                step();
            };
            let conn = Conn::accept_tls_after(conn, &server_tls, &hello, pace).await.expect("a handshake");
            assert_eq!(conn.resumed(), Some(false));
            // The hello, and what ends the handshake.
            assert!(steps.get() >= 2, "{}", steps.get());
            conn.send(&[b"well met"]).await.expect("sent");
        };
        let calling = async {
            let name = name("api.test");
            let conn = Conn::connect_tls(addr, &client_tls, &name).await.expect("a handshake");
            assert_eq!(&*conn.recv().await.expect("plaintext"), b"well met");
        };
        both(serving, calling).await;
    });
}
