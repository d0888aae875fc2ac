//! The watchdog: says in the log which worker makes no progress, and when it does again. Decides nothing else:
//! readiness and metrics read the same facts themselves, and a blocked thread cannot be helped from outside.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::board::Board;

/// How often the workers are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the watchdog is told.
pub(crate) enum WatchdogMessage {
    /// The next look is due.
    Look,
}

/// The actor.
pub(crate) struct Watchdog;

pub(crate) struct WatchdogState {
    board: Arc<Board>,
    /// Workers that made no progress at the last look.
    stalled: Vec<usize>,
}

impl Actor for Watchdog {
    type Msg = WatchdogMessage;
    type State = WatchdogState;
    type Arguments = Arc<Board>;

    async fn pre_start(
        &self,
        myself: ActorRef<WatchdogMessage>,
        board: Arc<Board>,
    ) -> Result<WatchdogState, ActorProcessingErr> {
        myself.send_message(WatchdogMessage::Look)?;
        Ok(WatchdogState { board, stalled: Vec::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<WatchdogMessage>,
        WatchdogMessage::Look: WatchdogMessage,
        state: &mut WatchdogState,
    ) -> Result<(), ActorProcessingErr> {
        state.look();
        myself.send_after(LOOK_INTERVAL, || WatchdogMessage::Look);
        Ok(())
    }
}

impl WatchdogState {
    fn look(&mut self) {
        let now = self.board.workers.stalled();
        for worker in now.iter().filter(|it| !self.stalled.contains(it)) {
            tracing::error!(worker, "a worker makes no progress");
            self.board.stalls.fetch_add(1, Ordering::Relaxed);
        }
        for worker in self.stalled.iter().filter(|it| !now.contains(it)) {
            tracing::warn!(worker, "a worker that made no progress does again");
        }
        self.stalled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{CONFIG, bench_of};

    #[tokio::test]
    async fn a_stall_is_counted_once() {
        let (bench, workers) = bench_of(CONFIG);
        let mut state = WatchdogState { board: bench.board.clone(), stalled: Vec::new() };
        let stalls = || bench.board.stalls.load(Ordering::Relaxed);
        for (stalled, expect) in [(false, 0), (true, 1), (true, 1), (false, 1), (true, 2)] {
            workers.stalled.store(stalled, Ordering::Relaxed);
            state.look();
            assert_eq!(stalls(), expect);
        }
    }
}
