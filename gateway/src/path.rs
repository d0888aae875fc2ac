//! The life of one request, top to bottom. Each step is a call into a named module; any step may end in a fault,
//! and every fault ends in `answer`.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tidegate_core::access::Excerpt;
use tidegate_core::admission::{Admit, CallerGate, Permit};
use tidegate_core::attempt::{CallShape, Walk};
use tidegate_core::caller::{Caller, Presenter};
use tidegate_core::choose::Affinity;
use tidegate_core::fault::{Fault, FaultKind};
use tidegate_core::quota::Need;
use tidegate_core::report::CallEnd;
use tidegate_core::route::{Ask, Plan, State, plan as plan_targets, plan_of_state};
use tidegate_core::snapshot::CallerId;
use tidegate_core::usage::Estimate;
use tidegate_core::{Snapshot, limits};
use tidegate_providers::{
    Dialect, Fields, GATEWAY_KEY, Operation, OperationKind, RouteMiss, brings_credential,
    presented_credentials,
};
use tidegate_ring::Conn;
use tidegate_wire::body::BodyReader;
use tidegate_wire::form::{self, FormSearch};
use tidegate_wire::head::{Refusal, RequestHead};
use tidegate_wire::skim::{Skim, SkimLimits, skim};

use crate::attempts::{Call, Serving};
use crate::connection::{After, Buffers, Slot, drain_body};
use crate::heads::{CallerLimits, RequestFields};
use crate::inbound::Source;
use crate::ingress::Client;
use crate::objects::{ObjectServing, Ownership};
use crate::plane::Published;
use crate::record::{OpenRecord, Record};
use crate::relay::{Interrupted, Line, Sent};
use crate::upstream::{Upload, UploadCheck};
use crate::worker::Worker;
use crate::{answer, body, listing, objects};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why a call ended before its proper end.
pub(crate) enum Stop {
    /// The gateway answers with this fault.
    Fault(Fault, Option<String>),
    /// There is nobody to answer, or the shutdown's grace is over.
    Interrupted(Interrupted),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault, None)
    }
}

impl From<Interrupted> for Stop {
    fn from(interrupted: Interrupted) -> Stop {
        Stop::Interrupted(interrupted)
    }
}

/// A request whose head was parsed, and where the rest of it comes from.
pub(crate) struct Incoming<'s> {
    pub(crate) dialect: &'static Dialect,
    pub(crate) head: &'s RequestHead,
    pub(crate) conn: &'s Conn,
    pub(crate) source: &'s mut Source,
    pub(crate) reader: &'s mut BodyReader,
    /// The caller waits for permission to send its body.
    pub(crate) awaits_continue: bool,
}

/// Serves the request whose head is in `slot`.
pub(crate) async fn serve(worker: &Worker, slot: &mut Slot) -> After {
    let published = worker.published();
    let Slot { conn, client, source, head, body, buffers } = slot;
    let (client, head): (&Client, &RequestHead) = (client, head);
    let (dialect, path) = tidegate_providers::of_request(head.path(), has_version_field(head));
    let sent = Sent::default();
    let mut open = OpenRecord::begin(worker, &published, dialect, client, Some(head), &sent);
    open.record.bytes_in = source.consumed_bytes();
    let mut line = Line::new(worker, conn, &sent, head);
    let operation = dialect.operation(head.method(), path);
    let body_bytes_max = operation.as_ref().map_or(limits::BODY_BYTES_MAX as u64, objects::body_bytes_max);
    let mut reader = match BodyReader::new(head.framing(), body_bytes_max) {
        Ok(reader) => reader,
        Err(error) => {
            line.keep_alive = false;
            let stop = Stop::Fault(body::fault_of(error), None);
            conclude(&mut line, dialect, &mut open.record, stop, &published).await;
            return After::Close;
        }
    };
    let awaits_continue = head.expects_continue();
    let mut incoming = Incoming { dialect, head, conn, source, reader: &mut reader, awaits_continue };
    let served =
        steps(worker, &published, &mut incoming, operation, &mut line, &mut open.record, body, buffers).await;
    let awaits_continue = incoming.awaits_continue;
    open.record.bytes_in = source.consumed_bytes();
    if let Err(stop) = served {
        // What is left of the body stands between this answer and the next request.
        line.keep_alive &= !awaits_continue && reader.remaining_length().is_none_or(fits_linger);
        conclude(&mut line, dialect, &mut open.record, stop, &published).await;
    }
    drop(open);
    if sent.is_cut() {
        return After::Abort;
    }
    if line.keep_alive && drain_body(conn, source, &mut reader).await.is_ok() {
        After::KeepAlive
    } else {
        After::Close
    }
}

fn fits_linger(rest: u64) -> bool {
    rest <= limits::LINGER_BYTES_MAX as u64
}

/// Any dialect's version field: it names the dialect where the path does not.
fn has_version_field(head: &RequestHead) -> bool {
    let names = tidegate_providers::ALL.iter().filter_map(|it| it.version_field());
    names.into_iter().any(|(name, _)| head.field(name).is_some())
}

#[expect(clippy::too_many_arguments, reason = "the parts of a slot, borrowed apart")]
async fn steps(
    worker: &Worker,
    published: &Published,
    incoming: &mut Incoming<'_>,
    operation: Result<Operation<'_>, RouteMiss>,
    line: &mut Line<'_>,
    record: &mut Record,
    body: &mut Vec<u8>,
    buffers: &mut Buffers,
) -> Result<(), Stop> {
    let snapshot = &*published.snapshot;
    let (dialect, head) = (incoming.dialect, incoming.head);
    let operation = operation.map_err(|_| Stop::Fault(Fault::never(FaultKind::NoSuchOperation), None))?;
    if operation.kind == OperationKind::Root {
        line.keep_alive &= !incoming.awaits_continue;
        return listing::root(line, record).await;
    }
    record.operation = Some(operation.family);
    record.caller = identify(worker, snapshot, record, head)?;
    let caller = record.caller.map(|id| snapshot.callers.caller(id));
    if caller.is_some_and(|it| !it.may(operation.family)) {
        let name = operation.family.name().to_owned();
        return Err(Stop::Fault(Fault::never(FaultKind::OperationNotAllowed), Some(name)));
    }
    if let OperationKind::ListModels | OperationKind::GetModel = operation.kind {
        // A body that nobody will ask for may or may not come.
        line.keep_alive &= !incoming.awaits_continue;
        return listing::models(line, record, snapshot, dialect, &operation, head).await;
    }
    // A hop that passes over such a body would take it for a request of its own.
    if head.method() != "POST" && !incoming.reader.ended() {
        return Err(malformed("a request of this method has no body".to_owned()));
    }
    if operation.kind.is_owned() {
        let own_credential = own_credential(snapshot, head);
        let operation = &operation;
        let serving = ObjectServing { worker, published, operation, caller, own_credential };
        // Rare: not a part of every connection's task.
        return Box::pin(serving.serve(incoming, line, record, body, buffers)).await;
    }
    let deadline = worker.now() + limits::BODY_TIMEOUT;
    let mut form = form_of(&operation, head)?;
    buffers.lease = Some(collect_body(worker, incoming, line, record, body, form.as_mut()).await?);
    record.bytes_in = incoming.source.consumed_bytes();
    let body: &[u8] = body;
    provoke(worker, body);
    let skim = skimmed(&operation, body)?;
    let (asked, model_span) = match form.as_ref().map(FormSearch::found) {
        None => (skim.model.map(|it| it.decoded()).unwrap_or_default(), skim.model_span.clone()),
        Some(Some((model, span))) => (Cow::Owned(model.to_owned()), span),
        Some(None) => return Err(no_model()),
    };
    let state = dialect.state(&operation, &skim);
    record.model = Excerpt::of(&asked);
    let streamed = operation.kind == OperationKind::Generate && skim.stream == Some(true);
    record.streamed = streamed;
    let Incoming { conn, source, reader, .. } = incoming;
    let check = form.filter(|_| !reader.ended()).map(UploadCheck::Form);
    let upload = check.map(|check| Upload { conn, source, reader, check, deadline });
    let (operation, skim, asked) = (&operation, &skim, &*asked);
    let query = head.query();
    let call =
        Call { dialect, operation, head, query, body, skim, asked, model_span, state, object: None, caller };
    let (walk, permit) = admit(worker, published, &call, record, upload.is_some())?;
    if streamed {
        line.expect_stream(dialect);
    }
    Serving::new(worker, published, &call, record, buffers, permit, upload).run(line, walk).await.map(drop)
}

/// Whose call it is; nobody's where there are no virtual keys.
fn identify(
    worker: &Worker,
    snapshot: &Snapshot,
    record: &Record,
    head: &RequestHead,
) -> Result<Option<CallerId>, Fault> {
    let guesses = &*snapshot.guesses;
    let by = Presenter { guesses, source: guesses.mark(record.source), now: worker.now() };
    let caught = guesses.caught();
    let identified = snapshot.callers.identify(presented_credentials(&RequestFields(head)), &by);
    if identified.is_err() && guesses.caught() > caught {
        tracing::warn!(
            source = record.source.map(tracing::field::display),
            "many different wrong keys came from there: none that is new there is taken for the rest of this minute. \
             If it is a proxy of yours, name it in `trusted_proxies`"
        );
    }
    identified
}

/// Where the call may go, and the permission to go there.
fn admit(
    worker: &Worker,
    published: &Published,
    call: &Call<'_>,
    record: &Record,
    passes_on: bool,
) -> Result<(Walk, Permit), Stop> {
    let Call { dialect, operation, head, body, skim, asked, state, caller, .. } = *call;
    let snapshot = &*published.snapshot;
    let counts = operation.kind.generates();
    let own_credential = own_credential(snapshot, head);
    let plan = if operation.kind == OperationKind::Object {
        plan_of_state(snapshot, dialect.id, own_credential)?
    } else {
        let ask = Ask { model: asked, dialect: dialect.id, caller: record.caller, state, own_credential };
        plan_targets(snapshot, &ask).map_err(|fault| Stop::Fault(fault, Some(asked.to_owned())))?
    };
    if objects::names_owned(operation, skim) {
        objects::not_owned(&Ownership::of(snapshot, &plan, caller), operation, skim)?;
    }
    // The bytes of files say nothing about tokens.
    let text_bytes = if operation.kind == OperationKind::Form { 0 } else { body.len() as u64 };
    let estimate = if counts { estimate(published, &plan, text_bytes, skim) } else { Estimate::default() };
    let permit = reserve(worker, caller, estimate)?;
    let pinned = state == State::Asked || passes_on;
    let shape = CallShape { streamed: record.streamed, pinned, counts_health: counts };
    let walk = Walk::new(plan, need(estimate), affinity(dialect, head, skim, body), shape, worker.now());
    Ok((walk, permit))
}

/// Whether the call brings a provider's credential of its own.
fn own_credential(snapshot: &Snapshot, head: &RequestHead) -> bool {
    let fields = RequestFields(head);
    let is_own = snapshot.callers.is_open() || fields.get(GATEWAY_KEY).is_some();
    is_own && brings_credential(&fields)
}

/// What the body says; nothing where the operation is all in its path.
fn skimmed<'b>(operation: &Operation<'_>, body: &'b [u8]) -> Result<Skim<'b>, Stop> {
    if matches!(operation.kind, OperationKind::Form | OperationKind::Object) {
        return Ok(Skim::default());
    }
    let skim =
        skim(body, SkimLimits { depth_max: limits::JSON_DEPTH_MAX, files_max: limits::FILES_NAMED_MAX })
            .map_err(|error| malformed(error.to_string()))?;
    if skim.model.is_none() { Err(no_model()) } else { Ok(skim) }
}

fn malformed(why: String) -> Stop {
    Stop::Fault(Fault::never(FaultKind::MalformedBody), Some(why))
}

fn no_model() -> Stop {
    malformed("`model` is missing".to_owned())
}

/// What looks for the model in a form, where the operation takes one.
fn form_of(operation: &Operation<'_>, head: &RequestHead) -> Result<Option<FormSearch>, Stop> {
    if operation.kind != OperationKind::Form {
        return Ok(None);
    }
    let boundary = head.field("content-type").and_then(form::boundary);
    let boundary = boundary.ok_or_else(|| malformed("it has to be `multipart/form-data`".to_owned()))?;
    Ok(Some(FormSearch::new(boundary, "model", limits::MODEL_NAME_BYTES_MAX)))
}

/// Refuses a coded body, and permits the caller to send it where it asks for that.
pub(crate) async fn begin_body(incoming: &mut Incoming<'_>, line: &mut Line<'_>) -> Result<(), Stop> {
    let coding = incoming.head.field("content-encoding").map(<[u8]>::trim_ascii);
    if coding.is_some_and(|it| !it.is_empty() && !it.eq_ignore_ascii_case(b"identity")) {
        return Err(Fault::never(FaultKind::CodedBody).into());
    }
    // Readers differ about which of two counts, and so about what the body says: two boundaries are two forms.
    if incoming.head.fields().filter(|it| it.0.eq_ignore_ascii_case("content-type")).count() > 1 {
        return Err(malformed("there is more than one `content-type`".to_owned()));
    }
    if incoming.head.field("content-type").is_some_and(body::is_in_another_charset) {
        return Err(malformed("the charset of the body has to be UTF-8".to_owned()));
    }
    if incoming.awaits_continue && incoming.source.is_empty() {
        line.send(&[CONTINUE]).await?;
    }
    incoming.awaits_continue = false;
    Ok(())
}

/// Collects the body, after the permission to send it where the caller asks for one.
pub(crate) async fn collect_body(
    worker: &Worker,
    incoming: &mut Incoming<'_>,
    line: &mut Line<'_>,
    record: &mut Record,
    into: &mut Vec<u8>,
    mut form: Option<&mut FormSearch>,
) -> Result<body::BodyLease, Stop> {
    record.overhead.pause();
    begin_body(incoming, line).await?;
    let memory = &worker.plane.body_memory;
    let enough = |piece: &[u8], collected: usize| {
        let Some(form) = form.as_mut() else { return Ok(false) };
        form.feed(piece).map_err(|error| malformed(error.to_string()))?;
        Ok(form.found().is_some() && collected >= limits::FORM_HELD_BYTES)
    };
    let mut collecting =
        pin!(body::collect(memory, incoming.conn, incoming.source, incoming.reader, into, enough));
    let collected = poll_fn(|cx| match collecting.as_mut().poll(cx) {
        Poll::Ready(collected) => Poll::Ready(collected),
        Poll::Pending if worker.is_cutting(false) => Poll::Ready(Err(Interrupted::ShuttingDown.into())),
        Poll::Pending => Poll::Pending,
    })
    .await;
    record.overhead.resume();
    collected
}

fn estimate(published: &Published, plan: &Plan, body_bytes: u64, skim: &Skim<'_>) -> Estimate {
    let first = &plan.targets()[0];
    let class = &published.snapshot.provider(first.provider).classes[first.class.index()];
    class.estimate.estimate(body_bytes, skim.max_tokens)
}

fn need(estimate: Estimate) -> Need {
    Need { requests: 1, input_tokens: estimate.input_tokens, output_tokens: estimate.output_tokens }
}

pub(crate) fn reserve(worker: &Worker, caller: Option<&Caller>, estimate: Estimate) -> Result<Permit, Fault> {
    let now = worker.now();
    let gate = caller.map_or(CallerGate::Open, |it| CallerGate::Caller(&it.cells));
    match gate.reserve(estimate, now) {
        Admit::Granted(permit) => Ok(permit),
        Admit::Later { at, limit } => Err(Fault::later(limit, at.since(now))),
    }
}

/// What ties the call to an account: its session, else a prefix long enough to be cached.
fn affinity(dialect: &'static Dialect, head: &RequestHead, skim: &Skim<'_>, body: &[u8]) -> Option<Affinity> {
    if let Some(session) = dialect.session_of(&RequestFields(head)) {
        return Some(Affinity::of(session));
    }
    if let Some(session) = skim.session {
        return Some(Affinity::of(session.raw().as_bytes()));
    }
    if skim.pins.any() {
        // What a call continues has another prefix than the call itself.
        return None;
    }
    let prefix = skim.prefix.clone().filter(|it| it.len() >= limits::PREFIX_BYTES_MIN)?;
    body.get(prefix).map(Affinity::of)
}

/// Tests of the fault boundaries mark a request; no configuration can turn this on. What stands behind the mark says
/// which fault it is.
fn provoke(worker: &Worker, body: &[u8]) {
    let Some(mark) = worker.plane.options().danger_panic_mark else { return };
    let Some(at) = body.windows(mark.len()).position(|it| it == mark.as_bytes()) else { return };
    let behind = &body[at + mark.len()..];
    if behind.starts_with(b"-loop") {
        worker.danger_doom();
    } else if behind.starts_with(b"-stall") {
        block(limits::STALL_AFTER + limits::BEAT_INTERVAL * 3);
    } else {
        panic!("a request carries the panic mark");
    }
}

#[expect(clippy::disallowed_methods, reason = "the fault that a marked request asks for is a blocked worker")]
fn block(span: std::time::Duration) {
    std::thread::sleep(span);
}

/// Answers what stopped a call, where there is somebody to answer.
async fn conclude(
    line: &mut Line<'_>,
    dialect: &'static Dialect,
    record: &mut Record,
    stop: Stop,
    published: &Published,
) {
    record.overhead.resume();
    let (fault, detail) = match stop {
        Stop::Fault(fault, detail) => (fault, detail),
        Stop::Interrupted(Interrupted::ShuttingDown) => (Fault::new(FaultKind::ShuttingDown), None),
        Stop::Interrupted(Interrupted::CallerGone) => {
            line.keep_alive = false;
            record.ended(CallEnd::CallerGone);
            return;
        }
    };
    record.ended(CallEnd::Fault(fault.kind));
    if matches!(fault.kind, FaultKind::BodyTooLarge | FaultKind::BodyTooSlow | FaultKind::Malformed) {
        line.keep_alive = false;
    }
    let caller = record.caller.map(|id| published.snapshot.callers.caller(id));
    let limits = CallerLimits::of(dialect, caller);
    if answer::answer(line, dialect, record, fault, detail.as_deref(), limits).await.is_err() {
        line.keep_alive = false;
    }
}

/// Answers a head that is not acceptable; the connection ends with it, since nobody can tell where the next
/// message would begin.
pub(crate) async fn refuse_head(worker: &Worker, slot: &mut Slot, refusal: Refusal) {
    let (dialect, _) = tidegate_providers::of_request("/", false);
    let sent = Sent::default();
    let published = worker.published();
    let mut open = OpenRecord::begin(worker, &published, dialect, &slot.client, None, &sent);
    open.record.bytes_in = slot.source.bytes().len() as u64;
    let mut line = Line::closing(worker, &slot.conn, &sent);
    open.record.ended(CallEnd::Fault(FaultKind::Malformed));
    // A caller who is gone needs no answer.
    let _ = answer::refuse_head(&mut line, dialect, &mut open.record, refusal).await;
}
