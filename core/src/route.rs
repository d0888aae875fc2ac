//! Where a call may go: from the name it asks for to an ordered, bounded list of targets.
//!
//! A plan is made once per call, from the snapshot the call holds, without heap. It says nothing about accounts,
//! room or health; `attempt` walks it and `choose` finds an account for each target. A caller can only name what
//! the configuration has: never a URL, never a provider that is not there.

use crate::fault::{Fault, FaultKind};
use crate::limits::{MODEL_NAME_BYTES_MAX, PLAN_TARGETS_MAX};
use crate::snapshot::{CallerId, ClassId, DialectId, Model, ModelId, ProviderId, RouteId, Snapshot};

/// What a call asks for, as far as routing is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The model name in the call.
    pub model: &'a str,
    /// The dialect it speaks; its answer must speak it too.
    pub dialect: DialectId,
    /// Who calls; `None` where the table of callers is open.
    pub caller: Option<CallerId>,
    /// The call creates or continues something that one upstream keeps. What it continues is at the first target
    /// of the configured order, so the plan has that one only, whatever the chain's order is just now.
    pub operation_pinned: bool,
}

/// Targets in the order in which they are tried; at least one.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    targets: [PlannedTarget; PLAN_TARGETS_MAX],
    len: u8,
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
    };

    /// The targets, in the order in which they are tried.
    pub fn targets(&self) -> &[PlannedTarget] {
        &self.targets[..self.len as usize]
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
/// use it. The three cannot be told apart.
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
    if ask.operation_pinned {
        plan.len = plan.len.min(1);
    }
    if plan.len == 0 { Err(unknown) } else { Ok(plan) }
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
    // The cell is written by an actor and may speak of a longer chain; a pinned call keeps the configured order.
    let first = if ask.operation_pinned { 0 } else { snapshot.model(model).cell.first() };
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
