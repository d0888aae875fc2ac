//! What the world around the gateway knows: every call as its caller saw it, every attempt as its provider saw it, and
//! the first thing that was not as promised. Providers and callers write here; the checks compare it with what the
//! gateway says of itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use tidegate_core::Usage;
use tidegate_core::access::Entry;

/// Shared by all who take part in a run. No borrow is held across an await.
pub type Shared = Rc<RefCell<Ledger>>;

/// The ledger of one run.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By their number in the script; calls of the closing check follow behind.
    pub calls: Vec<CallRecord>,
    /// By the number that a provider gave them, in the order in which they arrived.
    pub attempts: Vec<AttemptRecord>,
    /// What the gateway's access log says, by request id.
    pub entries: BTreeMap<String, Entry>,
    /// Connections to providers by the address that the gateway had on them.
    pub links: BTreeMap<std::net::SocketAddr, u64>,
    /// For each of them, the bytes of the replies that its provider wanted to send.
    pub proper_bytes: BTreeMap<u64, u64>,
    /// Steps taken.
    pub step: u64,
    /// Virtual time of the step.
    pub now_ns: u64,
    /// The closing check has begun: nothing goes wrong any more.
    pub is_calm: bool,
    /// The shutdown has begun.
    pub is_ending: bool,
    /// Calls whose caller has not seen their end.
    pub open_calls: usize,
    /// The first promise that was broken.
    pub failure: Option<Failure>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The assertion, as the failure model numbers them.
    pub assertion: u8,
    /// What is wrong.
    pub what: String,
    /// The call, where it is about one.
    pub call: Option<usize>,
    /// The step.
    pub step: u64,
    /// Virtual time, since the start of monotonic time.
    pub now_ns: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { assertion, what, call, step, now_ns } = self;
        let at_ms = now_ns / 1_000_000;
        write!(f, "assertion {assertion} at step {step}, {at_ms} ms: {what}")?;
        match call {
            Some(call) => write!(f, " (call {call})"),
            None => Ok(()),
        }
    }
}

/// A call as its caller sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallRecord {
    /// Whose it is.
    pub tenant: usize,
    /// It counts tokens only.
    pub counts_tokens: bool,
    /// It was made at the end, when nothing goes wrong any more.
    pub is_closing: bool,
    /// The step in which its request was written, and the time.
    pub sent: Option<(u64, u64)>,
    /// How it ended, for its caller, and in which step.
    pub end: Option<(End, u64)>,
    /// When it ended.
    pub ended_ns: u64,
    /// The seconds that its answer asks to wait for.
    pub retry_after_s: Option<u64>,
    /// The id that the gateway gave it.
    pub request_id: Option<String>,
    /// The attempt whose content the caller saw.
    pub attempt: Option<usize>,
    /// The first content of it went to the caller's socket.
    pub content_out: bool,
    /// Tries that were seen on the wire, in order: attempts' numbers are known a little later.
    pub tries: Vec<TryRecord>,
}

/// One request of the gateway to a provider, as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryRecord {
    /// The step of the write.
    pub step: u64,
    /// The time of it.
    pub now_ns: u64,
    /// The revision that its path shows.
    pub revision: u64,
    /// Provider, account, key.
    pub key: (usize, usize, usize),
    /// It was refused or failed in a way that makes the next move one to be paid for.
    pub costs_move: bool,
    /// The step in which the provider began to answer, or in which the connection ended.
    pub answered: Option<u64>,
    /// Nothing of an answer had come when it ended, on a connection that had carried a call before: the same try may be
    /// made once more on a fresh one.
    pub may_be_repeated: bool,
    /// A step that came before it was decided.
    pub decided_after: u64,
}

/// How a call ended, as its caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A whole answer, or a stream with its proper end.
    Complete,
    /// A stream with an error event at its end.
    ErrorEvent,
    /// An error with this status.
    Refused(u16),
    /// The caller left.
    Left,
    /// The connection ended in the middle of the answer, or before it.
    Cut {
        /// Nothing of an answer had come.
        before: bool,
    },
}

/// An attempt as its provider sees it.
#[derive(Clone, Debug, Default)]
pub struct AttemptRecord {
    /// The call whose mark it carried.
    pub call: usize,
    /// Provider, account, key.
    pub key: (usize, usize, usize),
    /// The model's class.
    pub class: usize,
    /// The usage that a good answer states, if it comes to its end.
    pub stated: Option<Usage>,
    /// The end of a good reply was written.
    pub is_complete: bool,
    /// It was good to begin with.
    pub is_good: bool,
}

impl Ledger {
    /// Takes note of a broken promise; only the first one counts.
    pub fn fail(&mut self, assertion: u8, call: Option<usize>, what: impl Into<String>) {
        let (step, now_ns) = (self.step, self.now_ns);
        self.failure.get_or_insert_with(|| Failure { assertion, what: what.into(), call, step, now_ns });
    }
}

/// The mark of a call, as its request carries it.
pub fn mark(tenant: usize, call: usize) -> String {
    format!("<T{tenant}C{call}>")
}

/// A mark as it was found in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The tenant.
    pub tenant: usize,
    /// The call.
    pub call: usize,
    /// The attempt, in what a provider wrote.
    pub attempt: Option<usize>,
    /// The position of this piece of content.
    pub piece: Option<usize>,
    /// It is the last piece.
    pub is_last: bool,
}

/// A piece of content that a provider writes.
pub fn piece(tenant: usize, call: usize, attempt: usize, at: usize, is_last: bool) -> String {
    format!("<T{tenant}C{call}A{attempt}S{at}{}>", if is_last { "E" } else { "" })
}

/// The marks in a text, in order, and how much of the text was read: a mark that is cut by its end is left.
pub fn marks(text: &[u8]) -> (Vec<Mark>, usize) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(start) = text[at..].iter().position(|it| *it == b'<').map(|it| at + it) {
        let Some(end) = text[start..].iter().take(64).position(|it| *it == b'>').map(|it| start + it) else {
            let is_cut = text.len() - start < 64;
            return (found, if is_cut { start } else { start + 1 });
        };
        found.extend(parse(&text[start + 1..end]));
        at = end + 1;
    }
    (found, text.len())
}

fn parse(text: &[u8]) -> Option<Mark> {
    let text = std::str::from_utf8(text).ok()?;
    let mut mark = Mark::default();
    let mut seen = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let letter = rest.chars().next()?;
        rest = &rest[letter.len_utf8()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = rest[..digits].parse().ok();
        rest = &rest[digits..];
        match letter {
            'T' => mark.tenant = number?,
            'C' => mark.call = number?,
            'A' => mark.attempt = Some(number?),
            'S' => mark.piece = Some(number?),
            'E' => mark.is_last = true,
            _ => return None,
        }
        seen += 1;
    }
    (seen >= 2).then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_whole_and_in_order() {
        let text = format!("x{}y<b>{}<T1", mark(1, 22), piece(3, 4, 5, 6, true));
        let (found, read) = marks(text.as_bytes());
        assert_eq!(found[0], Mark { tenant: 1, call: 22, ..Mark::default() });
        let last = Mark { tenant: 3, call: 4, attempt: Some(5), piece: Some(6), is_last: true };
        assert_eq!(found[1..], [last]);
        assert_eq!(&text[read..], "<T1");
        assert_eq!(marks(b"no mark < here").1, 8);
    }
}
