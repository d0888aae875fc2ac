//! What replies about files, batches and stored responses say of their owners, and how lists are cut to what is the
//! caller's. The object is the caller's before the caller hears of it; a reply that cannot be read is not shown.

use tidegate_core::Family;
use tidegate_core::attempt::Exchange;
use tidegate_core::fault::{Fault, FaultKind};
use tidegate_core::limits;
use tidegate_core::owner::ObjectKind;
use tidegate_providers::OperationKind;
use tidegate_wire::head::ResponseHead;

use super::{Serving, Tried};
use crate::body::BodyLease;
use crate::objects::{ObjectCall, Ownership};
use crate::relay::{Collected, Interrupted, Line};
use crate::upstream::{Data, Reply};

impl Serving<'_, '_> {
    /// Whether the call is about something that belongs to whoever made it.
    pub(super) fn is_owned(&self) -> bool {
        self.call.operation.kind.is_owned()
    }

    /// Takes in what a good reply says of owners, and changes in `held` what the caller must not be told. False where
    /// the reply is about what another has: it must not be shown.
    pub(super) fn note_owned(&self, held: &mut Vec<u8>, collected: Collected) -> bool {
        let Some(ObjectCall { ownership, .. }) = &self.call.object else { return true };
        let (operation, dialect) = (self.call.operation, self.call.dialect);
        let kind = operation.object_kind();
        match operation.kind {
            OperationKind::ObjectDelete => {
                ownership.deleted(kind, &operation.id);
                return true;
            }
            OperationKind::ObjectCreate => match dialect.object_id(held) {
                Some(id) if !ownership.made(kind, &id) => return false,
                Some(_) => {}
                None => tracing::error!("a provider made something without an id: nobody can ask for it"),
            },
            OperationKind::ObjectDescribe => {}
            _ => return true,
        }
        self.note_linked(held);
        if collected == Collected::Complete && dialect.rewrites_objects() {
            let mut told = Vec::with_capacity(held.len());
            dialect.write_object(&mut told, held);
            *held = told;
        }
        true
    }

    /// What is the caller's of the responses that the provider of the running try keeps; `None` where the call leaves
    /// none there, or nobody is told from another. Elsewhere than at the state account nobody can find it again.
    fn responses(&self) -> Option<Ownership<'_>> {
        let (operation, exchange) = (self.call.operation, self.exchange.as_ref()?);
        let snapshot = &*self.published.snapshot;
        let caller = self.call.caller.filter(|_| !snapshot.account(exchange.account).of_callers)?;
        let keeps = snapshot.provider(exchange.provider).state_account.id() == Some(exchange.account);
        let is_response = matches!(operation.family, Family::Responses | Family::StoredResponses);
        let stores = operation.kind == OperationKind::Object || self.call.skim.store != Some(false);
        (keeps && is_response && stores).then(|| Ownership::at(snapshot, exchange.provider, Some(caller)))
    }

    /// Notes whose the response in a good whole reply is, or that it is gone.
    pub(super) fn note_response(&self, held: &[u8]) {
        let Some(ownership) = self.responses() else { return };
        let operation = self.call.operation;
        if operation.kind == OperationKind::Generate {
            if let Some(id) = self.call.dialect.object_id(held) {
                ownership.made_response(&id);
            }
        } else if self.call.head.method() == "DELETE" {
            ownership.deleted_response(&operation.id);
        }
    }

    /// Notes whose the response is that a stream is about, before the caller hears of it.
    pub(crate) fn note_streamed_response(&self, opening: &[u8]) {
        if self.call.operation.kind == OperationKind::Generate
            && let Some(ownership) = self.responses()
            && let Some(id) = self.call.dialect.response_id(opening)
        {
            ownership.made_response(&id);
        }
    }

    /// Files that a batch has made are its owner's.
    fn note_linked(&self, object: &[u8]) {
        if let Some(ObjectCall { ownership, .. }) = &self.call.object
            && self.call.operation.object_kind() == ObjectKind::Batch
        {
            let mut note = |id: &str| {
                ownership.made(ObjectKind::File, id);
            };
            self.call.dialect.linked_files(object, &mut note);
        }
    }

    /// The provider does not know what the caller wants to be gone: it is.
    pub(super) fn note_missing(&self, status: u16) {
        if let Some(ObjectCall { ownership, .. }) = &self.call.object
            && status == 404
            && self.call.operation.kind == OperationKind::ObjectDelete
        {
            ownership.deleted(self.call.operation.object_kind(), &self.call.operation.id);
        }
    }

    /// Sends what is the caller's of a page, of which `held` was collected. A page without anything of it is not sent
    /// where the list goes on: clients take an empty page for the last one.
    pub(super) async fn send_list(
        &mut self,
        line: &mut Line<'_>,
        mut reply: Reply,
        head: &ResponseHead,
        held: &mut Vec<u8>,
        collected: Collected,
    ) -> Result<Tried, Interrupted> {
        let mut lease = BodyLease::new(&self.worker.plane.body_memory);
        let unusable =
            |detail: &str| Tried::Refused(Fault::new(FaultKind::ListUnusable), Some(detail.to_owned()));
        if collected == Collected::Partial
            && let Err(detail) = self.collect_list(line, &mut reply, held, &mut lease).await?
        {
            self.exchange = None;
            return Ok(match detail {
                Some(detail) => unusable(detail),
                None => Tried::Refused(
                    Fault::later(FaultKind::Overloaded, std::time::Duration::from_secs(1)),
                    None,
                ),
            });
        }
        let Some(ObjectCall { ownership, list }) = self.call.object else { return Ok(Tried::Answered) };
        let (kind, dialect) = (self.call.operation.object_kind(), self.call.dialect);
        let mut page = Vec::new();
        let mut keep = |id: &str, entry: &[u8]| {
            let is_own = ownership.may(kind, id);
            if is_own {
                self.note_linked(entry);
            }
            is_own
        };
        let Some(seen) = dialect.filter_list(&list, held, &mut keep, &mut page) else {
            self.exchange = None;
            return Ok(unusable("it cannot be read"));
        };
        if seen.kept == 0 && seen.next.is_some() {
            self.next_page = seen.next;
            self.content_began(head.status());
            if let Some(exchange) = self.exchange.take() {
                self.finish_quietly(exchange);
            }
            self.put_back(reply);
            return Ok(Tried::Answered);
        }
        self.send_good(line, reply, head, &page, Collected::Complete).await.map(|()| Tried::Answered)
    }

    /// Reads on beyond what any reply may hold, out of body memory. The error says why not; `None` is want of memory.
    async fn collect_list(
        &mut self,
        line: &mut Line<'_>,
        reply: &mut Reply,
        held: &mut Vec<u8>,
        lease: &mut BodyLease,
    ) -> Result<Result<(), Option<&'static str>>, Interrupted> {
        loop {
            // The page as it came, and as it goes.
            if !lease.cover(2 * held.capacity()) {
                return Ok(Err(None));
            }
            match line.hold(self.record, reply.next(|data| held.extend_from_slice(data))).await? {
                Ok(Data::End) => return Ok(Ok(())),
                Ok(Data::Some) if held.len() > limits::OBJECT_LIST_BYTES_MAX => {
                    return Ok(Err(Some("a page of it is too large; ask for a smaller one")));
                }
                Ok(Data::Some) => {}
                Err(_) => return Ok(Err(Some("it broke off"))),
            }
        }
    }

    fn finish_quietly(&mut self, exchange: Exchange) {
        exchange.finish(tidegate_core::Usage::default(), self.worker.now());
    }
}
