//! What is known of the health of routes, keys, (key, model) pairs and accounts, and the budget of retries. Each is
//! a cell of one or two atomic words, fed by the worker that learns a fact. Nothing here chooses, retries or reads
//! a clock; `attempt` feeds it, `choose` reads it, the control plane settles what a suspect key is.
//!
//! # The protocol of the cells
//!
//! Every word is changed by compare-and-swap (or `fetch_max`) alone, `Relaxed`: each decision is made from one word
//! and publishes nothing else. Where two words speak (a route's back-off and its breaker) both must let a call
//! through, so a race between them can only keep a call out.
//!
//! | cell | words | written by |
//! | --- | --- | --- |
//! | [`RouteCell`] | back-off gate, breaker gate, its window | workers |
//! | [`KeyCell`] | state and serial | workers (suspect), the key actor (verdicts) |
//! | [`PairCell`] | end of the rest | workers |
//! | [`AccountCell`] | since when it is out | workers (spent), a reload and the quota actor (reopened) |
//! | [`RetryBudget`] | calls and moves of late; the floor's bucket | workers |

mod gate;
mod key;
mod retry;
mod route;
mod window;

pub use gate::{AfterProbe, Backoff, Gate, Phase, Shut, Ticket};
pub use key::{AccountCell, KeyCell, KeyState, KeyVerdict, PairCell};
pub use retry::RetryBudget;
pub use route::{RouteCell, RouteClosed, RouteGate, RoutePass, RouteView};
