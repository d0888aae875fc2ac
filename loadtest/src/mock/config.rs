//! What a mock provider is built from: models, organizations with keys and quotas, pace and size of replies.
//!
//! It decides which settings make sense together, and says all that is wrong with the first bad one. It never reads a
//! file or the environment: the binary does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::script::{Fault, Rule};

/// A whole mock provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MockConfig {
    /// Where it listens: a loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Seed of everything that is drawn: equal requests to equal mocks get equal replies.
    pub seed: u64,
    /// How many quota minutes pass in a real minute. Rates are multiplied by it, what a bucket holds is not: at 10,
    /// a bucket
    /// of 1,000 RPM holds 1,000 and fills in 6 s, and the headers name the true rate of 10,000 a minute.
    pub time_scale: f64,
    /// The models it knows.
    pub models: Vec<ModelConfig>,
    /// Who has keys, and what each may use.
    pub organizations: Vec<OrganizationConfig>,
    /// How long replies take.
    pub latency: LatencyConfig,
    /// How much replies say.
    pub output: OutputConfig,
    /// How far input counts lie off `bytes_per_token`, as a share: 0.1 is up to 10 % either way, fixed by the
    /// request's bytes.
    pub token_spread: f64,
    /// Bytes of request text that make a token.
    pub bytes_per_token: f64,
    /// The largest request body in bytes; more gets a 413.
    pub body_bytes_max: u64,
    /// How many requests are kept byte for byte.
    pub requests_kept: usize,
    /// How many bytes these may have together; the oldest go first.
    pub request_bytes_kept: usize,
    /// How many calls the journal lists singly; its sums go on.
    pub calls_kept: usize,
    /// How many files, batches and stored responses are kept together; the oldest go first.
    pub objects_kept: usize,
    /// How many bytes these may have together.
    pub object_bytes_kept: usize,
    /// Connections at the same time; more are closed at once.
    pub connections_max: usize,
    /// Faults from the start.
    pub script: Vec<Rule>,
    /// Serves HTTPS if given.
    pub tls: Option<TlsConfig>,
}

/// A certificate and its key, both as PEM text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate chain, the server's own first.
    pub chain_pem: String,
    /// The private key.
    pub key_pem: String,
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig").finish_non_exhaustive()
    }
}

/// A model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Its name on the wire.
    pub id: String,
    /// The class whose quota it shares; its own name if absent.
    #[serde(default)]
    pub class: Option<String>,
    /// What people call it; its id if absent.
    #[serde(default)]
    pub display_name: Option<String>,
    /// The most output tokens that may be asked for.
    #[serde(default = "output_tokens_max")]
    pub tokens_max: u64,
}

impl ModelConfig {
    /// A model with a class.
    pub fn new(id: &str, class: &str) -> ModelConfig {
        ModelConfig {
            id: id.to_owned(),
            class: Some(class.to_owned()),
            display_name: None,
            tokens_max: output_tokens_max(),
        }
    }

    /// The class whose quota it shares.
    pub fn class(&self) -> &str {
        self.class.as_deref().unwrap_or(&self.id)
    }
}

/// An organization: quotas belong to it, however many keys it has.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationConfig {
    /// Its id, sent in `anthropic-organization-id`.
    pub id: String,
    /// Its keys.
    pub keys: Vec<KeyConfig>,
    /// Quotas by model class; `*` stands for each class that is not named, with a bucket of its own. A class
    /// without any has
    /// no limit. `count_tokens`, `files` and `batches` limit the requests of those calls.
    #[serde(default)]
    pub limits: BTreeMap<String, Limits>,
    /// Whether replies carry rate-limit headers.
    #[serde(default = "yes")]
    pub limit_headers: bool,
    /// Whether a 429 says when to come back.
    #[serde(default = "yes")]
    pub retry_after: bool,
    /// The workspaces that a call may name in `anthropic-workspace-id`; any other gets a 403.
    #[serde(default)]
    pub workspaces: Vec<String>,
    /// The share of each refill that somebody else spends, 0 to 1.
    #[serde(default)]
    pub stranger_share: f64,
}

impl OrganizationConfig {
    /// An organization without limits.
    pub fn new(id: &str, keys: &[&str]) -> OrganizationConfig {
        OrganizationConfig {
            id: id.to_owned(),
            keys: keys.iter().map(|key| KeyConfig::Plain((*key).to_owned())).collect(),
            limits: BTreeMap::new(),
            limit_headers: true,
            retry_after: true,
            workspaces: Vec::new(),
            stranger_share: 0.0,
        }
    }

    /// The same with a quota for each class that has none.
    pub fn with_limits(mut self, class: &str, limits: Limits) -> OrganizationConfig {
        self.limits.insert(class.to_owned(), limits);
        self
    }
}

/// A key: its text, or its text and what it is good for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeyConfig {
    /// A key that works.
    Plain(String),
    /// A key with a state.
    WithState {
        /// The key itself.
        key: String,
        /// What it is good for.
        state: KeyState,
    },
}

impl KeyConfig {
    /// The key itself.
    pub fn key(&self) -> &str {
        match self {
            KeyConfig::Plain(key) | KeyConfig::WithState { key, .. } => key,
        }
    }

    /// What it is good for.
    pub fn state(&self) -> KeyState {
        match self {
            KeyConfig::Plain(_) => KeyState::Active,
            KeyConfig::WithState { state, .. } => *state,
        }
    }
}

/// What a key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It works.
    Active,
    /// 401.
    Invalid,
    /// 403.
    Forbidden,
}

/// The quota of one organization and model class. What is absent is not limited.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests a minute.
    pub rpm: Option<f64>,
    /// Input tokens a minute.
    pub itpm: Option<f64>,
    /// Output tokens a minute, counted as they are produced.
    pub otpm: Option<f64>,
    /// Tokens of both kinds a minute; a chat call takes its `max_tokens` at once and gives back what it did not use.
    pub tpm: Option<f64>,
    /// How full the buckets are at the start: 0 (empty) to 1; full if absent.
    pub start_level: Option<f64>,
    /// Seconds of refill that a bucket can hold (60 if absent), before `time_scale`.
    pub burst_s: Option<f64>,
}

/// How long replies take.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LatencyConfig {
    /// From the request to the first byte of the reply, in ms.
    pub first_ms: Draw,
    /// Between two events of a stream, in ms; a whole reply takes as long as its stream would.
    pub event_ms: Draw,
    /// How long a batch or a response in the background is worked on, in ms.
    pub work_ms: f64,
}

impl Default for LatencyConfig {
    fn default() -> LatencyConfig {
        LatencyConfig { first_ms: Draw::Fixed(0.0), event_ms: Draw::Fixed(0.0), work_ms: 0.0 }
    }
}

/// How much replies say.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputConfig {
    /// Output tokens, if the prompt does not ask for a number (`TOKENS:n`) and `max_tokens` allows.
    pub tokens: Draw,
    /// Tokens that one event of a stream carries.
    pub tokens_per_event: u32,
}

impl Default for OutputConfig {
    fn default() -> OutputConfig {
        OutputConfig { tokens: Draw::Fixed(16.0), tokens_per_event: 4 }
    }
}

/// A number that is drawn anew for each use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draw {
    /// Always the same.
    Fixed(f64),
    /// Exponentially distributed with this mean.
    Exponential(f64),
    /// Evenly between the two.
    Uniform(f64, f64),
}

impl Draw {
    /// The number that belongs to `unit`, which lies between 0 and 1.
    pub(crate) fn at(self, unit: f64) -> f64 {
        match self {
            Draw::Fixed(value) => value,
            Draw::Exponential(mean) => -mean * (1.0 - unit).max(1e-9).ln(),
            Draw::Uniform(from, to) => from + (to - from) * unit,
        }
    }

    fn is_sound(self) -> bool {
        let fine = |value: f64| (0.0..=1e9).contains(&value);
        match self {
            Draw::Fixed(value) | Draw::Exponential(value) => fine(value),
            Draw::Uniform(from, to) => fine(from) && fine(to) && from <= to,
        }
    }
}

fn output_tokens_max() -> u64 {
    64_000
}

fn yes() -> bool {
    true
}

impl Default for MockConfig {
    /// One organization (`org-mock`) with one key (`sk-mock`) and no limits, three models, prompt replies.
    fn default() -> MockConfig {
        MockConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 1,
            time_scale: 1.0,
            models: vec![
                ModelConfig::new("claude-sonnet-5-5", "sonnet"),
                ModelConfig::new("claude-opus-5-5", "opus"),
                ModelConfig::new("gpt-6-sol", "gpt"),
            ],
            organizations: vec![OrganizationConfig::new("org-mock", &["sk-mock"])],
            latency: LatencyConfig::default(),
            output: OutputConfig::default(),
            token_spread: 0.0,
            bytes_per_token: 4.0,
            body_bytes_max: 32 * 1024 * 1024,
            requests_kept: 64,
            request_bytes_kept: 64 * 1024 * 1024,
            calls_kept: 50_000,
            objects_kept: 10_000,
            object_bytes_kept: 256 * 1024 * 1024,
            connections_max: 8_192,
            script: Vec::new(),
            tls: None,
        }
    }
}

impl MockConfig {
    /// Reads it from JSON.
    ///
    /// # Errors
    /// What is wrong with the text, or with the settings in it.
    pub fn from_json(text: &str) -> Result<MockConfig, String> {
        let config: MockConfig = serde_json::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// The first one that does not.
    pub fn check(&self) -> Result<(), String> {
        let in_order = [
            (self.listen.ip().is_loopback(), "listen: must be a loopback address"),
            ((1e-6..=1e6).contains(&self.time_scale), "time_scale: between 0.000001 and 1000000"),
            ((0.0..1.0).contains(&self.token_spread), "token_spread: 0 to below 1"),
            ((0.01..=1e6).contains(&self.bytes_per_token), "bytes_per_token: 0.01 to 1000000"),
            (self.output.tokens_per_event > 0, "output.tokens_per_event: at least 1"),
            (self.output.tokens.is_sound(), "output.tokens: not negative, at most 1e9"),
            (self.latency.first_ms.is_sound(), "latency.first_ms: not negative, at most 1e9"),
            (self.latency.event_ms.is_sound(), "latency.event_ms: not negative, at most 1e9"),
            ((0.0..=1e9).contains(&self.latency.work_ms), "latency.work_ms: not negative, at most 1e9"),
            (self.connections_max > 0, "connections_max: at least 1"),
            (self.body_bytes_max <= 1 << 30, "body_bytes_max: at most 1 GiB"),
        ];
        if let Some((_, what)) = in_order.into_iter().find(|(fine, _)| !fine) {
            return Err(what.to_owned());
        }
        self.check_organizations()?;
        self.script.iter().try_for_each(Rule::check)
    }

    fn check_organizations(&self) -> Result<(), String> {
        let mut keys = std::collections::BTreeSet::new();
        let mut ids = std::collections::BTreeSet::new();
        for organization in &self.organizations {
            let id = &organization.id;
            let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
            if !plain || !ids.insert(id) {
                return Err(format!("organizations: the id {id:?} is given twice, or is not plain text"));
            }
            if !(0.0..1.0).contains(&organization.stranger_share) {
                return Err(format!("organizations.{id}.stranger_share: 0 to below 1"));
            }
            for key in &organization.keys {
                if key.key().is_empty() || !keys.insert(key.key()) {
                    return Err(format!("organizations.{id}.keys: an empty key, or one given twice"));
                }
            }
            for (class, limits) in &organization.limits {
                limits.check().map_err(|what| format!("organizations.{id}.limits.{class}: {what}"))?;
            }
        }
        Ok(())
    }
}

impl Limits {
    fn check(&self) -> Result<(), &'static str> {
        let rates = [self.rpm, self.itpm, self.otpm, self.tpm];
        if rates.into_iter().flatten().any(|rate| !(1e-3..=1e12).contains(&rate)) {
            return Err("a rate must lie between 0.001 and 1e12 a minute");
        }
        if self.start_level.is_some_and(|level| !(0.0..=1.0).contains(&level)) {
            return Err("start_level: 0 to 1");
        }
        if self.burst_s.is_some_and(|seconds| !(1e-3..=1e6).contains(&seconds)) {
            return Err("burst_s: 0.001 to 1000000");
        }
        Ok(())
    }
}

/// Checks a rule where it comes from outside.
impl Rule {
    pub(crate) fn check(&self) -> Result<(), String> {
        if matches!(self.fault, Fault::SlowRead { bytes_per_s: 0 }) {
            return Err("script: slow_read needs at least 1 byte a second".to_owned());
        }
        let before_body = matches!(self.fault, Fault::SlowRead { .. });
        if before_body && (self.model.is_some() || self.stream.is_some()) {
            return Err("script: slow_read happens before model and stream are known".to_owned());
        }
        if let Fault::Status { status, .. } = self.fault
            && !(200..=599).contains(&status)
        {
            return Err("script: a status must lie between 200 and 599".to_owned());
        }
        Ok(())
    }
}
