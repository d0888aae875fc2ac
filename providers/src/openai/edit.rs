//! How a stream's usage is asked for: without `include_usage` a stream of completions says nothing of what it used
//! (the API reference), so the gateway sets it and takes the extra chunk out again. Other streams say it by themselves.

use tidegate_core::Family;
use tidegate_wire::skim::Skim;
use tidegate_wire::splice::Edit;

use crate::path::Operation;
use crate::reading::holds_something;

/// The change that asks for usage; `None` where it comes by itself or the caller asks.
pub(super) fn usage_request(
    operation: &Operation<'_>,
    body: &[u8],
    skim: &Skim<'_>,
) -> Option<Edit<'static>> {
    if !matches!(operation.family, Family::Chat | Family::Completions) {
        return None;
    }
    if skim.stream != Some(true) || skim.include_usage == Some(true) {
        return None;
    }
    if let Some(stated) = &skim.include_usage_span {
        return Some(Edit { span: stated.clone(), with: b"true" });
    }
    let Some(options) = &skim.stream_options else {
        let end = skim.end_of_object;
        let with: &[u8] = if skim.members == 0 {
            br#""stream_options":{"include_usage":true}"#
        } else {
            br#","stream_options":{"include_usage":true}"#
        };
        return Some(Edit { span: end..end, with });
    };
    let value = body.get(options.clone())?;
    if !value.starts_with(b"{") {
        return Some(Edit { span: options.clone(), with: br#"{"include_usage":true}"# });
    }
    let inside = options.start + 1;
    let with: &[u8] =
        if holds_something(value) { br#""include_usage":true,"# } else { br#""include_usage":true"# };
    Some(Edit { span: inside..inside, with })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tidegate_wire::skim::{SkimLimits, skim};
    use tidegate_wire::splice::splice_into;

    use super::super::DIALECT;
    use super::*;

    fn edited(body: &str) -> Option<String> {
        let skim = skim(body.as_bytes(), SkimLimits { depth_max: 128, files_max: 4 })
            .expect("a body that can be routed");
        let operation = DIALECT.operation("POST", "/v1/chat/completions").expect("an operation");
        let edit = usage_request(&operation, body.as_bytes(), &skim)?;
        let mut out = Vec::new();
        splice_into(body.as_bytes(), &[edit], &mut out);
        Some(String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn usage_is_asked_for_once_and_nothing_else_changes() {
        for (body, after) in [
            (r#"{"model":"m"}"#, None),
            (r#"{"model":"m","stream":false}"#, None),
            (r#"{"model":"m","stream":null}"#, None),
            (r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#, None),
            (
                r#"{"model":"m","stream":true}"#,
                Some(r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#),
            ),
            (
                "{ \"stream\" : true , \"model\" : \"m\" }\n",
                Some(
                    "{ \"stream\" : true , \"model\" : \"m\" ,\"stream_options\":{\"include_usage\":true}}\n",
                ),
            ),
            (
                r#"{"model":"m","stream_options":{"include_obfuscation":false},"stream":true}"#,
                Some(
                    "{\"model\":\"m\",\"stream_options\":{\"include_usage\":true,\"include_obfuscation\":false},\
                     \"stream\":true}",
                ),
            ),
            (
                r#"{"model":"m","stream_options":{ },"stream":true}"#,
                Some(r#"{"model":"m","stream_options":{"include_usage":true },"stream":true}"#),
            ),
            (
                r#"{"model":"m","stream_options":null,"stream":true}"#,
                Some(r#"{"model":"m","stream_options":{"include_usage":true},"stream":true}"#),
            ),
            (
                r#"{"model":"m","stream_options":{"include_usage":false},"stream":true}"#,
                Some(r#"{"model":"m","stream_options":{"include_usage":true},"stream":true}"#),
            ),
            (
                r#"{"model":"m","stream_options":{"include_usage": null ,"x":1},"stream":true}"#,
                Some(r#"{"model":"m","stream_options":{"include_usage": true ,"x":1},"stream":true}"#),
            ),
        ] {
            assert_eq!(edited(body).as_deref(), after, "{body}");
        }
    }

    proptest! {
        /// Whatever stands beside it, the edited body is the old one with the one option set.
        #[test]
        fn the_edited_body_differs_in_the_option_alone(
            extra in proptest::collection::btree_map("[a-e]{1,3}", 0..9_i32, 0..4),
            options in proptest::option::of(proptest::collection::btree_map("[f-k]{1,3}", 0..9_i32, 0..3)),
            stated in proptest::option::of(proptest::option::of(Just(false))),
        ) {
            let mut body = json!({"model": "m", "stream": true});
            for (name, value) in extra {
                body[name] = value.into();
            }
            if let Some(options) = options {
                body["stream_options"] = json!(options);
                if let Some(stated) = stated {
                    body["stream_options"]["include_usage"] = json!(stated);
                }
            }
            let after: Value = serde_json::from_str(&edited(&body.to_string()).expect("an edit")).expect("JSON");
            if !body["stream_options"].is_object() {
                body["stream_options"] = json!({});
            }
            body["stream_options"]["include_usage"] = json!(true);
            prop_assert_eq!(after, body);
        }
    }
}
