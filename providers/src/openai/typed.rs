//! What the events are of streams whose every event says its type: responses, images, transcriptions, speech (the API
//! reference). The type decides; only events that carry usage or an error are read. Types that nobody knows yet are
//! content: what comes after the first item of a response is.

use tidegate_core::Usage;

use super::usage;
use crate::dialect::{Phase, StreamEvent};
use crate::judge::{self, Rules};
use crate::reading;

/// What types of these streams begin with.
const FAMILIES: [&[u8]; 5] = [b"response.", b"image_generation.", b"image_edit.", b"transcript.", b"speech."];

/// What an event of this name and data is; `None` where it is not of a stream of this kind. The name may be missing:
/// the data's first member says the same.
pub(super) fn event(rules: &Rules, name: Option<&[u8]>, data: &[u8]) -> Option<StreamEvent> {
    let kind = match name {
        Some(name) if name != b"message" => name,
        _ => type_at_front(data)?,
    };
    if kind == b"error" && reading::member(data, "error").is_none() {
        return Some(StreamEvent::of(Phase::Error(judge::judge_in_band(rules, data))));
    }
    if !FAMILIES.iter().any(|it| kind.starts_with(it)) {
        return None;
    }
    Some(match kind {
        b"response.created" | b"response.in_progress" | b"response.queued" => StreamEvent::HELD,
        b"response.failed" => {
            let response = reading::member(data, "response").unwrap_or(data);
            StreamEvent::of(Phase::Error(judge::judge_in_band(rules, response)))
        }
        b"response.completed" | b"response.incomplete" => end(reading::member(data, "response")),
        b"image_generation.completed"
        | b"image_edit.completed"
        | b"transcript.text.done"
        | b"speech.audio.done" => end(Some(data)),
        _ => StreamEvent::of(Phase::Content),
    })
}

/// Where the object begins that holds the usage, in the beginning of an event that ends a stream.
pub(super) fn usage_object(opening: &[u8]) -> Option<usize> {
    const RESPONSE: &[u8] = b"\"response\":";
    let behind =
        |needle: &[u8]| opening.windows(needle.len()).position(|it| it == needle).map(|it| it + needle.len());
    let start = behind(b"data:")?;
    let of_response = opening[start..].windows(RESPONSE.len()).position(|it| it == RESPONSE);
    let is_response = opening.windows(9).take(start + 64).any(|it| it == b"response.");
    match of_response.filter(|_| is_response) {
        Some(at) => Some(start + at + RESPONSE.len()),
        None => Some(start),
    }
}

fn end(object: Option<&[u8]>) -> StreamEvent {
    let stated = object.and_then(|it| reading::member(it, "usage")).map(usage);
    StreamEvent { usage: stated.filter(|it| *it != Usage::default()), ..StreamEvent::of(Phase::End) }
}

/// The type in `{"type":"…`, where that is how the data begins.
fn type_at_front(data: &[u8]) -> Option<&[u8]> {
    let token = |text: &'_ [u8], token: &[u8]| -> Option<usize> {
        let bare = text.trim_ascii_start();
        bare.starts_with(token).then(|| text.len() - bare.len() + token.len())
    };
    let mut at = 0;
    for part in [&b"{"[..], b"\"type\"", b":", b"\""] {
        at += token(&data[at..], part)?;
    }
    let end = data[at..].iter().position(|&it| it == b'"')?;
    Some(&data[at..at + end])
}

#[cfg(test)]
mod tests {
    use tidegate_core::verdict::{TargetFailure, Verdict};
    use tidegate_wire::sse::EventView;

    use super::super::DIALECT;
    use super::*;

    fn seen(name: Option<&str>, data: &str) -> StreamEvent {
        let name = name.map(|it| format!("event: {it}\n")).unwrap_or_default();
        DIALECT.stream_event(&EventView::parse(format!("{name}data: {data}\n\n").as_bytes()))
    }

    /// The order of a text answer as the API reference has it; with and without the name in front.
    #[test]
    fn a_response_commits_with_its_first_item_and_ends_with_its_usage() {
        let usage = r#"{"input_tokens":20,"input_tokens_details":{"cached_tokens":5},"output_tokens":6}"#;
        let completed = format!(r#"{{"response":{{"status":"completed","usage":{usage}}}}}"#);
        for (kind, more, phase) in [
            ("response.created", r#""response":{}"#, Phase::Held),
            ("response.queued", r#""response":{}"#, Phase::Held),
            ("response.in_progress", r#""response":{"usage":null}"#, Phase::Held),
            ("response.output_item.added", r#""item":{}"#, Phase::Content),
            ("response.output_text.delta", r#""delta":"error""#, Phase::Content),
            ("response.future.thing", r#""x":1"#, Phase::Content),
            ("response.completed", &completed[1..completed.len() - 1], Phase::End),
            ("response.incomplete", &completed[1..completed.len() - 1], Phase::End),
        ] {
            let data = format!(r#"{{"type":"{kind}","sequence_number":1,{more}}}"#);
            for name in [Some(kind), None] {
                let event = seen(name, &data);
                assert_eq!(event.phase, phase, "{kind}");
                let expect = Usage {
                    input_tokens: Some(15),
                    cache_read_tokens: Some(5),
                    output_tokens: Some(6),
                    ..Usage::default()
                };
                assert_eq!(event.usage, (phase == Phase::End).then_some(expect), "{kind}");
            }
        }
    }

    #[test]
    fn errors_inside_a_response_are_judged_by_their_code() {
        let failed = |code: &str| {
            let error = format!(r#"{{"code":"{code}","message":"Please try again in 3s."}}"#);
            seen(
                Some("response.failed"),
                &format!(r#"{{"type":"response.failed","response":{{"status":"failed","error":{error}}}}}"#),
            )
        };
        let bare = |code: &str| {
            seen(Some("error"), &format!(r#"{{"type":"error","code":"{code}","message":"m","param":null}}"#))
        };
        let wait = Some(std::time::Duration::from_secs(3));
        assert_eq!(
            failed("rate_limit_exceeded").phase,
            Phase::Error(Verdict::QuotaLimited { retry_after: wait })
        );
        assert_eq!(
            failed("server_is_overloaded").phase,
            Phase::Error(Verdict::RouteOverloaded { retry_after: wait })
        );
        assert_eq!(failed("context_length_exceeded").phase, Phase::Error(Verdict::CallerFault));
        let status = Phase::Error(Verdict::TargetFailed(TargetFailure::Status(500)));
        assert_eq!((failed("server_error").phase, bare("server_error").phase), (status, status));
        assert_eq!(bare("invalid_prompt").phase, Phase::Error(Verdict::CallerFault));
        assert_eq!(bare("insufficient_quota").phase, Phase::Error(Verdict::AccountSpent));
    }

    #[test]
    fn images_and_sound_end_with_their_last_event() {
        let usage = r#""usage":{"input_tokens":3,"output_tokens":9}"#;
        for (kind, phase) in [
            ("image_generation.partial_image", Phase::Content),
            ("image_generation.completed", Phase::End),
            ("image_edit.completed", Phase::End),
            ("transcript.text.delta", Phase::Content),
            ("transcript.text.done", Phase::End),
            ("speech.audio.delta", Phase::Content),
            ("speech.audio.done", Phase::End),
        ] {
            let event = seen(None, &format!(r#"{{"type":"{kind}",{usage}}}"#));
            assert_eq!(event.phase, phase, "{kind}");
            let output = event.usage.and_then(|it| it.output_tokens);
            assert_eq!(output, (phase == Phase::End).then_some(9), "{kind}");
        }
    }

    #[test]
    fn the_usage_of_a_large_last_event_is_found() {
        for (text, rest) in [
            (
                "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":1",
                "{\"id\":1",
            ),
            ("data: {\"type\":\"response.completed\",\"response\":{\"id\":1", "{\"id\":1"),
            (
                "data:{\"type\":\"image_generation.completed\",\"b64\":\"\"",
                "{\"type\":\"image_generation.completed\",\"b64\":\"\"",
            ),
        ] {
            let at = DIALECT.usage_object(text.as_bytes()).expect("an object");
            assert_eq!(text[at..].trim_start(), rest);
        }
        assert_eq!(DIALECT.usage_object(b"event: x\n"), None);
    }
}
