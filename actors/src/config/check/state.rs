//! `state`: what the gateway has to remember, and where.

use std::path::PathBuf;

use tidegate_core::Family;
use tidegate_core::limits::{OBJECTS_CEILING, OBJECTS_MAX};

use super::Check;
use crate::config::field::Field;
use crate::config::raw::{RawConfig, RawState};

impl Check<'_> {
    /// Files and batches whose owners can be known.
    pub(super) fn objects_max(&self, field: &Field<RawState>) -> usize {
        let Some((&objects, spot)) = field.value().and_then(|it| it.objects_max.given()) else {
            return OBJECTS_MAX;
        };
        let fits = usize::try_from(objects).ok().filter(|it| (1..=OBJECTS_CEILING).contains(it));
        if fits.is_none() {
            self.notes.error(spot, format!("objects_max must be from 1 to {OBJECTS_CEILING}"), None);
        }
        fits.unwrap_or(OBJECTS_MAX)
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
