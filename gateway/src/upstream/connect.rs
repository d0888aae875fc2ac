//! A connection to an origin: from the pool, else made. Decides which address is tried; never resolves a name
//! (the control plane publishes addresses) and never falls back from TLS to plain.

use tidegate_core::snapshot::{Origin, Provider};
use tidegate_core::verdict::{ProxyFailure, TargetFailure, TlsFailure};
use tidegate_core::{Moment, Verdict, limits};
use tidegate_ring::Conn;
use tidegate_ring::tls::{ConnectError, TlsCheck};

use super::{Upstream, tunnel};
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
    let unreached = match &origin.proxy {
        Some(_) => TargetFailure::Proxy(ProxyFailure::Unreachable),
        None => TargetFailure::Connect,
    };
    let mut last =
        ConnectFailure { failure: unreached, detail: format!("{} has no address", origin.dialed().0) };
    let start = if addresses.len() > 1 { worker.turn_address() } else { 0 };
    let tried = addresses.len().min(limits::ADDRESSES_TRIED_MAX);
    for step in 0..tried {
        let address = addresses[(start + step) % addresses.len()];
        // An address that swallows everything must leave time for the others.
        let now = worker.now();
        let share = now + deadline.since(now) / (tried - step) as u32;
        let connecting = async {
            let conn = Conn::connect(address).await.map_err(|error| (unreached, error.to_string()))?;
            begin(conn, origin, transport).await
        };
        let made = tidegate_ring::deadline(share.as_ns(), connecting).await;
        match made.unwrap_or_else(|_| Err((unreached, "no answer in time".into()))) {
            Ok(conn) => return Ok(Upstream { conn, source: Source::default(), reused: false }),
            Err((failure, detail)) => {
                last = ConnectFailure { failure, detail: format!("{address}: {detail}") };
                // Another address of the same name has the same certificate, and the same rules.
                if failure != unreached && failure != TargetFailure::Connect {
                    break;
                }
            }
        }
    }
    Err(last)
}

/// What stands between a socket and a request: the proxy's tunnel, then TLS.
async fn begin(
    conn: Conn,
    origin: &Origin,
    transport: Option<&OriginTls>,
) -> Result<Conn, (TargetFailure, String)> {
    let conn = match &origin.proxy {
        None => conn,
        Some(proxy) => tunnel::open(conn, proxy, origin)
            .await
            .map_err(|(failure, detail)| (TargetFailure::Proxy(failure), detail))?,
    };
    let Some(transport) = transport else { return Ok(conn) };
    Conn::start_tls(conn, &transport.tls, &transport.name).await.map_err(|error| match error {
        ConnectError::Io(error) => (TargetFailure::Connect, error.to_string()),
        ConnectError::Tls { check, detail } => {
            (TargetFailure::Tls(failure_of(check)), format!("{check:?}: {detail}"))
        }
    })
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
