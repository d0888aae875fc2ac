//! What the control plane says of itself and of the cells, as JSON. Reads only; holds no secret.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tidegate_core::health::{KeyState, Phase, RouteGate};
use tidegate_core::quota::{DimensionView, QuotaView};
use tidegate_core::snapshot::{Account, Model, Provider};
use tidegate_core::{Moment, Snapshot};

use crate::board::Board;

/// Whether new work should be sent here; the error says why not.
pub(crate) fn readiness(board: &Board) -> Result<(), &'static str> {
    if board.workers.draining() {
        return Err("draining");
    }
    if board.gave_up.load(Ordering::Relaxed) {
        return Err("actors failed too often");
    }
    if board.workers.alive() == 0 {
        return Err("no worker runs");
    }
    if !board.workers.stalled().is_empty() {
        return Err("a worker makes no progress");
    }
    Ok(())
}

/// The body of `/readyz`.
pub(crate) fn ready_body(board: &Board) -> Value {
    let workers = &board.workers;
    json!({
        "ready": readiness(board).is_ok(),
        "why": readiness(board).err(),
        "driver": workers.driver(),
        "reason": workers.reason(),
        "workers": {
            "count": workers.count(),
            "alive": workers.alive(),
            "panics": workers.panics(),
            "rebuilds": workers.rebuilds(),
            "stalled": workers.stalled(),
        },
        "revision": board.snapshot.load().revision,
        "configuration_refused": board.refused.load().is_some(),
        "actor_restarts": board.restarts.load(Ordering::Relaxed),
    })
}

/// Reports that never reached the exporter, with where they were lost.
pub(crate) fn reports_lost(board: &Board) -> [(&'static str, u64); 2] {
    let in_rings = board.dropped.iter().map(|it| it.load(Ordering::Relaxed)).sum();
    [("ring", in_rings), ("exporter", board.unexported.load(Ordering::Relaxed))]
}

/// The body of `/api/v1/status`.
pub(crate) fn status_body(board: &Board) -> Value {
    let snapshot = board.snapshot.load_full();
    let now = board.now();
    let refused = board.refused.load();
    let complaints =
        refused.as_ref().map(|it| it.list().iter().map(ToString::to_string).collect::<Vec<String>>());
    let totals = board.metrics.sums.read();
    json!({
        "gateway": ready_body(board),
        "connections": { "open": board.workers.connections_open(), "slots": board.workers.slots() },
        "reports_lost": reports_lost(board).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "refused_configuration": complaints,
        "totals": {
            "calls": totals.calls,
            "failures_seen_by_callers": totals.failures_seen_by_callers,
            "callers_gone": totals.callers_gone,
            "attempts": totals.attempts,
            "failovers": totals.failovers,
            "spills": totals.spills,
            "rate_limited": totals.rate_limited,
            "rate_limited_absorbed": totals.rate_limited_absorbed,
            "overloaded": totals.overloaded,
            "overloaded_absorbed": totals.overloaded_absorbed,
            "input_tokens": totals.input_tokens,
            "output_tokens": totals.output_tokens,
        },
        "providers": snapshot.providers.iter().map(|it| provider(&snapshot, it, now)).collect::<Vec<Value>>(),
        "models": snapshot.models.iter().map(|it| model(&snapshot, it)).collect::<Vec<Value>>(),
        "virtual_keys": snapshot.callers.iter().count(),
    })
}

fn provider(snapshot: &Snapshot, it: &Provider, now: Moment) -> Value {
    let addresses: Vec<String> = it.origin.addresses.load().iter().map(ToString::to_string).collect();
    let accounts = it.accounts.iter().map(|id| account(snapshot, it, snapshot.account(*id), now));
    let routes = it.routes.iter().map(|route| {
        let view = route.cell.view(now);
        json!({
            "name": &*route.name,
            "of_class": route.of_class,
            "gate": gate_code(route.cell.gate(now)),
            "calls": view.calls,
            "failures": view.failures,
        })
    });
    json!({
        "name": &*it.name,
        "kind": tidegate_providers::dialect(it.dialect).kind,
        "origin": &*it.origin.authority,
        "tls": it.origin.tls,
        "proxy": it.origin.proxy.as_ref().map(|it| &*it.authority),
        "addresses": addresses,
        "accounts": accounts.collect::<Vec<Value>>(),
        "routes": routes.collect::<Vec<Value>>(),
    })
}

fn account(snapshot: &Snapshot, provider: &Provider, it: &Account, now: Moment) -> Value {
    let keys = it.keys.iter().map(|id| {
        let key = snapshot.key(*id);
        json!({ "name": &*key.name, "weight": key.weight, "state": key_code(key.cell.state()) })
    });
    let quotas = provider.classes.iter().zip(&it.quotas).map(|(class, quota)| {
        let view = quota.view(now);
        json!({
            "class": &*class.name,
            "phase": phase_code(&view),
            "resting_s": view.resting_until.map(|until| until.since(now).as_secs_f64()),
            "in_flight": view.in_flight,
            "in_flight_cap": view.in_flight_cap,
            "limits": dimensions(&view).into_iter().filter(|(_, it)| it.limit.is_some()).map(|(name, it)| {
                (name.to_owned(), json!({ "limit": it.limit, "level": it.level, "learned": it.learned }))
            }).collect::<serde_json::Map<String, Value>>(),
        })
    });
    json!({
        "name": &*it.name,
        "weight": it.weight,
        "spent": it.cell.spent_since().is_some(),
        "keys": keys.collect::<Vec<Value>>(),
        "quotas": quotas.collect::<Vec<Value>>(),
    })
}

fn model(snapshot: &Snapshot, it: &Model) -> Value {
    let chain = it.chain.iter().map(|it| format!("{}/{}", snapshot.provider(it.provider).name, it.model));
    json!({ "name": &*it.name, "first": it.cell.first(), "chain": chain.collect::<Vec<String>>() })
}

/// The limits of a quota with their names.
pub(crate) fn dimensions(view: &QuotaView) -> [(&'static str, DimensionView); 4] {
    [
        ("requests", view.requests),
        ("input_tokens", view.input_tokens),
        ("output_tokens", view.output_tokens),
        ("tokens", view.tokens),
    ]
}

/// A stable name for where a quota stands.
pub(crate) fn phase_code(view: &QuotaView) -> &'static str {
    match view.phase {
        _ if view.resting_until.is_some() => "resting",
        Phase::Open => "open",
        Phase::Ramping { .. } => "ramping",
        Phase::Probing { .. } => "probing",
        // The rest is over, and nobody has asked yet.
        Phase::Resting { .. } => "probe_due",
    }
}

/// A stable name for what is known of a key.
pub(crate) fn key_code(state: KeyState) -> &'static str {
    match state {
        KeyState::Good => "good",
        KeyState::Suspect => "suspect",
        KeyState::Out => "out",
    }
}

fn gate_code(gate: RouteGate) -> &'static str {
    match gate {
        RouteGate::Open => "open",
        RouteGate::Probe => "probe_due",
        RouteGate::Closed { overloaded: true, .. } => "overloaded",
        RouteGate::Closed { overloaded: false, .. } => "failing",
    }
}
