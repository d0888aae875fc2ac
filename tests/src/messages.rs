//! Bodies of the Messages protocol as a provider writes them, for scripted upstreams.

/// A virtual key of the tests.
pub const VIRTUAL_KEY: &str = "vk-black-box-0123456789-0123456789-abc";

/// A request for `model` that asks for a whole reply.
pub fn request(model: &str) -> String {
    format!(r#"{{"model":"{model}","max_tokens":16,"messages":[{{"role":"user","content":"hi"}}]}}"#)
}

/// A request for `model` that asks for a stream.
pub fn stream_request(model: &str) -> String {
    format!(
        r#"{{"model":"{model}","max_tokens":16,"stream":true,"messages":[{{"role":"user","content":"hi"}}]}}"#
    )
}

/// A whole reply that says `text`.
pub fn message(text: &str) -> String {
    format!(
        r#"{{"id":"msg_01","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":11,"output_tokens":3}}}}"#
    )
}

/// An error of the provider.
pub fn error(kind: &str, text: &str) -> String {
    format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{text}"}},"request_id":"req_01"}}"#)
}

/// One event of a stream.
pub fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// The error event of a stream.
pub fn error_event(kind: &str, text: &str) -> String {
    event("error", &format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{text}"}}}}"#))
}

/// The first event, before any content.
pub fn message_start() -> String {
    event(
        "message_start",
        r#"{"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":11,"output_tokens":1}}}"#,
    )
}

/// The events of a whole stream that says `text` in two pieces.
pub fn stream(text: &str) -> Vec<String> {
    let delta = |text: &str| {
        let data = format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{text}"}}}}"#
        );
        event("content_block_delta", &data)
    };
    let (front, back) = text.split_at(text.len() / 2);
    vec![
        message_start(),
        event(
            "content_block_start",
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        ),
        delta(front),
        delta(back),
        event("content_block_stop", r#"{"type":"content_block_stop","index":0}"#),
        event(
            "message_delta",
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":3}}"#,
        ),
        event("message_stop", r#"{"type":"message_stop"}"#),
    ]
}
