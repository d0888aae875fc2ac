//! What is asserted after every step of a run, and once it is quiet: the eleven assertions of the failure model that can
//! be seen from outside. Each failure is noted in the ledger; nothing here changes the run.
//!
//! | no. | where |
//! | --- | --- |
//! | 1 | limits of callers (`limits`), permits and holds (`cells`); there are no budgets in money yet |
//! | 2 | every request on the wire against the cells (`watch`, `cells`) |
//! | 3 | every answer (`caller::answer`), against the access log (`quiet`) |
//! | 4 | every piece of content (`caller::answer`), every request on the wire (`watch`) |
//! | 5 | every request on the wire (`watch`) |
//! | 6 | the path of every request (`watch`), the access log (`quiet`) |
//! | 7 | chunks, body memory and slots, here |
//! | 8 | marks at providers and callers, connections used again (`watch`); there is no cache yet |
//! | 9 | every call has a deadline, and calls of the closing check succeed (`caller`) |
//! | 10 | the access log against the providers' ledger (`quiet`) |
//! | 11 | what the gateway allocates, here |

use std::sync::Arc;

use tidegate_core::access::Entry;
use tidegate_core::limits as bounds;
use tidegate_gateway::Plane;
use tidegate_ring::sim::{Sim, WireEvent, WorkerId};

use crate::cells::Cells;
use crate::control::Control;
use crate::ledger::Shared;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::quiet;
use crate::script::Script;
use crate::watch::{Surroundings, Watch};

/// Chunks that one connection may hold, of the simulated arm.
const LENT_CHUNKS_MAX: usize = 4;

/// All checks of a run.
pub struct Checks {
    cells: Cells,
    watch: Watch,
    limits: Limits,
    memory: Memory,
    entries: Vec<rtrb::Consumer<Entry>>,
    events: Vec<WireEvent>,
    plane: Arc<Plane>,
    gateway: Vec<WorkerId>,
    panics: u64,
}

impl Checks {
    /// Checks of a run of `script` on `plane`.
    pub fn new(
        script: &Script,
        sim: &Sim,
        control: &Control,
        plane: Arc<Plane>,
        gateway: Vec<WorkerId>,
        entries: Vec<rtrb::Consumer<Entry>>,
    ) -> Checks {
        Checks {
            cells: Cells::of(control.first(), script.tenants.len()),
            watch: Watch::default(),
            limits: Limits::new(script),
            memory: Memory::new(sim.network_held()),
            entries,
            events: Vec::new(),
            plane,
            gateway,
            panics: 0,
        }
    }

    /// What must hold after any step.
    pub fn after_step(&mut self, sim: &mut Sim, script: &Script, control: &Control, shared: &Shared) {
        let is_gateways = sim.turned().is_some_and(|it| self.gateway.contains(&it));
        self.memory.after_step(is_gateways, sim.network_held());
        let mut ledger = shared.borrow_mut();
        ledger.now_ns = sim.now_ns();
        sim.take_wire_events(&mut self.events);
        let around = Surroundings {
            script,
            snapshot: control.first(),
            revision: control.revision(),
            revoked_ns: &control.revoked_ns,
        };
        if is_gateways {
            self.cells.note(&ledger);
        }
        for event in self.events.drain(..) {
            self.watch.see(event, &around, &mut self.cells, &self.limits, &mut ledger);
        }
        if !is_gateways {
            return;
        }
        self.cells.check_held(&mut ledger);
        self.limits.look(&self.cells.callers, &mut ledger);
        for worker in &mut self.entries {
            while let Ok(entry) = worker.pop() {
                self.limits.note_end(&entry, &mut ledger);
                quiet::note_entry(entry, control, &mut ledger);
            }
        }
        let connections = self.plane.connections();
        if connections > script.slots as u64 {
            ledger.fail(7, None, format!("{connections} connections in {} slots", script.slots));
        }
        for (tenant, cells) in self.cells.callers.iter().enumerate() {
            let held = cells.in_flight();
            if held > connections {
                ledger.fail(
                    1,
                    None,
                    format!("tenant {tenant} has {held} permits and {connections} connections"),
                );
            }
        }
        let lent = sim.lent_chunks();
        if lent > LENT_CHUNKS_MAX * 2 * sim.open_connections().max(1) {
            ledger.fail(7, None, format!("{lent} chunks are out"));
        }
        self.memory.check(script.workers, connections, self.plane.body_bytes(), &mut ledger);
        let panics = sim.panics();
        if panics != self.panics {
            self.panics = panics;
            let said = crate::panics::last();
            if !said.contains("carries the panic mark") {
                ledger.fail(0, None, format!("a panic that nobody asked for: {said}"));
            }
        }
    }

    /// What must hold once every caller has left and the gateway has ended.
    pub fn when_quiet(&mut self, sim: &Sim, control: &Control, shared: &Shared) {
        let mut ledger = shared.borrow_mut();
        self.cells.check_quiet(&mut ledger);
        let (connections, body_bytes) = (self.plane.connections(), self.plane.body_bytes());
        if connections != 0 || body_bytes != 0 {
            ledger.fail(
                7,
                None,
                format!("{connections} slots and {body_bytes} bytes of bodies did not come home"),
            );
        }
        if sim.lent_chunks() != 0 {
            ledger.fail(7, None, format!("{} chunks did not come home", sim.lent_chunks()));
        }
        quiet::check(control, &mut ledger);
    }

    /// The most that the gateway held of the heap.
    pub fn held_bytes_max(&self) -> isize {
        self.memory.held_bytes_max()
    }

    /// Looks at the heap anew: what was done between two steps is nobody's turn.
    pub fn before_step(&mut self) {
        self.memory.before_step();
    }

    /// Moves that a budget paid for.
    pub fn paid_moves(&self) -> usize {
        self.watch.paid_moves()
    }
}

const _: () = assert!(bounds::LENT_CHUNKS_MAX as usize == LENT_CHUNKS_MAX);
