//! The control plane: configuration, the supervision tree, slow verdicts, exports, admin.
//!
//! Everything here runs on tokio in one thread beside the data plane and never touches a socket that callers use.
//! It publishes [`Snapshot`](tidegate_core::Snapshot)s, reads [`Report`](tidegate_core::Report)s, and writes those
//! cells that carry slow verdicts: a key usable or out, the order of a chain, addresses. The data plane never waits
//! for it; with every actor dead the last verdicts stand.

#![forbid(unsafe_code)]

mod access;
mod admin;
mod board;
mod chain;
mod clock;
pub mod config;
mod door;
mod exporter;
mod gauges;
mod initial;
mod key;
mod metrics;
mod names;
mod owners;
mod probe;
mod pump;
mod quota;
mod reach;
mod reload;
mod resolver;
mod root;
mod status;
mod totals;
mod watchdog;

#[cfg(test)]
mod tests;

pub use board::{ConfigOrigin, WorkerFacts};
pub use config::{
    AccessSink, AdminSettings, Checked, Complaint, Complaints, IoSetting, LogFormat, LogLevel, LogSettings,
    Place, Settings, Severity, admin_address, check_file, check_text, schema, without_file,
};
pub use initial::{KnownAccount, curl_examples, initial_snapshot, joined_snapshot};
pub use owners::{StateError, load_owners};
pub use reach::{Ground, allows, ground};
pub use resolver::resolve_all;
pub use root::{ControlPlane, StartError, Wiring, start};
pub use tidegate_core::snapshot;
pub use tidegate_providers::{AGENTS, Agent, AgentSetup};
pub use totals::{AccountTotals, Totals};
