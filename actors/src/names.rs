//! Names behind the numbers of recent revisions: a report may come from a call that began hours and revisions ago.
//! Holds no secret, so that old revisions need not be kept for it.

use std::sync::Arc;

use tidegate_core::Snapshot;
use tidegate_core::route::PlannedName;
use tidegate_core::snapshot::{AccountId, CallerId, ClassId, KeyId, ProviderId, RouteId};

/// Stands for what no kept revision names.
pub(crate) const GONE: &str = "gone";

/// Names of one revision.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) revision: u64,
    providers: Vec<ProviderNames>,
    /// Each with its provider.
    accounts: Vec<(ProviderId, Arc<str>)>,
    keys: Vec<Arc<str>>,
    /// The models of each chain, as their providers call them.
    chains: Vec<Vec<Arc<str>>>,
    callers: Vec<Arc<str>>,
}

#[derive(Debug)]
struct ProviderNames {
    name: Arc<str>,
    classes: Vec<Arc<str>>,
    routes: Vec<Arc<str>>,
}

impl Names {
    /// Takes the names out of a snapshot.
    pub(crate) fn of(snapshot: &Snapshot) -> Names {
        let provider = |it: &tidegate_core::snapshot::Provider| ProviderNames {
            name: it.name.clone(),
            classes: it.classes.iter().map(|it| it.name.clone()).collect(),
            routes: it.routes.iter().map(|it| it.name.clone()).collect(),
        };
        let mut callers: Vec<Arc<str>> = Vec::new();
        for (id, caller) in snapshot.callers.iter() {
            callers.resize_with(callers.len().max(id.index() + 1), || GONE.into());
            callers[id.index()] = caller.name.clone();
        }
        Names {
            revision: snapshot.revision,
            providers: snapshot.providers.iter().map(provider).collect(),
            accounts: snapshot.accounts.iter().map(|it| (it.provider, it.name.clone())).collect(),
            keys: snapshot.keys.iter().map(|it| it.name.clone()).collect(),
            chains: snapshot
                .models
                .iter()
                .map(|it| it.chain.iter().map(|it| it.model.clone()).collect())
                .collect(),
            callers,
        }
    }

    pub(crate) fn provider(&self, id: ProviderId) -> &str {
        self.providers.get(id.index()).map_or(GONE, |it| &it.name)
    }

    pub(crate) fn class(&self, provider: ProviderId, id: ClassId) -> &str {
        let provider = self.providers.get(provider.index());
        provider.and_then(|it| it.classes.get(id.index())).map_or(GONE, |it| it)
    }

    pub(crate) fn route(&self, provider: ProviderId, id: RouteId) -> &str {
        let provider = self.providers.get(provider.index());
        provider.and_then(|it| it.routes.get(id.index())).map_or(GONE, |it| it)
    }

    pub(crate) fn account(&self, id: AccountId) -> &str {
        self.accounts.get(id.index()).map_or(GONE, |it| &it.1)
    }

    /// Provider and account, where this revision has the account.
    pub(crate) fn placed_account(&self, id: AccountId) -> Option<(&str, &str)> {
        self.accounts.get(id.index()).map(|(provider, name)| (self.provider(*provider), &**name))
    }

    pub(crate) fn key(&self, id: KeyId) -> &str {
        self.keys.get(id.index()).map_or(GONE, |it| it)
    }

    /// The model name that went upstream for a call that asked for `asked`.
    pub(crate) fn model<'a>(&'a self, name: PlannedName, asked: &'a str) -> &'a str {
        match name {
            PlannedName::AsAsked => asked,
            PlannedName::Suffix { from } => asked.get(from..).unwrap_or(asked),
            PlannedName::Configured { model, at } => {
                self.chains.get(model.index()).and_then(|it| it.get(usize::from(at))).map_or(GONE, |it| it)
            }
        }
    }

    pub(crate) fn caller(&self, id: CallerId) -> &str {
        self.callers.get(id.index()).map_or(GONE, |it| it)
    }
}
