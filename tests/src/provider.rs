//! An upstream for real SDKs: answers by the word `CASE:<name>` in the prompt, in both dialects, always the same
//! for the
//! same request. What the SDKs must see of each case is written in the scripts of `tests/sdk`.

use std::time::Duration;

use crate::messages::{error, error_event, event, message, message_start, stream};
use crate::upstream::{Heard, Step, Upstream, chunk, last_chunk, stream_head, whole};

/// Starts it.
pub fn start() -> Upstream {
    Upstream::start(answer)
}

fn answer(heard: &Heard) -> Vec<Step> {
    let text = heard.text();
    let case = text.rsplit("CASE:").next().unwrap_or("");
    let case: String = case.chars().take_while(char::is_ascii_alphanumeric).collect();
    if heard.target().starts_with("POST /v1/messages/count_tokens") {
        return whole(200, &[], r#"{"input_tokens":42}"#);
    }
    // By its path, unless the prompt asks for something special.
    if let Some(steps) = crate::openai::answer(heard).filter(|_| matches!(case.as_str(), "text" | "")) {
        return steps;
    }
    let chat = heard.target().contains("/v1/") && !heard.target().contains("/messages");
    match (case.as_str(), chat) {
        ("silent", _) => vec![Step::Pause(Duration::from_secs(3)), Step::Close],
        ("text", true) => chat_text(heard),
        ("text", false) if heard.wants_stream() => paced_text(),
        ("text", false) => whole(200, &[("request-id", "req_01")], &message("hello world")),
        ("tools", _) => tools(heard.wants_stream()),
        ("thinking", _) => events(&thinking()),
        ("broken", _) => broken(),
        (status, _) => match status.parse() {
            Ok(status) => refusal(status, chat),
            Err(_) => whole(400, &[], &error("invalid_request_error", "no such case")),
        },
    }
}

fn events(all: &[String]) -> Vec<Step> {
    let mut steps = vec![stream_head()];
    steps.extend(all.iter().map(|it| chunk(it)));
    steps.push(last_chunk());
    steps
}

fn paced_text() -> Vec<Step> {
    let mut steps = events(&text_stream());
    steps.insert(3, Step::Pause(Duration::from_millis(30)));
    steps
}

/// `hello` and ` world`, as two pieces.
fn text_stream() -> Vec<String> {
    let mut all = stream("hello world");
    let delta = |text: &str| {
        let data = format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{text}"}}}}"#
        );
        event("content_block_delta", &data)
    };
    all[2] = delta("hello");
    all[3] = delta(" world");
    all
}

fn broken() -> Vec<Step> {
    let mut steps = events(&text_stream()[..3]);
    steps.pop();
    steps.extend([
        Step::Pause(Duration::from_millis(100)),
        chunk(&error_event("overloaded_error", "Overloaded")),
        last_chunk(),
    ]);
    steps
}

fn refusal(status: u16, chat: bool) -> Vec<Step> {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    let body = match chat {
        true => format!(r#"{{"error":{{"message":"refused","type":"{kind}","param":null,"code":null}}}}"#),
        false => error(kind, "refused"),
    };
    let fields: &[(&str, &str)] = if status == 429 { &[("retry-after", "1")] } else { &[] };
    whole(status, fields, &body)
}

fn tools(streamed: bool) -> Vec<Step> {
    let call = |id: &str, input: &str| {
        format!(r#"{{"type":"tool_use","id":"{id}","name":"get_weather","input":{input}}}"#)
    };
    if !streamed {
        let both =
            format!("[{},{}]", call("toolu_1", r#"{"city":"Oslo"}"#), call("toolu_2", r#"{"city":"Bern"}"#));
        let body = format!(
            r#"{{"id":"msg_02","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":{both},"stop_reason":"tool_use","stop_sequence":null,"usage":{{"input_tokens":11,"output_tokens":9}}}}"#
        );
        return whole(200, &[], &body);
    }
    let mut all = vec![message_start()];
    for (index, (id, city)) in [("toolu_1", "Oslo"), ("toolu_2", "Bern")].into_iter().enumerate() {
        all.push(block_start(index, &call(id, "{}")));
        for part in [r#"{\"city\":"#.to_owned(), format!(r#" \"{city}\"}}"#)] {
            all.push(delta(index, &format!(r#"{{"type":"input_json_delta","partial_json":"{part}"}}"#)));
        }
        all.push(block_stop(index));
    }
    all.extend(end("tool_use"));
    events(&all)
}

fn thinking() -> Vec<String> {
    let mut all =
        vec![message_start(), block_start(0, r#"{"type":"thinking","thinking":"","signature":""}"#)];
    all.push(delta(0, r#"{"type":"thinking_delta","thinking":"let me "}"#));
    all.push(delta(0, r#"{"type":"thinking_delta","thinking":"see"}"#));
    all.push(delta(0, r#"{"type":"signature_delta","signature":"c2lnbmF0dXJl"}"#));
    all.push(block_stop(0));
    all.push(event("ping", r#"{"type": "ping"}"#));
    all.push(block_start(1, r#"{"type":"text","text":""}"#));
    all.push(delta(1, r#"{"type":"text_delta","text":"hello world"}"#));
    all.push(block_stop(1));
    all.extend(end("end_turn"));
    all
}

fn block_start(index: usize, block: &str) -> String {
    let data = format!(r#"{{"type":"content_block_start","index":{index},"content_block":{block}}}"#);
    event("content_block_start", &data)
}

fn delta(index: usize, delta: &str) -> String {
    event(
        "content_block_delta",
        &format!(r#"{{"type":"content_block_delta","index":{index},"delta":{delta}}}"#),
    )
}

fn block_stop(index: usize) -> String {
    event("content_block_stop", &format!(r#"{{"type":"content_block_stop","index":{index}}}"#))
}

fn end(reason: &str) -> [String; 2] {
    let data = format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}","stop_sequence":null}},"usage":{{"output_tokens":9}}}}"#
    );
    [event("message_delta", &data), event("message_stop", r#"{"type":"message_stop"}"#)]
}

fn chat_text(heard: &Heard) -> Vec<Step> {
    let usage = r#"{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}"#;
    if !heard.wants_stream() {
        let choice = r#"{"index":0,"message":{"role":"assistant","content":"hello world","refusal":null},"finish_reason":"stop","logprobs":null}"#;
        let body = format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1760000000,"model":"gpt-5","choices":[{choice}],"usage":{usage}}}"#
        );
        return whole(200, &[], &body);
    }
    let with_usage = heard.text().contains("\"include_usage\":true");
    let null = if with_usage { r#","usage":null"# } else { "" };
    let piece = |choices: &str, usage: &str| {
        chunk(&format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"gpt-5\",\"choices\":{choices}{usage}}}\n\n"
        ))
    };
    let mut steps = vec![stream_head()];
    steps
        .push(piece(r#"[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]"#, null));
    steps.push(piece(r#"[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]"#, null));
    steps.push(piece(r#"[{"index":0,"delta":{"content":" world"},"finish_reason":null}]"#, null));
    steps.push(piece(r#"[{"index":0,"delta":{},"finish_reason":"stop"}]"#, null));
    if with_usage {
        steps.push(piece("[]", &format!(r#","usage":{usage}"#)));
    }
    steps.extend([chunk("data: [DONE]\n\n"), last_chunk()]);
    steps
}
