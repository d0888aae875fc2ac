//! One run: the machine is built, the script is played, then everything is calm and must work, then the gateway ends
//! and nothing may be left.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_core::limits as bounds;
use tidegate_gateway::{Plane, PlaneOptions, WorkerSetup, sim as gateway};
use tidegate_ring::Driver;
use tidegate_ring::sim::{Faults, Sim, WorkerId};

use crate::caller::{self, PANIC_MARK};
use crate::check::Checks;
use crate::config::{GATEWAY, Revision};
use crate::control::{self, Control};
use crate::ledger::{CallRecord, End, Failure, Ledger, Shared, mark};
use crate::script::{Ask, CallScript, Manner, SECOND_NS, Script};
use crate::trouble::Trouble;
use crate::{memory, panics, provider};

/// How long everything is calm before the closing check: longer than any rest, shorter than the lease of a probe that
/// was lost.
const CALM_NS: u64 = 400 * SECOND_NS;
/// How long the gateway may take to end once nobody calls.
const END_NS: u64 = 60 * SECOND_NS;
/// Between two calls of the closing check: even a bucket of three a minute refills.
const CLOSING_PAUSE_NS: u64 = 21 * SECOND_NS;
/// Entries that a worker may leave in one step.
const ENTRIES: usize = 64;
/// Reports that a worker may leave; nobody reads them, so that they are dropped and counted.
const REPORTS: usize = 4;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The first promise that was broken.
    pub failure: Option<Failure>,
    /// Steps taken.
    pub steps: u64,
    /// Everything that happened, in one number.
    pub digest: u64,
    /// Calls, by how they ended: complete, error event, refused, left, cut.
    pub ends: [usize; 5],
    /// Requests on the wire.
    pub tries: usize,
    /// Moves that a budget paid for.
    pub paid_moves: usize,
    /// Virtual time.
    pub virtual_ns: u64,
    /// The most that the gateway held of the heap.
    pub held_bytes_max: isize,
    /// What is known of the call that a failure is about.
    pub context: Vec<String>,
    /// Every call, as it was seen.
    pub calls: Vec<CallRecord>,
}

/// Plays `script`, but no more than `steps_max` steps of it.
pub fn run(script: &Script, steps_max: u64) -> Outcome {
    panics::noting(|| Run::new(script).play(steps_max))
}

struct Run {
    sim: Sim,
    script: Rc<Script>,
    ledger: Shared,
    plane: Arc<Plane>,
    control: Control,
    checks: Checks,
    callers: WorkerId,
    providers: WorkerId,
    gateway: Vec<WorkerId>,
    steps_max: u64,
}

impl Run {
    fn new(script: &Script) -> Run {
        let script = Rc::new(script.clone());
        let ledger: Shared = Rc::new(RefCell::new(Ledger::default()));
        ledger.borrow_mut().calls = script.calls.iter().map(record_of).collect();
        ledger.borrow_mut().open_calls = script.calls.len();
        let mut sim = Sim::new(script.seed);
        sim.set_faults(script.network);
        sim.watch_wire();
        sim.set_meter(memory::process_held);
        let start_ns = sim.now_ns();
        let first = control::snapshot(&script, &Revision::first(&script), None, start_ns);
        let options = PlaneOptions {
            driver: Driver::Sim,
            workers: script.workers,
            slots: script.slots,
            body_memory_bytes: 4 * 1024 * 1024,
            danger_panic_mark: script.troubles.has(Trouble::Panic).then_some(PANIC_MARK),
        };
        let planned = Plane::new(options, first.clone());
        let (plane, inboxes) = planned.unwrap_or_else(|refused| panic!("a plane without TLS: {refused}"));
        let (mut gateway, mut entries) = (Vec::new(), Vec::new());
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let (entry, consumer) = rtrb::RingBuffer::new(ENTRIES);
            entries.push(consumer);
            let (reports, _) = rtrb::RingBuffer::new(REPORTS);
            let setup =
                WorkerSetup { plane: plane.clone(), index, reports, entries: entry, inbox, core: None };
            gateway.push(sim.worker(async move || {
                let ended = gateway::serve(setup, GATEWAY).await;
                assert!(ended.is_ok(), "a worker of the gateway: {ended:?}");
            }));
        }
        let (its, shared) = (script.clone(), ledger.clone());
        let providers = sim.worker(async move || provider::serve(its, shared, start_ns).await);
        let (its, shared) = (script.clone(), ledger.clone());
        let callers = sim.worker(async move || caller::run(its, shared, start_ns).await);
        let control = Control::new(script.clone(), plane.clone(), first, start_ns);
        let checks = Checks::new(&script, &sim, &control, plane.clone(), gateway.clone(), entries);
        Run { sim, script, ledger, plane, control, checks, callers, providers, gateway, steps_max: 0 }
    }

    fn play(mut self, steps_max: u64) -> Outcome {
        self.steps_max = steps_max;
        let start_ns = self.sim.now_ns();
        // A failure in any part ends the run.
        let _ = self.play_parts();
        let ledger = self.ledger.borrow();
        let mut outcome = Outcome {
            failure: ledger.failure.clone(),
            steps: ledger.step,
            digest: self.sim.trace_digest(),
            paid_moves: self.checks.paid_moves(),
            held_bytes_max: self.checks.held_bytes_max(),
            virtual_ns: self.sim.now_ns() - start_ns,
            ..Outcome::default()
        };
        if let Some(call) = ledger.failure.as_ref().and_then(|it| it.call) {
            outcome.context = context(&self.script, &ledger, call);
        }
        outcome.calls.clone_from(&ledger.calls);
        for call in &ledger.calls {
            outcome.tries += call.tries.len();
            let Some((end, _)) = call.end else { continue };
            outcome.ends[match end {
                End::Complete => 0,
                End::ErrorEvent => 1,
                End::Refused(_) => 2,
                End::Left => 3,
                End::Cut { .. } => 4,
            }] += 1;
        }
        outcome
    }

    /// `None` as soon as a promise was broken or no step is left.
    fn play_parts(&mut self) -> Option<()> {
        let callers = self.callers;
        self.step_until(|run| run.sim.is_finished(callers))?;
        if !self.ledger.borrow().is_ending {
            self.close()?;
            self.ledger.borrow_mut().is_ending = true;
            self.plane.drain();
        } else {
            self.plane.cut();
        }
        let end_ns = self.sim.now_ns() + END_NS;
        let is_over = |run: &Run| run.gateway.iter().all(|it| run.sim.is_finished(*it));
        self.step_until(|run| is_over(run) || run.sim.now_ns() > end_ns)?;
        if !is_over(self) {
            let left = self.plane.connections();
            let what = format!("the gateway does not end: {left} slots are taken");
            self.ledger.borrow_mut().fail(7, None, what);
            return None;
        }
        let end_ns = self.sim.now_ns() + END_NS;
        self.step_until(|run| run.sim.open_connections() == 0 || run.sim.now_ns() > end_ns)?;
        self.sim.stop(self.providers);
        self.checks.when_quiet(&self.sim, &self.control, &self.ledger);
        Some(())
    }

    /// Everything is calm: what rested may be used again, and calls succeed.
    fn close(&mut self) -> Option<()> {
        self.sim.set_faults(Faults::NONE);
        self.ledger.borrow_mut().is_calm = true;
        self.control.revive();
        let calm_ns = self.sim.now_ns() + CALM_NS;
        self.step_until(|run| run.sim.now_ns() >= calm_ns)?;
        let wanted = self.closing_calls();
        let first = self.ledger.borrow().calls.len();
        for (_, call) in &wanted {
            let mut ledger = self.ledger.borrow_mut();
            ledger.calls.push(CallRecord { is_closing: true, ..record_of(call) });
            ledger.open_calls += 1;
        }
        let wanted: Vec<(usize, CallScript)> =
            wanted.into_iter().enumerate().map(|(at, (_, call))| (first + at, call)).collect();
        let (script, ledger) = (self.script.clone(), self.ledger.clone());
        let closing = self.sim.worker(async move || caller::run_closing(script, ledger, wanted).await);
        self.step_until(|run| run.sim.is_finished(closing))
    }

    /// A call of each virtual key that is left, in each dialect that there is.
    fn closing_calls(&self) -> Vec<(usize, CallScript)> {
        let mut calls = Vec::new();
        let mut dialects: Vec<usize> = self.script.providers.iter().map(|it| it.dialect).collect();
        dialects.sort_unstable();
        dialects.dedup();
        for tenant in 0..self.script.tenants.len() {
            // A large body may leave a debt of tokens that outlasts the calm.
            let may_owe = self.script.tenants[tenant].tokens_per_minute.is_some()
                && self.script.troubles.has(Trouble::BigBody);
            if self.control.revoked_ns[tenant].is_some() || may_owe {
                continue;
            }
            for dialect in &dialects {
                let at_ns = calls.len() as u64 * CLOSING_PAUSE_NS;
                let call = CallScript {
                    tenant,
                    lane: 0,
                    at_ns,
                    dialect: *dialect,
                    streamed: calls.len().is_multiple_of(2),
                    ask: Ask::Bare(calls.len() % 2),
                    text_bytes: 60,
                    max_tokens: 50,
                    counts_tokens: false,
                    manner: Manner::Plain,
                };
                calls.push((tenant, call));
            }
        }
        calls
    }

    fn step_until(&mut self, is_done: impl Fn(&Run) -> bool) -> Option<()> {
        while !is_done(self) {
            if self.sim.now_ns() >= self.control.next_ns() {
                self.control.act(&mut self.sim, &self.ledger);
            }
            self.ledger.borrow_mut().step += 1;
            self.checks.before_step();
            if !self.sim.step_within(self.control.next_ns()) {
                self.ledger.borrow_mut().fail(9, None, "nothing can ever happen again");
            }
            self.checks.after_step(&mut self.sim, &self.script, &self.control, &self.ledger);
            let ledger = self.ledger.borrow();
            if ledger.failure.is_some() || ledger.step >= self.steps_max {
                return None;
            }
        }
        Some(())
    }
}

/// Everything that is known of a call.
fn context(script: &Script, ledger: &Ledger, call: usize) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(it) = script.calls.get(call) {
        lines.push(format!("asked: {it:?}"));
    }
    let Some(record) = ledger.calls.get(call) else { return lines };
    lines.push(format!("mark {}, sent {:?}, end {:?}", mark(record.tenant, call), record.sent, record.end));
    lines.extend(record.tries.iter().map(|it| format!("{it:?}")));
    let attempts = ledger.attempts.iter().enumerate().filter(|it| it.1.call == call);
    lines.extend(attempts.map(|(at, it)| format!("attempt {at}: {it:?}")));
    if let Some(entry) = record.request_id.as_ref().and_then(|it| ledger.entries.get(it)) {
        lines.push(format!("{:?}", entry.call));
        lines.extend(entry.tries.kept().map(|it| format!("{it:?}")));
    }
    lines
}

fn record_of(call: &CallScript) -> CallRecord {
    CallRecord { tenant: call.tenant, counts_tokens: call.counts_tokens, ..CallRecord::default() }
}

const _: () = assert!(CALM_NS < bounds::PROBE_LEASE.as_nanos() as u64, "a lost probe must be noticed");
