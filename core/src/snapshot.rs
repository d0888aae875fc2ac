//! The whole configuration as one immutable, validated value with its index tables, and the cells it points to.
//!
//! A [`Draft`] is what configuration was checked into; [`Snapshot::build`] numbers its parts densely and takes
//! over the cells of the snapshot before it wherever a part has the same identity, so a reload forgets no rest,
//! level or count. Nothing here parses, reads a file, or changes after it was built; what changes per request
//! lives in the cells.

mod build;
mod draft;
mod proxy;
mod succession;

use std::sync::Arc;
use std::time::Duration;

pub use draft::{
    AccountDraft, CallerDraft, CallerLimits, ClassDraft, Draft, KeyDraft, ModelDraft, OriginDraft,
    ProviderDraft, QuotaLimits, TargetDraft,
};

pub use proxy::ForwardProxy;
pub(crate) use succession::Carried;
pub use succession::{Change, DUMP_VERSION, Dump, Identity, Settlements};

use crate::caller::CallerTable;
use crate::estimate::EstimateCell;
use crate::guessing::Guesses;
use crate::health::{AccountCell, KeyCell, PairCell, RetryBudget, RouteCell};
use crate::ingress::Ingress;
use crate::owner::OwnerTable;
use crate::quota::QuotaCell;
use crate::secret::Secret;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $raw);

        impl $name {
            /// The position in its table.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index!(/// A dialect of `providers`; this crate only compares them.
    DialectId(u8));
index!(/// Position in [`Snapshot::providers`].
    ProviderId(u16));
index!(/// Position in [`Snapshot::accounts`].
    AccountId(u16));
index!(/// Position in [`Snapshot::keys`].
    KeyId(u16));
index!(/// Position in [`Snapshot::models`].
    ModelId(u16));
index!(/// Position in the classes of a provider.
    ClassId(u8));
index!(/// Position in the routes of a provider.
    RouteId(u16));
index!(/// Position in the callers of a snapshot.
    CallerId(u32));

/// One revision of the configuration. Published whole; a request keeps the one it began with.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with each published configuration.
    pub revision: u64,
    /// Upstreams, in file order.
    pub providers: Vec<Provider>,
    /// Accounts of all providers; those of one provider stand together, in file order.
    pub accounts: Vec<Account>,
    /// Keys of all accounts; those of one account stand together, in file order.
    pub keys: Vec<Key>,
    /// Public models, sorted by name.
    pub models: Vec<Model>,
    /// Who may call.
    pub callers: CallerTable,
    /// Only names under `models` exist.
    pub models_only: bool,
    /// Answers may name provider and account.
    pub expose_routing: bool,
    /// Calls leave an entry for the access log.
    pub access_log: bool,
    /// Coded request bodies are accepted and decoded.
    pub decompress: bool,
    /// Further request header names, lower case, that go upstream.
    pub forward_headers: Vec<Box<str>>,
    /// How callers' connections are taken in.
    pub ingress: Ingress,
    /// Moves after failures, shared by all calls of the process.
    pub retry_budget: Arc<RetryBudget>,
    /// Whose files and batches are, for all snapshots of the process.
    pub owners: Arc<OwnerTable>,
    /// The wrong keys of late, for all snapshots of the process.
    pub guesses: Arc<Guesses>,
    /// Whose stored responses are, for all snapshots of the process.
    pub response_owners: Arc<OwnerTable>,
    /// A stored response whose owner is not known may be named by any caller who has its id.
    pub unknown_responses: bool,
}

/// An upstream: one origin spoken to in one dialect.
#[derive(Debug)]
pub struct Provider {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// What it speaks.
    pub dialect: DialectId,
    /// Where it is.
    pub origin: Origin,
    /// Model classes; the last one takes every model that no other takes.
    pub classes: Vec<Class>,
    /// Its accounts.
    pub accounts: Vec<AccountId>,
    /// Where what outlives a call is kept.
    pub state_account: StateAccount,
    /// Stands for the accounts of callers who bring a credential of their own, where they may; not among `accounts`.
    /// Nothing is known of them, nothing of theirs rests, and its one key holds no secret.
    pub callers_account: Option<AccountId>,
    /// Routes: one for each class, in class order, then one for each configured model.
    pub routes: Vec<Route>,
    /// Its deadlines.
    pub timeouts: Timeouts,
}

/// The account of a provider at which what outlives a call is kept: stored responses, files, containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateAccount {
    /// There are several accounts, and the operator named none: nobody knows where to look.
    Unknown,
    /// The only account.
    Only(AccountId),
    /// The operator named it.
    Named(AccountId),
}

impl StateAccount {
    /// The account, where it is known.
    pub fn id(self) -> Option<AccountId> {
        match self {
            StateAccount::Unknown => None,
            StateAccount::Only(id) | StateAccount::Named(id) => Some(id),
        }
    }

    /// Whether the operator named it.
    pub fn is_named(self) -> bool {
        matches!(self, StateAccount::Named(_))
    }
}

/// Where an upstream is and how it may be reached. A key is bound to its origin by standing in its account.
#[derive(Debug)]
pub struct Origin {
    /// TLS, or plain where the configuration itself is the permission.
    pub tls: bool,
    /// Host name or literal address, as written.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// `host` or `host:port`: the value of the host field.
    pub authority: Arc<str>,
    /// Path in front of each operation's path; empty, or begins with `/` and does not end with one.
    pub base_path: Arc<str>,
    /// Certificates accepted beside the host's own, PEM.
    pub ca_pem: Option<Arc<[u8]>>,
    /// Which addresses the name may resolve to.
    pub reach: Reach,
    /// The proxy that connections to it go through.
    pub proxy: Option<ForwardProxy>,
    /// Addresses of [`Origin::dialed`] as last resolved, written by the control plane.
    pub addresses: Arc<AddressCell>,
}

impl Origin {
    /// Whom a connection is made to, and which addresses that may have: the proxy where there is one, which then looks
    /// up the origin's name by itself.
    pub fn dialed(&self) -> (&Arc<str>, u16, Reach) {
        match &self.proxy {
            Some(proxy) => (&proxy.host, proxy.port, proxy.reach),
            None => (&self.host, self.port, self.reach),
        }
    }

    /// `host:port`, as a proxy is asked for it.
    pub fn connect_target(&self) -> String {
        let Origin { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// Which addresses an origin may have. Link-local and metadata addresses are never allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The literal address (or `localhost`) that stands in the configuration is itself the permission.
    Literal,
    /// `private: true`: loopback and private addresses too.
    Private,
    /// Public addresses only.
    Public,
}

/// Addresses of an origin. Written by the resolver of the control plane, read by workers.
#[derive(Debug, Default)]
pub struct AddressCell(arc_swap::ArcSwap<Vec<std::net::SocketAddr>>);

impl AddressCell {
    /// What was last published; empty before the first answer.
    pub fn load(&self) -> arc_swap::Guard<Arc<Vec<std::net::SocketAddr>>> {
        self.0.load()
    }

    /// The same, to be kept over a wait.
    pub fn load_full(&self) -> Arc<Vec<std::net::SocketAddr>> {
        self.0.load_full()
    }

    /// Publishes a new answer.
    pub fn publish(&self, addresses: Vec<std::net::SocketAddr>) {
        self.0.store(Arc::new(addresses));
    }
}

/// Models that share one bucket at a provider.
#[derive(Debug)]
pub struct Class {
    /// Its name, for metrics and configuration.
    pub name: Arc<str>,
    /// Name patterns, `*` matches any run of characters.
    pub patterns: Vec<Box<str>>,
    /// What its calls use as a rule.
    pub estimate: Arc<EstimateCell>,
}

/// What 529 speaks about: (provider, region, model). Models that the configuration does not name share the
/// route of their class, so that callers cannot grow the table.
#[derive(Debug)]
pub struct Route {
    /// The model, or the class, it is about.
    pub name: Arc<str>,
    /// True for the route of a class.
    pub of_class: bool,
    /// Overload, breaker and their probe.
    pub cell: Arc<RouteCell>,
}

/// One organization or workspace at a provider: owns quota.
#[derive(Debug)]
pub struct Account {
    /// The name in the configuration, else the key's.
    pub name: Arc<str>,
    /// Its provider.
    pub provider: ProviderId,
    /// Its keys.
    pub keys: Vec<KeyId>,
    /// Sum of its keys' weights.
    pub weight: f64,
    /// One quota for each class of the provider, in class order. Accounts found to be one organization and
    /// workspace share their cells.
    pub quotas: Vec<Arc<QuotaCell>>,
    /// Whether it is out (spend cap, billing).
    pub cell: Arc<AccountCell>,
    /// It stands for callers' own accounts: see [`Provider::callers_account`].
    pub of_callers: bool,
}

/// A credential of an account.
#[derive(Debug)]
pub struct Key {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// Its account.
    pub account: AccountId,
    /// Share of the traffic among its like.
    pub weight: f64,
    /// The credential.
    pub secret: Secret,
    /// Whether it is suspect or out.
    pub cell: Arc<KeyCell>,
    /// (key, model) pairs that rest, one for each route of the provider, in route order.
    pub pairs: Vec<Arc<PairCell>>,
}

/// A public name and the chain behind it.
#[derive(Debug)]
pub struct Model {
    /// The name callers use.
    pub name: Arc<str>,
    /// Targets in configured order, at least one.
    pub chain: Vec<Target>,
    /// Where the chain begins just now, written by the chain actor.
    pub cell: Arc<ChainCell>,
}

/// (provider, model): where an attempt may go.
#[derive(Clone, Debug)]
pub struct Target {
    /// The provider.
    pub provider: ProviderId,
    /// The model name there.
    pub model: Arc<str>,
    /// Its class at the provider.
    pub class: ClassId,
    /// Its route at the provider.
    pub route: RouteId,
}

/// The order of a chain as it stands now: the position of the target that goes first. Later targets follow in
/// configured order, then the earlier ones. Written by the chain actor, read by workers.
#[derive(Debug, Default)]
pub struct ChainCell(std::sync::atomic::AtomicU32);

impl ChainCell {
    /// Position of the target that goes first.
    pub fn first(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Relaxed) as usize
    }

    /// Sets the position of the target that goes first.
    pub fn lead_with(&self, position: usize) {
        self.0.store(position as u32, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Carried for ChainCell {
    fn words(&self) -> Vec<u64> {
        vec![self.first() as u64]
    }

    fn take_over(&self, words: &[u64]) {
        let &[first] = words else { return };
        self.lead_with(usize::try_from(first).unwrap_or(0));
    }
}

/// Deadlines of an upstream (ARCHITECTURE.md). `None` is no deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From the request sent to the first byte of a streamed reply.
    pub first_byte: Duration,
    /// The same for a whole reply.
    pub first_byte_whole: Duration,
    /// Between bytes of a reply.
    pub idle: Duration,
    /// Of the whole call; off unless configured.
    pub total: Option<Duration>,
}

impl Snapshot {
    /// The provider with this name.
    pub fn provider_named(&self, name: &str) -> Option<ProviderId> {
        self.providers.iter().position(|it| &*it.name == name).map(|at| ProviderId(at as u16))
    }

    /// The public model with this name.
    pub fn model_named(&self, name: &str) -> Option<ModelId> {
        self.models.binary_search_by(|it| (*it.name).cmp(name)).ok().map(|at| ModelId(at as u16))
    }

    /// The provider at this position.
    pub fn provider(&self, id: ProviderId) -> &Provider {
        &self.providers[id.index()]
    }

    /// The account at this position.
    pub fn account(&self, id: AccountId) -> &Account {
        &self.accounts[id.index()]
    }

    /// The key at this position.
    pub fn key(&self, id: KeyId) -> &Key {
        &self.keys[id.index()]
    }

    /// The public model at this position.
    pub fn model(&self, id: ModelId) -> &Model {
        &self.models[id.index()]
    }
}

impl Provider {
    /// The class of a model: the first whose patterns match, else the last one.
    pub fn class_of(&self, model: &str) -> ClassId {
        let found =
            self.classes.iter().position(|it| it.patterns.iter().any(|pattern| matches(pattern, model)));
        ClassId(found.unwrap_or(self.classes.len() - 1) as u8)
    }

    /// The route of a model: its own where the configuration names it, else that of its class.
    pub fn route_of(&self, model: &str, class: ClassId) -> RouteId {
        let own = self.routes.iter().position(|it| !it.of_class && &*it.name == model);
        RouteId(own.unwrap_or(class.index()) as u16)
    }

    /// The route at this position.
    pub fn route(&self, id: RouteId) -> &Route {
        &self.routes[id.index()]
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any run of characters. Linear in both.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(loom))]
    #[test]
    fn owners_outlive_a_reload() {
        let first = Snapshot::build(Draft { objects_max: 4, ..Draft::default() }, None, crate::Moment::ZERO);
        let second =
            Snapshot::build(Draft { objects_max: 9, ..Draft::default() }, Some(&first), crate::Moment::ZERO);
        assert!(Arc::ptr_eq(&first.owners, &second.owners));
        assert_eq!(second.owners.capacity(), 4);
    }

    #[test]
    fn patterns_match_runs() {
        for (pattern, text, expect) in [
            ("*", "", true),
            ("a-*", "a-", true),
            ("a-*", "b-1", false),
            ("*opus-4-*", "claude-opus-4-8", true),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("abc", "abcd", false),
        ] {
            assert_eq!(matches(pattern, text), expect, "{pattern} {text}");
        }
    }
}
