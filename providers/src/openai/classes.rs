//! The vendor's model families, each with limits of its own (the API reference). Which of them share a bucket
//! depends on the organization: `classes:` in the configuration can join them.

use crate::dialect::ClassRow;

/// A family by its plain name, with a date, and as the latest of itself. Dates begin with the century, so that a
/// sibling (`-mini`) is not taken for one.
macro_rules! family {
    ($($name:literal),+ $(,)?) => {
        &[
            $(ClassRow { name: $name, patterns: &[$name, concat!($name, "-20*"), concat!($name, "-latest")] },)+
            // Files and batches: calls that name no model, and have a pool of their own.
    ClassRow { name: "objects", patterns: &[""] },
    ClassRow { name: "other", patterns: &["*"] },
        ]
    };
}

/// Most specific first; the last takes all.
pub(super) const CLASSES: &[ClassRow] = family![
    "gpt-6-astra",
    "gpt-6-sol",
    "gpt-6-luna",
    "gpt-6.1-sol",
    "gpt-6.1-terra",
    "gpt-5.6-sol",
    "gpt-5.6-terra",
    "gpt-5.6-luna",
    "gpt-5.6",
    "gpt-5.5-pro",
    "gpt-5.5",
    "gpt-5.4-mini",
    "gpt-5.4-nano",
    "gpt-5.4",
    "gpt-5.3-codex",
    "gpt-5.2",
    "gpt-5.1",
    "gpt-5-mini",
    "gpt-5-nano",
    "gpt-5",
    "gpt-4.1-mini",
    "gpt-4.1-nano",
    "gpt-4.1",
    "gpt-4o-mini",
    "gpt-4o",
    "o3-mini",
    "o3",
    "o4-mini",
    "text-embedding-3-large",
    "text-embedding-3-small",
    "text-embedding-ada-002",
    "gpt-image-1-mini",
    "gpt-image-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-tts",
    "whisper-1",
    "tts-1-hd",
    "tts-1",
];

#[cfg(test)]
mod tests {
    use super::super::DIALECT;

    #[test]
    fn models_fall_into_their_family() {
        for (model, class) in [
            ("gpt-6-sol", "gpt-6-sol"),
            ("gpt-6.1-sol-2026-10-01", "gpt-6.1-sol"),
            ("gpt-5", "gpt-5"),
            ("gpt-5-2025-08-07", "gpt-5"),
            ("gpt-5-mini-2025-08-07", "gpt-5-mini"),
            ("gpt-5.6", "gpt-5.6"),
            ("gpt-5.6-luna", "gpt-5.6-luna"),
            ("gpt-4o-latest", "gpt-4o"),
            ("gpt-4o-mini", "gpt-4o-mini"),
            ("o4-mini", "o4-mini"),
            ("text-embedding-3-small", "text-embedding-3-small"),
            ("gpt-4o-mini-transcribe-2025-12-15", "gpt-4o-mini-transcribe"),
            ("tts-1-hd", "tts-1-hd"),
            ("gpt-7", "other"),
            ("llama-4", "other"),
        ] {
            assert_eq!(DIALECT.class_of(model).map(|it| it.name), Some(class), "{model}");
        }
    }
}
