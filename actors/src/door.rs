//! A way into an actor's mailbox that holds a stated number of messages. Mailboxes themselves have no bound, so
//! nothing that could flood one sends to it other than through a door.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ractor::{ActorRef, Message};

/// A bounded way in. Clones share the bound.
pub(crate) struct Door<M> {
    actor: ActorRef<M>,
    waiting: Arc<AtomicUsize>,
    most: usize,
}

/// Travels with a message and gives its room back when the message was handled, or was lost with its actor.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<AtomicUsize>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<M: Message> Door<M> {
    /// A door behind which at most `most` messages wait.
    pub(crate) fn new(actor: ActorRef<M>, most: usize) -> Door<M> {
        Door { actor, waiting: Arc::default(), most }
    }

    /// The actor itself, for a question that waits for its answer.
    pub(crate) fn actor(&self) -> &ActorRef<M> {
        &self.actor
    }

    /// Sends a message unless too many wait already, or the actor is gone. Returns whether it was sent.
    pub(crate) fn push(&self, message: impl FnOnce(Ticket) -> M) -> bool {
        // The bound may be overstepped by as many senders as race here; each actor's door has one or two.
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let ticket = Ticket(self.waiting.clone());
        self.actor.send_message(message(ticket)).is_ok()
    }
}

impl<M> Clone for Door<M> {
    fn clone(&self) -> Door<M> {
        Door { actor: self.actor.clone(), waiting: self.waiting.clone(), most: self.most }
    }
}

impl<M> std::fmt::Debug for Door<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("waiting", &self.waiting)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorProcessingErr};

    use super::*;

    struct Sleeper;

    impl Actor for Sleeper {
        type Msg = Ticket;
        type State = ();
        type Arguments = ();
        async fn pre_start(&self, _: ActorRef<Ticket>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }
        async fn handle(
            &self,
            _: ActorRef<Ticket>,
            _: Ticket,
            (): &mut (),
        ) -> Result<(), ActorProcessingErr> {
            tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_turned_away_and_room_comes_back() {
        let (actor, task) = Actor::spawn(None, Sleeper, ()).await.expect("an actor");
        let door = Door::new(actor.clone(), 3);
        let sent = (0..1000).filter(|_| door.push(|it| it)).count();
        assert_eq!(sent, 3);
        actor.kill();
        task.await.expect("ends");
        drop(actor);
        tokio::task::yield_now().await;
        assert_eq!(
            door.waiting.load(Ordering::Relaxed),
            0,
            "messages lost with their actor give their room back"
        );
    }
}
