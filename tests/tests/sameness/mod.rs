//! Whether a provider was sent the same through the gateway as without it.

#![allow(dead_code, reason = "each test program uses a part")]

use tidegate_tests::client::fields;
use tidegate_tests::{Heard, Upstream};

pub(crate) const VIRTUAL_KEY: &str = tidegate_tests::messages::VIRTUAL_KEY;
/// Admits one call a minute.
pub(crate) const ONE_CALL_KEY: &str = "vk-one-call-0123456789-0123456789-abcd";

/// Refusals that are the caller's own fault: the provider's answer is returned.
pub(crate) const PASSED_ON: &str = "400,404,413";
/// Refusals that the gateway answers itself, or about accounts: each in a gateway that knows nothing yet.
pub(crate) const JUDGED: [&str; 3] = ["401", "429", "529"];

/// Fields that differ by design; the list of `headers.txt` says why. Every other field must be the same.
const DIFFERENT: [&str; 8] = [
    "accept-encoding",
    "accept-language",
    "authorization",
    "connection",
    "content-length",
    "host",
    "sec-fetch-mode",
    "x-api-key",
];
/// What counts the SDK's own process and not the request.
const OF_THE_MOMENT: [&str; 2] = ["idempotency-key", "x-stainless-retry-count"];

/// A provider of each dialect, so many keys that refused calls leave some, and callers.
pub(crate) fn config(upstream: &Upstream) -> String {
    let url = upstream.url();
    format!(
        r#"
providers:
  claude:
    kind: anthropic
    base_url: "{url}"
    keys: [{{ name: only, value: "key-of-the-provider" }}]
  chat:
    kind: openai
    base_url: "{url}/v1"
    keys: [{{ name: only, value: "key-of-the-other" }}]
models:
  front: {{ chain: [claude/claude-sonnet-5-5] }}
  front-chat: {{ chain: [chat/gpt-5] }}
virtual_keys:
  - {{ name: tester, key: "{VIRTUAL_KEY}", operations: [generation, stored_responses] }}
  - {{ name: one-call, key: "{ONE_CALL_KEY}", limits: {{ rpm: 1 }} }}
"#
    )
}

/// The same requests in the same order, byte for byte, but for the inserted `include_usage`.
pub(crate) fn assert_same(direct: &Upstream, behind: &Upstream) {
    let (direct, behind) = (direct.heard(), behind.heard());
    let listed = |all: &[Heard]| {
        all.iter().map(|it| format!("{} {}", it.target(), case(it))).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(direct.len(), behind.len(), "without:\n{}\nthrough:\n{}", listed(&direct), listed(&behind));
    for (without, through) in direct.iter().zip(&behind) {
        assert_eq!(without.target(), through.target());
        assert_eq!(with_usage(without), plain(through), "{}", without.target());
        // What is no text stands in those as marks, so where nothing is inserted the bytes themselves are compared.
        let inserted = with_usage(without) != plain(without);
        assert!(inserted || bytes(without) == bytes(through), "{}", without.target());
        assert_eq!(shown(without), shown(through), "{}", without.target());
        assert!(through.key().starts_with("key-of-the-"), "{}", through.key());
    }
}

fn case(heard: &Heard) -> String {
    heard.text().rsplit("CASE:").next().unwrap_or("").chars().take(12).collect()
}

/// A body without what an SDK draws anew for each request: the boundary of a form.
fn plain(heard: &Heard) -> String {
    let boundary = heard.field("content-type").and_then(|it| it.split_once("boundary="));
    boundary.map_or_else(|| heard.text(), |(_, it)| heard.text().replace(it, "BOUNDARY"))
}

/// The same as bytes.
fn bytes(heard: &Heard) -> Vec<u8> {
    let boundary =
        heard.field("content-type").and_then(|it| it.split_once("boundary=")).map(|it| it.1.as_bytes());
    let (Some(boundary), mut rest) = (boundary, &*heard.body) else { return heard.body.clone() };
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some(&byte) = rest.first() {
        let found = rest.starts_with(boundary);
        bytes.extend_from_slice(if found { b"BOUNDARY" } else { std::slice::from_ref(&byte) });
        rest = &rest[if found { boundary.len() } else { 1 }..];
    }
    bytes
}

/// What the gateway makes of streamed completions: it asks for the usage chunk.
fn with_usage(heard: &Heard) -> String {
    let body = plain(heard);
    let parsed: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let completions = heard.target().contains("/completions") && parsed["stream"] == true;
    if !completions || parsed["stream_options"]["include_usage"] == true {
        return body;
    }
    if parsed.get("stream_options").is_some() {
        return body.replacen("\"include_usage\":false", "\"include_usage\":true", 1);
    }
    let open = body.strip_suffix('}').expect("an SDK ends its object with a brace");
    format!("{open},\"stream_options\":{{\"include_usage\":true}}}}")
}

fn without_boundary(value: &str) -> &str {
    value.split_once("boundary=").map_or(value, |it| it.0)
}

fn shown(heard: &Heard) -> Vec<String> {
    let kept = fields(&heard.head).filter(|(name, _)| {
        let lower = name.to_ascii_lowercase();
        !DIFFERENT.contains(&lower.as_str()) && !OF_THE_MOMENT.contains(&lower.as_str())
    });
    let mut lines: Vec<String> = kept
        .map(|(name, value)| format!("{}: {}", name.to_ascii_lowercase(), without_boundary(value)))
        .collect();
    lines.sort();
    lines
}
