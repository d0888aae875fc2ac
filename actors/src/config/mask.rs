//! What of a configuration file may be shown beside a complaint: its text with everything that may be a secret as
//! stars, so that snippets keep their columns. Whatever is not known to be harmless is masked, misspelt fields and
//! comments among it: a credential gets into a file by all kinds of mistakes.

use super::tree::{Node, Shape};

/// Fields that hold a secret, whatever the shape of their value.
const SECRET: [&str; 4] = ["value", "key", "token", "proxy"];

/// Fields whose values may be shown, with what stands inside of them.
const SHOWN: [&str; 45] = [
    "account",
    "base_url",
    "ca_file",
    "cert_file",
    "chain",
    "classes",
    "client_ca_file",
    "connect",
    "count_cache_reads",
    "decompress",
    "expose_routing",
    "file",
    "first_byte",
    "first_byte_whole",
    "format",
    "forward_headers",
    "idle",
    "io",
    "itpm",
    "key_file",
    "kind",
    "level",
    "limits",
    "listen",
    "models",
    "models_only",
    "name",
    "objects_max",
    "operations",
    "otpm",
    "passthrough",
    "private",
    "proxy_protocol",
    "responses_max",
    "rpm",
    "socket",
    "state_account",
    "timeouts",
    "to",
    "total",
    "tpm",
    "trusted_proxies",
    "unknown_responses",
    "weight",
    "workers",
];

/// Fields that hold nothing but fields: a text in place of those is masked. A new field of the file belongs into one of
/// the three lists; until then it is masked.
const HOLDERS: [&str; 9] =
    ["access_log", "admin", "keys", "log", "providers", "state", "takeover", "tls", "virtual_keys"];

/// How much of what follows a place is masked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cover {
    /// Comments.
    Comments,
    /// Texts, and comments.
    Texts,
    /// All of it.
    All,
}

/// A place of the file where something begins. Both numbers from zero, columns in characters.
struct Mark {
    line: usize,
    column: usize,
    cover: Cover,
}

/// The text with everything that may be a secret in it as stars.
pub(super) fn mask(text: &str, tree: &Node) -> String {
    let mut marks = Vec::new();
    collect(tree, Cover::Texts, &mut marks);
    marks.sort_by_key(|it| (it.line, it.column, it.cover));
    let mut marks = marks.into_iter().peekable();
    let mut cover = Cover::Comments;
    let mut out = String::with_capacity(text.len());
    for (line, content) in text.lines().enumerate() {
        let chars: Vec<char> = content.chars().collect();
        let mut from = 0;
        while let Some(mark) = marks.next_if(|it| it.line <= line) {
            let at = mark.column.clamp(from, chars.len());
            cover_up(&chars[from..at], cover, &mut out);
            (from, cover) = (at, mark.cover);
        }
        cover_up(&chars[from..], cover, &mut out);
        out.push('\n');
    }
    out
}

/// The same for a text that could not be read: names of fields are shown, and no value.
pub(super) fn mask_unread(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|it: char| !it.is_alphanumeric() && it != '_').unwrap_or(rest.len());
            let (front, behind) = rest.split_at(word.max(first.len_utf8()));
            let known = [&SHOWN[..], &SECRET, &HOLDERS].iter().any(|it| it.contains(&front));
            if known && behind.trim_start_matches(['"', '\'']).starts_with(':') {
                out.push_str(front);
            } else {
                star(&front.chars().collect::<Vec<char>>(), &mut out);
            }
            rest = behind;
        }
        out.push('\n');
    }
    out
}

/// Notes where everything begins, and how it is shown until the next thing begins.
fn collect(node: &Node, cover: Cover, out: &mut Vec<Mark>) {
    let mark = |node: &Node, cover, out: &mut Vec<Mark>| {
        let (line, column) = (node.spot.line.max(1) - 1, node.spot.column.max(1) - 1);
        out.push(Mark { line: line as usize, column: column as usize, cover });
    };
    match &node.shape {
        Shape::Map(map) => {
            mark(node, Cover::Comments, out);
            for (key, value) in map {
                mark(key, Cover::Comments, out);
                let cover = match &key.shape {
                    Shape::Text(name) if SECRET.contains(&name.as_str()) => Cover::All,
                    Shape::Text(name) if SHOWN.contains(&name.as_str()) => Cover::Comments,
                    _ => cover,
                };
                collect(value, cover, out);
            }
        }
        Shape::List(list) => {
            mark(node, Cover::Comments, out);
            list.iter().for_each(|it| collect(it, cover, out));
        }
        // A reference says where a secret is; what it falls back to may be one. Of a URL with credentials nothing is
        // shown.
        Shape::Text(text) if text.starts_with("${") && !text.contains(":-") => {
            mark(node, Cover::Comments, out)
        }
        Shape::Text(text) if cover >= Cover::Texts || text.contains('@') => mark(node, Cover::All, out),
        _ => mark(node, if cover == Cover::Texts { Cover::Comments } else { cover }, out),
    }
}

/// Appends a piece of a line that belongs to one thing, which begins with it.
fn cover_up(piece: &[char], cover: Cover, out: &mut String) {
    let shown = if cover == Cover::All { 0 } else { comment_at(piece) };
    out.extend(&piece[..shown]);
    star(&piece[shown..], out);
}

/// Where a comment begins: behind white space, and behind the end of a quoted text.
fn comment_at(piece: &[char]) -> usize {
    let mut quote = piece.first().copied().filter(|it| matches!(it, '"' | '\''));
    let mut before = ' ';
    for (at, char) in piece.iter().enumerate() {
        match quote {
            Some(end) if at > 0 && *char == end && before != '\\' => quote = None,
            None if *char == '#' && before.is_whitespace() => return at,
            _ => {}
        }
        before = *char;
    }
    piece.len()
}

/// Appends stars in place of all but what gives a line its form.
fn star(piece: &[char], out: &mut String) {
    for (at, char) in piece.iter().enumerate() {
        let dash = *char == '-' && piece.get(at + 1).is_none_or(|it| it.is_whitespace());
        let form = dash || char.is_whitespace() || matches!(char, ',' | '{' | '}' | '[' | ']');
        out.push(if form { *char } else { '*' });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::tree;

    #[track_caller]
    fn masked(text: &str) -> String {
        mask(text, &tree::parse(text).expect("YAML"))
    }

    #[test]
    fn wherever_a_secret_gets_by_mistake_it_is_stars() {
        for text in [
            "providers: { anthropic: { keys: [{ name: a, value: sk-CANARY }] } }",
            "providers: { anthropic: { keys: [{ name: a, vlaue: sk-CANARY }] } }",
            "providers: { anthropic: { keys: [sk-CANARY, \"sk-CANARY\"] } }",
            "providers: { anthropic: { keys: sk-CANARY } }",
            "providers: { anthropic: sk-CANARY }",
            "providers: { anthropic: { api_key: 'sk-CANARY' } }",
            "providers: { anthropic: { base_url: \"https://user:CANARY@host\" } }",
            "providers: { anthropic: { proxy: http://user:CANARY@host:1, kind: x } }",
            "key: [sk-CANARY, { a: sk-CANARY }]",
            "key: { value: sk-CANARY }",
            "value: correct CANARY battery",
            "value: sk-1\n  CANARY-2\n  CANARY-3\nname: x",
            "value: \"sk-1\n  CANARY-2\"\nname: x",
            "value: \"sk-\\\"CANARY-2\\\"\"\nname: x",
            "value: |\n  CANARY-1\n  CANARY-2\nname: x",
            "value: >-\n\n  CANARY-1\n\n  CANARY-2\nname: x",
            "value: &it sk-CANARY\nkey: *it",
            "value: !!str sk-CANARY",
            "value: ${env:NONE:-sk-CANARY}",
            "name: x # CANARY was here",
            "name: 'x#' # CANARY was here",
            "# CANARY was here\nname: x",
            "- CANARY",
            "CANARY",
            "admin: { token: sk-é-CANARY, listen: 127.0.0.1:1 }",
            "virtual_keys:\n  - name: v\n    key: CANARY\n  - name: w\n    key: 'CANARY'\n",
        ] {
            let shown = masked(text);
            assert!(!shown.contains("CANARY"), "{text}\n{shown}");
            assert_eq!(shown.lines().count(), text.lines().count(), "{text}");
            for (shown, line) in shown.lines().zip(text.lines()) {
                assert_eq!(shown.chars().count(), line.chars().count(), "columns stay: {text}");
            }
            let unread = mask_unread(text);
            assert!(!unread.contains("CANARY"), "{text}\n{unread}");
        }
    }

    #[test]
    fn what_is_harmless_is_shown() {
        for text in [
            "listen: 127.0.0.1:4000",
            "providers: { a: { kind: anthropic, base_url: https://host/v1#x, private: true } }",
            "providers: { a: { keys: [{ name: \"one # two\", value: \"${env:KEY}\", wieght: 2 }] } }",
            "models: { front: { chain: [a/b, c/d] }, back: a/b }",
            "providers: { a: { classes: { own: [\"x-*\"] } } }",
            "timeouts: { connect: 3s, bogus: 4s }",
        ] {
            assert_eq!(masked(text).trim_end(), text);
        }
        let text = "keys:\n  - name: a\n    value: sk-1\n  - name: b";
        assert_eq!(masked(text).trim_end(), "keys:\n  - name: a\n    value: ****\n  - name: b");
        assert_eq!(mask_unread("keys: [{ name: a, \"b }]").trim_end(), "keys* [{ name* *, ** }]");
    }

    #[test]
    fn every_field_of_the_schema_is_in_one_list() {
        fn names(schema: &serde_json::Value, out: &mut BTreeSet<String>) {
            if let Some(properties) = schema["properties"].as_object() {
                out.extend(properties.keys().cloned());
            }
            let inner = schema.as_object().into_iter().flat_map(|it| it.values());
            inner.chain(schema.as_array().into_iter().flatten()).for_each(|it| names(it, out));
        }
        let mut fields = BTreeSet::new();
        names(&serde_json::from_str(&crate::config::schema()).expect("JSON"), &mut fields);
        let listed = SECRET.iter().chain(&SHOWN).chain(&HOLDERS).map(|it| (*it).to_owned());
        assert_eq!(fields, listed.collect::<BTreeSet<String>>());
    }
}
