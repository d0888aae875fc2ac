//! What a walk has met, and from it the one true answer when nothing is left to try.
//!
//! The order is: waiting helps (a quota closed, then an overload), something failed, the model was refused,
//! the operator has to act. Only the last says that a repeat cannot help.

use super::GiveUp;
use crate::choose::NoChoice;
use crate::fault::{Fault, FaultKind};
use crate::moment::Moment;
use crate::verdict::{TargetFailure, Verdict};

/// What was met so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    /// Where no account could be chosen, why.
    nobody: NoChoice,
    /// When the first quota that refused opens.
    limited_until: Option<Moment>,
    /// When the first overloaded route may be tried.
    overloaded_until: Option<Moment>,
    /// When the first route with an open breaker may be tried.
    broken_until: Option<Moment>,
    failure: Option<TargetFailure>,
    model_refused: bool,
    key_refused: bool,
    spent_seen: bool,
    spliced_unknown: bool,
    redirected: bool,
    kept: Kept,
}

/// What the answer that is kept says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Nothing,
    Failure,
    Refusal,
}

impl Tally {
    pub(super) const NOTHING: Tally = Tally {
        nobody: NoChoice::NOTHING,
        limited_until: None,
        overloaded_until: None,
        broken_until: None,
        failure: None,
        model_refused: false,
        key_refused: false,
        spent_seen: false,
        spliced_unknown: false,
        redirected: false,
        kept: Kept::Nothing,
    };

    /// Takes note of a verdict. True: its answer is to be kept for the caller.
    pub(super) fn note(&mut self, verdict: Verdict, name_is_configured: bool) -> bool {
        match verdict {
            Verdict::TargetFailed(failure) => {
                self.failure = Some(failure);
                if matches!(failure, TargetFailure::Status(_)) {
                    self.kept = Kept::Failure;
                    return true;
                }
            }
            Verdict::KeyModelRefused { not_found: true } if name_is_configured => self.spliced_unknown = true,
            Verdict::KeyModelRefused { .. } => {
                self.model_refused = true;
                // A failure is told before a refusal, so its answer stays.
                if self.kept != Kept::Failure {
                    self.kept = Kept::Refusal;
                    return true;
                }
            }
            Verdict::KeyRefused => self.key_refused = true,
            Verdict::AccountSpent => self.spent_seen = true,
            Verdict::Redirected => self.redirected = true,
            // Noted with their times.
            Verdict::QuotaLimited { .. } | Verdict::QuotaRamp { .. } | Verdict::RouteOverloaded { .. } => {}
            Verdict::Success | Verdict::CallerFault => {}
        }
        false
    }

    /// A quota refused and opens then.
    pub(super) fn note_limited(&mut self, until: Moment) {
        self.limited_until = earlier(self.limited_until, until);
    }

    /// A route is closed until then.
    pub(super) fn note_route(&mut self, until: Moment, overloaded: bool) {
        let place = if overloaded { &mut self.overloaded_until } else { &mut self.broken_until };
        *place = earlier(*place, until);
    }

    /// No account could be chosen at a target.
    pub(super) fn note_nobody(&mut self, why: &NoChoice) {
        self.nobody.merge(why);
    }

    /// The answer when nothing is left to try (ARCHITECTURE.md, "Plan exhausted").
    pub(super) fn give_up(&self, now: Moment) -> GiveUp {
        if self.nobody.any_closed() || self.limited_until.is_some() {
            let soonest = [self.limited_until, self.overloaded_until].into_iter().flatten();
            return plain(later(
                FaultKind::QuotasResting,
                soonest.fold(self.nobody.soonest, Moment::min),
                now,
            ));
        }
        if let Some(until) = self.overloaded_until {
            return plain(later(FaultKind::RoutesOverloaded, until, now));
        }
        if let Some(failure) = self.failure {
            return GiveUp {
                fault: Fault::new(kind_of(failure)),
                prefer_upstream_answer: self.kept == Kept::Failure,
            };
        }
        if let Some(until) = self.broken_until {
            return plain(later(FaultKind::UpstreamFailed, until, now));
        }
        if self.model_refused && !self.key_refused && !self.spent_seen {
            return GiveUp { fault: Fault::never(FaultKind::NoUsableKey), prefer_upstream_answer: true };
        }
        plain(self.operators_fault())
    }

    fn operators_fault(&self) -> Fault {
        let no_key = self.key_refused || self.model_refused;
        if no_key || self.nobody.any_suspect || self.nobody.any_pair_resting {
            Fault::never(FaultKind::NoUsableKey)
        } else if self.spliced_unknown {
            Fault::never(FaultKind::SplicedModelUnknown)
        } else if self.redirected {
            Fault::new(FaultKind::Redirected)
        } else if self.spent_seen || self.nobody.any_spent {
            Fault::never(FaultKind::AccountsOut)
        } else {
            Fault::never(FaultKind::NoUsableKey)
        }
    }
}

fn plain(fault: Fault) -> GiveUp {
    GiveUp { fault, prefer_upstream_answer: false }
}

fn later(kind: FaultKind, soonest: Moment, now: Moment) -> Fault {
    // Where nobody knows a time, none is made up.
    if soonest == Moment::NEVER { Fault::new(kind) } else { Fault::later(kind, soonest.since(now)) }
}

fn kind_of(failure: TargetFailure) -> FaultKind {
    match failure {
        TargetFailure::Silence => FaultKind::UpstreamTimedOut,
        TargetFailure::Proxy(failure) => FaultKind::UpstreamProxy(failure),
        TargetFailure::Tls(failure) => FaultKind::UpstreamTls(failure),
        TargetFailure::Connect | TargetFailure::Cut | TargetFailure::Status(_) => FaultKind::UpstreamFailed,
    }
}

fn earlier(known: Option<Moment>, other: Moment) -> Option<Moment> {
    Some(known.map_or(other, |it| it.min(other)))
}
