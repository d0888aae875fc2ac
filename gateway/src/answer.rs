//! The only place that answers with an error of the gateway's own. Decides its words and its retry fields; the
//! dialect decides their shape. What an upstream said is never touched here.

use std::time::Duration;

use tidegate_core::fault::{Fault, FaultKind, Retry};
use tidegate_core::verdict::{ProxyFailure, TlsFailure};
use tidegate_providers::{CONTENT_TYPE_JSON, Dialect};
use tidegate_wire::head::Refusal;

use crate::heads::{self, CallerLimits, OwnFields, ReplyFraming};
use crate::record::Record;
use crate::relay::{Committed, Interrupted, Line};

/// What a wait may exceed whole seconds by without costing the caller another one.
const ROUNDING_MS: u32 = 10;

/// Answers `fault` in the caller's dialect: with its status where nothing was committed, else in-band. `retry`
/// hints become `retry-after` and `x-should-retry`, which all official clients obey.
pub(crate) async fn answer(
    line: &mut Line<'_>,
    dialect: &'static Dialect,
    record: &mut Record,
    fault: Fault,
    detail: Option<&str>,
    limits: Option<CallerLimits<'_>>,
) -> Result<(), Interrupted> {
    if line.is_opaque() {
        line.abort();
        return Err(Interrupted::CallerGone);
    }
    let message = message(fault.kind, detail);
    if line.committed() != Committed::Nothing {
        return in_band(line, dialect, record, fault, &message).await;
    }
    let mut body = Vec::with_capacity(256);
    dialect.write_error(&mut body, &fault, &message, record.id.as_str());
    record.status = fault.status();
    let mut head = Vec::with_capacity(512);
    let retry_after = retry_after(fault.retry).map(|(seconds, ms)| (seconds.to_string(), ms.to_string()));
    let mut fields = vec![("content-type", CONTENT_TYPE_JSON), ("request-id", record.id.as_str())];
    if let Some((seconds, ms)) = &retry_after {
        fields.push(("retry-after", seconds));
        // Official clients look here first: a wait of 300 ms need not be one of a second.
        fields.push(("retry-after-ms", ms));
    }
    if fault.retry == Retry::Never {
        fields.push(("x-should-retry", "false"));
    }
    let own = own_fields(record, limits);
    let length = ReplyFraming::Length(body.len() as u64);
    heads::write_own_reply(&mut head, fault.status(), &fields, length, line.promises_more(), &own);
    line.commit_opaque();
    let body: &[u8] = if line.is_head_only() { b"" } else { &body };
    line.send(&[&head, body]).await
}

/// Refuses a head that nobody may interpret, with the status that names what is wrong with it.
pub(crate) async fn refuse_head(
    line: &mut Line<'_>,
    dialect: &'static Dialect,
    record: &mut Record,
    refusal: Refusal,
) -> Result<(), Interrupted> {
    let fault = Fault::never(FaultKind::Malformed);
    let message = message(fault.kind, Some(refusal.code()));
    let mut body = Vec::with_capacity(256);
    dialect.write_error(&mut body, &fault, &message, record.id.as_str());
    record.status = refusal.status();
    let mut head = Vec::with_capacity(256);
    let length = ReplyFraming::Length(body.len() as u64);
    let fields = [("content-type", CONTENT_TYPE_JSON)];
    let own = own_fields(record, None);
    heads::write_own_reply(&mut head, record.status, &fields, length, false, &own);
    line.commit_opaque();
    line.send(&[&head, &body]).await
}

/// Ends a stream whose status is out: an error event, no success terminator, and the connection with it.
async fn in_band(
    line: &mut Line<'_>,
    dialect: &'static Dialect,
    record: &mut Record,
    fault: Fault,
    message: &str,
) -> Result<(), Interrupted> {
    let mut event = Vec::with_capacity(256);
    dialect.write_stream_error(&mut event, record.operation, &fault, message, record.id.as_str());
    record.in_band = true;
    line.commit_content();
    line.keep_alive = false;
    line.send_events(b"", &event, true).await
}

/// Returns an upstream's error answer inside a stream whose status is out: the body as it is, as an error event.
pub(crate) async fn pass_on_in_band(
    line: &mut Line<'_>,
    dialect: &'static Dialect,
    record: &mut Record,
    body: &[u8],
) -> Result<(), Interrupted> {
    let mut event = Vec::with_capacity(body.len() + 64);
    if !dialect.wrap_stream_error(&mut event, body) {
        let fault = Fault::new(FaultKind::UpstreamFailed);
        let message = message(fault.kind, None);
        dialect.write_stream_error(&mut event, record.operation, &fault, &message, record.id.as_str());
    }
    record.in_band = true;
    line.commit_content();
    line.keep_alive = false;
    line.send_events(b"", &event, true).await
}

/// Sends a small reply that is not an error: a model list, a probe's answer.
pub(crate) async fn own_reply(
    line: &mut Line<'_>,
    record: &mut Record,
    content_type: &str,
    body: &[u8],
) -> Result<(), Interrupted> {
    record.status = 200;
    let mut head = Vec::with_capacity(256);
    let fields = [("content-type", content_type)];
    let own = own_fields(record, None);
    let length = ReplyFraming::Length(body.len() as u64);
    heads::write_own_reply(&mut head, 200, &fields, length, line.promises_more(), &own);
    line.commit_opaque();
    line.send(&[&head, if line.is_head_only() { b"" } else { body }]).await
}

fn own_fields<'a>(record: &'a Record, limits: Option<CallerLimits<'a>>) -> OwnFields<'a> {
    OwnFields {
        request_id: record.id.as_str(),
        attempts: record.attempts,
        overhead_us: record.overhead.total().as_micros() as u64,
        model: None,
        routing: None,
        limits,
    }
}

/// Whole seconds and milliseconds, rounded up: a client that comes back a moment early is refused again.
fn retry_after(retry: Retry) -> Option<(u64, u64)> {
    match retry {
        Retry::After(wait) => Some((seconds_up(wait), ms_up(wait))),
        Retry::Never | Retry::Unsaid => None,
    }
}

fn ms_up(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

fn seconds_up(wait: Duration) -> u64 {
    // Cells count in coarser steps than clocks: seven seconds and half a millisecond are seven seconds.
    let over = wait.subsec_millis() >= ROUNDING_MS;
    (wait.as_secs() + u64::from(over)).max(1)
}

/// What a person reads. Says who has to do what; never names a key, an account or an address.
fn message(kind: FaultKind, detail: Option<&str>) -> String {
    use FaultKind::*;
    let text = match kind {
        AccountsOut => "No account of the gateway may spend more for this model. The operator has to act.",
        BodyTooLarge => "The request body is larger than the gateway accepts.",
        BodyTooSlow => "The request body did not arrive in time.",
        CallerRequestLimit => "Your key's requests-per-minute limit is reached.",
        CallerTokenLimit => "Your key's tokens-per-minute limit is reached.",
        CodedBody => "The request body must not have a content coding.",
        Credential => "The API key is missing or not valid.",
        Internal => "The gateway failed on this request.",
        Malformed => "The request is not well-formed HTTP.",
        MalformedBody => "The request body is not a JSON object that can be routed",
        ListUnusable => "The provider's list cannot be shown",
        NoSuchModel => "The model is not available",
        NoSuchObject => "There is nothing with this id",
        NoSuchOperation => "There is no such endpoint.",
        ObjectsFull => {
            "The gateway can note no further owners of files and batches. Delete some, or the operator has to raise \
             `state.objects_max`."
        }
        OperationNotAllowed => "Your key does not allow this operation",
        NoUsableKey => "The gateway has no usable key for this model. The operator has to act.",
        Overloaded => "The gateway is at its capacity.",
        QuotasResting => "Every account that can serve this model is at its rate limit.",
        Redirected => {
            "The provider answered with a redirect, which is not followed. The operator has to act."
        }
        RoutesOverloaded => "The model's providers are overloaded.",
        ShuttingDown => "The gateway is shutting down.",
        SplicedModelUnknown => "The provider does not know the model that the gateway is configured to use.",
        StateAccountUnknown => {
            "The call asks for something to be kept, or names something kept, and the provider has several accounts. \
             The operator has to name one of them as its `state_account`."
        }
        UpstreamFailed => "The provider failed or broke off.",
        UpstreamTimedOut => "The provider did not answer in time.",
        UpstreamProxy(failure) => match failure {
            ProxyFailure::Unreachable => "The proxy in front of the provider cannot be reached.",
            ProxyFailure::Credentials => {
                "The proxy in front of the provider refuses the gateway's credentials."
            }
            ProxyFailure::Refused => "The proxy in front of the provider refuses to connect there.",
            ProxyFailure::OriginUnreached => "The proxy in front of the provider could not reach it.",
            ProxyFailure::Broken => "The proxy in front of the provider broke off.",
        },
        UpstreamTls(failure) => match failure {
            TlsFailure::Expired => "The provider's certificate has expired, or is not valid yet.",
            TlsFailure::WrongName => "The provider's certificate is for another name.",
            TlsFailure::UnknownIssuer => "The provider's certificate is of an authority that is not trusted.",
            TlsFailure::Truncated => "The provider broke off the TLS handshake.",
            TlsFailure::Protocol => "The provider does not speak TLS as it should.",
            TlsFailure::Unverified => "The provider could not be verified.",
        },
    };
    match detail {
        Some(detail) => format!("{}: {detail}", text.trim_end_matches('.')),
        None if text.ends_with('.') => text.to_owned(),
        None => format!("{text}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up_to_whole_seconds() {
        assert_eq!(seconds_up(Duration::from_millis(1)), 1);
        assert_eq!(seconds_up(Duration::from_secs(5)), 5);
        assert_eq!(seconds_up(Duration::from_millis(5_009)), 5);
        assert_eq!(seconds_up(Duration::from_millis(5_010)), 6);
        assert_eq!(seconds_up(Duration::ZERO), 1);
        assert_eq!((ms_up(Duration::from_micros(300_001)), ms_up(Duration::ZERO)), (301, 1));
    }

    #[test]
    fn details_stand_behind_a_colon() {
        assert_eq!(message(FaultKind::NoSuchModel, Some("x-1")), "The model is not available: x-1");
        assert_eq!(message(FaultKind::NoSuchModel, None), "The model is not available.");
    }
}
