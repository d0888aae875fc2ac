//! The walk of one call along its plan: verdicts in, actions out (ARCHITECTURE.md).
//!
//! [`Walk::poll_action`] says where to send the call or that it is over; whoever does it tells the [`Exchange`]
//! what happens to it, and hands it back with a verdict where the reply is not good. The walk writes what it
//! learns into the cells at once, so every worker knows, and decides whether and where the call goes next. Each
//! move away from a 429, 529, 401 or an account without money is free, because its cause is out of play; the first
//! move after any other failure is free; further ones are paid from the retry budget that all calls share.
//!
//! It reads no clock, draws no random number, does no I/O, and cannot run for ever: at most `PLAN_TARGETS_MAX`
//! targets with `PLAN_ACCOUNTS_MAX` tries each.

mod exchange;
mod tally;

use crate::choose::{Affinity, Choice, Draw, Scope, Tried, Wish, choose};
use crate::fault::Fault;
use crate::health::{RouteGate, RoutePass};
use crate::limits::{OVERLOAD_STEP, PLAN_ACCOUNTS_MAX, PLAN_TARGETS_MAX, REST_STEP};
use crate::moment::Moment;
use crate::quota::{Need, Room};
use crate::route::{Plan, PlannedTarget};
use crate::snapshot::{AccountId, Snapshot};
use crate::verdict::{TargetFailure, Verdict};

pub use exchange::{Closing, Deadlines, Exchange};
use exchange::{Pass, Refusals};
use tally::Tally;

const _: () =
    assert!(PLAN_TARGETS_MAX * PLAN_ACCOUNTS_MAX <= u8::MAX as usize, "attempts are counted in a u8");

/// What kind of call it is.
#[derive(Clone, Copy, Debug)]
pub struct CallShape {
    /// The reply is a stream.
    pub streamed: bool,
    /// The call makes, continues or names something kept at one account: it never moves after a byte of it was sent.
    pub pinned: bool,
    /// Its results say something about quotas, keys and routes. False for counting tokens: such a call moves on
    /// like any other, but nothing rests, counts or is reserved because of it.
    pub counts_health: bool,
}

/// When and with which random number something is judged.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Now.
    pub now: Moment,
    /// A random number, for rests that must not end everywhere at the same time.
    pub jitter: u32,
}

/// What is to be done.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once per try and taken apart at once; a box would allocate"
)]
pub enum Action {
    /// Send the call there.
    Send(Exchange),
    /// Answer the caller; no further try is possible.
    GiveUp(GiveUp),
}

/// The end of a walk without a good reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GiveUp {
    /// What to answer.
    pub fault: Fault,
    /// An upstream's own answer that was kept (see [`Walk::keeps_answer`]) tells the caller more than the fault.
    pub prefer_upstream_answer: bool,
}

/// What a verdict leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Poll for the next action.
    TryAgain,
    /// Return the upstream's answer unchanged.
    Answer,
}

/// One call on its way.
#[derive(Debug)]
pub struct Walk {
    plan: Plan,
    /// Position of the target at hand.
    at: usize,
    /// What was tried at the target at hand.
    tried: Tried,
    need: Need,
    affinity: Option<Affinity>,
    shape: CallShape,
    began: Moment,
    attempts: u8,
    spilled: bool,
    /// The next try is a move that is not free by its cause.
    owes_move: bool,
    free_move_used: bool,
    /// No further try, whatever is left of the plan.
    over: bool,
    keeps_answer: bool,
    refusals: Refusals,
    tally: Tally,
}

impl Walk {
    /// A walk along `plan` for a call that is expected to use `need` and began `now`.
    pub fn new(plan: Plan, need: Need, affinity: Option<Affinity>, shape: CallShape, now: Moment) -> Walk {
        Walk {
            plan,
            at: 0,
            tried: Tried::NOTHING,
            need,
            affinity,
            shape,
            began: now,
            attempts: 0,
            spilled: false,
            owes_move: false,
            free_move_used: false,
            over: false,
            keeps_answer: false,
            refusals: Refusals::NONE,
            tally: Tally::NOTHING,
        }
    }

    /// What to do now. Called first, and after each [`Next::TryAgain`]; once it gives up it always does.
    /// `snapshot` is the one that the plan was made from, in every call.
    pub fn poll_action(&mut self, snapshot: &Snapshot, draw: &mut Draw, now: Moment) -> Action {
        while !self.over {
            let Some(target) = self.plan.targets().get(self.at).copied() else {
                self.over = true;
                break;
            };
            match self.exchange_at(snapshot, &target, draw, now) {
                None => self.go_to_next_target(),
                Some(exchange) if self.pays(snapshot, now) => {
                    self.attempts += 1;
                    return Action::Send(exchange);
                }
                // Dropped unsent, so what it reserved comes back.
                Some(_) => self.over = true,
            }
        }
        let mut give_up = self.tally.give_up(now);
        give_up.prefer_upstream_answer |= self.plan.is_with_own_credential();
        Action::GiveUp(give_up)
    }

    /// Takes back an exchange that brought no good reply, and tells cells and walk what it means.
    pub fn handle_verdict(
        &mut self,
        snapshot: &Snapshot,
        exchange: Exchange,
        verdict: Verdict,
        context: Context,
    ) -> Next {
        let target = exchange.target;
        let began_to_work = exchange.was_sent() || !is_before_sending(verdict);
        let (account, key) = (exchange.account, exchange.key);
        exchange.conclude(snapshot, verdict, context);
        if matches!(verdict, Verdict::Success | Verdict::CallerFault) {
            self.over = true;
            self.keeps_answer = false;
            return Next::Answer;
        }
        self.keeps_answer = self.tally.note(verdict, target.name.is_configured());
        self.note_when(snapshot, account, &target, verdict, context.now);
        match self.scope_of(verdict, &target) {
            Some(scope) => self.tried.add(account, key, scope),
            None => self.go_to_next_target(),
        }
        if let Verdict::KeyModelRefused { not_found: false } = verdict {
            self.refusals.add(key, self.position_of(&target), &target);
        }
        self.owes_move = !is_free(verdict);
        if self.shape.pinned && began_to_work {
            self.over = true;
        }
        if self.plan.is_with_own_credential() {
            // Whatever the provider said, it said it to the caller.
            self.over = true;
            self.keeps_answer = true;
        }
        Next::TryAgain
    }

    /// Takes back an exchange whose request did not go out a second time, because its way is closed by now
    /// ([`Exchange::closed_meanwhile`]). Nothing is blamed, and the move is free: its cause is out of play.
    pub fn withdraw(&mut self, exchange: Exchange, closing: Closing) {
        let (account, key) = (exchange.account, exchange.key);
        let configured = exchange.target.name.is_configured();
        // What went out the first time may have been counted: the reservation settles by drop.
        drop(exchange);
        match closing {
            Closing::Route { until, overloaded } => {
                self.tally.note_route(until, overloaded);
                self.go_to_next_target();
            }
            Closing::Quota { until } => {
                self.tally.note_limited(until);
                self.tried.add(account, key, Scope::Quota);
            }
            Closing::Account => {
                self.tally.note(Verdict::AccountSpent, configured);
                self.tried.add(account, key, Scope::Account);
            }
            Closing::Key => {
                self.tally.note(Verdict::KeyRefused, configured);
                self.tried.add(account, key, Scope::Key);
            }
        }
        self.owes_move = false;
    }

    /// How often the call was sent, the present time included.
    pub fn attempts(&self) -> u8 {
        self.attempts
    }

    /// Whether an account that affinity or weight alone would have given was passed over for want of room.
    pub fn spilled(&self) -> bool {
        self.spilled
    }

    /// Whether the answer that was just judged is to be kept, in place of any kept before, for the case that the
    /// walk gives up and prefers an upstream's own answer. Answers about our keys or quotas are never kept.
    pub fn keeps_answer(&self) -> bool {
        self.keeps_answer
    }

    fn go_to_next_target(&mut self) {
        self.at += 1;
        self.tried = Tried::NOTHING;
    }

    /// A reserved try at `target`, or `None` when nobody there can take the call.
    fn exchange_at(
        &mut self,
        snapshot: &Snapshot,
        target: &PlannedTarget,
        draw: &mut Draw,
        now: Moment,
    ) -> Option<Exchange> {
        let pass = self.enter(snapshot, target, now)?;
        let wish = Wish {
            target,
            need: &self.need,
            affinity: self.affinity,
            only: self.plan.only(),
            counted: self.shape.counts_health && !self.plan.is_with_own_credential(),
            tried: &self.tried,
        };
        let choice = if self.tried.is_full() { None } else { Some(choose(snapshot, &wish, draw, now)) };
        match choice? {
            Choice::None(none) => {
                self.tally.note_nobody(&none);
                None
            }
            Choice::Picked { account, key, hold, spilled } => {
                self.spilled |= spilled;
                Some(Exchange::new(
                    target,
                    (account, key),
                    (self.attempts, self.at as u8),
                    (self.began, now),
                    Pass {
                        hold,
                        route: pass,
                        counted: self.shape.counts_health,
                        own_credential: self.plan.is_with_own_credential(),
                    },
                    self.refusals,
                ))
            }
        }
    }

    /// Whether the route lets the call through. The outer `None` is a closed route; a call that says nothing
    /// about health only looks, and never goes as the probe.
    fn enter(
        &mut self,
        snapshot: &Snapshot,
        target: &PlannedTarget,
        now: Moment,
    ) -> Option<Option<RoutePass>> {
        let cell = &snapshot.provider(target.provider).route(target.route).cell;
        if !self.shape.counts_health {
            return match cell.gate(now) {
                RouteGate::Closed { until, overloaded } => {
                    self.tally.note_route(until, overloaded);
                    None
                }
                RouteGate::Open | RouteGate::Probe => Some(None),
            };
        }
        match cell.enter(now) {
            Ok(pass) => Some(Some(pass)),
            Err((until, closed)) => {
                self.tally.note_route(until, closed.overloaded);
                None
            }
        }
    }

    /// Whether the try at hand may be made: the first one, a free move, or one that the budget pays for.
    fn pays(&mut self, snapshot: &Snapshot, now: Moment) -> bool {
        if self.attempts == 0 {
            snapshot.retry_budget.call_began(now);
            return true;
        }
        if !std::mem::take(&mut self.owes_move) || !std::mem::replace(&mut self.free_move_used, true) {
            return true;
        }
        snapshot.retry_budget.try_move(now)
    }

    /// What a verdict takes out of play at its target; `None`: the whole target.
    fn scope_of(&self, verdict: Verdict, target: &PlannedTarget) -> Option<Scope> {
        match verdict {
            Verdict::QuotaLimited { .. } | Verdict::QuotaRamp { .. } => Some(Scope::Quota),
            Verdict::AccountSpent => Some(Scope::Account),
            Verdict::KeyRefused | Verdict::KeyModelRefused { not_found: false } => Some(Scope::Key),
            // A name that the operator wrote down and the provider does not know: no account there will.
            Verdict::KeyModelRefused { not_found: true } if target.name.is_configured() => None,
            Verdict::KeyModelRefused { not_found: true } => Some(Scope::Account),
            // Another account is the same route; it is tried only where there is no other route at all.
            Verdict::TargetFailed(_) if self.plan.targets().len() == 1 => Some(Scope::Account),
            Verdict::TargetFailed(_) | Verdict::RouteOverloaded { .. } | Verdict::Redirected => None,
            Verdict::Success | Verdict::CallerFault => None,
        }
    }

    /// Takes note of when what just refused may be asked again. The cells know, if they were told.
    fn note_when(
        &mut self,
        snapshot: &Snapshot,
        account: AccountId,
        target: &PlannedTarget,
        verdict: Verdict,
        now: Moment,
    ) {
        match verdict {
            Verdict::QuotaLimited { retry_after } | Verdict::QuotaRamp { retry_after } => {
                let quota = &snapshot.account(account).quotas[target.class.index()];
                let until = match quota.room(&self.need, now) {
                    Room::Closed { until, .. } if self.shape.counts_health => until,
                    _ => now + retry_after.unwrap_or(REST_STEP),
                };
                self.tally.note_limited(until);
            }
            Verdict::RouteOverloaded { retry_after } => {
                let route = snapshot.provider(target.provider).route(target.route);
                let until = match route.cell.gate(now) {
                    RouteGate::Closed { until, .. } if self.shape.counts_health => until,
                    _ => now + retry_after.unwrap_or(OVERLOAD_STEP),
                };
                self.tally.note_route(until, true);
            }
            _ => {}
        }
    }

    fn position_of(&self, target: &PlannedTarget) -> u8 {
        self.plan.targets().iter().position(|it| it == target).unwrap_or(0) as u8
    }
}

/// The move takes its own cause out of play, so it cannot repeat itself.
fn is_free(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::QuotaLimited { .. }
            | Verdict::QuotaRamp { .. }
            | Verdict::RouteOverloaded { .. }
            | Verdict::KeyRefused
            | Verdict::AccountSpent
    )
}

/// Failures that come before the first byte of a request unless the exchange was told otherwise.
fn is_before_sending(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::TargetFailed(TargetFailure::Connect | TargetFailure::Proxy(_) | TargetFailure::Tls(_))
    )
}

#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, not(loom)))]
pub(crate) mod world;
