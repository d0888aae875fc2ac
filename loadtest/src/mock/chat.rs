//! The chat completions protocol: reads and judges a request, writes replies whole and as chunks. It decides nothing
//! about quotas, keys or faults.

use std::io::Write;

use serde_json::{Value, json};

use super::ask::{Ask, Choice, Events, Naming, Product, array, is_true, quote, text, tools_to_call};
use super::prompt::Prompt;
use super::refusal::{Dialect, Refusal};
use super::reply::{Block, Reply, Stop, Thinking, Tool};

/// Reads a request, as the provider would.
pub(crate) fn read(root: &Value) -> Result<Ask, Refusal> {
    let messages = array(root, "messages").ok_or_else(|| missing("messages"))?;
    if messages.is_empty() {
        return Err(wrong(
            "messages",
            "Invalid 'messages': empty array. Expected an array with minimum length 1.",
        ));
    }
    for (at, message) in messages.iter().enumerate() {
        let roles = ["system", "developer", "user", "assistant", "tool", "function"];
        if !text(message, "role").is_some_and(|role| roles.contains(&role)) {
            return Err(wrong("messages", &format!("Invalid value for 'messages[{at}].role'.")));
        }
    }
    let prompt = Prompt::of_last(messages);
    let tools = array(root, "tools").unwrap_or_default().iter().filter_map(read_tool).collect();
    let tools = tools_to_call(tools, &read_choice(root), &prompt)?;
    Ok(Ask {
        stream: is_true(root, "stream"),
        tokens_max: read_tokens_max(root)?,
        prompt,
        tools,
        thinking: Thinking::No,
        include_usage: root.get("stream_options").is_some_and(|options| is_true(options, "include_usage")),
        product: Product::Completion,
    })
}

fn read_tokens_max(root: &Value) -> Result<Option<u64>, Refusal> {
    for name in ["max_completion_tokens", "max_tokens"] {
        match root.get(name) {
            None | Some(Value::Null) => {}
            Some(value) => match value.as_u64() {
                Some(tokens) if tokens > 0 => return Ok(Some(tokens)),
                _ => {
                    return Err(wrong(
                        name,
                        &format!("Invalid '{name}': expected an integer of at least 1."),
                    ));
                }
            },
        }
    }
    Ok(None)
}

fn read_tool(tool: &Value) -> Option<Tool> {
    let function = tool.get("function")?;
    Some(Tool {
        name: text(function, "name")?.to_owned(),
        schema: function.get("parameters").cloned().unwrap_or(Value::Null),
    })
}

fn read_choice(root: &Value) -> Choice {
    let Some(choice) = root.get("tool_choice") else { return Choice::Free };
    match choice.as_str() {
        Some("none") => Choice::None,
        Some("required") => Choice::Any,
        _ => match choice.get("function").and_then(|function| text(function, "name")) {
            Some(name) => Choice::Named(name.to_owned()),
            None => Choice::Free,
        },
    }
}

/// A whole reply.
pub(crate) fn whole(naming: &Naming<'_>, reply: &Reply) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    begin(&mut out, naming, "chat.completion");
    let content = text_of(reply);
    out.extend_from_slice(br#""choices":[{"index":0,"message":{"role":"assistant","content":"#);
    if content.is_empty() {
        out.extend_from_slice(b"null")
    } else {
        quote(&mut out, &content)
    }
    out.extend_from_slice(br#","refusal":null,"annotations":[]"#);
    write_calls(&mut out, reply);
    let _ = write!(out, "}},\"logprobs\":null,\"finish_reason\":\"{}\"}}],", finish_reason(reply.stop));
    write_usage(&mut out, naming, reply);
    out.extend_from_slice(br#","service_tier":"default","system_fingerprint":"fp_mock"}"#);
    out
}

/// A reply as chunks.
pub(crate) fn events(naming: &Naming<'_>, reply: &Reply, include_usage: bool) -> Events {
    let mut chunks = Chunks { naming, include_usage, events: Events::default() };
    chunks.delta(0, None, |out| out.extend_from_slice(br#""role":"assistant","content":"""#));
    let mut call_at = 0;
    for block in &reply.blocks {
        match block {
            Block::Thinking { .. } => {}
            Block::Text { pieces } => {
                for piece in pieces {
                    chunks.delta(piece.tokens, None, |out| {
                        out.extend_from_slice(br#""content":"#);
                        quote(out, &piece.text);
                    });
                }
            }
            Block::ToolCall { id, name, pieces } => {
                chunks.delta(0, None, |out| {
                    let _ = write!(out, "\"tool_calls\":[{{\"index\":{call_at},\"id\":\"{}\",", call_id(id));
                    out.extend_from_slice(br#""type":"function","function":{"name":"#);
                    quote(out, name);
                    out.extend_from_slice(br#","arguments":""}}]"#);
                });
                for piece in pieces {
                    chunks.delta(piece.tokens, None, |out| {
                        let _ = write!(
                            out,
                            "\"tool_calls\":[{{\"index\":{call_at},\"function\":{{\"arguments\":"
                        );
                        quote(out, &piece.text);
                        out.extend_from_slice(b"}}]");
                    });
                }
                call_at += 1;
            }
        }
    }
    chunks.delta(0, Some(finish_reason(reply.stop)), |_| {});
    chunks.finish(reply)
}

/// An error inside a stream.
pub(crate) fn error_event(refusal: &Refusal) -> Vec<u8> {
    format!("data: {}\n\n", refusal.object(Dialect::Chat, None)).into_bytes()
}

/// The object that `GET /v1/models/{id}` returns.
pub(crate) fn model_object(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 1_767_225_600, "owned_by": "mock"})
}

/// Chunks as they are written.
struct Chunks<'a> {
    naming: &'a Naming<'a>,
    include_usage: bool,
    events: Events,
}

impl Chunks<'_> {
    fn delta(&mut self, tokens: u64, finish: Option<&str>, write: impl FnOnce(&mut Vec<u8>)) {
        let out = &mut self.events.bytes;
        out.extend_from_slice(b"data: ");
        begin(out, self.naming, "chat.completion.chunk");
        out.extend_from_slice(br#""choices":[{"index":0,"delta":{"#);
        write(out);
        out.extend_from_slice(br#"},"logprobs":null,"finish_reason":"#);
        match finish {
            Some(reason) => quote(out, reason),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"}]");
        if self.include_usage {
            out.extend_from_slice(br#","usage":null"#);
        }
        out.extend_from_slice(b"}\n\n");
        self.events.mark(tokens);
    }

    fn finish(mut self, reply: &Reply) -> Events {
        if self.include_usage {
            let out = &mut self.events.bytes;
            out.extend_from_slice(b"data: ");
            begin(out, self.naming, "chat.completion.chunk");
            out.extend_from_slice(br#""choices":[],"#);
            write_usage(out, self.naming, reply);
            out.extend_from_slice(b"}\n\n");
            self.events.mark(0);
        }
        self.events.bytes.extend_from_slice(b"data: [DONE]\n\n");
        self.events.mark(0);
        self.events
    }
}

fn begin(out: &mut Vec<u8>, naming: &Naming<'_>, object: &str) {
    let _ = write!(
        out,
        "{{\"id\":\"chatcmpl-{:016x}\",\"object\":\"{object}\",\"created\":{},\"model\":",
        naming.number, naming.created_s
    );
    quote(out, naming.model);
    out.push(b',');
}

fn write_calls(out: &mut Vec<u8>, reply: &Reply) {
    let mut first = true;
    for block in &reply.blocks {
        let Block::ToolCall { id, name, .. } = block else { continue };
        out.extend_from_slice(if first { b",\"tool_calls\":[" } else { b"," });
        first = false;
        let _ = write!(out, "{{\"id\":\"{}\",\"type\":\"function\",\"function\":{{\"name\":", call_id(id));
        quote(out, name);
        out.extend_from_slice(b",\"arguments\":");
        quote(out, &block.text());
        out.extend_from_slice(b"}}");
    }
    if !first {
        out.push(b']');
    }
}

fn write_usage(out: &mut Vec<u8>, naming: &Naming<'_>, reply: &Reply) {
    let _ = write!(
        out,
        "\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},\"prompt_tokens_details\":\
         {{\"cached_tokens\":0,\"cache_write_tokens\":0,\"audio_tokens\":0}},\"completion_tokens_details\":\
         {{\"reasoning_tokens\":0,\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\
         \"rejected_prediction_tokens\":0}}}}",
        naming.input_tokens,
        reply.output_tokens,
        naming.input_tokens + reply.output_tokens
    );
}

fn text_of(reply: &Reply) -> String {
    reply.blocks.iter().filter(|block| matches!(block, Block::Text { .. })).map(Block::text).collect()
}

pub(crate) fn call_id(id: &str) -> String {
    format!("call_{}", id.strip_prefix("toolu_").unwrap_or(id))
}

fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End => "stop",
        Stop::TokensMax => "length",
        Stop::ToolUse => "tool_calls",
    }
}

pub(crate) fn missing(name: &'static str) -> Refusal {
    let refusal = wrong(name, &format!("Missing required parameter: '{name}'."));
    Refusal { code: Some("missing_required_parameter"), ..refusal }
}

pub(crate) fn wrong(name: &'static str, message: &str) -> Refusal {
    Refusal { param: Some(name), code: Some("invalid_value"), ..Refusal::invalid(message) }
}
