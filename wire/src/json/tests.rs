//! Members, elements and scalars by cases, and against `serde_json` on random and damaged text.

use proptest::prelude::*;

use super::*;
use crate::skim::tests_support::{damaged, json_value};

#[test]
fn members_come_in_order_with_their_text() {
    let text = br#" {"a" : 1, "b":{"c":[1,{"d":null}]} ,"e\u0061":"x\"}" } "#;
    let found: Vec<(Vec<u8>, &[u8])> = Members::new(text)
        .map(|entry| entry.expect("valid"))
        .map(|(key, value)| (key.raw().to_vec(), value))
        .collect();
    let expected: [(&[u8], &[u8]); 3] =
        [(b"a", b"1"), (b"b", br#"{"c":[1,{"d":null}]}"#), (br"e\u0061", br#""x\"}""#)];
    assert_eq!(found, expected.map(|(key, value)| (key.to_vec(), value)));
    assert_eq!(member(text, "ea"), Ok(Some(&br#""x\"}""#[..])));
    assert_eq!(member(text, "c"), Ok(None), "only of the object itself");
    assert_eq!(
        members(text, ["b", "none", "a"]).map(|found| found.map(|v| v.map(<[u8]>::len))),
        Ok([Some(20), None, Some(1)])
    );
    assert_eq!(members(br#"{"a":1,"a":2}"#, ["a"]), Ok([Some(&b"2"[..])]));
    let value = member(text, "a").expect("valid").expect("there");
    assert_eq!(span_in(text, value), Some(8..9));
    assert_eq!(span_in(text, b"1"), None);
}

#[test]
fn elements_come_in_order() {
    let found: Result<Vec<&[u8]>, JsonError> = Elements::new(b" [1 ,[2], {\"a\":3}]\n").collect();
    assert_eq!(found, Ok(vec![&b"1"[..], b"[2]", b"{\"a\":3}"]));
    assert_eq!(Elements::new(b"[]").next(), None);
}

#[test]
fn null_has_no_members() {
    assert_eq!((Members::new(b"null").next(), Elements::new(b" null ").next()), (None, None));
    assert_eq!(Members::new(b"nul").count(), 1);
    assert!(Members::new(b"null 1").any(|entry| entry.is_err()));
}

#[test]
fn an_error_is_told_once_and_ends_it() {
    for (text, kind, offset) in [
        (&b"[1]"[..], JsonErrorKind::WrongKind, 0),
        (b"", JsonErrorKind::Ended, 0),
        (b"{", JsonErrorKind::Ended, 1),
        (br#"{"a":1"#, JsonErrorKind::Ended, 6),
        (br#"{"a":1,}"#, JsonErrorKind::Syntax, 7),
        (br#"{"a":1}x"#, JsonErrorKind::Trailing, 7),
        (br#"{"a":01}"#, JsonErrorKind::Syntax, 6),
        (br#"{"a" 1}"#, JsonErrorKind::Syntax, 5),
        (b"{\"a\":\"\n\"}", JsonErrorKind::Syntax, 6),
    ] {
        let errors: Vec<JsonError> = Members::new(text).filter_map(Result::err).collect();
        assert_eq!(errors, [JsonError { offset, kind }], "{:?}", String::from_utf8_lossy(text));
    }
    let deep = [&b"{\"a\":"[..], &[b'['; 200], &[b']'; 200], b"}"].concat();
    assert_eq!(member(&deep, "b").map_err(|error| error.kind), Err(JsonErrorKind::TooDeep));
}

#[test]
fn scalars_are_strict() {
    for (text, number) in [("0", Some(0)), ("42", Some(42)), ("18446744073709551615", Some(u64::MAX))] {
        assert_eq!(as_u64(text.as_bytes()), number);
    }
    for text in [
        "",
        "-1",
        "+1",
        "1.0",
        "1e3",
        "01",
        "18446744073709551616",
        "36893488147419103250",
        "\"1\"",
        "null",
        "1 ",
        "x",
    ] {
        assert_eq!(as_u64(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(
        (as_bool(b"true"), as_bool(b"false"), as_bool(b"True"), as_bool(b"null")),
        (Some(true), Some(false), None, None)
    );
    assert!(is_null(b"null") && !is_null(b"0"));
}

#[test]
fn strings_are_decoded_and_lent_when_plain() {
    assert!(matches!(as_str("\"pl\u{e9}in\"".as_bytes()), Some(Cow::Borrowed("pl\u{e9}in"))));
    assert_eq!(
        as_str(br#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#).as_deref(),
        Some("\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1f600}")
    );
    assert_eq!(as_str(br#""\ud83dx\udc00\ud83d\u0041""#).as_deref(), Some("\u{fffd}x\u{fffd}\u{fffd}A"));
    for text in [&b"1"[..], b"", b"\"", b"\"a", b"\"a\"b", b"a\"", b"\"\\x\"", b"\"\xff\"", b"\"\x01\""] {
        assert_eq!(as_str(text), None, "{text:?}");
    }
}

#[test]
fn keys_are_compared_decoded() {
    let is = |text: &[u8], name| Members::new(text).next().expect("one").expect("valid").0.is(name);
    assert!(is(br#"{"usage":1}"#, "usage") && is(br#"{"\u0075sage":1}"#, "usage"));
    assert!(
        !is(br#"{"usagE":1}"#, "usage")
            && !is(br#"{"\u0075sag":1}"#, "usage")
            && !is(br#"{"usage\u0000":1}"#, "usage")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_written_string_reads_back(text in any::<String>()) {
        let mut out = Vec::new();
        write_str(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("valid"), text.clone());
        prop_assert_eq!(as_str(&out).expect("valid"), text);
    }

    #[test]
    fn strings_decode_as_elsewhere(text in r#"(\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}|[a-z\u{e9}]){0,12}"#) {
        let quoted = format!("\"{text}\"");
        if let Ok(expected) = serde_json::from_str::<String>(&quoted) {
            prop_assert_eq!(as_str(quoted.as_bytes()).expect("valid"), expected);
        }
    }

    #[test]
    fn members_agree_with_a_tree(values in proptest::collection::btree_map(any::<String>(), json_value(), 0..6)) {
        let text = serde_json::to_vec(&values).expect("serializable");
        for (name, value) in &values {
            let found = member(&text, name).expect("valid").expect("there");
            prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(found).expect("valid"), value);
        }
        prop_assert_eq!(Members::new(&text).filter(Result::is_ok).count(), values.len());
    }

    #[test]
    fn elements_agree_with_a_tree(values in proptest::collection::vec(json_value(), 0..6)) {
        let text = serde_json::to_vec(&values).expect("serializable");
        let found: Vec<serde_json::Value> = Elements::new(&text)
            .map(|element| serde_json::from_slice(element.expect("valid")).expect("valid"))
            .collect();
        prop_assert_eq!(found, values);
    }

    #[test]
    fn hostile_text_never_panics(text in damaged()) {
        for entry in Members::new(&text) {
            let Ok((key, value)) = entry else { break };
            let _ = (key.is("model"), as_str(value), as_u64(value), as_bool(value));
            Elements::new(value).for_each(drop);
        }
        let _ = as_str(&text);
    }
}
