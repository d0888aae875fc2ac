//! What is sent: the head and body of one call. A body is slices of text that was made once, so that making a call
//! costs
//! no allocation and no copy of it.

use tidegate_wire::head::{InvalidField, RequestWriter};
use tidegate_wire::json;

use super::pace::Random;
use super::{LoadConfig, Protocol, Target};

/// How much longer the filler is than the largest body: bodies begin at different places, so that they differ.
const FILLER_SLACK_BYTES: usize = 64 * 1024;

const WORDS: [&str; 16] = [
    "tide", "gate", "harbour", "level", "the", "water", "rises", "and", "falls", "before", "a", "lock",
    "opens", "slowly", "to", "sea",
];

const BODY_END: &[u8] = b"\"}]}";

/// The text that all bodies are cut from.
#[derive(Debug)]
pub(super) struct Bodies {
    filler: Vec<u8>,
    body_bytes: (usize, usize),
}

/// Where the text of one body lies in the filler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    start: usize,
    end: usize,
}

impl Bodies {
    pub(super) fn new(config: &LoadConfig) -> Bodies {
        let mut random = Random::new(config.seed, 0, usize::MAX);
        let filler_bytes = config.body_bytes.1 + FILLER_SLACK_BYTES;
        let mut filler = Vec::with_capacity(filler_bytes + 16);
        while filler.len() < filler_bytes {
            filler.extend_from_slice(WORDS[random.below(WORDS.len())].as_bytes());
            filler.push(b' ');
        }
        Bodies { filler, body_bytes: config.body_bytes }
    }

    /// Draws a body whose begin takes `begin_bytes` of it.
    pub(super) fn draw(&self, random: &mut Random, begin_bytes: usize) -> Cut {
        let whole_bytes = random.size(self.body_bytes);
        let text_bytes =
            whole_bytes.saturating_sub(begin_bytes + BODY_END.len()).max(1).min(self.filler.len());
        let start = random.below(self.filler.len() - text_bytes + 1);
        Cut { start, end: start + text_bytes }
    }

    fn text(&self, cut: Cut) -> &[u8] {
        &self.filler[cut.start..cut.end]
    }

    /// The slices behind the begin of a body.
    pub(super) fn rest(&self, cut: Cut) -> [&[u8]; 2] {
        [self.text(cut), BODY_END]
    }
}

/// The begin of a body, up to its text; the same for all calls of a kind.
pub(super) fn body_begin(target: &Target, protocol: Protocol, tokens_max: u64, streamed: bool) -> Vec<u8> {
    let mut out = b"{\"model\":".to_vec();
    json::write_str(&mut out, &target.model);
    out.extend_from_slice(format!(",\"max_tokens\":{tokens_max}").as_bytes());
    if streamed {
        out.extend_from_slice(b",\"stream\":true");
        if protocol == Protocol::Chat {
            out.extend_from_slice(b",\"stream_options\":{\"include_usage\":true}");
        }
    }
    out.extend_from_slice(b",\"messages\":[{\"role\":\"user\",\"content\":\"");
    out
}

/// Writes the head of a call behind what `out` holds.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    protocol: Protocol,
    host: &str,
    key: &str,
    body_bytes: usize,
) -> Result<(), InvalidField> {
    let path = match protocol {
        Protocol::Messages => "/v1/messages",
        Protocol::Chat => "/v1/chat/completions",
    };
    let mut head = RequestWriter::new(out, "POST", path, None)?;
    head.field("host", host.as_bytes())?;
    head.field("user-agent", b"tidegate-load")?;
    head.field("content-type", b"application/json")?;
    match protocol {
        Protocol::Messages => {
            head.field("anthropic-version", b"2023-06-01")?;
            head.field("x-api-key", key.as_bytes())?;
        }
        Protocol::Chat => head.field("authorization", format!("Bearer {key}").as_bytes())?,
    }
    head.content_length(body_bytes as u64)?;
    head.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(body_bytes: (usize, usize)) -> LoadConfig {
        let target = Target {
            addr: "127.0.0.1:1".parse().expect("an address"),
            keys: vec!["k".to_owned()],
            model: "m\"x".to_owned(),
        };
        LoadConfig { body_bytes, ..LoadConfig::new(target) }
    }

    #[test]
    fn bodies_are_json_of_the_size_that_was_drawn() {
        let config = config((1_000, 400_000));
        let bodies = Bodies::new(&config);
        let mut random = Random::new(2, 0, 0);
        let mut most = 0;
        for round in 0..200 {
            let streamed = round % 2 == 0;
            let protocol = if round % 3 == 0 { Protocol::Chat } else { Protocol::Messages };
            let mut body = body_begin(&config.target, protocol, 9, streamed);
            let cut = bodies.draw(&mut random, body.len());
            body.extend_from_slice(&bodies.rest(cut).concat());
            assert!((1_000..=400_000).contains(&body.len()), "{}", body.len());
            most = most.max(body.len());
            let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(value["model"], "m\"x");
            assert_eq!(value["max_tokens"], 9);
            assert_eq!(value["stream"].as_bool().unwrap_or(false), streamed);
        }
        assert!(most > 200_000, "large bodies are drawn too: {most}");
    }

    #[test]
    fn the_smallest_body_still_says_something() {
        let config = config((1, 1));
        let begin = body_begin(&config.target, config.protocol, 1, false);
        let bodies = Bodies::new(&config);
        let cut = bodies.draw(&mut Random::new(1, 0, 0), begin.len());
        assert_eq!(bodies.text(cut).len(), 1);
    }
}
