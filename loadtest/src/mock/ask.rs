//! A generating call as it was understood, whichever protocol it came in; and small readers of JSON for all of them.

use serde_json::Value;

use super::embeddings::Vectors;
use super::prompt::Prompt;
use super::refusal::Refusal;
use super::reply::{Thinking, Tool};
use super::responses::Asked;

/// What a call asks for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) stream: bool,
    pub(crate) tokens_max: Option<u64>,
    pub(crate) prompt: Prompt,
    /// The tools to call, in order; empty if none is to be called.
    pub(crate) tools: Vec<Tool>,
    pub(crate) thinking: Thinking,
    /// Whether a stream ends with a chunk of usage (chat).
    pub(crate) include_usage: bool,
    pub(crate) product: Product,
}

/// What a reply is to be.
#[derive(Clone, Debug)]
pub(crate) enum Product {
    Message,
    Completion,
    Response(Box<Asked>),
    Vectors(Vectors),
    Images {
        count: u64,
    },
    Sound,
    /// What was said; without JSON around it if `plain`.
    Transcript {
        plain: bool,
    },
}

/// What names a reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naming<'a> {
    pub(crate) model: &'a str,
    /// A number of its own.
    pub(crate) number: u64,
    /// Unix time in s.
    pub(crate) created_s: u64,
    pub(crate) input_tokens: u64,
}

/// Events of a stream, one after another in `bytes`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    pub(crate) bytes: Vec<u8>,
    pub(crate) marks: Vec<EventMark>,
}

/// Where an event ends, and what it carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventMark {
    pub(crate) end: usize,
    pub(crate) tokens: u64,
}

impl Events {
    /// What was written since the last mark is an event.
    pub(crate) fn mark(&mut self, tokens: u64) {
        self.marks.push(EventMark { end: self.bytes.len(), tokens });
    }
}

/// How tools are to be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Free,
    None,
    Any,
    Named(String),
}

/// The tools that the reply calls: forced ones, or as many as the prompt asks for.
pub(crate) fn tools_to_call(
    tools: Vec<Tool>,
    choice: &Choice,
    prompt: &Prompt,
) -> Result<Vec<Tool>, Refusal> {
    let wanted = match choice {
        Choice::None => 0,
        Choice::Free => prompt.tool_calls_wanted,
        Choice::Any => prompt.tool_calls_wanted.max(1),
        Choice::Named(name) => {
            let Some(tool) = tools.into_iter().find(|tool| &tool.name == name) else {
                return Err(Refusal::invalid(format!("Tool '{name}' not found in provided tools")));
            };
            return Ok(vec![tool]);
        }
    };
    let wanted = usize::try_from(wanted).unwrap_or(0);
    Ok(tools.iter().cycle().take(if tools.is_empty() { 0 } else { wanted }).cloned().collect())
}

/// A field that must be a non-empty array.
pub(crate) fn array<'a>(root: &'a Value, name: &str) -> Option<&'a [Value]> {
    root.get(name)?.as_array().map(Vec::as_slice)
}

/// A field that must be text.
pub(crate) fn text<'a>(root: &'a Value, name: &str) -> Option<&'a str> {
    root.get(name)?.as_str()
}

/// A field that is true.
pub(crate) fn is_true(root: &Value, name: &str) -> bool {
    root.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// Writes a text as JSON.
pub(crate) fn quote(out: &mut Vec<u8>, text: &str) {
    // Text always serializes, and writing to a `Vec` cannot fail.
    let _ = serde_json::to_writer(out, text);
}
