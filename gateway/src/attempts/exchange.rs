//! One try at one upstream: connection, request, reply head. Decides when a request may be sent a second time on
//! a fresh connection: only if the first one was kept from an earlier call and no reply began on it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tidegate_core::attempt::{Closing, Deadlines, Exchange};
use tidegate_core::report::{OrganizationReport, Report};
use tidegate_core::route::State;
use tidegate_core::verdict::{TargetFailure, Verdict};
use tidegate_core::{Fault, FaultKind};
use tidegate_providers::{Fields, OperationKind};
use tidegate_wire::body::{CHUNK_END, chunk_prefix};
use tidegate_wire::head::ResponseHead;
use tidegate_wire::json;
use tidegate_wire::splice::{Edit, splice};
use zeroize::Zeroize;

use super::{Failed, Serving, Tried};
use crate::heads::{self, ReplyFields, RequestParts};
use crate::relay::{Interrupted, Line};
use crate::upstream::{self, Reply, ReplyFailure, Uploaded, Upstream};

/// A request's head, and its body in pieces around what the gateway changes.
const SLICES_MAX: usize = 8;

/// What came of a request.
#[expect(
    clippy::large_enum_variant,
    reason = "made once per try and taken apart at once; a box would allocate"
)]
enum Replied {
    /// The head of a reply.
    Reply(Reply),
    /// None, and what its absence means.
    Failed(Verdict),
    /// None, and the way is closed by now on which it would be asked for again.
    Closed(Closing),
    /// The caller sent what must not go on.
    Refused(Fault, Option<String>),
}

impl Serving<'_, '_> {
    /// Sends the call to the upstream of `exchange` and carries its reply to the caller.
    pub(super) async fn try_once(
        &mut self,
        line: &mut Line<'_>,
        exchange: Exchange,
    ) -> Result<Tried, Interrupted> {
        let mut head = std::mem::take(&mut self.buffers.reply_head);
        head.clear();
        let tried = self.send(line, exchange, &mut head).await;
        self.buffers.reply_head = head;
        tried
    }

    async fn send(
        &mut self,
        line: &mut Line<'_>,
        mut exchange: Exchange,
        head: &mut ResponseHead,
    ) -> Result<Tried, Interrupted> {
        let mut name = Vec::new();
        let usage_edit = self.call.dialect.body_edit(self.call.operation, self.call.body, self.call.skim);
        let takes_usage_out = usage_edit.is_some();
        let model_edit = exchange.target.name.is_spliced().then(|| {
            match self.call.operation.kind {
                OperationKind::Form => name.extend_from_slice(self.model.as_bytes()),
                _ => json::write_str(&mut name, self.model),
            }
            Edit { span: self.call.model_span.clone(), with: &name }
        });
        let (edits, count) = in_order(model_edit, usage_edit);
        let body = splice(self.call.body, &edits[..count]);
        let collected = body.total_bytes() as u64;
        let body_bytes = match &self.upload {
            None => Some(collected),
            Some(upload) => upload.remaining_length().map(|rest| collected + rest),
        };
        if !self.write_request_head(&exchange, body_bytes) {
            return Ok(failed(exchange, Verdict::KeyRefused));
        }
        let request_head = std::mem::take(&mut self.buffers.request_head);
        let mut slices: [&[u8]; SLICES_MAX] = [b""; SLICES_MAX];
        slices[0] = &request_head;
        let mut used = 1;
        let mut prefix = [0; 18];
        // An empty chunk would be the last one.
        let in_chunk = body_bytes.is_none() && collected > 0;
        if in_chunk {
            slices[used] = chunk_prefix(collected as usize, &mut prefix);
            used += 1;
        }
        for piece in body {
            slices[used] = piece;
            used += 1;
        }
        if in_chunk {
            slices[used] = CHUNK_END;
            used += 1;
        }
        let replied = self.exchange(line, &mut exchange, &slices[..used], head).await;
        // An idle connection must not keep a provider's credential.
        self.buffers.request_head = request_head;
        self.buffers.request_head.zeroize();
        match replied? {
            Replied::Reply(reply) => self.handle_reply(line, exchange, reply, head, takes_usage_out).await,
            Replied::Failed(verdict) => Ok(failed(exchange, verdict)),
            Replied::Closed(closing) => Ok(Tried::Withdrawn(Box::new(exchange), closing)),
            Replied::Refused(fault, detail) => Ok(Tried::Refused(fault, detail)),
        }
    }

    /// False where the configured credential cannot stand in a field.
    fn write_request_head(&mut self, exchange: &Exchange, body_bytes: Option<u64>) -> bool {
        let snapshot = &*self.published.snapshot;
        let parts = RequestParts {
            snapshot,
            dialect: self.call.dialect,
            provider: snapshot.provider(exchange.provider),
            key: (!self.with_own_credential(exchange)).then(|| snapshot.key(exchange.key)),
            caller: self.call.caller,
            operation: self.call.operation,
            head: self.call.head,
            query: self.call.query,
            body_bytes,
        };
        heads::write_request(&mut self.buffers.request_head, &mut self.buffers.scratch, &parts).is_ok()
    }

    /// The reply's head, or what its absence means.
    async fn exchange(
        &mut self,
        line: &mut Line<'_>,
        exchange: &mut Exchange,
        slices: &[&[u8]],
        head: &mut ResponseHead,
    ) -> Result<Replied, Interrupted> {
        let snapshot = &*self.published.snapshot;
        let provider = snapshot.provider(exchange.provider);
        let transport = self.published.transports.get(exchange.provider.index()).and_then(Option::as_ref);
        // What one account keeps is never sent twice, not even into a connection that may be dead.
        let mut reuse = self.call.state != State::Asked && self.upload.is_none();
        loop {
            // From now on: a kept connection that died late leaves its successor a whole deadline.
            let connect = self.worker.now() + provider.timeouts.connect;
            let checkout = upstream::checkout(self.worker, provider, transport, reuse, connect);
            let connected = match line.hold(self.record, checkout).await? {
                Ok(connected) => connected,
                Err(failure) => {
                    tracing::debug!(provider = &*provider.name, detail = failure.detail, "no connection");
                    return Ok(Replied::Failed(failure.verdict()));
                }
            };
            let reused = connected.reused;
            exchange.sent(self.worker.now());
            self.permit.sent();
            self.used = true;
            if self.upload.is_some() {
                // Rare, and large: not a part of every connection's task.
                return Box::pin(self.upload(line, connected, slices, head, exchange)).await;
            }
            let deadlines = self.deadlines(exchange);
            // By reference: what is awaited by value is held twice, here and in there.
            let replied = pin!(upstream::request_reply(connected, slices, head, &deadlines));
            match line.hold(self.record, replied).await? {
                Ok(reply) => return Ok(Replied::Reply(reply)),
                Err(ReplyFailure::NeverBegan) if reused => {
                    if let Some(closing) = exchange.closed_meanwhile(snapshot, self.worker.now()) {
                        return Ok(Replied::Closed(closing));
                    }
                    reuse = false;
                }
                Err(failure) => {
                    return Ok(Replied::Failed(Verdict::TargetFailed(failure.target_failure())));
                }
            }
        }
    }

    /// Passes on what the caller still sends, and reads the head of the reply.
    async fn upload(
        &mut self,
        line: &mut Line<'_>,
        mut connected: Upstream,
        slices: &[&[u8]],
        head: &mut ResponseHead,
        exchange: &Exchange,
    ) -> Result<Replied, Interrupted> {
        let snapshot = &*self.published.snapshot;
        let stall = snapshot.provider(exchange.provider).timeouts.idle;
        let Some(mut upload) = self.upload.take() else { return Err(Interrupted::CallerGone) };
        self.record.overhead.pause();
        let worker = self.worker;
        let uploaded = {
            let mut passing = pin!(upstream::pass_on(&mut connected, slices, &mut upload, stall));
            poll_fn(|cx| match passing.as_mut().poll(cx) {
                Poll::Ready(uploaded) => Poll::Ready(Ok(uploaded)),
                Poll::Pending if worker.is_cutting(false) => Poll::Ready(Err(Interrupted::ShuttingDown)),
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        self.record.overhead.resume();
        // What the caller still sends nobody wants: its connection ends with the answer.
        line.keep_alive &= upload.is_over();
        let failed = |failure| Ok(Replied::Failed(Verdict::TargetFailed(failure)));
        let whole = match uploaded? {
            Uploaded::Whole => true,
            Uploaded::AnsweredEarly => false,
            Uploaded::Failed => return failed(TargetFailure::Cut),
            Uploaded::Silence => return failed(TargetFailure::Silence),
            Uploaded::CallerGone => return Err(Interrupted::CallerGone),
            Uploaded::Refused(fault, detail) => return Ok(Replied::Refused(fault, detail)),
        };
        let deadlines = self.deadlines(exchange);
        let replied = {
            let replied = pin!(upstream::begin_reply(connected, whole, head, &deadlines));
            line.hold(self.record, replied).await?
        };
        match replied {
            // It waited for what the caller had not sent.
            Ok(_) if !whole && head.status() == 408 => {
                Ok(Replied::Refused(Fault::new(FaultKind::BodyTooSlow), None))
            }
            Ok(reply) => Ok(Replied::Reply(reply)),
            Err(failure) => failed(failure.target_failure()),
        }
    }

    /// The credential is the caller's own: nothing that the provider says of its account is news of ours.
    fn with_own_credential(&self, exchange: &Exchange) -> bool {
        self.published.snapshot.account(exchange.account).of_callers
    }

    /// The deadlines of a request that goes out now; a second sending gets them anew.
    fn deadlines(&self, exchange: &Exchange) -> Deadlines {
        let snapshot = &*self.published.snapshot;
        let timeouts = &snapshot.provider(exchange.provider).timeouts;
        let first = if self.record.streamed { timeouts.first_byte } else { timeouts.first_byte_whole };
        let stated = exchange.deadlines(snapshot, self.record.streamed);
        Deadlines { first_byte: self.worker.now() + first, ..stated }
    }

    /// Takes in what a reply's head says about limits and about whose account it is.
    pub(super) fn learn(&mut self, exchange: &Exchange, head: &ResponseHead) {
        let snapshot = &*self.published.snapshot;
        let fields = ReplyFields(head);
        let dialect = self.call.dialect;
        if self.with_own_credential(exchange) {
            return;
        }
        exchange.learn(snapshot, &dialect.observed_limits(&fields), self.worker.now());
        let fields: &dyn Fields = &fields;
        if let Some((organization, workspace)) = dialect.org_mark(fields) {
            let mark = OrganizationReport {
                revision: snapshot.revision,
                account: exchange.account,
                organization: digest(organization),
                workspace: workspace.map_or(0, digest),
            };
            if self.worker.is_new_mark(&mark) {
                self.worker.report(Report::Organization(mark));
            }
        }
    }
}

/// The edits in the order of the body, and how many there are.
fn in_order<'a>(model: Option<Edit<'a>>, usage: Option<Edit<'a>>) -> ([Edit<'a>; 2], usize) {
    const NONE: Edit<'static> = Edit { span: 0..0, with: b"" };
    match (model, usage) {
        (None, None) => ([NONE, NONE], 0),
        (Some(only), None) | (None, Some(only)) => ([only, NONE], 1),
        (Some(model), Some(usage)) if model.span.start <= usage.span.start => ([model, usage], 2),
        (Some(model), Some(usage)) => ([usage, model], 2),
    }
}

/// A digest of which only equality matters.
fn digest(text: &[u8]) -> u64 {
    tidegate_core::choose::Affinity::of(text).0
}

/// A try that ended without a reply.
fn failed(exchange: Exchange, verdict: Verdict) -> Tried {
    let status = 0;
    debug_assert!(!matches!(verdict, Verdict::TargetFailed(TargetFailure::Status(_))));
    Tried::Failed(Box::new(Failed { exchange, verdict, status, stored: None }))
}
