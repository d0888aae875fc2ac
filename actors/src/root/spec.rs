//! Which children the root has: those that are always there, and those that a snapshot asks for.

use tidegate_core::Snapshot;

use crate::key::KeyName;
use crate::quota::AccountName;

/// Which child.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Spec {
    Access,
    Admin,
    Chain(String),
    Config,
    Exporter,
    Key(KeyName),
    Owners,
    Pump,
    Quota(AccountName),
    Resolver,
    Watchdog,
}

impl Spec {
    /// Its name, for people and tests.
    pub(super) fn name(&self) -> String {
        match self {
            Spec::Access => "access-log".into(),
            Spec::Admin => "admin".into(),
            Spec::Chain(model) => format!("chain/{model}"),
            Spec::Config => "config".into(),
            Spec::Exporter => "exporter".into(),
            Spec::Key(it) => format!("key/{}/{}", it.provider, it.key),
            Spec::Owners => "owners".into(),
            Spec::Pump => "pump".into(),
            Spec::Quota(it) => format!("quota/{}/{}", it.provider, it.account),
            Spec::Resolver => "resolver".into(),
            Spec::Watchdog => "watchdog".into(),
        }
    }

    /// Every child that a snapshot asks for.
    pub(super) fn all_of(snapshot: &Snapshot) -> Vec<Spec> {
        // Those that are sent to come first.
        let mut all = vec![Spec::Exporter, Spec::Access, Spec::Config, Spec::Resolver];
        for account in snapshot.accounts.iter().filter(|it| !it.of_callers) {
            let provider = snapshot.provider(account.provider).name.to_string();
            all.push(Spec::Quota(AccountName {
                provider: provider.clone(),
                account: account.name.to_string(),
            }));
            let keys = account.keys.iter().map(|it| snapshot.key(*it).name.to_string());
            all.extend(keys.map(|key| Spec::Key(KeyName { provider: provider.clone(), key })));
        }
        let chains = snapshot.models.iter().filter(|it| it.chain.len() > 1);
        all.extend(chains.map(|it| Spec::Chain(it.name.to_string())));
        all.extend([Spec::Owners, Spec::Pump, Spec::Watchdog, Spec::Admin]);
        all
    }
}
