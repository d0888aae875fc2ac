//! A provider with true quotas, for tests, benchmarks and the demo: the real headers, errors and streams, scripted
//! faults,
//! and books of its own to hold the gateway's against.
//!
//! It runs on one thread of its own and listens on loopback only. It decides what a provider would answer; it shares
//! no code with the gateway's own reckoning of quotas, or the two would make the same mistake.
//!
//! Calls: `/v1/messages`, `/v1/messages/count_tokens`, `/v1/messages/batches`, `/v1/models` and `/v1/files` (both
//! forms), `/v1/chat/completions`, `/v1/responses`, `/v1/batches`, `/v1/embeddings`, `/v1/images`, `/v1/audio`.
//! Control: `/_mock/journal`, `requests`, `quota`, `script`, `reset`; [`MockHandle`] wraps them.

mod answer;
mod ask;
mod batches;
mod chat;
mod client;
mod config;
mod control;
mod embeddings;
mod files;
mod form;
mod generate;
mod headers;
mod journal;
mod kept;
mod line;
mod listing;
mod media;
mod messages;
mod prompt;
mod protocol;
mod provider;
mod quota;
mod random;
mod refusal;
mod reply;
mod responses;
mod script;
mod server;
mod stored;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use tidegate_ring::tls::ServerTls;
use tidegate_ring::{Driver, Listener, RingOptions, Signal, Trigger, run, signal};

pub use config::{
    Draw, KeyConfig, KeyState, LatencyConfig, Limits, MockConfig, ModelConfig, OrganizationConfig,
    OutputConfig, TlsConfig,
};
pub use control::ScriptChange;
pub use journal::{BodyEncoding, Book, CallRecord, Ending, Journal, KeptRequest, OrganizationBook};
pub use quota::{Level, Levels};
pub use script::{Fault, Rule};

use provider::Provider;

const RING: RingOptions =
    RingOptions { recv_buffer_bytes: 16 * 1024, recv_buffers: 1024, lent_chunks_max: 8, entries: 1024 };

/// Starts mock providers.
#[derive(Debug)]
pub struct Mock;

impl Mock {
    /// Starts one on a thread of its own; it listens when this returns.
    ///
    /// # Errors
    /// Settings that make no sense, a port that is taken, a certificate that is none.
    pub fn start(config: MockConfig, driver: Driver) -> Result<MockHandle, MockError> {
        config.check().map_err(MockError::Config)?;
        let tls = match &config.tls {
            Some(tls) => Some(
                ServerTls::new(tls.chain_pem.as_bytes(), tls.key_pem.as_bytes())
                    .map_err(|error| MockError::Config(format!("tls: {error}")))?,
            ),
            None => None,
        };
        let (trigger, stop) = signal();
        let (bound, is_bound) = sync_channel(1);
        let encrypted = tls.is_some();
        let thread = std::thread::Builder::new()
            .name("mock".to_owned())
            .spawn(move || {
                let failed = bound.clone();
                if let Err(error) = run(driver, &RING, move || listen(config, tls, stop, bound)) {
                    let _ = failed.try_send(Err(error));
                }
            })
            .map_err(MockError::Io)?;
        let ended = || io::Error::other("the mock's thread ended before it listened");
        match is_bound.recv().unwrap_or_else(|_| Err(ended())) {
            Ok(addr) => Ok(MockHandle { addr, encrypted, trigger, thread: Some(thread) }),
            Err(error) => Err(MockError::Io(error)),
        }
    }
}

async fn listen(
    config: MockConfig,
    tls: Option<ServerTls>,
    stop: Signal,
    bound: SyncSender<io::Result<SocketAddr>>,
) {
    let listener = match Listener::bind(config.listen) {
        Ok(listener) => listener,
        Err(error) => {
            let _ = bound.try_send(Err(error));
            return;
        }
    };
    let _ = bound.try_send(listener.local_addr());
    server::serve(Rc::new(Provider::new(config)), listener, tls, stop).await;
}

/// A running mock; dropping it stops it and waits for its thread. Its methods block the calling thread for one exchange
/// over loopback; not for use on a worker, nor with `tls`.
pub struct MockHandle {
    addr: SocketAddr,
    encrypted: bool,
    trigger: Trigger,
    thread: Option<JoinHandle<()>>,
}

impl MockHandle {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its base URL, without `/v1`.
    pub fn base_url(&self) -> String {
        let scheme = if self.encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// The books.
    ///
    /// # Errors
    /// If the mock cannot be asked.
    pub fn journal(&self) -> Result<Journal, MockError> {
        client::ask(self.addr, "GET", "journal", "")
    }

    /// The last requests byte for byte, the oldest first.
    ///
    /// # Errors
    /// If the mock cannot be asked.
    pub fn requests(&self) -> Result<Vec<KeptRequest>, MockError> {
        client::ask(self.addr, "GET", "requests", "")
    }

    /// The true levels, by organization and class of models.
    ///
    /// # Errors
    /// If the mock cannot be asked.
    pub fn quota(&self) -> Result<BTreeMap<String, BTreeMap<String, Levels>>, MockError> {
        client::ask(self.addr, "GET", "quota", "")
    }

    /// Changes script and keys.
    ///
    /// # Errors
    /// Rules that make no sense, keys that nobody has; or if the mock cannot be asked.
    pub fn change(&self, change: &ScriptChange) -> Result<(), MockError> {
        let body = serde_json::to_string(change).map_err(|error| MockError::Config(error.to_string()))?;
        client::ask::<serde_json::Value>(self.addr, "POST", "script", &body).map(|_| ())
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// See [`MockHandle::change`].
    pub fn script(&self, rule: Rule) -> Result<(), MockError> {
        self.change(&ScriptChange { rules: vec![rule], ..ScriptChange::default() })
    }

    /// Forgets books and script; buckets and keys are as at the start.
    ///
    /// # Errors
    /// If the mock cannot be asked.
    pub fn reset(&self) -> Result<(), MockError> {
        client::ask::<serde_json::Value>(self.addr, "POST", "reset", "").map(|_| ())
    }

    /// Waits until the mock ends by itself, which only a failure makes it do.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for MockHandle {
    fn drop(&mut self) {
        self.trigger.fire();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for MockHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockHandle").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// Why there is no mock, or no answer from it.
#[derive(Debug)]
pub enum MockError {
    /// Settings or a script that make no sense.
    Config(String),
    /// The system.
    Io(io::Error),
    /// The mock answered what was not asked for.
    Answer(String),
}

impl fmt::Display for MockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MockError::Config(what) => f.write_str(what),
            MockError::Io(error) => write!(f, "mock: {error}"),
            MockError::Answer(what) => write!(f, "mock: {what}"),
        }
    }
}

impl std::error::Error for MockError {}

#[cfg(test)]
mod tests;
