//! Where a call may go: from the name it asks for to an ordered, bounded list of targets.
//!
//! A plan is made once per call, from the snapshot the call holds, without heap. It says nothing about accounts,
//! room or health; `attempt` walks it and `choose` finds an account for each target. A caller can only name what
//! the configuration has: never a URL, never a provider that is not there.

use crate::fault::{Fault, FaultKind};
use crate::limits::{MODEL_NAME_BYTES_MAX, PLAN_TARGETS_MAX};
use crate::snapshot::{
    AccountId, CallerId, ClassId, DialectId, Model, ModelId, ProviderId, RouteId, Snapshot,
};

/// What a call asks for, as far as routing is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The model name in the call.
    pub model: &'a str,
    /// The dialect it speaks; its answer must speak it too.
    pub dialect: DialectId,
    /// Who calls; `None` where the table of callers is open.
    pub caller: Option<CallerId>,
    /// What it has to do with things that outlive it.
    pub state: State,
    /// The caller brings a credential of its own: it goes to the first provider that takes one, and nowhere else.
    pub own_credential: bool,
}

/// What a call has to do with things that outlive it at one account: stored responses, files, containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It leaves nothing and names nothing.
    None,
    /// The provider keeps its result, though the caller did not ask for that. Where the operator named a state account
    /// the result is kept there, so that it can be found; elsewhere such a call is like any other.
    Unasked,
    /// It asks for something to be kept, or names something kept: it goes to the state account or nowhere.
    Asked,
}

/// Targets in the order in which they are tried; at least one.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    targets: [PlannedTarget; PLAN_TARGETS_MAX],
    len: u8,
    only: Option<AccountId>,
    own_credential: bool,
}

/// (provider, model): where an attempt may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedTarget {
    /// The provider.
    pub provider: ProviderId,
    /// The class of the model there: whose quota it uses.
    pub class: ClassId,
    /// The route of the model there: what an overload speaks about.
    pub route: RouteId,
    /// The model name there.
    pub name: PlannedName,
}

/// The model name that goes upstream, without owning it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedName {
    /// The name asked for, untouched.
    AsAsked,
    /// The name asked for without the provider in front.
    Suffix {
        /// Byte offset in the name asked for.
        from: usize,
    },
    /// The name in the chain of a public model.
    Configured {
        /// The public model.
        model: ModelId,
        /// Position in its chain.
        at: u16,
    },
}

const _: () = assert!(PLAN_TARGETS_MAX <= u8::MAX as usize);

impl Plan {
    const EMPTY: Plan = Plan {
        targets: [PlannedTarget {
            provider: ProviderId(0),
            class: ClassId(0),
            route: RouteId(0),
            name: PlannedName::AsAsked,
        }; PLAN_TARGETS_MAX],
        len: 0,
        only: None,
        own_credential: false,
    };

    /// The targets, in the order in which they are tried.
    pub fn targets(&self) -> &[PlannedTarget] {
        &self.targets[..self.len as usize]
    }

    /// The one account that may serve the call: what it is about is kept there.
    pub fn only(&self) -> Option<AccountId> {
        self.only
    }

    /// The call goes upstream with the credential that the caller brought.
    pub fn is_with_own_credential(&self) -> bool {
        self.own_credential
    }

    /// Leaves the first target that takes callers' own credentials, if there is one: a credential of a caller is never
    /// shown to a second provider, and what it may not pay for is not paid by the operator's accounts.
    fn tie_to_own_credential(&mut self, snapshot: &Snapshot) -> bool {
        let account = |it: &PlannedTarget| snapshot.provider(it.provider).callers_account;
        let Some(&target) = self.targets().iter().find(|it| account(it).is_some()) else { return false };
        *self = Plan { only: account(&target), own_credential: true, ..Plan::EMPTY };
        self.push(target);
        true
    }

    /// True once no further target has a place.
    fn is_full(&self) -> bool {
        self.len as usize == PLAN_TARGETS_MAX
    }

    fn push(&mut self, target: PlannedTarget) {
        if !self.is_full() {
            self.targets[self.len as usize] = target;
            self.len += 1;
        }
    }

    /// Leaves the one target and account at which state is kept, where `state` ties the call to it: of the providers in
    /// configured order (whatever the chain leads with just now) the first whose state account the operator named,
    /// else the first.
    fn tie_to_state(&mut self, snapshot: &Snapshot, state: State) -> Result<(), Fault> {
        let account = |it: &PlannedTarget| snapshot.provider(it.provider).state_account;
        let order = |it: &(usize, &PlannedTarget)| {
            let position = match it.1.name {
                PlannedName::Configured { at, .. } => usize::from(at),
                PlannedName::AsAsked | PlannedName::Suffix { .. } => it.0,
            };
            (!account(it.1).is_named(), position)
        };
        let Some((_, &target)) = self.targets().iter().enumerate().min_by_key(order) else { return Ok(()) };
        let ties = match state {
            State::None => false,
            State::Unasked => account(&target).is_named(),
            State::Asked => true,
        };
        if ties {
            let unknown = Fault::never(FaultKind::StateAccountUnknown);
            *self = Plan { only: Some(account(&target).id().ok_or(unknown)?), ..Plan::EMPTY };
            self.push(target);
        }
        Ok(())
    }
}

impl PlannedName {
    /// The name itself. `snapshot` and `asked` are those that the plan was made from.
    pub fn resolve<'a>(&self, snapshot: &'a Snapshot, asked: &'a str) -> &'a str {
        match *self {
            PlannedName::AsAsked => asked,
            PlannedName::Suffix { from } => asked.get(from..).unwrap_or(asked),
            PlannedName::Configured { model, at } => &snapshot.model(model).chain[at as usize].model,
        }
    }

    /// Whether the body must be changed to carry it.
    pub fn is_spliced(&self) -> bool {
        !matches!(self, PlannedName::AsAsked)
    }

    /// Whether the operator chose it; the caller chose every other.
    pub fn is_configured(&self) -> bool {
        matches!(self, PlannedName::Configured { .. })
    }
}

/// Where the call may go, in order.
///
/// A public model stands for its chain, in the order the chain has just now. `provider/model` goes to that
/// provider if there is one with this name. Every other name goes, as it is, to all providers of the caller's
/// dialect in file order. With `models_only` there are public models only.
///
/// # Errors
/// [`FaultKind::NoSuchModel`]: nothing is behind the name, nothing of the caller's dialect, or the caller may not
/// use it. The three cannot be told apart. [`FaultKind::StateAccountUnknown`]: the call is tied to an account that
/// nobody named.
pub fn plan(snapshot: &Snapshot, ask: &Ask<'_>) -> Result<Plan, Fault> {
    let unknown = Fault::new(FaultKind::NoSuchModel);
    if ask.model.is_empty()
        || ask.model.len() > MODEL_NAME_BYTES_MAX
        || !allowed(snapshot, ask.caller, ask.model)
    {
        return Err(unknown);
    }
    let mut plan = Plan::EMPTY;
    if let Some(model) = snapshot.model_named(ask.model) {
        add_chain(&mut plan, snapshot, model, ask);
    } else if !snapshot.models_only {
        match provider_in_front(snapshot, ask.model) {
            Some((provider, from)) => add_suffix(&mut plan, snapshot, provider, from, ask),
            None => add_all(&mut plan, snapshot, ask),
        }
    }
    // What is kept for a caller with a credential of its own is kept at its own account.
    if !(ask.own_credential && plan.tie_to_own_credential(snapshot)) {
        plan.tie_to_state(snapshot, ask.state)?;
    }
    if plan.len == 0 { Err(unknown) } else { Ok(plan) }
}

/// Where a call goes that names something kept and no model: the first provider of its dialect whose state account the
/// operator named, else the first of its dialect; with a credential of the caller's own, the first that takes one.
///
/// # Errors
/// [`FaultKind::NoSuchOperation`]: no provider speaks the dialect. [`FaultKind::StateAccountUnknown`] as in [`plan`].
pub fn plan_of_state(snapshot: &Snapshot, dialect: DialectId, own_credential: bool) -> Result<Plan, Fault> {
    let mut plan = Plan::EMPTY;
    let of_dialect = || snapshot.providers.iter().enumerate().filter(|it| it.1.dialect == dialect);
    let taking = of_dialect().find(|it| it.1.callers_account.is_some()).filter(|_| own_credential);
    if let Some((at, _)) = taking {
        plan.push(unlisted(snapshot, ProviderId(at as u16), "", PlannedName::AsAsked));
        plan.tie_to_own_credential(snapshot);
        return Ok(plan);
    }
    let named = of_dialect().find(|it| it.1.state_account.is_named());
    let Some((at, _)) = named.or_else(|| of_dialect().next()) else {
        return Err(Fault::never(FaultKind::NoSuchOperation));
    };
    plan.push(unlisted(snapshot, ProviderId(at as u16), "", PlannedName::AsAsked));
    plan.tie_to_state(snapshot, State::Asked)?;
    Ok(plan)
}

/// Public models that this caller may use in this dialect, by name: what a list of models shows.
pub fn visible_models(
    snapshot: &Snapshot,
    caller: Option<CallerId>,
    dialect: DialectId,
) -> impl Iterator<Item = &Model> {
    snapshot.models.iter().filter(move |model| {
        allowed(snapshot, caller, &model.name)
            && model.chain.iter().any(|it| snapshot.provider(it.provider).dialect == dialect)
    })
}

fn allowed(snapshot: &Snapshot, caller: Option<CallerId>, asked: &str) -> bool {
    caller.is_none_or(|id| snapshot.callers.caller(id).may_use(asked))
}

/// The provider before the first `/`, and where the model name begins.
fn provider_in_front(snapshot: &Snapshot, asked: &str) -> Option<(ProviderId, usize)> {
    let (front, _) = asked.split_once('/')?;
    Some((snapshot.provider_named(front)?, front.len() + 1))
}

fn add_chain(plan: &mut Plan, snapshot: &Snapshot, model: ModelId, ask: &Ask<'_>) {
    let chain = &snapshot.model(model).chain;
    // The cell is written by an actor and may speak of a longer chain.
    let first = snapshot.model(model).cell.first();
    let first = if first < chain.len() { first } else { 0 };
    for at in (first..chain.len()).chain(0..first) {
        let target = &chain[at];
        // No translation between dialects exists: what the upstream answers goes to the caller as it is.
        if snapshot.provider(target.provider).dialect == ask.dialect {
            let name = PlannedName::Configured { model, at: at as u16 };
            let (class, route) = (target.class, target.route);
            plan.push(PlannedTarget { provider: target.provider, class, route, name });
        }
    }
}

fn add_suffix(plan: &mut Plan, snapshot: &Snapshot, provider: ProviderId, from: usize, ask: &Ask<'_>) {
    let model = ask.model.get(from..).unwrap_or_default();
    if !model.is_empty() && snapshot.provider(provider).dialect == ask.dialect {
        plan.push(unlisted(snapshot, provider, model, PlannedName::Suffix { from }));
    }
}

fn add_all(plan: &mut Plan, snapshot: &Snapshot, ask: &Ask<'_>) {
    for (at, provider) in snapshot.providers.iter().enumerate() {
        if plan.is_full() {
            break;
        }
        if provider.dialect == ask.dialect {
            plan.push(unlisted(snapshot, ProviderId(at as u16), ask.model, PlannedName::AsAsked));
        }
    }
}

fn unlisted(snapshot: &Snapshot, id: ProviderId, model: &str, name: PlannedName) -> PlannedTarget {
    let provider = snapshot.provider(id);
    let class = provider.class_of(model);
    PlannedTarget { provider: id, class, route: provider.route_of(model, class), name }
}

#[cfg(all(test, not(loom)))]
mod tests;
