//! What the gateway holds of the heap, against what its slots may hold. A turn of one of its workers changes what the
//! process holds; what the network came to hold in it is the kernel's, elsewhere, and left out.
//!
//! It needs an allocator that counts: a program that installs [`ALLOCATOR`] is checked, any other is not.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidegate_core::limits;

use crate::ledger::Ledger;

/// The counting allocator, to be made the program's own: `#[global_allocator]`.
pub static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a worker holds without any connection: its queues, tables and wheel.
const WORKER_BYTES: usize = 192 * 1024;
/// What a slot may hold beside its share of body memory, as the gateway prints it at start.
const SLOT_BYTES: usize = limits::SLOT_BYTES + 2 * limits::REPLY_HELD_BYTES_MAX;
/// Kept connections to providers, of a whole run: nothing but handles.
const POOLS_BYTES: usize = 128 * 1024;

/// What the gateway holds.
pub struct Memory {
    held: isize,
    held_max: isize,
    process_before: usize,
    network_before: isize,
}

/// Bytes of the heap that the process holds; zero where nobody counts.
pub fn process_held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated)
}

impl Memory {
    /// Nothing is held yet.
    pub fn new(network: isize) -> Memory {
        Memory { held: 0, held_max: 0, process_before: process_held(), network_before: network }
    }

    /// What was done since the last step is nobody's turn.
    pub fn before_step(&mut self) {
        self.process_before = process_held();
    }

    /// A step was taken.
    pub fn after_step(&mut self, is_gateways: bool, network: isize) {
        let process = process_held();
        if is_gateways {
            let of_process = process.wrapping_sub(self.process_before) as isize;
            self.held += of_process - (network - self.network_before);
            self.held_max = self.held_max.max(self.held);
        }
        self.process_before = process;
        self.network_before = network;
    }

    /// Not more than connections and bodies may hold.
    pub fn check(&self, workers: usize, connections: u64, body_bytes: u64, ledger: &mut Ledger) {
        // One that ended in this very step has freed its slot and holds a task until the next.
        let slots = connections as usize + 1;
        let bound = workers * WORKER_BYTES + slots * SLOT_BYTES + body_bytes as usize + POOLS_BYTES;
        if self.held > bound as isize {
            let held = self.held;
            let what =
                format!("{held} bytes are held for {connections} connections, and {bound} are allowed");
            ledger.fail(11, None, what);
        }
    }

    /// The most that was held.
    pub fn held_bytes_max(&self) -> isize {
        self.held_max
    }
}
