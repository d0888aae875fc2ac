//! A limit never grants more than it has, loses nothing, and a refused call costs nothing.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use tidegate_core::admission::{Admit, CallerCells, LimitCell, Permit, Take, reserve};
use tidegate_core::moment::Moment;
use tidegate_core::snapshot::CallerLimits;
use tidegate_core::usage::{Estimate, Usage};

const NOW: Moment = Moment::from_ns(1_000_000_000_000);

fn takes(cell: &LimitCell, times: usize) -> usize {
    (0..times).filter(|_| cell.try_take(1, NOW) == Take::Granted).count()
}

fn cells(requests: u64, tokens: u64) -> Arc<CallerCells> {
    Arc::new(CallerCells::new(&CallerLimits {
        requests_per_minute: Some(requests),
        tokens_per_minute: Some(tokens),
        count_cache_reads: false,
    }))
}

fn ask(cells: &Arc<CallerCells>, tokens: u64) -> Option<Permit> {
    match reserve(cells, Estimate { input_tokens: tokens, output_tokens: 0 }, NOW) {
        Admit::Granted(permit) => Some(permit),
        Admit::Later { .. } => None,
    }
}

#[test]
fn six_takes_of_two_threads_get_what_there_is() {
    loom::model(|| {
        let cell = Arc::new(LimitCell::new(4));
        let other = {
            let cell = cell.clone();
            thread::spawn(move || takes(&cell, 3))
        };
        let granted = takes(&cell, 3) + other.join().unwrap();
        assert_eq!((granted, cell.remaining(NOW)), (4, 0));
    });
}

#[test]
fn takes_refunds_and_debts_add_up() {
    loom::model(|| {
        let cell = Arc::new(LimitCell::new(6));
        let other = {
            let cell = cell.clone();
            thread::spawn(move || {
                cell.owe(4, NOW);
                let granted = takes(&cell, 1);
                cell.give_back(1);
                granted as i64 + 3
            })
        };
        let granted = takes(&cell, 1) as i64;
        cell.owe(2, NOW);
        cell.give_back(1);
        let spent = granted + 1 + other.join().unwrap();
        assert_eq!(cell.remaining(NOW), 6 - spent);
    });
}

#[test]
fn a_call_refused_by_its_second_limit_costs_nothing() {
    loom::model(|| {
        let cells = cells(1, 200);
        let other = {
            let cells = cells.clone();
            thread::spawn(move || ask(&cells, 60))
        };
        let own = ask(&cells, 60);
        let permits = [own, other.join().unwrap()];
        assert_eq!(permits.iter().flatten().count(), 1, "one request, and room for it");
        assert_eq!((cells.requests().remaining(NOW), cells.tokens().remaining(NOW)), (0, 140));
        assert_eq!(cells.in_flight(), 1);
        drop(permits);
        assert_eq!((cells.tokens().remaining(NOW), cells.in_flight()), (200, 0));
    });
}

#[test]
fn permits_settle_once_each() {
    loom::model(|| {
        let cells = cells(9, 1_000);
        let (mut one, mut two) = (ask(&cells, 100).unwrap(), ask(&cells, 100).unwrap());
        let other = thread::spawn(move || {
            one.observe(Usage { input_tokens: Some(150), output_tokens: Some(0), ..Usage::default() });
            one.settle(NOW);
        });
        two.sent();
        two.observe(Usage { input_tokens: Some(30), output_tokens: Some(10), ..Usage::default() });
        drop(two);
        other.join().unwrap();
        assert_eq!((cells.tokens().remaining(NOW), cells.in_flight()), (1_000 - 150 - 40, 0));
    });
}

#[test]
fn a_reload_between_reserve_and_settle_leaves_no_more_than_the_new_limit() {
    loom::model(|| {
        let cells = cells(9, 100);
        let control = {
            let cells = cells.clone();
            thread::spawn(move || {
                cells.retune(&CallerLimits {
                    requests_per_minute: Some(9),
                    tokens_per_minute: Some(50),
                    count_cache_reads: false,
                });
            })
        };
        drop(ask(&cells, 40));
        control.join().unwrap();
        assert_eq!((cells.tokens().remaining(NOW), cells.in_flight()), (50, 0));
    });
}
