//! What one attempt holds of a quota: its place among the calls in flight, its reservation, and its role after a
//! rest. It decides what the attempt has drawn by what was seen of it, and gives all of it up exactly once.

use std::sync::Arc;

use super::{Need, QuotaCell, amounts};
use crate::health::{AfterProbe, Ticket};
use crate::moment::Moment;
use crate::usage::Usage;

/// One attempt's hold on a quota. Dropping it (client gone, panic, cut) settles by what was seen: nothing before
/// it was sent, the estimate for each part that no usage stated after.
#[derive(Debug)]
#[must_use = "dropping a hold gives it up"]
pub struct QuotaHold {
    /// `None` once given up.
    pub(super) cell: Option<Arc<QuotaCell>>,
    pub(super) ticket: Ticket,
    /// The ticket when it was taken, whatever became of it.
    pub(super) probe: bool,
    pub(super) need: Need,
    /// What each limit was charged; `None` where it was not limited.
    pub(super) charged: [Option<u64>; 4],
    /// What each limit had reserved in all when the attempt was sent.
    pub(super) reserved_at_sent: [u64; 4],
    pub(super) sent: bool,
    pub(super) sent_at: Moment,
    pub(super) latest: Moment,
    pub(super) usage: Usage,
}

impl QuotaHold {
    /// The attempt's first byte goes out now. What others reserve from here on is what its reply cannot know of.
    pub fn mark_sent(&mut self, now: Moment) {
        self.sent = true;
        self.sent_at = now;
        self.latest = self.latest.max(now);
        if let Some(cell) = &self.cell {
            self.reserved_at_sent = cell.reserved();
        }
    }

    /// Notes what the reply says was used so far (cumulative; later statements replace earlier ones).
    pub fn observe(&mut self, usage: Usage) {
        self.usage.merge(usage);
    }

    /// The reply began well: a probe has won, a step of the ramp is done, strikes are forgotten. Once only.
    pub fn succeeded(&mut self, now: Moment) {
        self.latest = self.latest.max(now);
        let Some(cell) = &self.cell else { return };
        cell.gate.won(std::mem::replace(&mut self.ticket, Ticket::Free), AfterProbe::Ramp);
        cell.calls.succeeded();
    }

    /// True for the one call that found out whether the quota's rest is over.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// The provider did not process the attempt (429, never sent): the reservation comes back, the request too.
    pub fn refused(mut self) {
        self.close(None);
    }

    /// The attempt is over: settles by what was seen.
    pub fn settle(mut self, now: Moment) {
        self.latest = self.latest.max(now);
        self.close_by_what_was_seen();
    }

    fn close_by_what_was_seen(&mut self) {
        let used = self.sent.then(|| self.used());
        self.close(used);
    }

    /// Gives everything up, charging what each limit was found to have carried.
    fn close(&mut self, used: Option<[u64; 4]>) {
        let Some(cell) = self.cell.take() else { return };
        cell.gate.leave(self.ticket);
        cell.calls.end();
        for (at, dimension) in cell.dimensions.iter().enumerate() {
            let Some(charged) = self.charged[at] else { continue };
            match used {
                Some(used) => dimension.settle(charged, used[at], self.latest),
                None => dimension.give_back(charged),
            }
        }
    }

    /// What was used of each limit, in the order of [`amounts`].
    fn used(&self) -> [u64; 4] {
        let input =
            if self.usage.states_input() { self.usage.limited_input() } else { self.need.input_tokens };
        let output = self.usage.output_tokens.unwrap_or(self.need.output_tokens);
        let total = if self.usage.states_input() { self.usage.total_input() } else { self.need.input_tokens };
        amounts(self.need.requests, input, output, total)
    }
}

impl Drop for QuotaHold {
    fn drop(&mut self) {
        self.close_by_what_was_seen();
    }
}
