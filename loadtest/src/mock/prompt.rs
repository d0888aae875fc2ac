//! What the mock finds in a request's text: marks to echo, wishes for the reply, images. Decides how many input tokens
//! a request has; it never judges the request.
//!
//! Wishes stand in the last message, as words: `MARK:xyz` comes back in the reply, `TOKENS:n` sets its length,
//! `USE_TOOLS:n` asks for n tool calls at once, `EXTRA_EVENT` for an event of an unknown type in a stream.

use serde_json::Value;

/// Marks echoed at most.
const MARKS_MAX: usize = 16;
/// Tool calls at most.
const TOOL_CALLS_MAX: u64 = 16;
/// Tokens that an image counts for.
const IMAGE_TOKENS: f64 = 1_500.0;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) marks: Vec<String>,
    pub(crate) tokens_wanted: Option<u64>,
    pub(crate) tool_calls_wanted: u64,
    pub(crate) extra_event: bool,
}

impl Prompt {
    /// Reads the last of these messages.
    pub(crate) fn of_last(messages: &[Value]) -> Prompt {
        let mut prompt = Prompt::default();
        if let Some(last) = messages.last() {
            each_text(last, &mut |text| prompt.read(text));
        }
        prompt
    }

    fn read(&mut self, text: &str) {
        if !text.contains("MARK:") && !text.contains("TOKENS:") && !text.contains('_') {
            return;
        }
        for word in text.split(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | '<' | '>')) {
            if let Some(mark) = word.strip_prefix("MARK:") {
                if self.marks.len() < MARKS_MAX {
                    self.marks.push(mark.to_owned());
                }
            } else if let Some(number) = word.strip_prefix("TOKENS:") {
                self.tokens_wanted = number.parse().ok();
            } else if let Some(number) = word.strip_prefix("USE_TOOLS:") {
                self.tool_calls_wanted = number.parse::<u64>().unwrap_or(1).min(TOOL_CALLS_MAX);
            } else if word == "EXTRA_EVENT" {
                self.extra_event = true;
            }
        }
    }
}

/// Input tokens of a request of so many bytes: images by their number, not by their bytes. `unit` (0 to 1) places the
/// count within the spread.
pub(crate) fn input_tokens(
    body_bytes: usize,
    root: &Value,
    bytes_per_token: f64,
    spread: f64,
    unit: f64,
) -> u64 {
    let (mut images, mut image_bytes) = (0_u32, 0_usize);
    each_object(root, &mut |object| {
        let kind = object.get("type").and_then(Value::as_str);
        if kind == Some("image") || kind == Some("image_url") {
            images += 1;
            let data = object.get("source").and_then(|source| source.get("data"));
            let url = object.get("image_url").and_then(|image| image.get("url"));
            image_bytes += data.or(url).and_then(Value::as_str).map_or(0, str::len);
        }
    });
    let text_tokens = body_bytes.saturating_sub(image_bytes) as f64 / bytes_per_token;
    let factor = 1.0 + spread * (2.0 * unit - 1.0);
    ((text_tokens + f64::from(images) * IMAGE_TOKENS) * factor).max(1.0).round() as u64
}

fn each_object(value: &Value, visit: &mut impl FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| each_object(item, visit)),
        Value::Object(object) => {
            visit(object);
            object.values().for_each(|value| each_object(value, visit));
        }
        _ => {}
    }
}

/// Each string that stands under `text` or `content`, in order.
fn each_text(message: &Value, visit: &mut impl FnMut(&str)) {
    match message {
        Value::Object(object) => {
            for name in ["text", "content"] {
                match object.get(name) {
                    Some(Value::String(text)) => visit(text),
                    Some(inner) => each_text(inner, visit),
                    None => {}
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_text(item, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wishes_are_read_from_the_last_message() {
        let messages = [
            json!({"role": "user", "content": "MARK:old TOKENS:9"}),
            json!({"role": "user", "content": [
                {"type": "text", "text": "say MARK:one and\nMARK:two TOKENS:7"},
                {"type": "tool_result", "content": [{"type": "text", "text": "USE_TOOLS:3 EXTRA_EVENT"}]}]}),
        ];
        let prompt = Prompt::of_last(&messages);
        assert_eq!(prompt.marks, ["one", "two"]);
        assert_eq!((prompt.tokens_wanted, prompt.tool_calls_wanted, prompt.extra_event), (Some(7), 3, true));
    }

    #[test]
    fn images_count_by_number_and_the_spread_is_kept() {
        let data = "A".repeat(4_000);
        let root = json!({"messages": [{"content": [{"type": "image", "source": {"data": data}}]}]});
        assert_eq!(input_tokens(4_400, &root, 4.0, 0.0, 0.3), 1_600);
        assert_eq!(input_tokens(4_400, &root, 4.0, 0.1, 0.0), 1_440);
        assert_eq!(input_tokens(4_400, &root, 4.0, 0.1, 1.0), 1_760);
    }
}
