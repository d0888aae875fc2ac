//! Counts reports into metrics and sums. Never acts on them: nothing that matters to a call hangs on this actor.
//!
//! A report costs one hash lookup of plain numbers; names are looked up once for each combination and revision.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tidegate_core::report::{AttemptReport, CallEnd, CallReport, Report};
use tidegate_core::snapshot::{AccountId, CallerId, ClassId, ProviderId, RouteId};
use tidegate_core::{Usage, Verdict};

use crate::board::Board;
use crate::door::Ticket;
use crate::names::{GONE, Names};
use crate::totals::{AccountSums, is_rate_limit};

/// Combinations whose series are kept at hand; more are found again through their names.
const CACHED_MAX: usize = 20_000;

/// Stands where a call has no such thing.
const NONE: &str = "none";

/// Batches of reports that may wait.
pub(crate) const BATCHES_MAX: usize = 16;

/// What the exporter is told.
pub(crate) enum ExporterMessage {
    /// Reports in the order of their worker.
    Batch(Vec<Report>, Ticket),
}

/// The actor.
pub(crate) struct Exporter;

impl Actor for Exporter {
    type Msg = ExporterMessage;
    type State = Recorder;
    type Arguments = Arc<Board>;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        board: Arc<Board>,
    ) -> Result<Recorder, ActorProcessingErr> {
        Ok(Recorder::new(board))
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: ExporterMessage,
        recorder: &mut Recorder,
    ) -> Result<(), ActorProcessingErr> {
        let ExporterMessage::Batch(reports, _ticket) = message;
        reports.iter().for_each(|it| recorder.record(it));
        Ok(())
    }
}

/// Counts reports.
pub(crate) struct Recorder {
    board: Arc<Board>,
    calls: HashMap<CallKey, CallSeries, RandomState>,
    attempts: HashMap<AttemptKey, AttemptSeries, RandomState>,
}

/// All that the labels of a call depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct CallKey {
    revision: u64,
    caller: Option<CallerId>,
    provider: Option<ProviderId>,
    account: Option<(AccountId, ClassId)>,
    end: CallEnd,
    status_class: u16,
    streamed: bool,
}

struct CallSeries {
    calls: Counter,
    duration: Histogram,
    first_content: Histogram,
    /// Input, cache writes, cache reads, output. Without an account there are no tokens.
    tokens: Option<[Counter; 4]>,
    spills: Option<Counter>,
    line: Option<Arc<AccountSums>>,
}

/// All that the labels of an attempt depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct AttemptKey {
    revision: u64,
    provider: ProviderId,
    account: AccountId,
    class: ClassId,
    route: RouteId,
    verdict: &'static str,
}

struct AttemptSeries {
    attempts: Counter,
    duration: Histogram,
    rate_limited: Option<Counter>,
    overloaded: Option<Counter>,
    moves: Option<Counter>,
    line: Option<Arc<AccountSums>>,
}

impl Recorder {
    pub(crate) fn new(board: Arc<Board>) -> Recorder {
        Recorder { board, calls: HashMap::default(), attempts: HashMap::default() }
    }

    /// Counts one report.
    pub(crate) fn record(&mut self, report: &Report) {
        match report {
            Report::Attempt(report) => self.attempt(report),
            Report::Call(report) => self.call(report),
            Report::Organization(_) => {}
        }
    }

    fn call(&mut self, report: &CallReport) {
        let key = CallKey {
            revision: report.revision,
            caller: report.caller,
            provider: report.provider,
            account: report.account,
            end: report.end,
            status_class: report.status / 100,
            streamed: report.streamed,
        };
        if self.calls.len() >= CACHED_MAX {
            self.calls.clear();
        }
        let board = &self.board;
        let series = self.calls.entry(key).or_insert_with(|| CallSeries::find(board, &key));
        let metrics = &board.metrics;
        series.calls.inc();
        series.duration.observe(report.elapsed.as_secs_f64());
        if let Some(first) = report.first_content {
            series.first_content.observe(first.as_secs_f64());
        }
        metrics.overheads.observe(report.overhead.as_secs_f64());
        if let Some(tokens) = &series.tokens {
            count_tokens(tokens, &report.usage);
        }
        if report.usage_estimated {
            metrics.tokens_estimated.inc();
        }
        if report.spilled {
            series.spills.iter().for_each(|it| _ = it.inc());
        }
        if report.end == CallEnd::Complete && report.attempts > 1 {
            metrics.failovers.inc();
        }
        metrics.sums.call(report, series.line.as_deref());
    }

    fn attempt(&mut self, report: &AttemptReport) {
        let key = AttemptKey {
            revision: report.revision,
            provider: report.provider,
            account: report.account,
            class: report.class,
            route: report.route,
            verdict: report.verdict.code(),
        };
        if self.attempts.len() >= CACHED_MAX {
            self.attempts.clear();
        }
        let board = &self.board;
        let series =
            self.attempts.entry(key).or_insert_with(|| AttemptSeries::find(board, &key, report.verdict));
        series.attempts.inc();
        series.duration.observe(report.elapsed.as_secs_f64());
        for counter in [&series.rate_limited, &series.overloaded, &series.moves].into_iter().flatten() {
            counter.inc();
        }
        board.metrics.sums.attempt(report, series.line.as_deref());
    }
}

impl CallSeries {
    fn find(board: &Board, key: &CallKey) -> CallSeries {
        let metrics = &board.metrics;
        let names = board.names_of(key.revision);
        let names = names.as_deref();
        let caller = key.caller.map_or(NONE, |it| names.map_or(GONE, |names| names.caller(it)));
        let provider = key.provider.map_or(NONE, |it| names.map_or(GONE, |names| names.provider(it)));
        let placed = key.provider.zip(key.account);
        let class =
            placed.map_or(NONE, |(it, (_, class))| names.map_or(GONE, |names| names.class(it, class)));
        let account = key.account.map_or(NONE, |(it, _)| names.map_or(GONE, |names| names.account(it)));
        let status = format!("{}xx", key.status_class);
        let streamed = if key.streamed { "true" } else { "false" };
        let kinds = ["input", "cache_write", "cache_read", "output"];
        CallSeries {
            calls: metrics.calls.of([caller, provider, class, &status, key.end.code()]),
            duration: metrics.durations.of([provider, class, streamed]),
            first_content: metrics.first_contents.of([provider, class]),
            tokens: placed.map(|_| kinds.map(|kind| metrics.tokens.of([provider, account, class, kind]))),
            spills: placed.map(|_| metrics.spills.of([provider, account])),
            line: placed.filter(|_| names.is_some()).and_then(|_| metrics.sums.account(provider, account)),
        }
    }
}

impl AttemptSeries {
    fn find(board: &Board, key: &AttemptKey, verdict: Verdict) -> AttemptSeries {
        let metrics = &board.metrics;
        let names = board.names_of(key.revision);
        let named = |of: &dyn Fn(&Names) -> String| names.as_deref().map_or_else(|| GONE.to_owned(), of);
        let provider = named(&|it| it.provider(key.provider).to_owned());
        let account = named(&|it| it.account(key.account).to_owned());
        let class = named(&|it| it.class(key.provider, key.class).to_owned());
        let route = named(&|it| it.route(key.provider, key.route).to_owned());
        let overloaded = matches!(verdict, Verdict::RouteOverloaded { .. });
        let stays = matches!(verdict, Verdict::Success | Verdict::CallerFault);
        AttemptSeries {
            attempts: metrics.attempts.of([&provider, &account, key.verdict]),
            duration: metrics.attempt_durations.of([&provider]),
            rate_limited: is_rate_limit(verdict)
                .then(|| metrics.rate_limited.of([&provider, &account, &class, &route])),
            overloaded: overloaded.then(|| metrics.overloaded.of([&provider, &account, &route])),
            moves: (!stays).then(|| metrics.moves.of([&provider, key.verdict])),
            line: names.is_some().then(|| metrics.sums.account(&provider, &account)).flatten(),
        }
    }
}

fn count_tokens(counters: &[Counter; 4], usage: &Usage) {
    let parts = [usage.input_tokens, usage.cache_write_tokens, usage.cache_read_tokens, usage.output_tokens];
    for (counter, part) in counters.iter().zip(parts) {
        if let Some(tokens) = part {
            counter.inc_by(tokens);
        }
    }
}
