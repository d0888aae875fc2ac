//! The control plane of a run, and the host: publishes revisions, checks suspect keys, orders chains, and lets the wall
//! clock jump. It acts between two steps, as a thread of its own might at any moment. Where the script says so it dies
//! in the middle: nothing is checked or taken back any more, and the last verdicts stand.

use std::rc::Rc;
use std::sync::Arc;

use tidegate_core::health::{KeyState, KeyVerdict, RouteGate};
use tidegate_core::{Moment, Snapshot};
use tidegate_gateway::Plane;
use tidegate_ring::sim::Sim;

use crate::chance::Chance;
use crate::config::{self, Revision, provider_address};
use crate::ledger::Shared;
use crate::script::{Event, SECOND_NS, Script};
use crate::trouble::Trouble;

/// How often it looks at keys and chains.
const LOOK_NS: u64 = SECOND_NS;
/// Looks after which an operator has acted for an account without money.
const LOOKS_UNTIL_REOPENED: u64 = 30;

/// The control plane.
pub struct Control {
    script: Rc<Script>,
    plane: Arc<Plane>,
    revision: Revision,
    /// Every snapshot that was in force, in order: whoever borrows one must not be the last to hold it.
    snapshots: Vec<Arc<Snapshot>>,
    /// What the script has it do, the next first.
    events: Vec<(u64, Event)>,
    next_look_ns: u64,
    looks: u64,
    /// Checks of keys under way: provider, account, key; and the suspicion that each is about.
    checks: Vec<((usize, usize, usize), u64)>,
    dies_ns: u64,
    cuts: Vec<(u64, Cut)>,
    /// When each virtual key was revoked.
    pub revoked_ns: Vec<Option<u64>>,
}

#[derive(Clone, Copy)]
enum Cut {
    Whole,
    All,
}

impl Control {
    /// A control plane that has published `first`.
    pub fn new(script: Rc<Script>, plane: Arc<Plane>, first: Arc<Snapshot>, start_ns: u64) -> Control {
        let mut chance = Chance::at(script.seed, &[8]);
        let dies = script.troubles.has(Trouble::NoControl);
        let dies_ns = if dies { start_ns + chance.below(20 * SECOND_NS) } else { u64::MAX };
        let mut events: Vec<(u64, Event)> = script.events.iter().map(|it| (start_ns + it.0, it.1)).collect();
        events.reverse();
        Control {
            revision: Revision::first(&script),
            revoked_ns: vec![None; script.tenants.len()],
            script,
            plane,
            snapshots: vec![first],
            events,
            next_look_ns: start_ns + LOOK_NS,
            looks: 0,
            checks: Vec::new(),
            dies_ns,
            cuts: Vec::new(),
        }
    }

    /// The first snapshot of the run, for its cells: they are the same in every later one.
    pub fn first(&self) -> &Arc<Snapshot> {
        &self.snapshots[0]
    }

    /// The snapshot of a revision.
    pub fn snapshot_of(&self, revision: u64) -> Option<&Arc<Snapshot>> {
        self.snapshots.get(usize::try_from(revision.checked_sub(1)?).ok()?)
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.snapshots.len() as u64
    }

    /// When it acts next.
    pub fn next_ns(&self) -> u64 {
        let event = self.events.last().map_or(u64::MAX, |it| it.0);
        let cut = self.cuts.first().map_or(u64::MAX, |it| it.0);
        event.min(cut).min(self.next_look_ns)
    }

    /// Does what is due.
    pub fn act(&mut self, sim: &mut Sim, ledger: &Shared) {
        let now_ns = sim.now_ns();
        while self.events.last().is_some_and(|it| it.0 <= now_ns) {
            let Some((_, event)) = self.events.pop() else { break };
            self.carry_out(event, sim, ledger);
        }
        while self.cuts.first().is_some_and(|it| it.0 <= now_ns) {
            match self.cuts.remove(0).1 {
                Cut::Whole => self.plane.cut_whole(),
                Cut::All => self.plane.cut(),
            }
        }
        if now_ns >= self.next_look_ns {
            self.next_look_ns = now_ns + LOOK_NS;
            if now_ns < self.dies_ns {
                self.look(now_ns, ledger.borrow().is_calm);
            }
        }
    }

    /// It comes back, if it was dead.
    pub fn revive(&mut self) {
        self.dies_ns = u64::MAX;
        // Nothing changes any more but for the better.
        self.events.clear();
        self.snapshots[0].accounts.iter().for_each(|it| it.cell.reopen());
    }

    fn carry_out(&mut self, event: Event, sim: &mut Sim, ledger: &Shared) {
        let now_ns = sim.now_ns();
        let is_dead = now_ns >= self.dies_ns;
        match event {
            Event::WallJump(by_ms) => sim.jump_wall_ms(by_ms),
            Event::Shutdown(whole_ns, streams_ns) => {
                ledger.borrow_mut().is_ending = true;
                self.plane.drain();
                self.cuts = vec![(now_ns + whole_ns, Cut::Whole), (now_ns + whole_ns + streams_ns, Cut::All)];
            }
            _ if is_dead => {}
            Event::Reload => self.publish(now_ns, ledger),
            Event::Retune(tenant, limit) => {
                self.revision.requests_per_minute[tenant] = (limit > 0).then_some(limit);
                self.publish(now_ns, ledger);
            }
            Event::Revoke(tenant) => {
                self.revision.revoked[tenant] = true;
                self.publish(now_ns, ledger);
                self.revoked_ns[tenant].get_or_insert(now_ns);
            }
        }
    }

    /// As the configuration actor does: built beside the one in force, addresses first, then what is gone is revoked.
    fn publish(&mut self, now_ns: u64, ledger: &Shared) {
        self.revision.number += 1;
        let current = &self.snapshots[self.snapshots.len() - 1];
        let next = snapshot(&self.script, &self.revision, Some(current), now_ns);
        if self.plane.publish(next.clone()).is_err() {
            return ledger.borrow_mut().fail(0, None, "a configuration without TLS was refused");
        }
        for (_, caller) in current.callers.iter() {
            if next.callers.named(&caller.name).is_none() {
                caller.cells.revoke();
            }
        }
        self.snapshots.push(next);
    }

    fn look(&mut self, now_ns: u64, is_calm: bool) {
        self.looks += 1;
        let snapshot = self.snapshots[self.snapshots.len() - 1].clone();
        for (key, serial) in std::mem::take(&mut self.checks) {
            let place = [9, key.0 as u64, key.1 as u64, key.2 as u64, self.looks];
            let is_out = !is_calm && Chance::at(self.script.seed, &place).per_mille(250);
            let found = if is_out { KeyVerdict::Out } else { KeyVerdict::Good };
            if let Some(cell) = key_cell(&snapshot, key) {
                // Too late a verdict is made again at the next look.
                let _ = cell.verdict(serial, found);
            }
        }
        for (provider, account, key) in keys_of(&self.script) {
            let Some(cell) = key_cell(&snapshot, (provider, account, key)) else { continue };
            if cell.state() != KeyState::Good {
                self.checks.push(((provider, account, key), cell.serial()));
            }
        }
        if self.looks.is_multiple_of(LOOKS_UNTIL_REOPENED) {
            snapshot.accounts.iter().for_each(|it| it.cell.reopen());
        }
        for model in &snapshot.models {
            let is_open = |it: &tidegate_core::snapshot::Target| {
                let route = snapshot.provider(it.provider).route(it.route);
                !matches!(route.cell.gate(Moment::from_ns(now_ns)), RouteGate::Closed { .. })
            };
            model.cell.lead_with(model.chain.iter().position(is_open).unwrap_or(0));
        }
    }
}

/// The snapshot of a revision, with the addresses that the resolver would have found.
pub fn snapshot(
    script: &Script,
    revision: &Revision,
    before: Option<&Arc<Snapshot>>,
    now_ns: u64,
) -> Arc<Snapshot> {
    let draft = config::draft(script, revision);
    let snapshot = Snapshot::build(draft, before.map(|it| &**it), Moment::from_ns(now_ns));
    for (at, provider) in snapshot.providers.iter().enumerate() {
        provider.origin.addresses.publish(vec![provider_address(at)]);
    }
    Arc::new(snapshot)
}

/// Provider, account and key of every credential.
pub fn keys_of(script: &Script) -> impl Iterator<Item = (usize, usize, usize)> {
    script.providers.iter().enumerate().flat_map(|(provider, it)| {
        let accounts = it.accounts.iter().enumerate();
        accounts.flat_map(move |(account, it)| (0..it.keys).map(move |key| (provider, account, key)))
    })
}

fn key_cell(
    snapshot: &Snapshot,
    (provider, account, key): (usize, usize, usize),
) -> Option<&tidegate_core::health::KeyCell> {
    let id = *snapshot.providers.get(provider)?.accounts.get(account)?;
    let id = *snapshot.account(id).keys.get(key)?;
    Some(&snapshot.key(id).cell)
}
