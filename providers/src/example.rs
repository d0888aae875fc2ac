//! A first call that a person can paste into a terminal, in each dialect.

use crate::dialect::Dialect;
use crate::{anthropic, openai};

const MESSAGES: &str = r#""messages":[{"role":"user","content":"Hi"}]"#;

/// A `curl` line that sends one small call of this dialect to `base_url`.
pub fn curl_example(dialect: &Dialect, base_url: &str) -> String {
    if dialect.id == anthropic::DIALECT.id {
        return format!(
            "curl {base_url}/v1/messages -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' \\\n  \
             -d '{{\"model\":\"claude-haiku-4-5\",\"max_tokens\":64,{MESSAGES}}}'"
        );
    }
    debug_assert_eq!(dialect.id, openai::DIALECT.id);
    format!(
        "curl {base_url}/v1/chat/completions -H 'content-type: application/json' \\\n  \
         -d '{{\"model\":\"gpt-5-mini\",{MESSAGES}}}'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_has_an_example_with_a_json_body() {
        for dialect in crate::ALL {
            let line = curl_example(dialect, "http://127.0.0.1:4000");
            let body = line.split("-d '").nth(1).and_then(|it| it.strip_suffix('\'')).expect("a body");
            let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert!(body["model"].is_string(), "{line}");
        }
    }
}
