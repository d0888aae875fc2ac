//! The access log: a line for each call, from the workers' entries to a file or standard output. Decides when lines
//! are written and what becomes of them where they cannot be; never touches a call.
//!
//! Lines wait in one bounded buffer while the writer, a thread of its own, has another in hand. While it is stuck or
//! fails, entries stay in the workers' rings; full rings drop and count. So there is one place where lines are lost
//! while the gateway runs, and what was waiting is written as soon as there is room on the disk again.

mod line;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use rtrb::Consumer;
use tidegate_core::access::Entry;
use tidegate_core::limits::REPORT_DRAIN_INTERVAL;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::board::{Board, Loaded};
use crate::config::AccessSink;
use crate::door::Ticket;
use writer::{Done, Job, Writer};

/// Entries of one worker in one turn.
const TURN_MAX: usize = 2_048;
/// Bytes of lines that wait for the writer; as many again may be in its hand.
const WAITING_BYTES_MAX: usize = 256 * 1024;
/// Longest pause between turns while nothing comes.
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// Pause between turns while there is no access log.
const PAUSE_OFF: Duration = Duration::from_millis(500);
/// Pause before what could not be written is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Time for a dead actor to let go of the rings.
const LEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the last lines to be written at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What the actor is told.
pub(crate) enum AccessMessage {
    /// The next turn.
    Turn,
    /// The file was moved away: open it anew.
    Reopen(Ticket),
}

/// What operators may know of the access log; written by the actor.
#[derive(Debug, Default)]
pub(crate) struct AccessFacts {
    /// Lines written since the start.
    pub(crate) lines: AtomicU64,
    /// Lines that were waiting when the actor died, or for a file that a reload gave up.
    pub(crate) lost: AtomicU64,
    /// The last attempt to write failed.
    pub(crate) failing: AtomicBool,
}

/// The actor.
pub(crate) struct AccessLog;

/// Holds the rings while the actor lives, so that the next one finds them.
pub(crate) struct AccessState {
    board: Arc<Board>,
    rings: OwnedMutexGuard<Vec<Consumer<Entry>>>,
    /// The configuration that was looked at last.
    loaded: Arc<Loaded>,
    target: Option<Target>,
    pause: Duration,
}

/// Where lines go, and those on their way.
struct Target {
    sink: AccessSink,
    writer: Writer,
    waiting: Vec<u8>,
    /// What could not be written, and when it is tried again.
    retry: Option<(Done, Instant)>,
    reopen: bool,
}

impl Actor for AccessLog {
    type Msg = AccessMessage;
    type State = AccessState;
    type Arguments = Arc<Board>;

    async fn pre_start(
        &self,
        myself: ActorRef<AccessMessage>,
        board: Arc<Board>,
    ) -> Result<AccessState, ActorProcessingErr> {
        let rings = tokio::time::timeout(LEASE_TIMEOUT, board.entries.clone().lock_owned()).await?;
        let loaded = board.loaded.load_full();
        let target = Target::of(&loaded)?;
        myself.send_message(AccessMessage::Turn)?;
        Ok(AccessState { board, rings, loaded, target, pause: REPORT_DRAIN_INTERVAL })
    }

    async fn handle(
        &self,
        myself: ActorRef<AccessMessage>,
        message: AccessMessage,
        state: &mut AccessState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            AccessMessage::Turn => {
                let moved = state.turn()?;
                state.pause = match (&state.target, moved) {
                    (None, _) => PAUSE_OFF,
                    (Some(_), 0) => (state.pause * 2).min(PAUSE_MAX),
                    (Some(_), _) => REPORT_DRAIN_INTERVAL,
                };
                myself.send_after(state.pause, || AccessMessage::Turn);
            }
            AccessMessage::Reopen(_ticket) => {
                if let Some(target) = &mut state.target {
                    tracing::info!(to = %target.sink, "the access log is opened anew");
                    target.reopen = true;
                    // Now, so that lines wait as short as can be for a disk that has come back.
                    target.hand_over(Instant::now())?;
                }
            }
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<AccessMessage>,
        state: &mut AccessState,
    ) -> Result<(), ActorProcessingErr> {
        // What cannot be written by then is lost with the process.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, state.flush()).await;
        Ok(())
    }
}

impl AccessState {
    /// Follows the configuration, takes back what the writer is done with, makes lines, hands them over. How many
    /// entries were moved.
    fn turn(&mut self) -> Result<usize, ActorProcessingErr> {
        self.follow_configuration()?;
        let now = Instant::now();
        if let Some(target) = &mut self.target
            && let Some(done) = target.writer.try_take()
        {
            target.take_back(done, now, &self.board.access);
        }
        let moved = self.drain();
        if let Some(target) = &mut self.target {
            target.hand_over(now)?;
        }
        Ok(moved)
    }

    fn follow_configuration(&mut self) -> Result<(), ActorProcessingErr> {
        if Arc::ptr_eq(&self.loaded, &self.board.loaded.load()) {
            return Ok(());
        }
        self.loaded = self.board.loaded.load_full();
        if self.target.as_ref().map(|it| &it.sink) != self.loaded.checked.logs.access.as_ref() {
            let before = std::mem::replace(&mut self.target, Target::of(&self.loaded)?);
            if let Some(mut before) = before {
                if let Some(target) = &mut self.target {
                    target.waiting = std::mem::take(&mut before.waiting);
                }
                self.board.access.lost.fetch_add(before.lines_left(), Ordering::Relaxed);
            }
            self.board.access.failing.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes lines of what has come, as long as there is room for them. Without an access log nobody wants them.
    fn drain(&mut self) -> usize {
        let mut moved = 0;
        for ring in self.rings.iter_mut() {
            for _ in 0..TURN_MAX {
                if self.target.as_ref().is_some_and(|it| it.waiting.len() >= WAITING_BYTES_MAX) {
                    return moved;
                }
                let Ok(entry) = ring.pop() else { break };
                moved += 1;
                if let Some(target) = &mut self.target {
                    let names = self.board.names_of(entry.call.revision);
                    line::write(&mut target.waiting, &entry, names.as_deref());
                }
            }
        }
        moved
    }

    /// Writes what is there, to the end.
    async fn flush(&mut self) -> Result<(), ActorProcessingErr> {
        loop {
            let moved = self.turn()?;
            let Some(target) = &mut self.target else { return Ok(()) };
            if target.writer.is_busy() {
                let Some(done) = target.writer.take().await else { return Ok(()) };
                target.take_back(done, Instant::now(), &self.board.access);
            } else if moved == 0 {
                return Ok(());
            }
        }
    }
}

impl Drop for AccessState {
    fn drop(&mut self) {
        let lost = self.target.as_ref().map_or(0, Target::lines_left);
        self.board.access.lost.fetch_add(lost, Ordering::Relaxed);
    }
}

impl Target {
    fn of(loaded: &Loaded) -> std::io::Result<Option<Target>> {
        let Some(sink) = loaded.checked.logs.access.clone() else { return Ok(None) };
        let writer = Writer::start(sink.clone())?;
        // Opened before the first line: what is wrong with it shows at the start.
        Ok(Some(Target { sink, writer, waiting: Vec::new(), retry: None, reopen: true }))
    }

    /// Gives the writer the next lines, or those that failed, unless it is at work or has to rest.
    fn hand_over(&mut self, now: Instant) -> Result<(), ActorProcessingErr> {
        if self.writer.is_busy() {
            return Ok(());
        }
        let job = match self.retry.take() {
            Some((done, at)) if at > now && !self.reopen => {
                self.retry = Some((done, at));
                return Ok(());
            }
            Some((done, _)) => Job { text: done.text, from: done.written, reopen: self.reopen },
            None if self.waiting.is_empty() && !self.reopen => return Ok(()),
            None => Job { text: std::mem::take(&mut self.waiting), from: 0, reopen: self.reopen },
        };
        self.reopen = false;
        self.writer.give(job).map_err(|_| "the access log's writer has ended")?;
        Ok(())
    }

    /// Lines that are in nobody's hand.
    fn lines_left(&self) -> u64 {
        let failed = self.retry.as_ref().map_or(0, |(done, _)| lines(&done.text[done.written..]));
        failed + lines(&self.waiting)
    }

    fn take_back(&mut self, mut done: Done, now: Instant, facts: &AccessFacts) {
        facts.lines.fetch_add(done.lines, Ordering::Relaxed);
        let failing = done.error.is_some();
        let failed_before = facts.failing.swap(failing, Ordering::Relaxed);
        match &done.error {
            // Said once, however many lines it is about.
            Some(error) if !failed_before => tracing::error!(
                to = %self.sink, %error,
                "the access log cannot be written: lines wait, and are dropped and counted when there are too many"
            ),
            None if failed_before => tracing::info!(to = %self.sink, "the access log is written again"),
            _ => {}
        }
        if failing {
            self.retry = Some((done, now + RETRY_PAUSE));
        } else if self.waiting.is_empty() {
            // The buffer serves again.
            done.text.clear();
            self.waiting = done.text;
        }
    }
}

/// Lines of a text, by their ends.
fn lines(text: &[u8]) -> u64 {
    text.iter().filter(|it| **it == b'\n').count() as u64
}

#[cfg(test)]
mod tests;
