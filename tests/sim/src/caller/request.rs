//! The requests of callers, in both dialects.

use crate::config::{asked, virtual_key};
use crate::ledger::mark;
use crate::script::{CallScript, Manner};

/// The gateway panics at a request that carries it.
pub const PANIC_MARK: &str = "PANIC-AT-THIS";

/// The request of a call.
pub(super) fn write(call: usize, it: &CallScript) -> Vec<u8> {
    let body = body(call, it);
    let path = match (it.dialect, it.counts_tokens) {
        (0, false) => "/v1/messages",
        (0, true) => "/v1/messages/count_tokens",
        (_, false) => "/v1/chat/completions",
        (_, true) => "/v1/responses/input_tokens",
    };
    let key = match it.manner {
        Manner::Stranger => "vk-that-nobody-has-abcdefghijklmnopqrstuvwxyz".to_owned(),
        _ => virtual_key(it.tenant),
    };
    let credential = match it.dialect {
        0 => format!("x-api-key: {key}\r\nanthropic-version: 2023-06-01"),
        _ => format!("authorization: Bearer {key}"),
    };
    let length = match it.manner {
        Manner::Malformed => format!("content-length: {0}\r\ncontent-length: 1{0}", body.len()),
        _ => format!("content-length: {}", body.len()),
    };
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\n{credential}\r\ncontent-type: application/json\r\n{length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body.as_bytes());
    request
}

fn body(call: usize, it: &CallScript) -> String {
    let model = asked(it.ask, it.dialect);
    let panics = if it.manner == Manner::Panics { PANIC_MARK } else { "" };
    let text = format!("{}{panics}{}", mark(it.tenant, call), "words ".repeat(it.text_bytes / 6));
    let stream = if it.streamed && !it.counts_tokens { ",\"stream\":true" } else { "" };
    let max_tokens = it.max_tokens;
    match (it.dialect, it.counts_tokens) {
        (1, true) => format!("{{\"model\":\"{model}\",\"input\":\"{text}\"}}"),
        (_, true) => {
            format!("{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]}}")
        }
        _ => format!(
            "{{\"model\":\"{model}\",\"max_tokens\":{max_tokens}{stream},\"messages\":[{{\"role\":\"user\",\"content\":\
             \"{text}\"}}]}}"
        ),
    }
}
