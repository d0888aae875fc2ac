//! One actor an account: says in the log what its quotas go through, passes on which organization it was seen to be,
//! and reopens a spent account when its month is over.
//!
//! Every rule that protects a quota lives in its cell and works without this actor.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tidegate_core::Snapshot;
use tidegate_core::health::Phase;
use tidegate_core::snapshot::{Account, Provider};

use crate::board::Board;
use crate::clock;
use crate::door::Ticket;
use crate::reload::ConfigMessage;

/// How often the cells are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Digests of the organization and the workspace (zero: none) that an account was seen to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) organization: u64,
    pub(crate) workspace: u64,
}

/// What a quota actor is told.
pub(crate) enum QuotaMessage {
    /// A reply said whose account it is.
    Marked(Mark, Ticket),
    /// The next look is due.
    Look,
}

/// Which account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AccountName {
    pub(crate) provider: String,
    pub(crate) account: String,
}

/// The actor.
pub(crate) struct QuotaActor;

pub(crate) struct QuotaActorState {
    board: Arc<Board>,
    name: AccountName,
    /// What was last said of each class, in class order.
    said: Vec<Stage>,
    /// The month in which the account was first seen spent.
    spent_month: Option<u64>,
}

/// What the log knows of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    Ramping,
    Resting,
}

impl Actor for QuotaActor {
    type Msg = QuotaMessage;
    type State = QuotaActorState;
    type Arguments = (Arc<Board>, AccountName);

    async fn pre_start(
        &self,
        myself: ActorRef<QuotaMessage>,
        (board, name): Self::Arguments,
    ) -> Result<QuotaActorState, ActorProcessingErr> {
        myself.send_message(QuotaMessage::Look)?;
        Ok(QuotaActorState { board, name, said: Vec::new(), spent_month: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<QuotaMessage>,
        message: QuotaMessage,
        state: &mut QuotaActorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            QuotaMessage::Marked(mark, _ticket) => state.marked(mark),
            QuotaMessage::Look => {
                state.look(clock::month_of(clock::wall_ms()));
                myself.send_after(LOOK_INTERVAL, || QuotaMessage::Look);
            }
        }
        Ok(())
    }
}

impl QuotaActorState {
    fn marked(&self, mark: Mark) {
        let key = (self.name.provider.clone(), self.name.account.clone());
        if self.board.marks.load().get(&key) == Some(&mark) {
            return;
        }
        let directory = self.board.directory.load();
        let name = self.name.clone();
        // Full or away: the workers report the mark again with the next snapshot.
        let told = directory
            .config
            .as_ref()
            .is_some_and(|door| door.push(|ticket| ConfigMessage::Marked { name, mark, ticket }));
        if !told {
            tracing::debug!(
                account = self.name.account,
                "the organization of the account was not taken note of"
            );
        }
    }

    fn look(&mut self, month: u64) {
        let snapshot = self.board.snapshot.load_full();
        let Some((provider, account)) = find(&snapshot, &self.name) else { return };
        self.look_at_purse(account, month);
        self.said.resize(account.quotas.len(), Stage::Open);
        let now = self.board.now();
        for (at, quota) in account.quotas.iter().enumerate() {
            let view = quota.view(now);
            let stage = match view.phase {
                _ if view.resting_until.is_some() => Stage::Resting,
                Phase::Open => Stage::Open,
                Phase::Resting { .. } | Phase::Probing { .. } | Phase::Ramping { .. } => Stage::Ramping,
            };
            if std::mem::replace(&mut self.said[at], stage) == stage {
                continue;
            }
            let AccountName { provider: provider_name, account: name } = &self.name;
            let class = provider.classes.get(at).map_or("", |it| &*it.name);
            match stage {
                Stage::Resting => {
                    let seconds = view.resting_until.map_or(0, |it| it.since(now).as_secs());
                    tracing::warn!(
                        provider = provider_name,
                        account = name,
                        class,
                        seconds,
                        "the quota rests"
                    );
                }
                Stage::Ramping => {
                    tracing::info!(provider = provider_name, account = name, class, "the quota comes back");
                }
                Stage::Open => {
                    tracing::info!(provider = provider_name, account = name, class, "the quota is open")
                }
            }
        }
    }

    /// A spend cap ends with the calendar month; anything else needs an operator, who reloads.
    fn look_at_purse(&mut self, account: &Account, month: u64) {
        let AccountName { provider, account: name } = &self.name;
        if account.cell.spent_since().is_none() {
            if self.spent_month.take().is_some() {
                tracing::info!(provider, account = name, "the account may spend again");
            }
            return;
        }
        match self.spent_month {
            None => {
                tracing::error!(
                    provider,
                    account = name,
                    "the account is out: its spend cap or credit is used up; \
                     raise it and reload, or wait for the month's end"
                );
                self.spent_month = Some(month);
            }
            Some(before) if before != month => account.cell.reopen(),
            Some(_) => {}
        }
    }
}

fn find<'a>(snapshot: &'a Snapshot, name: &AccountName) -> Option<(&'a Provider, &'a Account)> {
    let provider = snapshot.provider(snapshot.provider_named(&name.provider)?);
    let account =
        provider.accounts.iter().map(|it| snapshot.account(*it)).find(|it| *it.name == *name.account)?;
    Some((provider, account))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{self as shared, Bench};

    fn state(bench: &Bench) -> QuotaActorState {
        let name = AccountName { provider: "anthropic".into(), account: "a".into() };
        QuotaActorState { board: bench.board.clone(), name, said: Vec::new(), spent_month: None }
    }

    #[test]
    fn a_spent_account_reopens_with_the_next_month_only() {
        let bench = shared::bench();
        let mut state = state(&bench);
        let cell = bench.board.snapshot.load().accounts[0].cell.clone();
        assert!(cell.spent(bench.board.now()));
        state.look(100);
        state.look(100);
        assert!(!cell.usable(), "the same month");
        state.look(101);
        assert!(cell.usable(), "a new month");
        state.look(101);
        assert_eq!(state.spent_month, None);
    }
}
