//! Deadlines: those of a provider over those of the file over the defaults.

use std::time::Duration;

use tidegate_core::limits;
use tidegate_core::snapshot::Timeouts;

use super::Check;
use crate::config::duration;
use crate::config::field::Field;
use crate::config::raw::RawTimeouts;

/// What holds where nothing is configured (ARCHITECTURE.md).
pub(super) const DEFAULTS: Timeouts = Timeouts {
    connect: limits::CONNECT_TIMEOUT,
    first_byte: limits::FIRST_BYTE_TIMEOUT,
    first_byte_whole: limits::FIRST_BYTE_WHOLE_TIMEOUT,
    idle: limits::IDLE_TIMEOUT,
    total: None,
};

impl Check<'_> {
    /// `base` with what the section states.
    pub(super) fn timeouts(&self, raw: &Field<RawTimeouts>, base: Timeouts) -> Timeouts {
        let Some(raw) = raw.value() else { return base };
        Timeouts {
            connect: self.duration(&raw.connect).unwrap_or(base.connect),
            first_byte: self.duration(&raw.first_byte).unwrap_or(base.first_byte),
            first_byte_whole: self.duration(&raw.first_byte_whole).unwrap_or(base.first_byte_whole),
            idle: self.duration(&raw.idle).unwrap_or(base.idle),
            total: match raw.total.value().map(String::as_str) {
                Some("off") => None,
                Some(_) => self.duration(&raw.total),
                None => base.total,
            },
        }
    }

    fn duration(&self, field: &Field<String>) -> Option<Duration> {
        let (text, spot) = field.given()?;
        match duration::parse(text) {
            Ok(duration) => Some(duration),
            Err(message) => {
                self.notes.error(spot, message, "for example `500ms`, `3s` or `2m`".to_owned());
                None
            }
        }
    }
}
