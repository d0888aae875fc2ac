//! The report pump: drains the workers' rings and is the only sender into the actors' mailboxes, through doors that
//! hold a stated number. What finds no room is dropped and counted; nothing that matters to a call is lost with it,
//! because keys and quotas are looked at in their cells, too.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use rtrb::Consumer;
use tidegate_core::Verdict;
use tidegate_core::limits::REPORT_DRAIN_INTERVAL;
use tidegate_core::report::Report;
use tokio::sync::OwnedMutexGuard;

use crate::board::Board;
use crate::exporter::ExporterMessage;
use crate::key::KeyMessage;
use crate::quota::{Mark, QuotaMessage};

/// Reports of one worker in one turn: what a worker at full speed writes between two turns, several times over.
const TURN_MAX: usize = 4_096;
/// Longest pause between turns while nothing comes.
const PAUSE_MAX: Duration = Duration::from_millis(40);

/// Time for a dead pump to let go of the rings.
const LEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the pump is told.
pub(crate) enum PumpMessage {
    /// The next turn.
    Turn,
}

/// The actor.
pub(crate) struct Pump;

/// Holds the rings while the actor lives, so that the next one finds them.
pub(crate) struct PumpState {
    board: Arc<Board>,
    rings: OwnedMutexGuard<Vec<Consumer<Report>>>,
    pause: Duration,
}

impl Actor for Pump {
    type Msg = PumpMessage;
    type State = PumpState;
    type Arguments = Arc<Board>;

    async fn pre_start(
        &self,
        myself: ActorRef<PumpMessage>,
        board: Arc<Board>,
    ) -> Result<PumpState, ActorProcessingErr> {
        let rings = tokio::time::timeout(LEASE_TIMEOUT, board.rings.clone().lock_owned()).await?;
        myself.send_message(PumpMessage::Turn)?;
        Ok(PumpState { board, rings, pause: REPORT_DRAIN_INTERVAL })
    }

    async fn handle(
        &self,
        myself: ActorRef<PumpMessage>,
        PumpMessage::Turn: PumpMessage,
        state: &mut PumpState,
    ) -> Result<(), ActorProcessingErr> {
        let moved = state.turn();
        state.pause = if moved == 0 { (state.pause * 2).min(PAUSE_MAX) } else { REPORT_DRAIN_INTERVAL };
        myself.send_after(state.pause, || PumpMessage::Turn);
        Ok(())
    }
}

impl PumpState {
    /// Moves what has come; returns how many reports that were.
    fn turn(&mut self) -> usize {
        let mut moved = 0;
        for at in 0..self.rings.len() {
            let ring = &mut self.rings[at];
            let count = ring.slots().min(TURN_MAX);
            if count == 0 {
                continue;
            }
            let mut batch = Vec::with_capacity(count);
            while batch.len() < count {
                let Ok(report) = ring.pop() else { break };
                batch.push(report);
            }
            moved += batch.len();
            batch.iter().for_each(|it| self.tell(it));
            self.export(batch);
        }
        moved
    }

    /// Passes on what an actor acts upon.
    fn tell(&self, report: &Report) {
        let directory = &self.board.directory;
        match report {
            Report::Attempt(report) if report.verdict == Verdict::KeyRefused => {
                let Some(names) = self.board.names_of(report.revision) else { return };
                if let Some(door) =
                    directory.load().key(names.provider(report.provider), names.key(report.key))
                {
                    door.push(KeyMessage::Suspected);
                }
            }
            Report::Organization(report) => {
                let Some(names) = self.board.names_of(report.revision) else { return };
                let Some((provider, account)) = names.placed_account(report.account) else { return };
                let mark = Mark { organization: report.organization, workspace: report.workspace };
                if let Some(door) = directory.load().quota(provider, account) {
                    door.push(|ticket| QuotaMessage::Marked(mark, ticket));
                }
            }
            Report::Attempt(_) | Report::Call(_) => {}
        }
    }

    fn export(&self, batch: Vec<Report>) {
        let count = batch.len() as u64;
        let directory = self.board.directory.load();
        let sent = match &directory.exporter {
            Some(door) => door.push(|ticket| ExporterMessage::Batch(batch, ticket)),
            None => false,
        };
        if !sent {
            self.board.unexported.fetch_add(count, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use rtrb::RingBuffer;

    use super::*;
    use crate::board::Directory;
    use crate::door::Door;
    use crate::exporter::BATCHES_MAX;
    use crate::tests::{self as shared, call_report};

    /// An exporter that never gets done.
    struct Stuck;

    impl Actor for Stuck {
        type Msg = ExporterMessage;
        type State = ();
        type Arguments = ();
        async fn pre_start(&self, _: ActorRef<ExporterMessage>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
        async fn handle(
            &self,
            _: ActorRef<ExporterMessage>,
            _message: ExporterMessage,
            (): &mut (),
        ) -> Result<(), ActorProcessingErr> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_exporter_costs_reports_and_no_memory() {
        let board = shared::bench().board;
        let (mut ring, consumer) = RingBuffer::new(8);
        board.rings.lock().await.push(consumer);
        let (stuck, _) = Actor::spawn(None, Stuck, ()).await.expect("an actor");
        let exporter = Some(Door::new(stuck, BATCHES_MAX));
        board.directory.store(Arc::new(Directory { exporter, ..Directory::default() }));
        let (pump, _) = Actor::spawn(None, Pump, board.clone()).await.expect("an actor");
        let mut sent = 0;
        for _ in 0..100 {
            for _ in 0..8 {
                sent += u64::from(ring.push(Report::Call(call_report(1))).is_ok());
            }
            tokio::time::sleep(PAUSE_MAX * 2).await;
        }
        assert_eq!(sent, 800, "the ring is emptied whatever the exporter does");
        assert_eq!(board.unexported.load(Ordering::Relaxed), sent - 8 * BATCHES_MAX as u64);
        pump.kill();
    }
}
