//! The configuration as checked plain data, before it is numbered and given its cells. Made by `actors::config`;
//! every reference in it has been resolved and every value is in range.

use std::sync::Arc;

use super::{DialectId, ForwardProxy, Reach, Timeouts};
use crate::family::Families;
use crate::ingress::Ingress;
use crate::secret::Secret;

/// Everything a [`super::Snapshot`] is built from.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Upstreams, in file order.
    pub providers: Vec<ProviderDraft>,
    /// Public models.
    pub models: Vec<ModelDraft>,
    /// Virtual keys; empty means that every credential is accepted and dropped (loopback only).
    pub callers: Vec<CallerDraft>,
    /// Only names under `models` exist.
    pub models_only: bool,
    /// Answers may name provider and account.
    pub expose_routing: bool,
    /// Calls leave an entry for the access log.
    pub access_log: bool,
    /// Coded request bodies are accepted and decoded.
    pub decompress: bool,
    /// Further request header names, lower case, that go upstream.
    pub forward_headers: Vec<String>,
    /// How callers' connections are taken in.
    pub ingress: Ingress,
    /// Files and batches whose owners can be known; what the first snapshot says holds for the whole process.
    pub objects_max: usize,
    /// Stored responses whose owners can be known; what the first snapshot says holds for the whole process.
    pub responses_max: usize,
    /// A stored response whose owner is not known may be named by any caller who has its id.
    pub unknown_responses: bool,
}

/// One upstream.
#[derive(Clone, Debug)]
pub struct ProviderDraft {
    /// Unique name.
    pub name: String,
    /// What it speaks.
    pub dialect: DialectId,
    /// Where it is.
    pub origin: OriginDraft,
    /// Model classes, the last one with the pattern `*`.
    pub classes: Vec<ClassDraft>,
    /// Accounts with their keys, in file order.
    pub accounts: Vec<AccountDraft>,
    /// The account, by name, at which what outlives a call is kept.
    pub state_account: Option<String>,
    /// Callers may bring a credential of their own.
    pub passthrough: bool,
    /// Deadlines.
    pub timeouts: Timeouts,
}

/// Where an upstream is.
#[derive(Clone, Debug)]
pub struct OriginDraft {
    /// TLS or plain.
    pub tls: bool,
    /// Host name or literal address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Empty, or begins with `/` and does not end with one.
    pub base_path: String,
    /// PEM certificates accepted beside the host's own.
    pub ca_pem: Option<Arc<[u8]>>,
    /// Which addresses are allowed.
    pub reach: Reach,
    /// The proxy that connections to it go through.
    pub proxy: Option<ForwardProxy>,
}

/// A model class and the limits an operator gave for it.
#[derive(Clone, Debug)]
pub struct ClassDraft {
    /// Its name.
    pub name: String,
    /// Name patterns.
    pub patterns: Vec<String>,
}

/// An account.
#[derive(Clone, Debug)]
pub struct AccountDraft {
    /// Unique within the provider.
    pub name: String,
    /// Its keys, at least one.
    pub keys: Vec<KeyDraft>,
    /// Configured limits for each class, in class order.
    pub limits: Vec<QuotaLimits>,
    /// Accounts of one provider with the same mark are one organization and workspace: they share their quotas.
    pub shared_quota: Option<u64>,
}

/// A credential.
#[derive(Clone, Debug)]
pub struct KeyDraft {
    /// Unique within the provider.
    pub name: String,
    /// Above zero.
    pub weight: f64,
    /// The credential.
    pub secret: Secret,
}

/// What an operator says an account may spend per minute in a class. `None`: learned from replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Requests per minute.
    pub requests: Option<u64>,
    /// Input tokens per minute.
    pub input_tokens: Option<u64>,
    /// Output tokens per minute.
    pub output_tokens: Option<u64>,
}

/// A public model.
#[derive(Clone, Debug)]
pub struct ModelDraft {
    /// Unique name.
    pub name: String,
    /// At least one target.
    pub chain: Vec<TargetDraft>,
}

/// A target, by names that exist.
#[derive(Clone, Debug)]
pub struct TargetDraft {
    /// Name of a provider of the draft.
    pub provider: String,
    /// Model name there.
    pub model: String,
}

/// A virtual key.
#[derive(Clone, Debug)]
pub struct CallerDraft {
    /// Unique name.
    pub name: String,
    /// BLAKE3 of the key. The key itself is not kept.
    pub digest: [u8; 32],
    /// Its limits.
    pub limits: CallerLimits,
    /// Patterns of the names it may ask for; `None` is all, an empty list none.
    pub models: Option<Vec<String>>,
    /// What it may do.
    pub operations: Families,
}

/// Limits of a virtual key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerLimits {
    /// Requests per minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens per minute: uncached input, cache writes and output.
    pub tokens_per_minute: Option<u64>,
    /// Cache reads count as tokens too.
    pub count_cache_reads: bool,
}
