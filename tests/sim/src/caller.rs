//! The callers of a run: connections that carry one call after the other, each written, read and judged by what every
//! caller is promised. They know nothing of the gateway but its address.

mod answer;
mod request;

use std::rc::Rc;

use tidegate_ring::{Conn, now_ns, sleep_until, spawn};

use crate::config::GATEWAY;
use crate::ledger::{End, Shared};
use crate::script::{CallScript, MS_NS, Manner, SECOND_NS, Script};
use crate::trouble::Trouble;

pub use answer::Answer;
pub use request::PANIC_MARK;

/// A connection that was idle for longer is not used again: the gateway may be closing it at that very moment.
const IDLE_MAX_NS: u64 = 50 * SECOND_NS;

/// How often a slow reader waits: a large answer comes in thousands of pieces.
const PAUSES_MAX: usize = 50;

/// The main future of the worker that all callers run on; it ends with the last call.
pub async fn run(script: Rc<Script>, ledger: Shared, start_ns: u64) {
    let tasks: Vec<_> = (0..script.lanes)
        .map(|lane| {
            let (script, ledger) = (script.clone(), ledger.clone());
            spawn(async move { run_lane(&script, &ledger, lane, start_ns).await })
        })
        .collect();
    for task in tasks {
        if let Err(panicked) = task.await {
            ledger.borrow_mut().fail(0, None, format!("the simulated caller panicked: {panicked}"));
        }
    }
}

/// Calls that are to succeed, since nothing goes wrong any more: one for each of `wanted`, of (tenant, call).
pub async fn run_closing(script: Rc<Script>, ledger: Shared, wanted: Vec<(usize, CallScript)>) {
    let start_ns = now_ns();
    for (call, it) in wanted {
        sleep_until(start_ns + it.at_ns).await;
        let mut conn = None;
        one_call(&script, &ledger, call, &it, &mut conn).await;
    }
}

async fn run_lane(script: &Script, ledger: &Shared, lane: usize, start_ns: u64) {
    let mut calls: Vec<usize> = (0..script.calls.len()).filter(|it| script.calls[*it].lane == lane).collect();
    calls.sort_by_key(|it| script.calls[*it].at_ns);
    let mut conn: Option<(Conn, u64)> = None;
    for call in calls {
        let it = &script.calls[call];
        sleep_until(start_ns + it.at_ns).await;
        one_call(script, ledger, call, it, &mut conn).await;
        if script.slots < script.lanes {
            // Idle connections would keep others out.
            conn = None;
        }
    }
}

/// One call to its end; `conn` is what can be used for the next one.
async fn one_call(
    script: &Script,
    ledger: &Shared,
    call: usize,
    it: &CallScript,
    conn: &mut Option<(Conn, u64)>,
) {
    let held = conn.take().filter(|(held, idle_ns)| now_ns() < idle_ns + IDLE_MAX_NS && held.is_quiet());
    let deadline_ns = now_ns() + patience_ns(script);
    // Boxed: it is large, and many of them wait.
    let caller = Caller { script, ledger, call, it };
    let ended = tidegate_ring::deadline(deadline_ns, Box::pin(caller.call(held.map(|it| it.0)))).await;
    match ended {
        Ok(kept) => *conn = kept.map(|it| (it, now_ns())),
        Err(_) => ledger.borrow_mut().fail(9, Some(call), "the call has no end"),
    }
}

/// How long a call may take with everything going wrong, one try after the other.
fn patience_ns(script: &Script) -> u64 {
    let attempts = script.attempts_max() as u64;
    let crowd = (script.lanes / script.slots + 1) as u64;
    let standstill = if script.troubles.has(Trouble::Standstill) { 8 } else { 1 };
    crowd * standstill * (attempts * 60 + 300) * SECOND_NS
}

/// One call on its way.
struct Caller<'a> {
    script: &'a Script,
    ledger: &'a Shared,
    call: usize,
    it: &'a CallScript,
}

impl Caller<'_> {
    /// The connection, where it can be used again.
    async fn call(&self, held: Option<Conn>) -> Option<Conn> {
        let is_reused = held.is_some();
        let conn = match held {
            Some(conn) => conn,
            None => match self.connect().await {
                Some(conn) => conn,
                None => {
                    self.ended(End::Cut { before: true }, &Answer::new(self.call, self.it), true);
                    return None;
                }
            },
        };
        let mut answer = Answer::new(self.call, self.it);
        let end = self.exchange(&conn, &mut answer).await;
        self.ended(end, &answer, is_reused);
        // A stream that ended with an error is the last on its connection, though its head could not say so.
        let over = !matches!(end, End::Complete | End::Refused(_)) || !answer.keeps_connection();
        (!over).then_some(conn)
    }

    /// Tries until somebody listens, unless the gateway is about to end.
    async fn connect(&self) -> Option<Conn> {
        loop {
            if let Ok(conn) = Conn::connect(GATEWAY).await {
                return Some(conn);
            }
            if self.ledger.borrow().is_ending {
                return None;
            }
            sleep_until(now_ns() + 10 * MS_NS).await;
        }
    }

    async fn exchange(&self, conn: &Conn, answer: &mut Answer) -> End {
        let request = request::write(self.call, self.it);
        if conn.send(&[&request]).await.is_err() {
            // An answer may have come before: a refusal of what was not read to its end.
            return self.read(conn, answer).await;
        }
        match self.it.manner {
            Manner::LeavesAfter(wait_ns) => {
                let leave_ns = now_ns() + wait_ns;
                match tidegate_ring::deadline(leave_ns, self.read(conn, answer)).await {
                    Ok(end) => end,
                    Err(_) => self.leave(conn),
                }
            }
            _ => self.read(conn, answer).await,
        }
    }

    async fn read(&self, conn: &Conn, answer: &mut Answer) -> End {
        let mut pauses = 0;
        loop {
            if let Manner::Slow(pause_ns) = self.it.manner
                && pauses < PAUSES_MAX
            {
                pauses += 1;
                sleep_until(now_ns() + pause_ns).await;
            }
            let received = conn.recv().await;
            let mut ledger = self.ledger.borrow_mut();
            match received {
                Ok(chunk) if !chunk.is_empty() => answer.feed(&chunk, &mut ledger),
                Ok(_) => {
                    answer.at_end(&mut ledger);
                    return answer.end().unwrap_or(End::Cut { before: answer.is_empty() });
                }
                Err(_) => return answer.end().unwrap_or(End::Cut { before: answer.is_empty() }),
            }
            drop(ledger);
            if let Some(end) = answer.end() {
                return end;
            }
            if matches!(self.it.manner, Manner::LeavesAt(bytes) if answer.bytes() >= bytes) {
                return self.leave(conn);
            }
        }
    }

    fn leave(&self, conn: &Conn) -> End {
        if self.call.is_multiple_of(2) {
            conn.abort();
        }
        End::Left
    }

    fn ended(&self, end: End, answer: &Answer, is_reused: bool) {
        let mut ledger = self.ledger.borrow_mut();
        let (step, now_ns) = (ledger.step, ledger.now_ns);
        let record = &mut ledger.calls[self.call];
        record.request_id = answer.head().and_then(|it| it.field("x-tidegate-request-id").map(str::to_owned));
        record.attempt = answer.attempt();
        record.end = Some((end, step));
        record.ended_ns = now_ns;
        record.retry_after_s = answer.head().and_then(|it| it.field("retry-after")?.parse().ok());
        ledger.open_calls -= 1;
        if let End::Cut { before } = end
            && !self.is_excused(&ledger, before, is_reused, answer)
        {
            ledger.fail(
                3,
                Some(self.call),
                format!("the connection ended without an answer, before: {before}"),
            );
        }
        if ledger.calls[self.call].is_closing && end != End::Complete {
            ledger.fail(9, Some(self.call), format!("nothing goes wrong any more, and it ended as {end:?}"));
        }
    }

    /// Whether a connection may end without an answer, or in the middle of one.
    fn is_excused(
        &self,
        ledger: &crate::ledger::Ledger,
        before: bool,
        is_reused: bool,
        answer: &Answer,
    ) -> bool {
        let troubles = self.script.troubles;
        let network = [Trouble::Reset, Trouble::Standstill].into_iter().any(|it| troubles.has(it));
        let panics = self.it.manner == Manner::Panics;
        let slow = matches!(self.it.manner, Manner::Slow(_));
        let paused = troubles.has(Trouble::Pause) && before && is_reused;
        // What cannot be ended in any other way: a whole reply of which a part is out.
        let opaque = !before && answer.is_opaque() && !ledger.is_calm;
        network || panics || slow || paused || opaque || ledger.is_ending
    }
}
