//! Restart without a lost call: how a process hands its listening sockets and cells to the next one. Decides the order
//! of steps and who serves when one fails; what is worth carrying is decided in `core`, who accepts in the gateway.
//!
//! The two speak over a Unix socket of mode 0600, each only to a process of the same user:
//!
//! | step | from | message | after it |
//! | --- | --- | --- | --- |
//! | 1 | new | `hello` | |
//! | 2 | old | `sockets`, then each listening socket | the new one does what takes time or may be refused |
//! | 3 | new | `ready` | the old one stops accepting; callers wait in the kernel's queues, which both hold |
//! | 4 | old | `cells` | the new one goes on with them and starts |
//! | 5 | new | `serving` | its workers run, and wait |
//! | 6 | old | `retired` | the new one accepts; the old one ends connections with their next answer, then itself |
//! | 7 | old | `changes`, again and again | the new one settles what the old one's running calls spend or give back |
//!
//! Until step 6 the old process serves: whatever fails before, it says so, accepts again as if nothing had been, and
//! the new one ends. Every wait has an end. Where the old one dies, the new one serves.

mod claim;
mod line;
mod offer;

use std::time::Duration;

pub(crate) use claim::{Claim, claim};
pub(crate) use offer::{Offer, Successor};

/// The version of the steps. Processes of different versions do not hand over.
const VERSION: u32 = 1;
/// Time for a message that its sender has at hand.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the next process to get ready: it resolves names and reads certificates.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for the next process to start its workers, while callers wait.
const SERVING_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the workers of the old process to stop accepting. They do within a turn of their loops.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked whether they have.
const PAUSE_POLL: Duration = Duration::from_millis(1);
/// How often the old process tells what its calls have spent.
const CHANGES_INTERVAL: Duration = Duration::from_millis(250);
