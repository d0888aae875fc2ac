//! What an upstream's answer means (the table of ARCHITECTURE.md). `providers` turns bytes into a [`Verdict`];
//! `attempt` turns a `Verdict` into what rests, what counts and where the call goes next.

use std::time::Duration;

/// The meaning of one upstream answer before the commit point, or of its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 429 that no waiting cures, 402, a usage-limit 400: the account is out until an operator acts.
    AccountSpent,
    /// The caller's own fault: returned at once, unchanged, never retried, never counted.
    CallerFault,
    /// 401: the key is suspect.
    KeyRefused,
    /// 403, or 404 on a model: this key and model do not go together.
    KeyModelRefused {
        /// The answer was a 404: where the gateway spliced the model name in, the operator's fault.
        not_found: bool,
    },
    /// 429 of a bucket. Without a time the rest grows with each strike.
    QuotaLimited {
        /// The time the provider named.
        retry_after: Option<Duration>,
    },
    /// 429 of the ramp: longer rest, in-flight cap halved.
    QuotaRamp {
        /// The time the provider named.
        retry_after: Option<Duration>,
    },
    /// A redirect: never followed.
    Redirected,
    /// 529, an overloaded 503, an overloaded event inside a stream. No key is blamed.
    RouteOverloaded {
        /// The time the provider named.
        retry_after: Option<Duration>,
    },
    /// The call succeeded, or its reply began.
    Success,
    /// Any other failure of the target.
    TargetFailed(TargetFailure),
}

/// How a target failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetFailure {
    /// No connection could be made.
    Connect,
    /// The reply broke off, or was not HTTP.
    Cut,
    /// The provider answered with this 5xx status or an in-stream error of that meaning.
    Status(u16),
    /// The proxy in front of it made no tunnel.
    Proxy(ProxyFailure),
    /// Nothing came before a deadline.
    Silence,
    /// The certificate or handshake was not acceptable.
    Tls(TlsFailure),
}

/// The check of TLS that an upstream did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsFailure {
    /// Its certificate is outside of its period of validity.
    Expired,
    /// Its certificate is for another name.
    WrongName,
    /// No root that is trusted vouches for its certificate; an intermediate certificate may be missing.
    UnknownIssuer,
    /// It ended the connection before the handshake was complete.
    Truncated,
    /// It does not speak TLS, or not as this gateway does.
    Protocol,
    /// Anything else that keeps it from being verified.
    Unverified,
}

/// Why a proxy made no tunnel to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyFailure {
    /// No connection to the proxy itself could be made.
    Unreachable,
    /// It does not take the credentials, or asks for some (407).
    Credentials,
    /// It refuses to connect there.
    Refused,
    /// It could not reach the upstream.
    OriginUnreached,
    /// It broke off, or what it said is not HTTP.
    Broken,
}

impl Verdict {
    /// A stable machine-readable name, for logs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Verdict::AccountSpent => "account_spent",
            Verdict::CallerFault => "caller_fault",
            Verdict::KeyModelRefused { .. } => "key_model_refused",
            Verdict::KeyRefused => "key_refused",
            Verdict::QuotaLimited { .. } => "quota_limited",
            Verdict::QuotaRamp { .. } => "quota_ramp",
            Verdict::Redirected => "redirected",
            Verdict::RouteOverloaded { .. } => "route_overloaded",
            Verdict::Success => "success",
            Verdict::TargetFailed(TargetFailure::Connect) => "failed_connect",
            Verdict::TargetFailed(TargetFailure::Cut) => "failed_cut",
            Verdict::TargetFailed(TargetFailure::Proxy(failure)) => match failure {
                ProxyFailure::Unreachable => "failed_proxy_unreachable",
                ProxyFailure::Credentials => "failed_proxy_credentials",
                ProxyFailure::Refused => "failed_proxy_refused",
                ProxyFailure::OriginUnreached => "failed_proxy_origin_unreached",
                ProxyFailure::Broken => "failed_proxy_broken",
            },
            Verdict::TargetFailed(TargetFailure::Silence) => "failed_silence",
            Verdict::TargetFailed(TargetFailure::Status(_)) => "failed_status",
            Verdict::TargetFailed(TargetFailure::Tls(failure)) => match failure {
                TlsFailure::Expired => "failed_tls_expired",
                TlsFailure::WrongName => "failed_tls_wrong_name",
                TlsFailure::UnknownIssuer => "failed_tls_unknown_issuer",
                TlsFailure::Truncated => "failed_tls_truncated",
                TlsFailure::Protocol => "failed_tls_protocol",
                TlsFailure::Unverified => "failed_tls_unverified",
            },
        }
    }
}
