//! One try at one upstream: connection, request, reply head. Decides when a request may be sent a second time on
//! a fresh connection: only if the first one was kept from an earlier call and no reply began on it.

use std::pin::pin;

use tidegate_core::attempt::{Deadlines, Exchange};
use tidegate_core::report::{OrganizationReport, Report};
use tidegate_core::route::State;
use tidegate_core::verdict::{TargetFailure, Verdict};
use tidegate_providers::Fields;
use tidegate_wire::head::ResponseHead;
use tidegate_wire::json;
use tidegate_wire::splice::{Edit, splice};
use zeroize::Zeroize;

use super::{Failed, Serving, Tried};
use crate::heads::{self, ReplyFields, RequestParts};
use crate::relay::{Interrupted, Line};
use crate::upstream::{self, Reply, ReplyFailure};

/// A request's head, and its body in pieces around what the gateway changes.
const SLICES_MAX: usize = 8;

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
            json::write_str(&mut name, self.model);
            Edit { span: self.call.skim.model_span.clone(), with: &name }
        });
        let (edits, count) = in_order(model_edit, usage_edit);
        let body = splice(self.call.body, &edits[..count]);
        if !self.write_request_head(&exchange, body.total_bytes()) {
            return Ok(failed(exchange, Verdict::KeyRefused));
        }
        let request_head = std::mem::take(&mut self.buffers.request_head);
        let mut slices: [&[u8]; SLICES_MAX] = [b""; SLICES_MAX];
        slices[0] = &request_head;
        let mut used = 1;
        for piece in body {
            slices[used] = piece;
            used += 1;
        }
        let replied = self.exchange(line, &mut exchange, &slices[..used], head).await;
        // An idle connection must not keep a provider's credential.
        self.buffers.request_head = request_head;
        self.buffers.request_head.zeroize();
        match replied? {
            Ok(reply) => self.handle_reply(line, exchange, reply, head, takes_usage_out).await,
            Err(verdict) => Ok(failed(exchange, verdict)),
        }
    }

    /// False where the configured credential cannot stand in a field.
    fn write_request_head(&mut self, exchange: &Exchange, body_bytes: usize) -> bool {
        let snapshot = &*self.published.snapshot;
        let parts = RequestParts {
            snapshot,
            dialect: self.call.dialect,
            provider: snapshot.provider(exchange.provider),
            key: snapshot.key(exchange.key),
            operation: self.call.operation,
            head: self.call.head,
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
    ) -> Result<Result<Reply, Verdict>, Interrupted> {
        let snapshot = &*self.published.snapshot;
        let provider = snapshot.provider(exchange.provider);
        let transport = self.published.transports.get(exchange.provider.index()).and_then(Option::as_ref);
        // What one account keeps is never sent twice, not even into a connection that may be dead.
        let mut reuse = self.call.state != State::Asked;
        loop {
            // From now on: a kept connection that died late leaves its successor a whole deadline.
            let connect = self.worker.now() + provider.timeouts.connect;
            let checkout = upstream::checkout(self.worker, provider, transport, reuse, connect);
            let connected = match line.hold(self.record, checkout).await? {
                Ok(connected) => connected,
                Err(failure) => {
                    tracing::debug!(provider = &*provider.name, detail = failure.detail, "no connection");
                    return Ok(Err(failure.verdict()));
                }
            };
            let reused = connected.reused;
            exchange.sent(self.worker.now());
            self.permit.sent();
            self.used = true;
            let deadlines = self.deadlines(exchange);
            // By reference: what is awaited by value is held twice, here and in there.
            let replied = pin!(upstream::request_reply(connected, slices, head, &deadlines));
            match line.hold(self.record, replied).await? {
                Ok(reply) => return Ok(Ok(reply)),
                Err(ReplyFailure::NeverBegan) if reused => reuse = false,
                Err(failure) => return Ok(Err(Verdict::TargetFailed(failure.target_failure()))),
            }
        }
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
