//! One actor a chain of more than one target: decides which target goes first while the configured first is not
//! healthy, and goes back slowly.
//!
//! Workers fail over call by call without it; this saves each call the try that is known to fail. Routes are judged
//! by their cells, which belong to the workers.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tidegate_core::Snapshot;
use tidegate_core::health::RouteGate;
use tidegate_core::snapshot::{Model, Target};
use tokio::time::Instant;

use crate::board::Board;

/// How often the routes are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long an earlier target must have been healthy before it goes first again.
pub(crate) const RETURN_AFTER: Duration = Duration::from_secs(30);

/// What a chain actor is told.
pub(crate) enum ChainMessage {
    /// The next look is due.
    Look,
}

/// The actor.
pub(crate) struct ChainActor;

pub(crate) struct ChainActorState {
    board: Arc<Board>,
    model: String,
    order: Order,
}

impl Actor for ChainActor {
    type Msg = ChainMessage;
    type State = ChainActorState;
    /// The public model's name.
    type Arguments = (Arc<Board>, String);

    async fn pre_start(
        &self,
        myself: ActorRef<ChainMessage>,
        (board, model): Self::Arguments,
    ) -> Result<ChainActorState, ActorProcessingErr> {
        myself.send_message(ChainMessage::Look)?;
        Ok(ChainActorState { board, model, order: Order::default() })
    }

    async fn handle(
        &self,
        myself: ActorRef<ChainMessage>,
        ChainMessage::Look: ChainMessage,
        state: &mut ChainActorState,
    ) -> Result<(), ActorProcessingErr> {
        state.look();
        myself.send_after(LOOK_INTERVAL, || ChainMessage::Look);
        Ok(())
    }
}

impl ChainActorState {
    fn look(&mut self) {
        let snapshot = self.board.snapshot.load_full();
        let Some(id) = snapshot.model_named(&self.model) else { return };
        let model: &Model = snapshot.model(id);
        let healthy: Vec<bool> = model.chain.iter().map(|it| self.healthy(&snapshot, it)).collect();
        let before = model.cell.first();
        let first = self.order.first(before, &healthy, Instant::now());
        if first != before {
            model.cell.lead_with(first);
            let target = &model.chain[first];
            let provider = &*snapshot.provider(target.provider).name;
            tracing::warn!(
                model = self.model,
                provider,
                target = &*target.model,
                "another target goes first"
            );
        }
    }

    /// The route lets calls through, and somebody there could carry them.
    fn healthy(&self, snapshot: &Snapshot, target: &Target) -> bool {
        let provider = snapshot.provider(target.provider);
        let open =
            !matches!(provider.route(target.route).cell.gate(self.board.now()), RouteGate::Closed { .. });
        open && provider.accounts.iter().map(|it| snapshot.account(*it)).any(|account| {
            account.cell.usable() && account.keys.iter().any(|it| snapshot.key(*it).cell.usable())
        })
    }
}

/// Which target goes first. Pure; time is an argument.
#[derive(Debug, Default)]
struct Order {
    /// Since when each target has been healthy without a break.
    healthy_since: Vec<Option<Instant>>,
}

impl Order {
    /// The position of the target that should go first, `before` being the one that did.
    fn first(&mut self, before: usize, healthy: &[bool], now: Instant) -> usize {
        self.healthy_since.resize(healthy.len(), None);
        for (since, healthy) in self.healthy_since.iter_mut().zip(healthy) {
            *since = if *healthy { since.or(Some(now)) } else { None };
        }
        let before = if before < healthy.len() { before } else { 0 };
        let long_healthy = |it: &Option<Instant>| {
            it.is_some_and(|since| now.saturating_duration_since(since) >= RETURN_AFTER)
        };
        if let Some(earlier) = self.healthy_since[..before].iter().position(long_healthy) {
            return earlier;
        }
        if healthy.get(before) == Some(&true) {
            return before;
        }
        // Nobody is healthy: the configured order is as good as any.
        healthy.iter().position(|it| *it).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_at_once_and_returns_slowly() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut order = Order::default();
        assert_eq!(order.first(0, &[true, true, true], at(0)), 0);
        assert_eq!(order.first(0, &[false, true, true], at(1)), 1, "leaves at once");
        assert_eq!(order.first(1, &[true, true, true], at(2)), 1);
        assert_eq!(order.first(1, &[true, true, true], at(31)), 1, "29 s are not enough");
        assert_eq!(order.first(1, &[false, true, true], at(31)), 1, "a relapse");
        assert_eq!(order.first(1, &[true, true, true], at(40)), 1);
        assert_eq!(order.first(1, &[true, true, true], at(69)), 1);
        assert_eq!(order.first(1, &[true, true, true], at(70)), 0, "30 s without a break");
    }

    #[test]
    fn odd_chains() {
        let start = Instant::now();
        assert_eq!(Order::default().first(0, &[false, false], start), 0, "nobody is healthy");
        assert_eq!(Order::default().first(9, &[true, true], start), 0, "a position of another chain");
        assert_eq!(Order::default().first(2, &[true, false, false], start), 0, "the leader fell: no waiting");
        assert_eq!(Order::default().first(0, &[], start), 0);
    }
}
