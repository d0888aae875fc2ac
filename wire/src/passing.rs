//! Finds one member of a JSON object that passes by in pieces and is never held whole: `usage` at the end of a reply
//! of many megabytes.
//!
//! It follows strings and nesting only, and does not check the grammar: the text is a provider's, and relayed whatever
//! this makes of it. `follow` is for callers' texts, where what two readers could take differently is refused. What is
//! held is bounded; a member that is larger is not found.

use crate::scan::string_stop;

/// A key longer than this is not the one looked for.
const KEY_BYTES_MAX: usize = 32;

/// Looks for a member whose value is an object, in the outermost object of a text.
#[derive(Debug)]
pub struct PassingMember {
    name: &'static str,
    bytes_max: usize,
    at: At,
    /// How many objects and arrays are open.
    depth: u32,
    in_string: bool,
    escaped: bool,
    key: [u8; KEY_BYTES_MAX],
    /// May exceed what `key` holds.
    key_bytes: usize,
    found: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the text's first byte.
    Start,
    /// In the outermost object, where a key may begin.
    Key,
    /// Behind the colon of the key looked for.
    Wanted,
    /// In or before another value.
    Other,
    /// In the value that is wanted.
    Inside,
    /// The value is complete, or the text is no object.
    Over,
}

impl PassingMember {
    /// Looks for `name`, of which at most `bytes_max` bytes are kept. `name` has no character that JSON escapes.
    pub fn new(name: &'static str, bytes_max: usize) -> PassingMember {
        PassingMember {
            name,
            bytes_max,
            at: At::Start,
            depth: 0,
            in_string: false,
            escaped: false,
            key: [0; KEY_BYTES_MAX],
            key_bytes: 0,
            found: Vec::new(),
        }
    }

    /// Takes the next piece of the text.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut next = 0;
        while let Some(&byte) = piece.get(next).filter(|_| self.at != At::Over) {
            self.step(byte);
            next += 1;
            if self.in_string && !self.escaped && self.at == At::Other {
                // The texts of a reply are most of it, and nobody looks at them.
                next = string_stop(piece, next);
            }
        }
    }

    /// An object with the member alone, once its value has passed by completely. Where it stands twice, the
    /// first.
    pub fn found(&self) -> Option<&[u8]> {
        (self.at == At::Over && !self.found.is_empty()).then_some(&*self.found)
    }

    fn step(&mut self, byte: u8) {
        if self.at == At::Inside && !self.keep(byte) {
            return;
        }
        if self.in_string {
            return self.step_in_string(byte);
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => self.begin_string(),
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => self.close(),
            _ if self.at == At::Start => self.at = At::Over,
            b',' if self.depth == 1 => self.at = At::Key,
            b':' if self.at == At::Key => self.at = if self.is_wanted() { At::Wanted } else { At::Other },
            // A number or a word: the member is not the object that was expected.
            _ if self.at == At::Wanted => self.at = At::Other,
            _ => {}
        }
    }

    fn step_in_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
        if self.in_string && self.at == At::Key {
            if let Some(place) = self.key.get_mut(self.key_bytes) {
                *place = byte;
            }
            self.key_bytes = self.key_bytes.saturating_add(1);
        }
    }

    fn begin_string(&mut self) {
        self.in_string = true;
        match self.at {
            At::Start => self.at = At::Over,
            At::Key => self.key_bytes = 0,
            At::Wanted => self.at = At::Other,
            At::Other | At::Inside | At::Over => {}
        }
    }

    fn open(&mut self, byte: u8) {
        match self.at {
            At::Start if byte == b'{' => self.at = At::Key,
            At::Start => self.at = At::Over,
            At::Wanted if byte == b'{' => self.begin_value(),
            At::Wanted | At::Key => self.at = At::Other,
            At::Other | At::Inside | At::Over => {}
        }
        self.depth = self.depth.saturating_add(1);
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.at == At::Inside && self.depth == 1 {
            self.found.push(b'}');
            self.at = At::Over;
        } else if self.depth == 0 {
            self.at = At::Over;
        }
    }

    fn begin_value(&mut self) {
        self.at = At::Inside;
        self.found.extend_from_slice(b"{\"");
        self.found.extend_from_slice(self.name.as_bytes());
        self.found.extend_from_slice(b"\":{");
    }

    /// False where the value is larger than what may be kept.
    fn keep(&mut self, byte: u8) -> bool {
        if self.found.len() >= self.bytes_max {
            self.found.clear();
            self.at = At::Over;
            return false;
        }
        self.found.push(byte);
        true
    }

    fn is_wanted(&self) -> bool {
        self.key.get(..self.key_bytes) == Some(self.name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found_in(text: &str, piece_bytes: usize) -> Option<String> {
        let mut passing = PassingMember::new("usage", 256);
        text.as_bytes().chunks(piece_bytes).for_each(|piece| passing.feed(piece));
        passing.found().map(|it| String::from_utf8_lossy(it).into_owned())
    }

    #[test]
    fn the_outermost_member_is_found_however_it_is_cut() {
        let text = r#" { "id" : "a\"usage\":{1}", "input":[{"usage":{"no":1}}], "n":-1.5e3, "t":null,
            "usage" : { "input_tokens": 3, "deep": {"a":["}"]} } , "usage":{"late":1}}"#;
        let expected = r#"{"usage":{ "input_tokens": 3, "deep": {"a":["}"]} }}"#;
        for piece_bytes in 1..text.len() {
            assert_eq!(found_in(text, piece_bytes).as_deref(), Some(expected), "pieces of {piece_bytes}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let long = format!(r#"{{"usage":{{"a":"{}"}}}}"#, "x".repeat(300));
        let long_key = format!(r#"{{"{}usage":{{"a":1}}}}"#, "x".repeat(40));
        for text in [
            "",
            "RIFF\u{1}{\"usage\":{\"a\":1}}",
            r#"[{"usage":{"a":1}}]"#,
            r#""usage":{"a":1}"#,
            r#"{"usage":null}"#,
            r#"{"usage":7,"a":{"b":1}}"#,
            r#"{"usage":"{","a":{"b":1}}"#,
            r#"{"usage":[{"a":1}]}"#,
            r#"{"a":"usage","b":{"c":1}}"#,
            r#"{"a":{"usage":{"c":1}}}"#,
            r#"{"usage":{"a":1"#,
            r#"{}{"usage":{"a":1}}"#,
            r#"{"xusage":{"a":1}}"#,
            &long,
            &long_key,
        ] {
            assert_eq!(found_in(text, 3), None, "{text}");
        }
    }

    /// A value put together at random; the keys of one object differ.
    fn value(draw: &mut impl FnMut(u64) -> u64, depth: u32) -> String {
        const KEYS: [&str; 3] = ["usage", "a", "\\\"usage"];
        const LEAVES: [&str; 6] = ["1", "-2.5e1", "null", "true", r#""}{\\\"""#, r#""usage""#];
        let kind = if depth == 0 { 2 } else { draw(4) };
        match kind {
            0 => {
                let items: Vec<String> = (0..draw(3)).map(|_| value(draw, depth - 1)).collect();
                format!("[{}]", items.join(" , "))
            }
            1 | 3 => {
                let keys = KEYS.iter().cycle().skip(draw(3) as usize).take(draw(4) as usize);
                let members: Vec<String> =
                    keys.map(|key| format!("\"{key}\" : {}", value(draw, depth - 1))).collect();
                format!("{{{}}}", members.join(","))
            }
            _ => LEAVES[draw(6) as usize].to_owned(),
        }
    }

    /// Against a reader with a tree.
    #[test]
    fn agrees_with_a_tree() {
        let mut state = 7_u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut hits = 0;
        for _ in 0..20_000 {
            let text = value(&mut draw, 4);
            let tree: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let expected = tree.get("usage").filter(|it| it.is_object()).filter(|_| text.len() < 250);
            let found = found_in(&text, 1 + draw(7) as usize);
            let found = found.map(|it| serde_json::from_str::<serde_json::Value>(&it).expect("JSON"));
            if text.len() < 250 {
                assert_eq!(found.as_ref().map(|it| &it["usage"]), expected, "{text}");
                hits += usize::from(expected.is_some());
            }
        }
        assert!(hits > 500, "{hits}");
    }
}
