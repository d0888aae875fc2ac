//! What a reply says, before it is written in a protocol: blocks of thinking, text and tool calls, cut into the pieces
//! that a stream sends one by one. Decides content, length and why it stops.

use serde_json::{Map, Value};

use super::prompt::Prompt;
use super::random::{self, Random};

/// Words that stand for a token each.
const WORDS: [&str; 16] = [
    "tide ", "gate ", "water ", "level ", "rises ", "slowly ", "and ", "falls ", "with ", "the ", "moon ",
    "over ", "sand ", "stone ", "harbour ", "wall ",
];
/// Tokens that a reply has at most, whatever was asked for: a stream is made before it is sent.
const REPLY_TOKENS_MAX: u64 = 200_000;
/// Bytes of a tool call's input that go into one event.
const INPUT_PIECE_BYTES: usize = 12;
/// What a signature is made with, so that all mocks read each other's.
const SIGNATURE_SEED: u64 = 0x51_6E;

/// What a reply is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) prompt: Prompt,
    pub(crate) tokens_max: Option<u64>,
    /// Tokens if the prompt names no number.
    pub(crate) tokens_drawn: u64,
    pub(crate) tokens_per_event: usize,
    /// The tools to call, in order.
    pub(crate) tools: Vec<Tool>,
    pub(crate) thinking: Thinking,
}

/// A tool that can be called.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) schema: Value,
}

/// Whether the reply begins with thinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thinking {
    No,
    Shown,
    /// Only its signature.
    Omitted,
}

/// Why a reply ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    End,
    TokensMax,
    ToolUse,
}

/// One run of text that goes into one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) tokens: u64,
}

/// One block of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Thinking { pieces: Vec<Piece>, signature: String },
    Text { pieces: Vec<Piece> },
    ToolCall { id: String, name: String, pieces: Vec<Piece> },
}

/// A reply.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) blocks: Vec<Block>,
    pub(crate) stop: Stop,
    pub(crate) output_tokens: u64,
    pub(crate) thinking_tokens: u64,
}

impl Reply {
    /// The reply to a wish. The same wish and random numbers give the same reply.
    pub(crate) fn new(wish: &Wish, random: &mut Random) -> Reply {
        let mut writer = Writer {
            left: wish.tokens_max.unwrap_or(u64::MAX).min(REPLY_TOKENS_MAX),
            per_event: wish.tokens_per_event.max(1),
            random,
        };
        let mut blocks = Vec::new();
        let mut thinking_tokens = 0;
        if wish.thinking != Thinking::No && writer.left > 0 {
            let pieces = writer.words(6);
            thinking_tokens = tokens_of(&pieces);
            let shown = wish.thinking == Thinking::Shown;
            let pieces =
                if shown { pieces } else { vec![Piece { text: String::new(), tokens: thinking_tokens }] };
            let signature = sign(&text_of(&pieces));
            blocks.push(Block::Thinking { pieces, signature });
        }
        let calls = !wish.tools.is_empty();
        let wanted = if calls { 4 } else { wish.prompt.tokens_wanted.unwrap_or(wish.tokens_drawn) };
        let mut cut = wanted > writer.left;
        let pieces = writer.text(&wish.prompt.marks, wanted);
        if !pieces.is_empty() {
            blocks.push(Block::Text { pieces });
        }
        for tool in &wish.tools {
            cut |= writer.left == 0;
            if cut {
                break;
            }
            blocks.push(writer.tool_call(tool, wish.prompt.marks.first()));
        }
        let output_tokens = blocks.iter().map(Block::tokens).sum();
        let stop = match (cut, calls) {
            (true, _) => Stop::TokensMax,
            (false, true) => Stop::ToolUse,
            (false, false) => Stop::End,
        };
        Reply { blocks, stop, output_tokens, thinking_tokens }
    }
}

impl Block {
    pub(crate) fn pieces(&self) -> &[Piece] {
        match self {
            Block::Thinking { pieces, .. } | Block::Text { pieces } | Block::ToolCall { pieces, .. } => {
                pieces
            }
        }
    }

    pub(crate) fn text(&self) -> String {
        text_of(self.pieces())
    }

    pub(crate) fn tokens(&self) -> u64 {
        tokens_of(self.pieces())
    }
}

/// Whether a mock has made this signature for this text.
pub(crate) fn is_signed(thinking: &str, signature: &str) -> bool {
    sign(thinking) == signature
}

fn sign(thinking: &str) -> String {
    let mut random = Random::new(random::hash(SIGNATURE_SEED, thinking.as_bytes()));
    format!("EqMock{:016x}{:016x}", random.next(), random.next())
}

fn text_of(pieces: &[Piece]) -> String {
    pieces.iter().map(|piece| piece.text.as_str()).collect()
}

fn tokens_of(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.tokens).sum()
}

/// Writes pieces until the tokens are used up.
struct Writer<'a> {
    left: u64,
    per_event: usize,
    random: &'a mut Random,
}

impl Writer<'_> {
    fn words(&mut self, count: u64) -> Vec<Piece> {
        self.text(&[], count)
    }

    /// So many tokens of text, the marks first: each counts as one.
    fn text(&mut self, marks: &[String], count: u64) -> Vec<Piece> {
        let count = count.max(marks.len() as u64).min(self.left);
        self.left -= count;
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut tokens = 0;
        for at in 0..count {
            match usize::try_from(at).ok().and_then(|at| marks.get(at)) {
                Some(mark) => {
                    text.push_str("MARK:");
                    text.push_str(mark);
                    text.push(' ');
                }
                None => text.push_str(WORDS[(self.random.next() % WORDS.len() as u64) as usize]),
            }
            tokens += 1;
            if tokens == self.per_event as u64 || at + 1 == count {
                pieces.push(Piece { text: std::mem::take(&mut text), tokens });
                tokens = 0;
            }
        }
        pieces
    }

    fn tool_call(&mut self, tool: &Tool, mark: Option<&String>) -> Block {
        let input = fill(&tool.schema, mark.map_or("harbour", String::as_str), 0).to_string();
        let mut pieces = Vec::new();
        let mut rest = input.as_str();
        while !rest.is_empty() {
            let end =
                (INPUT_PIECE_BYTES..=rest.len()).find(|&at| rest.is_char_boundary(at)).unwrap_or(rest.len());
            let (piece, behind) = rest.split_at(end);
            pieces.push(Piece { text: piece.to_owned(), tokens: 2.min(self.left) });
            self.left -= 2.min(self.left);
            rest = behind;
        }
        let id = format!("toolu_{:016x}", self.random.next());
        Block::ToolCall { id, name: tool.name.clone(), pieces }
    }
}

/// An input that a schema allows, if it is a simple one.
fn fill(schema: &Value, text: &str, depth: u32) -> Value {
    if depth > 8 {
        return Value::Null;
    }
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Value::from(text),
        Some("integer" | "number") => Value::from(7),
        Some("boolean") => Value::from(true),
        Some("array") => Value::from(Vec::<Value>::new()),
        Some("null") => Value::Null,
        _ => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let filled = properties.into_iter().flatten();
            Value::Object(
                filled
                    .map(|(name, inner)| (name.clone(), fill(inner, text, depth + 1)))
                    .collect::<Map<_, _>>(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wish(tokens_max: u64, tools: Vec<Tool>, thinking: Thinking) -> Wish {
        let prompt = Prompt { marks: vec!["a1".into()], ..Prompt::default() };
        Wish { prompt, tokens_max: Some(tokens_max), tokens_drawn: 10, tokens_per_event: 4, tools, thinking }
    }

    #[test]
    fn the_mark_comes_back_and_the_limit_holds() {
        let whole = Reply::new(&wish(100, vec![], Thinking::No), &mut Random::new(1));
        assert_eq!((whole.output_tokens, whole.stop, whole.blocks.len()), (10, Stop::End, 1));
        assert!(whole.blocks[0].text().starts_with("MARK:a1 "));
        for tokens_max in 0..10 {
            let cut = Reply::new(&wish(tokens_max, vec![], Thinking::No), &mut Random::new(1));
            assert_eq!((cut.output_tokens, cut.stop), (tokens_max, Stop::TokensMax));
        }
    }

    #[test]
    fn tool_inputs_are_the_json_that_their_schema_asks_for() {
        let schema = json!({"type": "object", "properties": {
            "city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["c", "f"]}}});
        let tools =
            vec![Tool { name: "t".into(), schema: schema.clone() }, Tool { name: "u".into(), schema }];
        let reply = Reply::new(&wish(500, tools, Thinking::Shown), &mut Random::new(2));
        assert_eq!((reply.stop, reply.blocks.len()), (Stop::ToolUse, 4));
        let input: Value = serde_json::from_str(&reply.blocks[3].text()).expect("JSON");
        assert_eq!(input, json!({"city": "a1", "days": 7, "unit": "c"}));
    }

    #[test]
    fn signatures_fit_their_text_only() {
        let reply = Reply::new(&wish(500, vec![], Thinking::Shown), &mut Random::new(3));
        let Block::Thinking { signature, .. } = &reply.blocks[0] else { panic!("thinking comes first") };
        assert!(is_signed(&reply.blocks[0].text(), signature));
        assert!(!is_signed("something else", signature));
        assert_eq!(reply.thinking_tokens, 6);
    }
}
