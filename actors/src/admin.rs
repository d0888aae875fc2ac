//! The admin listener: probes, metrics and the status API. Never on the data port; answers nothing that changes
//! anything.
//!
//! `/livez`, `/readyz` and `/metrics` answer everyone who reaches the port. The API asks for the token; without one
//! it answers on loopback only, to requests that name this host by a literal address or `localhost` (a web page
//! whose name was pointed at loopback names its own).

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tidegate_core::caller::digest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::board::Board;
use crate::{gauges, status};

/// Connections served at once; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time a connection may live: a scraper comes back.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// How often the actor looks whether its listener still runs.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after an accept that failed (descriptors are used up).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin actor is told.
pub(crate) enum AdminMessage {
    /// The next look is due.
    Look,
}

/// The actor.
pub(crate) struct Admin;

/// The listening task, which ends with the actor.
pub(crate) struct AdminState(JoinHandle<()>);

impl Drop for AdminState {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for Admin {
    type Msg = AdminMessage;
    type State = AdminState;
    type Arguments = Arc<Board>;

    async fn pre_start(
        &self,
        myself: ActorRef<AdminMessage>,
        board: Arc<Board>,
    ) -> Result<AdminState, ActorProcessingErr> {
        let listener = TcpListener::from_std(board.admin_listener.try_clone()?)?;
        myself.send_message(AdminMessage::Look)?;
        let open = board.admin_open.subscribe();
        Ok(AdminState(tokio::spawn(serve(listener, open, router(board)))))
    }

    async fn handle(
        &self,
        myself: ActorRef<AdminMessage>,
        AdminMessage::Look: AdminMessage,
        state: &mut AdminState,
    ) -> Result<(), ActorProcessingErr> {
        if state.0.is_finished() {
            return Err("the admin listener ended".into());
        }
        myself.send_after(LOOK_INTERVAL, || AdminMessage::Look);
        Ok(())
    }
}

async fn serve(listener: TcpListener, mut open: watch::Receiver<bool>, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        // The board, and with it the sender, outlives this task.
        if open.wait_for(|it| *it).await.is_err() {
            return;
        }
        let accepted = tokio::select! {
            _ = open.wait_for(|it| !*it) => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let router = router.clone();
                connections.spawn(async move {
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, converse(stream, router)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, router: Router) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // How a probe's connection ends concerns nobody.
    let _ = connection.await;
}

fn router(board: Arc<Board>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(api_status))
        .with_state(board)
}

async fn livez() -> &'static str {
    "alive\n"
}

async fn readyz(State(board): State<Arc<Board>>) -> Result<Response, Infallible> {
    let code = match status::readiness(&board) {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok(json(code, &status::ready_body(&board)))
}

async fn metrics(State(board): State<Arc<Board>>) -> Response {
    match text(&board) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// All metrics as text.
pub(crate) fn text(board: &Board) -> Result<String, std::fmt::Error> {
    let mut out = String::with_capacity(64 * 1024);
    board.metrics.write(&mut out)?;
    gauges::write(board, &mut out)?;
    prometheus_client::encoding::text::encode_eof(&mut out)?;
    Ok(out)
}

async fn api_status(State(board): State<Arc<Board>>, headers: HeaderMap) -> Response {
    match permitted(&board, &headers) {
        Ok(()) => json(StatusCode::OK, &status::status_body(&board)),
        Err(code) => code.into_response(),
    }
}

fn json(code: StatusCode, body: &serde_json::Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

/// Whether a request may use the API.
fn permitted(board: &Board, headers: &HeaderMap) -> Result<(), StatusCode> {
    let loaded = board.loaded.load();
    let Some(token) = &loaded.checked.settings.admin.token else {
        let on_loopback = board.admin_listener.local_addr().is_ok_and(|it| it.ip().is_loopback());
        let host = headers.get(header::HOST).and_then(|it| it.to_str().ok()).unwrap_or_default();
        return if on_loopback && names_this_host(host) { Ok(()) } else { Err(StatusCode::FORBIDDEN) };
    };
    let presented = headers.get(header::AUTHORIZATION).map(|it| it.as_bytes()).unwrap_or_default();
    let presented = presented.strip_prefix(b"Bearer ").unwrap_or_default();
    // Digests are compared: how far two of them agree tells nothing about the token.
    match digest(presented) == digest(token.expose().as_bytes()) {
        true => Ok(()),
        false => Err(StatusCode::UNAUTHORIZED),
    }
}

fn names_this_host(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (host, expect) in [
            ("127.0.0.1:4001", true),
            ("127.0.0.1", true),
            ("[::1]:4001", true),
            ("localhost:4001", true),
            ("localhost", true),
            ("evil.example:4001", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(names_this_host(host), expect, "{host}");
        }
    }
}
