//! Looks at a stream's events on their way: which of them may still be held, where content begins, what usage was
//! stated, whether the end was a proper one. Changes no byte; takes out one event where the gateway itself asked
//! for it. Never allocates per event: two buffers, reused.

use tidegate_core::limits;
use tidegate_core::usage::Usage;
use tidegate_core::verdict::Verdict;
use tidegate_providers::{Dialect, Phase, USAGE};
use tidegate_wire::passing::PassingMember;
use tidegate_wire::sse::{EventView, Splitter};

/// A stream's events between upstream and caller.
pub(crate) struct Tap {
    dialect: &'static Dialect,
    /// The usage event was asked for by the gateway, not by the caller.
    takes_usage_out: bool,
    splitter: Splitter,
    /// The beginning of an event whose end has not come.
    pending: Vec<u8>,
    /// Whole events ready to go out.
    ready: Vec<u8>,
    usage: Usage,
    content_events: u64,
    /// An event that passes unread has not ended yet: nothing may be put in between.
    inside: bool,
    /// The event that passes unread is the provider's own end; what looks for its usage.
    passing_end: Option<PassingMember>,
    /// Content was seen: nothing may be held any more.
    content: bool,
    /// The provider's own end was seen.
    ended: bool,
    error: Option<Verdict>,
}

impl Tap {
    /// `ready` is a buffer to be reused; it comes back by [`Tap::into_buffer`].
    pub(crate) fn new(dialect: &'static Dialect, takes_usage_out: bool, mut ready: Vec<u8>) -> Tap {
        ready.clear();
        Tap {
            dialect,
            takes_usage_out,
            splitter: Splitter::new(),
            pending: Vec::new(),
            ready,
            usage: Usage::default(),
            content_events: 0,
            inside: false,
            passing_end: None,
            content: false,
            ended: false,
            error: None,
        }
    }

    /// Takes in the next bytes of the stream.
    pub(crate) fn feed(&mut self, data: &[u8]) {
        if self.pending.is_empty() {
            let done = self.take_events(data);
            self.pending.extend_from_slice(&data[done..]);
        } else {
            let mut joined = std::mem::take(&mut self.pending);
            joined.extend_from_slice(data);
            let done = self.take_events(&joined);
            joined.drain(..done);
            self.pending = joined;
        }
        if self.pending.len() > limits::EVENT_BYTES_MAX {
            self.pass_unread();
        }
    }

    /// Takes the whole events at the front of `bytes`; returns how many bytes they are.
    fn take_events(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(span) = self.splitter.next_event(&bytes[done..]) {
            let end = done + span.end;
            // What passed unread ends here, and with it what could be misread for an event of its own.
            let passed = std::mem::take(&mut self.inside);
            if passed {
                self.end_passing(&bytes[done..end]);
            }
            let kept = passed || self.look_at(&bytes[done + span.start..end]);
            if kept {
                self.ready.extend_from_slice(&bytes[done..end]);
            }
            done = end;
        }
        done
    }

    /// Reads one event; false if it is to be taken out.
    fn look_at(&mut self, event: &[u8]) -> bool {
        let seen = self.dialect.stream_event(&EventView::parse(event));
        if let Some(usage) = seen.usage {
            self.usage.merge(usage);
        }
        match seen.phase {
            Phase::Content => {
                self.content = true;
                self.content_events += 1;
            }
            Phase::End => self.ended = true,
            Phase::Error(verdict) => self.error = self.error.or(Some(verdict)),
            Phase::Held | Phase::Other => {}
        }
        !(self.takes_usage_out && seen.usage_only)
    }

    /// An event larger than any that is looked at: it passes as it comes.
    fn pass_unread(&mut self) {
        if self.inside {
            if let Some(end) = &mut self.passing_end {
                end.feed(&self.pending);
            }
        } else {
            self.begin_passing();
        }
        self.ready.append(&mut self.pending);
        self.splitter = Splitter::new();
        self.content = true;
        self.inside = true;
    }

    /// Some streams end with an event that repeats everything, so it may be large: its beginning says what it is.
    fn begin_passing(&mut self) {
        let opening = &self.pending;
        if self.dialect.stream_event(&EventView::parse(opening)).phase == Phase::End {
            let mut usage = PassingMember::new(USAGE, limits::PASSING_USAGE_BYTES_MAX);
            if let Some(at) = self.dialect.usage_object(opening) {
                usage.feed(&opening[at..]);
            }
            self.passing_end = Some(usage);
        }
    }

    fn end_passing(&mut self, rest: &[u8]) {
        let Some(mut end) = self.passing_end.take() else { return };
        end.feed(rest);
        if let Some(usage) = end.found().and_then(|it| self.dialect.usage_of_reply(it)) {
            self.usage.merge(usage);
        }
        self.ended = true;
    }

    /// The caller has the beginning of an event and not its end.
    pub(crate) fn is_inside(&self) -> bool {
        self.inside
    }

    /// Content was seen, or more was held than may be.
    pub(crate) fn must_commit(&self) -> bool {
        self.content || self.is_full()
    }

    /// As much waits to be sent as may be held.
    pub(crate) fn is_full(&self) -> bool {
        self.ready.len() > limits::EVENTS_HELD_BYTES_MAX
    }

    /// The error that the stream itself stated.
    pub(crate) fn error(&self) -> Option<Verdict> {
        self.error
    }

    /// The provider's own end was seen.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Whole events that were not sent.
    pub(crate) fn ready(&self) -> &[u8] {
        &self.ready
    }

    /// The same, for what must not be told of them; their length stays.
    pub(crate) fn ready_mut(&mut self) -> &mut [u8] {
        &mut self.ready
    }

    /// They were sent.
    pub(crate) fn sent(&mut self) {
        self.ready.clear();
        self.ready.shrink_to(limits::EVENTS_HELD_BYTES_MAX);
    }

    /// What an ended or abandoned stream used: as stated where its end came, else at least a token for each
    /// content event; true marks the estimate.
    pub(crate) fn final_usage(&self) -> (Usage, bool) {
        if self.ended && self.usage.output_tokens.is_some() {
            return (self.usage, false);
        }
        if self.content_events == 0 {
            return (self.usage, true);
        }
        let output = self.usage.output().max(self.content_events);
        (Usage { output_tokens: Some(output), ..self.usage }, true)
    }

    /// Gives the buffer back.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect() -> &'static Dialect {
        tidegate_providers::by_kind("anthropic").expect("a dialect")
    }

    /// An event larger than any that is looked at, and one behind it.
    fn large_stream() -> Vec<u8> {
        let large = "x".repeat(5 * limits::EVENT_BYTES_MAX);
        format!(
            "event: content_block_delta\ndata: {{\"d\":\"{large}\"}}\n\n\
             event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
        )
        .into_bytes()
    }

    #[test]
    fn a_large_event_passes_byte_for_byte_and_its_middle_is_known() {
        let stream = large_stream();
        let mut tap = Tap::new(dialect(), false, Vec::new());
        let (mut passed, mut was_inside) = (Vec::new(), false);
        for piece in stream.chunks(16 * 1024) {
            tap.feed(piece);
            assert!(tap.pending.len() <= limits::EVENT_BYTES_MAX, "bounded");
            was_inside |= tap.is_inside();
            passed.extend_from_slice(tap.ready());
            tap.sent();
        }
        assert!(passed == stream, "nothing lost, nothing changed");
        assert!(was_inside && !tap.is_inside() && tap.ended());
    }

    #[test]
    fn an_end_that_is_too_large_to_be_held_is_an_end_with_usage() {
        let openai = tidegate_providers::by_kind("openai").expect("a dialect");
        let large = "x".repeat(3 * limits::EVENT_BYTES_MAX);
        let stream = format!(
            "event: response.created\ndata: {{\"type\":\"response.created\"}}\n\n\
             event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"output\":\"{large}\",\
             \"usage\":{{\"input_tokens\":7,\"output_tokens\":5}}}}}}\n\n"
        );
        for cut in [false, true] {
            let mut tap = Tap::new(openai, false, Vec::new());
            let sent = if cut { &stream[..stream.len() - 60] } else { &stream };
            let mut passed = Vec::new();
            for piece in sent.as_bytes().chunks(16 * 1024) {
                tap.feed(piece);
                passed.extend_from_slice(tap.ready());
                tap.sent();
            }
            assert_eq!(tap.ended(), !cut, "its beginning alone is no end");
            if !cut {
                assert!(passed == stream.as_bytes());
                let usage = Usage { input_tokens: Some(7), output_tokens: Some(5), ..Usage::default() };
                assert_eq!(tap.final_usage(), (usage, false));
            }
        }
    }

    #[test]
    fn an_abandoned_stream_costs_at_least_its_content_events() {
        let mut tap = Tap::new(dialect(), false, Vec::new());
        assert_eq!(tap.final_usage(), (Usage::default(), true), "nothing was produced that anybody saw");
        tap.feed(
            b"event: content_block_delta\ndata: {}\n\nevent: content_block_delta\ndata: {}\n\nevent: cont",
        );
        assert_eq!(tap.final_usage().0.output_tokens, Some(2));
        assert!(!tap.ended());
    }
}
