//! Plain facts from the workers to the control plane: one bounded single-producer ring per worker, drained each
//! few milliseconds. Full: dropped and counted. Nothing that matters to a call depends on a report.

use std::time::Duration;

use crate::fault::FaultKind;
use crate::snapshot::{AccountId, CallerId, ClassId, KeyId, ProviderId, RouteId};
use crate::usage::Usage;
use crate::verdict::Verdict;

/// One fact. The ids are positions in the snapshot of `revision`.
#[derive(Clone, Copy, Debug)]
pub enum Report {
    /// One try at one upstream ended or reached its commit point.
    Attempt(AttemptReport),
    /// One call ended.
    Call(CallReport),
    /// A reply said which organization and workspace an account is; sent when an account's mark changes.
    Organization(OrganizationReport),
}

/// One try at one upstream.
#[derive(Clone, Copy, Debug)]
pub struct AttemptReport {
    /// Revision of the snapshot the ids belong to.
    pub revision: u64,
    /// Where it went.
    pub provider: ProviderId,
    /// Whose quota it used.
    pub account: AccountId,
    /// Which credential it used.
    pub key: KeyId,
    /// Which class of the provider.
    pub class: ClassId,
    /// Which route of the provider.
    pub route: RouteId,
    /// What came back.
    pub verdict: Verdict,
    /// Status of the reply, zero without one.
    pub status: u16,
    /// Position in the call, from zero.
    pub number: u8,
    /// From the choice of the account to the reply's head, or to the failure.
    pub elapsed: Duration,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallEnd {
    /// The caller left before the end.
    CallerGone,
    /// The reply reached its proper end.
    Complete,
    /// The gateway answered, or ended a committed stream, with a fault.
    Fault(FaultKind),
    /// An upstream's own error was passed on.
    UpstreamError,
}

impl CallEnd {
    /// A stable machine-readable name, for logs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            CallEnd::CallerGone => "caller_gone",
            CallEnd::Complete => "complete",
            CallEnd::Fault(kind) => kind.code(),
            CallEnd::UpstreamError => "upstream_error",
        }
    }
}

/// One call, from its parsed head to its last byte.
#[derive(Clone, Copy, Debug)]
pub struct CallReport {
    /// Revision of the snapshot the ids belong to.
    pub revision: u64,
    /// Who called; `None` before identification or without virtual keys.
    pub caller: Option<CallerId>,
    /// The address that the call came from, as far as it is known: behind trusted proxies the one they name.
    pub source: Option<std::net::IpAddr>,
    /// Where the reply came from.
    pub provider: Option<ProviderId>,
    /// Account and class that paid.
    pub account: Option<(AccountId, ClassId)>,
    /// How it ended.
    pub end: CallEnd,
    /// Status sent to the caller.
    pub status: u16,
    /// A stream was asked for.
    pub streamed: bool,
    /// Upstream tries.
    pub attempts: u8,
    /// The first choice of account by affinity or weight was passed over for want of room.
    pub spilled: bool,
    /// Tokens, as settled.
    pub usage: Usage,
    /// The usage is the gateway's own estimate.
    pub usage_estimated: bool,
    /// From the parsed head to the last byte.
    pub elapsed: Duration,
    /// To the first content sent to the caller.
    pub first_content: Option<Duration>,
    /// Time spent in the gateway: head parsed to request sent, plus reply head read to reply head sent.
    pub overhead: Duration,
}

/// Marks of an account's organization and workspace, as digests: only their equality matters.
#[derive(Clone, Copy, Debug)]
pub struct OrganizationReport {
    /// Revision of the snapshot the id belongs to.
    pub revision: u64,
    /// The account.
    pub account: AccountId,
    /// Digest of the organization's id.
    pub organization: u64,
    /// Digest of the workspace's id, zero where none was stated.
    pub workspace: u64,
}
