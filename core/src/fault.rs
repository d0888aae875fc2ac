//! What went wrong, whose fault it is, and whether coming back helps. Text and bytes are made elsewhere
//! (`gateway::answer` through the dialect's writer); this is what code branches on.

use std::time::Duration;

use crate::verdict::{ProxyFailure, TlsFailure};

/// Who has to act for the call to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The caller sent something that cannot succeed as it is.
    Caller,
    /// The gateway itself failed or is full.
    Gateway,
    /// The configuration or an account needs an operator.
    Operator,
    /// The provider failed or refused.
    Provider,
}

/// Whether and when the same call may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// A repeat after this long has a fair chance; becomes `retry-after`.
    After(Duration),
    /// A repeat cannot help; becomes `x-should-retry: false`.
    Never,
    /// Nothing is said; the client's own policy decides.
    Unsaid,
}

/// What happened. Variants are alphabetical within each blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    // Blame::Caller
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The body did not arrive before its deadline.
    BodyTooSlow,
    /// The content coding of the body is not accepted.
    CodedBody,
    /// The presented key is missing, unknown or revoked. One variant: the answer must not tell which.
    Credential,
    /// The head or framing of the message is not acceptable HTTP/1.1.
    Malformed,
    /// The body is not a JSON object that can be routed.
    MalformedBody,
    /// What is named was not made by this caller, or is gone: the answer does not tell which.
    NoSuchObject,
    /// No such path, or not with this method.
    NoSuchOperation,
    /// The model is not one that this gateway, or this caller, has.
    NoSuchModel,
    /// The caller's key does not allow this operation.
    OperationNotAllowed,
    /// The caller's own requests-per-minute limit.
    CallerRequestLimit,
    /// The caller's own tokens-per-minute limit.
    CallerTokenLimit,
    // Blame::Gateway
    /// A panic or a broken invariant ended this request.
    Internal,
    /// Slots or body memory are used up.
    Overloaded,
    /// The gateway is shutting down.
    ShuttingDown,
    // Blame::Operator
    /// Every account is out until an operator acts (spend cap, billing).
    AccountsOut,
    /// No usable key is left for the target.
    NoUsableKey,
    /// The gateway can note no further owners: nothing may be made that nobody could ask for.
    ObjectsFull,
    /// The provider sent a redirect, which is never followed.
    Redirected,
    /// The proxy in front of the upstream made no tunnel to it.
    UpstreamProxy(ProxyFailure),
    /// The model name that the configuration names is unknown at the provider.
    SplicedModelUnknown,
    /// The call is about something kept at one account, and the configuration does not say at which.
    StateAccountUnknown,
    // Blame::Provider
    /// A list of what an account keeps is too long to be filtered, or cannot be read.
    ListUnusable,
    /// Every account that could serve the call is at its limit.
    QuotasResting,
    /// Every route is overloaded.
    RoutesOverloaded,
    /// The upstream could not be reached, failed, or broke off.
    UpstreamFailed,
    /// A deadline of the upstream passed.
    UpstreamTimedOut,
    /// The upstream could not be spoken to over TLS; it is never spoken to without.
    UpstreamTls(TlsFailure),
}

/// A failure of one call, ready to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// Whether and when to come back.
    pub retry: Retry,
}

impl Fault {
    /// A fault about which nothing is known but its kind.
    pub const fn new(kind: FaultKind) -> Fault {
        Fault { kind, retry: Retry::Unsaid }
    }

    /// A fault that a repeat after `wait` may cure.
    pub const fn later(kind: FaultKind, wait: Duration) -> Fault {
        Fault { kind, retry: Retry::After(wait) }
    }

    /// A fault that no repeat cures.
    pub const fn never(kind: FaultKind) -> Fault {
        Fault { kind, retry: Retry::Never }
    }

    /// Who has to act.
    pub const fn blame(self) -> Blame {
        self.kind.blame()
    }

    /// The HTTP status of the answer.
    pub const fn status(self) -> u16 {
        self.kind.status()
    }
}

impl FaultKind {
    /// Who has to act.
    pub const fn blame(self) -> Blame {
        use FaultKind::*;
        match self {
            BodyTooLarge | BodyTooSlow | CodedBody | Credential | Malformed | MalformedBody
            | NoSuchObject | NoSuchOperation | NoSuchModel | OperationNotAllowed | CallerRequestLimit
            | CallerTokenLimit => Blame::Caller,
            Internal | Overloaded | ShuttingDown => Blame::Gateway,
            AccountsOut | NoUsableKey | ObjectsFull | Redirected | SplicedModelUnknown
            | StateAccountUnknown | UpstreamProxy(_) => Blame::Operator,
            ListUnusable | QuotasResting | RoutesOverloaded | UpstreamFailed | UpstreamTimedOut
            | UpstreamTls(_) => Blame::Provider,
        }
    }

    /// The HTTP status of the answer (ARCHITECTURE.md: resting 429, overload 529, failures 502 or 504, no key 503).
    pub const fn status(self) -> u16 {
        use FaultKind::*;
        match self {
            Malformed | MalformedBody | StateAccountUnknown => 400,
            Credential => 401,
            OperationNotAllowed => 403,
            NoSuchObject | NoSuchOperation | NoSuchModel => 404,
            BodyTooSlow => 408,
            BodyTooLarge => 413,
            CodedBody => 415,
            CallerRequestLimit | CallerTokenLimit | QuotasResting => 429,
            Internal => 500,
            ListUnusable | Redirected | SplicedModelUnknown | UpstreamFailed | UpstreamProxy(_)
            | UpstreamTls(_) => 502,
            AccountsOut | NoUsableKey | Overloaded | ShuttingDown => 503,
            UpstreamTimedOut => 504,
            ObjectsFull => 507,
            RoutesOverloaded => 529,
        }
    }

    /// A stable machine-readable name, for logs, metrics and error bodies.
    pub const fn code(self) -> &'static str {
        use FaultKind::*;
        match self {
            AccountsOut => "accounts_out",
            BodyTooLarge => "body_too_large",
            BodyTooSlow => "body_too_slow",
            CallerRequestLimit => "caller_request_limit",
            CallerTokenLimit => "caller_token_limit",
            CodedBody => "coded_body",
            Credential => "credential",
            Internal => "internal",
            Malformed => "malformed",
            MalformedBody => "malformed_body",
            ListUnusable => "list_unusable",
            NoSuchModel => "no_such_model",
            NoSuchObject => "no_such_object",
            NoSuchOperation => "no_such_operation",
            NoUsableKey => "no_usable_key",
            ObjectsFull => "objects_full",
            OperationNotAllowed => "operation_not_allowed",
            Overloaded => "overloaded",
            QuotasResting => "quotas_resting",
            Redirected => "redirected",
            RoutesOverloaded => "routes_overloaded",
            ShuttingDown => "shutting_down",
            SplicedModelUnknown => "spliced_model_unknown",
            StateAccountUnknown => "state_account_unknown",
            UpstreamFailed => "upstream_failed",
            UpstreamProxy(ProxyFailure::Unreachable) => "upstream_proxy_unreachable",
            UpstreamProxy(ProxyFailure::Credentials) => "upstream_proxy_credentials",
            UpstreamProxy(ProxyFailure::Refused) => "upstream_proxy_refused",
            UpstreamProxy(ProxyFailure::OriginUnreached) => "upstream_proxy_origin_unreached",
            UpstreamProxy(ProxyFailure::Broken) => "upstream_proxy_broken",
            UpstreamTimedOut => "upstream_timed_out",
            UpstreamTls(TlsFailure::Expired) => "upstream_tls_expired",
            UpstreamTls(TlsFailure::WrongName) => "upstream_tls_wrong_name",
            UpstreamTls(TlsFailure::UnknownIssuer) => "upstream_tls_unknown_issuer",
            UpstreamTls(TlsFailure::Truncated) => "upstream_tls_truncated",
            UpstreamTls(TlsFailure::Protocol) => "upstream_tls_protocol",
            UpstreamTls(TlsFailure::Unverified) => "upstream_tls_unverified",
        }
    }
}
