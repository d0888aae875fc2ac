//! The gateway that bytes are sent to: one upstream, and callers that are served, short of calls, or short of models.

use crate::messages::VIRTUAL_KEY;

/// Of a caller who has one call a minute.
pub const POOR_KEY: &str = "vk-poor-0123456789-0123456789-abcdefgh";
/// Of a caller who may ask for `front` only.
pub const NARROW_KEY: &str = "vk-narrow-0123456789-0123456789-abcdef";

/// Its configuration, before the upstream at `url`; [`VIRTUAL_KEY`] is served without bounds.
pub fn yaml(url: &str) -> String {
    format!(
        r#"
providers:
  mock:
    kind: anthropic
    base_url: "{url}"
    keys: [{{ name: only, value: "upstream-key-1" }}]
models:
  front: {{ chain: [mock/claude-sonnet-5-5] }}
  back: {{ chain: [mock/claude-opus-5] }}
virtual_keys:
  - {{ name: tester, key: "{VIRTUAL_KEY}" }}
  - {{ name: poor, key: "{POOR_KEY}", limits: {{ rpm: 1 }} }}
  - {{ name: narrow, key: "{NARROW_KEY}", models: [front] }}
"#
    )
}
