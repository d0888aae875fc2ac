//! A connection to an origin: from the pool, else made. Decides which address is tried; never resolves a name
//! (the control plane publishes addresses) and never falls back from TLS to plain.

use tidegate_core::snapshot::Provider;
use tidegate_core::verdict::{TargetFailure, TlsFailure};
use tidegate_core::{Moment, Verdict, limits};
use tidegate_ring::Conn;
use tidegate_ring::tls::{ConnectError, TlsCheck};

use super::Upstream;
use crate::inbound::Source;
use crate::plane::OriginTls;
use crate::worker::Worker;

/// No connection could be had.
#[derive(Debug)]
pub(crate) struct ConnectFailure {
    pub(crate) failure: TargetFailure,
    /// For the operator's log.
    pub(crate) detail: String,
}

impl ConnectFailure {
    /// What it means for the walk.
    pub(crate) fn verdict(&self) -> Verdict {
        Verdict::TargetFailed(self.failure)
    }
}

/// A connection that may carry a request to `provider`: a kept one where `reuse` allows it, else a new one before
/// `deadline`.
pub(crate) async fn checkout(
    worker: &Worker,
    provider: &Provider,
    transport: Option<&OriginTls>,
    reuse: bool,
    deadline: Moment,
) -> Result<Upstream, ConnectFailure> {
    if reuse && let Some(kept) = worker.pools.borrow_mut().take(&provider.origin, worker.now()) {
        return Ok(kept);
    }
    // Boxed: a handshake's state is large, rare, and no reason for every idle connection to be as large.
    Box::pin(connect(worker, provider, transport, deadline)).await
}

async fn connect(
    worker: &Worker,
    provider: &Provider,
    transport: Option<&OriginTls>,
    deadline: Moment,
) -> Result<Upstream, ConnectFailure> {
    let origin = &provider.origin;
    if origin.tls && transport.is_none() {
        // Never plain where TLS is configured, whatever else went wrong.
        let failure = TargetFailure::Tls(TlsFailure::Unverified);
        return Err(ConnectFailure { failure, detail: "no TLS transport".into() });
    }
    let addresses = origin.addresses.load_full();
    let mut last =
        ConnectFailure { failure: TargetFailure::Connect, detail: format!("{} has no address", origin.host) };
    let start = if addresses.len() > 1 { worker.turn_address() } else { 0 };
    let tried = addresses.len().min(limits::ADDRESSES_TRIED_MAX);
    for step in 0..tried {
        let address = addresses[(start + step) % addresses.len()];
        // An address that swallows everything must leave time for the others.
        let now = worker.now();
        let share = deadline.since(now) / (tried - step) as u32;
        let connecting = async {
            match transport {
                None => Conn::connect(address).await.map_err(ConnectError::Io),
                Some(it) => Conn::connect_tls(address, &it.tls, &it.name).await,
            }
        };
        let made = tidegate_ring::deadline((now + share).as_ns(), connecting).await;
        match made.unwrap_or_else(|_| Err(ConnectError::Io(std::io::ErrorKind::TimedOut.into()))) {
            Ok(conn) => return Ok(Upstream { conn, source: Source::default(), reused: false }),
            Err(ConnectError::Tls { check, detail }) => {
                // Another address of the same name has the same certificate.
                let detail = format!("{address}: {check:?}: {detail}");
                return Err(ConnectFailure { failure: TargetFailure::Tls(failure_of(check)), detail });
            }
            Err(ConnectError::Io(error)) => last.detail = format!("{address}: {error}"),
        }
    }
    Err(last)
}

fn failure_of(check: TlsCheck) -> TlsFailure {
    match check {
        TlsCheck::Expired => TlsFailure::Expired,
        TlsCheck::WrongName => TlsFailure::WrongName,
        TlsCheck::UnknownIssuer => TlsFailure::UnknownIssuer,
        TlsCheck::Truncated => TlsFailure::Truncated,
        TlsCheck::Protocol => TlsFailure::Protocol,
        TlsCheck::NoCertificate | TlsCheck::Other => TlsFailure::Unverified,
    }
}
