//! What the access log says of one call: plain facts of a fixed size, so that writing one down allocates nothing and
//! handing it over copies it. Names stay with the control plane; the ids here are positions in the snapshot of the
//! entry's revision. Holds no body and no credential.

use std::net::SocketAddr;
use std::time::Duration;

use crate::family::Family;
use crate::limits::{ACCESS_METHOD_BYTES_MAX, ACCESS_TEXT_BYTES_MAX, ACCESS_TRIES_MAX};
use crate::report::{AttemptReport, CallReport};
use crate::route::PlannedName;
use crate::snapshot::{AccountId, DialectId, KeyId, ProviderId};
use crate::verdict::Verdict;

/// Characters of a call's id.
pub const REQUEST_ID_CHARS: usize = 28;

/// One call, as the access log tells it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What metrics are told of it, too.
    pub call: CallReport,
    /// The id that the caller was given.
    pub id: [u8; REQUEST_ID_CHARS],
    /// The other end of the caller's connection.
    pub client: Option<SocketAddr>,
    /// Unix time of its beginning, in ms.
    pub began_unix_ms: u64,
    /// The dialect the caller spoke.
    pub dialect: DialectId,
    /// Method of the request; empty where its head could not be read.
    pub method: Excerpt<ACCESS_METHOD_BYTES_MAX>,
    /// Path of the request, without its query; empty where its head could not be read.
    pub path: Excerpt<ACCESS_TEXT_BYTES_MAX>,
    /// What the caller wanted to do; `None` for a sign of life, and where there is no such operation.
    pub operation: Option<Family>,
    /// The model asked for; empty where the call did not come so far.
    pub model: Excerpt<ACCESS_TEXT_BYTES_MAX>,
    /// How the answer reached the caller.
    pub delivery: Delivery,
    /// Bytes of head and body taken from the caller.
    pub bytes_in: u64,
    /// Bytes handed to the caller's socket, heads and framing included.
    pub bytes_out: u64,
    /// From the first choice of an account to the end of the last reply; `None` without a try.
    pub upstream: Option<Duration>,
    /// The tries.
    pub tries: Tries,
}

/// How an answer reached the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// As a reply with its own status, or not at all.
    #[default]
    Plain,
    /// A stream whose status was out ended with an error event.
    InBand,
    /// A reply that was under way was broken off, so that nobody takes it for the whole.
    Cut,
}

/// One try at one upstream.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    /// Where it went.
    pub provider: ProviderId,
    /// Whose quota it used.
    pub account: AccountId,
    /// Which credential it used.
    pub key: KeyId,
    /// The model name there.
    pub name: PlannedName,
    /// What came back; `None` where the call ended before anything did.
    pub verdict: Option<Verdict>,
    /// Status of the reply, zero without one.
    pub status: u16,
    /// From the choice of the account to the commit point, or to the failure.
    pub elapsed: Duration,
}

/// The tries of a call, in order: the first ones and the last one. What does not fit in between is counted only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tries {
    kept: [Option<Try>; ACCESS_TRIES_MAX],
    begun: u16,
}

impl Tries {
    /// Notes a try that begins now.
    pub fn begin(&mut self, it: Try) {
        self.begun = self.begun.saturating_add(1);
        *self.last() = Some(it);
    }

    /// Notes what the last try came to. A later verdict replaces an earlier one: a reply may begin well and break.
    pub fn judge(&mut self, report: &AttemptReport) {
        if let Some(it) = self.last() {
            it.verdict = Some(report.verdict);
            it.status = report.status;
            it.elapsed = report.elapsed;
        }
    }

    /// Those that were kept, in order.
    pub fn kept(&self) -> impl Iterator<Item = &Try> {
        self.kept.iter().flatten()
    }

    /// How many were left out before the last one.
    pub fn omitted(&self) -> usize {
        usize::from(self.begun).saturating_sub(ACCESS_TRIES_MAX)
    }

    fn last(&mut self) -> &mut Option<Try> {
        &mut self.kept[usize::from(self.begun).clamp(1, ACCESS_TRIES_MAX) - 1]
    }
}

/// The beginning of a text that a caller chose, whole characters only.
#[derive(Clone, Copy)]
pub struct Excerpt<const BYTES: usize> {
    bytes: [u8; BYTES],
    len: u8,
    cut: bool,
}

impl<const BYTES: usize> Excerpt<BYTES> {
    const FITS: () = assert!(BYTES <= u8::MAX as usize, "lengths are counted in a u8");

    /// No text.
    pub const EMPTY: Excerpt<BYTES> = Excerpt { bytes: [0; BYTES], len: 0, cut: false };

    /// As much of `text` as fits.
    pub fn of(text: &str) -> Excerpt<BYTES> {
        const { Self::FITS };
        let end = text.floor_char_boundary(BYTES);
        let mut bytes = [0; BYTES];
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        Excerpt { bytes, len: end as u8, cut: end < text.len() }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Made of whole characters.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }

    /// Whether there was more of it.
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}

impl<const BYTES: usize> Default for Excerpt<BYTES> {
    fn default() -> Excerpt<BYTES> {
        Excerpt::EMPTY
    }
}

impl<const BYTES: usize> std::fmt::Debug for Excerpt<BYTES> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}{}", self.as_str(), if self.cut { "…" } else { "" })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::snapshot::{ClassId, RouteId};

    fn a_try(key: u16) -> Try {
        Try {
            provider: ProviderId(0),
            account: AccountId(0),
            key: KeyId(key),
            name: PlannedName::AsAsked,
            verdict: None,
            status: 0,
            elapsed: Duration::ZERO,
        }
    }

    fn report(verdict: Verdict) -> AttemptReport {
        AttemptReport {
            revision: 1,
            provider: ProviderId(0),
            account: AccountId(0),
            key: KeyId(0),
            class: ClassId(0),
            route: RouteId(0),
            verdict,
            status: 200,
            number: 0,
            elapsed: Duration::from_millis(3),
        }
    }

    #[test]
    fn the_first_tries_and_the_last_are_kept() {
        let mut tries = Tries::default();
        tries.judge(&report(Verdict::Success));
        assert_eq!((tries.kept().count(), tries.omitted()), (0, 0), "nothing was tried");
        for key in 0..20 {
            tries.begin(a_try(key));
        }
        tries.judge(&report(Verdict::Success));
        let keys: Vec<u16> = tries.kept().map(|it| it.key.0).collect();
        assert_eq!(keys, [0, 1, 2, 3, 4, 5, 6, 19]);
        assert_eq!(tries.omitted(), 12);
        let verdicts: Vec<_> = tries.kept().map(|it| it.verdict).collect();
        assert_eq!(verdicts[6..], [None, Some(Verdict::Success)]);
    }

    #[test]
    fn excerpts_hold_whole_characters() {
        let text: Excerpt<4> = Excerpt::of("abcd");
        assert_eq!((text.as_str(), text.is_cut()), ("abcd", false));
        let text: Excerpt<4> = Excerpt::of("abcé");
        assert_eq!((text.as_str(), text.is_cut()), ("abc", true));
        let text: Excerpt<4> = Excerpt::of("");
        assert_eq!((text.as_str(), text.is_cut()), ("", false));
    }

    #[test]
    fn an_entry_is_small_enough_to_be_copied() {
        assert!(size_of::<Entry>() <= 1_280, "{} bytes", size_of::<Entry>());
    }
}
