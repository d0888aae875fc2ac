//! One try at one upstream: what it holds there, and what each thing that happens to it means for the cells.
//!
//! Dropping an exchange is always right: the reservation settles by what was seen and a probe becomes free. An
//! exchange never decides where the call goes next; that is the walk's.

use std::time::Duration;

use super::Context;
use crate::health::{Phase, RouteGate, RoutePass};
use crate::limits::{PAIR_REST, PLAN_ACCOUNTS_MAX};
use crate::moment::Moment;
use crate::quota::{ObservedLimits, QuotaCell, QuotaHold};
use crate::route::PlannedTarget;
use crate::snapshot::{AccountId, ClassId, KeyId, ProviderId, RouteId, Snapshot};
use crate::usage::Usage;
use crate::verdict::{TargetFailure, Verdict};

/// One try at one upstream. The ids are positions in the snapshot that the walk is polled with.
#[derive(Debug)]
#[must_use = "it holds a reservation"]
pub struct Exchange {
    /// Where it goes.
    pub provider: ProviderId,
    /// Whose quota it uses.
    pub account: AccountId,
    /// The credential it presents.
    pub key: KeyId,
    /// The class of its model.
    pub class: ClassId,
    /// The route it takes.
    pub route: RouteId,
    /// The target, with the model name.
    pub target: PlannedTarget,
    /// Position among the tries of the call, from zero.
    pub number: u8,
    /// When it was chosen.
    pub started: Moment,
    /// Position of the target in the plan.
    position: u8,
    call_began: Moment,
    sent_at: Option<Moment>,
    pass: Pass,
    refusals: Refusals,
}

/// What a try was given when it was chosen.
#[derive(Debug)]
pub(super) struct Pass {
    /// What is reserved in the quota; `None` for a call that says nothing about health.
    pub(super) hold: Option<QuotaHold>,
    /// The route's permission, which may be its probe; gone once the reply began.
    pub(super) route: Option<RoutePass>,
    /// What happens to it may be written into cells.
    pub(super) counted: bool,
    /// The caller's own credential: only what is said about the route is news of anything here.
    pub(super) own_credential: bool,
}

/// What closed to a try between its choice and a second sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The account has no money any more.
    Account,
    /// The key is suspect, out, or rests for the model.
    Key,
    /// The quota rests or is being probed.
    Quota {
        /// When to look again.
        until: Moment,
    },
    /// The route backs off, its breaker is open, or it is being probed.
    Route {
        /// When to look again.
        until: Moment,
        /// Overload is the reason, else failures.
        overloaded: bool,
    },
}

/// When an exchange has taken too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// To be connected, TLS included.
    pub connect: Moment,
    /// To see the first byte of the reply. Counted from the request sent, before that from now on.
    pub first_byte: Moment,
    /// Allowed silence after each byte of the reply.
    pub idle: Duration,
    /// To be over; [`Moment::NEVER`] unless configured.
    pub total: Moment,
}

impl Exchange {
    pub(super) fn new(
        target: &PlannedTarget,
        (account, key): (AccountId, KeyId),
        (number, position): (u8, u8),
        (call_began, started): (Moment, Moment),
        pass: Pass,
        refusals: Refusals,
    ) -> Exchange {
        Exchange {
            provider: target.provider,
            account,
            key,
            class: target.class,
            route: target.route,
            target: *target,
            number,
            started,
            position,
            call_began,
            sent_at: None,
            pass,
            refusals,
        }
    }

    /// The first byte of the request goes out: from now on the upstream may be working on it. Levels that a reply
    /// states are compared with what was reserved since this moment.
    pub fn sent(&mut self, now: Moment) {
        if self.sent_at.is_none() {
            self.sent_at = Some(now);
            if let Some(hold) = &mut self.pass.hold {
                hold.mark_sent(now);
            }
        }
    }

    /// Whether a byte of the request went out.
    pub fn was_sent(&self) -> bool {
        self.sent_at.is_some()
    }

    /// What closed since this try was chosen: asked before its request goes out a second time, because a kept
    /// connection may die late and much may have been learned meanwhile. A probe is not closed to itself; a call that
    /// says nothing about health needs no probe to go where a rest is over.
    pub fn closed_meanwhile(&self, snapshot: &Snapshot, now: Moment) -> Option<Closing> {
        let key = snapshot.key(self.key);
        if !snapshot.account(self.account).cell.usable() {
            return Some(Closing::Account);
        }
        if !key.cell.usable() || key.pairs[self.route.index()].resting(now).is_some() {
            return Some(Closing::Key);
        }
        if !self.pass.hold.as_ref().is_some_and(QuotaHold::is_probe) {
            match self.quota(snapshot).view(now).phase {
                Phase::Resting { until } | Phase::Probing { lease_until: until }
                    if self.pass.counted || until > now =>
                {
                    return Some(Closing::Quota { until: until.max(now) });
                }
                _ => {}
            }
        }
        if self.pass.route.as_ref().is_some_and(RoutePass::is_probe) {
            return None;
        }
        match snapshot.provider(self.provider).route(self.route).cell.gate(now) {
            RouteGate::Closed { until, overloaded } => Some(Closing::Route { until, overloaded }),
            RouteGate::Probe if self.pass.counted => Some(Closing::Route { until: now, overloaded: false }),
            RouteGate::Open | RouteGate::Probe => None,
        }
    }

    /// Takes over what a reply states about limits. Right after its head, good or bad.
    pub fn learn(&self, snapshot: &Snapshot, seen: &ObservedLimits, now: Moment) {
        if let Some(hold) = &self.pass.hold {
            self.quota(snapshot).learn(hold, seen, now);
        }
    }

    /// The reply is good as far as the commit point: the route works, the quota's probe has won, and keys that
    /// were refused for this model before are known to be the exception.
    pub fn begun(&mut self, snapshot: &Snapshot, now: Moment) {
        if !self.pass.counted {
            return;
        }
        if let Some(hold) = &mut self.pass.hold {
            hold.succeeded(now);
        }
        snapshot.provider(self.provider).route(self.route).cell.succeeded(now);
        self.pass.route = None;
        self.refusals.confirm(snapshot, self.position, now);
    }

    /// Takes over usage that the reply states so far.
    pub fn observe(&mut self, usage: Usage) {
        if let Some(hold) = &mut self.pass.hold {
            hold.observe(usage);
        }
    }

    /// The reply reached its end, or the caller left: settles by `usage` and what was observed before.
    pub fn finish(mut self, usage: Usage, now: Moment) {
        self.observe(usage);
        if let Some(hold) = self.pass.hold.take() {
            hold.settle(now);
        }
    }

    /// The reply failed after its commit point: counted like any failure, though the call cannot move any more.
    pub fn broke(mut self, snapshot: &Snapshot, verdict: Verdict, usage: Usage, context: Context) {
        self.observe(usage);
        if self.pass.counted {
            self.inform(snapshot, verdict, context);
        }
        if let Some(hold) = self.pass.hold.take() {
            hold.settle(context.now);
        }
    }

    /// When it has taken too long, as things stand.
    pub fn deadlines(&self, snapshot: &Snapshot, streamed: bool) -> Deadlines {
        let timeouts = &snapshot.provider(self.provider).timeouts;
        let first_byte = if streamed { timeouts.first_byte } else { timeouts.first_byte_whole };
        Deadlines {
            connect: self.started + timeouts.connect,
            first_byte: self.sent_at.unwrap_or(self.started) + first_byte,
            idle: timeouts.idle,
            total: timeouts.total.map_or(Moment::NEVER, |it| self.call_began + it),
        }
    }

    /// Ends before the commit point. The cells are told first, then reservation and probes are given up, so that
    /// no other call slips through in between.
    pub(super) fn conclude(mut self, snapshot: &Snapshot, verdict: Verdict, context: Context) {
        if matches!(verdict, Verdict::Success) {
            self.begun(snapshot, context.now);
        } else if self.pass.counted {
            self.inform(snapshot, verdict, context);
        }
        if let Some(hold) = self.pass.hold.take() {
            if may_have_used_quota(verdict, self.sent_at.is_some()) {
                hold.settle(context.now);
            } else {
                hold.refused();
            }
        }
    }

    fn inform(&self, snapshot: &Snapshot, verdict: Verdict, Context { now, jitter }: Context) {
        let route = &snapshot.provider(self.provider).route(self.route).cell;
        let of_route = matches!(verdict, Verdict::RouteOverloaded { .. } | Verdict::TargetFailed(_));
        if self.pass.own_credential && !of_route {
            return;
        }
        match verdict {
            Verdict::QuotaLimited { retry_after } => self.quota(snapshot).limited(retry_after, now, jitter),
            Verdict::QuotaRamp { retry_after } => self.quota(snapshot).ramp_limited(retry_after, now, jitter),
            Verdict::AccountSpent => {
                snapshot.account(self.account).cell.spent(now);
            }
            Verdict::KeyRefused => {
                snapshot.key(self.key).cell.suspect();
            }
            Verdict::RouteOverloaded { retry_after } => route.overloaded(retry_after, now, jitter),
            Verdict::TargetFailed(_) => route.failed(now, jitter),
            // The pair rests once another try shows that the model itself can be had: see `Refusals`.
            Verdict::KeyModelRefused { .. } => {}
            // The configuration's or the caller's doing: nothing here is unwell.
            Verdict::Redirected | Verdict::CallerFault | Verdict::Success => {}
        }
    }

    fn quota<'s>(&self, snapshot: &'s Snapshot) -> &'s QuotaCell {
        &snapshot.account(self.account).quotas[self.class.index()]
    }
}

/// Whether the provider may have counted the call against the quota.
fn may_have_used_quota(verdict: Verdict, was_sent: bool) -> bool {
    match verdict {
        Verdict::Success => true,
        Verdict::TargetFailed(TargetFailure::Connect | TargetFailure::Proxy(_) | TargetFailure::Tls(_)) => {
            was_sent
        }
        Verdict::TargetFailed(_) => true,
        // Refused at the door; a request that was counted all the same shows in the next levels stated.
        _ => false,
    }
}

/// Keys that were refused for the model, until it is known what the refusals say.
///
/// A caller can ask for a model that nobody has; if each refusal put its pair to rest, one caller could take away from
/// all others what shares the pair: models that the configuration does not name share the one of their class. So a pair
/// rests only when another try of the same call begins well: at the same target, or anywhere if the operator named
/// the model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusals {
    items: [(KeyId, u8, Option<RouteId>); PLAN_ACCOUNTS_MAX],
    configured: bool,
    len: u8,
}

impl Refusals {
    pub(super) const NONE: Refusals =
        Refusals { items: [(KeyId(0), 0, None); PLAN_ACCOUNTS_MAX], configured: false, len: 0 };

    /// Takes note of a refusal. Those past the bound are forgotten; the next call meets them again.
    pub(super) fn add(&mut self, key: KeyId, position: u8, target: &PlannedTarget) {
        self.configured = target.name.is_configured();
        if let Some(place) = self.items.get_mut(self.len as usize) {
            *place = (key, position, Some(target.route));
            self.len += 1;
        }
    }

    fn confirm(&self, snapshot: &Snapshot, position: u8, now: Moment) {
        for &(key, at, route) in &self.items[..self.len as usize] {
            if let Some(route) = route
                && (at == position || self.configured)
            {
                snapshot.key(key).pairs[route.index()].rest_until(now + PAIR_REST);
            }
        }
    }
}
