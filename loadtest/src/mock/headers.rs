//! Reply headers about identity and quota, in both protocols. Decides how a true level is shown: token levels
//! rounded to
//! thousands, resets as times or as durations.

use std::fmt::Write;

use tidegate_ring::wall_ms;
use tidegate_wire::head::{InvalidField, ResponseWriter};

use super::config::OrganizationConfig;
use super::quota::{Level, Levels};
use super::refusal::Dialect;

/// Who answers what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) dialect: Dialect,
    pub(crate) request_id: &'a str,
    pub(crate) organization: Option<&'a OrganizationConfig>,
}

/// Writes who answers.
pub(crate) fn write_identity(
    writer: &mut ResponseWriter<'_>,
    identity: &Identity<'_>,
) -> Result<(), InvalidField> {
    let organization = identity.organization.map(|organization| organization.id.as_bytes());
    match identity.dialect {
        Dialect::Messages => {
            writer.field("request-id", identity.request_id.as_bytes())?;
            organization.map_or(Ok(()), |id| writer.field("anthropic-organization-id", id))
        }
        Dialect::Chat => {
            writer.field("x-request-id", identity.request_id.as_bytes())?;
            writer.field("openai-version", b"2020-10-01")?;
            writer.field("openai-processing-ms", b"1")?;
            organization.map_or(Ok(()), |id| writer.field("openai-organization", id))
        }
    }
}

/// Writes the levels, if this organization is told of them.
pub(crate) fn write_levels(
    writer: &mut ResponseWriter<'_>,
    identity: &Identity<'_>,
    levels: &Levels,
) -> Result<(), InvalidField> {
    if !identity.organization.is_some_and(|organization| organization.limit_headers) {
        return Ok(());
    }
    match identity.dialect {
        Dialect::Messages => {
            let tightest = tightest(levels);
            write_three(writer, "requests", levels.requests, 1.0)?;
            write_three(writer, "input-tokens", levels.input_tokens, 1000.0)?;
            write_three(writer, "output-tokens", levels.output_tokens, 1000.0)?;
            write_three(writer, "tokens", tightest, 1000.0)
        }
        Dialect::Chat => {
            write_chat(writer, "requests", levels.requests)?;
            write_chat(writer, "tokens", levels.tokens.or(levels.input_tokens))
        }
    }
}

/// Limit, remaining and reset in the Messages protocol.
fn write_three(
    writer: &mut ResponseWriter<'_>,
    what: &str,
    level: Option<Level>,
    unit: f64,
) -> Result<(), InvalidField> {
    let Some(level) = level else { return Ok(()) };
    let left = level.level.max(0.0);
    // Requests are whole; tokens are shown to the nearest thousand.
    let remaining = if unit > 1.0 { (left / unit).round() * unit } else { left.floor() };
    let mut name = String::with_capacity(48);
    let mut value = String::with_capacity(24);
    for (part, text) in [("limit", level.per_minute), ("remaining", remaining)] {
        name.clear();
        value.clear();
        let _ = write!(name, "anthropic-ratelimit-{what}-{part}");
        let _ = write!(value, "{text:.0}");
        writer.field(&name, value.as_bytes())?;
    }
    name.clear();
    let _ = write!(name, "anthropic-ratelimit-{what}-reset");
    writer.field(&name, rfc3339(wall_ms() as f64 / 1000.0 + level.full_in_s).as_bytes())
}

fn write_chat(writer: &mut ResponseWriter<'_>, what: &str, level: Option<Level>) -> Result<(), InvalidField> {
    let Some(level) = level else { return Ok(()) };
    let remaining = level.level.max(0.0).floor();
    writer.field(&format!("x-ratelimit-limit-{what}"), format!("{:.0}", level.per_minute).as_bytes())?;
    writer.field(&format!("x-ratelimit-remaining-{what}"), format!("{remaining:.0}").as_bytes())?;
    writer.field(&format!("x-ratelimit-reset-{what}"), go_duration(level.full_in_s).as_bytes())
}

/// The token level with the smallest part left.
fn tightest(levels: &Levels) -> Option<Level> {
    let all = [levels.tokens, levels.input_tokens, levels.output_tokens];
    let part = |level: &Level| level.level / level.capacity;
    all.into_iter().flatten().min_by(|a, b| part(a).total_cmp(&part(b)))
}

/// A Unix time, rounded up to a second.
pub(crate) fn rfc3339(unix_s: f64) -> String {
    let seconds = unix_s.ceil().clamp(0.0, 253_402_300_799.0) as i64;
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| String::from("1970-01-01T00:00:00Z"), |at| at.to_string())
}

/// A duration as Go writes it: `12ms`, `1.5s`, `6m0s`, `1h2m3s`.
fn go_duration(seconds: f64) -> String {
    let ms = (seconds.clamp(0.0, 1e9) * 1000.0).ceil() as u64;
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let rest = (ms % 60_000) as f64 / 1000.0;
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_providers_write_them() {
        assert_eq!(rfc3339(1_795_506_027.2), "2026-11-24T07:40:28Z");
        let written: Vec<_> = [0.0, 0.0121, 1.0, 1.5, 360.0, 3723.5].map(go_duration).into();
        assert_eq!(written, ["0ms", "13ms", "1s", "1.5s", "6m0s", "1h2m3.5s"]);
    }
}
