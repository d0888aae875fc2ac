//! The cells as they stand after each step, and since when what is closed has been closed: what a call may not be sent
//! to. Read from outside, by the views that operators have.

use std::sync::Arc;

use tidegate_core::admission::CallerCells;
use tidegate_core::health::{AccountCell, KeyCell, KeyState, PairCell, Phase, RouteCell};
use tidegate_core::quota::QuotaCell;
use tidegate_core::{Moment, Snapshot};

use crate::config::CLASSES;
use crate::ledger::Ledger;

/// Everything of a run that rests, counts or is refused.
pub struct Cells {
    accounts: Vec<Vec<AccountWatch>>,
    routes: Vec<Vec<RouteWatch>>,
    /// Cells of the virtual keys, by tenant.
    pub callers: Vec<Arc<CallerCells>>,
}

struct AccountWatch {
    cell: Arc<AccountCell>,
    spent: Since,
    quotas: Vec<QuotaWatch>,
    keys: Vec<KeyWatch>,
}

struct QuotaWatch {
    cell: Arc<QuotaCell>,
    shut: ShutSince,
    /// Requests on the wire that wait for the first byte of their answer.
    waiting: u32,
}

struct KeyWatch {
    cell: Arc<KeyCell>,
    unusable: Since,
    pairs: Vec<(Arc<PairCell>, Since)>,
}

struct RouteWatch {
    cell: Arc<RouteCell>,
    overload: ShutSince,
    breaker: ShutSince,
}

/// The step since which something has been so without a break.
#[derive(Clone, Copy, Debug, Default)]
struct Since(Option<u64>);

impl Since {
    fn note(&mut self, is_so: bool, step: u64) {
        self.0 = if is_so { self.0.or(Some(step)) } else { None };
    }

    fn before(self, step: u64) -> bool {
        self.0.is_some_and(|it| it < step)
    }
}

/// Since when a gate lets nothing through. Another rest, or a probe, is another reason.
#[derive(Clone, Copy, Debug, Default)]
struct ShutSince {
    phase: Option<Phase>,
    since: Since,
}

impl ShutSince {
    fn note(&mut self, phase: Phase, now: Moment, step: u64) {
        let is_shut = match phase {
            Phase::Resting { until } => until > now,
            Phase::Probing { lease_until } => lease_until > now,
            Phase::Open | Phase::Ramping { .. } => false,
        };
        let goes_on = match (self.phase, phase) {
            // A rest that was made longer while it lasted.
            (Some(Phase::Resting { until: before }), Phase::Resting { until }) => {
                before == until || before > now
            }
            (before, phase) => before == Some(phase),
        };
        if !goes_on {
            self.since = Since::default();
        }
        self.phase = Some(phase);
        self.since.note(is_shut, step);
    }

    fn before(&self, step: u64, probe_step: u64) -> bool {
        let is_probe = matches!(self.phase, Some(Phase::Probing { .. }));
        self.since.before(if is_probe { probe_step.min(step) } else { step })
    }
}

/// Where a request goes: what it must not find closed.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Provider, account, key.
    pub key: (usize, usize, usize),
    /// The model's class.
    pub class: usize,
    /// The model's route.
    pub route: usize,
}

impl Cells {
    /// The cells of a run, by its first snapshot: later ones have the same.
    pub fn of(snapshot: &Snapshot, tenants: usize) -> Cells {
        let accounts = snapshot.providers.iter().map(|provider| {
            let of = |id: &tidegate_core::snapshot::AccountId| {
                let account = snapshot.account(*id);
                AccountWatch {
                    cell: account.cell.clone(),
                    spent: Since::default(),
                    quotas: account.quotas.iter().take(CLASSES).map(QuotaWatch::of).collect(),
                    keys: account.keys.iter().map(|id| KeyWatch::of(snapshot.key(*id))).collect(),
                }
            };
            provider.accounts.iter().map(of).collect()
        });
        let routes = snapshot.providers.iter().map(|provider| {
            let of = |it: &tidegate_core::snapshot::Route| RouteWatch {
                cell: it.cell.clone(),
                overload: ShutSince::default(),
                breaker: ShutSince::default(),
            };
            provider.routes.iter().map(of).collect()
        });
        let caller = |tenant: usize| {
            let id = snapshot.callers.named(&format!("t{tenant}"));
            id.map(|id| snapshot.callers.caller(id).cells.clone())
        };
        Cells {
            accounts: accounts.collect(),
            routes: routes.collect(),
            callers: (0..tenants).filter_map(caller).collect(),
        }
    }

    /// Notes how all of them stand after a step. Before what was written in it is looked at: the same step may have
    /// let a probe through and sent it.
    pub fn note(&mut self, ledger: &Ledger) {
        let (now, step) = (Moment::from_ns(ledger.now_ns), ledger.step);
        for watch in self.accounts.iter_mut().flatten() {
            watch.spent.note(watch.cell.spent_since().is_some(), step);
            for quota in &mut watch.quotas {
                quota.shut.note(quota.cell.view(now).phase, now, step);
            }
            for key in &mut watch.keys {
                key.unusable.note(key.cell.state() != KeyState::Good, step);
                for (cell, resting) in &mut key.pairs {
                    resting.note(cell.resting(now).is_some(), step);
                }
            }
        }
        for route in self.routes.iter_mut().flatten() {
            let view = route.cell.view(now);
            route.overload.note(view.overload, now, step);
            route.breaker.note(view.breaker, now, step);
        }
    }

    /// What waits for an answer is held. After what was written in the step was looked at.
    pub fn check_held(&self, ledger: &mut Ledger) {
        let now = Moment::from_ns(ledger.now_ns);
        for (provider, accounts) in self.accounts.iter().enumerate() {
            for (account, watch) in accounts.iter().enumerate() {
                for (class, quota) in watch.quotas.iter().enumerate() {
                    quota.check_held(ledger, (provider, account, class), now);
                }
            }
        }
    }

    /// Why nobody who decided after step `since` could have sent a request to `place`; `None` where somebody could. A
    /// probe that began after `probe_since` may be the call's own, given up and taken again.
    pub fn closed_since(&self, place: &Place, since: u64, probe_since: u64) -> Option<String> {
        let (provider, account, key) = place.key;
        let watch = &self.accounts[provider][account];
        let key = &watch.keys[key];
        let route = &self.routes[provider][place.route];
        let quota = &watch.quotas[place.class];
        let why = if watch.spent.before(since) {
            "the account is out of money"
        } else if key.unusable.before(since) {
            "the key is suspect or out"
        } else if key.pairs.get(place.route).is_some_and(|it| it.1.before(since)) {
            "the key rests for this model"
        } else if quota.shut.before(since, probe_since) {
            return Some(format!("the quota is {:?}", quota.shut.phase));
        } else if route.overload.before(since, probe_since) {
            return Some(format!("the route's back-off is {:?}", route.overload.phase));
        } else if route.breaker.before(since, probe_since) {
            return Some(format!("the route's breaker is {:?}", route.breaker.phase));
        } else {
            return None;
        };
        Some(why.to_owned())
    }

    /// A request that counts went out, or (`false`) waits no longer.
    pub fn waits(&mut self, place: &Place, begins: bool) {
        let quota = &mut self.accounts[place.key.0][place.key.1].quotas[place.class];
        quota.waiting = if begins { quota.waiting + 1 } else { quota.waiting.saturating_sub(1) };
    }

    /// What nobody holds any more, once quiet.
    pub fn check_quiet(&self, ledger: &mut Ledger) {
        let now = Moment::from_ns(ledger.now_ns);
        for (provider, accounts) in self.accounts.iter().enumerate() {
            for (account, watch) in accounts.iter().enumerate() {
                for (class, quota) in watch.quotas.iter().enumerate() {
                    let view = quota.cell.view(now);
                    if view.in_flight != 0 {
                        let left = view.in_flight;
                        let what = format!(
                            "quota {provider}-{account}-{class} is held by {left} calls that are over"
                        );
                        ledger.fail(1, None, what);
                    }
                    if let Phase::Ramping { waiting, .. } = view.phase
                        && waiting != 0
                    {
                        ledger.fail(1, None, "a step of the ramp did not come home");
                    }
                    if matches!(view.phase, Phase::Probing { .. }) {
                        ledger.fail(1, None, "a probe did not come home");
                    }
                }
            }
        }
        for (tenant, cells) in self.callers.iter().enumerate() {
            if cells.in_flight() != 0 {
                let what = format!("{} permits of tenant {tenant} were not settled", cells.in_flight());
                ledger.fail(1, None, what);
            }
        }
    }
}

impl QuotaWatch {
    fn of(cell: &Arc<QuotaCell>) -> QuotaWatch {
        QuotaWatch { cell: cell.clone(), shut: ShutSince::default(), waiting: 0 }
    }

    fn check_held(&self, ledger: &mut Ledger, name: (usize, usize, usize), now: Moment) {
        let view = self.cell.view(now);
        if self.waiting > view.in_flight {
            let (waiting, held) = (self.waiting, view.in_flight);
            let what =
                format!("{waiting} requests wait for an answer of quota {name:?}, which is held by {held}");
            ledger.fail(2, None, what);
        }
        if let Phase::Ramping { allowance, waiting } = view.phase
            && waiting > allowance
        {
            ledger.fail(
                2,
                None,
                format!("the ramp of quota {name:?} let {waiting} through and allows {allowance}"),
            );
        }
    }
}

impl KeyWatch {
    fn of(key: &tidegate_core::snapshot::Key) -> KeyWatch {
        KeyWatch {
            cell: key.cell.clone(),
            unusable: Since::default(),
            pairs: key.pairs.iter().map(|it| (it.clone(), Since::default())).collect(),
        }
    }
}
