//! Changes a body in a few places and leaves every other byte as it was: the model in place, a member put in.
//!
//! It yields slices of the body and of the edits, for a vectored write; it knows nothing of JSON. Where the edits go
//! is for [`crate::skim`] to say.

use std::ops::Range;

/// Bytes that take the place of a span. An empty span is an insertion before its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit<'a> {
    /// What is replaced, in offsets of the body as it is.
    pub span: Range<usize>,
    /// What takes its place.
    pub with: &'a [u8],
}

/// The pieces of the edited body, in order; none is empty.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    body: &'a [u8],
    edits: &'a [Edit<'a>],
    at: usize,
}

/// The body with the edits made.
///
/// # Panics
/// If the edits are not in order, overlap, or lie outside of the body: they come from reading this very body.
pub fn splice<'a>(body: &'a [u8], edits: &'a [Edit<'a>]) -> Pieces<'a> {
    let mut at = 0;
    for edit in edits {
        assert!(at <= edit.span.start && edit.span.start <= edit.span.end, "edits are in order");
        at = edit.span.end;
    }
    assert!(at <= body.len(), "edits lie in the body");
    Pieces { body, edits, at: 0 }
}

/// The edited body, written behind what `out` holds.
///
/// # Panics
/// As [`splice`].
pub fn splice_into(body: &[u8], edits: &[Edit<'_>], out: &mut Vec<u8>) {
    let pieces = splice(body, edits);
    out.reserve(pieces.total_bytes());
    pieces.for_each(|piece| out.extend_from_slice(piece));
}

impl<'a> Pieces<'a> {
    /// How many bytes the pieces still to come have together: the `content-length`.
    pub fn total_bytes(&self) -> usize {
        self.clone().map(<[u8]>::len).sum()
    }

    /// The next piece, which may be empty.
    fn step(&mut self) -> Option<&'a [u8]> {
        match self.edits {
            [edit, rest @ ..] if edit.span.start == self.at => {
                self.edits = rest;
                self.at = edit.span.end;
                Some(edit.with)
            }
            [edit, ..] => {
                let kept = self.body.get(self.at..edit.span.start);
                self.at = edit.span.start;
                kept
            }
            [] => {
                let kept = self.body.get(self.at..).filter(|kept| !kept.is_empty());
                self.at = self.body.len();
                kept
            }
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let piece = self.step()?;
            if !piece.is_empty() {
                return Some(piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(body: &[u8], edits: &[Edit<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        splice_into(body, edits, &mut out);
        assert_eq!(out.len(), splice(body, edits).total_bytes());
        assert!(splice(body, edits).all(|piece| !piece.is_empty()));
        out
    }

    #[test]
    fn replaces_and_inserts_and_touches_nothing_else() {
        let body = br#"{"model" : "a", "x":1}"#;
        let edits = [Edit { span: 11..14, with: b"\"long name\"" }, Edit { span: 21..21, with: b",\"y\":2" }];
        assert_eq!(whole(body, &edits), br#"{"model" : "long name", "x":1,"y":2}"#);
    }

    #[test]
    fn no_edit_is_the_body_in_one_piece() {
        let pieces: Vec<&[u8]> = splice(b"abc", &[]).collect();
        assert_eq!(pieces, [b"abc"]);
        assert_eq!(splice(b"", &[]).next(), None);
    }

    #[test]
    fn edits_that_touch_keep_their_order() {
        let edits = [
            Edit { span: 1..1, with: b"A" },
            Edit { span: 1..2, with: b"" },
            Edit { span: 2..3, with: b"C" },
        ];
        assert_eq!(whole(b"abc", &edits), b"aAC");
    }

    #[test]
    #[should_panic(expected = "edits are in order")]
    fn edits_out_of_order_are_refused() {
        let edits = [Edit { span: 2..3, with: b"" }, Edit { span: 1..2, with: b"" }];
        let _ = splice(b"abc", &edits);
    }

    #[test]
    #[should_panic(expected = "edits lie in the body")]
    fn edits_outside_are_refused() {
        let edits = [Edit { span: 2..4, with: b"" }];
        let _ = splice(b"abc", &edits);
    }

    proptest! {
        #[test]
        fn equals_the_vector_splice(
            body in proptest::collection::vec(any::<u8>(), 0..60),
            marks in proptest::collection::vec((0_usize..61, proptest::collection::vec(any::<u8>(), 0..5)), 0..8),
        ) {
            let mut places: Vec<usize> = marks.iter().map(|(place, _)| (*place).min(body.len())).collect();
            places.sort_unstable();
            let edits: Vec<Edit<'_>> = places
                .chunks_exact(2)
                .zip(&marks)
                .map(|(pair, (_, with))| Edit { span: pair[0]..pair[1], with })
                .collect();
            let mut expected = body.clone();
            for edit in edits.iter().rev() {
                expected.splice(edit.span.clone(), edit.with.iter().copied());
            }
            prop_assert_eq!(whole(&body, &edits), expected);
        }
    }
}
