//! What the gateway holds of the heap, against what its slots may hold.

use tidegate_gateway::Plane;

use crate::ledger::Ledger;
use crate::script::Script;

/// Placeholder.
pub struct Memory;

impl Memory {
    /// Nothing held.
    pub fn new(_script: &Script) -> Memory {
        Memory
    }

    /// A worker of the gateway had its turn.
    pub fn after_turn(&mut self) {}

    /// Checks.
    pub fn check(&self, _plane: &Plane, _connections: u64, _ledger: &mut Ledger) {}
}
