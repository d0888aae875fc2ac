//! Walks the plan of one call: choose, exchange, judge, until a reply commits or the plan ends. Decides nothing
//! that `tidegate_core::attempt` decides; it carries out what the walk says and tells it what came back.

mod exchange;
mod judged;
mod owned;

use std::ops::Range;
use std::time::Duration;

use tidegate_core::access::Try;
use tidegate_core::admission::Permit;
use tidegate_core::attempt::{Action, Closing, Context, Exchange, GiveUp, Next, Walk};
use tidegate_core::caller::Caller;
use tidegate_core::report::{AttemptReport, CallEnd, Report};
use tidegate_core::route::State;
use tidegate_core::snapshot::KeyId;
use tidegate_core::usage::Usage;
use tidegate_core::verdict::TargetFailure;
use tidegate_core::{Fault, Verdict};
use tidegate_providers::{Cursor, Dialect, Operation};
use tidegate_wire::head::{RequestHead, ResponseHead};
use tidegate_wire::skim::Skim;

use crate::answer;
use crate::connection::Buffers;
use crate::heads::{self, CallerLimits, OwnFields, ReplyFraming};
use crate::objects::ObjectCall;
use crate::path::Stop;
use crate::plane::Published;
use crate::record::Record;
use crate::relay::{Interrupted, Line, Rest, Tap};
use crate::upstream::{Reply, Upload};
use crate::worker::Worker;

/// What the caller asked for.
pub(crate) struct Call<'a> {
    pub(crate) dialect: &'static Dialect,
    pub(crate) operation: &'a Operation<'a>,
    pub(crate) head: &'a RequestHead,
    /// What the upstream is asked behind the question mark.
    pub(crate) query: Option<&'a str>,
    pub(crate) body: &'a [u8],
    pub(crate) skim: &'a Skim<'a>,
    /// The model asked for; empty where the operation names none.
    pub(crate) asked: &'a str,
    /// Where the body has its name.
    pub(crate) model_span: Range<usize>,
    /// What it has to do with things that outlive it.
    pub(crate) state: State,
    /// What is the caller's, where the call is about files or batches.
    pub(crate) object: Option<ObjectCall<'a>>,
    pub(crate) caller: Option<&'a Caller>,
}

/// A call being served: what it asked for, what it may use, what happened so far.
pub(crate) struct Serving<'a, 'r> {
    pub(crate) worker: &'a Worker,
    pub(crate) published: &'a Published,
    pub(crate) call: &'a Call<'a>,
    pub(crate) record: &'r mut Record,
    pub(crate) buffers: &'r mut Buffers,
    permit: Permit,
    /// What was not collected of the body: it is passed on as it arrives, once.
    upload: Option<Upload<'a>>,
    /// A provider may have worked on the call: it is settled, not refunded.
    used: bool,
    /// The model name that went upstream last.
    model: &'a str,
    /// The try whose reply is being relayed; dropping it settles its reservation.
    exchange: Option<Exchange>,
    /// Where a list goes on of which there was nothing to show.
    next_page: Option<Cursor>,
}

/// An upstream's answer that may be returned unchanged.
pub(crate) struct Stored {
    head: ResponseHead,
    body: Vec<u8>,
    /// What was not read of it, the key it was asked with, and how many bytes at the end of `body` may begin that key.
    rest: Option<(Reply, KeyId, usize)>,
}

/// How one try ended.
pub(crate) enum Tried {
    /// The caller has its answer, good or broken off.
    Answered,
    /// Before the commit point: the walk goes on.
    Failed(Box<Failed>),
    /// Before the commit point: it was not sent again, because the way is closed by now. The walk goes on.
    Withdrawn(Box<Exchange>, Closing),
    /// The caller sent what must not go on: the call ends with this.
    Refused(Fault, Option<String>),
}

/// A try that brought no good reply.
pub(crate) struct Failed {
    exchange: Exchange,
    verdict: Verdict,
    status: u16,
    stored: Option<Stored>,
}

impl<'a, 'r> Serving<'a, 'r> {
    pub(crate) fn new(
        worker: &'a Worker,
        published: &'a Published,
        call: &'a Call<'a>,
        record: &'r mut Record,
        buffers: &'r mut Buffers,
        permit: Permit,
        upload: Option<Upload<'a>>,
    ) -> Serving<'a, 'r> {
        Serving {
            worker,
            published,
            call,
            record,
            buffers,
            permit,
            upload,
            used: false,
            model: call.asked,
            exchange: None,
            next_page: None,
        }
    }

    /// Carries the walk out to its end. With a cursor nothing was answered: the list goes on there.
    pub(crate) async fn run(mut self, line: &mut Line<'_>, mut walk: Walk) -> Result<Option<Cursor>, Stop> {
        let walked = self.walk(line, &mut walk).await;
        if let Some((_, ended)) = &mut self.record.upstream {
            *ended = Some(self.worker.now());
        }
        self.record.spilled = walk.spilled();
        self.record.usage_estimated = self.permit.is_estimated() || self.record.usage_estimated;
        if self.used {
            self.permit.settle(self.worker.now());
        } else {
            self.permit.refund();
        }
        walked.map(|()| self.next_page)
    }

    async fn walk(&mut self, line: &mut Line<'_>, walk: &mut Walk) -> Result<(), Stop> {
        let snapshot = &*self.published.snapshot;
        let mut kept: Option<Stored> = None;
        loop {
            let now = self.worker.now();
            let action = walk.poll_action(snapshot, &mut self.worker.draw.borrow_mut(), now);
            let exchange = match action {
                Action::Send(exchange) => exchange,
                Action::GiveUp(give_up) => return self.give_up(line, give_up, kept).await,
            };
            self.begin(&exchange, walk.attempts());
            let used_before = self.used;
            let failed = match self.try_once(line, exchange).await? {
                Tried::Answered => return Ok(()),
                Tried::Refused(fault, detail) => return Err(Stop::Fault(fault, detail)),
                Tried::Withdrawn(exchange, closing) => {
                    // Told as what it met; the target is not blamed for a kept connection that died.
                    let cut = Verdict::TargetFailed(TargetFailure::Cut);
                    self.record.tries.judge(&self.attempt_report(&exchange, cut, 0));
                    walk.withdraw(*exchange, closing);
                    continue;
                }
                Tried::Failed(failed) => failed,
            };
            self.used = used_before || (self.used && may_have_worked(failed.verdict));
            self.permit.forget_usage();
            self.record.usage = Usage::default();
            let report = self.attempt_report(&failed.exchange, failed.verdict, failed.status);
            self.report_attempt(report);
            let context = self.context();
            match walk.handle_verdict(snapshot, failed.exchange, failed.verdict, context) {
                Next::Answer => return self.pass_on(line, failed.stored).await,
                // An answer that was not read whole cannot be returned later.
                Next::TryAgain if walk.keeps_answer() => kept = failed.stored.filter(|it| it.rest.is_none()),
                Next::TryAgain => {}
            }
        }
    }

    fn context(&self) -> Context {
        Context { now: self.worker.now(), jitter: tidegate_ring::random_u64() as u32 }
    }

    fn begin(&mut self, exchange: &Exchange, attempts: u8) {
        self.model = exchange.target.name.resolve(&self.published.snapshot, self.call.asked);
        self.record.attempts = attempts;
        self.record.provider = Some(exchange.provider);
        self.record.account = Some((exchange.account, exchange.class));
        self.record.upstream.get_or_insert((exchange.started, None));
        self.record.tries.begin(Try {
            provider: exchange.provider,
            account: exchange.account,
            key: exchange.key,
            name: exchange.target.name,
            verdict: None,
            status: 0,
            elapsed: Duration::ZERO,
        });
    }

    fn report_attempt(&mut self, report: AttemptReport) {
        self.record.tries.judge(&report);
        self.worker.report(Report::Attempt(report));
    }

    fn attempt_report(&self, exchange: &Exchange, verdict: Verdict, status: u16) -> AttemptReport {
        AttemptReport {
            revision: self.published.snapshot.revision,
            provider: exchange.provider,
            account: exchange.account,
            key: exchange.key,
            class: exchange.class,
            route: exchange.route,
            verdict,
            status,
            number: exchange.number,
            elapsed: self.worker.now().since(exchange.started),
        }
    }

    async fn give_up(
        &mut self,
        line: &mut Line<'_>,
        give_up: GiveUp,
        kept: Option<Stored>,
    ) -> Result<(), Stop> {
        match kept {
            Some(stored) if give_up.prefer_upstream_answer => self.pass_on(line, Some(stored)).await,
            _ => Err(give_up.fault.into()),
        }
    }

    /// Returns an upstream's answer unchanged; inside a stream whose status is out, as an error event.
    async fn pass_on(&mut self, line: &mut Line<'_>, stored: Option<Stored>) -> Result<(), Stop> {
        let Some(mut stored) = stored else {
            return Err(Fault::new(tidegate_core::FaultKind::UpstreamFailed).into());
        };
        self.record.ended(CallEnd::UpstreamError);
        self.record.status = stored.head.status();
        if line.committed() != crate::relay::Committed::Nothing {
            answer::pass_on_in_band(line, self.call.dialect, self.record, &stored.body).await?;
            return Ok(());
        }
        let snapshot = &*self.published.snapshot;
        let rest = stored.rest.as_mut().map(|(reply, key, open)| Rest {
            reply,
            usage: None,
            hidden: Some((&snapshot.key(*key).secret, *open)),
        });
        let sent = crate::relay::send_whole(line, self, &stored.head, &stored.body, rest).await?;
        if sent.is_err() {
            line.keep_alive = false;
        }
        Ok(())
    }

    /// Strikes out of whole events of the running try what it was asked with.
    pub(crate) fn hide_secret_in(&self, events: &mut [u8]) {
        if let Some(exchange) = &self.exchange {
            self.published.snapshot.key(exchange.key).secret.hide_in(events);
        }
    }

    /// Notes what a stream used so far, so that whatever ends the call settles by it.
    pub(crate) fn observe(&mut self, tap: &Tap) {
        let (usage, estimated) = tap.final_usage();
        self.note_usage(usage, estimated);
    }

    fn note_usage(&mut self, usage: Usage, estimated: bool) {
        self.record.usage = usage;
        self.record.usage_estimated = estimated;
        self.permit.observe(usage);
        if let Some(exchange) = &mut self.exchange {
            exchange.observe(usage);
        }
    }

    /// Ends a stream with an error event in the caller's dialect.
    pub(crate) async fn send_stream_error(
        &mut self,
        line: &mut Line<'_>,
        fault: Fault,
    ) -> Result<(), Interrupted> {
        self.record.ended(CallEnd::Fault(fault.kind));
        answer::answer(line, self.call.dialect, self.record, fault, None, None).await
    }

    /// Writes the head of a stream's reply into the buffers.
    pub(crate) fn write_stream_head(&mut self, line: &mut Line<'_>, head: &ResponseHead) {
        let framing = line.open_framing();
        if framing == ReplyFraming::UntilClose {
            line.keep_alive = false;
        }
        self.write_reply_head(line, head, framing);
    }

    /// Writes the head of a reply that came from an upstream into the buffers.
    pub(crate) fn write_reply_head(
        &mut self,
        line: &mut Line<'_>,
        head: &ResponseHead,
        framing: ReplyFraming,
    ) {
        let snapshot = &*self.published.snapshot;
        self.record.status = head.status();
        let routing = self.record.account.filter(|_| snapshot.expose_routing).map(|(account, _)| {
            let account = snapshot.account(account);
            (&*snapshot.provider(account.provider).name, &*account.name)
        });
        // The limits of its own account concern the caller more than those of its key here.
        let own_account =
            self.record.account.is_some_and(|(account, _)| snapshot.account(account).of_callers);
        let caller = self.call.caller.filter(|_| !own_account);
        let limits = CallerLimits::of(self.call.dialect, caller);
        let own = OwnFields {
            request_id: self.record.id.as_str(),
            attempts: self.record.attempts,
            overhead_us: self.record.overhead.total().as_micros() as u64,
            model: Some(self.model),
            routing,
            limits,
        };
        let keep_alive = line.promises_more();
        heads::write_reply(&mut self.buffers.head, self.call.dialect, head, framing, keep_alive, &own);
    }
}

/// Whether a provider that answered so may have produced something that it counts; a refusal at its door is free.
fn may_have_worked(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Success | Verdict::TargetFailed(_))
}
