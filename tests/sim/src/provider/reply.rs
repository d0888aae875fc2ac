//! The bytes of an answer: its head and events in both dialects, whole and streamed, framed in each way.

use super::quota::Stated;
use super::turn::Framing;
use super::{Asked, Base, Turn, usage_of};
use crate::ledger::piece;

/// An answer in the parts in which it is written.
pub(super) struct Written {
    /// The head, then the body bit by bit.
    pub parts: Vec<Vec<u8>>,
    /// Another request may follow.
    pub keeps_connection: bool,
}

/// The answer to `asked`.
pub(super) fn write(asked: &Asked, turn: &Turn, limits: &Stated) -> Written {
    if turn.garbage {
        let parts = vec![b"\x16\x03\x01 this is no HTTP at all\r\n\r\n".to_vec()];
        return Written { parts, keeps_connection: false };
    }
    let is_stream = turn.base == Base::Good && asked.streamed && !asked.counts_tokens;
    let body = match turn.base {
        Base::Good if asked.counts_tokens => vec![format!("{{\"input_tokens\":{}}}", asked.body_bytes / 4)],
        Base::Good if asked.streamed => events(asked, turn),
        Base::Good => vec![whole(asked, turn)],
        _ => vec![error(asked, turn)],
    };
    let framing = match turn.framing {
        Framing::Length if is_stream => Framing::Chunked,
        other => other,
    };
    let length: usize = body.iter().map(String::len).sum();
    let mut head = head(asked, turn, is_stream, limits);
    match framing {
        Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
        Framing::Length => head.push_str(&format!("content-length: {length}\r\n")),
        Framing::UntilClose => head.push_str("connection: close\r\n"),
    }
    head.push_str("\r\n");
    let mut parts = vec![head.into_bytes()];
    for text in body {
        match framing {
            Framing::Chunked => parts.push(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()),
            _ => parts.push(text.into_bytes()),
        }
    }
    if framing == Framing::Chunked
        && let Some(last) = parts.last_mut()
    {
        last.extend_from_slice(b"0\r\n\r\n");
    }
    Written { parts, keeps_connection: framing != Framing::UntilClose }
}

fn head(asked: &Asked, turn: &Turn, is_stream: bool, limits: &Stated) -> String {
    let (status, after) = match turn.base {
        Base::Good => (200, None),
        Base::Limited(after) => (429, after),
        Base::Ramp => (429, None),
        Base::Spent => (402, None),
        Base::Overload(status, after) => (status, after),
        Base::Failure(status) => (status, None),
        Base::KeyRefused => (401, None),
        Base::ModelRefused => (403, None),
        Base::ModelMissing => (404, None),
        Base::CallerFault => (400, None),
        Base::Redirect => (302, None),
    };
    let content = if is_stream { "text/event-stream" } else { "application/json" };
    let mark = format!("<T{}C{}A{}>", asked.tenant, asked.call, asked.attempt);
    let mut head = format!("HTTP/1.1 {status} Said\r\ncontent-type: {content}\r\nx-mark: {mark}\r\n");
    if let Some(seconds) = after {
        head.push_str(&format!("retry-after: {seconds}\r\n"));
    }
    if status == 302 {
        head.push_str("location: http://10.9.9.9/elsewhere\r\n");
    }
    if limits.limit > 0 {
        let (limit, left) = (limits.limit, limits.remaining);
        head.push_str(&match asked.dialect {
            0 => format!(
                "anthropic-ratelimit-requests-limit: {limit}\r\nanthropic-ratelimit-requests-remaining: {left}\r\n"
            ),
            _ => format!(
                "x-ratelimit-limit-requests: {limit}\r\nx-ratelimit-remaining-requests: {left}\r\n\
                 x-ratelimit-reset-requests: 10s\r\n"
            ),
        });
    }
    head
}

fn error(asked: &Asked, turn: &Turn) -> String {
    let (kind, code) = match turn.base {
        Base::Ramp => ("rate_limit_error", "ramp_limit_exceeded"),
        Base::Limited(_) => ("rate_limit_error", "rate_limit_exceeded"),
        Base::Spent => ("billing_error", "insufficient_quota"),
        Base::Overload(..) => ("overloaded_error", "overloaded_error"),
        Base::KeyRefused => ("authentication_error", "invalid_api_key"),
        Base::ModelRefused => ("permission_error", "permission_denied"),
        Base::ModelMissing => ("not_found_error", "model_not_found"),
        Base::CallerFault => ("invalid_request_error", "bad_parameter"),
        _ => ("api_error", "server_error"),
    };
    let message = format!("said <T{}C{}A{}>", asked.tenant, asked.call, asked.attempt);
    let error = format!("{{\"type\":\"{kind}\",\"code\":\"{code}\",\"message\":\"{message}\"}}");
    match asked.dialect {
        // The ramp is told by its code, which this dialect has elsewhere.
        0 if turn.base == Base::Ramp => format!(
            "{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"{message}\",\
             \"details\":{{\"error_code\":\"{code}\"}}}}}}"
        ),
        0 => format!("{{\"type\":\"error\",\"error\":{error}}}"),
        _ => format!("{{\"error\":{error}}}"),
    }
}

fn text_of(asked: &Asked, turn: &Turn, at: usize) -> String {
    let mut text = piece(asked.tenant, asked.call, asked.attempt, at, at + 1 == turn.pieces);
    if at == turn.pieces / 2 {
        text.push_str(&"x".repeat(turn.filler_bytes));
    }
    text
}

fn whole(asked: &Asked, turn: &Turn) -> String {
    let text: String = (0..turn.pieces).map(|at| text_of(asked, turn, at)).collect();
    let usage = usage_of(asked, turn);
    let (input, output) = (usage.input_tokens.unwrap_or(0), usage.output());
    let usage = |input_name: &str, output_name: &str| match turn.states_usage {
        true => format!(",\"usage\":{{\"{input_name}\":{input},\"{output_name}\":{output}}}"),
        false => String::new(),
    };
    match asked.dialect {
        0 => format!(
            "{{\"id\":\"msg_{}\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[{{\"type\":\"text\",\
             \"text\":\"{text}\"}}],\"stop_reason\":\"end_turn\"{}}}",
            asked.attempt,
            usage("input_tokens", "output_tokens")
        ),
        _ => format!(
            "{{\"id\":\"chat_{}\",\"object\":\"chat.completion\",\"choices\":[{{\"index\":0,\"message\":\
             {{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}]{}}}",
            asked.attempt,
            usage("prompt_tokens", "completion_tokens")
        ),
    }
}

fn events(asked: &Asked, turn: &Turn) -> Vec<String> {
    let mut events = vec![opening(asked, turn)];
    for at in 0..turn.pieces {
        if turn.error_at == Some(at) {
            events.push(error_event(asked, turn));
            return events;
        }
        events.push(content(asked, &text_of(asked, turn, at)));
    }
    if turn.error_at.is_some() {
        events.push(error_event(asked, turn));
    } else if !turn.is_unterminated {
        events.push(closing(asked, turn));
    }
    events
}

fn opening(asked: &Asked, turn: &Turn) -> String {
    let input = usage_of(asked, turn).input_tokens.unwrap_or(0);
    match asked.dialect {
        0 => {
            let usage = match turn.states_usage {
                true => format!(",\"usage\":{{\"input_tokens\":{input},\"output_tokens\":1}}"),
                false => String::new(),
            };
            format!(
                "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"msg_{}\",\
                 \"role\":\"assistant\",\"content\":[]{usage}}}}}\n\n",
                asked.attempt
            )
        }
        _ => "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n".to_owned(),
    }
}

fn content(asked: &Asked, text: &str) -> String {
    match asked.dialect {
        0 => format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":\
             {{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
        ),
        _ => format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"),
    }
}

fn closing(asked: &Asked, turn: &Turn) -> String {
    let usage = usage_of(asked, turn);
    let (input, output) = (usage.input_tokens.unwrap_or(0), usage.output());
    match asked.dialect {
        0 => {
            let usage = match turn.states_usage {
                true => format!(",\"usage\":{{\"output_tokens\":{output}}}"),
                false => String::new(),
            };
            format!(
                "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}}\
                 {usage}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
            )
        }
        _ => {
            let usage = match turn.states_usage && asked.wants_usage {
                true => format!(
                    "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output}}}}}\n\n"
                ),
                false => String::new(),
            };
            format!(
                "data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\n{usage}\
                 data: [DONE]\n\n"
            )
        }
    }
}

fn error_event(asked: &Asked, turn: &Turn) -> String {
    let overloaded = turn.output_tokens.is_multiple_of(2);
    let kind = if overloaded { "overloaded_error" } else { "api_error" };
    let error = format!(
        "{{\"type\":\"{kind}\",\"message\":\"said <T{}C{}A{}>\"}}",
        asked.tenant, asked.call, asked.attempt
    );
    match asked.dialect {
        0 => format!("event: error\ndata: {{\"type\":\"error\",\"error\":{error}}}\n\n"),
        _ => format!("data: {{\"error\":{error}}}\n\n"),
    }
}
