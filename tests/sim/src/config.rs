//! The configuration of a run, as what the configuration actor would have checked it into, and the names and addresses
//! that everybody in the run knows. Each revision has a path of its own at every provider, so that a request shows by
//! its path which revision it was made from.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_core::Secret;
use tidegate_core::caller::digest;
use tidegate_core::family::Families;
use tidegate_core::snapshot::{
    AccountDraft, CallerDraft, CallerLimits, ClassDraft, DialectId, Draft, KeyDraft, ModelDraft, OriginDraft,
    ProviderDraft, QuotaLimits, Reach, TargetDraft, Timeouts,
};

use crate::script::{Ask, ProviderScript, Script};

/// Where callers connect.
pub const GATEWAY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 4000);
/// Model classes of a provider.
pub const CLASSES: usize = 2;

/// The deadlines of every provider.
pub const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(3),
    first_byte: Duration::from_secs(20),
    first_byte_whole: Duration::from_secs(30),
    idle: Duration::from_secs(15),
    total: None,
};

/// What may differ from one revision to the next.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Its number, from one.
    pub number: u64,
    /// Requests a minute of each virtual key.
    pub requests_per_minute: Vec<Option<u64>>,
    /// Virtual keys that are gone.
    pub revoked: Vec<bool>,
}

impl Revision {
    /// The one that a run begins with.
    pub fn first(script: &Script) -> Revision {
        Revision {
            number: 1,
            requests_per_minute: script.tenants.iter().map(|it| it.requests_per_minute).collect(),
            revoked: vec![false; script.tenants.len()],
        }
    }
}

/// Where a provider listens.
pub fn provider_address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, at as u8 + 1], 80))
}

/// Which provider listens there.
pub fn provider_at(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        std::net::IpAddr::V4(ip) if ip.octets()[..3] == [10, 0, 1] => Some(usize::from(ip.octets()[3]) - 1),
        _ => None,
    }
}

/// The credential of a key, and by it the key.
pub fn secret(provider: usize, account: usize, key: usize) -> String {
    format!("sk-up-{provider}-{account}-{key}-not-for-callers")
}

/// Which key a credential belongs to.
pub fn key_of_secret(text: &str) -> Option<(usize, usize, usize)> {
    let mut parts = text.strip_prefix("sk-up-")?.split('-').map(str::parse);
    let mut next = || parts.next().and_then(Result::ok);
    Some((next()?, next()?, next()?))
}

/// What a caller presents.
pub fn virtual_key(tenant: usize) -> String {
    format!("vk-{tenant}-abcdefghijklmnopqrstuvwxyz0123456789")
}

/// The name of a class's model in a dialect.
pub fn model_name(dialect: usize, class: usize) -> String {
    let maker = ["claude", "gpt"][dialect];
    let class = ["sonnet", "opus"][class];
    format!("{maker}-{class}-1")
}

/// The name that a call asks for.
pub fn asked(ask: Ask, dialect: usize) -> String {
    match ask {
        Ask::Public(at) => format!("public-{at}"),
        Ask::Bare(class) => model_name(dialect, class),
    }
}

/// The path in front of every operation at every provider, and by it the revision.
pub fn base_path(revision: u64) -> String {
    format!("/r{revision}")
}

/// The revision that a path belongs to.
pub fn revision_of_path(path: &str) -> Option<u64> {
    path.strip_prefix("/r")?.split('/').next()?.parse().ok()
}

/// The draft of a revision.
pub fn draft(script: &Script, revision: &Revision) -> Draft {
    Draft {
        providers: script.providers.iter().enumerate().map(|(at, it)| provider(at, it, revision)).collect(),
        models: script.models.iter().enumerate().map(|(at, it)| model(script, at, it)).collect(),
        callers: callers(script, revision),
        access_log: true,
        ..Draft::default()
    }
}

fn provider(at: usize, script: &ProviderScript, revision: &Revision) -> ProviderDraft {
    let address = provider_address(at);
    let class = |name: &str, pattern: &str| ClassDraft { name: name.into(), patterns: vec![pattern.into()] };
    let accounts = script.accounts.iter().enumerate().map(|(nth, account)| {
        let stated = account.stated && account.requests_per_minute > 0;
        let requests = stated.then_some(account.requests_per_minute);
        let limits = QuotaLimits { requests, ..QuotaLimits::default() };
        let keys = (0..account.keys).map(|key| KeyDraft {
            name: format!("k{at}-{nth}-{key}"),
            weight: 1.0,
            secret: Secret::new(secret(at, nth, key)),
        });
        AccountDraft {
            name: format!("a{at}-{nth}"),
            keys: keys.collect(),
            limits: vec![limits; CLASSES],
            shared_quota: None,
        }
    });
    ProviderDraft {
        name: format!("p{at}"),
        dialect: DialectId(script.dialect as u8),
        origin: OriginDraft {
            tls: false,
            host: address.ip().to_string(),
            port: address.port(),
            base_path: base_path(revision.number),
            ca_pem: None,
            reach: Reach::Literal,
            proxy: None,
        },
        classes: vec![class("sonnet", "*-sonnet-*"), class("other", "*")],
        accounts: accounts.collect(),
        state_account: None,
        passthrough: false,
        timeouts: TIMEOUTS,
    }
}

fn model(script: &Script, at: usize, chain: &[(usize, usize)]) -> ModelDraft {
    let target = |&(provider, class): &(usize, usize)| TargetDraft {
        provider: format!("p{provider}"),
        model: model_name(script.providers[provider].dialect, class),
    };
    ModelDraft { name: format!("public-{at}"), chain: chain.iter().map(target).collect() }
}

fn callers(script: &Script, revision: &Revision) -> Vec<CallerDraft> {
    let live = (0..script.tenants.len()).filter(|it| !revision.revoked[*it]);
    let mut callers: Vec<CallerDraft> = live
        .map(|tenant| CallerDraft {
            name: format!("t{tenant}"),
            digest: digest(virtual_key(tenant).as_bytes()),
            limits: CallerLimits {
                requests_per_minute: revision.requests_per_minute[tenant],
                tokens_per_minute: script.tenants[tenant].tokens_per_minute,
                count_cache_reads: false,
            },
            models: None,
            operations: Families::GENERATION,
        })
        .collect();
    // An empty table would be open to everybody.
    callers.push(CallerDraft {
        name: "nobody".into(),
        digest: digest(b"vk-nobody-abcdefghijklmnopqrstuvwxyz0123456789"),
        limits: CallerLimits::default(),
        models: None,
        operations: Families::GENERATION,
    });
    callers
}
