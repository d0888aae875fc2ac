//! Finds one field of a form (`multipart/form-data`, RFC 7578) that passes by in pieces and is never held whole, and
//! sees that it stands there once: who routes by it and who serves by it must read the same.
//!
//! It follows delimiters and the heads of parts; what the other parts hold is not looked at. What it keeps is bounded.
//! Strict where readers differ: a form that two of them could read differently is refused.

use std::ops::Range;

use memchr::memmem;

/// The longest boundary (RFC 2046 §5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;
/// The longest head of a part.
const PART_HEAD_BYTES_MAX: usize = 8 * 1024;
/// What a delimiter begins with; the boundary follows.
const DELIMITER: &[u8] = b"\r\n--";

/// Why a form cannot be routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormError {
    /// It is no form, or one that readers could take differently.
    Malformed,
    /// The field stands there twice.
    Duplicate,
    /// The field's value is empty, too long, not UTF-8, or has control characters.
    WrongValue,
}

impl std::fmt::Display for FormError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FormError::Malformed => "the form is not well-formed",
            FormError::Duplicate => "a field that may stand once stands in the form twice",
            FormError::WrongValue => "a field of the form has a wrong value",
        })
    }
}

impl std::error::Error for FormError {}

/// Looks for one field.
#[derive(Debug)]
pub struct FormSearch {
    name: &'static str,
    value_bytes_max: usize,
    /// The part whose content is shown as it passes.
    file: Option<&'static str>,
    file_seen: bool,
    delimiter: Vec<u8>,
    at: At,
    /// What was not decided yet. Begins with a line end of its own, as if one stood before the form.
    window: Vec<u8>,
    /// Bytes given up in front of the window, the line end of its own included.
    passed: usize,
    found: Option<(String, Range<usize>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before the first delimiter.
    Start,
    /// In a part that nobody asked for.
    Skipped,
    /// In the part that is wanted.
    Wanted,
    /// In the part whose content is shown.
    File,
    /// Behind a delimiter.
    Delimiter,
    /// Behind the last delimiter.
    Over,
}

/// The boundary that a content type of `multipart/form-data` states.
pub fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    let text = std::str::from_utf8(content_type).ok()?;
    let (kind, rest) = text.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let mut stated = parameters(rest).filter(|it| it.0.eq_ignore_ascii_case("boundary"));
    let boundary = stated.next()?.1;
    let fits = (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()) && stated.next().is_none();
    (fits && boundary.bytes().all(|it| it.is_ascii_graphic() || it == b' ')).then_some(boundary.as_bytes())
}

impl FormSearch {
    /// Looks for the field `name`, whose value has at most `value_bytes_max` bytes.
    pub fn new(boundary: &[u8], name: &'static str, value_bytes_max: usize) -> FormSearch {
        // The delimiter has a line end in front; before the first one there is none.
        let window = b"\r\n".to_vec();
        let delimiter = [DELIMITER, boundary].concat();
        FormSearch {
            name,
            value_bytes_max,
            file: None,
            file_seen: false,
            delimiter,
            at: At::Start,
            window,
            passed: 0,
            found: None,
        }
    }

    /// Shows the content of the part `file`, too, which then may stand there once only.
    #[must_use]
    pub fn showing(self, file: &'static str) -> FormSearch {
        FormSearch { file: Some(file), ..self }
    }

    /// Takes the next piece of the form.
    ///
    /// # Errors
    /// The first thing that is wrong; the form must not be passed on.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), FormError> {
        self.feed_showing(piece, &mut |_| {})
    }

    /// The same; `show` gets what passes of the part that is to be shown.
    ///
    /// # Errors
    /// As [`FormSearch::feed`].
    pub fn feed_showing(&mut self, piece: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<(), FormError> {
        if self.at == At::Over {
            return Ok(());
        }
        self.window.extend_from_slice(piece);
        while self.step(show)? {}
        Ok(())
    }

    /// The field's value and where it stands in the form, once it has passed by.
    pub fn found(&self) -> Option<(&str, Range<usize>)> {
        self.found.as_ref().map(|(value, span)| (value.as_str(), span.clone()))
    }

    /// Whether the form came to its proper end.
    pub fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// False where more is needed.
    fn step(&mut self, show: &mut dyn FnMut(&[u8])) -> Result<bool, FormError> {
        match self.at {
            At::Over => Ok(false),
            At::Start => self.step_start(),
            At::Delimiter => self.step_head(),
            At::Skipped | At::Wanted | At::File => self.step_value(show),
        }
    }

    /// The form begins with a delimiter: what stands before one is read in more than one way.
    fn step_start(&mut self) -> Result<bool, FormError> {
        let there = self.window.len().min(self.delimiter.len());
        if self.window[..there] != self.delimiter[..there] {
            return Err(FormError::Malformed);
        }
        if there < self.delimiter.len() {
            return Ok(false);
        }
        self.give_up(there);
        self.at = At::Delimiter;
        Ok(true)
    }

    /// To the next delimiter.
    fn step_value(&mut self, show: &mut dyn FnMut(&[u8])) -> Result<bool, FormError> {
        let found = memmem::find(&self.window, &self.delimiter);
        // What may be the beginning of a delimiter stays.
        let safe = found.unwrap_or((self.window.len() + 1).saturating_sub(self.delimiter.len()));
        if self.at == At::Wanted {
            if safe > self.value_bytes_max {
                return Err(FormError::WrongValue);
            }
            let Some(end) = found else { return Ok(false) };
            self.take_value(end)?;
        }
        if self.at == At::File {
            show(&self.window[..safe]);
        }
        self.give_up(safe);
        if found.is_some() {
            self.give_up(self.delimiter.len());
            self.at = At::Delimiter;
        }
        Ok(found.is_some())
    }

    fn take_value(&mut self, end: usize) -> Result<(), FormError> {
        let value = std::str::from_utf8(&self.window[..end]).map_err(|_| FormError::WrongValue)?;
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(FormError::WrongValue);
        }
        // The window's own line end is no part of the form.
        let start = self.passed - 2;
        self.found = Some((value.to_owned(), start..start + end));
        Ok(())
    }

    /// Over the end of a delimiter's line and the head of the part behind it.
    fn step_head(&mut self) -> Result<bool, FormError> {
        match self.window.get(..2) {
            None => return Ok(false),
            Some(b"--") => {
                self.at = At::Over;
                self.window = Vec::new();
                return Ok(false);
            }
            Some(b"\r\n") => {}
            Some(_) => return Err(FormError::Malformed),
        }
        let Some(end) = memmem::find(&self.window, b"\r\n\r\n") else {
            let too_long = self.window.len() > PART_HEAD_BYTES_MAX;
            return if too_long { Err(FormError::Malformed) } else { Ok(false) };
        };
        let head = &self.window[2.min(end)..end];
        let wanted = is_named(head, self.name)?;
        let shown = self.file.map_or(Ok(false), |file| is_named(head, file))?;
        if (wanted && self.found.is_some()) || (shown && std::mem::replace(&mut self.file_seen, true)) {
            return Err(FormError::Duplicate);
        }
        self.at = match (wanted, shown) {
            (true, _) => At::Wanted,
            (_, true) => At::File,
            _ => At::Skipped,
        };
        self.give_up(end + 4);
        Ok(true)
    }

    fn give_up(&mut self, bytes: usize) {
        self.window.drain(..bytes);
        self.passed += bytes;
    }
}

/// Whether a part's head names it `name`.
fn is_named(head: &[u8], name: &str) -> Result<bool, FormError> {
    let head = std::str::from_utf8(head).map_err(|_| FormError::Malformed)?;
    let mut stated: Option<&str> = None;
    let mut coded = false;
    for line in head.split("\r\n").filter(|it| !it.is_empty()) {
        // Neither a folded line nor a lone line end: readers differ about both.
        if line.starts_with([' ', '\t']) || line.contains(['\r', '\n']) {
            return Err(FormError::Malformed);
        }
        let (field, value) = line.split_once(':').ok_or(FormError::Malformed)?;
        coded |= field.trim().eq_ignore_ascii_case("content-transfer-encoding");
        if !field.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        let (_, rest) = value.split_once(';').ok_or(FormError::Malformed)?;
        for (parameter, value) in parameters(rest) {
            let again = parameter.eq_ignore_ascii_case("name") && stated.replace(value).is_some();
            if again || parameter.eq_ignore_ascii_case("name*") {
                return Err(FormError::Malformed);
            }
        }
    }
    // Escapes in a name are read in more than one way.
    let stated = stated.filter(|it| !it.contains('\\')).ok_or(FormError::Malformed)?;
    let named = stated == name;
    if named && coded { Err(FormError::Malformed) } else { Ok(named) }
}

/// `name=value` or `name="value"`, separated by semicolons outside of quotes. Quotes are taken off, escapes stay.
fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (mut quoted, mut escaped) = (false, false);
            let end = rest.bytes().position(|byte| {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    b';' if !quoted => return true,
                    _ => {}
                }
                false
            });
            let (one, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after.strip_prefix(';').unwrap_or(after);
            if let Some((name, value)) = one.split_once('=') {
                let value = value.trim();
                let bare = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
                return Some((name.trim(), bare.unwrap_or(value)));
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORM: &str = "--b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\
        Content-Type: a/b\r\n\r\n\
        x\r\n--b\r\n\r\nname=\"model\"\r\n--b1\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
        --b1\r\nContent-Disposition: form-data; name=language\r\n\r\n\r\n--b1--\r\n";

    fn search(form: &str, step: usize) -> Result<(Option<(String, String)>, bool), FormError> {
        let mut search = FormSearch::new(b"b1", "model", 64);
        for piece in form.as_bytes().chunks(step) {
            search.feed(piece)?;
            assert!(search.window.len() <= PART_HEAD_BYTES_MAX + 2 + step, "bounded");
        }
        let found = search.found().map(|(value, span)| (value.to_owned(), form[span].to_owned()));
        Ok((found, search.is_over()))
    }

    fn part(disposition: &str, more: &str, value: &str) -> String {
        format!("--b1\r\nContent-Disposition: {disposition}\r\n{more}\r\n{value}\r\n")
    }

    #[test]
    fn the_field_is_found_whatever_the_pieces() {
        for step in 1..FORM.len() {
            let value = Some(("whisper-1".to_owned(), "whisper-1".to_owned()));
            assert_eq!(search(FORM, step), Ok((value, true)), "pieces of {step}");
        }
    }

    #[test]
    fn what_readers_could_take_differently_is_refused() {
        let model = part("form-data; name=\"model\"", "", "m");
        let wrong = |form: String| search(&form, 7).expect_err(&form);
        assert_eq!(wrong(format!("{model}{model}--b1--")), FormError::Duplicate);
        for (disposition, more) in [
            ("form-data; name=\"mo\\del\"", ""),
            ("form-data; name=model; name=other", ""),
            ("form-data; name*=utf-8''model", ""),
            ("form-data; filename=model", ""),
            ("form-data", ""),
            ("form-data; name=model", "Content-Transfer-Encoding: base64\r\n"),
            ("form-data;\r\n name=model", ""),
            ("form-data; name=model", "X: a\nb: c\r\n"),
        ] {
            assert_eq!(wrong(format!("{}--b1--", part(disposition, more, "m"))), FormError::Malformed);
        }
        for value in ["", "a\r\nb", "a\tb", &"m".repeat(65)] {
            assert_eq!(
                wrong(format!("{}--b1--", part("form-data; name=model", "", value))),
                FormError::WrongValue
            );
        }
        assert_eq!(wrong("--b1 \r\n".to_owned()), FormError::Malformed);
        assert_eq!(wrong("--b1\n\n".to_owned()), FormError::Malformed);
        assert_eq!(wrong(format!("--b1\r\nX: {}", "x".repeat(9_000))), FormError::Malformed);
    }

    #[test]
    fn a_part_is_shown_as_it_passes() {
        for step in 1..FORM.len() {
            let mut search = FormSearch::new(b"b1", "language", 64).showing("file");
            let mut shown = Vec::new();
            let fed = FORM
                .as_bytes()
                .chunks(step)
                .try_for_each(|piece| search.feed_showing(piece, &mut |it| shown.extend_from_slice(it)));
            assert_eq!(fed, Err(FormError::WrongValue), "an empty value");
            assert_eq!(String::from_utf8_lossy(&shown), "x\r\n--b\r\n\r\nname=\"model\"", "pieces of {step}");
        }
        let twice = format!("{0}{0}--b1--", part("form-data; name=file", "", "x"));
        let mut search = FormSearch::new(b"b1", "model", 64).showing("file");
        assert_eq!(search.feed(twice.as_bytes()), Err(FormError::Duplicate));
    }

    #[test]
    fn a_form_without_the_field_or_its_end_is_seen() {
        assert_eq!(search(&format!("{}--b1--", part("form-data; name=a", "", "m")), 5), Ok((None, true)));
        assert_eq!(search("--b", 5), Ok((None, false)));
        assert_eq!(search(&part("form-data; name=model", "", "m"), 5), Ok((None, false)), "no delimiter yet");
    }

    /// What stands before the first delimiter would be a part for one reader and nothing for another.
    #[test]
    fn a_form_begins_with_its_delimiter() {
        let form = format!("{}--b1--", part("form-data; name=model", "", "cheap"));
        for before in ["no form at all", "x\n--b1\n\n", "\r\n", " ", "--b2\r\n"] {
            for step in [1, 3, 100] {
                assert_eq!(search(&format!("{before}{form}"), step), Err(FormError::Malformed), "{before:?}");
            }
        }
    }

    #[test]
    fn boundaries_are_read() {
        assert_eq!(boundary(b"multipart/form-data; boundary=abc"), Some(&b"abc"[..]));
        assert_eq!(boundary(b"Multipart/Form-Data; charset=utf-8; Boundary=\"a b\""), Some(&b"a b"[..]));
        let long = format!("multipart/form-data; boundary={}", "a".repeat(71));
        for bad in [
            &b"application/json"[..],
            b"multipart/form-data",
            b"multipart/mixed; boundary=a",
            long.as_bytes(),
        ] {
            assert_eq!(boundary(bad), None);
        }
        assert_eq!(boundary(b"multipart/form-data; boundary=a; boundary=b"), None);
        assert_eq!(boundary(b"multipart/form-data; boundary="), None);
    }

    proptest! {
        #[test]
        fn no_input_breaks_it(form in proptest::collection::vec(any::<u8>(), 0..400), step in 1..50_usize) {
            let mut search = FormSearch::new(b"b1", "model", 64);
            for piece in form.chunks(step) {
                if search.feed(piece).is_err() {
                    break;
                }
            }
            prop_assert!(search.found().is_none_or(|(value, span)| form[span] == *value.as_bytes()));
        }

        /// Whatever another part holds, as long as it holds no delimiter.
        #[test]
        fn files_are_passed_over(file in proptest::collection::vec(any::<u8>(), 0..300), step in 1..80_usize) {
            prop_assume!(memmem::find(&file, b"--b1").is_none());
            let mut form = b"--b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n".to_vec();
            form.extend_from_slice(&file);
            form.extend_from_slice(
                b"\r\n--b1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm-1\r\n--b1--\r\n",
            );
            let mut search = FormSearch::new(b"b1", "model", 64);
            for piece in form.chunks(step) {
                prop_assert_eq!(search.feed(piece), Ok(()));
            }
            prop_assert_eq!(search.found().map(|it| it.0), Some("m-1"));
        }
    }
}
