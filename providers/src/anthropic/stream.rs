//! What the events of a Messages stream are (the API reference). The event's name decides; only events that
//! carry usage or an error are read.

use tidegate_core::Usage;
use tidegate_wire::sse::EventView;

use super::usage;
use crate::dialect::{Phase, StreamEvent};
use crate::judge::{self, Rules};
use crate::reading;

/// What one event is.
pub(super) fn event(rules: &Rules, event: &EventView<'_>) -> StreamEvent {
    match event.event_name() {
        Some(name) if name != b"message" => of_name(rules, name, event),
        _ => nameless(rules, event),
    }
}

fn of_name(rules: &Rules, name: &[u8], event: &EventView<'_>) -> StreamEvent {
    match name {
        b"content_block_delta" | b"content_block_start" | b"content_block_stop" => {
            StreamEvent::of(Phase::Content)
        }
        b"message_start" => {
            let start = with_data(event, |data| usage_in(reading::member(data, "message")?));
            StreamEvent { usage: start, ..StreamEvent::HELD }
        }
        // The reply as a whole has ended: that is content too, also where it has no block.
        b"message_delta" => {
            StreamEvent { usage: with_data(event, usage_in), ..StreamEvent::of(Phase::Content) }
        }
        b"message_stop" => StreamEvent::of(Phase::End),
        b"ping" => StreamEvent::HELD,
        b"error" => {
            let verdict = with_data(event, |data| Some(judge::judge_in_band(rules, data)));
            // An error without data is read as one without words.
            StreamEvent::of(Phase::Error(verdict.unwrap_or_else(|| judge::judge_in_band(rules, b""))))
        }
        _ => StreamEvent::of(Phase::Other),
    }
}

/// Some servers of this protocol leave the name out; the data's own type says the same.
fn nameless(rules: &Rules, event: &EventView<'_>) -> StreamEvent {
    let Some(first_line) = event.data() else { return StreamEvent::HELD };
    let mut joined = Vec::new();
    let data = if event.data_lines_len() == 1 { first_line } else { event.whole_data(&mut joined) };
    match reading::member(data, "type").and_then(reading::text) {
        Some(name) if name != "message" => of_name(rules, name.as_bytes(), event),
        _ => StreamEvent::of(Phase::Other),
    }
}

fn with_data<T>(event: &EventView<'_>, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    // Never allocated for data of one line, which is what every known server sends.
    let mut joined = Vec::new();
    read(event.whole_data(&mut joined))
}

fn usage_in(object: &[u8]) -> Option<Usage> {
    let usage = usage(reading::member(object, "usage")?);
    (usage != Usage::default()).then_some(usage)
}
