//! Files, batches and stored responses: whose they are. A provider keeps them for an account and knows no callers, so
//! each call that names one is let through only where the table of owners says that it is the caller's; whatever else
//! there is looks as if it were not there. Decides who may name what; how replies are changed for it is
//! `attempts::owned`.

use tidegate_core::admission::{CallerGate, Permit};
use tidegate_core::attempt::{CallShape, Walk};
use tidegate_core::caller::Caller;
use tidegate_core::fault::{Fault, FaultKind};
use tidegate_core::owner::{ObjectKind, ObjectMark, OwnerMark, OwnerTable};
use tidegate_core::quota::Need;
use tidegate_core::route::{Plan, State, plan_of_state};
use tidegate_core::snapshot::ProviderId;
use tidegate_core::usage::Estimate;
use tidegate_core::{Snapshot, limits};
use tidegate_providers::{
    Asked, BodyCheck, BodyRefusal, Cursor, Dialect, ListAsk, Operation, OperationKind, RefusalKind,
};
use tidegate_wire::skim::Skim;

use crate::attempts::{Call, Serving};
use crate::connection::Buffers;
use crate::path::{self, Incoming, Stop};
use crate::plane::Published;
use crate::record::Record;
use crate::relay::Line;
use crate::upstream::{Upload, UploadCheck};
use crate::worker::Worker;

/// Who calls, and what is theirs at the provider that the call goes to.
#[derive(Clone, Copy)]
pub(crate) struct Ownership<'a> {
    table: &'a OwnerTable,
    responses: &'a OwnerTable,
    /// A response whose owner is not known may be named.
    unknown_responses: bool,
    provider: &'a str,
    /// `None`: nobody is kept from anything. There are no virtual keys, or the account is the caller's own.
    owner: Option<OwnerMark>,
}

impl<'a> Ownership<'a> {
    /// Of `caller`, at the account that `plan` leads to.
    pub(crate) fn of(snapshot: &'a Snapshot, plan: &Plan, caller: Option<&Caller>) -> Ownership<'a> {
        let apart = caller.filter(|_| !plan.is_with_own_credential());
        Ownership::at(snapshot, plan.targets()[0].provider, apart)
    }

    /// Of `caller`, at this provider's state account; of nobody who is told from others, if `None`.
    pub(crate) fn at(snapshot: &'a Snapshot, provider: ProviderId, caller: Option<&Caller>) -> Ownership<'a> {
        Ownership {
            table: &snapshot.owners,
            responses: &snapshot.response_owners,
            unknown_responses: snapshot.unknown_responses,
            provider: &snapshot.provider(provider).name,
            owner: caller.map(|it| OwnerMark::of(Some(&it.name))),
        }
    }

    /// Whether the caller may name this stored response.
    fn may_continue(&self, id: &str) -> bool {
        let Some(owner) = self.owner else { return true };
        let known = self.responses.owner_of(ObjectMark::of_response(self.provider, id));
        known.map_or(self.unknown_responses, |it| it == owner)
    }

    /// The caller made this response, which may be stored. Where there is no room its owner stays unknown until the
    /// control plane has forgotten the oldest; how many are known is a metric.
    pub(crate) fn made_response(&self, id: &str) {
        let mark = ObjectMark::of_response(self.provider, id);
        if let Some(owner) = self.owner
            && self.responses.owner_of(mark).is_none()
        {
            let _ = self.responses.insert(mark, owner);
        }
    }

    /// The response is gone.
    pub(crate) fn deleted_response(&self, id: &str) {
        if self.owner.is_some() {
            self.responses.remove(ObjectMark::of_response(self.provider, id));
        }
    }

    /// Whether the caller may name this object.
    pub(crate) fn may(&self, kind: ObjectKind, id: &str) -> bool {
        self.owner.is_none_or(|owner| self.table.owner_of(self.mark(kind, id)) == Some(owner))
    }

    /// The caller made this object. False where it is another's: a provider that takes a request for a repeated one
    /// (by an idempotency key that two callers chose alike) answers with what it made before.
    pub(crate) fn made(&self, kind: ObjectKind, id: &str) -> bool {
        let Some(owner) = self.owner else { return true };
        let mark = self.mark(kind, id);
        if self.table.owner_of(mark).is_some_and(|it| it != owner) {
            return false;
        }
        if self.table.insert(mark, owner).is_err() {
            // Asked for room before it was made; so many others came in between.
            tracing::error!(
                provider = self.provider,
                "no room to note an owner: nobody can ask for the object"
            );
        }
        true
    }

    /// The object is gone.
    pub(crate) fn deleted(&self, kind: ObjectKind, id: &str) {
        if self.owner.is_some() {
            self.table.remove(self.mark(kind, id));
        }
    }

    /// Whether the owner of one more object could be noted.
    fn has_room(&self) -> bool {
        self.owner.is_none() || !self.table.is_full()
    }

    fn mark(&self, kind: ObjectKind, id: &str) -> ObjectMark {
        ObjectMark::of(kind, self.provider, id)
    }
}

/// Whether a call names what has an owner, beside those that are about files and batches alone.
pub(crate) fn names_owned(operation: &Operation<'_>, skim: &Skim<'_>) -> bool {
    operation.kind == OperationKind::Object || !skim.files.is_empty() || skim.previous_response.is_some()
}

/// Refuses a call that names a file or a stored response which its caller does not own.
pub(crate) fn not_owned(
    ownership: &Ownership<'_>,
    operation: &Operation<'_>,
    skim: &Skim<'_>,
) -> Result<(), Stop> {
    if operation.kind == OperationKind::Object && !ownership.may_continue(&operation.id) {
        return Err(no_such(&operation.id));
    }
    if let Some(id) = skim.previous_response.map(|it| it.decoded())
        && !ownership.may_continue(&id)
    {
        return Err(no_such(&id));
    }
    for id in skim.files.iter().map(|it| it.decoded()) {
        if !ownership.may(ObjectKind::File, &id) {
            return Err(no_such(&id));
        }
    }
    Ok(())
}

fn no_such(id: &str) -> Stop {
    Stop::Fault(Fault::never(FaultKind::NoSuchObject), Some(id.to_owned()))
}

/// What a call about objects is, for those who carry it out.
#[derive(Clone, Copy)]
pub(crate) struct ObjectCall<'a> {
    pub(crate) ownership: Ownership<'a>,
    pub(crate) list: ListAsk<'a>,
}

/// What looks at the body that makes an object, and says what it may name.
pub(crate) struct ObjectCheck<'a> {
    check: BodyCheck,
    dialect: &'static Dialect,
    snapshot: &'a Snapshot,
    caller: Option<&'a Caller>,
    ownership: Ownership<'a>,
}

impl ObjectCheck<'_> {
    /// Takes the next piece; an error means that it must not go on.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<(), (Fault, Option<String>)> {
        let (dialect, snapshot, caller, ownership) =
            (self.dialect, self.snapshot, self.caller, self.ownership);
        let mut may = |asked: Asked<'_>| match asked {
            Asked::Endpoint(path) => may_call(dialect, caller, path),
            Asked::File(id) => ownership.may(ObjectKind::File, id),
            Asked::Response(id) => ownership.may_continue(id),
            Asked::Model(name) => {
                caller.is_none_or(|it| it.may_use(name))
                    && (!snapshot.models_only || snapshot.model_named(name).is_some())
            }
        };
        self.check.feed(piece, &mut may).map_err(fault_of)
    }

    /// The body ended, and its last piece is not out yet.
    pub(crate) fn finish(&self) -> Result<(), (Fault, Option<String>)> {
        self.check.finish().map_err(fault_of)
    }
}

/// Whether the caller could make this call by itself.
fn may_call(dialect: &'static Dialect, caller: Option<&Caller>, path: &str) -> bool {
    dialect
        .operation("POST", path)
        .is_ok_and(|it| it.kind.generates() && caller.is_none_or(|caller| caller.may(it.family)))
}

fn fault_of(refusal: BodyRefusal) -> (Fault, Option<String>) {
    let kind = match refusal.kind {
        RefusalKind::Malformed => FaultKind::MalformedBody,
        RefusalKind::Endpoint => FaultKind::OperationNotAllowed,
        RefusalKind::File | RefusalKind::Response => FaultKind::NoSuchObject,
        RefusalKind::Model => FaultKind::NoSuchModel,
    };
    (Fault::never(kind), Some(refusal.text))
}

/// Bytes that the body of an operation may have.
pub(crate) fn body_bytes_max(operation: &Operation<'_>) -> u64 {
    match (operation.kind, operation.object_kind()) {
        (OperationKind::Form, _) => limits::FORM_BYTES_MAX,
        (OperationKind::ObjectCreate, ObjectKind::File) => limits::FILE_BYTES_MAX,
        (OperationKind::ObjectCreate, ObjectKind::Batch) => limits::BATCH_BYTES_MAX,
        _ => limits::BODY_BYTES_MAX as u64,
    }
}

/// A call about files or batches, from its head on.
pub(crate) struct ObjectServing<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) published: &'a Published,
    pub(crate) operation: &'a Operation<'a>,
    pub(crate) caller: Option<&'a Caller>,
    pub(crate) own_credential: bool,
}

impl ObjectServing<'_> {
    /// Carries the call out.
    pub(crate) async fn serve(
        &self,
        incoming: &mut Incoming<'_>,
        line: &mut Line<'_>,
        record: &mut Record,
        body: &mut Vec<u8>,
        buffers: &mut Buffers,
    ) -> Result<(), Stop> {
        let snapshot = &*self.published.snapshot;
        let (operation, caller, dialect, head) =
            (self.operation, self.caller, incoming.dialect, incoming.head);
        let plan = plan_of_state(snapshot, dialect.id, self.own_credential)?;
        let ownership = Ownership::of(snapshot, &plan, caller);
        self.look_up(&ownership)?;
        let object = ObjectCall { ownership, list: dialect.list_ask(operation.family, head.query()) };
        let check = self.check(incoming, ownership)?;
        let mut permit = Some(path::reserve(self.worker, caller, Estimate::default())?);
        let deadline = self.worker.now() + limits::BODY_TIMEOUT;
        if check.is_some() {
            path::begin_body(incoming, line).await?;
        } else {
            let lease = path::collect_body(self.worker, incoming, line, record, body, None).await?;
            buffers.lease = Some(lease);
        }
        let Incoming { conn, source, reader, .. } = incoming;
        let mut upload = check.map(|it| Upload {
            conn,
            source,
            reader,
            check: UploadCheck::Object(Box::new(it)),
            deadline,
        });
        let body: &[u8] = body;
        let mut cursor: Option<Cursor> = None;
        for _ in 0..limits::OBJECT_PAGES_MAX {
            let query = cursor.take().map(|it| object.list.query_at(&it));
            let call = Call {
                dialect,
                operation,
                head,
                query: query.as_deref().or(head.query()),
                body,
                skim: &Skim::default(),
                asked: "",
                model_span: 0..0,
                state: State::Asked,
                object: Some(object),
                caller,
            };
            // Further pages are the gateway's own wish: the caller made one request.
            let permit = permit.take().unwrap_or_else(unlimited);
            let serving =
                Serving::new(self.worker, self.published, &call, record, buffers, permit, upload.take());
            cursor = serving.run(line, self.walk(plan)).await?;
            if cursor.is_none() {
                return Ok(());
            }
        }
        let text = "its first pages hold nothing of yours; ask for larger ones, or keep the ids".to_owned();
        Err(Stop::Fault(Fault::never(FaultKind::ListUnusable), Some(text)))
    }

    /// Whether the caller may do this at all; nothing was asked of the provider yet.
    fn look_up(&self, ownership: &Ownership<'_>) -> Result<(), Stop> {
        let operation = self.operation;
        match operation.kind {
            OperationKind::ObjectCreate if !ownership.has_room() => {
                Err(Fault::never(FaultKind::ObjectsFull).into())
            }
            OperationKind::ObjectCreate | OperationKind::ObjectList => Ok(()),
            _ if ownership.may(operation.object_kind(), &operation.id) => Ok(()),
            _ => Err(no_such(&operation.id)),
        }
    }

    /// What looks at the body, where it makes something; an error where it cannot be what it has to be.
    fn check<'s>(
        &'s self,
        incoming: &Incoming<'_>,
        ownership: Ownership<'s>,
    ) -> Result<Option<ObjectCheck<'s>>, Stop> {
        if self.operation.kind != OperationKind::ObjectCreate {
            return Ok(None);
        }
        let Incoming { dialect, head, .. } = *incoming;
        let check = dialect.body_check(self.operation, head.field("content-type")).map_err(|refusal| {
            let (fault, text) = fault_of(refusal);
            Stop::Fault(fault, text)
        })?;
        let snapshot = &*self.published.snapshot;
        Ok(Some(ObjectCheck { check, dialect, snapshot, caller: self.caller, ownership }))
    }

    /// Sent once at most; what comes back says something about the account's files and batches, which share nothing
    /// with its models' quotas.
    fn walk(&self, plan: Plan) -> Walk {
        let shape = CallShape { streamed: false, pinned: true, counts_health: true };
        let need = Need { requests: 1, input_tokens: 0, output_tokens: 0 };
        Walk::new(plan, need, None, shape, self.worker.now())
    }
}

fn unlimited() -> Permit {
    CallerGate::unlimited()
}
