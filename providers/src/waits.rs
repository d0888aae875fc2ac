//! Times as providers write them: how long a reply asks to wait, durations such as `6m0s`, dates; and the writing
//! of the same for callers. Wall time is an argument. Nothing here decides what a wait leads to.

use std::fmt::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::{rfc2822, strtime};

use crate::fields::Fields;

/// The wait that a reply's fields ask for: `retry-after-ms`, else `retry-after` as seconds (also fractions) or as
/// an HTTP date, which is held against the reply's own `date` where it has one, else against `wall_ms`.
///
/// A zero, negative or past time is `None`: it promises nothing, and a rest of no length would end in a tight loop.
pub(crate) fn retry_after(fields: &dyn Fields, wall_ms: u64) -> Option<Duration> {
    let in_ms = fields.get("retry-after-ms").and_then(number).and_then(|it| positive(it / 1000.0));
    in_ms.or_else(|| {
        let value = fields.get("retry-after")?;
        match number(value) {
            Some(seconds) => positive(seconds),
            None => until_date(value, fields.get("date"), wall_ms),
        }
    })
}

/// The wait that an error's text names: "Please try again in 1.2s.", "retry after 20 seconds".
pub(crate) fn wait_in_text(text: &str) -> Option<Duration> {
    ["try again in ", "retry in ", "retry after "]
        .iter()
        .find_map(|opening| duration_at_start(after(text, opening)?))
        .filter(|it| !it.is_zero())
}

/// A duration as Go writes it (`12ms`, `6m0s`, `1h2m3.5s`) or a bare number of seconds, and nothing after it.
pub(crate) fn duration(value: &[u8]) -> Option<Duration> {
    if let Some(seconds) = number(value) {
        return if seconds >= 0.0 { Some(bounded(seconds)) } else { None };
    }
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    let (total, rest) = leading_duration(text);
    if rest.is_empty() { total } else { None }
}

/// Where `needle`, given in lower case, first stands in `text`, without regard to case of ASCII letters.
pub(crate) fn contains(text: &str, needle: &str) -> bool {
    after(text, needle).is_some()
}

/// What follows the first `needle` in `text`.
fn after<'a>(text: &'a str, needle: &str) -> Option<&'a str> {
    if needle.is_empty() {
        return Some(text);
    }
    let found =
        text.as_bytes().windows(needle.len()).position(|it| it.eq_ignore_ascii_case(needle.as_bytes()))?;
    // The needle is ASCII, so its end is a character boundary.
    text.get(found + needle.len()..)
}

fn duration_at_start(text: &str) -> Option<Duration> {
    leading_duration(text.trim_start()).0
}

/// Sums number-and-unit pairs from the front and returns what is left. A number without a unit ends the sum.
fn leading_duration(text: &str) -> (Option<Duration>, &str) {
    let mut total: Option<f64> = None;
    let mut rest = text;
    while let Some((seconds, left)) = leading_part(rest) {
        total = Some(total.unwrap_or(0.0) + seconds);
        rest = left;
    }
    (total.map(bounded), rest)
}

fn leading_part(text: &str) -> Option<(f64, &str)> {
    let digits_end = text.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(text.len());
    let (digits, rest) = text.split_at(digits_end);
    let amount: f64 = digits.parse().ok()?;
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let unit_end = rest.find(|it: char| !it.is_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    Some((amount * unit_seconds(unit)?, rest))
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    })
}

/// A decimal number and nothing else. Words that float parsing takes (`inf`, `nan`) are no numbers here.
fn number(value: &[u8]) -> Option<f64> {
    let value = value.trim_ascii();
    let plain = value.iter().all(|it| it.is_ascii_digit() || matches!(it, b'.' | b'-' | b'+' | b'e' | b'E'));
    let parsed: f64 = if plain { std::str::from_utf8(value).ok()?.parse().ok()? } else { return None };
    parsed.is_finite().then_some(parsed)
}

fn positive(seconds: f64) -> Option<Duration> {
    let wait = (seconds > 0.0).then(|| bounded(seconds))?;
    (!wait.is_zero()).then_some(wait)
}

/// Seconds as a duration, held within what later sums can carry without overflow (136 years).
fn bounded(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, f64::from(u32::MAX)))
}

fn until_date(value: &[u8], sent_at: Option<&[u8]>, wall_ms: u64) -> Option<Duration> {
    let until = http_date(value)?;
    let now = match sent_at.and_then(http_date) {
        Some(sent_at) => sent_at,
        None => Timestamp::from_millisecond(i64::try_from(wall_ms).ok()?).ok()?,
    };
    positive(until.duration_since(now).as_secs_f64())
}

/// One of the three forms of RFC 9110 §5.6.7.
fn http_date(value: &[u8]) -> Option<Timestamp> {
    const RFC_850: &str = "%A, %d-%b-%y %H:%M:%S GMT";
    const ASCTIME: &str = "%a %b %e %H:%M:%S %Y";
    static PARSER: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new();
    let text = std::str::from_utf8(value.trim_ascii()).ok()?;
    if let Ok(found) = PARSER.parse_timestamp(text) {
        return Some(found);
    }
    [RFC_850, ASCTIME].iter().find_map(|form| {
        let civil = strtime::parse(form, text).ok()?.to_datetime().ok()?;
        jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()
    })
}

/// Text of bounded length on the stack, so that fields can be written without an allocation.
pub(crate) struct ShortText {
    bytes: [u8; 40],
    len: usize,
}

impl ShortText {
    /// What `value` prints as; cut where it is longer than the room, which none of the values written here is.
    pub(crate) fn of(value: impl fmt::Display) -> ShortText {
        let mut text = ShortText { bytes: [0; 40], len: 0 };
        // The only error is lack of room, and then what fitted stays.
        let _ = write!(text, "{value}");
        text
    }

    /// `wall_ms` plus `wait` as an RFC 3339 time in whole seconds, rounded up so that it never promises too early.
    pub(crate) fn rfc3339(wall_ms: u64, wait: Duration) -> ShortText {
        let at_ms = u128::from(wall_ms).saturating_add(wait.as_millis());
        let at_s = i64::try_from(at_ms.div_ceil(1000)).unwrap_or(i64::MAX);
        ShortText::of(Timestamp::from_second(at_s).unwrap_or(Timestamp::MAX))
    }

    /// A duration as Go writes it, to the millisecond.
    pub(crate) fn go_duration(wait: Duration) -> ShortText {
        ShortText::of(GoDuration(wait))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|it| std::str::from_utf8(it).ok()).unwrap_or("")
    }
}

impl Write for ShortText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

struct GoDuration(Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if ms == 0 {
            return f.write_str("0s");
        }
        if ms < 1000 {
            return write!(f, "{ms}ms");
        }
        let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        let (seconds, fraction) = (ms / 1000 % 60, ms % 1000);
        if fraction == 0 { write!(f, "{seconds}s") } else { write!(f, "{seconds}.{fraction:03}s") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::FieldList;

    /// 1994-11-06T08:49:37Z, the date of RFC 9110's examples.
    const EXAMPLE_MS: u64 = 784_111_777_000;

    fn wait(fields: &[(&str, &[u8])]) -> Option<u128> {
        retry_after(&FieldList(fields), EXAMPLE_MS - 5_000).map(|it| it.as_millis())
    }

    #[test]
    fn every_form_of_a_wait_is_read() {
        for (value, ms) in [
            (&b"7"[..], Some(7_000)),
            (b" 7 ", Some(7_000)),
            (b"0.25", Some(250)),
            (b"1e1", Some(10_000)),
            (b"Sun, 06 Nov 1994 08:49:37 GMT", Some(5_000)),
            (b"Sunday, 06-Nov-94 08:49:37 GMT", Some(5_000)),
            (b"Sun Nov  6 08:49:37 1994", Some(5_000)),
            (b"Sun, 06 Nov 1994 08:49:00 GMT", None),
            (b"0", None),
            (b"-4", None),
            (b"", None),
            (b"soon", None),
            (b"inf", None),
            (b"1e999", None),
            (b"NaN", None),
            (b"\xff\xfe", None),
            (b"99999999999999999999999999", Some(u128::from(u32::MAX) * 1000)),
        ] {
            assert_eq!(wait(&[("retry-after", value)]), ms, "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn milliseconds_win_and_a_bad_one_falls_back() {
        assert_eq!(wait(&[("retry-after", b"9"), ("Retry-After-Ms", b"150")]), Some(150));
        assert_eq!(wait(&[("retry-after", b"9"), ("retry-after-ms", b"x")]), Some(9_000));
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn a_date_is_held_against_the_date_of_the_reply() {
        let until = b"Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(wait(&[("retry-after", until), ("date", b"Sun, 06 Nov 1994 08:49:07 GMT")]), Some(30_000));
        assert_eq!(wait(&[("retry-after", until), ("date", b"broken")]), Some(5_000));
    }

    #[test]
    fn text_hints_are_read() {
        for (text, ms) in [
            ("Rate limit reached. Please try again in 1.2s. Visit our page.", Some(1_200)),
            ("Please try again in 200ms.", Some(200)),
            ("please TRY AGAIN IN 6m0s", Some(360_000)),
            ("Try again in 1h2m3.5s.", Some(3_723_500)),
            ("Please retry after 20 seconds.", Some(20_000)),
            ("Please retry in 3s", Some(3_000)),
            ("try again in 5 more years", None),
            ("try again in ", None),
            ("try again in 0s", None),
            ("try again in 12", None),
            ("try again in 1.2.3s", None),
            ("nothing of the kind", None),
        ] {
            assert_eq!(wait_in_text(text).map(|it| it.as_millis()), ms, "{text}");
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        for (text, ms) in [
            (&b"12ms"[..], Some(12)),
            (b"1s", Some(1_000)),
            (b"6m0s", Some(360_000)),
            (b"1h2m3.5s", Some(3_723_500)),
            (b"17", Some(17_000)),
            (b"0", Some(0)),
            (b"7.66s", Some(7_660)),
            (b"1d", Some(86_400_000)),
            (b"", None),
            (b"-5s", None),
            (b"-5", None),
            (b"1s later", None),
            (b"1x", None),
        ] {
            assert_eq!(duration(text).map(|it| it.as_millis()), ms, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn written_durations_read_back() {
        for (ms, text) in [
            (0, "0s"),
            (12, "12ms"),
            (1_000, "1s"),
            (1_250, "1.250s"),
            (360_000, "6m0s"),
            (3_723_500, "1h2m3.500s"),
        ] {
            let written = ShortText::go_duration(Duration::from_millis(ms));
            assert_eq!(written.as_str(), text);
            assert_eq!(duration(text.as_bytes()), Some(Duration::from_millis(ms)));
        }
    }

    #[test]
    fn times_are_written_as_rfc3339_and_never_too_early() {
        assert_eq!(ShortText::rfc3339(EXAMPLE_MS, Duration::ZERO).as_str(), "1994-11-06T08:49:37Z");
        assert_eq!(ShortText::rfc3339(EXAMPLE_MS, Duration::from_millis(1)).as_str(), "1994-11-06T08:49:38Z");
        assert!(!ShortText::rfc3339(u64::MAX, Duration::MAX).as_str().is_empty());
    }
}
