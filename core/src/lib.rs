//! Everything that *decides*: who is calling, what may be spent, where a call goes, what a reply means.
//!
//! Values in, values out. This crate has no I/O, no clock, no async and no unsafe code; time arrives as a
//! [`Moment`], randomness as a number. The three values between the planes are defined here:
//! [`Snapshot`] (configuration, read by workers), the cells (`admission`, `quota`, `health`: what changes per
//! request, atomics) and [`Report`] (plain facts, workers to actors).

#![forbid(unsafe_code)]

pub mod access;
pub mod admission;
pub mod attempt;
pub mod balance;
pub mod caller;
pub mod choose;
pub mod estimate;
pub mod family;
pub mod fault;
pub mod guessing;
pub mod health;
pub mod ingress;
pub mod limits;
pub mod moment;
pub mod owner;
pub mod quota;
pub mod report;
pub mod route;
pub mod secret;
pub mod snapshot;
pub mod source;
mod sync;
pub mod usage;
pub mod verdict;

pub use family::{Families, Family};
pub use fault::{Blame, Fault, FaultKind, Retry};
pub use moment::Moment;
pub use report::Report;
pub use secret::Secret;
pub use snapshot::Snapshot;
pub use usage::{Tokens, Usage};
pub use verdict::Verdict;
