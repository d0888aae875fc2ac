//! The simulator: the real gateway on the simulated arm of `ring`, several workers on one thread, between callers and
//! providers that are simulated too, with everything that may go wrong decided by one seed. After every step the
//! assertions of [`check`] hold, or the run has failed.

#![forbid(unsafe_code)]

pub mod caller;
pub mod cases;
pub mod cells;
pub mod chance;
pub mod check;
pub mod config;
pub mod control;
pub mod http;
pub mod ledger;
pub mod limits;
pub mod memory;
pub mod panics;
pub mod provider;
pub mod quiet;
pub mod run;
pub mod script;
pub mod shrink;
pub mod trouble;
pub mod watch;
