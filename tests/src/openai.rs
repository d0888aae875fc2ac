//! The rest of the OpenAI surface as a provider answers it, for scripted upstreams: responses, embeddings, completions,
//! images, sound. By the path, and by the word `CASE:<name>` where a request has a prompt.

use crate::messages::event;
use crate::upstream::{Heard, Step, chunk, last_chunk, stream_head, streamed, whole};

const RESPONSE_USAGE: &str = r#"{"input_tokens":20,"input_tokens_details":{"cached_tokens":5},"output_tokens":6,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":26}"#;
/// What speech sounds like: no text in any coding.
pub const SOUND: [u8; 6] = [0xff, 0xfb, 0x90, 0x00, b'\r', b'\n'];

/// The steps of an answer; `None` for what is not of this surface.
pub fn answer(heard: &Heard) -> Option<Vec<Step>> {
    let (method, path) = heard.target().split_once(' ')?;
    let path = path.split('?').next()?.strip_prefix("/v1")?;
    Some(match (method, path) {
        ("POST", "/responses") if heard.wants_stream() => streamed(&response_events("hello", " world")),
        ("POST", "/responses") => {
            whole(200, &[("x-request-id", "req_02")], &response("completed", "hello world"))
        }
        ("POST", "/responses/input_tokens") => {
            whole(200, &[], r#"{"object":"response.input_tokens","input_tokens":20}"#)
        }
        ("GET", "/responses/resp_1") => whole(200, &[], &response("completed", "hello world")),
        ("POST", "/responses/resp_1/cancel") => whole(200, &[], &response("cancelled", "hello")),
        ("DELETE", "/responses/resp_1") => {
            whole(200, &[], r#"{"id":"resp_1","object":"response","deleted":true}"#)
        }
        ("GET", "/responses/resp_1/input_items") => whole(
            200,
            &[],
            r#"{"object":"list","data":[{"id":"msg_0","type":"message","role":"user","status":"completed","content":[{"type":"input_text","text":"CASE:text"}]}],"first_id":"msg_0","last_id":"msg_0","has_more":false}"#,
        ),
        ("GET", path) if path.starts_with("/responses/") => whole(
            404,
            &[],
            r#"{"error":{"message":"Response with id 'resp_2' not found.","type":"invalid_request_error","param":"id","code":null}}"#,
        ),
        ("POST", "/embeddings") => embeddings(heard),
        ("POST", "/completions") => completions(heard),
        ("POST", "/images/generations" | "/images/edits" | "/images/variations") => whole(
            200,
            &[],
            r#"{"created":1760000000,"data":[{"b64_json":"aGVsbG8="}],"usage":{"input_tokens":9,"output_tokens":40,"total_tokens":49,"input_tokens_details":{"text_tokens":9,"image_tokens":0}}}"#,
        ),
        ("POST", "/audio/speech") => speech(),
        ("POST", "/audio/transcriptions" | "/audio/translations") => whole(
            200,
            &[],
            r#"{"text":"hello world","usage":{"type":"tokens","input_tokens":14,"output_tokens":2,"total_tokens":16}}"#,
        ),
        _ => return None,
    })
}

/// A response that says `text`.
pub fn response(status: &str, text: &str) -> String {
    let item = message_item("completed", text);
    format!(
        r#"{{"id":"resp_1","object":"response","created_at":1760000000,"status":"{status}","error":null,"incomplete_details":null,"instructions":null,"model":"gpt-5","output":[{item}],"parallel_tool_calls":true,"previous_response_id":null,"store":true,"temperature":1.0,"tool_choice":"auto","tools":[],"top_p":1.0,"truncation":"disabled","usage":{RESPONSE_USAGE},"metadata":{{}}}}"#
    )
}

fn message_item(status: &str, text: &str) -> String {
    let content = format!(r#"{{"type":"output_text","text":"{text}","annotations":[]}}"#);
    format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","status":"{status}","content":[{content}]}}"#
    )
}

/// The events of a response that says two pieces.
pub fn response_events(front: &str, back: &str) -> Vec<String> {
    let started = r#"{"id":"resp_1","object":"response","created_at":1760000000,"status":"in_progress","error":null,"model":"gpt-5","output":[],"parallel_tool_calls":true,"tool_choice":"auto","tools":[],"usage":null}"#;
    let place = r#""item_id":"msg_1","output_index":0,"content_index":0"#;
    let text = format!("{front}{back}");
    let part = |text: &str| format!(r#"{{"type":"output_text","text":"{text}","annotations":[]}}"#);
    let all = [
        ("response.created", format!(r#""response":{started}"#)),
        ("response.in_progress", format!(r#""response":{started}"#)),
        (
            "response.output_item.added",
            r#""output_index":0,"item":{"id":"msg_1","type":"message","role":"assistant","status":"in_progress","content":[]}"#.to_owned(),
        ),
        ("response.content_part.added", format!(r#"{place},"part":{}"#, part(""))),
        ("response.output_text.delta", format!(r#"{place},"delta":"{front}","logprobs":[]"#)),
        ("response.output_text.delta", format!(r#"{place},"delta":"{back}","logprobs":[]"#)),
        ("response.output_text.done", format!(r#"{place},"text":"{text}","logprobs":[]"#)),
        ("response.content_part.done", format!(r#"{place},"part":{}"#, part(&text))),
        ("response.output_item.done", format!(r#""output_index":0,"item":{}"#, message_item("completed", &text))),
        ("response.completed", format!(r#""response":{}"#, response("completed", &text))),
    ];
    let write = |(at, (kind, more)): (usize, &(&str, String))| {
        event(kind, &format!(r#"{{"type":"{kind}","sequence_number":{at},{more}}}"#))
    };
    all.iter().enumerate().map(write).collect()
}

/// The events of a response that fails before its first item.
pub fn failed_response(code: &str) -> Vec<String> {
    let data = format!(
        r#"{{"type":"response.failed","sequence_number":2,"response":{{"id":"resp_1","object":"response","status":"failed","error":{{"code":"{code}","message":"it failed"}}}}}}"#
    );
    let mut all: Vec<String> = response_events("", "").drain(..2).collect();
    all.push(event("response.failed", &data));
    all
}

fn embeddings(heard: &Heard) -> Vec<Step> {
    // 0.5 and -1.0, as numbers or as the base64 of both in 32 bits.
    let vector = if heard.text().contains("base64") { r#""AAAAPwAAgL8=""# } else { "[0.5,-1.0]" };
    let body = format!(
        r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":{vector}}}],"model":"text-embedding-3-small","usage":{{"prompt_tokens":4,"total_tokens":4}}}}"#
    );
    whole(200, &[], &body)
}

fn completions(heard: &Heard) -> Vec<Step> {
    let piece = |text: &str, reason: &str, usage: &str| {
        format!(
            r#"{{"id":"cmpl-1","object":"text_completion","created":1760000000,"model":"gpt-5","choices":[{{"text":"{text}","index":0,"logprobs":null,"finish_reason":{reason}}}]{usage}}}"#
        )
    };
    const USAGE: &str = r#","usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}"#;
    if !heard.wants_stream() {
        return whole(200, &[], &piece("hello world", r#""stop""#, USAGE));
    }
    let mut events = vec![piece("hello", "null", ""), piece(" world", r#""stop""#, "")];
    if heard.text().contains("\"include_usage\":true") {
        let head =
            r#"{"id":"cmpl-1","object":"text_completion","created":1760000000,"model":"gpt-5","choices":[]"#;
        events.push(format!("{head}{USAGE}}}"));
    }
    events.push("[DONE]".to_owned());
    let mut steps = vec![stream_head()];
    steps.extend(events.iter().map(|it| chunk(&format!("data: {it}\n\n"))));
    steps.push(last_chunk());
    steps
}

fn speech() -> Vec<Step> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n6\r\n";
    let mut bytes = head.as_bytes().to_vec();
    bytes.extend_from_slice(&SOUND);
    bytes.extend_from_slice(b"\r\n");
    vec![Step::Send(bytes), last_chunk()]
}
