//! The Messages protocol: reads and judges a request as the provider does, writes replies whole and as events.
//! It decides nothing about quotas, keys or faults.

use std::io::Write;

use serde_json::{Value, json};

use super::ask::{Ask, Choice, Events, Naming, Product, array, is_true, quote, text, tools_to_call};
use super::prompt::Prompt;
use super::refusal::{Dialect, Refusal};
use super::reply::{Block, Reply, Stop, Thinking, Tool, is_signed};

/// The older version, which takes sampling parameters.
const VERSION_OLD: &str = "2023-06-01";
/// The newer one, which does not.
const VERSION_NEW: &str = "2026-10-21";

/// Whether the version header is one of the two.
pub(crate) fn check_version(version: Option<&str>) -> Result<(), Refusal> {
    match version {
        None => Err(Refusal::invalid("anthropic-version: header is required")),
        Some(VERSION_OLD | VERSION_NEW) => Ok(()),
        Some(other) => {
            Err(Refusal::invalid(format!("anthropic-version: \"{other}\" is not a valid version")))
        }
    }
}

/// Reads a request, as the provider would. `counting` is for `count_tokens`, which needs no `max_tokens`.
pub(crate) fn read(
    root: &Value,
    version: Option<&str>,
    tokens_max: u64,
    counting: bool,
) -> Result<Ask, Refusal> {
    let messages = match root.get("messages") {
        None => return Err(Refusal::invalid("messages: Field required")),
        Some(_) => array(root, "messages")
            .ok_or_else(|| Refusal::invalid("messages: Input should be a valid list"))?,
    };
    if messages.is_empty() {
        return Err(Refusal::invalid("messages: at least one message is required"));
    }
    let max_tokens = read_max_tokens(root, tokens_max, counting)?;
    if version == Some(VERSION_NEW) {
        for name in ["temperature", "top_p", "top_k"] {
            if root.get(name).is_some() {
                return Err(Refusal::invalid(format!("{name}: Extra inputs are not permitted")));
            }
        }
    }
    check_messages(messages)?;
    let prompt = Prompt::of_last(messages);
    let tools = array(root, "tools").unwrap_or_default().iter().filter_map(read_tool).collect();
    let tools = tools_to_call(tools, &read_choice(root)?, &prompt)?;
    Ok(Ask {
        stream: is_true(root, "stream"),
        tokens_max: max_tokens,
        prompt,
        tools,
        thinking: read_thinking(root)?,
        include_usage: true,
        product: Product::Message,
    })
}

fn read_max_tokens(root: &Value, tokens_max: u64, counting: bool) -> Result<Option<u64>, Refusal> {
    let Some(value) = root.get("max_tokens") else {
        return if counting { Ok(None) } else { Err(Refusal::invalid("max_tokens: Field required")) };
    };
    let Some(tokens) = value.as_u64() else {
        return Err(Refusal::invalid("max_tokens: Input should be a valid integer"));
    };
    if tokens > tokens_max {
        return Err(Refusal::invalid(format!(
            "max_tokens: {tokens} > {tokens_max}, which is the maximum allowed number of output tokens for {}",
            text(root, "model").unwrap_or_default()
        )));
    }
    Ok(Some(tokens))
}

fn check_messages(messages: &[Value]) -> Result<(), Refusal> {
    for (at, message) in messages.iter().enumerate() {
        match text(message, "role") {
            Some("user" | "assistant" | "system") => {}
            Some(_) => {
                return Err(Refusal::invalid(format!(
                    "messages.{at}.role: Input should be 'user', 'assistant' or 'system'"
                )));
            }
            None => return Err(Refusal::invalid(format!("messages.{at}.role: Field required"))),
        }
        if message.get("content").is_none() {
            return Err(Refusal::invalid(format!("messages.{at}.content: Field required")));
        }
        for (block_at, block) in array(message, "content").unwrap_or_default().iter().enumerate() {
            check_block(at, block_at, block)?;
        }
        check_results(at, message, messages.get(at + 1))?;
    }
    Ok(())
}

fn check_block(at: usize, block_at: usize, block: &Value) -> Result<(), Refusal> {
    let kind = text(block, "type");
    if kind == Some("text") && text(block, "text").is_none_or(str::is_empty) {
        return Err(Refusal::invalid("messages: text content blocks must be non-empty"));
    }
    let signed = || {
        is_signed(text(block, "thinking").unwrap_or_default(), text(block, "signature").unwrap_or_default())
    };
    if kind == Some("thinking") && !signed() {
        return Err(Refusal::invalid(format!(
            "messages.{at}.content.{block_at}: Invalid `signature` in `thinking` block"
        )));
    }
    Ok(())
}

/// Each tool call must be answered at the start of the next message.
fn check_results(at: usize, message: &Value, next: Option<&Value>) -> Result<(), Refusal> {
    let calls = array(message, "content").unwrap_or_default();
    let calls = calls.iter().filter(|block| text(block, "type") == Some("tool_use"));
    let answers = next.and_then(|next| array(next, "content")).unwrap_or_default();
    let open: Vec<&str> = calls
        .filter_map(|call| text(call, "id"))
        .filter(|id| !answers.iter().any(|answer| text(answer, "tool_use_id") == Some(id)))
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` \
         block must have a corresponding `tool_result` block in the next message.",
        open.join(", ")
    )))
}

fn read_tool(tool: &Value) -> Option<Tool> {
    Some(Tool {
        name: text(tool, "name")?.to_owned(),
        schema: tool.get("input_schema").cloned().unwrap_or(Value::Null),
    })
}

fn read_choice(root: &Value) -> Result<Choice, Refusal> {
    let Some(choice) = root.get("tool_choice") else { return Ok(Choice::Free) };
    match text(choice, "type") {
        Some("auto") => Ok(Choice::Free),
        Some("any") => Ok(Choice::Any),
        Some("none") => Ok(Choice::None),
        Some("tool") => match text(choice, "name") {
            Some(name) => Ok(Choice::Named(name.to_owned())),
            None => Err(Refusal::invalid("tool_choice.tool.name: Field required")),
        },
        _ => Err(Refusal::invalid("tool_choice: Input should be 'auto', 'any', 'tool' or 'none'")),
    }
}

fn read_thinking(root: &Value) -> Result<Thinking, Refusal> {
    let Some(thinking) = root.get("thinking") else { return Ok(Thinking::No) };
    let shown =
        if text(thinking, "display") == Some("omitted") { Thinking::Omitted } else { Thinking::Shown };
    match text(thinking, "type") {
        Some("disabled") => Ok(Thinking::No),
        Some("adaptive" | "between_tools") => Ok(shown),
        Some("enabled") => {
            let budget = thinking.get("budget_tokens").and_then(Value::as_u64);
            let max_tokens = root.get("max_tokens").and_then(Value::as_u64).unwrap_or(u64::MAX);
            match budget {
                None => Err(Refusal::invalid("thinking.enabled.budget_tokens: Field required")),
                Some(budget) if budget < 1024 => Err(Refusal::invalid(
                    "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
                )),
                Some(budget) if budget >= max_tokens => {
                    Err(Refusal::invalid("`max_tokens` must be greater than `thinking.budget_tokens`."))
                }
                Some(_) => Ok(shown),
            }
        }
        _ => Err(Refusal::invalid("thinking.type: Input should be 'adaptive', 'disabled' or 'enabled'")),
    }
}

/// A whole reply.
pub(crate) fn whole(naming: &Naming<'_>, reply: &Reply) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_message(&mut out, naming, Some(reply));
    out
}

/// A reply as events.
pub(crate) fn events(naming: &Naming<'_>, reply: &Reply, extra_event: bool) -> Events {
    let mut events = Events::default();
    let out = &mut events.bytes;
    begin(out, "message_start");
    out.extend_from_slice(b",\"message\":");
    write_message(out, naming, None);
    end(&mut events, 0);
    for (index, block) in reply.blocks.iter().enumerate() {
        write_block_events(&mut events, index, block);
        if index == 0 {
            begin(&mut events.bytes, "ping");
            end(&mut events, 0);
            if extra_event {
                begin(&mut events.bytes, "weather_report");
                events.bytes.extend_from_slice(b",\"wind\":\"north\"");
                end(&mut events, 0);
            }
        }
    }
    begin(&mut events.bytes, "message_delta");
    let _ = write!(
        events.bytes,
        ",\"delta\":{{\"stop_reason\":\"{}\",\"stop_sequence\":null,\"stop_details\":null,\"container\":null}},\
         \"usage\":{{\"output_tokens\":{},\"output_tokens_details\":{{\"thinking_tokens\":{}}}}}",
        stop_reason(reply.stop),
        reply.output_tokens,
        reply.thinking_tokens
    );
    end(&mut events, 0);
    begin(&mut events.bytes, "message_stop");
    end(&mut events, 0);
    events
}

/// An error inside a stream.
pub(crate) fn error_event(refusal: &Refusal) -> Vec<u8> {
    let mut out = b"event: error\ndata: ".to_vec();
    let _ = write!(out, "{}\n\n", refusal.object(Dialect::Messages, None));
    out
}

/// The object that `GET /v1/models/{id}` returns.
pub(crate) fn model_object(id: &str, display_name: &str, tokens_max: u64) -> Value {
    json!({
        "id": id,
        "type": "model",
        "display_name": display_name,
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": tokens_max,
    })
}

fn write_block_events(events: &mut Events, index: usize, block: &Block) {
    let out = &mut events.bytes;
    begin(out, "content_block_start");
    let _ = write!(out, ",\"index\":{index},\"content_block\":");
    match block {
        Block::Thinking { .. } => {
            out.extend_from_slice(br#"{"type":"thinking","thinking":"","signature":""}"#);
        }
        Block::Text { .. } => out.extend_from_slice(br#"{"type":"text","text":""}"#),
        Block::ToolCall { id, name, .. } => {
            let _ = write!(out, "{{\"type\":\"tool_use\",\"id\":\"{id}\",\"name\":");
            quote(out, name);
            out.extend_from_slice(b",\"input\":{}}");
        }
    }
    end(events, 0);
    let (kind, field) = match block {
        Block::Thinking { .. } => ("thinking_delta", "thinking"),
        Block::Text { .. } => ("text_delta", "text"),
        Block::ToolCall { .. } => ("input_json_delta", "partial_json"),
    };
    // Thinking that is not shown was produced all the same: its signature carries the tokens.
    let mut hidden_tokens = 0;
    for piece in block.pieces() {
        if piece.text.is_empty() {
            hidden_tokens += piece.tokens;
            continue;
        }
        write_delta(events, index, kind, field, &piece.text, piece.tokens);
    }
    if let Block::Thinking { signature, .. } = block {
        write_delta(events, index, "signature_delta", "signature", signature, hidden_tokens);
    }
    begin(&mut events.bytes, "content_block_stop");
    let _ = write!(events.bytes, ",\"index\":{index}");
    end(events, 0);
}

fn write_delta(events: &mut Events, index: usize, kind: &str, field: &str, text: &str, tokens: u64) {
    let out = &mut events.bytes;
    begin(out, "content_block_delta");
    let _ = write!(out, ",\"index\":{index},\"delta\":{{\"type\":\"{kind}\",\"{field}\":");
    quote(out, text);
    out.push(b'}');
    end(events, tokens);
}

fn begin(out: &mut Vec<u8>, name: &str) {
    let _ = write!(out, "event: {name}\ndata: {{\"type\":\"{name}\"");
}

fn end(events: &mut Events, tokens: u64) {
    events.bytes.extend_from_slice(b"}\n\n");
    events.mark(tokens);
}

/// The message object: complete, or as a stream starts with it.
fn write_message(out: &mut Vec<u8>, naming: &Naming<'_>, reply: Option<&Reply>) {
    let _ = write!(
        out,
        "{{\"id\":\"msg_{:016x}\",\"type\":\"message\",\"role\":\"assistant\",\"model\":",
        naming.number
    );
    quote(out, naming.model);
    out.extend_from_slice(b",\"content\":[");
    for (index, block) in reply.iter().flat_map(|reply| &reply.blocks).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_block(out, block);
    }
    out.extend_from_slice(b"],\"stop_reason\":");
    match reply {
        Some(reply) => quote(out, stop_reason(reply.stop)),
        None => out.extend_from_slice(b"null"),
    }
    let (output_tokens, thinking_tokens) =
        reply.map_or((1, 0), |reply| (reply.output_tokens, reply.thinking_tokens));
    let _ = write!(
        out,
        ",\"stop_sequence\":null,\"stop_details\":null,\"container\":null,\"usage\":{{\"input_tokens\":{},\
         \"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"cache_creation\":\
         {{\"ephemeral_5m_input_tokens\":0,\"ephemeral_1h_input_tokens\":0}},\"output_tokens\":{output_tokens},\
         \"output_tokens_details\":{{\"thinking_tokens\":{thinking_tokens}}},\"service_tier\":\"standard\",\
         \"inference_geo\":\"global\"}}}}",
        naming.input_tokens
    );
}

fn write_block(out: &mut Vec<u8>, block: &Block) {
    match block {
        Block::Thinking { signature, .. } => {
            out.extend_from_slice(b"{\"type\":\"thinking\",\"thinking\":");
            quote(out, &block.text());
            out.extend_from_slice(b",\"signature\":");
            quote(out, signature);
        }
        Block::Text { .. } => {
            out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
            quote(out, &block.text());
            out.extend_from_slice(b",\"citations\":null");
        }
        Block::ToolCall { id, name, .. } => {
            let _ = write!(out, "{{\"type\":\"tool_use\",\"id\":\"{id}\",\"name\":");
            quote(out, name);
            // The pieces together are the JSON of the input.
            let _ = write!(out, ",\"input\":{}", block.text());
        }
    }
    out.push(b'}');
}

fn stop_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End => "end_turn",
        Stop::TokensMax => "max_tokens",
        Stop::ToolUse => "tool_use",
    }
}
