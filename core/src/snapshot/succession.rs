//! Cells that outlive their process: what one process writes down of them and the next one goes on with, and what the
//! old one's running calls still spend or give back after that. Matched by names, as a reload matches them. Decides
//! what is worth carrying; the format on the line, and the line, are others'.
//!
//! | cell | carried | not carried |
//! | --- | --- | --- |
//! | caller | levels | calls in flight; revocation (the file says who may call) |
//! | quota | levels, learned limits, rest, ramp, strikes, cap | calls in flight; a probe that is out |
//! | route | back-off, breaker, its window | a probe that is out |
//! | key, pair | what is known of it, for the same credential | |
//! | account, chain, class, retry budget | everything | |
//!
//! All times are moments of the host's one monotonic clock, so words are carried as they stand.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Account, Provider, Snapshot};
use crate::admission::{CallerCells, LimitCell};
use crate::caller::digest;
use crate::moment::Moment;
use crate::quota::QuotaCell;

/// The version of the words. A process does not take over words of another version.
pub const DUMP_VERSION: u32 = 1;

/// A cell's identity: its kind, then names.
pub type Identity = Vec<String>;

/// What cells stand at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// [`DUMP_VERSION`] of who wrote it.
    pub version: u32,
    /// Each cell's identity and words.
    pub cells: Vec<(Identity, Vec<u64>)>,
}

/// What one quota, caller or route has spent (above zero) or been given back since it was last looked at, limit by
/// limit, and until when it rests (zero: not).
pub type Change = (Identity, Vec<i64>, u64);

/// A cell whose words another process can go on with.
pub(crate) trait Carried {
    /// What the next process needs.
    fn words(&self) -> Vec<u64>;
    /// Goes on with another process's words. Words of another length are of another kind, and left alone.
    fn take_over(&self, words: &[u64]);
}

impl Snapshot {
    /// Writes the cells down.
    pub fn dump(&self) -> Dump {
        let mut cells = Vec::new();
        self.each_cell(&mut |identity, cell| cells.push((identity, cell.words())));
        Dump { version: DUMP_VERSION, cells }
    }

    /// Goes on with the cells of `dump` that this snapshot has, too; how many those are. Before the first call.
    pub fn take_over(&self, dump: &Dump) -> usize {
        if dump.version != DUMP_VERSION {
            return 0;
        }
        let known: HashMap<&[String], &[u64]> =
            dump.cells.iter().map(|(identity, words)| (identity.as_slice(), words.as_slice())).collect();
        let mut taken = 0;
        self.each_cell(&mut |identity, cell| {
            if let Some(words) = known.get(identity.as_slice()) {
                cell.take_over(words);
                taken += 1;
            }
        });
        taken
    }

    /// Carries out what calls of another process have changed.
    pub fn settle(&self, changes: &[Change], now: Moment) {
        let known: HashMap<&[String], &Change> = changes.iter().map(|it| (it.0.as_slice(), it)).collect();
        self.each_account_of_money(&mut |identity, ledger| {
            if let Some((_, amounts, rests_until_ns)) = known.get(identity.as_slice()) {
                for (limit, amount) in ledger.limits().into_iter().zip(amounts) {
                    match u64::try_from(*amount) {
                        Ok(spent) => limit.owe(spent, now),
                        Err(_) => limit.give_back(amount.unsigned_abs()),
                    }
                }
                if let Ledger::Quota(cell) = ledger
                    && *rests_until_ns > 0
                {
                    cell.rest_until(Moment::from_ns(*rests_until_ns));
                }
            }
        });
    }

    /// Every cell with its identity. Both directions go through here, so that neither knows a cell the other does not.
    fn each_cell(&self, visit: &mut dyn FnMut(Identity, &dyn Carried)) {
        visit(identity("retry", &[]), &*self.retry_budget);
        for (_, caller) in self.callers.iter() {
            visit(identity("caller", &[&caller.name]), &*caller.cells);
        }
        for provider in &self.providers {
            for class in &provider.classes {
                visit(identity("class", &[&provider.name, &class.name]), &*class.estimate);
            }
            for route in &provider.routes {
                let kind = if route.of_class { "route of class" } else { "route" };
                visit(identity(kind, &[&provider.name, &route.name]), &*route.cell);
            }
            for account in provider.accounts.iter().map(|it| self.account(*it)) {
                self.each_cell_of(provider, account, visit);
            }
        }
        for model in &self.models {
            let targets =
                model.chain.iter().map(|it| format!("{}/{}", self.provider(it.provider).name, it.model));
            // The order of a chain only means something for the same chain.
            let mut identity = identity("chain", &[&model.name]);
            identity.extend(targets);
            visit(identity, &*model.cell);
        }
    }

    fn each_cell_of(
        &self,
        provider: &Provider,
        account: &Account,
        visit: &mut dyn FnMut(Identity, &dyn Carried),
    ) {
        visit(identity("account", &[&provider.name, &account.name]), &*account.cell);
        for (class, quota) in provider.classes.iter().zip(&account.quotas) {
            visit(identity("quota", &[&provider.name, &account.name, &class.name]), &**quota);
        }
        for key in account.keys.iter().map(|it| self.key(*it)) {
            // A rotated credential is a new one. The mark tells credentials apart and tells nothing of them.
            let [a, b, c, d, ..] = digest(key.secret.expose().as_bytes());
            let mark = format!("{:08x}", u32::from_le_bytes([a, b, c, d]));
            visit(identity("key", &[&provider.name, &key.name, &mark]), &*key.cell);
            for (route, pair) in provider.routes.iter().zip(&key.pairs) {
                let kind = if route.of_class { "pair of class" } else { "pair" };
                visit(identity(kind, &[&provider.name, &key.name, &mark, &route.name]), &**pair);
            }
        }
    }

    /// Every cell that calls settle with, once.
    fn each_account_of_money(&self, visit: &mut dyn FnMut(Identity, Ledger<'_>)) {
        for (_, caller) in self.callers.iter() {
            visit(identity("caller", &[&caller.name]), Ledger::Caller(&caller.cells));
        }
        let mut seen: Vec<*const QuotaCell> = Vec::new();
        for provider in &self.providers {
            for account in provider.accounts.iter().map(|it| self.account(*it)) {
                for (class, quota) in provider.classes.iter().zip(&account.quotas) {
                    // Accounts that are one organization share their cells.
                    if !seen.contains(&Arc::as_ptr(quota)) {
                        seen.push(Arc::as_ptr(quota));
                        let names = [&*provider.name, &*account.name, &*class.name];
                        visit(identity("quota", &names), Ledger::Quota(quota));
                    }
                }
            }
        }
    }
}

fn identity(kind: &str, names: &[&str]) -> Identity {
    std::iter::once(kind).chain(names.iter().copied()).map(str::to_owned).collect()
}

/// What calls settle with.
#[derive(Clone, Copy)]
enum Ledger<'a> {
    Caller(&'a CallerCells),
    Quota(&'a QuotaCell),
}

impl<'a> Ledger<'a> {
    fn limits(self) -> Vec<&'a LimitCell> {
        match self {
            Ledger::Caller(cells) => vec![cells.requests(), cells.tokens()],
            Ledger::Quota(cell) => cell.limits().to_vec(),
        }
    }

    fn rests_until(self, now: Moment) -> u64 {
        match self {
            Ledger::Caller(_) => 0,
            Ledger::Quota(cell) => cell.view(now).resting_until.map_or(0, Moment::as_ns),
        }
    }
}

/// What the calls of a process that gave its cells away still change, from one look to the next.
#[derive(Debug)]
pub struct Settlements {
    snapshot: Arc<Snapshot>,
    seen_at: Moment,
    seen: HashMap<Identity, (Vec<u64>, u64)>,
}

impl Settlements {
    /// Begins at `now`, the moment of the dump.
    pub fn begin(snapshot: Arc<Snapshot>, now: Moment) -> Settlements {
        let mut settlements = Settlements { snapshot, seen_at: now, seen: HashMap::new() };
        settlements.changes(now);
        settlements
    }

    /// What has changed since the last look. Spending is told exactly to a look's worth of refill, upwards.
    pub fn changes(&mut self, now: Moment) -> Vec<Change> {
        let mut changes = Vec::new();
        let (seen, seen_at) = (&mut self.seen, self.seen_at);
        self.snapshot.each_account_of_money(&mut |identity, ledger| {
            let limits = ledger.limits();
            let stands =
                (limits.iter().map(|it| it.full_at_ns()).collect::<Vec<u64>>(), ledger.rests_until(now));
            let Some(before) = seen.insert(identity.clone(), stands.clone()) else { return };
            if before == stands {
                return;
            }
            let amounts: Vec<i64> =
                limits.iter().zip(&before.0).map(|(it, was)| it.spent_since(*was, seen_at)).collect();
            let rests_until_ns = if stands.1 > before.1 { stands.1 } else { 0 };
            if rests_until_ns > 0 || amounts.iter().any(|it| *it != 0) {
                changes.push((identity, amounts, rests_until_ns));
            }
        });
        self.seen_at = now;
        changes
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
