//! The kernel behind one facade: sockets, timers, tasks and the clock of one worker thread.
//!
//! Three arms do the work: io_uring, epoll, and (feature `sim`) a simulated one without a kernel. The code above
//! is the same async code on all of them and never learns which one runs it.
//!
//! This crate decides nothing about calls, callers or providers, keeps no configuration, and has no limit of its
//! own that a caller could feel: they come in by [`RingOptions`]. It is the only crate with `unsafe`, and within it
//! only two modules have any: `driver::uring::sys`, which talks to the kernel by memory, and `inherited`, which takes
//! passed descriptors over.

mod chunk;
mod clock;
mod conn;
mod driver;
mod exec;
pub mod fault;
#[expect(unsafe_code, reason = "a passed descriptor is a bare number until somebody owns it")]
mod inherited;
mod listener;
mod options;
mod plain;
mod select;
mod signal;
#[cfg(feature = "sim")]
pub mod sim;
mod socket;
mod timer;
pub mod tls;
mod wheel;
mod worker;

pub use chunk::Chunk;
pub use clock::{fresh_now_ns, now_ns, wall_ms};
pub use conn::Conn;
pub use exec::{Panicked, Task};
pub use inherited::inherited_listeners;
pub use listener::Listener;
pub use options::RingOptions;
pub use select::{Driver, IoChoice, ProbeRefusal, ProbeStage, Selection, select};
pub use signal::{Level, Signal, Trigger, signal};
pub use timer::{Either, Elapsed, Sleep, deadline, race, sleep_until, yield_now};
pub use worker::{Counts, counts, panics, random_u64, run, spawn};
