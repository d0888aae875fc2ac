//! Rest, the one probe, and the ramp after it: a state machine in one atomic word. It decides whether a call may
//! go through now and in which role. It never knows what rests (a quota, a route), reads no clock, and is used by
//! [`crate::quota`] and [`super::RouteCell`].
//!
//! # The protocol of the word
//!
//! | bits | meaning |
//! | --- | --- |
//! | 0..40 | resting, probing: end of the rest or of the probe's lease, ms, rounded up |
//! | 0..32 | ramping: allowance (16 bits), then calls without a reply (16 bits) |
//! | 40..42 | the phase |
//! | 42..46 | strikes: rests without a time since the last success, at most 15 |
//! | 48..64 | generation: grows with each rest and each probe |
//!
//! Written by workers only, always by a compare-and-swap of the whole word, `Relaxed`: each decision is made from
//! this word alone and publishes nothing else. Two callers that both see an ended rest swap the same word, so one
//! of them gets the probe and the other reads a word that says so: never two probes. A rest that begins meanwhile
//! changes the generation, so the older probe's or ramp step's end no longer matches and writes nothing. A rest's
//! end is only ever replaced by a later one while it lasts. The generation wraps after 65,536 rests, and a ticket
//! is spent when the reply begins, so a stale one never meets its number again.

use std::time::Duration;

use crate::limits::{PROBE_LEASE, RAMP_DONE};
use crate::moment::{Moment, duration_ns};
use crate::sync::{AtomicU64, Ordering, step};

const NS_PER_MS: u64 = 1_000_000;
const PAYLOAD_MAX: u64 = (1 << 40) - 1;
const STRIKES_MAX: u64 = 15;

const _: () = assert!(RAMP_DONE.is_power_of_two() && RAMP_DONE < 1 << 16);

/// Where a gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything goes through.
    Open,
    /// The probe won; so many calls may be without a reply at once.
    Ramping {
        /// Calls that may wait for their reply at once; doubles with each success.
        allowance: u32,
        /// Calls that wait for it now.
        waiting: u32,
    },
    /// One call went through and everything waits for its reply.
    Probing {
        /// When the probe is given up.
        lease_until: Moment,
    },
    /// Nothing goes through until then; after it, one call does.
    Resting {
        /// The end of the rest.
        until: Moment,
    },
}

/// In which role a call went through; handed back by [`Gate::won`] or [`Gate::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// The gate was open: nothing to hand back.
    Free,
    /// The one probe.
    Probe {
        /// The probe's generation.
        generation: u16,
    },
    /// A step of the ramp.
    Step {
        /// The ramp's generation.
        generation: u16,
    },
}

/// Why nothing goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// A probe is out.
    Probing,
    /// The ramp's allowance is used up.
    Ramping,
    /// Resting until then.
    Resting {
        /// The end of the rest.
        until: Moment,
    },
}

/// What follows a probe that won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterProbe {
    /// Everything goes through at once.
    Open,
    /// The allowance grows from one.
    Ramp,
}

/// Rests that name no time: they double with each strike, and a random part is added so that many gates do not
/// end at the same instant.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first rest.
    pub first: Duration,
    /// No rest is longer, the random part included.
    pub longest: Duration,
}

impl Backoff {
    /// The rest after `strikes` earlier ones: `first * 2^strikes`, at most four fifths of the longest, plus up to
    /// a quarter of that by `jitter` (any random number).
    pub fn rest(self, strikes: u32, jitter: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << strikes.min(20));
        let base = doubled.min(self.longest * 4 / 5);
        let part_ns = u128::from(duration_ns(base) / 4) * u128::from(jitter) / u128::from(u32::MAX);
        base + Duration::from_nanos(part_ns as u64)
    }
}

/// One word: open, resting, probing or ramping.
#[derive(Debug)]
pub struct Gate(AtomicU64);

impl Default for Gate {
    fn default() -> Gate {
        Gate(AtomicU64::new(Word::default().pack()))
    }
}

impl Gate {
    /// Whether a call would go through, and whether it would be the probe. Reads only.
    pub fn look(&self, now: Moment) -> Result<Ticket, Shut> {
        self.load().pass(now).map(|(_, ticket)| ticket)
    }

    /// Lets a call through if the phase allows one more: the probe or a ramp step is taken with it.
    pub fn enter(&self, now: Moment) -> Result<Ticket, Shut> {
        if let (word, Ticket::Free) = self.load().pass(now)? {
            debug_assert!(word.phase == PHASE_OPEN);
            return Ok(Ticket::Free);
        }
        let mut taken = Ticket::Free;
        step(&self.0, |word| {
            let (next, ticket) = Word::unpack(word).pass(now)?;
            taken = ticket;
            Ok(next.pack())
        })?;
        Ok(taken)
    }

    /// Rests until `until` or until the end of the rest that lasts, whichever is later. True if no rest lasted at
    /// `now`, so that this began one.
    pub fn rest_until(&self, until: Moment, now: Moment) -> bool {
        let mut began = false;
        let _ = step::<()>(&self.0, |word| {
            let word = Word::unpack(word);
            began = !word.rests(now);
            Ok(word.resting(to_ms(until), word.strikes).pack())
        });
        began
    }

    /// Rests for a time that grows with each strike since the last success. While a rest lasts this changes
    /// nothing: a burst of refusals is one strike. True if it began a rest.
    pub fn strike(&self, backoff: Backoff, now: Moment, jitter: u32) -> bool {
        step(&self.0, |word| {
            let word = Word::unpack(word);
            if word.rests(now) {
                return Err(());
            }
            let until = now + backoff.rest(word.strikes as u32, jitter);
            Ok(word.resting(to_ms(until), (word.strikes + 1).min(STRIKES_MAX)).pack())
        })
        .is_ok()
    }

    /// The reply of a call that went through with `ticket` began: a probe opens the gate or its ramp, a ramp step
    /// doubles the allowance until [`RAMP_DONE`]. A ticket of an earlier rest changes nothing.
    pub fn won(&self, ticket: Ticket, then: AfterProbe) {
        let _ = step(&self.0, |word| {
            let word = Word::unpack(word);
            match ticket {
                Ticket::Probe { generation } if word.is(PHASE_PROBING, generation) => {
                    Ok(word.won(then).pack())
                }
                Ticket::Step { generation } if word.is(PHASE_RAMPING, generation) => {
                    let allowance = word.allowance() * 2;
                    let waiting = word.waiting().saturating_sub(1);
                    Ok(if allowance >= u64::from(RAMP_DONE) {
                        word.open()
                    } else {
                        word.ramping(allowance, waiting)
                    }
                    .pack())
                }
                _ => Err(()),
            }
        });
    }

    /// A call went well whose ticket is not at hand: a probe that is out counts as won. A rest that lasts stays.
    pub fn won_by_any(&self) {
        let _ = step(&self.0, |word| {
            let word = Word::unpack(word);
            if word.phase == PHASE_PROBING { Ok(word.won(AfterProbe::Open).pack()) } else { Err(()) }
        });
    }

    /// A call that went through ended without a verdict on the gate: another may probe, or take the step.
    pub fn leave(&self, ticket: Ticket) {
        let _ = step(&self.0, |word| {
            let word = Word::unpack(word);
            match ticket {
                Ticket::Probe { generation } if word.is(PHASE_PROBING, generation) => {
                    Ok(word.resting(0, word.strikes).pack())
                }
                Ticket::Step { generation } if word.is(PHASE_RAMPING, generation) => {
                    Ok(word.ramping(word.allowance(), word.waiting().saturating_sub(1)).pack())
                }
                _ => Err(()),
            }
        });
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        let word = self.load();
        match word.phase {
            PHASE_RESTING => Phase::Resting { until: from_ms(word.payload) },
            PHASE_PROBING => Phase::Probing { lease_until: from_ms(word.payload) },
            PHASE_RAMPING => {
                Phase::Ramping { allowance: word.allowance() as u32, waiting: word.waiting() as u32 }
            }
            _ => Phase::Open,
        }
    }

    /// Rests without a time since the last success.
    pub fn strikes(&self) -> u32 {
        self.load().strikes as u32
    }

    /// The word for the next process. A probe or a step of the ramp that is out stays with its call: the next process
    /// sends its own.
    pub(crate) fn word_to_carry(&self) -> u64 {
        let word = self.load();
        match word.phase {
            PHASE_PROBING => Word { payload: 0, phase: PHASE_RESTING, ..word },
            PHASE_RAMPING => word.ramping(word.allowance().max(1), 0),
            _ => word,
        }
        .pack()
    }

    /// Goes on with the word of another process. Before the first call.
    pub(crate) fn go_on_from(&self, word: u64) {
        self.0.store(word, Ordering::Relaxed);
    }

    fn load(&self) -> Word {
        Word::unpack(self.0.load(Ordering::Relaxed))
    }
}

const PHASE_OPEN: u64 = 0;
const PHASE_RESTING: u64 = 1;
const PHASE_PROBING: u64 = 2;
const PHASE_RAMPING: u64 = 3;

/// The word taken apart.
#[derive(Clone, Copy, Default)]
struct Word {
    payload: u64,
    phase: u64,
    strikes: u64,
    generation: u16,
}

impl Word {
    fn unpack(word: u64) -> Word {
        Word {
            payload: word & PAYLOAD_MAX,
            phase: word >> 40 & 3,
            strikes: word >> 42 & STRIKES_MAX,
            generation: (word >> 48) as u16,
        }
    }

    fn pack(self) -> u64 {
        self.payload | self.phase << 40 | self.strikes << 42 | u64::from(self.generation) << 48
    }

    fn is(self, phase: u64, generation: u16) -> bool {
        self.phase == phase && self.generation == generation
    }

    fn rests(self, now: Moment) -> bool {
        self.phase == PHASE_RESTING && now < from_ms(self.payload)
    }

    /// What one more call makes of the word, and its role.
    fn pass(self, now: Moment) -> Result<(Word, Ticket), Shut> {
        let over = now >= from_ms(self.payload);
        match self.phase {
            PHASE_OPEN => Ok((self, Ticket::Free)),
            PHASE_RESTING if !over => Err(Shut::Resting { until: from_ms(self.payload) }),
            PHASE_PROBING if !over => Err(Shut::Probing),
            PHASE_RAMPING if self.waiting() >= self.allowance() => Err(Shut::Ramping),
            PHASE_RAMPING => Ok((
                self.ramping(self.allowance(), self.waiting() + 1),
                Ticket::Step { generation: self.generation },
            )),
            _ => {
                let generation = self.generation.wrapping_add(1);
                let payload = to_ms(now + PROBE_LEASE);
                Ok((Word { payload, phase: PHASE_PROBING, generation, ..self }, Ticket::Probe { generation }))
            }
        }
    }

    fn resting(self, until_ms: u64, strikes: u64) -> Word {
        let kept_ms = if self.phase == PHASE_RESTING { self.payload } else { 0 };
        let generation = self.generation.wrapping_add(1);
        Word { payload: until_ms.max(kept_ms), phase: PHASE_RESTING, strikes, generation }
    }

    fn won(self, then: AfterProbe) -> Word {
        match then {
            AfterProbe::Open => self.open(),
            AfterProbe::Ramp => Word { strikes: 0, ..self }.ramping(1, 0),
        }
    }

    fn open(self) -> Word {
        Word { payload: 0, phase: PHASE_OPEN, strikes: 0, ..self }
    }

    fn ramping(self, allowance: u64, waiting: u64) -> Word {
        Word { payload: allowance | waiting << 16, phase: PHASE_RAMPING, ..self }
    }

    fn allowance(self) -> u64 {
        self.payload & 0xFFFF
    }

    fn waiting(self) -> u64 {
        self.payload >> 16 & 0xFFFF
    }
}

fn to_ms(moment: Moment) -> u64 {
    moment.as_ns().div_ceil(NS_PER_MS).min(PAYLOAD_MAX)
}

fn from_ms(ms: u64) -> Moment {
    // The last value stands for "never": 34 years are beyond any rest.
    if ms == PAYLOAD_MAX { Moment::NEVER } else { Moment::from_ns(ms * NS_PER_MS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

    fn at_ms(ms: u64) -> Moment {
        Moment::from_ns(ms * NS_PER_MS)
    }

    #[test]
    fn a_rest_ends_with_one_probe_then_a_ramp() {
        let gate = Gate::default();
        assert_eq!(gate.enter(at_ms(0)), Ok(Ticket::Free));
        assert!(gate.rest_until(at_ms(1000), at_ms(0)));
        assert_eq!(gate.enter(at_ms(999)), Err(Shut::Resting { until: at_ms(1000) }));
        let probe = gate.enter(at_ms(1000)).unwrap();
        assert!(matches!(probe, Ticket::Probe { .. }));
        assert_eq!(gate.enter(at_ms(1000)), Err(Shut::Probing));
        gate.won(probe, AfterProbe::Ramp);
        let mut allowed = 1;
        while allowed < RAMP_DONE {
            let tickets: Vec<_> = (0..allowed).map(|_| gate.enter(at_ms(2000)).unwrap()).collect();
            assert_eq!(gate.enter(at_ms(2000)), Err(Shut::Ramping), "at {allowed}");
            gate.won(tickets[0], AfterProbe::Ramp);
            tickets[1..].iter().for_each(|&it| gate.leave(it));
            allowed *= 2;
        }
        assert_eq!(gate.phase(), Phase::Open);
        assert_eq!(gate.enter(at_ms(2000)), Ok(Ticket::Free));
    }

    #[test]
    fn a_probe_that_vanished_leaves_room_for_the_next() {
        let gate = Gate::default();
        gate.rest_until(at_ms(10), at_ms(0));
        let probe = gate.enter(at_ms(10)).unwrap();
        gate.leave(probe);
        let second = gate.enter(at_ms(11)).unwrap();
        assert!(matches!(second, Ticket::Probe { .. }) && second != probe);
        // The first one's late end no longer matters.
        gate.won(probe, AfterProbe::Ramp);
        gate.leave(probe);
        assert_eq!(gate.enter(at_ms(12)), Err(Shut::Probing));
        // Nor does a holder that never comes back: its lease ends.
        let third = gate.enter(at_ms(11) + PROBE_LEASE).unwrap();
        assert!(matches!(third, Ticket::Probe { .. }) && third != second);
    }

    #[test]
    fn a_rest_is_never_shortened_and_voids_the_probe() {
        let gate = Gate::default();
        assert!(gate.rest_until(at_ms(5000), at_ms(0)));
        assert!(!gate.rest_until(at_ms(1000), at_ms(0)));
        assert!(!gate.strike(BACKOFF, at_ms(0), 0));
        gate.won_by_any();
        assert_eq!(gate.phase(), Phase::Resting { until: at_ms(5000) });
        let probe = gate.enter(at_ms(5000)).unwrap();
        assert!(gate.rest_until(at_ms(9000), at_ms(5001)));
        gate.won(probe, AfterProbe::Ramp);
        assert_eq!(gate.phase(), Phase::Resting { until: at_ms(9000) });
    }

    #[test]
    fn rests_double_with_strikes_of_separate_episodes() {
        let gate = Gate::default();
        let mut now = at_ms(0);
        for expect_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 48_000, 48_000] {
            assert!(gate.strike(BACKOFF, now, 0));
            // The rest of a burst.
            assert!(!gate.strike(BACKOFF, now, u32::MAX));
            let until = now + Duration::from_millis(expect_ms);
            assert_eq!(gate.phase(), Phase::Resting { until });
            now = until;
            assert!(matches!(gate.enter(now), Ok(Ticket::Probe { .. })));
        }
        gate.won_by_any();
        assert_eq!((gate.strikes(), gate.phase()), (0, Phase::Open));
    }

    #[test]
    fn jitter_stays_within_a_quarter_and_the_longest() {
        assert_eq!(BACKOFF.rest(0, u32::MAX), Duration::from_millis(1250));
        assert_eq!(BACKOFF.rest(3, 0), Duration::from_secs(8));
        assert_eq!(BACKOFF.rest(40, u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn never_and_fractions_survive_the_packing() {
        let gate = Gate::default();
        gate.rest_until(Moment::from_ns(1), Moment::ZERO);
        assert_eq!(gate.phase(), Phase::Resting { until: at_ms(1) });
        gate.rest_until(Moment::NEVER, Moment::ZERO);
        assert_eq!(gate.phase(), Phase::Resting { until: Moment::NEVER });
    }
}
