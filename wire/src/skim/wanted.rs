//! Which members of a request's body are looked at. It gives names to them and reads none.

use crate::json::decoded;
use crate::scan::RawString;

/// The longest name, with room to spare.
const NAME_BYTES_MAX: usize = 24;

/// The members of the object that are looked at. The discriminant is the bit that tells a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Model,
    Stream,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    Metadata,
    PromptCacheKey,
    StreamOptions,
    Tools,
    System,
    Instructions,
    Messages,
    Input,
    Container,
    Thread,
    Store,
    Background,
    PreviousResponseId,
    Conversation,
    /// Inside of `metadata`.
    UserId,
    /// Inside of `stream_options`.
    IncludeUsage,
}

impl Wanted {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Wanted::Model => "model",
            Wanted::Stream => "stream",
            Wanted::MaxTokens => "max_tokens",
            Wanted::MaxCompletionTokens => "max_completion_tokens",
            Wanted::MaxOutputTokens => "max_output_tokens",
            Wanted::Metadata => "metadata",
            Wanted::PromptCacheKey => "prompt_cache_key",
            Wanted::StreamOptions => "stream_options",
            Wanted::Tools => "tools",
            Wanted::System => "system",
            Wanted::Instructions => "instructions",
            Wanted::Messages => "messages",
            Wanted::Input => "input",
            Wanted::Container => "container",
            Wanted::Thread => "thread",
            Wanted::Store => "store",
            Wanted::Background => "background",
            Wanted::PreviousResponseId => "previous_response_id",
            Wanted::Conversation => "conversation",
            Wanted::UserId => "user_id",
            Wanted::IncludeUsage => "include_usage",
        }
    }

    /// Which member of the object a key, decoded, names.
    pub(super) fn of(key: RawString<'_>) -> Option<Wanted> {
        if !key.escaped {
            return Wanted::named(key.raw);
        }
        let mut room = [0; NAME_BYTES_MAX];
        Wanted::named(decode_short(key.raw, &mut room)?)
    }

    fn named(name: &[u8]) -> Option<Wanted> {
        Some(match name {
            b"model" => Wanted::Model,
            b"stream" => Wanted::Stream,
            b"max_tokens" => Wanted::MaxTokens,
            b"max_completion_tokens" => Wanted::MaxCompletionTokens,
            b"max_output_tokens" => Wanted::MaxOutputTokens,
            b"metadata" => Wanted::Metadata,
            b"prompt_cache_key" => Wanted::PromptCacheKey,
            b"stream_options" => Wanted::StreamOptions,
            b"tools" => Wanted::Tools,
            b"system" => Wanted::System,
            b"instructions" => Wanted::Instructions,
            b"messages" => Wanted::Messages,
            b"input" => Wanted::Input,
            b"container" => Wanted::Container,
            b"thread" => Wanted::Thread,
            b"store" => Wanted::Store,
            b"background" => Wanted::Background,
            b"previous_response_id" => Wanted::PreviousResponseId,
            b"conversation" => Wanted::Conversation,
            _ => return None,
        })
    }
}

/// A key without its escapes, unless it is longer than any name. Once decoded it is compared with all names, so that a
/// body of many such keys costs no more than one of plain ones.
fn decode_short<'b>(raw: &[u8], room: &'b mut [u8; NAME_BYTES_MAX]) -> Option<&'b [u8]> {
    let raw = std::str::from_utf8(raw).ok()?;
    let mut len = 0;
    for character in decoded(raw) {
        let mut bytes = [0; 4];
        let bytes = character.encode_utf8(&mut bytes).as_bytes();
        room.get_mut(len..len + bytes.len())?.copy_from_slice(bytes);
        len += bytes.len();
    }
    room.get(..len)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const TOP: [Wanted; 19] = [
        Wanted::Model,
        Wanted::Stream,
        Wanted::MaxTokens,
        Wanted::MaxCompletionTokens,
        Wanted::MaxOutputTokens,
        Wanted::Metadata,
        Wanted::PromptCacheKey,
        Wanted::StreamOptions,
        Wanted::Tools,
        Wanted::System,
        Wanted::Instructions,
        Wanted::Messages,
        Wanted::Input,
        Wanted::Container,
        Wanted::Thread,
        Wanted::Store,
        Wanted::Background,
        Wanted::PreviousResponseId,
        Wanted::Conversation,
    ];

    #[test]
    fn each_name_is_found_plain_and_escaped() {
        for wanted in TOP {
            let name = wanted.name();
            assert_eq!(Wanted::of(RawString { raw: name.as_bytes(), escaped: false }), Some(wanted));
            let escaped: String = name.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
            assert_eq!(Wanted::of(RawString { raw: escaped.as_bytes(), escaped: true }), Some(wanted));
            let longer = format!("{escaped}\\u0000");
            assert_eq!(Wanted::of(RawString { raw: longer.as_bytes(), escaped: true }), None);
            assert!(name.len() <= NAME_BYTES_MAX);
        }
        let long = "\\u00e9".repeat(1000);
        assert_eq!(Wanted::of(RawString { raw: long.as_bytes(), escaped: true }), None);
    }
}
