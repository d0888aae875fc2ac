//! TLS over any arm: rustls driven as the sans-I/O state machine that it is.
//!
//! `session` turns bytes of the wire into plaintext and back and knows no socket; `stream` moves those bytes over a
//! plain connection; `config` says whom we trust and who we are; `refusal` names the check that failed. There is one
//! layer for all drivers, and it never falls back: a peer that does not speak TLS, or that cannot prove its name, gives
//! an error and no connection. ALPN offers and accepts `http/1.1` alone.

mod config;
mod pool;
mod refusal;
mod session;
mod stream;

pub use config::{ClientTls, InvalidName, Roots, ServerIdentity, ServerName, ServerTls, TlsSetupError};
pub use refusal::{ConnectError, TlsCheck};

pub(crate) use pool::Pooled;
pub(crate) use stream::TlsConn;
