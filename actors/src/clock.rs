//! Wall time, for what is about the calendar only: it never frees a budget and never ends a rest.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 by the host's clock, which may jump.
#[expect(clippy::disallowed_methods, reason = "the one place of the control plane that reads wall time")]
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_millis() as u64)
}

/// The calendar month in UTC, as months since year 0.
pub(crate) fn month_of(wall_ms: u64) -> u64 {
    // Days to civil date, counted in years that begin in March so that the leap day is the last of its year.
    let days = wall_ms / 86_400_000 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    (era * 400 + year_of_era) * 12 + march_month + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_of_known_days() {
        const DAY_MS: u64 = 86_400_000;
        for (days, year, month) in [
            (0, 1970, 1),
            (30, 1970, 1),
            (31, 1970, 2),
            (58, 1970, 2),
            (59, 1970, 3),
            (11_016, 2000, 2),
            (11_017, 2000, 3),
            (20_781, 2026, 11),
            (20_788, 2026, 12),
            (20_819, 2027, 1),
        ] {
            assert_eq!(month_of(days * DAY_MS), year * 12 + month - 1, "day {days}");
            assert_eq!(month_of(days * DAY_MS + DAY_MS - 1), year * 12 + month - 1, "end of day {days}");
        }
    }
}
