//! What the events of a stream mean to a caller: content, an error, the end. It looks no further, and keeps nothing.

use tidegate_wire::json;
use tidegate_wire::sse::EventView;

use super::Protocol;

/// What one event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing a caller waits for.
    Other,
    /// A piece of the answer, or the announcement of one.
    Content,
    /// An error in place of the rest.
    Error,
    /// The end that the protocol states.
    End,
}

/// What `event` is.
pub(super) fn meaning_of(protocol: Protocol, event: &EventView<'_>) -> Meaning {
    match protocol {
        Protocol::Messages => match event.event_name() {
            Some(b"content_block_start" | b"content_block_delta") => Meaning::Content,
            Some(b"error") => Meaning::Error,
            Some(b"message_stop") => Meaning::End,
            _ => Meaning::Other,
        },
        Protocol::Chat => match event.data() {
            None => Meaning::Other,
            Some(b"[DONE]") => Meaning::End,
            Some(data) => chunk_meaning(data),
        },
    }
}

fn chunk_meaning(data: &[u8]) -> Meaning {
    let Ok([error, choices]) = json::members(data, ["error", "choices"]) else { return Meaning::Error };
    if error.is_some_and(|error| !json::is_null(error)) {
        return Meaning::Error;
    }
    let Some(choices) = choices else { return Meaning::Other };
    let has_content = json::Elements::new(choices).any(|choice| choice.is_ok_and(choice_has_content));
    if has_content { Meaning::Content } else { Meaning::Other }
}

fn choice_has_content(choice: &[u8]) -> bool {
    let Ok([delta, finish]) = json::members(choice, ["delta", "finish_reason"]) else { return false };
    if finish.is_some_and(|finish| !json::is_null(finish)) {
        return true;
    }
    let Some(delta) = delta else { return false };
    json::Members::new(delta).any(|member| {
        member.is_ok_and(|(key, value)| {
            !key.is("role") && !json::is_null(value) && !matches!(value, b"\"\"" | b"[]" | b"{}")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(protocol: Protocol, block: &str) -> Meaning {
        meaning_of(protocol, &EventView::parse(block.as_bytes()))
    }

    #[test]
    fn events_of_messages() {
        let of = |name: &str| meaning(Protocol::Messages, &format!("event: {name}\ndata: {{}}\n\n"));
        assert_eq!(of("message_start"), Meaning::Other);
        assert_eq!(of("ping"), Meaning::Other);
        assert_eq!(of("content_block_start"), Meaning::Content);
        assert_eq!(of("content_block_delta"), Meaning::Content);
        assert_eq!(of("error"), Meaning::Error);
        assert_eq!(of("message_stop"), Meaning::End);
        assert_eq!(meaning(Protocol::Messages, ": keep-alive\n\n"), Meaning::Other);
    }

    #[test]
    fn chunks_of_chat() {
        let of = |data: &str| meaning(Protocol::Chat, &format!("data: {data}\n\n"));
        let delta = |delta: &str| of(&format!("{{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}"));
        assert_eq!(delta("{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}"), Meaning::Other);
        assert_eq!(delta("{\"content\":\"a\"}"), Meaning::Content);
        assert_eq!(delta("{\"tool_calls\":[{}]}"), Meaning::Content);
        assert_eq!(of("{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}"), Meaning::Content);
        assert_eq!(of("{\"choices\":[],\"usage\":{}}"), Meaning::Other);
        assert_eq!(of("{\"error\":{\"message\":\"x\"}}"), Meaning::Error);
        assert_eq!(of("not JSON"), Meaning::Error);
        assert_eq!(of("[DONE]"), Meaning::End);
    }
}
