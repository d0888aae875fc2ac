//! The wire as it is written, step by step: which request of the gateway belongs to which call, where it goes and what
//! it was not allowed to find closed; which content went out to whom, and that nothing is sent upstream after it.

use std::collections::BTreeMap;

use tidegate_core::Snapshot;
use tidegate_ring::sim::WireEvent;

use crate::cells::{Cells, Place};
use crate::config::{self, GATEWAY, key_of_secret, provider_at, revision_of_path};
use crate::http::{Kind, Message, find};
use crate::ledger::{Ledger, TryRecord, marks};
use crate::limits::Limits;
use crate::script::{SECOND_NS, Script};

/// A revoked key is refused on every worker within this time.
const REVOKED_WITHIN_NS: u64 = SECOND_NS;

/// What is known of the wire.
#[derive(Default)]
pub struct Watch {
    up: BTreeMap<u64, UpLink>,
    down: BTreeMap<u64, DownLink>,
    /// Moves that a budget paid for, by time.
    paid: Vec<u64>,
    /// When each call was sent upstream for the first time.
    first_tries: Vec<u64>,
}

/// A connection of the gateway to a provider.
#[derive(Default)]
struct UpLink {
    provider: usize,
    request: Message,
    is_known: bool,
    /// The request under way: its call, its position among the call's tries, and what it waits at.
    current: Option<(usize, usize, Option<Place>)>,
    /// Bytes of replies that reached the gateway's socket.
    arrived: u64,
    /// The step in which there were more than any reply had.
    surplus_since: Option<u64>,
    /// Requests that it has carried.
    carried: usize,
}

/// A connection of a caller.
#[derive(Default)]
struct DownLink {
    request: Message,
    call: Option<usize>,
    tail: Vec<u8>,
}

/// What a check of the wire needs beside it.
pub struct Surroundings<'a> {
    /// The script.
    pub script: &'a Script,
    /// Any snapshot: names and routes are the same in all.
    pub snapshot: &'a Snapshot,
    /// The newest revision.
    pub revision: u64,
    /// When virtual keys were revoked.
    pub revoked_ns: &'a [Option<u64>],
}

impl Watch {
    /// Takes in one event.
    pub fn see(
        &mut self,
        event: WireEvent,
        around: &Surroundings<'_>,
        cells: &mut Cells,
        limits: &Limits,
        ledger: &mut Ledger,
    ) {
        match event {
            WireEvent::Connect { link, from, to } => {
                if let Some(provider) = provider_at(to) {
                    self.up.insert(link, UpLink { provider, ..UpLink::default() });
                    ledger.links.insert(from, link);
                } else if to == GATEWAY {
                    self.down.insert(link, DownLink::default());
                }
            }
            WireEvent::Write { link, by_client, bytes } => {
                if let Some(up) = self.up.get_mut(&link) {
                    match by_client {
                        true => self.see_request(link, &bytes, around, cells, limits, ledger),
                        false => up.is_answered(true, cells, ledger),
                    }
                } else if let Some(down) = self.down.get_mut(&link) {
                    match by_client {
                        true => down.see_request(&bytes, ledger),
                        false => down.see_answer(&bytes, ledger),
                    }
                }
            }
            WireEvent::Arrive { link, by_client: false, bytes } => {
                if let Some(up) = self.up.get_mut(&link) {
                    up.arrived += bytes as u64;
                    let proper = ledger.proper_bytes.get(&link).copied().unwrap_or(0);
                    if up.arrived > proper {
                        up.surplus_since.get_or_insert(ledger.step);
                    }
                }
            }
            WireEvent::Arrive { .. } => {}
            WireEvent::Close { link, by_client } => {
                if let Some(up) = self.up.get_mut(&link) {
                    up.is_answered(false, cells, ledger);
                    if by_client {
                        self.up.remove(&link);
                    }
                }
            }
            WireEvent::Broken { link } => {
                if let Some(up) = self.up.get_mut(&link) {
                    up.is_answered(false, cells, ledger);
                }
            }
        }
    }

    /// Moves that a budget paid for.
    pub fn paid_moves(&self) -> usize {
        self.paid.len()
    }

    fn see_request(
        &mut self,
        link: u64,
        bytes: &[u8],
        around: &Surroundings<'_>,
        cells: &mut Cells,
        limits: &Limits,
        ledger: &mut Ledger,
    ) {
        let Some(up) = self.up.get_mut(&link) else { return };
        if up.request.is_empty() {
            up.is_known = false;
        }
        up.request.feed(Kind::Request, bytes);
        if !up.is_known && up.request.head().is_some() {
            let body = up.request.body();
            let Some(mark) = marks(body).0.first().copied() else {
                if up.request.is_done() {
                    ledger.fail(8, None, "a request without a mark went upstream");
                }
                return;
            };
            up.is_known = true;
            self.begin_try(link, mark.call, around, cells, limits, ledger);
        }
        if let Some(up) = self.up.get_mut(&link)
            && up.request.is_done()
        {
            up.request.next(Kind::Request);
        }
    }

    /// The first bytes of a request are out: everything that must hold now.
    fn begin_try(
        &mut self,
        link: u64,
        call: usize,
        around: &Surroundings<'_>,
        cells: &mut Cells,
        limits: &Limits,
        ledger: &mut Ledger,
    ) {
        let Some(up) = self.up.get_mut(&link) else { return };
        let Some(head) = up.request.head() else { return };
        let dialect = around.script.providers[up.provider].dialect;
        let field = ["x-api-key", "authorization"][dialect];
        let secret = head.field(field).map(|it| it.trim_start_matches("Bearer "));
        let Some(key) = secret.and_then(key_of_secret) else {
            return ledger.fail(8, Some(call), "a request went upstream without a credential of ours");
        };
        let class = (0..config::CLASSES)
            .find(|class| find(up.request.body(), config::model_name(dialect, *class).as_bytes()).is_some());
        let (Some(class), Some(revision)) = (class, revision_of_path(head.path())) else {
            return ledger.fail(8, Some(call), format!("a request went to {:?}", head.start));
        };
        let (step, now_ns) = (ledger.step, ledger.now_ns);
        let Some(record) = ledger.calls.get(call).cloned() else {
            return ledger.fail(8, Some(call), "a mark that nobody made");
        };
        let place = Place { key, class, route: route_of(around.snapshot, up.provider, dialect, class) };
        up.carried += 1;
        let decided_after = record.decided_after(key);
        if up.surplus_since.is_some_and(|it| it < decided_after) {
            ledger.fail(8, Some(call), "a connection was used again on which more than a reply had arrived");
        }
        up.current = Some((call, record.tries.len(), (!record.counts_tokens).then_some(place)));
        if !record.counts_tokens {
            cells.waits(&place, true);
            if let (true, Some((sent, _))) = (record.tries.is_empty(), record.sent) {
                limits.check_tokens(record.tenant, call, sent, ledger);
            }
        }
        if let Some(why) = cells.closed_since(&place, decided_after, record.sent.map_or(0, |it| it.0)) {
            ledger.fail(2, Some(call), format!("sent to {key:?} while {why}"));
        }
        self.check_try(call, &record, revision, around, ledger);
        let made = TryRecord {
            step,
            now_ns,
            revision,
            key,
            costs_move: false,
            answered: None,
            may_be_repeated: false,
            decided_after,
        };
        ledger.calls[call].tries.push(made);
    }

    fn check_try(
        &mut self,
        call: usize,
        record: &crate::ledger::CallRecord,
        revision: u64,
        around: &Surroundings<'_>,
        ledger: &mut Ledger,
    ) {
        if record.content_out {
            ledger.fail(4, Some(call), "another try after content was sent to the caller");
        }
        if let Some((end, step)) = record.end {
            // The caller may have left a moment ago, and the gateway not know.
            if end == crate::ledger::End::Complete && step < ledger.step {
                ledger.fail(4, Some(call), format!("another try after the call ended as {end:?}"));
            }
        }
        if let Some(first) = record.tries.first()
            && first.revision != revision
        {
            let was = first.revision;
            ledger.fail(6, Some(call), format!("revision {was} and then {revision} in one call"));
        }
        if revision > around.revision {
            ledger.fail(6, Some(call), format!("revision {revision} was never published"));
        }
        let revoked = around.revoked_ns.get(record.tenant).copied().flatten();
        if let (Some(revoked_ns), Some((_, sent_ns))) = (revoked, record.sent)
            && sent_ns > revoked_ns + REVOKED_WITHIN_NS
        {
            ledger.fail(2, Some(call), "sent upstream for a key that was revoked more than a second before");
        }
        // Each try may have been made twice: a kept connection may have died.
        let tries = record.tries.len();
        if tries >= 2 * around.script.attempts_max().max(1) {
            ledger.fail(5, Some(call), format!("{tries} tries"));
        }
        self.count_moves(record, ledger);
    }

    /// Moves that are not free, beyond the first of a call, stay within the budget that all share.
    fn count_moves(&mut self, record: &crate::ledger::CallRecord, ledger: &mut Ledger) {
        let now_ns = ledger.now_ns;
        let Some(last) = record.tries.last() else {
            return self.first_tries.push(now_ns);
        };
        let costing = record.tries.iter().filter(|it| it.costs_move).count();
        if !last.costs_move || costing < 2 {
            return;
        }
        self.paid.push(now_ns);
        let of_late =
            |all: &[u64], span_ns: u64| all.iter().rev().take_while(|it| **it + span_ns >= now_ns).count();
        let moves = of_late(&self.paid, SECOND_NS);
        // The floor, a bucket of one second, in two seconds that one may span; and a fifth of the calls of late.
        let allowed = 20 + of_late(&self.first_tries, 100 * SECOND_NS) / 5 + 1;
        if moves > allowed {
            ledger.fail(5, None, format!("{moves} paid moves in a second, and {allowed} are allowed"));
        }
    }
}

impl UpLink {
    /// The provider began to answer, or never will: the request waits no longer.
    fn is_answered(&mut self, by_bytes: bool, cells: &mut Cells, ledger: &mut Ledger) {
        let Some((call, at, place)) = self.current.take() else { return };
        if let Some(place) = place {
            cells.waits(&place, false);
        }
        let step = ledger.step;
        if let Some(it) = ledger.calls.get_mut(call).and_then(|it| it.tries.get_mut(at)) {
            it.answered = Some(step);
            it.may_be_repeated = !by_bytes && self.carried > 1;
        }
    }
}

impl DownLink {
    fn see_request(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        if self.request.is_done() {
            self.request.next(Kind::Request);
        }
        if self.request.is_empty() {
            self.call = None;
            self.tail.clear();
        }
        self.request.feed(Kind::Request, bytes);
        if self.call.is_none()
            && let Some(mark) = marks(self.request.body()).0.first()
        {
            self.call = Some(mark.call);
            let sent = (ledger.step, ledger.now_ns);
            if let Some(record) = ledger.calls.get_mut(mark.call) {
                record.sent.get_or_insert(sent);
            }
        }
    }

    fn see_answer(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let Some(record) = self.call.and_then(|it| ledger.calls.get_mut(it)) else { return };
        if record.content_out {
            return;
        }
        self.tail.extend_from_slice(bytes);
        let (found, read) = marks(&self.tail);
        self.tail.drain(..read);
        record.content_out = found.iter().any(|it| it.piece.is_some());
    }
}

impl crate::ledger::CallRecord {
    /// A step that came before the gateway decided where the next try of this call goes.
    fn decided_after(&self, key: (usize, usize, usize)) -> u64 {
        let sent = self.sent.map_or(0, |it| it.0);
        self.tries.last().map_or(sent, |it| match it.may_be_repeated && it.key == key {
            true => it.decided_after,
            false => it.answered.unwrap_or(it.step),
        })
    }
}

fn route_of(snapshot: &Snapshot, provider: usize, dialect: usize, class: usize) -> usize {
    let provider = &snapshot.providers[provider];
    let name = config::model_name(dialect, class);
    provider.route_of(&name, provider.class_of(&name)).index()
}
