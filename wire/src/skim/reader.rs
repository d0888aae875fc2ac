//! The pass over a request's body: takes each member that is looked at, holds the rest to the grammar.

use std::ops::Range;

use super::wanted::Wanted;
use super::{JsonStr, MODEL_BYTES_MAX, Pins, Skim, SkimError, SkimErrorKind, SkimLimits};
use crate::json::{self, key_is};
use crate::scan::{KeyWatch, RawString, Scanner};

/// A reference to a file.
const FILE_ID: &str = "file_id";
/// References to files.
const FILE_IDS: &str = "file_ids";

/// Notes which files, kept at an account, a call refers to.
struct FileWatch<'s, 'a> {
    skim: &'s mut Skim<'a>,
    files_max: usize,
    wrong: &'s mut Option<SkimErrorKind>,
}

impl<'a> KeyWatch<'a> for FileWatch<'_, 'a> {
    #[inline]
    fn key(&mut self, key: RawString<'a>, value: &'a [u8]) {
        // The kind of value tells a reference from a tool's parameter that is named so.
        match value.first() {
            Some(b'"') if key_is(key, FILE_ID) => self.note(&mut Scanner::new(value, 1)),
            Some(b'[') if key_is(key, FILE_IDS) => self.note_all(value),
            Some(b'[') if key_is(key, "vector_store_ids") => self.skim.pins.add(Pins::FILE),
            _ => {}
        }
    }
}

impl<'a> FileWatch<'_, 'a> {
    /// The id at which `scanner` stands. What is wrong with the text is for the pass itself to say.
    fn note(&mut self, scanner: &mut Scanner<'a>) {
        self.skim.pins.add(Pins::FILE);
        if self.skim.files.len() >= self.files_max {
            *self.wrong = Some(SkimErrorKind::TooMany(FILE_ID));
        } else if let Ok(string) = scanner.string() {
            let raw = std::str::from_utf8(string.raw).unwrap_or_default();
            self.skim.files.push(JsonStr { raw, escaped: string.escaped });
        }
    }

    fn note_all(&mut self, array: &'a [u8]) {
        self.skim.pins.add(Pins::FILE);
        let mut scanner = Scanner::new(array, 1);
        let mut first = true;
        if scanner.open(1).is_err() {
            return;
        }
        while self.wrong.is_none() && scanner.next_element(&mut first).unwrap_or(false) {
            if scanner.peek() != Some(b'"') {
                // An id may hide in whatever it is.
                *self.wrong = Some(SkimErrorKind::WrongType(FILE_IDS));
                return;
            }
            self.note(&mut scanner);
        }
    }
}

pub(super) struct Reader<'a> {
    scanner: Scanner<'a>,
    skim: Skim<'a>,
    files_max: usize,
    /// What is wrong with the references to files.
    wrong: Option<SkimErrorKind>,
    seen: u32,
    user_id: Option<JsonStr<'a>>,
    cache_key: Option<JsonStr<'a>>,
    tools: Option<Range<usize>>,
    system: Option<Range<usize>>,
    first_message: Option<Range<usize>>,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of `text`, which must be UTF-8.
    pub(super) fn new(text: &'a [u8], limits: SkimLimits) -> Reader<'a> {
        Reader {
            scanner: Scanner::new(text, limits.depth_max),
            skim: Skim::default(),
            files_max: limits.files_max,
            wrong: None,
            seen: 0,
            user_id: None,
            cache_key: None,
            tools: None,
            system: None,
            first_message: None,
        }
    }

    pub(super) fn read(&mut self) -> Result<(), SkimError> {
        self.scanner.skip_space();
        if self.scanner.peek() != Some(b'{') {
            return Err(self.error(SkimErrorKind::NotAnObject));
        }
        self.scanner.open(1)?;
        let mut first = true;
        while let Some(key) = self.next_member(&mut first)? {
            self.skim.members += 1;
            match Wanted::of(key) {
                Some(wanted) => self.take(wanted)?,
                None => {
                    self.skip(key)?;
                }
            }
        }
        self.skim.end_of_object = self.scanner.at().saturating_sub(1);
        self.scanner.expect_end()?;
        self.wrong.map_or(Ok(()), |kind| Err(self.error(kind)))
    }

    pub(super) fn finish(mut self, text: &[u8]) -> Skim<'a> {
        let non_empty = |string: &JsonStr<'_>| !string.raw.is_empty();
        self.skim.session = self.user_id.filter(non_empty).or(self.cache_key.filter(non_empty));
        self.skim.prefix = match (self.tools, self.system) {
            (Some(tools), Some(system)) => Some(neighbours(text, &tools, &system).unwrap_or(system)),
            (tools, system) => system.or(tools).or(self.first_message),
        };
        self.skim
    }

    fn next_member(&mut self, first: &mut bool) -> Result<Option<RawString<'a>>, SkimError> {
        Ok(self.scanner.next_member(first)?)
    }

    fn take(&mut self, wanted: Wanted) -> Result<(), SkimError> {
        self.once(wanted)?;
        match wanted {
            Wanted::Model => self.take_model()?,
            Wanted::Stream => self.skim.stream = self.boolean(wanted)?,
            Wanted::MaxTokens | Wanted::MaxCompletionTokens | Wanted::MaxOutputTokens => {
                self.take_tokens(wanted)?
            }
            Wanted::Metadata => self.take_metadata()?,
            Wanted::PromptCacheKey => self.cache_key = self.any_string()?,
            Wanted::StreamOptions => self.take_stream_options()?,
            Wanted::Tools => self.tools = self.given()?,
            Wanted::System | Wanted::Instructions => self.system = self.given()?.or(self.system.take()),
            Wanted::Messages | Wanted::Input => self.take_messages()?,
            Wanted::Store => self.take_store()?,
            Wanted::Background if self.scanner.peek() == Some(b't') => self.pin(Pins::BACKGROUND)?,
            Wanted::Container => self.pin(Pins::CONTAINER)?,
            Wanted::Thread => self.pin(Pins::THREAD)?,
            Wanted::PreviousResponseId => self.take_previous_response()?,
            Wanted::Conversation => self.pin(Pins::CONVERSATION)?,
            Wanted::Background | Wanted::UserId | Wanted::IncludeUsage => {
                self.any_value(1)?;
            }
        }
        Ok(())
    }

    fn once(&mut self, wanted: Wanted) -> Result<(), SkimError> {
        let bit = 1 << wanted as u32;
        if self.seen & bit != 0 {
            return Err(self.error(SkimErrorKind::Duplicate(wanted.name())));
        }
        self.seen |= bit;
        Ok(())
    }

    fn take_model(&mut self) -> Result<(), SkimError> {
        let start = self.scanner.at();
        let wrong = SkimError { offset: start, kind: SkimErrorKind::WrongType(Wanted::Model.name()) };
        let model = self.any_string()?.ok_or(wrong)?;
        if model.raw.is_empty() || model.decoded().len() > MODEL_BYTES_MAX {
            return Err(wrong);
        }
        self.skim.model = Some(model);
        self.skim.model_span = start..self.scanner.at();
        Ok(())
    }

    fn take_tokens(&mut self, wanted: Wanted) -> Result<(), SkimError> {
        let span = self.any_value(1)?;
        let value = self.scanner.slice(&span);
        if json::is_null(value) {
            return Ok(());
        }
        let wrong = SkimError { offset: span.start, kind: SkimErrorKind::WrongType(wanted.name()) };
        let tokens = json::as_u64(value).ok_or(wrong)?;
        self.skim.max_tokens = self.skim.max_tokens.max(Some(tokens));
        Ok(())
    }

    fn take_metadata(&mut self) -> Result<(), SkimError> {
        if self.scanner.peek() != Some(b'{') {
            self.any_value(1)?;
            return Ok(());
        }
        self.scanner.open(2)?;
        let mut first = true;
        while let Some(key) = self.next_member(&mut first)? {
            if key_is(key, Wanted::UserId.name()) {
                self.once(Wanted::UserId)?;
                self.user_id = self.any_string_at(2)?;
            } else {
                self.watch_key(key);
                self.any_value(2)?;
            }
        }
        Ok(())
    }

    fn take_stream_options(&mut self) -> Result<(), SkimError> {
        let start = self.scanner.at();
        match self.scanner.peek() {
            Some(b'{') => self.scanner.open(2)?,
            Some(b'n') => {
                self.skim.stream_options = Some(self.any_value(1)?);
                return Ok(());
            }
            _ => return Err(self.error(SkimErrorKind::WrongType(Wanted::StreamOptions.name()))),
        }
        let mut first = true;
        while let Some(key) = self.next_member(&mut first)? {
            if key_is(key, Wanted::IncludeUsage.name()) {
                self.once(Wanted::IncludeUsage)?;
                let value_start = self.scanner.at();
                self.skim.include_usage = self.boolean(Wanted::IncludeUsage)?;
                self.skim.include_usage_span = Some(value_start..self.scanner.at());
            } else {
                self.watch_key(key);
                self.any_value(2)?;
            }
        }
        self.skim.stream_options = Some(start..self.scanner.at());
        Ok(())
    }

    fn take_messages(&mut self) -> Result<(), SkimError> {
        if self.scanner.peek() != Some(b'[') {
            let value = self.given()?;
            self.first_message = self.first_message.take().or(value);
            return Ok(());
        }
        self.scanner.open(2)?;
        let mut first = true;
        while self.scanner.next_element(&mut first)? {
            let element = self.any_value(2)?;
            self.first_message.get_or_insert(element);
        }
        Ok(())
    }

    /// Of another type it says nothing here: what becomes of it is for the provider to say.
    fn take_store(&mut self) -> Result<(), SkimError> {
        let span = self.any_value(1)?;
        self.skim.store = json::as_bool(self.scanner.slice(&span));
        if self.skim.store == Some(true) {
            self.skim.pins.add(Pins::STORE);
        }
        Ok(())
    }

    fn take_previous_response(&mut self) -> Result<(), SkimError> {
        if self.scanner.peek() != Some(b'"') {
            return self.pin(Pins::PREVIOUS_RESPONSE);
        }
        self.skim.previous_response = self.any_string()?;
        self.skim.pins.add(Pins::PREVIOUS_RESPONSE);
        Ok(())
    }

    fn pin(&mut self, pin: Pins) -> Result<(), SkimError> {
        if self.given()?.is_some() {
            self.skim.pins.add(pin);
        }
        Ok(())
    }

    /// A boolean, or `null` for none.
    fn boolean(&mut self, wanted: Wanted) -> Result<Option<bool>, SkimError> {
        let span = self.any_value(1)?;
        let value = self.scanner.slice(&span);
        match json::as_bool(value) {
            None if !json::is_null(value) => {
                Err(SkimError { offset: span.start, kind: SkimErrorKind::WrongType(wanted.name()) })
            }
            read => Ok(read),
        }
    }

    /// A string; `None` for a value of another kind.
    fn any_string(&mut self) -> Result<Option<JsonStr<'a>>, SkimError> {
        self.any_string_at(1)
    }

    fn any_string_at(&mut self, depth: usize) -> Result<Option<JsonStr<'a>>, SkimError> {
        if self.scanner.peek() != Some(b'"') {
            self.any_value(depth)?;
            return Ok(None);
        }
        let string = self.scanner.string()?;
        // The whole text is UTF-8, and quotes are character boundaries.
        let raw = std::str::from_utf8(string.raw).unwrap_or_default();
        Ok(Some(JsonStr { raw, escaped: string.escaped }))
    }

    /// Where a value lies that is not `null`.
    fn given(&mut self) -> Result<Option<Range<usize>>, SkimError> {
        let null = self.scanner.peek() == Some(b'n');
        let span = self.any_value(1)?;
        Ok((!null).then_some(span))
    }

    fn skip(&mut self, key: RawString<'a>) -> Result<Range<usize>, SkimError> {
        self.watch_key(key);
        self.any_value(1)
    }

    fn watch_key(&mut self, key: RawString<'a>) {
        let value = self.scanner.rest();
        FileWatch { skim: &mut self.skim, files_max: self.files_max, wrong: &mut self.wrong }.key(key, value);
    }

    fn any_value(&mut self, depth: usize) -> Result<Range<usize>, SkimError> {
        let mut watch = FileWatch { skim: &mut self.skim, files_max: self.files_max, wrong: &mut self.wrong };
        Ok(self.scanner.value(depth, &mut watch)?)
    }

    fn error(&self, kind: SkimErrorKind) -> SkimError {
        SkimError { offset: self.scanner.at(), kind }
    }
}

/// The range over both values, if nothing but white space, a comma and one key lies between them: else what lies
/// there, messages for one, would change from call to call.
fn neighbours(text: &[u8], one: &Range<usize>, other: &Range<usize>) -> Option<Range<usize>> {
    let (first, second) = if one.start < other.start { (one, other) } else { (other, one) };
    let between = text.get(first.end..second.start)?;
    let quotes = between.iter().filter(|&&byte| byte == b'"').count();
    (quotes == 2).then_some(first.start..second.end)
}
