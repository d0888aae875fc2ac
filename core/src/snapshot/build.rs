//! From a draft to a snapshot: dense numbers, index tables, and cells taken over from the snapshot before.

use std::collections::HashMap;
use std::sync::Arc;

use super::{
    Account, AccountDraft, AccountId, AddressCell, Class, Draft, Key, KeyDraft, KeyId, Model, ModelDraft,
    Origin, Provider, ProviderDraft, ProviderId, QuotaLimits, Route, Snapshot, StateAccount, Target,
};
use crate::caller::CallerTable;
use crate::health::PairCell;
use crate::moment::Moment;
use crate::owner::OwnerTable;
use crate::quota::QuotaCell;
use crate::secret::Secret;

/// The name of what stands for callers' own accounts and keys.
const CALLERS: &str = "(callers)";

impl Snapshot {
    /// Numbers the parts of `draft` and gives each its cells: those of `previous` where the identity is the same
    /// (provider, account, key, class and model names; for callers the name), new ones elsewhere.
    pub fn build(draft: Draft, previous: Option<&Snapshot>, now: Moment) -> Snapshot {
        let mut snapshot = Snapshot {
            revision: previous.map_or(1, |it| it.revision + 1),
            providers: Vec::with_capacity(draft.providers.len()),
            accounts: Vec::new(),
            keys: Vec::new(),
            models: Vec::new(),
            callers: CallerTable::build(draft.callers, previous.map(|it| &it.callers), now),
            models_only: draft.models_only,
            expose_routing: draft.expose_routing,
            access_log: draft.access_log,
            decompress: draft.decompress,
            forward_headers: draft.forward_headers.into_iter().map(String::into_boxed_str).collect(),
            ingress: draft.ingress,
            retry_budget: previous.map_or_else(Default::default, |it| it.retry_budget.clone()),
            owners: previous
                .map_or_else(|| Arc::new(OwnerTable::new(2 * draft.objects_max)), |it| it.owners.clone()),
            guesses: previous.map_or_else(Default::default, |it| it.guesses.clone()),
            response_owners: previous.map_or_else(
                || Arc::new(OwnerTable::new(2 * draft.responses_max)),
                |it| it.response_owners.clone(),
            ),
            unknown_responses: draft.unknown_responses,
        };
        for provider in draft.providers {
            snapshot.add_provider(provider, &draft.models, previous, now);
        }
        for model in draft.models {
            snapshot.add_model(model, previous);
        }
        snapshot.models.sort_by(|a, b| a.name.cmp(&b.name));
        snapshot
    }

    fn add_provider(
        &mut self,
        draft: ProviderDraft,
        models: &[ModelDraft],
        previous: Option<&Snapshot>,
        now: Moment,
    ) {
        let id = ProviderId(self.providers.len() as u16);
        let before = previous.and_then(|it| it.provider_named(&draft.name).map(|id| it.provider(id)));
        let classes: Vec<Class> = draft
            .classes
            .iter()
            .map(|it| Class {
                name: it.name.as_str().into(),
                patterns: it.patterns.iter().map(|it| it.as_str().into()).collect(),
                estimate: before
                    .and_then(|provider| provider.classes.iter().find(|class| *class.name == *it.name))
                    .map_or_else(Default::default, |class| class.estimate.clone()),
            })
            .collect();
        let routes = routes(&draft, models, before);
        // Accounts that turned out to be one organization and workspace share one set of quota cells.
        let mut shared: HashMap<u64, Vec<Arc<QuotaCell>>> = HashMap::new();
        let mut accounts = Vec::with_capacity(draft.accounts.len());
        let joint = joint_limits(&draft.accounts);
        for mut account in draft.accounts {
            if let Some(limits) = account.shared_quota.and_then(|mark| joint.get(&mark)) {
                account.limits.clone_from(limits);
            }
            let account_before = previous.zip(before).and_then(|(snapshot, provider)| {
                let same = |id: &&AccountId| *snapshot.account(**id).name == *account.name;
                provider.accounts.iter().find(same).map(|id| (snapshot, snapshot.account(*id)))
            });
            accounts.push(self.add_account(id, account, &routes, account_before, &mut shared, now));
        }
        let origin = origin(&draft.origin, before);
        let callers_account =
            draft.passthrough.then(|| self.add_callers_account(id, classes.len(), &routes, now));
        let state_account = self.state_account(&accounts, draft.state_account.as_deref());
        self.providers.push(Provider {
            name: draft.name.into(),
            dialect: draft.dialect,
            origin,
            classes,
            accounts,
            state_account,
            callers_account,
            routes,
            timeouts: draft.timeouts,
        });
    }

    fn add_account(
        &mut self,
        provider: ProviderId,
        draft: AccountDraft,
        routes: &[Route],
        before: Option<(&Snapshot, &Account)>,
        shared: &mut HashMap<u64, Vec<Arc<QuotaCell>>>,
        now: Moment,
    ) -> AccountId {
        let id = AccountId(self.accounts.len() as u16);
        let own = quotas(&draft, before.map(|it| it.1), now);
        let quotas = match draft.shared_quota {
            None => own,
            Some(mark) => {
                let first = shared.entry(mark).or_insert_with(|| own.clone());
                for (kept, given_up) in first.iter().zip(&own) {
                    if !Arc::ptr_eq(kept, given_up) {
                        kept.absorb(given_up, now);
                    }
                }
                first.clone()
            }
        };
        let mut keys = Vec::with_capacity(draft.keys.len());
        let weight = draft.keys.iter().map(|it| it.weight).sum();
        for key in draft.keys {
            let key_before = before.and_then(|(snapshot, account)| {
                account.keys.iter().map(|id| snapshot.key(*id)).find(|it| *it.name == *key.name)
            });
            // A rotated credential is a new one: it inherits no suspicion.
            let same_secret = key_before.filter(|it| it.secret.expose() == key.secret.expose());
            keys.push(KeyId(self.keys.len() as u16));
            self.keys.push(Key {
                name: key.name.into(),
                account: id,
                weight: key.weight,
                cell: same_secret.map_or_else(Default::default, |it| it.cell.clone()),
                pairs: pairs(routes, before.map(|it| it.0).zip(same_secret)),
                secret: key.secret,
            });
        }
        let cell = before.map_or_else(Default::default, |(_, it)| it.cell.clone());
        let name = draft.name.into();
        self.accounts.push(Account { name, provider, keys, weight, quotas, cell, of_callers: false });
        id
    }

    fn add_callers_account(
        &mut self,
        provider: ProviderId,
        classes: usize,
        routes: &[Route],
        now: Moment,
    ) -> AccountId {
        let key = KeyDraft { name: CALLERS.into(), weight: 1.0, secret: Secret::new(String::new()) };
        let limits = vec![QuotaLimits::default(); classes];
        let draft = AccountDraft { name: CALLERS.into(), keys: vec![key], limits, shared_quota: None };
        let id = self.add_account(provider, draft, routes, None, &mut HashMap::new(), now);
        self.accounts[id.index()].of_callers = true;
        id
    }

    fn state_account(&self, accounts: &[AccountId], named: Option<&str>) -> StateAccount {
        let named = named.and_then(|name| accounts.iter().find(|id| *self.account(**id).name == *name));
        match (named, accounts) {
            (Some(id), _) => StateAccount::Named(*id),
            (None, [only]) => StateAccount::Only(*only),
            (None, _) => StateAccount::Unknown,
        }
    }

    fn add_model(&mut self, draft: ModelDraft, previous: Option<&Snapshot>) {
        let before = previous.and_then(|it| it.model_named(&draft.name).map(|id| it.model(id)));
        let chain: Vec<Target> =
            draft.chain.iter().filter_map(|it| self.target(&it.provider, &it.model)).collect();
        // The order of a chain only means something for the same chain.
        let same_chain = before.filter(|it| {
            it.chain.len() == chain.len() && it.chain.iter().zip(&chain).all(|(a, b)| a.model == b.model)
        });
        let cell = same_chain.map_or_else(Default::default, |it| it.cell.clone());
        self.models.push(Model { name: draft.name.into(), chain, cell });
    }

    fn target(&self, provider: &str, model: &str) -> Option<Target> {
        let id = self.provider_named(provider)?;
        let class = self.provider(id).class_of(model);
        let route = self.provider(id).route_of(model, class);
        Some(Target { provider: id, model: model.into(), class, route })
    }
}

fn origin(draft: &super::OriginDraft, before: Option<&Provider>) -> Origin {
    let default_port = if draft.tls { 443 } else { 80 };
    let bracketed = if draft.host.contains(':') { format!("[{}]", draft.host) } else { draft.host.clone() };
    let authority =
        if draft.port == default_port { bracketed } else { format!("{bracketed}:{}", draft.port) };
    let same_place = before.map(|it| &it.origin).filter(|it| {
        let same_proxy = match (&it.proxy, &draft.proxy) {
            (Some(before), Some(now)) => before.is_same(now),
            (None, None) => true,
            _ => false,
        };
        *it.host == *draft.host
            && it.port == draft.port
            && it.tls == draft.tls
            && it.reach == draft.reach
            && same_proxy
    });
    // Connections are kept by address cell: with other authorities none of the old ones may be used again, while the
    // addresses are as good as before.
    let addresses = match same_place {
        Some(it) if it.ca_pem == draft.ca_pem => it.addresses.clone(),
        Some(it) => {
            let cell = AddressCell::default();
            cell.publish(it.addresses.load_full().to_vec());
            Arc::new(cell)
        }
        None => Arc::default(),
    };
    Origin {
        tls: draft.tls,
        host: draft.host.as_str().into(),
        port: draft.port,
        authority: authority.into(),
        base_path: draft.base_path.as_str().into(),
        ca_pem: draft.ca_pem.clone(),
        reach: draft.reach,
        proxy: draft.proxy.clone(),
        addresses,
    }
}

/// What accounts with the same mark may spend together, class by class: the lowest that is stated for any of them.
fn joint_limits(accounts: &[AccountDraft]) -> HashMap<u64, Vec<QuotaLimits>> {
    let lower = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
    let mut joint: HashMap<u64, Vec<QuotaLimits>> = HashMap::new();
    for account in accounts {
        let Some(mark) = account.shared_quota else { continue };
        let limits = joint.entry(mark).or_insert_with(|| account.limits.clone());
        for (held, stated) in limits.iter_mut().zip(&account.limits) {
            held.requests = lower(held.requests, stated.requests);
            held.input_tokens = lower(held.input_tokens, stated.input_tokens);
            held.output_tokens = lower(held.output_tokens, stated.output_tokens);
        }
    }
    joint
}

fn quotas(draft: &AccountDraft, before: Option<&Account>, now: Moment) -> Vec<Arc<QuotaCell>> {
    let kept = before.filter(|it| it.quotas.len() == draft.limits.len());
    draft
        .limits
        .iter()
        .enumerate()
        .map(|(at, limits)| match kept {
            Some(account) => {
                account.quotas[at].retune(limits, now);
                account.quotas[at].clone()
            }
            None => Arc::new(QuotaCell::new(limits, now)),
        })
        .collect()
}

/// One pair for each route; a route that was there before keeps its pair with the same credential.
fn pairs(routes: &[Route], before: Option<(&Snapshot, &Key)>) -> Vec<Arc<PairCell>> {
    let kept = |route: &Route| {
        let (snapshot, key) = before?;
        let routes = &snapshot.provider(snapshot.account(key.account).provider).routes;
        let at = routes.iter().position(|it| it.of_class == route.of_class && it.name == route.name)?;
        key.pairs.get(at).cloned()
    };
    routes.iter().map(|route| kept(route).unwrap_or_default()).collect()
}

fn routes(draft: &ProviderDraft, models: &[ModelDraft], before: Option<&Provider>) -> Vec<Route> {
    let mut named: Vec<&str> = models
        .iter()
        .flat_map(|it| &it.chain)
        .filter(|it| it.provider == draft.name)
        .map(|it| it.model.as_str())
        .collect();
    named.sort_unstable();
    named.dedup();
    let of_class = draft.classes.iter().map(|it| (it.name.as_str(), true));
    of_class
        .chain(named.into_iter().map(|it| (it, false)))
        .map(|(name, of_class)| {
            let same = before
                .and_then(|it| it.routes.iter().find(|it| it.of_class == of_class && &*it.name == name));
            Route {
                name: name.into(),
                of_class,
                cell: same.map_or_else(Default::default, |it| it.cell.clone()),
            }
        })
        .collect()
}
