//! Durations as people write them: `500ms`, `3s`, `2m`, `1h`. Pure.

use std::time::Duration;

/// Longest duration of a file.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Reads a whole number with a unit. The error says what is wrong.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{text}` is not a duration")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a duration"))?;
    let duration = number.checked_mul(unit_ms).map(Duration::from_millis);
    match duration {
        Some(Duration::ZERO) => Err("the duration is zero".into()),
        Some(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err(format!("`{text}` is longer than a day")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("3s"), Ok(Duration::from_secs(3)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("24h"), Ok(DURATION_MAX));
        for wrong in [
            "",
            "3",
            "s",
            "-3s",
            "3 s",
            "1.5s",
            "0s",
            "25h",
            "99999999999999999999s",
            "3sec",
            "18446744073709551615h",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
