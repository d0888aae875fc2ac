//! From an accepted socket to a connection that carries requests: the handshake of TLS, where the data port has it.
//! Decides how long a client may take for it and how many of a worker do it at once; never serves plain requests on
//! a port that has TLS.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use tidegate_core::{Moment, limits};
use tidegate_ring::Conn;
use tidegate_ring::tls::{ConnectError, ServerTls, TlsCheck};

use crate::inbound::Source;
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

/// The connection that requests come on, and what was received on it; `None` where there is nothing to serve.
pub(crate) async fn open(worker: &Worker, conn: Conn) -> Option<(Conn, Source)> {
    let published = worker.published();
    match &published.ingress_tls {
        None => Some((conn, Source::default())),
        // Boxed: a handshake's state is large, short-lived, and no reason for every connection to be as large.
        Some(tls) => Box::pin(shake_hands(worker, conn, tls)).await,
    }
}

async fn shake_hands(worker: &Worker, conn: Conn, tls: &ServerTls) -> Option<(Conn, Source)> {
    let count = |end| worker.facts().handshakes.count(end);
    let deadline = worker.now() + limits::HANDSHAKE_TIMEOUT;
    let mut source = Source::default();
    // Silence costs a slot and no turn: who does not begin holds nobody up.
    match until(worker, deadline, false, source.fill(&conn)).await {
        Some(Ok(true)) => {}
        None if !worker.is_draining() => {
            count(HandshakeEnd::TimedOut);
            return None;
        }
        // It came and went without a word, as health checks do.
        _ => return None,
    }
    let Some(turn) = until(worker, deadline, true, worker.handshake_turns.take()).await else {
        count(HandshakeEnd::Crowded);
        return None;
    };
    let shaken = until(worker, deadline, true, Conn::accept_tls_after(conn, tls, source.bytes())).await;
    drop(turn);
    match shaken {
        Some(Ok(conn)) => {
            let resumed = conn.resumed() == Some(true);
            count(if resumed { HandshakeEnd::Resumed } else { HandshakeEnd::Full });
            Some((conn, Source::default()))
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
