//! Embeddings: reads a request and writes its vectors. The same input has the same vector.

use serde_json::{Value, json};

use super::ask::{Ask, Naming, Product, text};
use super::chat::{missing, wrong};
use super::prompt::Prompt;
use super::random::{self, Random};
use super::refusal::Refusal;
use super::reply::Thinking;

/// Inputs of a request at most (the API reference).
const INPUTS_MAX: usize = 2_048;
/// Numbers of a vector, if the request names no number.
const DIMENSIONS_DEFAULT: u64 = 8;
/// Numbers of a vector at most.
const DIMENSIONS_MAX: u64 = 4_096;
/// What vectors are drawn with, so that all mocks draw the same.
const VECTOR_SEED: u64 = 0xE3BED;

/// The vectors that a request asks for.
#[derive(Clone, Debug)]
pub(crate) struct Vectors {
    /// What stands for each input.
    seeds: Vec<u64>,
    dimensions: u64,
    base64: bool,
}

/// Reads a request, as the provider would.
pub(crate) fn read(root: &Value) -> Result<Ask, Refusal> {
    let input = root.get("input").ok_or_else(|| missing("input"))?;
    let inputs = match input {
        Value::String(_) => std::slice::from_ref(input),
        Value::Array(all) if all.iter().all(Value::is_u64) => std::slice::from_ref(input),
        Value::Array(all) => all,
        _ => return Err(wrong("input", "Invalid 'input': expected a string, strings or tokens.")),
    };
    let empty = |input: &Value| match input {
        Value::String(text) => text.is_empty(),
        Value::Array(tokens) => tokens.is_empty(),
        _ => true,
    };
    if inputs.is_empty() || inputs.len() > INPUTS_MAX || inputs.iter().any(empty) {
        return Err(wrong("input", "Invalid 'input': 1 to 2048 inputs that are not empty."));
    }
    let dimensions = root.get("dimensions").map_or(Some(DIMENSIONS_DEFAULT), Value::as_u64);
    let dimensions = dimensions
        .filter(|it| (1..=DIMENSIONS_MAX).contains(it))
        .ok_or_else(|| wrong("dimensions", "Invalid 'dimensions': between 1 and 4096."))?;
    let seed = |input: &Value| random::hash(VECTOR_SEED, input.to_string().as_bytes());
    let vectors = Vectors {
        seeds: inputs.iter().map(seed).collect(),
        dimensions,
        base64: text(root, "encoding_format") == Some("base64"),
    };
    Ok(Ask {
        stream: false,
        tokens_max: Some(0),
        prompt: Prompt::of_last(&[json!({ "text": input })]),
        tools: Vec::new(),
        thinking: Thinking::No,
        include_usage: true,
        product: Product::Vectors(vectors),
    })
}

/// A whole reply.
pub(crate) fn whole(naming: &Naming<'_>, vectors: &Vectors) -> Vec<u8> {
    let data: Vec<Value> = vectors
        .seeds
        .iter()
        .enumerate()
        .map(|(at, &seed)| {
            let mut random = Random::new(seed);
            let numbers = (0..vectors.dimensions).map(|_| (2.0 * random.unit() - 1.0) as f32);
            let embedding = if vectors.base64 {
                let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
                Value::from(base64(&bytes))
            } else {
                Value::from(numbers.collect::<Vec<f32>>())
            };
            json!({"object": "embedding", "index": at, "embedding": embedding})
        })
        .collect();
    let usage = json!({"prompt_tokens": naming.input_tokens, "total_tokens": naming.input_tokens});
    json!({"object": "list", "data": data, "model": naming.model, "usage": usage}).to_string().into_bytes()
}

/// Base64 (RFC 4648 §4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_one_of_the_standard() {
        let all = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|it| base64(it.as_bytes()));
        assert_eq!(all, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }
}
