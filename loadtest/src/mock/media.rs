//! Images and sound: reads what a request asks for and writes a reply that is one in form. What it shows or says is
//! always the same.

use serde_json::{Value, json};

use super::ask::{Ask, Naming, Product, text};
use super::chat::{missing, wrong};
use super::prompt::Prompt;
use super::refusal::Refusal;
use super::reply::{Block, Reply, Thinking};

/// Images of a request at most (the API reference).
const IMAGES_MAX: u64 = 10;
/// A picture of one white point (PNG), in base64.
const PICTURE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==";
/// A frame of sound (MPEG 1, layer 3), silent.
const FRAME: &[u8] = b"\xff\xfb\x90\0";

/// Reads a request for images. Only what is made of text needs a prompt.
pub(crate) fn read_images(root: &Value, needs_prompt: bool) -> Result<Ask, Refusal> {
    if needs_prompt && text(root, "prompt").is_none() {
        return Err(missing("prompt"));
    }
    // In a form it is a text.
    let count = match root.get("n") {
        None => Some(1),
        Some(Value::String(number)) => number.parse().ok(),
        Some(number) => number.as_u64(),
    };
    let count = count
        .filter(|it| (1..=IMAGES_MAX).contains(it))
        .ok_or_else(|| wrong("n", "Invalid 'n': between 1 and 10."))?;
    Ok(ask(root, "prompt", Product::Images { count }))
}

/// Reads a request for speech.
pub(crate) fn read_speech(root: &Value) -> Result<Ask, Refusal> {
    for name in ["input", "voice"] {
        if root.get(name).is_none() {
            return Err(missing(name));
        }
    }
    Ok(ask(root, "input", Product::Sound))
}

/// Reads a request for the text of sound.
pub(crate) fn read_transcript(root: &Value) -> Ask {
    let plain = matches!(text(root, "response_format"), Some("text" | "srt" | "vtt"));
    ask(root, "prompt", Product::Transcript { plain })
}

fn ask(root: &Value, prompt: &str, product: Product) -> Ask {
    let prompt = Prompt::of_last(&[json!({ "text": text(root, prompt) })]);
    let (tools, thinking) = (Vec::new(), Thinking::No);
    Ask { stream: false, tokens_max: None, prompt, tools, thinking, include_usage: true, product }
}

/// So many images.
pub(crate) fn images(naming: &Naming<'_>, count: u64, reply: &Reply) -> Vec<u8> {
    let data: Vec<Value> = (0..count).map(|_| json!({ "b64_json": PICTURE })).collect();
    let mut usage = usage(naming, reply);
    usage["input_tokens_details"] = json!({"text_tokens": naming.input_tokens, "image_tokens": 0});
    json!({"created": naming.created_s, "data": data, "usage": usage}).to_string().into_bytes()
}

/// A frame of sound for each token.
pub(crate) fn sound(reply: &Reply) -> Vec<u8> {
    FRAME.repeat(usize::try_from(reply.output_tokens).unwrap_or(1).max(1))
}

/// The text of sound.
pub(crate) fn transcript(naming: &Naming<'_>, reply: &Reply) -> Vec<u8> {
    let mut usage = usage(naming, reply);
    usage["type"] = json!("tokens");
    json!({"text": text_of(reply), "usage": usage}).to_string().into_bytes()
}

/// The text alone.
pub(crate) fn plain_transcript(reply: &Reply) -> Vec<u8> {
    format!("{}\n", text_of(reply)).into_bytes()
}

fn usage(naming: &Naming<'_>, reply: &Reply) -> Value {
    json!({
        "input_tokens": naming.input_tokens, "output_tokens": reply.output_tokens,
        "total_tokens": naming.input_tokens + reply.output_tokens,
    })
}

fn text_of(reply: &Reply) -> String {
    reply.blocks.iter().map(Block::text).collect()
}
