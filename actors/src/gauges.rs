//! Metrics that are read off the cells and the board when a scrape asks: nothing is counted here.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tidegate_core::health::{KeyState, RouteGate};

use crate::board::Board;
use crate::clock::wall_ms;
use crate::metrics::Labels;
use crate::status;

type Whole = Gauge<i64, AtomicI64>;
type Real = Gauge<f64, AtomicU64>;

/// Series of one gauge; the cells beyond are not shown. 1,000 accounts of five classes in use.
const SERIES_MAX: usize = 5_000;

/// Appends all gauges as text.
pub(crate) fn write(board: &Board, out: &mut String) -> std::fmt::Result {
    let mut registry = Registry::with_prefix("tidegate");
    of_process(board, &mut registry);
    of_memory(board, &mut registry);
    of_ingress(board, &mut registry);
    of_accounts(board, &mut registry);
    of_routes(board, &mut registry);
    prometheus_client::encoding::text::encode_registry(out, &registry)
}

/// A gauge with one series for each set of label values, up to [`SERIES_MAX`] of them.
struct Panel<const N: usize, G> {
    family: Family<Labels<N>, G>,
    room: usize,
}

impl<const N: usize, G: Default + Clone> Panel<N, G> {
    fn new() -> Panel<N, G> {
        Panel { family: Family::default(), room: SERIES_MAX }
    }

    /// The gauge of these labels, which are new. One that is not shown where there is no room.
    fn of(&mut self, labels: Labels<N>) -> G {
        if self.room == 0 {
            return G::default();
        }
        self.room -= 1;
        self.family.get_or_create_owned(&labels)
    }
}

fn whole(value: u64) -> Whole {
    let gauge = Whole::default();
    gauge.set(value.try_into().unwrap_or(i64::MAX));
    gauge
}

/// What is taken now, and what may be: each comes back to zero when nothing runs.
fn of_memory(board: &Board, r: &mut Registry) {
    let workers = &board.workers;
    let in_flight = board.snapshot.load().callers.iter().map(|(_, it)| it.cells.in_flight()).sum();
    r.register(
        "calls_in_flight",
        "Calls admitted and not ended, of callers that the configuration names",
        whole(in_flight),
    );
    r.register("body_memory_bytes", "What request bodies hold now", whole(workers.body_bytes()));
    r.register(
        "body_memory_bytes_max",
        "What request bodies may hold together",
        whole(workers.body_bytes_max()),
    );
    let bound = whole(workers.memory_bound_bytes());
    r.register("memory_bound_bytes", "The most that connections, held replies and bodies can take", bound);
}

fn of_process(board: &Board, r: &mut Registry) {
    let workers = &board.workers;
    let driver = [("driver", workers.driver().to_owned()), ("reason", workers.reason().to_owned())];
    r.register("driver", "The I/O driver in use and why", Info::new(driver.to_vec()));
    r.register("workers", "Workers there should be", whole(workers.count() as u64));
    r.register("workers_alive", "Workers that run", whole(workers.alive() as u64));
    r.register("worker_panics", "Panics caught since the start", whole(workers.panics()));
    r.register(
        "worker_rebuilds",
        "Loops of workers that failed and were built anew",
        whole(workers.rebuilds()),
    );
    r.register("workers_stalled", "Workers that make no progress", whole(workers.stalled().len() as u64));
    let stalls = board.stalls.load(Ordering::Relaxed);
    r.register("worker_stalls", "Times that a worker was found to make no progress", whole(stalls));
    r.register("connections_open", "Client connections open now", whole(workers.connections_open()));
    let handed_over = whole(workers.handed_over());
    r.register(
        "connections_handed_over",
        "Connections accepted by one worker, served by another",
        handed_over,
    );
    r.register("slots", "Client connections possible", whole(workers.slots()));
    r.register(
        "ready",
        "1 while new work should be sent here",
        whole(u64::from(status::readiness(board).is_ok())),
    );
    r.register("revision", "Revision of the configuration in force", whole(board.snapshot.load().revision));
    let owners = board.snapshot.load().owners.clone();
    r.register("objects", "Files and batches whose owner is known", whole(owners.count()));
    r.register("objects_max", "Files and batches whose owners can be known", whole(owners.capacity()));
    let responses = board.snapshot.load().response_owners.clone();
    r.register("responses_known", "Stored responses whose owner is known", whole(responses.count()));
    let refused = board.refused.load().is_some();
    r.register(
        "configuration_refused",
        "1 while a newer configuration is refused",
        whole(u64::from(refused)),
    );
    let restarts = board.restarts.load(Ordering::Relaxed);
    r.register("actor_restarts", "Actors restarted since the start", whole(restarts));
    let mut lost: Panel<1, Whole> = Panel::new();
    for (place, count) in status::reports_lost(board) {
        lost.of([("at", place.to_owned())]).set(count.try_into().unwrap_or(i64::MAX));
    }
    r.register("reports_dropped", "Reports lost since the start, by where", lost.family);
    let dropped: u64 = board.entries_dropped.iter().map(|it| it.load(Ordering::Relaxed)).sum();
    let lost = board.access.lost.load(Ordering::Relaxed);
    r.register("access_log_dropped", "Calls since the start that left no line", whole(dropped + lost));
    let lines = board.access.lines.load(Ordering::Relaxed);
    r.register("access_log_lines", "Lines of the access log written since the start", whole(lines));
    let failing = board.access.failing.load(Ordering::Relaxed);
    r.register("access_log_failing", "1 while the access log cannot be written", whole(u64::from(failing)));
}

fn of_ingress(board: &Board, r: &mut Registry) {
    let snapshot = board.snapshot.load();
    let caught: Counter = Counter::default();
    caught.inc_by(snapshot.guesses.caught());
    let help = "Sources that tried many different wrong keys within a minute, since the start";
    r.register("guessing_sources", help, caught);
    if snapshot.ingress.proxy_protocol {
        let refused: Counter = Counter::default();
        refused.inc_by(board.workers.proxy_headers_refused());
        let help =
            "Connections of trusted proxies that did not begin with a good PROXY header since the start";
        r.register("proxy_headers_refused", help, refused);
    }
    let Some(tls) = &snapshot.ingress.tls else { return };
    let left_s = tls.expires_s.cast_signed() - (wall_ms() / 1000).cast_signed();
    let left = Whole::default();
    left.set(left_s);
    r.register(
        "tls_certificate_expiry_seconds",
        "Time until the certificate of the data port ends, below zero once it has",
        left,
    );
    let ends: Family<Labels<1>, Counter> = Family::default();
    for (end, count) in board.workers.handshakes() {
        ends.get_or_create_owned(&[("end", end.to_owned())]).inc_by(count);
    }
    r.register("tls_handshakes", "TLS handshakes of callers since the start, by how they ended", ends);
}

fn of_accounts(board: &Board, r: &mut Registry) {
    let snapshot = board.snapshot.load_full();
    let now = board.now();
    let mut resting: Panel<3, Real> = Panel::new();
    let mut in_flight: Panel<3, Whole> = Panel::new();
    let mut limits: Panel<4, Whole> = Panel::new();
    let mut levels: Panel<4, Whole> = Panel::new();
    let mut learned: Panel<4, Whole> = Panel::new();
    let mut keys: Panel<4, Whole> = Panel::new();
    let mut spent: Panel<2, Whole> = Panel::new();
    for account in snapshot.accounts.iter().filter(|it| !it.of_callers) {
        let provider = snapshot.provider(account.provider);
        let (provider_name, name) = (provider.name.to_string(), account.name.to_string());
        let labels = [("provider", provider_name.clone()), ("account", name.clone())];
        spent.of(labels).set(i64::from(account.cell.spent_since().is_some()));
        for key in account.keys.iter().map(|it| snapshot.key(*it)) {
            for state in [KeyState::Suspect, KeyState::Out] {
                let labels = [
                    ("provider", provider_name.clone()),
                    ("account", name.clone()),
                    ("key", key.name.to_string()),
                    ("state", status::key_code(state).to_owned()),
                ];
                keys.of(labels).set(i64::from(key.cell.state() == state));
            }
        }
        for (class, quota) in provider.classes.iter().zip(&account.quotas) {
            let view = quota.view(now);
            let of = [
                ("provider", provider_name.clone()),
                ("account", name.clone()),
                ("class", class.name.to_string()),
            ];
            if let Some(until) = view.resting_until {
                resting.of(of.clone()).set(until.since(now).as_secs_f64());
            }
            if view.in_flight > 0 {
                in_flight.of(of.clone()).set(view.in_flight.into());
            }
            for (dimension, it) in status::dimensions(&view) {
                let [a, b, c] = of.clone();
                let labels = [a, b, c, ("dimension", dimension.to_owned())];
                let capped = |it: u64| it.try_into().unwrap_or(i64::MAX);
                let panels = [
                    (&mut limits, it.limit.map(capped)),
                    (&mut learned, it.learned.map(capped)),
                    (&mut levels, it.level),
                ];
                for (panel, value) in panels.into_iter().filter_map(|(panel, value)| Some((panel, value?))) {
                    panel.of(labels.clone()).set(value);
                }
            }
        }
    }
    r.register("quota_resting_seconds", "How long a resting quota still rests", resting.family);
    r.register("quota_in_flight", "Calls of a quota in flight", in_flight.family);
    r.register("quota_limit", "Limit of a quota per minute, as in force", limits.family);
    r.register("quota_limit_learned", "Limit of a quota per minute, as replies stated it", learned.family);
    r.register("quota_level", "Predicted room of a quota, below zero in debt", levels.family);
    r.register("key_state", "1 for a key that is suspect or out", keys.family);
    r.register("account_spent", "1 for an account whose spend cap or credit is used up", spent.family);
}

fn of_routes(board: &Board, r: &mut Registry) {
    let snapshot = board.snapshot.load_full();
    let now = board.now();
    let mut closed: Panel<3, Whole> = Panel::new();
    for provider in &snapshot.providers {
        for route in &provider.routes {
            if let RouteGate::Closed { overloaded, .. } = route.cell.gate(now) {
                let why = if overloaded { "overloaded" } else { "failing" };
                let labels = [
                    ("provider", provider.name.to_string()),
                    ("route", route.name.to_string()),
                    ("why", why.to_owned()),
                ];
                closed.of(labels).set(1);
            }
        }
    }
    r.register("route_closed", "1 for a route that backs off", closed.family);
    let mut first: Panel<1, Whole> = Panel::new();
    for model in snapshot.models.iter().filter(|it| it.chain.len() > 1) {
        first.of([("model", model.name.to_string())]).set(model.cell.first() as i64);
    }
    r.register("chain_first", "Position of the target that goes first in a chain", first.family);
}
