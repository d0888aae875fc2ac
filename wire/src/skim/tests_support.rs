//! Random JSON for the tests of `skim` and `json`: valid text of every shape, and text that is damaged in places.

use proptest::prelude::*;
use serde_json::Value;

/// A JSON value of any kind, nested a little.
pub(crate) fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Halves, so that printing and parsing again cannot round.
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 2.0)),
        any::<String>().prop_map(Value::from),
        "[ -~\\n]{0,80}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(member_name(), inner, 0..5).prop_map(Value::from_iter),
        ]
    })
}

/// A name of a member: one that means something, or any.
pub(crate) fn member_name() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "model",
            "stream",
            "max_tokens",
            "max_completion_tokens",
            "metadata",
            "user_id",
            "stream_options",
            "include_usage",
            "tools",
            "system",
            "messages",
            "store",
            "container",
            "file_id",
            "prompt_cache_key",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

/// The text of an object, with white space, and with a few bytes changed, taken out or put in.
pub(crate) fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let object = proptest::collection::btree_map(member_name(), json_value(), 0..6);
    let bytes =
        prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]:,\"\\ \t\n0123456789.eE+-tfnu".to_vec()),];
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8, bytes), 0..3);
    (object, any::<bool>(), damage).prop_map(|(object, pretty, damage)| {
        let write = if pretty { serde_json::to_vec_pretty } else { serde_json::to_vec };
        let mut text = write(&object).expect("serializable");
        for (place, kind, byte) in damage {
            let place = place.index(text.len().max(1));
            match kind {
                0 if place < text.len() => text[place] = byte,
                1 if place < text.len() => drop(text.remove(place)),
                _ => text.insert(place, byte),
            }
        }
        text
    })
}
