//! What the events of a stream are (the API reference). Those of completions have no names, so each chunk is read
//! once; nothing is kept and nothing allocated for data of one line.

use tidegate_core::Usage;
use tidegate_wire::json::Elements;
use tidegate_wire::sse::EventView;

use super::{typed, usage};
use crate::dialect::{Phase, StreamEvent};
use crate::judge::{self, Rules};
use crate::reading::{self, holds_something};

/// What of a delta is content (ARCHITECTURE.md): text, refusal, tool calls, reasoning (three spellings), sound. A role
/// is not.
const CONTENT: [&str; 8] = [
    "content",
    "tool_calls",
    "reasoning_content",
    "reasoning",
    "refusal",
    "function_call",
    "reasoning_details",
    "audio",
];

/// What one event is.
pub(super) fn event(rules: &Rules, event: &EventView<'_>) -> StreamEvent {
    if event.data().is_none() {
        return StreamEvent::HELD;
    }
    let mut joined = Vec::new();
    let data = event.whole_data(&mut joined).trim_ascii();
    if data == b"[DONE]" {
        return StreamEvent::of(Phase::End);
    }
    if let Some(seen) = typed::event(rules, event.event_name(), data) {
        return seen;
    }
    if event.event_name() == Some(b"error") {
        return StreamEvent::of(Phase::Error(judge::judge_in_band(rules, data)));
    }
    chunk(rules, data)
}

fn chunk(rules: &Rules, data: &[u8]) -> StreamEvent {
    let [choices, stated, error, object] = reading::members(data, ["choices", "usage", "error", "object"]);
    if error.is_some_and(holds_something) || object == Some(b"\"error\"") {
        return StreamEvent::of(Phase::Error(judge::judge_in_band(rules, data)));
    }
    let usage = stated.map(usage).filter(|it| *it != Usage::default());
    let Some(choices) = choices else { return StreamEvent { usage, ..StreamEvent::of(Phase::Other) } };
    let mut choices = Elements::new(choices).map_while(Result::ok).peekable();
    let usage_only = choices.peek().is_none() && stated.is_some_and(|it| it.starts_with(b"{"));
    let phase = if choices.any(has_content) { Phase::Content } else { Phase::Held };
    StreamEvent { phase, usage, usage_only }
}

fn has_content(choice: &[u8]) -> bool {
    let [delta, finish_reason, text] = reading::members(choice, ["delta", "finish_reason", "text"]);
    let parts = delta.map(|it| reading::members(it, CONTENT)).unwrap_or_default();
    parts.into_iter().chain([finish_reason, text]).flatten().any(holds_something)
}
