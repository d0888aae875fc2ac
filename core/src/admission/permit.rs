//! The proof of admission. It decides what a call has cost by what was seen of it, and writes that into the
//! caller's cells exactly once, whichever way the call ends. It never refuses anything.

use std::sync::Arc;

use super::CallerCells;
use crate::moment::Moment;
use crate::usage::{Estimate, Usage};

/// Proof that a call was admitted; what sends a call upstream takes it. Made by [`super::reserve`] alone.
///
/// The order of calls: [`Permit::sent`] once an upstream may have begun to work, [`Permit::observe`] for each usage
/// the reply states, then [`Permit::settle`] or [`Permit::refund`]. Dropping it (client gone, panic, deadline)
/// settles by what was seen so far.
#[derive(Debug)]
#[must_use = "dropping a permit settles it"]
pub struct Permit {
    /// `None` once settled, and for callers without limits.
    cells: Option<Arc<CallerCells>>,
    /// Tokens taken from the limit; `None` where tokens were not limited at admission.
    held_tokens: Option<u64>,
    estimate: Estimate,
    usage: Usage,
    sent: bool,
    granted_at: Moment,
}

impl Permit {
    pub(super) fn holding(
        cells: Arc<CallerCells>,
        held_tokens: Option<u64>,
        estimate: Estimate,
        now: Moment,
    ) -> Permit {
        Permit {
            cells: Some(cells),
            held_tokens,
            estimate,
            usage: Usage::default(),
            sent: false,
            granted_at: now,
        }
    }

    pub(super) fn unlimited(estimate: Estimate) -> Permit {
        Permit {
            cells: None,
            held_tokens: None,
            estimate,
            usage: Usage::default(),
            sent: false,
            granted_at: Moment::ZERO,
        }
    }

    /// An upstream may have begun to work: from now on a part that no usage states costs its estimate.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// Notes what the reply says was used so far (cumulative; later statements replace earlier ones).
    pub fn observe(&mut self, usage: Usage) {
        self.sent = true;
        self.usage.merge(usage);
    }

    /// What was observed so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// True while settling would use the estimate for some part.
    pub fn is_estimated(&self) -> bool {
        self.sent && (!self.usage.states_input() || self.usage.output_tokens.is_none())
    }

    /// Settles by what was seen; more than was reserved becomes a debt.
    pub fn settle(mut self, now: Moment) {
        self.close(now);
    }

    /// A try failed: what it stated is not what this call uses.
    pub fn forget_usage(&mut self) {
        self.usage = Usage::default();
    }

    /// Nothing was used: the tokens come back, the request counts.
    pub fn refund(mut self) {
        self.sent = false;
        self.close(self.granted_at);
    }

    fn close(&mut self, now: Moment) {
        let Some(cells) = self.cells.take() else { return };
        cells.end_call();
        let Some(held) = self.held_tokens else { return };
        let used = if self.sent { cells.counted(self.usage, self.estimate) } else { 0 };
        if used > held {
            cells.tokens.owe(used - held, now);
        } else {
            cells.tokens.give_back(held - used);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A drop brings no time with it. The time of admission is enough: only a bucket that was full since then
        // would count a debt from later on.
        self.close(self.granted_at);
    }
}
