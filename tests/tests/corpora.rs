//! Vectors and texts of others: those of Node's parser, of which we are to be as strict or stricter, and a suite of JSON
//! texts. What we think otherwise about stands in committed lists with its reason; the lists are held both ways.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use tidegate_core::limits;
use tidegate_tests::framing::{corpora, llhttp};
use tidegate_tests::say;
use tidegate_wire::follow::{Follow, FollowError};
use tidegate_wire::json::Members;
use tidegate_wire::passing::PassingMember;
use tidegate_wire::skim::{SkimLimits, skim};

const SKIM_LIMITS: SkimLimits =
    SkimLimits { depth_max: limits::JSON_DEPTH_MAX, files_max: limits::FILES_NAMED_MAX };

#[test]
fn the_vectors_of_nodes_parser() {
    let Some(folder) = corpora::folder("llhttp") else { return };
    let mut found = BTreeMap::new();
    let mut count = 0;
    for (file, text) in corpora::files(&folder, "md") {
        for case in llhttp::cases(&file, &String::from_utf8(text).expect("UTF-8")) {
            count += 1;
            if let Some(difference) = case.difference() {
                assert!(found.insert(case.name.clone(), difference).is_none(), "{}", case.name);
            }
        }
    }
    say(&format!("{count} vectors of Node's parser, {} of which on the list", found.len()));
    assert!(count >= 230, "{count} vectors were read");
    corpora::hold(include_str!("../framing/llhttp.txt"), &found);
}

/// How the product reads a text as the value of a member, whole or in pieces: `None` where a reader refuses it.
fn accepted_as_member(text: &[u8]) -> [(&'static str, bool); 3] {
    let body = [b"{\"model\":\"m\",\"x\":", text, b"}"].concat();
    [
        ("skim", skim(&body, SKIM_LIMITS).is_ok()),
        ("follow", follows(&body, body.len())),
        ("follow in pieces", follows(&body, 1)),
    ]
}

fn follows(body: &[u8], piece_bytes: usize) -> bool {
    let mut follow = Follow::object(&["model"], limits::MODEL_NAME_BYTES_MAX);
    for piece in body.chunks(piece_bytes) {
        if follow.feed::<FollowError>(piece, &mut |_, _| Ok(())).is_err() {
            return false;
        }
    }
    follow.finish().is_ok()
}

#[test]
fn the_suite_of_json_texts() {
    let Some(folder) = corpora::folder("json/test_parsing") else { return };
    let mut found = BTreeMap::new();
    let texts = corpora::files(&folder, "json");
    assert!(texts.len() >= 300, "{} texts", texts.len());
    for (name, text) in &texts {
        let as_object = skim(text, SKIM_LIMITS).is_ok();
        assert!(!as_object || !name.starts_with("n_"), "{name} is taken for a call");
        for (reader, accepts) in accepted_as_member(text) {
            let wrong = (name.starts_with("y_") && !accepts) || (name.starts_with("n_") && accepts);
            if wrong {
                let opinion = if accepts { "accepts" } else { "refuses" };
                found.insert(format!("{name}: {reader}"), opinion.to_owned());
            }
        }
        tolerated(text);
    }
    corpora::hold(include_str!("../framing/json.txt"), &found);
}

/// What only looks for a member in a provider's text must come to an end, whatever the text.
fn tolerated(text: &[u8]) {
    let body = [b"{\"x\":", text, b",\"usage\":{\"a\":1}}"].concat();
    for piece_bytes in [1, 7, body.len()] {
        let mut passing = PassingMember::new("usage", 1024);
        body.chunks(piece_bytes).for_each(|piece| passing.feed(piece));
        let _ = passing.found();
    }
    let members = Members::new(text).count();
    assert!(members <= text.len() + 1);
}

/// The skim never takes for a call what a strict reader with a tree refuses, over every text, cut at each place and with
/// each byte exchanged for a few others.
#[test]
fn the_skim_is_as_strict_as_a_tree() {
    let Some(folder) = corpora::folder("json/test_parsing") else { return };
    // The grammar alone: whether a number fits into a machine's is nobody's concern here.
    let strict = |body: &[u8]| {
        body.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(body).is_ok()
    };
    let mut accepted = 0;
    for (name, text) in corpora::files(&folder, "json").iter().filter(|it| it.1.len() < 200) {
        let whole = [b"{\"model\":\"m\",\"x\":", &text[..], b"}"].concat();
        let mut bodies = vec![whole.clone()];
        for at in 0..whole.len() {
            bodies.push(whole[..at].to_vec());
            for byte in *b"\"\\{}[],:0-eE.+ \n\0\x1f\xc3\xff" {
                let mut changed = whole.clone();
                changed[at] = byte;
                bodies.push(changed);
            }
        }
        for body in bodies {
            if skim(&body, SKIM_LIMITS).is_ok() {
                accepted += 1;
                let utf8 = std::str::from_utf8(&body).is_ok();
                assert!(utf8 && strict(&body), "{name}: {:?}", String::from_utf8_lossy(&body));
            }
            assert_eq!(follows(&body, 3), follows(&body, body.len().max(1)), "{name}");
            if follows(&body, body.len().max(1)) {
                assert!(strict(&body), "{name}: {:?}", String::from_utf8_lossy(&body));
            }
        }
    }
    say(&format!("{accepted} texts were taken for calls"));
    assert!(accepted > 10_000, "{accepted}");
}
