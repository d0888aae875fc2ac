//! Which account and key serve one planned target (ARCHITECTURE.md). Runs on the worker for each try: no locks, no
//! heap; it reads cells and reserves in one of them.
//!
//! An account is in play while it is not out of money, has a key that may be used for the model and its quota
//! has room for the call. A call with an affinity goes to the account that ranks first for it (rendezvous hash
//! over the accounts' names, by weight), so a session stays where its cache is; when that one has no room, to
//! the next in the same ranking, so it stays together there too. Any other call goes where a low-discrepancy
//! sequence falls on weight × room. Quotas that nobody has heard of yet are a last resort.
//!
//! Never decided here: what an answer means, where else the call may go, or what rests.

mod draw;
mod nobody;
mod tried;

use crate::limits::{COLD_WAIT, PLAN_ACCOUNTS_MAX};
use crate::moment::Moment;
use crate::quota::{Closed, Need, QuotaHold, Room};
use crate::route::PlannedTarget;
use crate::snapshot::{Account, AccountId, Key, KeyId, Snapshot};

use draw::rank;
pub use draw::{Affinity, Draw};
pub use nobody::NoChoice;
pub use tried::{Scope, Tried};

/// Room counts for at least this much, or an account that is open and nearly used up could never be drawn.
const SHARE_FLOOR: f64 = 1.0 / 1024.0;

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Where the call goes.
    pub target: &'a PlannedTarget,
    /// What it is expected to use there.
    pub need: &'a Need,
    /// What its account is kept by.
    pub affinity: Option<Affinity>,
    /// This account or none: what the call is about is kept there only.
    pub only: Option<AccountId>,
    /// It uses the quota. Calls that do not are kept from resting quotas only, and reserve nothing.
    pub counted: bool,
    /// What this call has tried at this target.
    pub tried: &'a Tried,
}

/// What was found.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once per try and taken apart at once; a box would allocate"
)]
pub enum Choice {
    /// An account, a key of it, and what was reserved there.
    Picked {
        /// Whose quota is used.
        account: AccountId,
        /// The credential.
        key: KeyId,
        /// The reservation; `None` for a call that does not count.
        hold: Option<QuotaHold>,
        /// The account that affinity or weight alone would give was passed over for want of room.
        spilled: bool,
    },
    /// Nobody can take the call now.
    None(NoChoice),
}

/// Finds an account and a key for one try and reserves there.
pub fn choose(snapshot: &Snapshot, wish: &Wish<'_>, draw: &mut Draw, now: Moment) -> Choice {
    let mut search =
        Search { snapshot, wish, now, cold: false, lost: Lost::default(), none: NoChoice::NOTHING };
    if let Some(picked) = search.run(draw) {
        return picked;
    }
    // Nobody has proven room. A quota that no reply has spoken about yet is trusted for less than it may have; unless
    // room is about to be proven by refill, it is asked all the same.
    let is_near = search.none.soonest <= now + COLD_WAIT;
    if wish.counted && search.none.any_without_room && !is_near {
        search.cold = true;
        search.lost = Lost::default();
        if let Some(picked) = search.run(draw) {
            return picked;
        }
    }
    Choice::None(search.none)
}

/// How an account stands towards the call.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// It may be asked; `share` is its room, above 0 and at most 1.
    Open { share: f64 },
    /// Its quota is closed.
    Closed { until: Moment, why: Closed },
    /// This call was there, or at one that shares its quota; the quota may be closed by now.
    Tried { closed: Option<(Moment, Closed)> },
    /// Out of money.
    Spent,
    /// No key of it may be used.
    Suspect,
    /// No key of it may be used for this model.
    PairResting,
}

impl Standing {
    /// Only the quota is in the way: by weight or affinity alone the account could have been picked.
    fn wants_room(&self) -> bool {
        matches!(self, Standing::Closed { .. } | Standing::Tried { closed: Some(_) })
    }
}

/// Accounts that looked open and then refused, because another worker was faster.
#[derive(Default)]
struct Lost {
    accounts: [Option<AccountId>; PLAN_ACCOUNTS_MAX],
    len: usize,
}

impl Lost {
    fn add(&mut self, id: AccountId) {
        self.accounts[self.len] = Some(id);
        self.len += 1;
    }

    fn contains(&self, id: AccountId) -> bool {
        self.accounts[..self.len].contains(&Some(id))
    }

    fn is_full(&self) -> bool {
        self.len == self.accounts.len()
    }
}

struct Pick {
    account: AccountId,
    key: Option<KeyId>,
    spilled: bool,
}

struct Search<'s> {
    snapshot: &'s Snapshot,
    wish: &'s Wish<'s>,
    now: Moment,
    /// The second pass: quotas that no reply has spoken about yet are in play without proven room.
    cold: bool,
    lost: Lost,
    none: NoChoice,
}

impl Search<'_> {
    fn run(&mut self, draw: &mut Draw) -> Option<Choice> {
        while !self.lost.is_full() {
            let pick = match (self.wish.only, self.wish.affinity) {
                (Some(only), affinity) => self.pick_only(only, affinity, draw),
                (None, Some(affinity)) => self.pick_by_affinity(affinity),
                (None, None) => self.pick_by_draw(draw.next_unit()),
            }?;
            if let Some(key) = pick.key
                && let Some(hold) = self.admit(pick.account)
            {
                return Some(Choice::Picked { account: pick.account, key, hold, spilled: pick.spilled });
            }
            self.lost.add(pick.account);
        }
        None
    }

    /// Reserves; `Some(None)` where nothing is to be reserved.
    fn admit(&mut self, id: AccountId) -> Option<Option<QuotaHold>> {
        if !self.wish.counted {
            return Some(None);
        }
        let quota = &self.snapshot.account(id).quotas[self.wish.target.class.index()];
        let admitted = if self.cold {
            quota.admit_cold(self.wish.need, self.now)
        } else {
            quota.admit(self.wish.need, self.now)
        };
        match admitted {
            Ok(hold) => Some(Some(hold)),
            // What keeps a cold quota closed was noted in the first pass; how few are let past it is no news.
            Err(_) if self.cold => None,
            Err((until, why)) => {
                self.none.note_closed(until, why);
                None
            }
        }
    }

    fn accounts(&self) -> &[AccountId] {
        &self.snapshot.provider(self.wish.target.provider).accounts
    }

    /// The one account, as it stands: what is kept there is nowhere else.
    fn pick_only(&mut self, only: AccountId, affinity: Option<Affinity>, draw: &mut Draw) -> Option<Pick> {
        let standing = self.standing(only);
        self.none.note(&standing);
        if !matches!(standing, Standing::Open { .. }) {
            return None;
        }
        let account = self.snapshot.account(only);
        let key = match affinity {
            Some(affinity) => self.key_by_affinity(account, affinity),
            None => self.key_by_draw(account, draw.next_unit()),
        };
        Some(Pick { account: only, key, spilled: false })
    }

    /// The account that ranks first among those in play.
    fn pick_by_affinity(&mut self, affinity: Affinity) -> Option<Pick> {
        let mut best: Option<(f64, AccountId)> = None;
        let mut best_without_room = f64::NEG_INFINITY;
        for &id in &self.snapshot.provider(self.wish.target.provider).accounts {
            let account = self.snapshot.account(id);
            let standing = self.standing(id);
            self.none.note(&standing);
            let rank = rank(affinity, &account.name, account.weight);
            if standing.wants_room() {
                best_without_room = best_without_room.max(rank);
            } else if matches!(standing, Standing::Open { .. }) && best.is_none_or(|it| rank > it.0) {
                best = Some((rank, id));
            }
        }
        let (rank, account) = best?;
        let key = self.key_by_affinity(self.snapshot.account(account), affinity);
        Some(Pick { account, key, spilled: best_without_room > rank })
    }

    /// The account on which `at` falls when those in play lie side by side, each as wide as its weight × room.
    fn pick_by_draw(&mut self, at: f64) -> Option<Pick> {
        let (mut open_total, mut weight_total) = (0.0, 0.0);
        for &id in &self.snapshot.provider(self.wish.target.provider).accounts {
            let weight = self.snapshot.account(id).weight;
            let standing = self.standing(id);
            self.none.note(&standing);
            match standing {
                Standing::Open { share } => {
                    open_total += weight * share;
                    weight_total += weight;
                }
                _ if standing.wants_room() => weight_total += weight,
                _ => {}
            }
        }
        if open_total == 0.0 {
            return None;
        }
        let (mut open_left, mut weight_left) = (at * open_total, at * weight_total);
        let mut found: Option<(AccountId, f64)> = None;
        let mut by_weight_wants_room: Option<bool> = None;
        for &id in self.accounts() {
            let weight = self.snapshot.account(id).weight;
            let standing = self.standing(id);
            let share = match standing {
                Standing::Open { share } => share,
                _ if standing.wants_room() => 0.0,
                _ => continue,
            };
            if by_weight_wants_room.is_none() {
                weight_left -= weight;
                if weight_left < 0.0 {
                    by_weight_wants_room = Some(share == 0.0);
                }
            }
            if share > 0.0 && open_left >= 0.0 {
                // Where within the account it falls picks the key: one draw, even over accounts and keys.
                found = Some((id, open_left / (weight * share)));
                open_left -= weight * share;
            }
            if by_weight_wants_room.is_some() && open_left < 0.0 {
                break;
            }
        }
        let (account, within) = found?;
        let key = self.key_by_draw(self.snapshot.account(account), within);
        Some(Pick { account, key, spilled: by_weight_wants_room.unwrap_or(false) })
    }

    fn standing(&self, id: AccountId) -> Standing {
        let account = self.snapshot.account(id);
        if !account.cell.usable() {
            return Standing::Spent;
        }
        if self.wish.tried.account(self.snapshot, id, self.wish.target.class) {
            return Standing::Tried { closed: self.closed(account) };
        }
        if let Err(out) = self.has_usable_key(account) {
            return out;
        }
        if self.lost.contains(id) {
            // It said so when it refused; asking again would show the room that another worker is taking.
            return Standing::Closed { until: Moment::NEVER, why: Closed::NoRoom };
        }
        match self.room(account) {
            Room::Open { share } => Standing::Open { share: share.max(SHARE_FLOOR) },
            Room::Closed { why: Closed::NoRoom, .. } if self.cold && self.is_cold(account) => {
                Standing::Open { share: 1.0 }
            }
            Room::Closed { until, why } => Standing::Closed { until, why },
        }
    }

    fn closed(&self, account: &Account) -> Option<(Moment, Closed)> {
        match self.room(account) {
            Room::Open { .. } => None,
            Room::Closed { until, why } => Some((until, why)),
        }
    }

    fn room(&self, account: &Account) -> Room {
        let quota = &account.quotas[self.wish.target.class.index()];
        if self.wish.counted {
            return quota.room(self.wish.need, self.now);
        }
        match quota.room(&Need::default(), self.now) {
            closed @ Room::Closed { why: Closed::Resting | Closed::Probing, .. } => closed,
            _ => Room::Open { share: 1.0 },
        }
    }

    fn is_cold(&self, account: &Account) -> bool {
        account.quotas[self.wish.target.class.index()].view(self.now).cold
    }

    fn has_usable_key(&self, account: &Account) -> Result<(), Standing> {
        let mut out = Standing::Suspect;
        for &id in &account.keys {
            let key = self.snapshot.key(id);
            if !key.cell.usable() {
                continue;
            }
            if self.wish.tried.key(id) {
                if matches!(out, Standing::Suspect) {
                    out = Standing::Tried { closed: None };
                }
            } else if self.pair_rests(key) {
                out = Standing::PairResting;
            } else {
                return Ok(());
            }
        }
        Err(out)
    }

    fn pair_rests(&self, key: &Key) -> bool {
        key.pairs[self.wish.target.route.index()].resting(self.now).is_some()
    }

    fn is_usable(&self, id: KeyId) -> bool {
        let key = self.snapshot.key(id);
        key.cell.usable() && !self.wish.tried.key(id) && !self.pair_rests(key)
    }

    fn key_by_affinity(&self, account: &Account, affinity: Affinity) -> Option<KeyId> {
        let rank = |id: &KeyId| {
            let key = self.snapshot.key(*id);
            rank(affinity, &key.name, key.weight)
        };
        account
            .keys
            .iter()
            .copied()
            .filter(|id| self.is_usable(*id))
            .max_by(|a, b| rank(a).total_cmp(&rank(b)))
    }

    fn key_by_draw(&self, account: &Account, within: f64) -> Option<KeyId> {
        let usable = || account.keys.iter().copied().filter(|id| self.is_usable(*id));
        let mut left = within * usable().map(|id| self.snapshot.key(id).weight).sum::<f64>();
        let mut last = None;
        for id in usable() {
            last = Some(id);
            left -= self.snapshot.key(id).weight;
            if left < 0.0 {
                break;
            }
        }
        last
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
