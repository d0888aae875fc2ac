//! Small configurations for the tests of routing, choosing and walking.

use std::time::Duration;

use super::{Action, CallShape, Context, Exchange, GiveUp, Next, Walk};
use crate::choose::{Affinity, Draw};
use crate::moment::Moment;
use crate::quota::Need;
use crate::route::{Ask, State, plan};
use crate::secret::Secret;
use crate::snapshot::{
    AccountDraft, ClassDraft, DialectId, Draft, KeyDraft, ModelDraft, OriginDraft, ProviderDraft,
    QuotaLimits, Reach, Snapshot, TargetDraft, Timeouts,
};
use crate::verdict::Verdict;

pub(crate) const DIALECT: DialectId = DialectId(0);
pub(crate) const OTHER_DIALECT: DialectId = DialectId(1);
/// An ordinary moment: long after the start of time, so that nothing is new.
pub(crate) const START: Moment = Moment::from_ns(3_600_000_000_000);
pub(crate) const NEED: Need = Need { requests: 1, input_tokens: 10, output_tokens: 10 };
pub(crate) const WHOLE: CallShape = CallShape { streamed: false, pinned: false, counts_health: true };

/// A provider in [`DIALECT`] with two classes: `big` and `other`. Accounts are named; each has these keys, of
/// weight one.
pub(crate) fn provider(name: &str, accounts: &[(&str, &[&str])]) -> ProviderDraft {
    let class = |name: &str, pattern: &str| ClassDraft { name: name.into(), patterns: vec![pattern.into()] };
    ProviderDraft {
        name: name.into(),
        dialect: DIALECT,
        origin: OriginDraft {
            tls: true,
            host: format!("{name}.example"),
            port: 443,
            base_path: String::new(),
            ca_pem: None,
            reach: Reach::Public,
            proxy: None,
        },
        classes: vec![class("big", "big-*"), class("other", "*")],
        accounts: accounts.iter().map(|(name, keys)| account(name, keys)).collect(),
        state_account: None,
        passthrough: false,
        timeouts: Timeouts {
            connect: Duration::from_secs(3),
            first_byte: Duration::from_secs(20),
            first_byte_whole: Duration::from_secs(60),
            idle: Duration::from_secs(30),
            total: None,
        },
    }
}

/// An account with these keys and no known limits.
pub(crate) fn account(name: &str, keys: &[&str]) -> AccountDraft {
    let key = |name: &&str| KeyDraft {
        name: (*name).into(),
        weight: 1.0,
        secret: Secret::new(format!("secret of {name}")),
    };
    AccountDraft {
        name: name.into(),
        keys: keys.iter().map(key).collect(),
        limits: vec![QuotaLimits::default(); 2],
        shared_quota: None,
    }
}

/// Accounts `a0`, `a1` ... with one key each.
pub(crate) fn accounts(count: usize) -> Vec<AccountDraft> {
    (0..count).map(|at| account(&format!("a{at}"), &[&format!("k{at}")])).collect()
}

/// A public model with this chain of (provider, model).
pub(crate) fn chain(name: &str, targets: &[(&str, &str)]) -> ModelDraft {
    let target = |it: &(&str, &str)| TargetDraft { provider: it.0.into(), model: it.1.into() };
    ModelDraft { name: name.into(), chain: targets.iter().map(target).collect() }
}

/// A snapshot of these providers and models that was there an hour before [`START`].
pub(crate) fn snapshot(providers: Vec<ProviderDraft>, models: Vec<ModelDraft>) -> Snapshot {
    Snapshot::build(Draft { providers, models, ..Draft::default() }, None, Moment::ZERO)
}

/// A snapshot, a worker's draws, and a clock.
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) draw: Draw,
    pub(crate) now: Moment,
    /// Calls bring a credential of their own.
    pub(crate) own_credential: bool,
}

impl World {
    pub(crate) fn new(providers: Vec<ProviderDraft>, models: Vec<ModelDraft>) -> World {
        World { snapshot: snapshot(providers, models), draw: Draw::new(1), now: START, own_credential: false }
    }

    pub(crate) fn walk(&self, model: &str, affinity: Option<Affinity>, shape: CallShape) -> Walk {
        let ask = Ask {
            model,
            dialect: DIALECT,
            caller: None,
            state: if shape.pinned { State::Asked } else { State::None },
            own_credential: self.own_credential,
        };
        Walk::new(plan(&self.snapshot, &ask).unwrap(), NEED, affinity, shape, self.now)
    }

    pub(crate) fn context(&self) -> Context {
        Context { now: self.now, jitter: 0x8000_0000 }
    }

    pub(crate) fn poll(&mut self, walk: &mut Walk) -> Result<Exchange, GiveUp> {
        match walk.poll_action(&self.snapshot, &mut self.draw, self.now) {
            Action::Send(mut exchange) => {
                exchange.sent(self.now);
                Ok(exchange)
            }
            Action::GiveUp(give_up) => Err(give_up),
        }
    }

    pub(crate) fn judge(&mut self, walk: &mut Walk, exchange: Exchange, verdict: Verdict) -> Next {
        walk.handle_verdict(&self.snapshot, exchange, verdict, self.context())
    }

    /// Walks to the end; `upstream` answers for each exchange. Returns where the call went, by account and key,
    /// and how it ended.
    pub(crate) fn run(
        &mut self,
        walk: &mut Walk,
        mut upstream: impl FnMut(&str, &str) -> Verdict,
    ) -> (Vec<String>, Result<Verdict, GiveUp>) {
        let mut went = Vec::new();
        loop {
            let mut exchange = match self.poll(walk) {
                Ok(exchange) => exchange,
                Err(give_up) => return (went, Err(give_up)),
            };
            let account = self.snapshot.account(exchange.account).name.clone();
            let key = self.snapshot.key(exchange.key).name.clone();
            went.push(format!("{account}/{key}"));
            let verdict = upstream(&account, &key);
            if verdict == Verdict::Success {
                exchange.begun(&self.snapshot, self.now);
                exchange.finish(Default::default(), self.now);
                return (went, Ok(verdict));
            }
            if self.judge(walk, exchange, verdict) == Next::Answer {
                return (went, Ok(verdict));
            }
        }
    }
}
