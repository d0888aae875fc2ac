//! What a dialect is: data, and a few functions where data does not suffice. One constant of [`Dialect`] per
//! vendor; whoever speaks to a provider or a caller goes through the methods here and never asks which vendor it
//! is. Pure: no I/O, no clock; wall time is an argument.

use std::time::Duration;

use tidegate_core::fault::Fault;
use tidegate_core::quota::ObservedLimits;
use tidegate_core::route::State;
use tidegate_core::snapshot::{DialectId, matches};
use tidegate_core::verdict::Verdict;
use tidegate_core::{Family, Usage};
use tidegate_wire::skim::Skim;
use tidegate_wire::splice::Edit;
use tidegate_wire::sse::EventView;

use crate::fields::Fields;
use crate::forwarding::{self, ForwardRules};
use crate::judge::{self, Rules};
use crate::listing::ModelCard;
use crate::objects::ObjectRules;
use crate::path::{self, Operation, Page, RouteMiss, RouteRow};
use crate::reading;

/// The member of a whole reply that says what was used, the same in every dialect.
pub const USAGE: &str = "usage";

/// The content type of a JSON answer.
pub const CONTENT_TYPE_JSON: &str = "application/json";
/// The content type of an event stream.
pub const CONTENT_TYPE_STREAM: &str = "text/event-stream; charset=utf-8";

/// A protocol that callers and providers speak.
#[derive(Debug)]
pub struct Dialect {
    /// Its number in a snapshot.
    pub id: DialectId,
    /// Its name for people.
    pub name: &'static str,
    /// What `kind:` calls it in the configuration.
    pub kind: &'static str,
    /// Where its vendor serves it; what the vendor's own SDK calls base URL (ARCHITECTURE.md).
    pub default_base_url: &'static str,
    /// The environment variable its vendor's SDK reads a key from.
    pub key_env: &'static str,
    /// Paths and methods of callers; the paths are those of an upstream behind its base URL.
    pub routes: &'static [RouteRow],
    /// Model classes, most specific first; the last takes every model.
    pub classes: &'static [ClassRow],
    /// First path segment by which a caller names this dialect.
    pub(crate) path_prefix: &'static str,
    /// Paths that no other dialect has, with all below them.
    pub(crate) own_paths: &'static [&'static str],
    /// What stands in front of callers' paths and is part of the base URL; callers may leave it out. May be empty.
    pub(crate) version_segment: &'static str,
    /// Paths whose results the vendor keeps unless `store` says otherwise.
    pub(crate) keeps_unasked: &'static [&'static str],
    pub(crate) credential: CredentialField,
    pub(crate) version: Option<(&'static str, &'static str)>,
    pub(crate) probe: (&'static str, &'static str),
    pub(crate) identity: IdentityFields,
    pub(crate) session: Option<&'static str>,
    pub(crate) forwarded: ForwardRules,
    /// What names of fields that state an account's limits begin with.
    pub(crate) limit_prefixes: &'static [&'static str],
    pub(crate) rules: Rules,
    pub(crate) objects: ObjectRules,
    pub(crate) call: Calls,
}

/// Calls back with the name and value of each rate-limit field; the number is the wall clock in Unix milliseconds.
type CallerLimitFields = fn(&CallerLimitView, u64, &mut dyn FnMut(&str, &str));

/// Appends one page of a model list.
type WriteModels = fn(&mut Vec<u8>, &mut dyn Iterator<Item = ModelCard<'_>>, &Page<'_>);

/// Appends an error from its fault, its message and the request's id.
type WriteError = fn(&mut Vec<u8>, &Fault, &str, &str);

/// How an error is told in streams of some families whose events have types.
#[derive(Debug)]
pub(crate) struct TypedError {
    pub(crate) families: &'static [Family],
    pub(crate) opening: &'static str,
    pub(crate) write: WriteError,
}

/// The functions of a dialect, each behind the method of [`Dialect`] with its name.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) observed_limits: fn(&dyn Fields) -> ObservedLimits,
    pub(crate) stream_event: fn(&Rules, &EventView<'_>) -> StreamEvent,
    pub(crate) usage_object: fn(&[u8]) -> Option<usize>,
    /// Reads a `usage` object.
    pub(crate) usage: fn(&[u8]) -> Usage,
    pub(crate) body_edit: fn(&Operation<'_>, &[u8], &Skim<'_>) -> Option<Edit<'static>>,
    pub(crate) write_error: WriteError,
    pub(crate) typed_error: Option<TypedError>,
    /// An event that says nothing and may stand anywhere behind the first content; a comment where the vendor has none.
    pub(crate) keep_alive: &'static [u8],
    /// What stands in front of an error's body where it is an event.
    pub(crate) error_event_opening: &'static str,
    pub(crate) caller_limit_fields: CallerLimitFields,
    pub(crate) write_models: WriteModels,
    pub(crate) write_model: fn(&mut Vec<u8>, ModelCard<'_>),
}

/// Models that share one bucket at the vendor. `*` in a pattern stands for any run of characters.
#[derive(Clone, Copy, Debug)]
pub struct ClassRow {
    /// Its name, for metrics and configuration.
    pub name: &'static str,
    /// Patterns of model names.
    pub patterns: &'static [&'static str],
}

/// The field a provider key travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialField {
    /// Field name, lower case.
    pub name: &'static str,
    /// What stands in front of the key.
    pub prefix: &'static str,
}

/// Fields of a reply that say whose account answered, lower case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdentityFields {
    pub(crate) organization: &'static str,
    pub(crate) workspace: &'static str,
}

/// What one event of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEvent {
    /// What it promises.
    pub phase: Phase,
    /// What it says of usage; cumulative, so the latest of each part holds ([`Usage::merge`]).
    pub usage: Option<Usage>,
    /// It carries usage and nothing else: taken out where the caller did not ask for it.
    pub usage_only: bool,
}

/// What an event promises to the caller (ARCHITECTURE.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing yet: a start, a role, a ping, a comment. Held before the first content, passed on after it.
    Held,
    /// Not known to this dialect. Held and passed on as [`Phase::Held`].
    Other,
    /// Content. The first one commits the stream.
    Content,
    /// The proper end. A stream that closes without it is incomplete.
    End,
    /// The provider gave up inside the stream. Before content it moves the call on.
    Error(Verdict),
}

impl StreamEvent {
    pub(crate) const HELD: StreamEvent = StreamEvent::of(Phase::Held);

    pub(crate) const fn of(phase: Phase) -> StreamEvent {
        StreamEvent { phase, usage: None, usage_only: false }
    }
}

/// A caller's own limits as they stand, for the fields that tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerLimitView {
    /// Requests per minute.
    pub requests: Option<LimitView>,
    /// Tokens per minute.
    pub tokens: Option<LimitView>,
}

/// One limit as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitView {
    /// Per minute.
    pub limit: u64,
    /// Left now; zero where the bucket is in debt.
    pub remaining: u64,
    /// Until the bucket is full again.
    pub full_in: Duration,
}

impl Dialect {
    /// The operation that a caller's method and path (without dialect prefix and query) name.
    pub fn operation<'p>(&self, method: &str, path: &'p str) -> Result<Operation<'p>, RouteMiss> {
        let bare = path.strip_prefix(self.version_segment).filter(|it| it.len() > 1 && it.starts_with('/'));
        path::operation(self.routes, method, bare.unwrap_or(path))
    }

    /// What a call has to do with things that outlive it at one account: by what its body names, else by what the
    /// vendor does unless told otherwise.
    pub fn state(&self, operation: &Operation<'_>, skim: &Skim<'_>) -> State {
        if skim.pins.any() || operation.kind.is_of_object() {
            State::Asked
        } else if skim.store.is_none() && self.keeps_unasked.contains(&operation.path) {
            State::Unasked
        } else {
            State::None
        }
    }

    /// The field in which an upstream expects its key.
    pub fn credential(&self) -> CredentialField {
        self.credential
    }

    /// A field that the upstream demands, with the value to send when the caller sent none.
    pub fn version_field(&self) -> Option<(&'static str, &'static str)> {
        self.version
    }

    /// The cheapest authenticated call, method and path with query, by which a key is checked.
    pub fn health_probe(&self) -> (&'static str, &'static str) {
        self.probe
    }

    /// Whether a caller's field goes upstream (ARCHITECTURE.md). `forward_headers:` of the configuration,
    /// the credential and the framing are the gateway's to add.
    pub fn forwards(&self, field_name_lower: &str) -> bool {
        self.forwarded.forwards(field_name_lower)
    }

    /// The same for a call that brings the caller's own credential, without the credential itself.
    pub fn forwards_with_own_credential(&self, field_name_lower: &str) -> bool {
        self.forwarded.forwards_with_own_credential(field_name_lower)
    }

    /// Whether an upstream's field goes back (ARCHITECTURE.md). Framing never does: it is made anew.
    pub fn returns(&self, field_name_lower: &str, expose_routing: bool) -> bool {
        forwarding::returns(field_name_lower, expose_routing)
    }

    /// Whether an upstream's field states an account's limits: withheld from a caller that has limits of its own,
    /// which gets [`Dialect::caller_limit_fields`] in their place.
    pub fn is_limit_field(&self, field_name_lower: &str) -> bool {
        self.limit_prefixes.iter().any(|it| field_name_lower.starts_with(it))
    }

    /// The organization, and where stated the workspace, that a reply names.
    pub fn org_mark<'f>(&self, fields: &'f dyn Fields) -> Option<(&'f [u8], Option<&'f [u8]>)> {
        let stated = |name| fields.get(name).map(<[u8]>::trim_ascii).filter(|it| !it.is_empty());
        Some((stated(self.identity.organization)?, stated(self.identity.workspace)))
    }

    /// The session that a request's fields name.
    pub fn session_of<'f>(&self, fields: &'f dyn Fields) -> Option<&'f [u8]> {
        fields.get(self.session?).map(<[u8]>::trim_ascii).filter(|it| !it.is_empty())
    }

    /// What a reply means (the table of ARCHITECTURE.md), from its status, its fields and the front of its body.
    /// The body
    /// is not trusted: cut, coded, HTML or hostile, there is a verdict by status.
    ///
    /// `wall_ms` (Unix time) is needed only for waits given as dates by replies without a `date` field.
    pub fn judge(&self, status: u16, fields: &dyn Fields, body_prefix: &[u8], wall_ms: u64) -> Verdict {
        judge::judge(&self.rules, status, fields, body_prefix, wall_ms)
    }

    /// What a reply's fields say about the limits of its account.
    pub fn observed_limits(&self, fields: &dyn Fields) -> ObservedLimits {
        (self.call.observed_limits)(fields)
    }

    /// What an event of an upstream's stream is. Cheap for content; only events that may carry usage or an error
    /// are read whole.
    pub fn stream_event(&self, event: &EventView<'_>) -> StreamEvent {
        (self.call.stream_event)(&self.rules, event)
    }

    /// Where in an event, of which only the beginning is there, the object begins whose member is [`USAGE`]; for events
    /// that are too large to be held and end a stream.
    pub fn usage_object(&self, opening: &[u8]) -> Option<usize> {
        (self.call.usage_object)(opening)
    }

    /// The usage that a whole reply states.
    pub fn usage_of_reply(&self, body: &[u8]) -> Option<Usage> {
        let usage = (self.call.usage)(reading::member(body, USAGE)?);
        (usage != Usage::default()).then_some(usage)
    }

    /// The one change that the gateway makes to a request's body beside the model's name, where it has to: it asks
    /// for a stream's usage. Where it does, the event marked [`StreamEvent::usage_only`] is taken out of the reply;
    /// what else the option changes stays (other chunks then carry `"usage":null`).
    pub fn body_edit(
        &self,
        operation: &Operation<'_>,
        body: &[u8],
        skim: &Skim<'_>,
    ) -> Option<Edit<'static>> {
        (self.call.body_edit)(operation, body, skim)
    }

    /// Appends the body of an error answer. Its content type is [`CONTENT_TYPE_JSON`].
    pub fn write_error(&self, out: &mut Vec<u8>, fault: &Fault, message: &str, request_id: &str) {
        (self.call.write_error)(out, fault, message, request_id);
    }

    /// What keeps a stream's line alive once there was content. Clients that count events and not bytes wait longer
    /// for an event than for a comment.
    pub fn keep_alive(&self) -> &'static [u8] {
        self.call.keep_alive
    }

    /// Appends a complete event that ends a stream of this family with an error.
    pub fn write_stream_error(
        &self,
        out: &mut Vec<u8>,
        family: Option<Family>,
        fault: &Fault,
        message: &str,
        request_id: &str,
    ) {
        let typed = self.call.typed_error.as_ref();
        let typed = typed.filter(|it| family.is_some_and(|family| it.families.contains(&family)));
        let (opening, write) = match typed {
            Some(typed) => (typed.opening, typed.write),
            None => (self.call.error_event_opening, self.call.write_error),
        };
        out.extend_from_slice(opening.as_bytes());
        write(out, fault, message, request_id);
        out.extend_from_slice(b"\n\n");
    }

    /// Appends a complete event that ends a stream with an upstream's own error answer: its body where that is a
    /// JSON object, with line ends outside of strings (there are none inside) as spaces. Any other body is not
    /// shown to a client that expects events; false then, and nothing is written.
    pub fn wrap_stream_error(&self, out: &mut Vec<u8>, body: &[u8]) -> bool {
        let body = body.trim_ascii();
        if !reading::is_object(body) {
            return false;
        }
        out.extend_from_slice(self.call.error_event_opening.as_bytes());
        out.extend(body.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
        out.extend_from_slice(b"\n\n");
        true
    }

    /// Calls `field` with the name and value of each rate-limit field for a caller with limits of its own.
    pub fn caller_limit_fields(
        &self,
        view: &CallerLimitView,
        wall_ms: u64,
        field: &mut dyn FnMut(&str, &str),
    ) {
        (self.call.caller_limit_fields)(view, wall_ms, field);
    }

    /// Appends the body of a model list.
    pub fn write_models(
        &self,
        out: &mut Vec<u8>,
        models: &mut dyn Iterator<Item = ModelCard<'_>>,
        page: &Page<'_>,
    ) {
        (self.call.write_models)(out, models, page);
    }

    /// Appends the body that describes one model.
    pub fn write_model(&self, out: &mut Vec<u8>, model: ModelCard<'_>) {
        (self.call.write_model)(out, model);
    }

    /// The row of [`Dialect::classes`] that a model falls into.
    pub fn class_of(&self, model: &str) -> Option<&'static ClassRow> {
        self.classes.iter().find(|row| row.patterns.iter().any(|pattern| matches(pattern, model)))
    }
}
