//! `virtual_keys`: who may call. The keys themselves are digested here and not kept.

use std::collections::{HashMap, HashSet};

use tidegate_core::caller::digest;
use tidegate_core::limits::{VIRTUAL_KEY_CHARS_MIN, VIRTUAL_KEYS_MAX};
use tidegate_core::snapshot::{CallerDraft, ProviderDraft};
use tidegate_core::{Families, Family};

use super::Check;
use crate::config::complaint::Spot;
use crate::config::field::Field;
use crate::config::raw::{RawConfig, RawVirtualKey};
use crate::config::suggest;

/// Stands for all that a virtual key may do without a list.
const GENERATION: &str = "generation";

impl Check<'_> {
    /// Checks all virtual keys.
    pub(super) fn callers(&self, raw: &RawConfig, providers: &[ProviderDraft]) -> Vec<CallerDraft> {
        let Some((listed, spot)) = raw.virtual_keys.given() else { return Vec::new() };
        self.bounded(listed.len(), VIRTUAL_KEYS_MAX, "virtual keys", spot);
        let upstream: HashSet<[u8; 32]> = providers
            .iter()
            .flat_map(|it| &it.accounts)
            .flat_map(|it| &it.keys)
            .map(|it| digest(it.secret.expose().as_bytes()))
            .collect();
        let mut callers = Vec::with_capacity(listed.len());
        let mut names: HashMap<String, Spot> = HashMap::new();
        let mut digests: HashMap<[u8; 32], String> = HashMap::new();
        for (raw, spot) in listed.iter().filter_map(Field::given) {
            let Some((caller, name_at, key_at)) = self.caller(raw, spot) else { continue };
            if let Some(first) = names.insert(caller.name.clone(), name_at) {
                let hint = format!("the other one stands in line {}", first.line);
                self.notes.error(name_at, format!("two virtual keys are named `{}`", caller.name), hint);
            }
            if let Some(other) = digests.insert(caller.digest, caller.name.clone()) {
                self.notes.error(key_at, format!("`{}` is the same key as `{other}`", caller.name), None);
            }
            if upstream.contains(&caller.digest) {
                let hint = "give callers keys of their own".to_owned();
                self.notes.error(key_at, format!("`{}` is a provider's own credential", caller.name), hint);
            }
            callers.push(caller);
        }
        callers
    }

    fn caller(&self, raw: &RawVirtualKey, spot: Spot) -> Option<(CallerDraft, Spot, Spot)> {
        let name = self.name(&raw.name, "a virtual key", spot);
        let limits = self.caller_limits(&raw.limits);
        let operations = self.operations(&raw.operations);
        let models = raw.models.value().map(|it| it.iter().filter_map(|it| self.pattern(it)).collect());
        if raw.key.is_absent() {
            let hint = "for example `key: \"${env:NAME}\"`".to_owned();
            self.notes.error(spot, "a virtual key has no `key`", hint);
        }
        let key = self.secret(&raw.key, "the virtual key");
        let ((name, name_at), (key, key_at)) = name.zip(key)?;
        if key.chars().count() < VIRTUAL_KEY_CHARS_MIN {
            let message = format!("the virtual key is shorter than {VIRTUAL_KEY_CHARS_MIN} characters");
            self.notes.warning(key_at, message, "use a long random one".to_owned());
        }
        let digest = digest(key.as_bytes());
        Some((CallerDraft { name, digest, limits, models, operations }, name_at, key_at))
    }

    fn operations(&self, field: &Field<Vec<Field<String>>>) -> Families {
        let Some((listed, _)) = field.given() else { return Families::GENERATION };
        let mut operations = Families::NONE;
        for (name, spot) in listed.iter().filter_map(Field::given) {
            operations = match (name.as_str(), Family::named(name)) {
                (GENERATION, _) => operations.and(Families::GENERATION),
                (_, Some(family)) => operations.with(family),
                (_, None) => {
                    let known = Family::ALL.iter().map(|it| it.name()).chain([GENERATION]);
                    self.notes.error(
                        spot,
                        format!("there is no operation `{name}`"),
                        suggest::hint(name, known),
                    );
                    operations
                }
            };
        }
        operations
    }
}
