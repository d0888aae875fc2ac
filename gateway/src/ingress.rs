//! From an accepted socket to a connection that carries requests: whose it is, and the handshake of TLS where the data
//! port has it. Decides how long a client may take for both and how many of a worker shake hands at once; never takes a
//! stranger's word for where a call comes from, never serves plain requests on a port that has TLS.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use tidegate_core::{Moment, Snapshot, limits};
use tidegate_ring::Conn;
use tidegate_ring::tls::{ConnectError, ServerTls, TlsCheck};
use tidegate_wire::head::RequestHead;
use tidegate_wire::{forwarded, proxy};

use crate::inbound::Source;
use crate::plane::Published;
use crate::worker::Worker;

/// How a client's handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeEnd {
    /// A new session.
    Full,
    /// An earlier session was taken up.
    Resumed,
    /// So many others were at it that its time ran out before it began.
    Crowded,
    /// The client took longer than it may.
    TimedOut,
    /// The client ended it.
    Left,
    /// What the client sent is no TLS, or none that is offered here.
    NotSpoken,
    /// The client has no certificate where one is asked for.
    NoCertificate,
    /// The client's certificate is not acceptable.
    BadCertificate,
}

impl HandshakeEnd {
    /// All of them, in the order of their counters.
    pub(crate) const ALL: [HandshakeEnd; 8] = [
        HandshakeEnd::Full,
        HandshakeEnd::Resumed,
        HandshakeEnd::Crowded,
        HandshakeEnd::TimedOut,
        HandshakeEnd::Left,
        HandshakeEnd::NotSpoken,
        HandshakeEnd::NoCertificate,
        HandshakeEnd::BadCertificate,
    ];

    /// A stable word for metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            HandshakeEnd::Full => "full",
            HandshakeEnd::Resumed => "resumed",
            HandshakeEnd::Crowded => "crowded",
            HandshakeEnd::TimedOut => "timed_out",
            HandshakeEnd::Left => "left",
            HandshakeEnd::NotSpoken => "not_spoken",
            HandshakeEnd::NoCertificate => "no_certificate",
            HandshakeEnd::BadCertificate => "bad_certificate",
        }
    }

    fn of(error: &ConnectError) -> HandshakeEnd {
        match error {
            ConnectError::Io(_) => HandshakeEnd::Left,
            ConnectError::Tls { check, .. } => match check {
                TlsCheck::Truncated => HandshakeEnd::Left,
                TlsCheck::NoCertificate => HandshakeEnd::NoCertificate,
                TlsCheck::Protocol => HandshakeEnd::NotSpoken,
                TlsCheck::Expired | TlsCheck::WrongName | TlsCheck::UnknownIssuer | TlsCheck::Other => {
                    HandshakeEnd::BadCertificate
                }
            },
        }
    }
}

/// Handshakes of one worker, by how they ended.
#[derive(Debug, Default)]
pub(crate) struct Handshakes([AtomicU64; HandshakeEnd::ALL.len()]);

impl Handshakes {
    fn count(&self, end: HandshakeEnd) {
        self.0[end as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many ended so.
    pub(crate) fn of(&self, end: HandshakeEnd) -> u64 {
        self.0[end as usize].load(Ordering::Relaxed)
    }
}

/// Who is at the other end of a connection, as it was when that began.
pub(crate) struct Client {
    /// The other end itself.
    pub(crate) address: Option<SocketAddr>,
    /// Whose connection it is: whom a trusted proxy announced, else the other end.
    pub(crate) peer: Option<IpAddr>,
}

/// A connection that requests come on.
pub(crate) struct Opened {
    pub(crate) conn: Conn,
    pub(crate) client: Client,
    /// What was received on it already.
    pub(crate) source: Source,
}

/// Makes a connection ready for requests; `None` where there is nothing to serve.
pub(crate) async fn open(worker: &Worker, conn: Conn) -> Option<Opened> {
    let published = worker.published();
    let ingress = &published.snapshot.ingress;
    let address = conn.peer_addr();
    let peer = address.map(|it| it.ip().to_canonical());
    let announces = ingress.proxy_protocol && peer.is_some_and(|it| ingress.trusted_proxies.trusts(it));
    let opened = Opened { conn, client: Client { address, peer }, source: Source::default() };
    if published.ingress_tls.is_none() && !announces {
        return Some(opened);
    }
    // Boxed: a handshake's state is large, short-lived, and no reason for every connection to be as large.
    Box::pin(begin(worker, &published, opened, announces)).await
}

async fn begin(
    worker: &Worker,
    published: &Published,
    mut opened: Opened,
    announces: bool,
) -> Option<Opened> {
    let deadline = worker.now() + limits::HANDSHAKE_TIMEOUT;
    if announces {
        let announced = read_proxy_header(worker, &mut opened, deadline).await?;
        opened.client.peer = announced.or(opened.client.peer);
    }
    match &published.ingress_tls {
        None => Some(opened),
        Some(tls) => shake_hands(worker, opened, tls, deadline).await,
    }
}

/// Whose connection a trusted proxy says this is: `Some(None)` where it is its own.
async fn read_proxy_header(worker: &Worker, opened: &mut Opened, deadline: Moment) -> Option<Option<IpAddr>> {
    let Opened { conn, source, .. } = opened;
    let refuse = |reason: &str| {
        tracing::debug!(reason, "a trusted proxy did not say whose connection it is");
        worker.facts().proxy_headers_refused.fetch_add(1, Ordering::Relaxed);
    };
    loop {
        match proxy::parse(source.bytes(), limits::PROXY_HEADER_BYTES_MAX) {
            Ok(proxy::ProxyHeader::Complete { header_bytes, source: address }) => {
                source.consume(header_bytes);
                return Some(address);
            }
            Ok(proxy::ProxyHeader::Partial) => {}
            Err(refusal) => {
                refuse(&refusal.to_string());
                return None;
            }
        }
        let begun = !source.is_empty();
        match until(worker, deadline, begun, source.fill(conn)).await {
            Some(Ok(true)) => {}
            _ if begun => {
                refuse("it broke off");
                return None;
            }
            // It came and went without a word, as health checks do.
            _ => return None,
        }
    }
}

async fn shake_hands(worker: &Worker, opened: Opened, tls: &ServerTls, deadline: Moment) -> Option<Opened> {
    let count = |end| worker.facts().handshakes.count(end);
    let Opened { conn, client, mut source } = opened;
    // Silence costs a slot and no turn: who does not begin holds nobody up.
    if source.is_empty() {
        match until(worker, deadline, false, source.fill(&conn)).await {
            Some(Ok(true)) => {}
            None if !worker.is_draining() => {
                count(HandshakeEnd::TimedOut);
                return None;
            }
            // It came and went without a word, as health checks do.
            _ => return None,
        }
    }
    let Some(turn) = until(worker, deadline, true, worker.handshake_turns.take()).await else {
        count(HandshakeEnd::Crowded);
        return None;
    };
    let pace = async |step: &mut dyn FnMut()| {
        let turn = worker.handshake_steps.take().await;
        step();
        // Held over a turn of the loop: so many steps, then a look at everything else.
        tidegate_ring::yield_now().await;
        drop(turn);
    };
    let shaking = Conn::accept_tls_after(conn, tls, source.bytes(), pace);
    let shaken = until(worker, deadline, true, shaking).await;
    drop(turn);
    match shaken {
        Some(Ok(conn)) => {
            let resumed = conn.resumed() == Some(true);
            count(if resumed { HandshakeEnd::Resumed } else { HandshakeEnd::Full });
            Some(Opened { conn, client, source: Source::default() })
        }
        Some(Err(error)) => {
            tracing::debug!(%error, "no TLS connection with a client");
            count(HandshakeEnd::of(&error));
            None
        }
        None => {
            count(HandshakeEnd::TimedOut);
            None
        }
    }
}

/// The address that a call came from: the connection's, or what trusted proxies say about it. Where the two fields that
/// they may say it in differ, one of them was not theirs, and neither is believed.
pub(crate) fn source(
    snapshot: &Snapshot,
    peer: Option<IpAddr>,
    head: Option<&RequestHead>,
) -> Option<IpAddr> {
    let proxies = &snapshot.ingress.trusted_proxies;
    let (peer, head) = match (peer, head) {
        (Some(peer), Some(head)) if proxies.trusts(peer) => (peer, head),
        _ => return peer,
    };
    let said = |name: &'static str| head.field(name).is_some();
    let by_list = || head.field_all("x-forwarded-for").flat_map(forwarded::x_forwarded_for);
    let by_standard = || head.field_all("forwarded").flat_map(forwarded::forwarded);
    Some(match (said("x-forwarded-for"), said("forwarded")) {
        (false, false) => peer,
        (true, false) => proxies.source(peer, by_list()),
        (false, true) => proxies.source(peer, by_standard()),
        (true, true) => {
            let source = proxies.source(peer, by_list());
            if source == proxies.source(peer, by_standard()) { source } else { peer }
        }
    })
}

/// What `future` yields, before the deadline, the end of the grace and, where nothing has begun, the drain.
async fn until<F: Future>(worker: &Worker, deadline: Moment, begun: bool, future: F) -> Option<F::Output> {
    let mut future = pin!(tidegate_ring::deadline(deadline.as_ns(), future));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(output.ok());
        }
        let over = worker.is_cutting(false) || (worker.is_draining() && !begun);
        if over { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_counter_and_its_word() {
        let handshakes = Handshakes::default();
        for (at, end) in HandshakeEnd::ALL.into_iter().enumerate() {
            assert_eq!(end as usize, at);
            handshakes.count(end);
            assert_eq!(handshakes.of(end), 1, "{}", end.name());
            assert!(HandshakeEnd::ALL.iter().filter(|it| it.name() == end.name()).count() == 1);
        }
    }
}
