//! Secrets that a test plants, and a search for them in everything that a program lets out: as they are, and in the
//! forms that text takes on its way into a log, a header or a file.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use memchr::memmem;

/// A secret of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// What it is, for a failed test.
    pub name: String,
    core: String,
}

impl Canary {
    /// The one of this name, the same in every run.
    pub fn named(name: &str) -> Canary {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, name).hash(&mut hasher);
            hasher.finish()
        };
        Canary { name: name.to_owned(), core: format!("{:016x}{:016x}", half(1), half(2)) }
    }

    /// The whole secret: with signs around that are written otherwise in URLs and JSON. Fits into a header.
    pub fn text(&self) -> String {
        format!("sk-test-+/{}~/=", self.core)
    }

    /// What is looked for, and how it is written; without regard to case where both say the same.
    fn forms(&self) -> Vec<(&'static str, Vec<u8>)> {
        let core = self.core.as_bytes();
        let hex: String = core.iter().map(|it| format!("{it:02x}")).collect();
        let percent: String = core.iter().map(|it| format!("%{it:02x}")).collect();
        let unicode: String = core.iter().map(|it| format!("\\u00{it:02x}")).collect();
        let reversed: Vec<u8> = core.iter().rev().copied().collect();
        let wide: Vec<u8> = core.iter().flat_map(|it| [*it, 0]).collect();
        let mut forms = vec![
            ("as it is", core.to_vec()),
            ("its front", core[..core.len() / 2].to_vec()),
            ("its back", core[core.len() / 2..].to_vec()),
            ("in hexadecimal", hex.into_bytes()),
            ("percent-encoded", percent.into_bytes()),
            ("as JSON escapes", unicode.into_bytes()),
            ("reversed", reversed),
            ("in UTF-16", wide),
        ];
        // What stands in front shifts the sixes of bits: there are three ways to write it.
        for (front, written) in [(0, "in base64"), (1, "in base64, shifted"), (2, "in base64, shifted twice")]
        {
            let text = STANDARD_NO_PAD.encode([&vec![b'x'; front][..], core].concat());
            // Signs that hold bits of what stands before or behind are left out.
            let skipped = [0, 2, 3][front];
            forms.push((written, text.as_bytes()[skipped..text.len() - 1].to_vec()));
        }
        forms
    }
}

/// What a program let out, by where.
#[derive(Default)]
pub struct Sinks(Vec<(String, Vec<u8>)>);

impl Sinks {
    /// Adds what came out somewhere.
    pub fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    /// How many places there are, and bytes in all.
    pub fn extent(&self) -> (usize, usize) {
        (self.0.len(), self.0.iter().map(|it| it.1.len()).sum())
    }

    /// Whether these bytes stand anywhere.
    pub fn holds(&self, part: &[u8]) -> bool {
        self.0.iter().any(|(_, bytes)| holds(bytes, part))
    }

    /// Where which of `canaries` was found, and how it was written.
    pub fn find<'a>(&self, canaries: impl IntoIterator<Item = &'a Canary>) -> Vec<String> {
        let folded: Vec<(&str, Vec<u8>)> =
            self.0.iter().map(|(place, bytes)| (place.as_str(), bytes.to_ascii_lowercase())).collect();
        let mut found = Vec::new();
        for canary in canaries {
            for (written, form) in canary.forms() {
                let exact = written.starts_with("in base64");
                let form = if exact { form } else { form.to_ascii_lowercase() };
                for ((place, folded), (_, bytes)) in folded.iter().zip(&self.0) {
                    let text = if exact { bytes } else { folded };
                    if holds(text, &form) {
                        found.push(format!("{} {written} in {place}", canary.name));
                    }
                }
            }
        }
        found
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    memmem::find(text, part).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each form, planted, is found; and nothing where nothing is.
    #[test]
    fn the_search_finds_what_is_planted() {
        let (canary, other) = (Canary::named("one"), Canary::named("two"));
        let text = canary.text();
        let base64 = |front: &str| STANDARD_NO_PAD.encode(format!("{front}{text} and more"));
        let hex: String = text.bytes().map(|it| format!("{it:02X}")).collect();
        let percent: String = text.bytes().map(|it| format!("%{it:02X}")).collect();
        let json = serde_json::to_string(&text).expect("JSON");
        let reversed: String = text.chars().rev().collect();
        for planted in [
            text.clone(),
            text.to_uppercase(),
            base64(""),
            base64("x"),
            base64("Bearer "),
            hex,
            percent,
            json,
            reversed,
            text[..28].to_owned(),
            text[26..].to_owned(),
        ] {
            let mut sinks = Sinks::default();
            sinks.add("a log", format!("{{\"before\":1}} {planted}\nafter"));
            let found = sinks.find([&canary, &other]);
            assert!(
                !found.is_empty() && found.iter().all(|it| it.starts_with("one ")),
                "{planted}: {found:?}"
            );
            let mut sinks = Sinks::default();
            sinks.add("a log", "{\"before\":1} sk-test-+/~/= 0123456789abcdef");
            assert_eq!(sinks.find([&canary, &other]), Vec::<String>::new());
        }
    }
}
