//! `state`: what the gateway has to remember, and where.

use std::path::PathBuf;

use tidegate_core::Family;
use tidegate_core::limits::{OBJECTS_CEILING, OBJECTS_MAX, RESPONSES_MAX};

use super::Check;
use crate::config::field::Field;
use crate::config::raw::{RawConfig, RawState, RawUnknown};

/// Whether a stored response whose owner is not known may be named. Without a file nothing is known after a start, and
/// whoever continues what was made before would be refused.
pub(super) fn unknown_responses(field: &Field<RawState>) -> bool {
    let state = field.value();
    match state.and_then(|it| it.unknown_responses.value()) {
        Some(stated) => *stated == RawUnknown::Allow,
        None => state.is_none_or(|it| it.file.is_absent()),
    }
}

impl Check<'_> {
    /// Files and batches whose owners can be known.
    pub(super) fn objects_max(&self, field: &Field<RawState>) -> usize {
        self.places("objects_max", field.value().map(|it| &it.objects_max), OBJECTS_MAX)
    }

    /// Stored responses whose owners can be known.
    pub(super) fn responses_max(&self, field: &Field<RawState>) -> usize {
        self.places("responses_max", field.value().map(|it| &it.responses_max), RESPONSES_MAX)
    }

    fn places(&self, name: &str, field: Option<&Field<u64>>, default: usize) -> usize {
        let Some((&places, spot)) = field.and_then(Field::given) else { return default };
        let fits = usize::try_from(places).ok().filter(|it| (1..=OBJECTS_CEILING).contains(it));
        if fits.is_none() {
            self.notes.error(spot, format!("{name} must be from 1 to {OBJECTS_CEILING}"), None);
        }
        fits.unwrap_or(default)
    }

    /// Where owners are written down. Warns where somebody can own something and they are not.
    pub(super) fn state_file(&self, raw: &RawConfig) -> Option<PathBuf> {
        let file = raw.state.value().and_then(|it| self.text(&it.file));
        if let Some((path, spot)) = file {
            if path.is_empty() {
                self.notes.error(
                    spot,
                    "`file` is empty",
                    "for example `/var/lib/tidegate/state.db`".to_owned(),
                );
            }
            return Some(self.surroundings.place(&path));
        }
        let is_owned =
            |name: &str| Family::named(name).is_some_and(|it| matches!(it, Family::Files | Family::Batches));
        let keys = raw.virtual_keys.value().into_iter().flatten().filter_map(Field::value);
        let mut named = keys.filter_map(|it| it.operations.value()).flatten().filter_map(Field::given);
        if let Some((name, spot)) = named.find(|it| is_owned(it.0)) {
            let message = format!(
                "owners of {name} are forgotten with the process, and nobody can reach what was made before"
            );
            self.notes.warning(spot, message, "set `state: { file: … }`".to_owned());
        }
        None
    }
}
