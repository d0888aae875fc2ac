//! What is done with a reply: a stream is relayed, a whole reply held and sent, an error judged. The meaning of a
//! reply is the dialect's, its consequences are the walk's.

use tidegate_core::attempt::Exchange;
use tidegate_core::fault::{Fault, FaultKind};
use tidegate_core::report::CallEnd;
use tidegate_core::usage::Usage;
use tidegate_core::verdict::TargetFailure;
use tidegate_core::{Verdict, limits};
use tidegate_providers::{OperationKind, USAGE};
use tidegate_wire::head::ResponseHead;
use tidegate_wire::passing::PassingMember;

use super::{Failed, Serving, Stored, Tried};
use crate::heads::ReplyFields;
use crate::relay::{self, Collected, Committed, Interrupted, Line, Rest, StreamEnd, Tap};
use crate::upstream::Reply;

impl Serving<'_, '_> {
    /// Carries `reply` to the caller, or says why the call has to go on elsewhere.
    pub(super) async fn handle_reply(
        &mut self,
        line: &mut Line<'_>,
        exchange: Exchange,
        reply: Reply,
        head: &mut ResponseHead,
        takes_usage_out: bool,
    ) -> Result<Tried, Interrupted> {
        self.learn(&exchange, head);
        let secret = &self.published.snapshot.key(exchange.key).secret;
        // One look at all of it: hardly ever is there anything to strike out.
        if secret.stands_in(head.bytes()) {
            head.each_value(|value| _ = secret.hide_in(value));
        }
        let good = (200..300).contains(&head.status());
        // A file may hold anything: it is never read for what it looks like.
        if good && is_event_stream(head) && !self.is_owned() {
            return self.handle_stream(line, exchange, reply, head, takes_usage_out).await;
        }
        self.handle_whole(line, exchange, reply, head, good).await
    }

    async fn handle_stream(
        &mut self,
        line: &mut Line<'_>,
        exchange: Exchange,
        mut reply: Reply,
        head: &ResponseHead,
        takes_usage_out: bool,
    ) -> Result<Tried, Interrupted> {
        let status = head.status();
        self.exchange = Some(exchange);
        let buffer = std::mem::take(&mut self.buffers.held);
        let mut tap = Tap::new(self.call.dialect, takes_usage_out, buffer);
        let ended = relay::relay_stream(line, self, &mut reply, head, &mut tap).await;
        self.observe(&tap);
        let (usage, estimated) = tap.final_usage();
        self.buffers.held = tap.into_buffer();
        // Held by `self` until here, so that an interruption, or a panic, settles it by drop.
        let exchange = self.exchange.take();
        let (ended, Some(exchange)) = (ended?, exchange) else { return Ok(Tried::Answered) };
        match ended {
            StreamEnd::Complete => {
                self.complete(exchange, usage, estimated);
                self.put_back(reply);
            }
            StreamEnd::FailedBefore(verdict) => {
                return Ok(Tried::Failed(Box::new(Failed { exchange, verdict, status, stored: None })));
            }
            StreamEnd::FailedAfter(verdict) => {
                self.record.ended(CallEnd::UpstreamError);
                self.record.in_band = true;
                let report = self.attempt_report(&exchange, verdict, status);
                self.report_attempt(report);
                exchange.broke(&self.published.snapshot, verdict, usage, self.context());
            }
        }
        Ok(Tried::Answered)
    }

    async fn handle_whole(
        &mut self,
        line: &mut Line<'_>,
        exchange: Exchange,
        mut reply: Reply,
        head: &mut ResponseHead,
        good: bool,
    ) -> Result<Tried, Interrupted> {
        if good && line.committed() != Committed::Nothing {
            // The caller was promised events, and this is none.
            let (verdict, status) = (Verdict::TargetFailed(TargetFailure::Cut), head.status());
            return Ok(Tried::Failed(Box::new(Failed { exchange, verdict, status, stored: None })));
        }
        self.exchange = Some(exchange);
        if good {
            line.expect_whole();
        } else {
            reply.hurry(limits::ERROR_REPLY_IDLE);
        }
        let mut held = std::mem::take(&mut self.buffers.held);
        let collected = relay::collect(line, self, &mut reply, &mut held).await?;
        let verdict = match collected {
            Collected::Broken(failure) if good => Verdict::TargetFailed(failure),
            _ if good && self.call.operation.kind == OperationKind::ObjectContent => Verdict::Success,
            // An error reply that was cut still says by its status and its beginning what it is, and a good status
            // does not make a good reply.
            _ => self.call.dialect.judge(head.status(), &ReplyFields(head), &held, tidegate_ring::wall_ms()),
        };
        if good && self.record.streamed && verdict != Verdict::Success {
            line.expect_stream(self.call.dialect);
        }
        if verdict == Verdict::Success {
            if self.call.operation.kind == OperationKind::ObjectList {
                let sent = self.send_list(line, reply, head, &mut held, collected).await;
                self.buffers.held = held;
                return sent;
            }
            if !self.note_owned(&mut held, collected) {
                self.exchange = None;
                return Ok(Tried::Refused(Fault::never(FaultKind::NoSuchObject), None));
            }
            self.note_response(&held);
            let sent = self.send_good(line, reply, head, &held, collected).await;
            self.buffers.held = held;
            return sent.map(|()| Tried::Answered);
        }
        self.note_missing(head.status());
        let Some(exchange) = self.exchange.take() else { return Ok(Tried::Answered) };
        let status = head.status();
        let (key, head) = (exchange.key, std::mem::take(head));
        // What an error says may be what it was asked with.
        let open = self.published.snapshot.key(key).secret.hide_in(&mut held);
        let stored = match collected {
            Collected::Broken(_) if good => None,
            Collected::Broken(_) => {
                held.truncate(held.len() - open);
                Some(Stored { head, body: held, rest: None })
            }
            Collected::Partial => Some(Stored { head, body: held, rest: Some((reply, key, open)) }),
            Collected::Complete => {
                self.put_back(reply);
                Some(Stored { head, body: held, rest: None })
            }
        };
        Ok(Tried::Failed(Box::new(Failed { exchange, verdict, status, stored })))
    }

    /// Sends a good whole reply: from here on it is the answer.
    pub(super) async fn send_good(
        &mut self,
        line: &mut Line<'_>,
        mut reply: Reply,
        head: &ResponseHead,
        held: &[u8],
        collected: Collected,
    ) -> Result<(), Interrupted> {
        self.content_began(head.status());
        // What looks like usage in a file is the caller's text.
        let mut passing = passing_usage(held, collected).filter(|_| !self.is_owned());
        let mut stated = self.call.dialect.usage_of_reply(held).filter(|_| !self.is_owned());
        if let Some(usage) = stated {
            self.note_usage(usage, false);
        }
        let rest = (collected == Collected::Partial).then_some(Rest {
            reply: &mut reply,
            usage: passing.as_mut(),
            hidden: None,
        });
        let sent = relay::send_whole(line, self, head, held, rest).await?;
        if let Some(usage) = passing.and_then(|it| self.call.dialect.usage_of_reply(it.found()?)) {
            self.note_usage(usage, false);
            stated = Some(usage);
        }
        let Some(exchange) = self.exchange.take() else { return Ok(()) };
        let usage = stated.unwrap_or_default();
        match sent {
            Ok(()) => {
                self.complete(exchange, usage, stated.is_none());
                self.put_back(reply);
            }
            Err(failure) => {
                let verdict = Verdict::TargetFailed(failure.target_failure());
                self.record.ended(CallEnd::UpstreamError);
                let report = self.attempt_report(&exchange, verdict, head.status());
                self.report_attempt(report);
                exchange.broke(&self.published.snapshot, verdict, usage, self.context());
            }
        }
        Ok(())
    }

    /// The reply is good as far as its commit point: probe, ramp and route learn of it now, not at its end.
    pub(crate) fn content_began(&mut self, status: u16) {
        let now = self.worker.now();
        if let Some(exchange) = &mut self.exchange {
            exchange.begun(&self.published.snapshot, now);
        }
        if let Some(report) =
            self.exchange.as_ref().map(|it| self.attempt_report(it, Verdict::Success, status))
        {
            self.report_attempt(report);
        }
    }

    fn complete(&mut self, exchange: Exchange, usage: Usage, estimated: bool) {
        self.record.ended(CallEnd::Complete);
        if self.call.operation.kind == OperationKind::Generate && !estimated {
            let provider = self.published.snapshot.provider(exchange.provider);
            let class = &provider.classes[exchange.class.index()];
            class.estimate.learn(self.call.body.len() as u64, &usage);
        }
        exchange.finish(usage, self.worker.now());
    }

    /// Keeps the connection for the next call where its reply ended exactly.
    pub(super) fn put_back(&mut self, reply: Reply) {
        let Some(provider) = self.record.provider else { return };
        if let Some(upstream) = reply.into_idle() {
            let origin = &self.published.snapshot.provider(provider).origin;
            self.worker.pools.borrow_mut().put(origin, upstream, self.worker.now());
        }
    }
}

/// Where only the beginning of a reply may be held: what looks for its usage as it passes by.
fn passing_usage(held: &[u8], collected: Collected) -> Option<PassingMember> {
    if collected != Collected::Partial {
        return None;
    }
    let mut passing = PassingMember::new(USAGE, limits::PASSING_USAGE_BYTES_MAX);
    passing.feed(held);
    Some(passing)
}

fn is_event_stream(head: &ResponseHead) -> bool {
    const STREAM: &[u8] = b"text/event-stream";
    let stated = head.field("content-type").map(<[u8]>::trim_ascii).and_then(|it| it.get(..STREAM.len()));
    stated.is_some_and(|it| it.eq_ignore_ascii_case(STREAM))
}
