//! The providers of a run: they read requests, hold true quotas, answer as the script has it, and write down what they
//! did. What an attempt meets is drawn at its own place (call, number of the attempt), so it does not depend on what
//! other calls did.

mod quota;
mod reply;
mod turn;

use std::cell::RefCell;
use std::rc::Rc;

use tidegate_core::Usage;
use tidegate_ring::{Conn, Listener, now_ns, sleep_until, spawn};

use crate::config::{self, key_of_secret, provider_address};
use crate::http::{Kind, Message, find};
use crate::ledger::{AttemptRecord, Shared, marks};
use crate::script::{MS_NS, Script};

pub use quota::Quotas;
pub use turn::{Base, Turn};

/// What all connections of all providers share.
pub struct Providers {
    script: Rc<Script>,
    ledger: Shared,
    quotas: RefCell<Quotas>,
    start_ns: u64,
}

/// A request as a provider understands it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Position of the attempt in the ledger.
    pub attempt: usize,
    /// The call's mark.
    pub tenant: usize,
    /// The call's mark.
    pub call: usize,
    /// Provider, account, key.
    pub key: (usize, usize, usize),
    /// The model's class.
    pub class: usize,
    /// The dialect.
    pub dialect: usize,
    /// A stream is asked for.
    pub streamed: bool,
    /// Its usage is asked for.
    pub wants_usage: bool,
    /// Only the number of tokens is.
    pub counts_tokens: bool,
    /// Bytes of the body.
    pub body_bytes: usize,
}

/// The main future of the worker that all providers run on.
pub async fn serve(script: Rc<Script>, ledger: Shared, start_ns: u64) {
    let quotas = RefCell::new(Quotas::of(&script));
    let providers = Rc::new(Providers { script, ledger, quotas, start_ns });
    for at in 0..providers.script.providers.len() {
        let Ok(listener) = Listener::bind(provider_address(at)) else { continue };
        let providers = providers.clone();
        spawn(async move {
            loop {
                match listener.accept().await {
                    Ok(conn) => {
                        let providers = providers.clone();
                        spawn(async move { providers.serve_connection(at, &conn).await }).detach();
                    }
                    Err(_) => sleep_until(now_ns() + 20 * MS_NS).await,
                }
            }
        })
        .detach();
    }
    std::future::pending().await
}

impl Providers {
    async fn serve_connection(&self, provider: usize, conn: &Conn) {
        let link = conn.peer_addr().and_then(|it| self.ledger.borrow().links.get(&it).copied());
        let mut message = Message::default();
        loop {
            while !message.is_done() {
                match conn.recv().await {
                    Ok(chunk) if !chunk.is_empty() => message.feed(Kind::Request, &chunk),
                    _ => return,
                }
                if message.is_broken() {
                    return self.fail(8, None, "a provider got a request that is none");
                }
            }
            let Some(asked) = self.understand(provider, &message) else { return };
            message.next(Kind::Request);
            if !self.answer(conn, link, &asked).await {
                return;
            }
        }
    }

    /// What the request asks for; `None` where it is not a request that a provider should ever see.
    fn understand(&self, provider: usize, message: &Message) -> Option<Asked> {
        let head = message.head()?;
        let dialect = self.script.providers[provider].dialect;
        let credential = match dialect {
            0 => head.field("x-api-key"),
            _ => head.field("authorization").and_then(|it| it.strip_prefix("Bearer ")),
        };
        let Some(key) = credential.and_then(key_of_secret).filter(|it| it.0 == provider) else {
            self.fail(8, None, format!("provider {provider} was shown {credential:?}"));
            return None;
        };
        let (found, _) = marks(message.body());
        let Some(mark) = found.first().copied() else {
            self.fail(8, None, "a request without a mark reached a provider");
            return None;
        };
        if found.iter().any(|it| (it.tenant, it.call) != (mark.tenant, mark.call)) {
            self.fail(8, Some(mark.call), format!("foreign marks in one request: {found:?}"));
        }
        let whole = message.body().len();
        if head.fields.iter().any(|(_, value)| value.contains("vk-"))
            || find(message.body(), b"vk-").is_some()
        {
            self.fail(8, Some(mark.call), "a virtual key went upstream");
        }
        let holds = |text: &str| find(message.body(), text.as_bytes()).is_some();
        let class = (0..config::CLASSES).find(|class| holds(&config::model_name(dialect, *class)));
        let Some(class) = class else {
            self.fail(8, Some(mark.call), "a model that no configuration names reached a provider");
            return None;
        };
        let counts_tokens = head.path().ends_with("tokens");
        let mut ledger = self.ledger.borrow_mut();
        let attempt = ledger.attempts.len();
        ledger.attempts.push(AttemptRecord { call: mark.call, key, class, ..AttemptRecord::default() });
        Some(Asked {
            attempt,
            tenant: mark.tenant,
            call: mark.call,
            key,
            class,
            dialect,
            streamed: holds("\"stream\":true"),
            wants_usage: dialect == 0 || holds("\"include_usage\":true"),
            counts_tokens,
            body_bytes: whole,
        })
    }

    /// Answers; true where the connection may carry another request.
    async fn answer(&self, conn: &Conn, link: Option<u64>, asked: &Asked) -> bool {
        let since_ns = now_ns().saturating_sub(self.start_ns);
        let (mut turn, calm) = {
            let ledger = self.ledger.borrow();
            let number = ledger.attempts[..asked.attempt].iter().filter(|it| it.call == asked.call).count();
            (Turn::draw(&self.script, asked, number as u64, ledger.is_calm), ledger.is_calm)
        };
        let spell = self.script.spells.iter().find(|it| (it.from_ns..it.until_ns).contains(&since_ns));
        if let Some(spell) = spell.filter(|_| !calm) {
            turn.base = spell.base;
        }
        let now = now_ns();
        let (turn, limits) = self.quotas.borrow_mut().take(asked, turn, calm, now);
        self.note_beginning(asked, &turn);
        sleep_until(now_ns() + turn.think_ns).await;
        let reply = reply::write(asked, &turn, &limits);
        if let Some(link) = link {
            let proper: usize = reply.parts.iter().map(Vec::len).sum();
            *self.ledger.borrow_mut().proper_bytes.entry(link).or_default() += proper as u64;
        }
        let mut sent = 0;
        for (at, part) in reply.parts.iter().enumerate() {
            if at > 1 && turn.gap_ns > 0 {
                sleep_until(now_ns() + turn.gap_ns).await;
            }
            let mut rest = &part[..];
            while !rest.is_empty() {
                let stops = [turn.stall_after, turn.cut_after].into_iter().flatten();
                let until = stops.filter(|it| *it > sent).min();
                let now = until.map_or(rest.len(), |it| (it - sent).min(rest.len()));
                if conn.send(&[&rest[..now]]).await.is_err() {
                    return false;
                }
                sent += now;
                rest = &rest[now..];
                if turn.cut_after.is_some_and(|it| it <= sent) {
                    if turn.cut_hard {
                        conn.abort();
                    }
                    return false;
                }
                if turn.stall_after.is_some_and(|it| it == sent) {
                    sleep_until(now_ns() + turn.stall_ns).await;
                }
            }
        }
        self.note_end(asked, &turn);
        if turn.surplus && conn.send(&[b"surplus bytes that nobody asked for"]).await.is_err() {
            return false;
        }
        reply.keeps_connection && !turn.hangup
    }

    fn note_beginning(&self, asked: &Asked, turn: &Turn) {
        let mut ledger = self.ledger.borrow_mut();
        let attempt = &mut ledger.attempts[asked.attempt];
        attempt.is_good = turn.base == Base::Good && !turn.garbage;
        attempt.stated = (attempt.is_good && turn.states_usage).then(|| usage_of(asked, turn));
        let costs = turn.costs_move();
        let Some(call) = ledger.calls.get_mut(asked.call) else { return };
        // What the gateway makes of it, it makes after this.
        if let Some(it) = call.tries.iter_mut().rev().find(|it| it.key == asked.key) {
            it.costs_move = costs;
        }
    }

    fn note_end(&self, asked: &Asked, turn: &Turn) {
        let mut ledger = self.ledger.borrow_mut();
        let attempt = &mut ledger.attempts[asked.attempt];
        attempt.is_complete = attempt.is_good && turn.is_terminated(asked);
    }

    fn fail(&self, assertion: u8, call: Option<usize>, what: impl Into<String>) {
        self.ledger.borrow_mut().fail(assertion, call, what);
    }
}

/// The usage that a good answer states.
pub fn usage_of(asked: &Asked, turn: &Turn) -> Usage {
    let input = (asked.body_bytes as u64 / 4).max(1);
    Usage { input_tokens: Some(input), output_tokens: Some(turn.output_tokens), ..Usage::default() }
}
