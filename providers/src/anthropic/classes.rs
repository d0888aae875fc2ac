//! Which of the vendor's models share a bucket (the API reference). Where its documents say nothing, a
//! version is taken to have a bucket of its own: headers then teach each level, and `classes:` in the
//! configuration can join what turns out to be one.

use crate::dialect::ClassRow;

/// A version by its plain name, with a date, and as the latest of itself. Dates begin with the century, so that a
/// later minor version (`-5-2`) is not taken for one.
macro_rules! version {
    ($name:literal $(, $version:literal)+) => {
        ClassRow {
            name: $name,
            patterns: &[$(
                concat!("claude-", $version),
                concat!("claude-", $version, "-20*"),
                concat!("claude-", $version, "-latest"),
            )+],
        }
    };
}

/// Most specific first; the last takes all.
pub(super) const CLASSES: &[ClassRow] = &[
    version!("opus-5-5", "opus-5-5"),
    version!("opus-5", "opus-5"),
    // Said to be one bucket.
    version!("opus-4-5", "opus-4-5", "opus-4-6", "opus-4-7", "opus-4-8"),
    version!("opus-4", "opus-4", "opus-4-0", "opus-4-1"),
    version!("sonnet-5-5", "sonnet-5-5"),
    version!("sonnet-5", "sonnet-5"),
    ClassRow { name: "sonnet-4", patterns: &["claude-sonnet-4", "claude-sonnet-4-*"] },
    version!("haiku-5-5", "haiku-5-5"),
    version!("haiku-4-5", "haiku-4-5"),
    // Said to be one bucket.
    version!("fable-5", "fable-5", "fable-5-1"),
    version!("fable-5-2", "fable-5-2"),
    version!("mythos-5", "mythos-5"),
    version!("mythos-5-1", "mythos-5-1"),
    version!("mythos-5-2", "mythos-5-2"),
    ClassRow { name: "sonnet-3", patterns: &["claude-3-7-sonnet*", "claude-3-5-sonnet*"] },
    ClassRow { name: "haiku-3-5", patterns: &["claude-3-5-haiku*"] },
    ClassRow { name: "haiku-3", patterns: &["claude-3-haiku*"] },
    ClassRow { name: "opus-3", patterns: &["claude-3-opus*"] },
    // Files and batches: calls that name no model, and have a pool of their own.
    ClassRow { name: "objects", patterns: &[""] },
    ClassRow { name: "other", patterns: &["*"] },
];

#[cfg(test)]
mod tests {
    use super::super::DIALECT;

    #[test]
    fn models_fall_into_their_class() {
        for (model, class) in [
            ("claude-opus-5-5", "opus-5-5"),
            ("claude-opus-5-5-20261001", "opus-5-5"),
            ("claude-opus-5-5-latest", "opus-5-5"),
            ("claude-opus-5", "opus-5"),
            ("claude-opus-5-20260801", "opus-5"),
            ("claude-opus-5-latest", "opus-5"),
            ("claude-opus-4-5", "opus-4-5"),
            ("claude-opus-4-5-20251101", "opus-4-5"),
            ("claude-opus-4-6", "opus-4-5"),
            ("claude-opus-4-7", "opus-4-5"),
            ("claude-opus-4-8-latest", "opus-4-5"),
            ("claude-opus-4-1-20250805", "opus-4"),
            ("claude-opus-4-20250514", "opus-4"),
            ("claude-sonnet-5-5", "sonnet-5-5"),
            ("claude-sonnet-5", "sonnet-5"),
            ("claude-sonnet-4-5-20250929", "sonnet-4"),
            ("claude-sonnet-4-6", "sonnet-4"),
            ("claude-haiku-5-5", "haiku-5-5"),
            ("claude-haiku-4-5-20251001", "haiku-4-5"),
            ("claude-fable-5", "fable-5"),
            ("claude-fable-5-1", "fable-5"),
            ("claude-fable-5-2", "fable-5-2"),
            ("claude-mythos-5", "mythos-5"),
            ("claude-mythos-5-1-20260901", "mythos-5-1"),
            ("claude-3-5-haiku-latest", "haiku-3-5"),
            ("claude-3-7-sonnet-20250219", "sonnet-3"),
            // Versions that nobody knows yet are not taken for those that are known.
            ("claude-opus-5-6", "other"),
            ("claude-opus-6", "other"),
            ("gpt-6-sol", "other"),
            ("", "objects"),
        ] {
            assert_eq!(DIALECT.class_of(model).map(|it| it.name), Some(class), "{model}");
        }
    }
}
