//! Heads that go out: the request to a provider, the reply to a caller. Every head is built anew from the lists
//! of ARCHITECTURE.md, each value validated again on write; nothing is copied because it was there.

use tidegate_core::Moment;
use tidegate_core::admission::LimitCell;
use tidegate_core::caller::Caller;
use tidegate_core::snapshot::{Key, Provider, Snapshot};
use tidegate_providers::{CallerLimitView, Dialect, Fields, LimitView, Operation};
use tidegate_wire::head::{InvalidField, RequestHead, RequestWriter, ResponseHead, ResponseWriter};
use zeroize::Zeroize;

/// Longest field name that is looked up in a list; a longer one is in none.
const NAME_BYTES_MAX: usize = 64;
/// The field by which a provider knows a repeated request.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A request's fields as the dialects read them.
pub(crate) struct RequestFields<'a>(pub(crate) &'a RequestHead);

impl Fields for RequestFields<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.field(name)
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        self.0.fields().for_each(|(name, value)| visit(name, value));
    }
}

/// A reply's fields as the dialects read them.
pub(crate) struct ReplyFields<'a>(pub(crate) &'a ResponseHead);

impl Fields for ReplyFields<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.field(name)
    }

    fn each(&self, visit: &mut dyn FnMut(&str, &[u8])) {
        self.0.fields().for_each(|(name, value)| visit(name, value));
    }
}

/// What a request to a provider is made of.
pub(crate) struct RequestParts<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) dialect: &'static Dialect,
    pub(crate) provider: &'a Provider,
    /// `None`: the caller's own credential goes upstream, as it came.
    pub(crate) key: Option<&'a Key>,
    /// Who calls; `None` where nobody is told from another.
    pub(crate) caller: Option<&'a Caller>,
    pub(crate) operation: &'a Operation<'a>,
    pub(crate) head: &'a RequestHead,
    /// What stands behind the question mark.
    pub(crate) query: Option<&'a str>,
    /// Its length; `None` where nobody knows it yet.
    pub(crate) body_bytes: Option<u64>,
}

/// Writes the head of a request to a provider into `out`. Fails only where a configured credential cannot stand
/// in a field. `scratch` holds the joined path and then the credential, and is cleared before it is left.
pub(crate) fn write_request(
    out: &mut Vec<u8>,
    scratch: &mut String,
    parts: &RequestParts<'_>,
) -> Result<(), InvalidField> {
    let origin = &parts.provider.origin;
    out.clear();
    scratch.clear();
    scratch.push_str(&origin.base_path);
    scratch.push_str(parts.operation.path);
    let mut writer = RequestWriter::new(out, parts.head.method(), scratch, parts.query)?;
    writer.field("host", origin.authority.as_bytes())?;
    if let Some(key) = parts.key {
        let credential = parts.dialect.credential();
        scratch.clear();
        scratch.push_str(credential.prefix);
        scratch.push_str(key.secret.expose());
        let written = writer.field(credential.name, scratch.as_bytes());
        scratch.zeroize();
        written?;
    }
    for (name, value) in parts.head.fields() {
        if !goes_upstream(parts, name) {
            continue;
        }
        match parts.caller.filter(|_| parts.key.is_some() && name.eq_ignore_ascii_case(IDEMPOTENCY_KEY)) {
            Some(caller) => writer.field(name, &caller.own_idempotency_key(value))?,
            None => writer.field(name, value)?,
        }
    }
    if let Some((name, value)) = parts.dialect.version_field()
        && parts.head.field(name).is_none()
    {
        writer.field(name, value.as_bytes())?;
    }
    writer.field("accept-encoding", b"identity")?;
    // A request whose method means no body says nothing of one (RFC 9110 §8.6).
    match parts.body_bytes {
        None => writer.chunked()?,
        Some(0) if parts.head.method() != "POST" => {}
        Some(bytes) => writer.content_length(bytes)?,
    }
    writer.finish();
    Ok(())
}

fn goes_upstream(parts: &RequestParts<'_>, name: &str) -> bool {
    let mut buffer = [0; NAME_BYTES_MAX];
    let Some(lower) = lower_case(name, &mut buffer) else { return false };
    if tidegate_providers::is_hop_by_hop(lower) || parts.head.connection_names(lower) {
        return false;
    }
    if parts.key.is_none() {
        let own = tidegate_providers::CREDENTIALS.contains(&lower);
        if own || parts.dialect.forwards_with_own_credential(lower) {
            return true;
        }
    }
    parts.dialect.forwards(lower) || parts.snapshot.forward_headers.iter().any(|it| **it == *lower)
}

/// How the end of a reply's body is told to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyFraming {
    /// HTTP/1.1 without a known length.
    Chunked,
    /// The length is known.
    Length(u64),
    /// HTTP/1.0 without a known length: the close is the end.
    UntilClose,
    /// The status itself says that there is no body, and no length may be stated (RFC 9110, 8.6).
    NoBody,
}

/// What the gateway says in every reply.
pub(crate) struct OwnFields<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) attempts: u8,
    pub(crate) overhead_us: u64,
    pub(crate) model: Option<&'a str>,
    /// Provider and account, where routing may be shown.
    pub(crate) routing: Option<(&'a str, &'a str)>,
    /// Dialect and caller whose own limits are shown, and the wall clock in Unix milliseconds.
    pub(crate) limits: Option<CallerLimits<'a>>,
}

/// A caller that has limits of its own sees those, not an account's.
#[derive(Clone, Copy)]
pub(crate) struct CallerLimits<'a> {
    pub(crate) dialect: &'static Dialect,
    pub(crate) caller: &'a Caller,
    pub(crate) now: Moment,
    pub(crate) wall_ms: u64,
}

impl<'a> CallerLimits<'a> {
    /// The limits of `caller`, where it has any.
    pub(crate) fn of(dialect: &'static Dialect, caller: Option<&'a Caller>) -> Option<CallerLimits<'a>> {
        let caller = caller.filter(|it| it.cells.is_limited())?;
        let now = Moment::from_ns(tidegate_ring::now_ns());
        Some(CallerLimits { dialect, caller, now, wall_ms: tidegate_ring::wall_ms() })
    }
}

/// Writes the head of a reply that came from a provider.
pub(crate) fn write_reply(
    out: &mut Vec<u8>,
    dialect: &'static Dialect,
    head: &ResponseHead,
    framing: ReplyFraming,
    keep_alive: bool,
    own: &OwnFields<'_>,
) {
    out.clear();
    let mut writer = ResponseWriter::new(out, head.status());
    for (name, value) in head.fields() {
        if comes_back(dialect, head, name, own) {
            // Validated on read; a value that cannot be written again is left out.
            let _ = writer.field(name, value);
        }
    }
    write_own(&mut writer, own);
    finish(writer, framing, keep_alive);
}

/// Writes the head of a reply that the gateway makes itself.
pub(crate) fn write_own_reply(
    out: &mut Vec<u8>,
    status: u16,
    fields: &[(&str, &str)],
    framing: ReplyFraming,
    keep_alive: bool,
    own: &OwnFields<'_>,
) {
    out.clear();
    let mut writer = ResponseWriter::new(out, status);
    for (name, value) in fields {
        let _ = writer.field(name, value.as_bytes());
    }
    write_own(&mut writer, own);
    finish(writer, framing, keep_alive);
}

fn comes_back(dialect: &'static Dialect, head: &ResponseHead, name: &str, own: &OwnFields<'_>) -> bool {
    let mut buffer = [0; NAME_BYTES_MAX];
    let Some(lower) = lower_case(name, &mut buffer) else { return true };
    if head.connection_names(lower) || (own.limits.is_some() && dialect.is_limit_field(lower)) {
        return false;
    }
    dialect.returns(lower, own.routing.is_some())
}

fn write_own(writer: &mut ResponseWriter<'_>, own: &OwnFields<'_>) {
    let mut number = [0; 20];
    let _ = writer.field("x-tidegate-request-id", own.request_id.as_bytes());
    let _ = writer.field("x-tidegate-attempts", decimal(u64::from(own.attempts), &mut number));
    let _ = writer.field("x-tidegate-overhead-us", decimal(own.overhead_us, &mut number));
    if let Some(model) = own.model {
        let _ = writer.field("x-tidegate-model", model.as_bytes());
    }
    if let Some((provider, account)) = own.routing {
        let _ = writer.field("x-tidegate-provider", provider.as_bytes());
        let _ = writer.field("x-tidegate-account", account.as_bytes());
    }
    if let Some(limits) = own.limits {
        let view = limit_view(limits);
        limits.dialect.caller_limit_fields(&view, limits.wall_ms, &mut |name, value| {
            let _ = writer.field(name, value.as_bytes());
        });
    }
}

fn limit_view(limits: CallerLimits<'_>) -> CallerLimitView {
    let view = |cell: &LimitCell| {
        cell.is_limited().then(|| LimitView {
            limit: cell.per_minute(),
            remaining: u64::try_from(cell.remaining(limits.now)).unwrap_or(0),
            full_in: cell.full_at(limits.now).since(limits.now),
        })
    };
    let cells = &limits.caller.cells;
    CallerLimitView { requests: view(cells.requests()), tokens: view(cells.tokens()) }
}

fn finish(mut writer: ResponseWriter<'_>, framing: ReplyFraming, keep_alive: bool) {
    match framing {
        // The writer refuses only a second framing, and this is the first.
        ReplyFraming::Chunked => drop(writer.chunked()),
        ReplyFraming::Length(bytes) => drop(writer.content_length(bytes)),
        ReplyFraming::UntilClose | ReplyFraming::NoBody => {}
    }
    if !keep_alive {
        let _ = writer.field("connection", b"close");
    }
    writer.finish();
}

/// `name` in lower case, in `buffer`; `None` where it does not fit.
fn lower_case<'b>(name: &str, buffer: &'b mut [u8; NAME_BYTES_MAX]) -> Option<&'b str> {
    let target = buffer.get_mut(..name.len())?;
    target.copy_from_slice(name.as_bytes());
    target.make_ascii_lowercase();
    std::str::from_utf8(target).ok()
}

/// `number` in decimal, in `buffer`.
pub(crate) fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        let mut buffer = [0; 20];
        assert_eq!(decimal(0, &mut buffer), b"0");
        assert_eq!(decimal(u64::MAX, &mut buffer), u64::MAX.to_string().as_bytes());
    }

    #[test]
    fn names_longer_than_any_list_are_in_none() {
        let mut buffer = [0; NAME_BYTES_MAX];
        assert_eq!(lower_case("X-Api-Key", &mut buffer), Some("x-api-key"));
        assert_eq!(lower_case(&"x".repeat(NAME_BYTES_MAX + 1), &mut buffer), None);
    }
}
