//! One actor a provider key: decides whether a suspect key is usable or out (ARCHITECTURE.md).
//!
//! A worker that meets a 401 makes the key suspect in its cell at once; from then on calls pass it over. This actor
//! asks the provider itself: an acceptance puts the key back, a refusal takes it out and asks again each minute,
//! and anything else leaves it suspect and tries again, less and less often. It learns of a suspicion from a report,
//! or, should that be lost, from the cell.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tidegate_core::Snapshot;
use tidegate_core::health::{KeyCell, KeyState, KeyVerdict};
use tidegate_core::snapshot::{Key, KeyId, Provider};

use crate::board::Board;
use crate::door::Ticket;
use crate::probe::{Finding, Subject, probe};

/// How often a key that nothing speaks against is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after the first check that found nothing out; doubles to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause, and the pause of a key that is out.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a key actor is told.
pub(crate) enum KeyMessage {
    /// A worker met a refusal.
    Suspected(Ticket),
    /// The turn with this number is due. An older one was overtaken by a suspicion.
    Look(u64),
}

/// Which key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeyName {
    pub(crate) provider: String,
    pub(crate) key: String,
}

/// The actor.
pub(crate) struct KeyActor;

pub(crate) struct KeyActorState {
    board: Arc<Board>,
    name: KeyName,
    course: Course,
    turn: u64,
    /// The cell that was last checked; a rotated credential has another.
    checked: Option<Arc<KeyCell>>,
}

impl Actor for KeyActor {
    type Msg = KeyMessage;
    type State = KeyActorState;
    type Arguments = (Arc<Board>, KeyName);

    async fn pre_start(
        &self,
        myself: ActorRef<KeyMessage>,
        (board, name): Self::Arguments,
    ) -> Result<KeyActorState, ActorProcessingErr> {
        myself.send_message(KeyMessage::Look(0))?;
        Ok(KeyActorState { board, name, course: Course::default(), turn: 0, checked: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<KeyMessage>,
        message: KeyMessage,
        state: &mut KeyActorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            KeyMessage::Look(turn) if turn != state.turn => return Ok(()),
            KeyMessage::Suspected(_) if state.has_just_checked() => return Ok(()),
            KeyMessage::Look(_) => {}
            KeyMessage::Suspected(ticket) => drop(ticket),
        }
        let pause = state.look().await;
        state.turn += 1;
        let turn = state.turn;
        myself.send_after(pause, move || KeyMessage::Look(turn));
        Ok(())
    }
}

impl KeyActorState {
    /// A check of this very credential asked for a pause: a burst of refusals is one suspicion.
    fn has_just_checked(&self) -> bool {
        let snapshot = self.board.snapshot.load();
        let now = find(&snapshot, &self.name).map(|(_, key)| &key.cell);
        self.course.pausing && self.checked.as_ref().zip(now).is_some_and(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// Looks at the cell, checks the key if need be, and says when to look again.
    async fn look(&mut self) -> Duration {
        let snapshot = self.board.snapshot.load_full();
        let Some((provider, key)) = find(&snapshot, &self.name) else { return LOOK_INTERVAL };
        if key.cell.state() == KeyState::Good {
            self.course = Course::default();
            return LOOK_INTERVAL;
        }
        if self.checked.as_ref().is_none_or(|it| !Arc::ptr_eq(it, &key.cell)) {
            self.course = Course::default();
            self.checked = Some(key.cell.clone());
        }
        let serial = key.cell.serial();
        let subject = Subject { dialect: provider.dialect, origin: &provider.origin, secret: &key.secret };
        let finding = probe(&self.board, &subject).await;
        self.log(&finding, key);
        let in_time = match finding {
            Finding::Usable => key.cell.verdict(serial, KeyVerdict::Good),
            Finding::Refused(_) => key.cell.verdict(serial, KeyVerdict::Out),
            Finding::Unclear(_) => true,
        };
        if in_time { self.course.after(&finding) } else { Duration::ZERO }
    }

    fn log(&self, finding: &Finding, key: &Key) {
        let KeyName { provider, key: name } = &self.name;
        match finding {
            Finding::Usable => tracing::info!(provider, key = name, "the provider takes the key again"),
            Finding::Refused(status) if key.cell.state() != KeyState::Out => {
                tracing::error!(provider, key = name, status, "the provider refuses the key; it is out");
            }
            Finding::Refused(status) => {
                tracing::debug!(provider, key = name, status, "the key is still refused")
            }
            Finding::Unclear(reason) => {
                tracing::warn!(
                    provider,
                    key = name,
                    reason,
                    "the check of the suspect key found nothing out"
                );
            }
        }
    }
}

/// When a check follows a check.
#[derive(Debug, Default)]
struct Course {
    unclear: u32,
    pausing: bool,
}

impl Course {
    fn after(&mut self, finding: &Finding) -> Duration {
        self.pausing = *finding != Finding::Usable;
        match finding {
            Finding::Usable => {
                self.unclear = 0;
                LOOK_INTERVAL
            }
            Finding::Refused(_) => {
                self.unclear = 0;
                PAUSE_MAX
            }
            Finding::Unclear(_) => {
                let pause = PAUSE.saturating_mul(1 << self.unclear.min(6)).min(PAUSE_MAX);
                self.unclear += 1;
                pause
            }
        }
    }
}

fn find<'a>(snapshot: &'a Snapshot, name: &KeyName) -> Option<(&'a Provider, &'a Key)> {
    let provider = snapshot.provider(snapshot.provider_named(&name.provider)?);
    let keys = provider.accounts.iter().flat_map(|it| &snapshot.account(*it).keys);
    keys.map(|id: &KeyId| snapshot.key(*id)).find(|it| *it.name == *name.key).map(|key| (provider, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_nothing_is_found_out() {
        let mut course = Course::default();
        let unclear = Finding::Unclear(String::new());
        let seconds: Vec<u64> = (0..9).map(|_| course.after(&unclear).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(course.after(&Finding::Refused(401)), PAUSE_MAX);
        assert_eq!(course.after(&unclear), PAUSE, "an answer begins anew");
        assert_eq!(course.after(&Finding::Usable), LOOK_INTERVAL);
        assert!(!course.pausing);
    }
}
