//! One quota: the bucket that an account has at a provider for a class of models, shared by all workers. It decides
//! whether a call may go now (rest, probe, ramp, predicted room) and learns from replies. It never chooses between
//! accounts, waits, or reads a clock; `choose` and `attempt` call it, the control plane builds and retunes it.
//!
//! # The protocol of the cell
//!
//! | words | say | written by |
//! | --- | --- | --- |
//! | gate | open, resting, probing, ramping; strikes ([`crate::health::Gate`]) | workers; `absorb`, a rest |
//! | calls | in flight, cap after a ramp refusal | workers; `absorb`, a lower cap |
//! | four dimensions | level, limits configured and learned, total reserved | workers; configured: the control plane |
//! | cold | whether a level is yet to be confirmed | workers and `absorb`, once, from true to false |
//!
//! Accesses are `Relaxed`: each word has one order of modifications, and each decision is one compare-and-swap of
//! one word. The exception is a level that a reply lowers (`dimension.rs`). An admission takes the gate's ticket, a
//! place in flight and the levels in this fixed order, each exact by itself, and undoes what it took where a later
//! one refuses; a call that races with a rest goes out as if it had come before it. The limit on requests is taken
//! last and never undone, so the undo of another limit cannot let too many through.
//!
//! **Levels are predictions.** They start full, are charged an estimate with its spread at admission, corrected at
//! the end, and lowered by what replies state. They are raised by refill alone. A small part stays unused
//! always: buckets refill continuously, so a part kept back costs no throughput.
//!
//! **Cold start.** When the process starts the account may be part spent. Until a reply's headers confirm a level,
//! or [`COLD_SPAN`] has passed, a limit is trusted only for what refilled since the cell was made.
//! [`QuotaCell::admit_cold`] is the way past that for a few calls when no account has room.

mod calls;
mod dimension;
mod facts;
mod hold;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use crate::limits::COLD_SPAN;
pub use facts::{Closed, DimensionView, Need, Observed, ObservedLimits, QuotaView, Room};
pub use hold::QuotaHold;

use crate::admission::LimitCell;
use crate::health::{Backoff, Gate, Phase, Shut, Ticket};
use crate::limits::{
    COLD_CALLS, RAMP_REST, REST_MAX, REST_STEP, REST_STEP_MAX, SPREAD_DIVISOR, UNKNOWN_WAIT,
};
use crate::moment::Moment;
use crate::snapshot::{Carried, QuotaLimits};
use crate::sync::{AtomicBool, Ordering};
use crate::usage::Usage;
use calls::Calls;
use dimension::{Dimension, Unit};

const REST: Backoff = Backoff { first: REST_STEP, longest: REST_STEP_MAX };
const RAMP: Backoff = Backoff { first: RAMP_REST, longest: REST_STEP_MAX };

const INPUT: usize = 0;
const OUTPUT: usize = 1;
const TOKENS: usize = 2;
const REQUESTS: usize = 3;
const UNITS: [Unit; 4] = [Unit::Tokens, Unit::Tokens, Unit::Tokens, Unit::Requests];

/// A quota's cells.
#[derive(Debug)]
#[repr(align(128))]
pub struct QuotaCell {
    gate: Gate,
    calls: Calls,
    /// In the order in which they are taken.
    dimensions: [Dimension; 4],
    cold: AtomicBool,
    born: Moment,
}

impl QuotaCell {
    /// An open quota with full levels.
    pub fn new(limits: &QuotaLimits, now: Moment) -> QuotaCell {
        QuotaCell {
            gate: Gate::default(),
            calls: Calls::new(),
            dimensions: [
                Dimension::new(limits.input_tokens),
                Dimension::new(limits.output_tokens),
                Dimension::new(None),
                Dimension::new(limits.requests),
            ],
            cold: AtomicBool::new(true),
            born: now,
        }
    }

    /// Takes over the limits of a new configuration. What is owed, learned and resting stays.
    pub fn retune(&self, limits: &QuotaLimits, _now: Moment) {
        self.dimensions[INPUT].retune(limits.input_tokens);
        self.dimensions[OUTPUT].retune(limits.output_tokens);
        self.dimensions[REQUESTS].retune(limits.requests);
    }

    /// Two accounts turned out to be one: keeps the lower limits and levels and the later rest of both.
    pub fn absorb(&self, other: &QuotaCell, now: Moment) {
        for (kept, given_up) in self.dimensions.iter().zip(&other.dimensions) {
            kept.absorb(given_up, now);
        }
        if let Phase::Resting { until } = other.gate.phase()
            && until > now
        {
            self.gate.rest_until(until, now);
        }
        self.calls.lower_cap(&other.calls);
        if !other.cold.load(Ordering::Relaxed) {
            self.cold.store(false, Ordering::Relaxed);
        }
    }

    /// Whether a call of this need fits now. Reads only; [`QuotaCell::admit`] decides.
    pub fn room(&self, need: &Need, now: Moment) -> Room {
        if let Err(shut) = self.gate.look(now) {
            let (until, why) = closed(shut, now);
            return Room::Closed { until, why };
        }
        if !self.calls.has_room() {
            return Room::Closed { until: now + UNKNOWN_WAIT, why: Closed::Ramping };
        }
        let wanted = reserved_amounts(need);
        let born = self.cold_since(now);
        let until = self.fits_from(&wanted, born);
        if until > now {
            return Room::Closed { until, why: Closed::NoRoom };
        }
        let shares = self.dimensions.iter().zip(wanted).map(|(it, n)| it.share_after(n, born, now));
        Room::Open { share: shares.fold(1.0, f64::min) }
    }

    /// Reserves the need in all limits and a place in flight; after a rest, as the one probe or a step of the ramp.
    /// `Err` names when to come back and why not now; nothing is held then.
    pub fn admit(self: &Arc<Self>, need: &Need, now: Moment) -> Result<QuotaHold, (Moment, Closed)> {
        self.admit_trusting(need, self.cold_since(now), None, now)
    }

    /// As [`QuotaCell::admit`], but trusts full levels that no reply has confirmed yet, for a few calls in flight.
    /// For when every account has refused for want of room; once a level is confirmed it is the same as `admit`.
    pub fn admit_cold(self: &Arc<Self>, need: &Need, now: Moment) -> Result<QuotaHold, (Moment, Closed)> {
        match self.cold_since(now) {
            Some(_) => self.admit_trusting(need, None, Some(COLD_CALLS), now),
            None => self.admit(need, now),
        }
    }

    /// Takes over what the headers of the reply to `hold`'s attempt say: limits, and levels where they are lower
    /// than predicted.
    pub fn learn(&self, hold: &QuotaHold, seen: &ObservedLimits, now: Moment) {
        let stated = [seen.input_tokens, seen.output_tokens, seen.tokens, seen.requests];
        let mut confirmed = false;
        for (at, stated) in stated.into_iter().enumerate() {
            if let Some(stated) = stated {
                confirmed |= self.dimensions[at].learn(stated, hold.reserved_at_sent[at], hold.sent_at, now);
            }
        }
        if confirmed && self.cold.load(Ordering::Relaxed) {
            self.cold.store(false, Ordering::Relaxed);
        }
    }

    /// Rests until then; a later end stays. For limits per day and verdicts of the control plane, which may exceed
    /// [`REST_MAX`].
    pub fn rest_until(&self, until: Moment) {
        self.gate.rest_until(until, Moment::ZERO);
    }

    /// A 429 of a bucket: rests for the time it named, at most [`REST_MAX`], else for one that doubles with each
    /// strike. A burst of refusals is one strike.
    pub fn limited(&self, retry_after: Option<Duration>, now: Moment, jitter: u32) {
        self.rest_or_strike(retry_after, REST, now, jitter);
    }

    /// A 429 of the ramp: a longer rest, and the calls in flight are capped at half, once for each rest.
    pub fn ramp_limited(&self, retry_after: Option<Duration>, now: Moment, jitter: u32) {
        if self.rest_or_strike(retry_after, RAMP, now, jitter) {
            self.calls.halve();
        }
    }

    /// Its state.
    pub fn view(&self, now: Moment) -> QuotaView {
        let phase = self.gate.phase();
        QuotaView {
            phase,
            resting_until: match phase {
                Phase::Resting { until } if now < until => Some(until),
                _ => None,
            },
            strikes: self.gate.strikes(),
            in_flight: self.calls.in_flight(),
            in_flight_cap: self.calls.cap(),
            cold: self.cold_since(now).is_some(),
            requests: self.dimensions[REQUESTS].view(now),
            input_tokens: self.dimensions[INPUT].view(now),
            output_tokens: self.dimensions[OUTPUT].view(now),
            tokens: self.dimensions[TOKENS].view(now),
        }
    }

    /// The buckets, in the order of the dimensions.
    pub(crate) fn limits(&self) -> [&LimitCell; 4] {
        [0, 1, 2, 3].map(|at: usize| self.dimensions[at].bucket())
    }

    fn admit_trusting(
        self: &Arc<Self>,
        need: &Need,
        born: Option<Moment>,
        in_flight_max: Option<u32>,
        now: Moment,
    ) -> Result<QuotaHold, (Moment, Closed)> {
        let ticket = self.gate.enter(now).map_err(|shut| closed(shut, now))?;
        if !self.calls.begin(in_flight_max) {
            self.gate.leave(ticket);
            // The few calls that may go on trust are out: what is missing is still room.
            let why = if self.calls.has_room() { Closed::NoRoom } else { Closed::Ramping };
            return Err((now + UNKNOWN_WAIT, why));
        }
        let wanted = reserved_amounts(need);
        let charged = self.take_levels(&wanted, born, now).map_err(|at| {
            self.calls.end();
            self.gate.leave(ticket);
            // What the other limits say may be later still.
            (at.max(self.fits_from(&wanted, born)), Closed::NoRoom)
        })?;
        Ok(QuotaHold {
            cell: Some(self.clone()),
            ticket,
            probe: matches!(ticket, Ticket::Probe { .. }),
            need: *need,
            charged,
            reserved_at_sent: self.reserved(),
            sent: false,
            sent_at: now,
            latest: now,
            usage: Usage::default(),
        })
    }

    fn take_levels(
        &self,
        wanted: &[u64; 4],
        born: Option<Moment>,
        now: Moment,
    ) -> Result<[Option<u64>; 4], Moment> {
        let mut charged = [None; 4];
        for at in 0..self.dimensions.len() {
            match self.dimensions[at].take(UNITS[at], wanted[at], born, now) {
                Ok(taken) => charged[at] = taken,
                Err(later) => {
                    (0..at).for_each(|it| self.dimensions[it].undo(wanted[it], charged[it]));
                    return Err(later);
                }
            }
        }
        Ok(charged)
    }

    fn fits_from(&self, wanted: &[u64; 4], born: Option<Moment>) -> Moment {
        let times =
            (0..self.dimensions.len()).map(|at| self.dimensions[at].fits_from(UNITS[at], wanted[at], born));
        times.fold(Moment::ZERO, Moment::max)
    }

    /// When the cell was made, while its levels are not to be trusted.
    fn cold_since(&self, now: Moment) -> Option<Moment> {
        (self.cold.load(Ordering::Relaxed) && now < self.born + COLD_SPAN).then_some(self.born)
    }

    /// True if this began a rest.
    fn rest_or_strike(
        &self,
        retry_after: Option<Duration>,
        backoff: Backoff,
        now: Moment,
        jitter: u32,
    ) -> bool {
        // A time of zero is no time: it would make each next call a probe at once.
        match retry_after.filter(|it| !it.is_zero()) {
            Some(wait) => self.gate.rest_until(now + wait.min(REST_MAX), now),
            None => self.gate.strike(backoff, now, jitter),
        }
    }

    fn reserved(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|at: usize| self.dimensions[at].reserved())
    }
}

impl Carried for QuotaCell {
    fn words(&self) -> Vec<u64> {
        let mut words = vec![self.gate.word_to_carry(), self.calls.cap_to_carry()];
        words.push(u64::from(self.cold.load(Ordering::Relaxed)));
        words.extend(self.dimensions.iter().flat_map(Dimension::words));
        words
    }

    fn take_over(&self, words: &[u64]) {
        let [gate, cap, cold, dimensions @ ..] = words else { return };
        if dimensions.len() != 2 * self.dimensions.len() {
            return;
        }
        self.gate.go_on_from(*gate);
        self.calls.go_on_from(*cap);
        // What was confirmed stays so. What was not is trusted no sooner than a quota made just now.
        self.cold.fetch_and(*cold != 0, Ordering::Relaxed);
        for (dimension, words) in self.dimensions.iter().zip(dimensions.chunks_exact(2)) {
            dimension.go_on_from(words[0], words[1]);
        }
    }
}

/// Amounts in the order of [`QuotaCell::dimensions`]; the joint bucket counts all input, cache reads included.
fn amounts(requests: u64, input: u64, output: u64, total_input: u64) -> [u64; 4] {
    let mut amounts = [0; 4];
    amounts[INPUT] = input;
    amounts[OUTPUT] = output;
    amounts[TOKENS] = total_input.saturating_add(output);
    amounts[REQUESTS] = requests;
    amounts
}

/// What a need reserves: tokens with their spread.
fn reserved_amounts(need: &Need) -> [u64; 4] {
    let spread = |n: u64| n.saturating_add(n.div_ceil(SPREAD_DIVISOR));
    let (input, output) = (spread(need.input_tokens), spread(need.output_tokens));
    amounts(need.requests, input, output, input)
}

fn closed(shut: Shut, now: Moment) -> (Moment, Closed) {
    match shut {
        Shut::Resting { until } => (until, Closed::Resting),
        Shut::Probing => (now + UNKNOWN_WAIT, Closed::Probing),
        Shut::Ramping => (now + UNKNOWN_WAIT, Closed::Ramping),
    }
}
