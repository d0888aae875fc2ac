//! The provider's own books: every call with what became of it, and the requests byte for byte. Decides only what is
//! forgotten first when its bounds are reached; the sums are never cut.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// The journal as it is read from outside. Times are in ms since the mock started, on a monotonic clock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Journal {
    /// Now.
    pub now_ms: f64,
    /// By organization.
    pub organizations: BTreeMap<String, OrganizationBook>,
    /// Calls with no key or one that nobody has.
    pub strangers: Book,
    /// The calls, in the order of their arrival, the last ones if there were more than are kept.
    pub calls: Vec<CallRecord>,
    /// Calls that are no longer listed.
    pub calls_dropped: u64,
    /// Connections since the start.
    pub connections: u64,
    /// Connections that are open now.
    pub connections_open: u64,
    /// Connections closed because there were too many.
    pub connections_refused: u64,
    /// Requests that were no HTTP, or no request that the mock reads.
    pub malformed: u64,
}

/// One organization's sums.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OrganizationBook {
    /// All its keys together.
    pub total: Book,
    /// Each key.
    pub keys: BTreeMap<String, Book>,
}

/// Sums over generating calls. `accepted` is `completed + failed + left + open`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Calls that were let in: they counted against the quota.
    pub accepted: u64,
    /// Calls that were answered with an error instead, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Calls answered to the end.
    pub completed: u64,
    /// Calls let in and then ended by a scripted fault.
    pub failed: u64,
    /// Calls whose caller left before the end.
    pub left: u64,
    /// Calls under way.
    pub open: u64,
    /// Input tokens of the calls let in.
    pub input_tokens: u64,
    /// Output tokens produced.
    pub output_tokens: u64,
    /// Calls that generate nothing: token counts, models.
    pub other_calls: u64,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It is under way.
    Open,
    /// Answered to the end; also a refusal.
    Complete,
    /// Ended by a scripted fault.
    Failed,
    /// The caller left before the end.
    Left,
}

/// One call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallRecord {
    /// When its request had been read.
    pub at_ms: f64,
    /// When its reply ended.
    pub ended_ms: Option<f64>,
    /// Its key, as it came; empty if none.
    pub key: String,
    /// Its organization; empty if the key is nobody's.
    pub organization: String,
    /// Its model; empty if it names none.
    pub model: String,
    /// Its path.
    pub path: String,
    /// Whether it asked for a stream.
    pub stream: bool,
    /// The status of the reply; 0 if it had none.
    pub status: u16,
    /// Why it was refused.
    pub refused: Option<String>,
    /// The scripted fault it met.
    pub fault: Option<String>,
    /// The `MARK:` of its prompt.
    pub mark: Option<String>,
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens produced.
    pub output_tokens: u64,
    /// What became of it.
    pub ending: Ending,
}

/// A request byte for byte.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptRequest {
    /// When it had been read.
    pub at_ms: f64,
    /// Its head, from the request line to the empty line.
    pub head: String,
    /// Its body, without the framing of chunks.
    pub body: String,
    /// How `body` is written here.
    pub body_encoding: BodyEncoding,
}

impl KeptRequest {
    /// The bytes of the body.
    pub fn body_bytes(&self) -> Option<Vec<u8>> {
        match self.body_encoding {
            BodyEncoding::Utf8 => Some(self.body.as_bytes().to_vec()),
            BodyEncoding::Hex => (0..self.body.len() / 2)
                .map(|at| self.body.get(2 * at..2 * at + 2).and_then(|two| u8::from_str_radix(two, 16).ok()))
                .collect(),
        }
    }
}

/// How bytes are written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyEncoding {
    /// As text.
    Utf8,
    /// As hexadecimal digits, because it is no text.
    Hex,
}

/// A call that was let in and has not ended, as its own place in the books.
#[derive(Debug)]
pub(crate) struct OpenCall {
    organization: String,
    key: String,
    number: u64,
    era: u64,
}

/// The books as they are kept.
#[derive(Debug)]
pub(crate) struct Books {
    organizations: BTreeMap<String, OrganizationBook>,
    strangers: Book,
    calls: VecDeque<CallRecord>,
    /// Number of the first listed call; what was called before a reset has a smaller one.
    first_number: u64,
    /// Counts resets: a call let in before one is not entered after it.
    era: u64,
    calls_dropped: u64,
    calls_kept: usize,
    requests: VecDeque<Raw>,
    request_bytes: usize,
    requests_kept: usize,
    request_bytes_kept: usize,
    pub(crate) connections: u64,
    pub(crate) connections_open: u64,
    pub(crate) connections_refused: u64,
    pub(crate) malformed: u64,
}

#[derive(Debug)]
struct Raw {
    at_ms: f64,
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Books {
    pub(crate) fn new(calls_kept: usize, requests_kept: usize, request_bytes_kept: usize) -> Books {
        Books {
            organizations: BTreeMap::new(),
            strangers: Book::default(),
            calls: VecDeque::new(),
            first_number: 0,
            era: 0,
            calls_dropped: 0,
            calls_kept,
            requests: VecDeque::new(),
            request_bytes: 0,
            requests_kept,
            request_bytes_kept,
            connections: 0,
            connections_open: 0,
            connections_refused: 0,
            malformed: 0,
        }
    }

    /// Forgets everything but the connections. Calls under way are not entered any more.
    pub(crate) fn clear(&mut self) {
        self.era += 1;
        self.first_number += self.calls.len() as u64;
        self.calls.clear();
        self.calls_dropped = 0;
        self.organizations.clear();
        self.strangers = Book::default();
        self.requests.clear();
        self.request_bytes = 0;
        self.malformed = 0;
    }

    /// Keeps a request, and lets go of the oldest beyond the bounds.
    pub(crate) fn keep(&mut self, at_ms: f64, head: &[u8], body: &[u8]) {
        let bytes = head.len() + body.len();
        if self.requests_kept == 0 || bytes > self.request_bytes_kept {
            return;
        }
        while self.requests.len() >= self.requests_kept
            || self.request_bytes + bytes > self.request_bytes_kept
        {
            let Some(oldest) = self.requests.pop_front() else { break };
            self.request_bytes -= oldest.head.len() + oldest.body.len();
        }
        self.request_bytes += bytes;
        self.requests.push_back(Raw { at_ms, head: head.to_vec(), body: body.to_vec() });
    }

    pub(crate) fn kept(&self) -> Vec<KeptRequest> {
        self.requests.iter().map(Raw::show).collect()
    }

    /// Enters a call that generates nothing, or that is refused.
    pub(crate) fn enter_ended(&mut self, record: CallRecord, generates: bool) {
        self.each_book(&record.organization, &record.key, |book| match (&record.refused, generates) {
            (Some(reason), true) => *book.refused.entry(reason.clone()).or_default() += 1,
            _ => book.other_calls += 1,
        });
        self.push(record);
    }

    /// Enters a call that was let in.
    pub(crate) fn enter(&mut self, record: CallRecord) -> OpenCall {
        self.each_book(&record.organization, &record.key, |book| {
            book.accepted += 1;
            book.open += 1;
            book.input_tokens += record.input_tokens;
        });
        let (organization, key) = (record.organization.clone(), record.key.clone());
        let number = self.push(record);
        OpenCall { organization, key, number, era: self.era }
    }

    /// Enters output that a call produced.
    pub(crate) fn produce(&mut self, call: &OpenCall, tokens: u64) {
        if call.era != self.era {
            return;
        }
        self.each_book(&call.organization, &call.key, |book| book.output_tokens += tokens);
        if let Some(record) = self.listed(call.number) {
            record.output_tokens += tokens;
        }
    }

    /// Enters the end of a call.
    pub(crate) fn end(&mut self, call: &OpenCall, status: u16, ending: Ending, now_ms: f64) {
        if call.era != self.era {
            return;
        }
        self.each_book(&call.organization, &call.key, |book| {
            book.open -= 1;
            match ending {
                Ending::Failed => book.failed += 1,
                Ending::Left => book.left += 1,
                Ending::Open | Ending::Complete => book.completed += 1,
            }
        });
        if let Some(record) = self.listed(call.number) {
            record.status = status;
            record.ending = ending;
            record.ended_ms = Some(now_ms);
        }
    }

    /// The journal as it stands.
    pub(crate) fn show(&self, now_ms: f64) -> Journal {
        Journal {
            now_ms,
            organizations: self.organizations.clone(),
            strangers: self.strangers.clone(),
            calls: self.calls.iter().cloned().collect(),
            calls_dropped: self.calls_dropped,
            connections: self.connections,
            connections_open: self.connections_open,
            connections_refused: self.connections_refused,
            malformed: self.malformed,
        }
    }

    fn listed(&mut self, number: u64) -> Option<&mut CallRecord> {
        let place = number.checked_sub(self.first_number)?;
        self.calls.get_mut(usize::try_from(place).ok()?)
    }

    /// Lists a call and returns its number.
    fn push(&mut self, record: CallRecord) -> u64 {
        self.calls.push_back(record);
        let number = self.first_number + self.calls.len() as u64 - 1;
        if self.calls.len() > self.calls_kept {
            self.calls.pop_front();
            self.first_number += 1;
            self.calls_dropped += 1;
        }
        number
    }

    fn each_book(&mut self, organization: &str, key: &str, enter: impl Fn(&mut Book)) {
        if organization.is_empty() {
            enter(&mut self.strangers);
            return;
        }
        if !self.organizations.contains_key(organization) {
            self.organizations.insert(organization.to_owned(), OrganizationBook::default());
        }
        let Some(books) = self.organizations.get_mut(organization) else { return };
        enter(&mut books.total);
        if !books.keys.contains_key(key) {
            books.keys.insert(key.to_owned(), Book::default());
        }
        if let Some(book) = books.keys.get_mut(key) {
            enter(book);
        }
    }
}

impl Raw {
    fn show(&self) -> KeptRequest {
        let (body, body_encoding) = match std::str::from_utf8(&self.body) {
            Ok(text) => (text.to_owned(), BodyEncoding::Utf8),
            Err(_) => {
                let mut digits = String::with_capacity(2 * self.body.len());
                for byte in &self.body {
                    // Writing to a `String` cannot fail.
                    let _ = write!(digits, "{byte:02x}");
                }
                (digits, BodyEncoding::Hex)
            }
        };
        KeptRequest {
            at_ms: self.at_ms,
            head: self.head.iter().map(|&byte| char::from(byte)).collect(),
            body,
            body_encoding,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(mark: &str, refused: Option<&str>) -> CallRecord {
        CallRecord {
            at_ms: 0.0,
            ended_ms: None,
            key: "k".into(),
            organization: "o".into(),
            model: "m".into(),
            path: "/v1/messages".into(),
            stream: false,
            status: 0,
            refused: refused.map(str::to_owned),
            fault: None,
            mark: Some(mark.into()),
            input_tokens: 5,
            output_tokens: 0,
            ending: Ending::Open,
        }
    }

    #[test]
    fn sums_outlive_the_list_and_add_up() {
        let mut books = Books::new(2, 0, 0);
        let open: Vec<_> = ["a", "b", "c"].map(|mark| books.enter(record(mark, None))).into();
        books.enter_ended(record("d", Some("requests")), true);
        let endings = [Ending::Complete, Ending::Failed, Ending::Left];
        for (call, ending) in open.iter().zip(endings) {
            books.produce(call, 3);
            books.end(call, 200, ending, 1.0);
        }
        let journal = books.show(2.0);
        let total = &journal.organizations["o"].total;
        assert_eq!(total, &journal.organizations["o"].keys["k"]);
        assert_eq!((total.accepted, total.open, total.input_tokens, total.output_tokens), (3, 0, 15, 9));
        assert_eq!((total.completed, total.failed, total.left, total.refused["requests"]), (1, 1, 1, 1));
        assert_eq!((journal.calls.len(), journal.calls_dropped), (2, 2));
        assert_eq!((journal.calls[0].mark.as_deref(), journal.calls[0].ending), (Some("c"), Ending::Left));
    }

    #[test]
    fn a_reset_cuts_off_the_calls_under_way() {
        let mut books = Books::new(9, 0, 0);
        let before = books.enter(record("a", None));
        books.clear();
        let after = books.enter(record("b", None));
        books.end(&before, 200, Ending::Left, 1.0);
        books.end(&after, 200, Ending::Complete, 1.0);
        let journal = books.show(2.0);
        assert_eq!(
            (journal.organizations["o"].total.accepted, journal.organizations["o"].total.left),
            (1, 0)
        );
        assert_eq!(journal.calls.iter().map(|call| call.ending).collect::<Vec<_>>(), [Ending::Complete]);
    }

    #[test]
    fn requests_are_kept_within_bounds() {
        let mut books = Books::new(0, 2, 10);
        books.keep(0.0, b"head", b"");
        books.keep(1.0, b"h", b"\xff\x01");
        books.keep(2.0, b"head", b"body");
        books.keep(3.0, b"larger than", b"all bounds");
        let kept = books.kept();
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].head.as_str(), kept[0].body_bytes()), ("head", Some(b"body".to_vec())));
        books.keep(4.0, b"h", b"\xff");
        assert_eq!(books.kept()[1].body_bytes(), Some(vec![0xff]));
    }
}
