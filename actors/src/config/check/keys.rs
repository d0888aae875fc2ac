//! `keys` of a provider: credentials grouped into the accounts that own quota.

use std::collections::HashMap;

use tidegate_core::Secret;
use tidegate_core::snapshot::{AccountDraft, ClassDraft, KeyDraft};

use super::Check;
use crate::config::complaint::Spot;
use crate::config::field::Field;
use crate::config::raw::{RawKey, RawProvider};

/// Weights are shares: beyond this one of two keys would never be used.
const WEIGHT_MAX: f64 = 1_000_000.0;

impl Check<'_> {
    /// The accounts of a provider in the order in which the file first names them.
    pub(super) fn accounts(
        &self,
        provider: &str,
        spot: Spot,
        raw: &RawProvider,
        classes: &[ClassDraft],
    ) -> Vec<AccountDraft> {
        let keys = raw.keys.value().map(Vec::as_slice).unwrap_or_default();
        let passes = raw.passthrough.value() == Some(&true);
        if keys.is_empty() && !passes && !matches!(raw.keys, Field::Broken(_)) {
            let hint = "give at least one under `keys`, or let callers bring theirs with `passthrough: true`"
                .to_owned();
            self.notes.error(raw.keys.spot_or(spot), format!("the provider `{provider}` has no keys"), hint);
        }
        let mut accounts: Vec<AccountDraft> = Vec::new();
        let mut limits_at: HashMap<String, Spot> = HashMap::new();
        let mut names: HashMap<String, Spot> = HashMap::new();
        let mut secrets: HashMap<String, String> = HashMap::new();
        for (raw, spot) in keys.iter().filter_map(Field::given) {
            let Some((key, at)) = self.key(raw, spot, &mut secrets) else { continue };
            if let Some(first) = names.insert(key.name.clone(), at) {
                let hint = format!("the other one stands in line {}", first.line);
                self.notes.error(at, format!("two keys of `{provider}` are named `{}`", key.name), hint);
                continue;
            }
            let account = match raw.account.given() {
                Some((name, at)) if self.name_fits(name, at) => name.clone(),
                _ => key.name.clone(),
            };
            if !raw.limits.is_absent() {
                let at = raw.limits.spot_or(spot);
                if let Some(first) = limits_at.insert(account.clone(), at) {
                    let hint = format!(
                        "keys of one account share one quota; the first stand in line {}",
                        first.line
                    );
                    self.notes.error(at, format!("the account `{account}` has `limits` twice"), hint);
                }
            }
            let limits = self.quota_limits(&raw.limits, classes);
            match accounts.iter_mut().find(|it| it.name == account) {
                Some(known) => {
                    known.keys.push(key);
                    if !raw.limits.is_absent() {
                        known.limits = limits;
                    }
                }
                None => {
                    accounts.push(AccountDraft { name: account, keys: vec![key], limits, shared_quota: None })
                }
            }
        }
        accounts
    }

    fn key(
        &self,
        raw: &RawKey,
        spot: Spot,
        secrets: &mut HashMap<String, String>,
    ) -> Option<(KeyDraft, Spot)> {
        let name = self.name(&raw.name, "a key", spot);
        let weight = self.weight(&raw.weight);
        if raw.value.is_absent() {
            let hint = "for example `value: \"${env:NAME}\"`".to_owned();
            self.notes.error(spot, "a key has no `value`", hint);
        }
        let secret = self.secret(&raw.value, "the key");
        let ((name, at), (secret, secret_at)) = name.zip(secret)?;
        if let Some(other) = secrets.insert(secret.clone(), name.clone()) {
            let hint = "one credential has one quota; use `weight` for a larger share".to_owned();
            self.notes.error(secret_at, format!("`{name}` is the same credential as `{other}`"), hint);
        }
        Some((KeyDraft { name, weight, secret: Secret::new(secret) }, at))
    }

    fn weight(&self, field: &Field<f64>) -> f64 {
        let Some((&weight, spot)) = field.given() else { return 1.0 };
        if weight > 0.0 && weight <= WEIGHT_MAX {
            return weight;
        }
        let hint = "take a key out of the file to give it nothing".to_owned();
        self.notes.error(spot, format!("a weight must be above 0 and at most {WEIGHT_MAX}"), hint);
        1.0
    }
}
