//! From a reply to a verdict: the table of ARCHITECTURE.md over what the API references
//! say of codes and wordings. The codes are data of each dialect ([`Rules`]); what rests or counts is decided in
//! `core::attempt`, never here.
//!
//! A body may hold the caller's own words (providers quote what they reject). So wherever a caller could choose the
//! status, only codes and the *opening* of the text count: nobody may take an account out of play by quoting.

use std::borrow::Cow;
use std::time::Duration;

use tidegate_core::verdict::{TargetFailure, Verdict};

use crate::fields::Fields;
use crate::reading;
use crate::waits;

/// How much of an error's text is looked at.
const TEXT_BYTES_READ: usize = 2 * 1024;

/// What a dialect's codes and wordings mean. Codes are compared with `code` and `type` of an error; wordings are in
/// lower case and compared without regard to case.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Money is used up: no waiting helps.
    pub(crate) spent_codes: &'static [&'static str],
    /// The same where a text of any 4xx opens with the first part and holds the second.
    pub(crate) spent_openings: &'static [(&'static str, &'static str)],
    /// The same where the text of a 429 that names no time holds it.
    pub(crate) spent_wordings: &'static [&'static str],
    /// The traffic grew too fast.
    pub(crate) ramp_codes: &'static [&'static str],
    /// The same, in the text of a 429.
    pub(crate) ramp_wordings: &'static [&'static str],
    /// Statuses 401 and 403 that are about what the caller sent, not about the key.
    pub(crate) caller_codes: &'static [&'static str],
    /// The model does not exist, or not for this key.
    pub(crate) no_model_codes: &'static [&'static str],
    /// The status that a code or type inside a stream stands for.
    pub(crate) statuses: &'static [(&'static str, u16)],
}

/// The provider has no capacity, whoever asks. Shared: compatible servers use each other's.
const OVERLOAD_CODES: &[&str] = &[
    "engine_overloaded",
    "engine_overloaded_error",
    "overloaded_error",
    "server_is_overloaded",
    "slow_down",
];

/// What an error says, as far as it could be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorText<'a> {
    kind: Cow<'a, str>,
    code: Cow<'a, str>,
    message: Cow<'a, str>,
}

/// The verdict on a reply.
pub(crate) fn judge(rules: &Rules, status: u16, fields: &dyn Fields, body: &[u8], wall_ms: u64) -> Verdict {
    match status {
        200..=299 if opens_with_error(body) => judge_in_band(rules, body),
        200..=299 => Verdict::Success,
        300..=399 => Verdict::Redirected,
        400..=599 => {
            let error = ErrorText::read(body);
            let wait = waits::retry_after(fields, wall_ms).or_else(|| waits::wait_in_text(error.opening()));
            verdict(rules, status, &error, wait)
        }
        _ => Verdict::TargetFailed(TargetFailure::Status(status)),
    }
}

/// The verdict on an error that came under a good status: in a stream, or as the body of a 200.
pub(crate) fn judge_in_band(rules: &Rules, data: &[u8]) -> Verdict {
    let error = ErrorText::read(data);
    let listed = |word: &str| rules.statuses.iter().find(|it| it.0 == word).map(|it| it.1);
    let numeric = || error.code.parse().ok().filter(|it| (400..=599).contains(it));
    let status = listed(&error.code).or_else(|| listed(&error.kind)).or_else(numeric).unwrap_or(500);
    verdict(rules, status, &error, waits::wait_in_text(error.opening()))
}

fn verdict(rules: &Rules, status: u16, error: &ErrorText<'_>, retry_after: Option<Duration>) -> Verdict {
    if rules.is_spent(status, error, retry_after) {
        return Verdict::AccountSpent;
    }
    if is_overload(status, error) {
        return Verdict::RouteOverloaded { retry_after };
    }
    match status {
        401 | 403 if error.is_any(rules.caller_codes) => Verdict::CallerFault,
        401 => Verdict::KeyRefused,
        403 => Verdict::KeyModelRefused { not_found: false },
        404 if rules.is_about_model(error) => Verdict::KeyModelRefused { not_found: true },
        // The request was whole before it was sent, so a request that came too slowly is not the caller's doing.
        408 => Verdict::TargetFailed(TargetFailure::Status(status)),
        429 if rules.is_ramp(error) => Verdict::QuotaRamp { retry_after },
        429 => Verdict::QuotaLimited { retry_after },
        400..=499 => Verdict::CallerFault,
        _ => Verdict::TargetFailed(TargetFailure::Status(status)),
    }
}

fn is_overload(status: u16, error: &ErrorText<'_>) -> bool {
    match status {
        529 => true,
        503 => error.is_any(OVERLOAD_CODES) || waits::contains(error.opening(), "overloaded"),
        429 | 500..=599 => error.is_any(OVERLOAD_CODES),
        _ => false,
    }
}

impl Rules {
    fn is_spent(&self, status: u16, error: &ErrorText<'_>, retry_after: Option<Duration>) -> bool {
        let text = error.opening();
        let opens = |it: &(&str, &str)| starts_with(text, it.0) && waits::contains(text, it.1);
        status == 402
            || error.is_any(self.spent_codes)
            || ((400..=499).contains(&status) && self.spent_openings.iter().any(opens))
            || (status == 429
                && retry_after.is_none()
                && self.spent_wordings.iter().any(|it| waits::contains(text, it)))
    }

    fn is_ramp(&self, error: &ErrorText<'_>) -> bool {
        error.is_any(self.ramp_codes)
            || self.ramp_wordings.iter().any(|it| waits::contains(error.opening(), it))
    }

    /// A 404 about the model and not about a file or container that the caller named. Where there is only a text,
    /// its opening decides: what follows may be the caller's own words.
    fn is_about_model(&self, error: &ErrorText<'_>) -> bool {
        let text = error.opening().trim_start_matches(|it: char| !it.is_alphanumeric());
        error.is_any(self.no_model_codes)
            || ["model", "the model", "no such model", "unknown model"].iter().any(|it| starts_with(text, it))
    }
}

impl<'a> ErrorText<'a> {
    /// Reads the shapes of their documentation that are objects; empty where there is none to be read.
    pub(crate) fn read(body: &'a [u8]) -> ErrorText<'a> {
        let inner = reading::member(body, "error").unwrap_or(body);
        if let Some(message) = reading::text(inner) {
            return ErrorText { message, code: word(body, "code"), kind: Cow::default() };
        }
        let details = reading::member(inner, "details").map(|it| word(it, "error_code")).unwrap_or_default();
        ErrorText {
            kind: word(inner, "type"),
            code: if details.is_empty() { word(inner, "code") } else { details },
            message: word(inner, "message"),
        }
    }

    fn is_any(&self, codes: &[&str]) -> bool {
        codes.iter().any(|it| *it == self.code || *it == self.kind)
    }

    /// The front of the text.
    fn opening(&self) -> &str {
        let text = self.message.trim_start();
        text.get(..text.floor_char_boundary(TEXT_BYTES_READ)).unwrap_or("")
    }
}

/// A member as text, numbers as they are written; empty where it is missing or something else.
fn word<'a>(object: &'a [u8], name: &str) -> Cow<'a, str> {
    let Some(value) = reading::member(object, name) else { return Cow::default() };
    match reading::text(value) {
        Some(text) => text,
        None if value.first().is_some_and(u8::is_ascii_digit) => String::from_utf8_lossy(value),
        None => Cow::default(),
    }
}

fn starts_with(text: &str, opening: &str) -> bool {
    text.as_bytes().get(..opening.len()).is_some_and(|it| it.eq_ignore_ascii_case(opening.as_bytes()))
}

/// Whether a body that came under a good status is an error: its first member is one, or it is of type `error`.
/// Looks at the first bytes only, so that good replies cost nothing.
fn opens_with_error(body: &[u8]) -> bool {
    let Some(rest) = token(body, b"{") else { return false };
    if let Some(value) = token(rest, b"\"error\"").and_then(|it| token(it, b":")) {
        return !value.trim_ascii_start().starts_with(b"null");
    }
    token(rest, b"\"type\"").and_then(|it| token(it, b":")).and_then(|it| token(it, b"\"error\"")).is_some()
}

fn token<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    text.trim_ascii_start().strip_prefix(token)
}

#[cfg(test)]
mod tests;
