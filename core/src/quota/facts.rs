//! The plain values that go into and come out of a quota: what a call needs, what reply headers say, what is left.

use crate::health::Phase;
use crate::moment::Moment;
use crate::usage::{Estimate, Tokens};

/// What a call will draw from a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Requests: one.
    pub requests: u64,
    /// Input that counts, by estimate.
    pub input_tokens: Tokens,
    /// Output, by estimate.
    pub output_tokens: Tokens,
}

impl From<Estimate> for Need {
    /// One request of this estimate.
    fn from(estimate: Estimate) -> Need {
        Need { requests: 1, input_tokens: estimate.input_tokens, output_tokens: estimate.output_tokens }
    }
}

/// What the headers of one reply say about the quota's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObservedLimits {
    /// Requests.
    pub requests: Option<Observed>,
    /// Input tokens.
    pub input_tokens: Option<Observed>,
    /// Output tokens.
    pub output_tokens: Option<Observed>,
    /// Input and output in one bucket.
    pub tokens: Option<Observed>,
}

/// One limit as a reply states it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Units per minute.
    pub limit: u64,
    /// Units left when the reply's head was written.
    pub remaining: Option<u64>,
    /// `remaining` is rounded to a multiple of this; zero or one where it is exact.
    pub granularity: u64,
}

/// Whether a call fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Room {
    /// Not now.
    Closed {
        /// When it may; the true end of a rest or refill, a guess of a second behind a probe or a ramp.
        until: Moment,
        /// Why not.
        why: Closed,
    },
    /// It does.
    Open {
        /// Room left after the call as a share of the capacity, 0 to 1, of the tightest limit; 1 without a limit.
        share: f64,
    },
}

/// Why a quota takes no call now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// A limit's predicted level cannot carry the call.
    NoRoom,
    /// The one probe after a rest is out.
    Probing,
    /// The allowance of the ramp, or the cap on calls in flight, is used up.
    Ramping,
    /// It rests.
    Resting,
}

/// A quota's state, for metrics and the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaView {
    /// Open, resting, probing or ramping.
    pub phase: Phase,
    /// The end of the rest, while it lasts.
    pub resting_until: Option<Moment>,
    /// Rests without a time since the last success.
    pub strikes: u32,
    /// Calls in flight.
    pub in_flight: u32,
    /// How many there may be, after a ramp refusal.
    pub in_flight_cap: Option<u32>,
    /// No reply has confirmed a level yet, and the process is young.
    pub cold: bool,
    /// Requests.
    pub requests: DimensionView,
    /// Input tokens.
    pub input_tokens: DimensionView,
    /// Output tokens.
    pub output_tokens: DimensionView,
    /// Input and output in one bucket.
    pub tokens: DimensionView,
}

/// One limit of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DimensionView {
    /// Units per minute in force: the lower of the configured and the learned; `None` where neither is known.
    pub limit: Option<u64>,
    /// Predicted units left, below zero in debt; `None` without a limit.
    pub level: Option<i64>,
    /// What replies stated, if any did.
    pub learned: Option<u64>,
}
