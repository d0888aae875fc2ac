//! The configuration file as it is written: every field optional, nothing checked. Mirrors ARCHITECTURE.md; the
//! JSON Schema
//! is made from these types. Only `check` and its sections see them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{Entries, Field};

type List<T> = Vec<Field<T>>;

/// Tidegate's configuration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(title = "Tidegate", extend("additionalProperties" = false, "required" = ["providers"]))]
pub(super) struct RawConfig {
    /// Address and port of the data listener. A loopback address unless there are virtual keys.
    pub(super) listen: Field<String>,
    /// TLS on the data listener, which then serves nothing else.
    pub(super) tls: Field<RawTls>,
    /// Trusted proxies begin each connection with a PROXY header, version 1 or 2, that says whose it is.
    pub(super) proxy_protocol: Field<bool>,
    /// Addresses and networks of the proxies in front: whose PROXY header, `X-Forwarded-For` and `Forwarded` are
    /// believed.
    pub(super) trusted_proxies: Field<List<String>>,
    /// The listener for operators and probes.
    pub(super) admin: Field<RawAdmin>,
    /// The I/O driver. `auto` takes io_uring where the host allows it.
    pub(super) io: Field<RawIo>,
    /// Worker threads; as many as there are processors unless given.
    pub(super) workers: Field<u64>,
    /// Restarts without a lost call: `tidegate serve --takeover`.
    pub(super) takeover: Field<RawTakeover>,
    /// Upstreams by name. `kind` is the dialect and defaults to the name.
    pub(super) providers: Field<Entries<RawProvider>>,
    /// Public model names and the fallback chains behind them.
    pub(super) models: Field<Entries<RawModel>>,
    /// Who may call. Without any, every credential is accepted and dropped, on loopback only.
    pub(super) virtual_keys: Field<List<RawVirtualKey>>,
    /// Only names under `models` exist; a bare name of a provider's own model is unknown.
    pub(super) models_only: Field<bool>,
    /// Replies name the provider and account that served them.
    pub(super) expose_routing: Field<bool>,
    /// Accept coded request bodies.
    pub(super) decompress: Field<bool>,
    /// Further request headers that go upstream.
    pub(super) forward_headers: Field<List<String>>,
    /// What the gateway has to remember.
    pub(super) state: Field<RawState>,
    /// Deadlines of all providers.
    pub(super) timeouts: Field<RawTimeouts>,
    /// The control plane's own log, on standard error.
    pub(super) log: Field<RawLog>,
    /// A line of JSON for each call. Without it calls are counted, not listed.
    pub(super) access_log: Field<RawAccessLog>,
}

/// The control plane's own log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct RawLog {
    /// The least important lines that are written; `info` unless given. Changes with a reload.
    pub(super) level: Field<RawLogLevel>,
    /// How a line looks; `text` unless given. Changes with a restart.
    pub(super) format: Field<RawLogFormat>,
}

/// The least important lines that are written.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawLogLevel {
    /// What needs an operator.
    Error,
    /// What may need one.
    Warn,
    /// What the gateway does.
    Info,
    /// Why it does so.
    Debug,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawLogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The list of calls.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false, "required" = ["to"]))]
pub(super) struct RawAccessLog {
    /// `stdout`, or a file that is appended to and opened anew on SIGUSR1. Relative to this file's folder.
    pub(super) to: Field<String>,
}

/// TLS on the data listener. The files are read again when they change.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false, "required" = ["cert_file", "key_file"]))]
pub(super) struct RawTls {
    /// PEM file with the gateway's certificate, then those that lead to a root.
    pub(super) cert_file: Field<String>,
    /// PEM file with the certificate's private key.
    pub(super) key_file: Field<String>,
    /// PEM file with authorities. With it every client must have a certificate of theirs.
    pub(super) client_ca_file: Field<String>,
}

/// The listener for operators and probes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct RawAdmin {
    /// Address and port.
    pub(super) listen: Field<String>,
    /// Secret that the API asks for as a bearer token. Without one the API answers on loopback only.
    pub(super) token: Field<String>,
}

/// How the next process takes over from this one.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false, "required" = ["socket"]))]
pub(super) struct RawTakeover {
    /// Path of a Unix socket, in a folder that only the gateway's user may write to.
    pub(super) socket: Field<String>,
}

/// What the gateway has to remember.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct RawState {
    /// File in which it is written down whose files and batches are, as digests. Without it a restart forgets that, and
    /// nobody can reach what was made before.
    pub(super) file: Field<String>,
    /// Files and batches whose owners can be known; 32 bytes of memory each. Beyond it nothing more is made.
    pub(super) objects_max: Field<u64>,
    /// Stored responses whose owners can be known; 32 bytes of memory each. Beyond it the oldest are forgotten.
    pub(super) responses_max: Field<u64>,
    /// What becomes of a call that names a stored response whose owner is not known: one that was made before a restart
    /// without `file`, through another gateway, or so long ago that it was forgotten. `refuse` beside `file`, else
    /// `allow`.
    pub(super) unknown_responses: Field<RawUnknown>,
}

/// What becomes of what nobody is known to own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawUnknown {
    /// It may be named by whoever has its id.
    Allow,
    /// It looks as if it were not there.
    Refuse,
}

/// The I/O driver.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawIo {
    /// io_uring where the host allows it, else epoll.
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// An upstream.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct RawProvider {
    /// The dialect it speaks; defaults to the provider's name.
    pub(super) kind: Field<String>,
    /// What the provider's own SDK calls base URL.
    pub(super) base_url: Field<String>,
    /// The name may resolve to loopback and private addresses.
    pub(super) private: Field<bool>,
    /// PEM file with certificates that are accepted beside the host's own.
    pub(super) ca_file: Field<String>,
    /// Callers may bring a credential of their own: with their key of the gateway in `x-tidegate-key`, what stands in
    /// `authorization` or `x-api-key` goes upstream as it is. Without virtual keys whatever stands there does.
    pub(super) passthrough: Field<bool>,
    /// The proxy that connections to it go through, `http://[user[:password]@]host:port`; `none` for no proxy, not even
    /// one that `HTTPS_PROXY` names.
    pub(super) proxy: Field<String>,
    /// Credentials at this provider. May be left out where callers bring their own.
    pub(super) keys: Field<List<RawKey>>,
    /// Model classes beside the known ones, as name patterns: models of a class share one quota.
    pub(super) classes: Field<Entries<List<String>>>,
    /// The account at which what outlives a call is kept: stored responses, files, containers. Without it the only one;
    /// where there are several, calls about such things are refused.
    pub(super) state_account: Field<String>,
    /// Deadlines of this provider.
    pub(super) timeouts: Field<RawTimeouts>,
}

/// A credential at a provider.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false, "required" = ["name", "value"]))]
pub(super) struct RawKey {
    /// Unique within the provider.
    pub(super) name: Field<String>,
    /// The credential: `${env:NAME}` or `${file:/path}`.
    pub(super) value: Field<String>,
    /// Keys of one organization or workspace share its quota: give them one account name. Defaults to the key's.
    pub(super) account: Field<String>,
    /// Share of the traffic among its like; 1 unless given.
    pub(super) weight: Field<f64>,
    /// What the account may spend per minute: `rpm`, `itpm`, `otpm`, or these per model class, `default` for the rest.
    pub(super) limits: Field<Entries<RawLimit>>,
}

/// A number per minute, or the limits of a model class.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(untagged)]
pub(super) enum RawLimit {
    /// A number per minute.
    #[serde(rename = "number")]
    Number(u64),
    /// Limits of one model class.
    #[serde(rename = "mapping")]
    Class(RawQuotaLimits),
}

/// What an account may spend per minute in a model class.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct RawQuotaLimits {
    /// Requests per minute.
    pub(super) rpm: Field<u64>,
    /// Input tokens per minute.
    pub(super) itpm: Field<u64>,
    /// Output tokens per minute.
    pub(super) otpm: Field<u64>,
}

/// A public model.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false, "required" = ["chain"]))]
pub(super) struct RawModel {
    /// Targets as `provider/model`, tried in this order.
    pub(super) chain: Field<List<String>>,
}

/// A key that the gateway gives out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false, "required" = ["name", "key"]))]
pub(super) struct RawVirtualKey {
    /// Unique name, for metrics.
    pub(super) name: Field<String>,
    /// The key: `${env:NAME}` or `${file:/path}`.
    pub(super) key: Field<String>,
    /// What its holder may spend.
    pub(super) limits: Field<RawCallerLimits>,
    /// Patterns of the model names it may ask for. Absent is all, an empty list none.
    pub(super) models: Field<List<String>>,
    /// What it may do: `audio`, `batches`, `chat`, `completions`, `count_tokens`, `embeddings`, `files`, `images`,
    /// `messages`, `models`, `responses`, `stored_responses`, and `generation` for all of them but `batches`, `files`
    /// and `stored_responses`, which is what it may do without this list.
    pub(super) operations: Field<List<String>>,
}

/// What the holder of a virtual key may spend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct RawCallerLimits {
    /// Requests per minute.
    pub(super) rpm: Field<u64>,
    /// Tokens per minute: uncached input, cache writes and output.
    pub(super) tpm: Field<u64>,
    /// Cache reads count as tokens, too.
    pub(super) count_cache_reads: Field<bool>,
}

/// Deadlines, as `500ms`, `3s`, `2m`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("additionalProperties" = false))]
pub(super) struct RawTimeouts {
    /// To connect, TLS included.
    pub(super) connect: Field<String>,
    /// From the request to the first byte of a streamed reply.
    pub(super) first_byte: Field<String>,
    /// From the request to the first byte of a whole reply.
    pub(super) first_byte_whole: Field<String>,
    /// Between bytes of a reply.
    pub(super) idle: Field<String>,
    /// Of the whole call, or `off`.
    pub(super) total: Field<String>,
}
