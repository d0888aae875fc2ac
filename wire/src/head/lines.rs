//! Finds where a head ends, over bytes that arrive in pieces, and sees to it that every line ends in CRLF.
//!
//! It decides nothing about what the lines say. It remembers how far it looked, so that feeding a growing buffer
//! again and again costs each byte once.

use memchr::memchr;

use super::{HEAD_BYTES_CEILING, HeadLimits, Refusal};

/// Below this many bytes every call checks what is there, so that a peer that does not speak HTTP (a TLS hello,
/// say) is refused at its first bytes.
const EARLY_BYTES: usize = 64;

/// Where a head was found to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Where the start line begins: behind the one tolerated pair of leading CRLF.
    pub(super) start: usize,
    /// One past the empty line.
    pub(super) end: usize,
}

/// How far the bytes of one unfinished head have been looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LineScan {
    start: usize,
    line_start: usize,
    looked: usize,
    checked: usize,
    lines: usize,
}

impl LineScan {
    /// Looks at what is new in `input`, which must begin with all bytes of the calls before.
    pub(super) fn advance(
        &mut self,
        input: &[u8],
        limits: &HeadLimits,
        leading_pair: bool,
    ) -> Result<Option<Bounds>, Refusal> {
        if input.len() < self.looked {
            // Not the same growing buffer: nothing that was remembered holds.
            *self = LineScan::default();
        }
        let limit = limits.head_bytes_max.min(HEAD_BYTES_CEILING);
        let window = input.get(..limit).unwrap_or(input);
        while let Some(found) = window.get(self.looked..).and_then(|rest| memchr(b'\n', rest)) {
            let line_feed = self.looked + found;
            self.looked = line_feed + 1;
            let line = window.get(self.line_start..line_feed).unwrap_or_default();
            let Some((b'\r', line)) = line.split_last() else { return Err(Refusal::BareLineEnd) };
            self.line_start = line_feed + 1;
            if !line.is_empty() {
                self.check_line_start(line)?;
                self.lines += 1;
            } else if self.lines > 0 {
                return Ok(Some(Bounds { start: self.start, end: line_feed + 1 }));
            } else if leading_pair && self.start == 0 {
                self.start = line_feed + 1;
            } else {
                return Err(Refusal::LeadingLines);
            }
        }
        self.looked = window.len();
        self.check_line_start(window.get(self.line_start..).unwrap_or_default())?;
        if input.len() < limit {
            return Ok(None);
        }
        Err(if self.lines == 0 { Refusal::TargetTooLong } else { Refusal::HeadTooLarge })
    }

    /// True when it is worth parsing the unfinished head now: a line has ended since, it is short, or it has
    /// doubled. That keeps the cost of a head fed byte by byte within a small multiple of its length.
    pub(super) fn worth_checking(&mut self, input_bytes: usize) -> bool {
        let line_ended = self.line_start > self.checked;
        let worth = line_ended || input_bytes < EARLY_BYTES || input_bytes >= self.checked.saturating_mul(2);
        if worth {
            self.checked = input_bytes;
        }
        worth
    }

    /// Where the start line begins in what was seen so far.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Also of a line that has not ended: how the bytes are cut must not decide which rule is named.
    fn check_line_start(&self, line: &[u8]) -> Result<(), Refusal> {
        match line.first() {
            Some(b' ' | b'\t') if self.lines > 0 => Err(Refusal::Folded),
            _ => Ok(()),
        }
    }
}
