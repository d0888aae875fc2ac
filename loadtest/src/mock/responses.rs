//! The Responses protocol: reads and judges a request, writes responses whole and as typed events. It decides nothing
//! about quotas, keys or faults; what is kept of a response is in `stored`.

use serde_json::{Map, Value, json};

use super::ask::{Ask, Choice, Events, Naming, Product, array, is_true, text, tools_to_call};
use super::chat::{call_id, missing, wrong};
use super::prompt::Prompt;
use super::refusal::Refusal;
use super::reply::{Block, Reply, Stop, Thinking, Tool};

/// Members of a request that its response repeats, and what they are where it has none.
const REPEATED: [(&str, &str); 11] = [
    ("background", "false"),
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("store", "true"),
    ("temperature", "1.0"),
    ("tool_choice", "\"auto\""),
    ("tools", "[]"),
    ("top_p", "1.0"),
];

/// What a request says of its response.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) store: bool,
    /// Worked on after the reply.
    pub(crate) background: bool,
    /// The response that this one continues.
    pub(crate) previous: Option<String>,
    /// The input as items.
    pub(crate) items: Vec<Value>,
    /// What the response repeats.
    repeated: Map<String, Value>,
}

/// Reads a request, as the provider would.
pub(crate) fn read(root: &Value) -> Result<Ask, Refusal> {
    let items = match root.get("input") {
        Some(Value::String(text)) => {
            let content = json!([{"type": "input_text", "text": text}]);
            vec![json!({"type": "message", "role": "user", "content": content})]
        }
        Some(Value::Array(items)) if !items.is_empty() => items.clone(),
        Some(_) => return Err(wrong("input", "Invalid 'input': expected a string or items.")),
        None => return Err(missing("input")),
    };
    if let Some(id) = text(root, "conversation") {
        let message = format!("Conversation with id '{id}' not found.");
        return Err(Refusal { param: Some("conversation"), ..Refusal::new(404, "not_found", message) });
    }
    let prompt = Prompt::of_last(&items);
    let tools = array(root, "tools").unwrap_or_default().iter().filter_map(read_tool).collect();
    let tools = tools_to_call(tools, &read_choice(root), &prompt)?;
    let repeated = REPEATED.iter().map(|&(name, usual)| {
        let value = root.get(name).cloned().or_else(|| serde_json::from_str(usual).ok());
        (name.to_owned(), value.unwrap_or_default())
    });
    let asked = Asked {
        store: root.get("store") != Some(&Value::Bool(false)),
        background: is_true(root, "background"),
        previous: text(root, "previous_response_id").map(str::to_owned),
        items: items.into_iter().enumerate().map(with_id).collect(),
        repeated: repeated.collect(),
    };
    if asked.background && !asked.store {
        return Err(wrong("background", "Background responses have to be stored: 'store' cannot be false."));
    }
    Ok(Ask {
        // Who works on it later has nothing to stream.
        stream: is_true(root, "stream") && !asked.background,
        tokens_max: read_tokens_max(root)?,
        prompt,
        tools,
        thinking: read_thinking(root),
        include_usage: true,
        product: Product::Response(Box::new(asked)),
    })
}

/// An item of the input with an id, which what is kept has.
fn with_id((at, mut item): (usize, Value)) -> Value {
    if let Some(object) = item.as_object_mut() {
        object.entry("type").or_insert_with(|| json!("message"));
        object.entry("id").or_insert_with(|| json!(format!("item_mock{at}")));
    }
    item
}

fn read_tokens_max(root: &Value) -> Result<Option<u64>, Refusal> {
    match root.get("max_output_tokens") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().filter(|&tokens| tokens > 0).map(Some).ok_or_else(|| {
            wrong("max_output_tokens", "Invalid 'max_output_tokens': expected an integer of at least 1.")
        }),
    }
}

fn read_tool(tool: &Value) -> Option<Tool> {
    let schema = tool.get("parameters").cloned().unwrap_or(Value::Null);
    (text(tool, "type") == Some("function")).then_some(())?;
    Some(Tool { name: text(tool, "name")?.to_owned(), schema })
}

fn read_choice(root: &Value) -> Choice {
    let Some(choice) = root.get("tool_choice") else { return Choice::Free };
    match choice.as_str() {
        Some("none") => Choice::None,
        Some("required") => Choice::Any,
        _ => text(choice, "name").map_or(Choice::Free, |name| Choice::Named(name.to_owned())),
    }
}

fn read_thinking(root: &Value) -> Thinking {
    match root.get("reasoning").and_then(|reasoning| text(reasoning, "effort")) {
        None | Some("none") => Thinking::No,
        Some(_) => Thinking::Omitted,
    }
}

/// The id of the response.
pub(crate) fn id_of(naming: &Naming<'_>) -> String {
    format!("resp_mock{:016x}", naming.number)
}

/// A whole response; of one that is worked on later, its beginning.
pub(crate) fn whole(naming: &Naming<'_>, asked: &Asked, reply: &Reply) -> Vec<u8> {
    let response =
        if asked.background { begun(naming, asked, "queued") } else { finished(naming, asked, reply) };
    response.to_string().into_bytes()
}

/// A response that is there.
pub(crate) fn finished(naming: &Naming<'_>, asked: &Asked, reply: &Reply) -> Value {
    let mut response = begun(naming, asked, status_of(reply));
    let items = reply.blocks.iter().enumerate().map(|(at, block)| item(naming, at, block, "completed"));
    response["output"] = items.collect();
    if reply.stop == Stop::TokensMax {
        response["incomplete_details"] = json!({"reason": "max_output_tokens"});
    }
    response["completed_at"] = json!(naming.created_s);
    response["usage"] = json!({
        "input_tokens": naming.input_tokens, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": reply.output_tokens, "output_tokens_details": {"reasoning_tokens": reply.thinking_tokens},
        "total_tokens": naming.input_tokens + reply.output_tokens,
    });
    response
}

/// A response that has nothing yet.
pub(crate) fn begun(naming: &Naming<'_>, asked: &Asked, status: &str) -> Value {
    let mut response = json!({
        "id": id_of(naming), "object": "response", "created_at": naming.created_s, "status": status,
        "error": null, "incomplete_details": null, "model": naming.model, "output": [], "usage": null,
        "reasoning": {"effort": null, "summary": null}, "text": {"format": {"type": "text"}},
        "truncation": "disabled", "service_tier": "default",
    });
    for (name, value) in &asked.repeated {
        response[name] = value.clone();
    }
    response
}

fn status_of(reply: &Reply) -> &'static str {
    if reply.stop == Stop::TokensMax { "incomplete" } else { "completed" }
}

fn item(naming: &Naming<'_>, at: usize, block: &Block, status: &str) -> Value {
    let id = item_id(naming, at, block);
    let done = status == "completed";
    match block {
        Block::Thinking { .. } => json!({"id": id, "type": "reasoning", "summary": []}),
        Block::Text { .. } => {
            let content = if done { json!([part(&block.text())]) } else { json!([]) };
            json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
        }
        Block::ToolCall { id: call, name, .. } => {
            let arguments = if done { block.text() } else { String::new() };
            json!({"id": id, "type": "function_call", "status": status, "call_id": call_id(call), "name": name,
                "arguments": arguments})
        }
    }
}

fn item_id(naming: &Naming<'_>, at: usize, block: &Block) -> String {
    let kind = match block {
        Block::Thinking { .. } => "rs",
        Block::Text { .. } => "msg",
        Block::ToolCall { .. } => "fc",
    };
    format!("{kind}_mock{:016x}{at:02x}", naming.number)
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// A response as typed events.
pub(crate) fn events(naming: &Naming<'_>, asked: &Asked, reply: &Reply) -> Events {
    let mut typed = Typed::default();
    for kind in ["response.created", "response.in_progress"] {
        typed.push(kind, 0, json!({ "response": begun(naming, asked, "in_progress") }));
    }
    for (at, block) in reply.blocks.iter().enumerate() {
        typed.block(naming, at, block);
    }
    let kind = if reply.stop == Stop::TokensMax { "response.incomplete" } else { "response.completed" };
    typed.push(kind, 0, json!({ "response": finished(naming, asked, reply) }));
    typed.events
}

/// An error inside a stream.
pub(crate) fn error_event(refusal: &Refusal) -> Vec<u8> {
    let code = refusal.code.unwrap_or("server_error");
    let data = json!({"type": "error", "code": code, "message": refusal.message, "param": null});
    format!("event: error\ndata: {data}\n\n").into_bytes()
}

/// Events as they are written, each with the next number.
#[derive(Default)]
struct Typed {
    events: Events,
    number: u64,
}

impl Typed {
    fn push(&mut self, kind: &str, tokens: u64, mut data: Value) {
        data["type"] = json!(kind);
        data["sequence_number"] = json!(self.number);
        self.number += 1;
        self.events.bytes.extend_from_slice(format!("event: {kind}\ndata: {data}\n\n").as_bytes());
        self.events.mark(tokens);
    }

    fn block(&mut self, naming: &Naming<'_>, at: usize, block: &Block) {
        let id = item_id(naming, at, block);
        let added = json!({"output_index": at, "item": item(naming, at, block, "in_progress")});
        self.push("response.output_item.added", 0, added);
        let place = |name: &str, value: Value| {
            let mut place = json!({"item_id": id, "output_index": at});
            place[name] = value;
            place
        };
        let mut thought = 0;
        match block {
            Block::Thinking { .. } => thought = block.tokens(),
            Block::Text { pieces } => {
                let within = |name: &str, value: Value| {
                    let mut place = place(name, value);
                    place["content_index"] = json!(0);
                    place
                };
                self.push("response.content_part.added", 0, within("part", part("")));
                for piece in pieces {
                    let mut delta = within("delta", json!(piece.text));
                    delta["logprobs"] = json!([]);
                    self.push("response.output_text.delta", piece.tokens, delta);
                }
                let mut done = within("text", json!(block.text()));
                done["logprobs"] = json!([]);
                self.push("response.output_text.done", 0, done);
                self.push("response.content_part.done", 0, within("part", part(&block.text())));
            }
            Block::ToolCall { pieces, .. } => {
                for piece in pieces {
                    let delta = place("delta", json!(piece.text));
                    self.push("response.function_call_arguments.delta", piece.tokens, delta);
                }
                let done = place("arguments", json!(block.text()));
                self.push("response.function_call_arguments.done", 0, done);
            }
        }
        let done = json!({"output_index": at, "item": item(naming, at, block, "completed")});
        self.push("response.output_item.done", thought, done);
    }
}
