//! The data plane: everything between a caller's socket and a provider's.
//!
//! Start at `path.rs`: it is the life of one request, top to bottom. Deciding happens in `tidegate_core`,
//! vendors live in `tidegate_providers`, the kernel in `tidegate_ring`; this crate moves bytes between them and
//! keeps three promises of its own: it never blocks a worker, never waits for an actor, and gives a caller
//! exactly one answer.

#![forbid(unsafe_code)]

mod answer;
mod attempts;
mod body;
mod connection;
mod doors;
mod handover;
mod heads;
mod host;
mod inbound;
mod ingress;
mod launch;
mod listing;
mod objects;
mod path;
pub mod plane;
mod record;
mod relay;
#[cfg(feature = "sim")]
pub mod sim;
mod turns;
mod upstream;
pub mod worker;

pub use handover::Inbox;
pub use launch::{Launch, LaunchError, Launched, Prepared, launch, now, prepare};
pub use plane::{Plane, PlaneOptions, Published, Refused};
pub use tidegate_core::limits::{DRAIN_GRACE, DRAIN_GRACE_STREAMS};
pub use tidegate_ring::{IoChoice, inherited_listeners, select};
pub use worker::{WorkerSetup, start};
