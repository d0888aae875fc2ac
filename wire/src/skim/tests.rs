//! What is found, what is refused, and agreement with `serde_json` on random, damaged and published text.

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::tests_support::{damaged, json_value, member_name};
use super::wanted::Wanted;
use super::wanted::tests::TOP;
use super::*;

const LIMITS: SkimLimits = SkimLimits { depth_max: 128, files_max: 4 };

fn read(text: &str) -> Skim<'_> {
    skim(text.as_bytes(), LIMITS).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn refusal(text: &str) -> Option<SkimErrorKind> {
    skim(text.as_bytes(), LIMITS).err().map(|error| error.kind)
}

fn at<'a>(text: &'a str, span: Option<&Range<usize>>) -> Option<&'a str> {
    span.map(|span| &text[span.clone()])
}

#[test]
fn one_pass_finds_everything() {
    let text = r#" { "model":"m-1", "max_tokens": 4096 ,"stream":true,
        "metadata":{"user_id":"u1","other":[1]}, "system":[{"type":"text","text":"s"}],
        "messages":[{"role":"user","content":"hello \"you\" \\"},{"role":"assistant","content":"x"}],
        "stream_options":{"include_usage":false} , "temperature":1.5e-3} "#;
    let skim = read(text);
    assert_eq!(skim.model.map(|model| model.raw()), Some("m-1"));
    assert_eq!(&text[skim.model_span.clone()], "\"m-1\"");
    assert_eq!((skim.max_tokens, skim.stream, skim.members), (Some(4096), Some(true), 8));
    assert_eq!(skim.session.map(|session| session.decoded().into_owned()), Some("u1".to_owned()));
    assert_eq!(at(text, skim.stream_options.as_ref()), Some(r#"{"include_usage":false}"#));
    assert_eq!(
        (skim.include_usage, at(text, skim.include_usage_span.as_ref())),
        (Some(false), Some("false"))
    );
    assert_eq!(at(text, skim.prefix.as_ref()), Some(r#"[{"type":"text","text":"s"}]"#));
    assert_eq!((text[skim.end_of_object..].trim_end(), skim.pins), ("}", Pins::default()));
}

#[test]
fn nothing_need_be_there() {
    let skim = read("{}");
    assert_eq!(skim, Skim { end_of_object: 1, ..Skim::default() });
    assert_eq!(
        read(r#"{"a":{"model":"inner","stream":true}}"#),
        Skim { end_of_object: 36, members: 1, ..Skim::default() }
    );
}

#[test]
fn the_model_is_a_string_of_some_length() {
    let longest = "m".repeat(MODEL_BYTES_MAX);
    assert_eq!(
        read(&format!(r#"{{"model":"{longest}"}}"#)).model.map(|model| model.raw().len()),
        Some(MODEL_BYTES_MAX)
    );
    // The length counts what it decodes to.
    let escaped = "\\u006d".repeat(MODEL_BYTES_MAX);
    assert_eq!(
        read(&format!(r#"{{"model":"{escaped}"}}"#)).model.map(|model| model.decoded().into_owned()),
        Some(longest.clone())
    );
    for value in ["\"\"", "null", "1", "true", "[]", "{}", &format!("\"{longest}m\"")] {
        assert_eq!(
            refusal(&format!(r#"{{"model":{value}}}"#)),
            Some(SkimErrorKind::WrongType("model")),
            "{value}"
        );
    }
}

#[test]
fn escapes_are_decoded_in_values_and_keys() {
    let text = r#"{"\u006dodel":"a\/b\u00e9","str\u0065am":true,"prompt_cache_key":"k\n"}"#;
    let skim = read(text);
    assert_eq!(skim.model.map(|model| model.decoded().into_owned()), Some("a/b\u{e9}".to_owned()));
    assert_eq!(&text[skim.model_span.clone()], r#""a\/b\u00e9""#);
    assert_eq!(skim.session.map(|session| session.decoded().into_owned()), Some("k\n".to_owned()));
    assert!(matches!(read(r#"{"model":"plain"}"#).model.expect("there").decoded(), Cow::Borrowed("plain")));
    assert_eq!(skim.stream, Some(true));
}

#[test]
fn a_duplicate_of_what_is_looked_at_is_refused() {
    for wanted in TOP {
        let name = wanted.name();
        let value = match wanted {
            Wanted::Model => "\"m\"",
            _ => "null",
        };
        let other = format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..]);
        for (first, second) in
            [(name, name), (name, other.as_str()), (other.as_str(), name), (other.as_str(), other.as_str())]
        {
            let text = format!(r#"{{"{first}":{value},"x":1,"{second}":{value}}}"#);
            assert_eq!(refusal(&text), Some(SkimErrorKind::Duplicate(name)), "{text}");
        }
    }
    assert_eq!(
        refusal(r#"{"metadata":{"user_id":"a","user\u005fid":"b"}}"#),
        Some(SkimErrorKind::Duplicate("user_id"))
    );
    assert_eq!(
        refusal(r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#),
        Some(SkimErrorKind::Duplicate("include_usage"))
    );
    assert_eq!(
        read(r#"{"x":1,"x":2,"y":{"model":1,"model":2}}"#).members,
        3,
        "others are the provider's affair"
    );
}

#[test]
fn wrong_types_are_refused() {
    for (member, name) in [
        (r#""stream":"true""#, "stream"),
        (r#""stream":1"#, "stream"),
        (r#""stream":{}"#, "stream"),
        (r#""max_tokens":-1"#, "max_tokens"),
        (r#""max_tokens":1.5"#, "max_tokens"),
        (r#""max_tokens":1e3"#, "max_tokens"),
        (r#""max_tokens":"1""#, "max_tokens"),
        (r#""max_tokens":18446744073709551616"#, "max_tokens"),
        (r#""max_completion_tokens":true"#, "max_completion_tokens"),
        (r#""max_output_tokens":[1]"#, "max_output_tokens"),
        (r#""stream_options":true"#, "stream_options"),
        (r#""stream_options":[]"#, "stream_options"),
        (r#""stream_options":{"include_usage":"yes"}"#, "include_usage"),
    ] {
        assert_eq!(refusal(&format!("{{{member}}}")), Some(SkimErrorKind::WrongType(name)), "{member}");
    }
    let skim = read(
        r#"{"stream":null,"max_tokens":null,"stream_options":{"include_usage":null},
            "metadata":"x","prompt_cache_key":7}"#,
    );
    assert_eq!((skim.stream, skim.max_tokens, skim.include_usage, skim.session), (None, None, None, None));
    assert_eq!(skim.include_usage_span.map(|span| span.len()), Some(4));
    let text = r#"{"stream_options":null}"#;
    assert_eq!(at(text, read(text).stream_options.as_ref()), Some("null"));
}

#[test]
fn the_largest_number_of_tokens_counts() {
    let skim = read(r#"{"max_tokens":5,"max_completion_tokens":7,"max_output_tokens":6}"#);
    assert_eq!(skim.max_tokens, Some(7));
    assert_eq!(read(r#"{"max_completion_tokens":0}"#).max_tokens, Some(0));
}

#[test]
fn the_session_is_the_users_before_the_cache_key() {
    let session = |text: &str| read(text).session.map(|session| session.raw().to_owned());
    assert_eq!(session(r#"{"prompt_cache_key":"k","metadata":{"user_id":"u"}}"#).as_deref(), Some("u"));
    assert_eq!(session(r#"{"prompt_cache_key":"k","metadata":{"user_id":null}}"#).as_deref(), Some("k"));
    assert_eq!(session(r#"{"prompt_cache_key":"k","metadata":{"user_id":""}}"#).as_deref(), Some("k"));
    assert_eq!(session(r#"{"prompt_cache_key":"","metadata":null}"#), None);
    assert_eq!(session(r#"{"user_id":"not here"}"#), None);
}

#[test]
fn the_prefix_is_what_stays_from_call_to_call() {
    let prefix = |text: &str| at(text, read(text).prefix.as_ref()).map(str::to_owned);
    assert_eq!(
        prefix(r#"{"tools":[1],"system":"s","messages":[2]}"#).as_deref(),
        Some(r#"[1],"system":"s""#)
    );
    assert_eq!(prefix(r#"{"system":"s" , "tools":[1]}"#).as_deref(), Some(r#""s" , "tools":[1]"#));
    // Messages between the two grow with each call: they must not be part of it.
    assert_eq!(prefix(r#"{"tools":[1],"messages":[2],"system":"s"}"#).as_deref(), Some(r#""s""#));
    assert_eq!(prefix(r#"{"messages":[2],"tools":[1],"system":null}"#).as_deref(), Some("[1]"));
    assert_eq!(prefix(r#"{"instructions":"i","input":"x"}"#).as_deref(), Some(r#""i""#));
    assert_eq!(prefix(r#"{"messages":[ {"a":1} , 2],"tools":null}"#).as_deref(), Some(r#"{"a":1}"#));
    assert_eq!(prefix(r#"{"input":"hello"}"#).as_deref(), Some(r#""hello""#));
    assert_eq!(prefix(r#"{"messages":[]}"#), None);
}

#[test]
fn the_files_that_a_call_names_are_told() {
    let named = |text: &str| -> Vec<String> {
        let skim = skim(text.as_bytes(), LIMITS).unwrap();
        skim.files.iter().map(|it| it.decoded().into_owned()).collect()
    };
    let text =
        r#"{"file_id":"a","x":[{"fil\u0065_id":"b\u0062","file_id":7}],"file_ids":["c","d"],"y":"file_id"}"#;
    assert_eq!(named(text), ["a", "bb", "c", "d"]);
    assert_eq!(named(r#"{"file_ids":[],"vector_store_ids":["v"],"file_id":{"type":"string"}}"#), [""; 0]);
    let kind = |text: &str| skim(text.as_bytes(), LIMITS).unwrap_err().kind;
    assert_eq!(kind(r#"{"file_ids":["a","b","c","d","e"]}"#), SkimErrorKind::TooMany("file_id"));
    assert_eq!(kind(r#"{"file_ids":[{"file_id":"a"}]}"#), SkimErrorKind::WrongType("file_ids"));
}

#[test]
fn calls_with_state_at_an_account_are_pinned() {
    let pins = |text: &str| read(text).pins;
    assert_eq!(pins(r#"{"container":"c"}"#), Pins::CONTAINER);
    assert_eq!(pins(r#"{"container":{"skills":[]}}"#), Pins::CONTAINER);
    assert_eq!(pins(r#"{"thread":{"type":"create"}}"#), Pins::THREAD);
    assert_eq!(pins(r#"{"store":true}"#), Pins::STORE);
    assert_eq!(pins(r#"{"previous_response_id":"r"}"#), Pins::PREVIOUS_RESPONSE);
    let previous = |text: &str| read(text).previous_response.map(|it| it.decoded().into_owned());
    assert_eq!(previous(r#"{"previous_response_id":"resp_\u0031"}"#).as_deref(), Some("resp_1"));
    assert_eq!(previous(r#"{"previous_response_id":null,"a":{"previous_response_id":"r"}}"#), None);
    assert_eq!(pins(r#"{"previous_response_id":7}"#), Pins::PREVIOUS_RESPONSE);
    assert_eq!(pins(r#"{"conversation":"c"}"#), Pins::CONVERSATION);
    assert_eq!(pins(r#"{"background":true}"#), Pins::BACKGROUND);
    for text in [
        r#"{"messages":[{"content":[{"source":{"type":"file","file_id":"f"}}]}]}"#,
        r#"{"messages":[1,{"file_\u0069d":"f"}]}"#,
        r#"{"file_id":"f"}"#,
        r#"{"metadata":{"file_id":"f"}}"#,
        r#"{"tools":[{"container":{"file_ids":["f"]}}]}"#,
        r#"{"tools":[{"type":"file_search","vector_store_ids":["v"]}]}"#,
    ] {
        assert_eq!(pins(text), Pins::FILE, "{text}");
    }
    for text in [
        r#"{"container":null,"thread":null,"store":false,"previous_response_id":null,"conversation":null}"#,
        r#"{"store":null,"background":false,"a":{"file_id":null,"vector_store_ids":null}}"#,
        r#"{"tools":[{"input_schema":{"properties":{"file_id":{"type":"string"}},"required":["file_id"]}}]}"#,
        r#"{"messages":[{"container":"c","content":"file_id"}]}"#,
    ] {
        assert!(!pins(text).any(), "{text}");
    }
    let both = pins(r#"{"store":true,"a":{"file_id":"x"}}"#);
    assert!(
        both.any() && both.contains(Pins::FILE) && both.contains(Pins::STORE) && !both.contains(Pins::THREAD)
    );
}

#[test]
fn only_one_whole_object_is_read() {
    for (text, kind) in [
        ("", SkimErrorKind::NotAnObject),
        ("  ", SkimErrorKind::NotAnObject),
        ("[]", SkimErrorKind::NotAnObject),
        ("null", SkimErrorKind::NotAnObject),
        ("\u{feff}{}", SkimErrorKind::NotAnObject),
        ("{", SkimErrorKind::Ended),
        ("{\"a\":\"x", SkimErrorKind::Ended),
        ("{\"a\":tru", SkimErrorKind::Ended),
        ("{}{}", SkimErrorKind::Trailing),
        ("{} x", SkimErrorKind::Trailing),
        ("{}\0", SkimErrorKind::Trailing),
        ("{\u{a0}}", SkimErrorKind::Syntax),
        ("{\"a\":1 \"b\":2}", SkimErrorKind::Syntax),
        ("{,}", SkimErrorKind::Syntax),
        ("{a:1}", SkimErrorKind::Syntax),
        ("{]", SkimErrorKind::Syntax),
        ("{\"a\":[1}}", SkimErrorKind::Syntax),
        ("{\"a\":[}}", SkimErrorKind::Syntax),
        ("{\"a\":{\"b\":1]}", SkimErrorKind::Syntax),
        ("{\"a\":{]}", SkimErrorKind::Syntax),
        ("{\"a\":[[1],{\"b\":[2}]}", SkimErrorKind::Syntax),
        ("{\"a\":\"\\u123g\"}", SkimErrorKind::Syntax),
        ("{\"a\":\"\\u12\"}", SkimErrorKind::Syntax),
        ("{\"a\":\"\\U0041\"}", SkimErrorKind::Syntax),
        ("{\"a\":\"\\u004", SkimErrorKind::Ended),
    ] {
        assert_eq!(refusal(text), Some(kind), "{text:?}");
    }
    assert_eq!(skim(b"{\"a\":\"\xff\"}", LIMITS), Err(SkimError { offset: 6, kind: SkimErrorKind::NotUtf8 }));
    assert_eq!(
        skim(b"{\"a\":\"\xed\xa0\x80\"}", LIMITS).err().map(|error| error.kind),
        Some(SkimErrorKind::NotUtf8)
    );
    let error = skim(br#"{"model":1}"#, LIMITS).expect_err("a number");
    assert_eq!(
        (error.offset, error.to_string()),
        (9, "`model` has a wrong type or value, at byte 9".to_owned())
    );
}

#[test]
fn the_depth_holds_to_the_level() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert_eq!(refusal(&nested(128)), None);
    assert_eq!(refusal(&nested(129)), Some(SkimErrorKind::TooDeep));
    let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    assert_eq!(refusal(&objects(128)), None);
    assert_eq!(refusal(&objects(129)), Some(SkimErrorKind::TooDeep));
    for member in ["messages", "metadata", "stream_options", "tools"] {
        let text = format!("{{\"{member}\":{}", "{\"a\":[".repeat(200_000));
        assert!(refusal(&text).is_some_and(|kind| kind != SkimErrorKind::Ended), "{member}");
    }
    let inside = format!(r#"{{"messages":[{}{}]}}"#, "[".repeat(126), "]".repeat(126));
    assert_eq!(refusal(&inside), None);
    let deeper = format!(r#"{{"messages":[{}{}]}}"#, "[".repeat(127), "]".repeat(127));
    assert_eq!(refusal(&deeper), Some(SkimErrorKind::TooDeep));
    assert_eq!(
        skim(b"{}", SkimLimits { depth_max: 0, files_max: 4 }).err().map(|error| error.kind),
        Some(SkimErrorKind::TooDeep)
    );
    // However large the limit, the stack is safe.
    let wide = SkimLimits { depth_max: usize::MAX, files_max: 4 };
    assert_eq!(
        skim(nested(100_000).as_bytes(), wide).err().map(|error| error.kind),
        Some(SkimErrorKind::TooDeep)
    );
}

/// Whether `serde_json` takes the text as an object. It refuses some text that is JSON by the grammar, all of it
/// about values that have no place in its types: those are not compared.
fn serde_says(text: &[u8]) -> Option<bool> {
    match serde_json::from_slice::<Value>(text) {
        Ok(value) => Some(value.is_object()),
        Err(error) => {
            let message = error.to_string();
            let of_its_types = ["number out of range", "surrogate", "unexpected end of hex escape"];
            (!of_its_types.iter().any(|reason| message.contains(reason))).then_some(false)
        }
    }
}

/// Whether the grammar is kept, whatever the members that are looked at hold.
fn grammar_is_kept(text: &[u8]) -> bool {
    match skim(text, LIMITS).map_err(|error| error.kind) {
        Ok(_) => true,
        // Refused before the end: the rest of the grammar is judged with the key spelled differently.
        Err(SkimErrorKind::Duplicate(_) | SkimErrorKind::WrongType(_)) => {
            json::Members::new(text).all(|entry| entry.is_ok()) && std::str::from_utf8(text).is_ok()
        }
        Err(_) => false,
    }
}

/// What a tree holds of the members that are looked at, where the types are right.
fn agrees_with_tree(text: &[u8], skim: &Skim<'_>) -> Result<(), TestCaseError> {
    let tree: Value = serde_json::from_slice(text).expect("accepted by both");
    let object = tree.as_object().expect("accepted as an object");
    let text_at = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
    prop_assert_eq!(skim.model.map(|model| model.decoded().into_owned()), text_at("model"));
    prop_assert_eq!(skim.stream, object.get("stream").and_then(Value::as_bool));
    let tokens = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
    prop_assert_eq!(skim.max_tokens, tokens.iter().filter_map(|name| object.get(*name)?.as_u64()).max());
    let user = object.get("metadata").and_then(|metadata| metadata.get("user_id"));
    let session = [user, object.get("prompt_cache_key")]
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .find(|s| !s.is_empty());
    prop_assert_eq!(skim.session.map(|session| session.decoded().into_owned()), session.map(str::to_owned));
    prop_assert_eq!(
        skim.include_usage,
        object.get("stream_options").and_then(|o| o.get("include_usage")).and_then(Value::as_bool)
    );
    prop_assert_eq!(skim.store, object.get("store").and_then(Value::as_bool));
    prop_assert_eq!(skim.pins.contains(Pins::STORE), skim.store == Some(true));
    prop_assert_eq!(
        skim.pins.contains(Pins::CONTAINER),
        object.get("container").is_some_and(|value| !value.is_null())
    );
    prop_assert_eq!(text.get(skim.end_of_object), Some(&b'}'));
    prop_assert!(text[skim.end_of_object + 1..].trim_ascii().is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn agrees_with_serde_json(text in damaged()) {
        if let Some(accepted) = serde_says(&text) {
            prop_assert_eq!(grammar_is_kept(&text), accepted, "{:?}", String::from_utf8_lossy(&text));
            if let (true, Ok(skim)) = (accepted, skim(&text, LIMITS)) {
                agrees_with_tree(&text, &skim)?;
            }
        }
    }

    #[test]
    fn values_that_are_right_are_found_among_others(
        others in proptest::collection::btree_map(member_name(), json_value(), 0..6),
        model in "[ -~\u{e9}]{1,40}",
        tokens in any::<u64>(),
        stream in any::<bool>(),
    ) {
        let mut object: serde_json::Map<String, Value> = others
            .into_iter()
            .filter(|(name, _)| !matches!(name.as_str(), "stream_options" | "max_completion_tokens"))
            .collect();
        object.insert("model".into(), model.as_str().into());
        object.insert("max_tokens".into(), tokens.into());
        object.insert("stream".into(), stream.into());
        let text = serde_json::to_vec(&object).expect("serializable");
        match skim(&text, LIMITS) {
            Ok(skim) => {
                let read = (skim.max_tokens, skim.stream, skim.members);
                prop_assert_eq!(read, (Some(tokens), Some(stream), object.len()));
                let spelled: String = serde_json::from_slice(&text[skim.model_span.clone()]).expect("a string");
                prop_assert_eq!(spelled, model);
                agrees_with_tree(&text, &skim)?;
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn hostile_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = skim(&text, LIMITS);
        let _ = skim(&[b"{\"model\":\"", &text[..]].concat(), LIMITS);
        let _ = skim(&[b"{\"metadata\":{\"", &text[..]].concat(), LIMITS);
    }

    #[test]
    fn every_cut_of_a_valid_text_is_refused(
        object in proptest::collection::btree_map(any::<String>(), json_value(), 0..5),
    ) {
        let text = serde_json::to_vec(&object).expect("serializable");
        for end in 0..text.len() {
            prop_assert!(skim(&text[..end], LIMITS).is_err());
        }
    }
}

/// The published vectors of JSONTestSuite, kept beside the repository because of their size and licence: `y_` must be
/// accepted and `n_` refused, as the value of a member and, where they are objects, by themselves.
#[test]
fn the_published_vectors_are_judged_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora/json/test_parsing");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        note(&format!("the vectors of JSONTestSuite are not at {}: nothing was compared", folder.display()));
        return;
    };
    let mut judged = 0;
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let text = std::fs::read(&path).expect("a readable file");
        let wrapped = [b"{\"a\":", &text[..], b"}"].concat();
        let is_object = text.trim_ascii_start().first() == Some(&b'{');
        match name.get(..2) {
            Some("y_") => {
                assert!(skim(&wrapped, LIMITS).is_ok(), "{name} is JSON");
                assert_eq!(skim(&text, LIMITS).is_ok(), is_object, "{name} by itself");
            }
            Some("n_") => {
                assert!(skim(&text, LIMITS).is_err(), "{name} is not JSON");
                assert!(skim(&wrapped, LIMITS).is_err(), "{name} is not JSON in a member");
            }
            _ => drop(skim(&text, LIMITS)),
        }
        judged += 1;
    }
    assert!(judged > 300, "only {judged} vectors at {}", folder.display());
}

#[expect(clippy::print_stderr, reason = "a test that could not compare must say so")]
fn note(text: &str) {
    eprintln!("note: {text}");
}
