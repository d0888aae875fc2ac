//! Reads, in one pass and without a tree, what must be known of a request's body before it is routed.
//!
//! The whole text is held to the grammar: UTF-8, depth, nothing behind the object. The members in question may occur
//! once only, whichever way their names are spelled, because the gateway and the provider could otherwise read
//! different ones. Everything else is left to the provider. Nothing is changed here: `splice` does that.

use std::borrow::Cow;
use std::ops::Range;

use crate::json::{self, JsonError, JsonErrorKind};

mod reader;
mod wanted;

/// The longest model name, decoded.
pub const MODEL_BYTES_MAX: usize = 256;

/// Bounds of what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkimLimits {
    /// How deep the text may nest; the object itself is the first level. At most 256.
    pub depth_max: usize,
    /// How many files it may name.
    pub files_max: usize,
}

/// Why a body cannot be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkimErrorKind {
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The text is JSON of another kind, or no JSON at all.
    NotAnObject,
    /// The text ends in the middle.
    Ended,
    /// A byte that the grammar does not allow there.
    Syntax,
    /// Nested deeper than the limit.
    TooDeep,
    /// Something follows the object.
    Trailing,
    /// This member occurs twice.
    Duplicate(&'static str),
    /// More of these than the limit.
    TooMany(&'static str),
    /// This member is not of the type it has to be.
    WrongType(&'static str),
}

/// A body that cannot be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkimError {
    /// Where it was noticed.
    pub offset: usize,
    /// What is wrong.
    pub kind: SkimErrorKind,
}

impl std::fmt::Display for SkimError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SkimError { offset, kind } = self;
        match kind {
            SkimErrorKind::NotUtf8 => write!(f, "the body is not valid UTF-8 at byte {offset}"),
            SkimErrorKind::NotAnObject => write!(f, "the body is not a JSON object"),
            SkimErrorKind::Ended => write!(f, "the JSON ends too early, at byte {offset}"),
            SkimErrorKind::Syntax => write!(f, "the body is not valid JSON at byte {offset}"),
            SkimErrorKind::TooDeep => write!(f, "the JSON nests too deep at byte {offset}"),
            SkimErrorKind::Trailing => write!(f, "something follows the JSON object at byte {offset}"),
            SkimErrorKind::Duplicate(name) => write!(f, "`{name}` occurs twice, again at byte {offset}"),
            SkimErrorKind::TooMany(name) => write!(f, "there are too many of `{name}` at byte {offset}"),
            SkimErrorKind::WrongType(name) => {
                write!(f, "`{name}` has a wrong type or value, at byte {offset}")
            }
        }
    }
}

impl std::error::Error for SkimError {}

impl From<JsonError> for SkimError {
    fn from(error: JsonError) -> SkimError {
        let kind = match error.kind {
            JsonErrorKind::Ended => SkimErrorKind::Ended,
            JsonErrorKind::Syntax => SkimErrorKind::Syntax,
            JsonErrorKind::TooDeep => SkimErrorKind::TooDeep,
            JsonErrorKind::Trailing => SkimErrorKind::Trailing,
            JsonErrorKind::WrongKind => SkimErrorKind::NotAnObject,
        };
        SkimError { offset: error.offset, kind }
    }
}

/// A string of the text, as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonStr<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> JsonStr<'a> {
    /// What lies between the quotes.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// The string itself: lent if it has no escapes. A lone surrogate becomes U+FFFD.
    pub fn decoded(&self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(json::decode(self.raw)) } else { Cow::Borrowed(self.raw) }
    }
}

/// What ties a call to the one account that holds its state: such a call is never moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(u8);

impl Pins {
    /// `container` is given.
    pub const CONTAINER: Pins = Pins(1);
    /// `thread` is given.
    pub const THREAD: Pins = Pins(1 << 1);
    /// `store` is true.
    pub const STORE: Pins = Pins(1 << 2);
    /// `previous_response_id` is given.
    pub const PREVIOUS_RESPONSE: Pins = Pins(1 << 3);
    /// `conversation` is given.
    pub const CONVERSATION: Pins = Pins(1 << 4);
    /// A `file_id` string, or a `file_ids` or `vector_store_ids` array, somewhere in the text.
    pub const FILE: Pins = Pins(1 << 5);
    /// `background` is true: the result is fetched later.
    pub const BACKGROUND: Pins = Pins(1 << 6);

    /// Whether there is any.
    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Pins) -> bool {
        self.0 & other.0 == other.0
    }

    fn add(&mut self, other: Pins) {
        self.0 |= other.0;
    }
}

/// What a body says, as far as routing is concerned. Ranges are offsets into the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skim<'a> {
    /// `model`, not empty.
    pub model: Option<JsonStr<'a>>,
    /// The model's string, quotes included; empty if there is none.
    pub model_span: Range<usize>,
    /// `stream`, if it is a boolean.
    pub stream: Option<bool>,
    /// The largest of `max_tokens`, `max_completion_tokens`, `max_output_tokens`.
    pub max_tokens: Option<u64>,
    /// What names the session: `metadata.user_id`, else `prompt_cache_key`. Not empty.
    pub session: Option<JsonStr<'a>>,
    /// The value of `stream_options`: an object, or `null`.
    pub stream_options: Option<Range<usize>>,
    /// `stream_options.include_usage`, if it is a boolean.
    pub include_usage: Option<bool>,
    /// The value of `stream_options.include_usage`, whatever it is.
    pub include_usage_span: Option<Range<usize>>,
    /// The offset of the object's closing brace: a member is put in before it.
    pub end_of_object: usize,
    /// How many members the object has.
    pub members: usize,
    /// What a provider caches first, to be hashed: `tools` and `system` (or `instructions`) if they are neighbours,
    /// else the latter, else the former, else the first of `messages` (or `input`).
    pub prefix: Option<Range<usize>>,
    /// What ties the call to one account.
    pub pins: Pins,
    /// `previous_response_id`, if it is a string.
    pub previous_response: Option<JsonStr<'a>>,
    /// The files that it names: each `file_id` string and each element of a `file_ids` array, at any depth.
    pub files: Vec<JsonStr<'a>>,
    /// `store`, if it is a boolean.
    pub store: Option<bool>,
}

/// Reads the body of a request.
///
/// # Errors
/// The first thing that is wrong. A body that passes is valid JSON and an object.
pub fn skim(text: &[u8], limits: SkimLimits) -> Result<Skim<'_>, SkimError> {
    if simdutf8::basic::from_utf8(text).is_err() {
        let offset = simdutf8::compat::from_utf8(text).err().map_or(0, |error| error.valid_up_to());
        return Err(SkimError { offset, kind: SkimErrorKind::NotUtf8 });
    }
    let mut reader = reader::Reader::new(text, limits);
    reader.read()?;
    Ok(reader.finish(text))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tests_support;
