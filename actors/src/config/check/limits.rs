//! Limits: what an account may spend in each model class, and what the holder of a virtual key may.

use tidegate_core::snapshot::{CallerLimits, ClassDraft, QuotaLimits};

use super::Check;
use crate::config::complaint::Spot;
use crate::config::field::{Entries, Field};
use crate::config::raw::{RawCallerLimits, RawLimit, RawQuotaLimits};
use crate::config::suggest;

/// Above any limit that a provider grants; keeps the arithmetic of the buckets far from its bounds.
const PER_MINUTE_MAX: u64 = 1_000_000_000;
/// Stands for every class that is not named.
const DEFAULT_CLASS: &str = "default";
/// The limits themselves, where they stand without a class.
const DIMENSIONS: [&str; 3] = ["rpm", "itpm", "otpm"];

impl Check<'_> {
    /// The limits of an account in each class, in class order.
    pub(super) fn quota_limits(
        &self,
        raw: &Field<Entries<RawLimit>>,
        classes: &[ClassDraft],
    ) -> Vec<QuotaLimits> {
        let mut limits = vec![QuotaLimits::default(); classes.len()];
        let Some((entries, spot)) = raw.given() else { return limits };
        let flat = entries.0.iter().any(|it| matches!(it.2, Field::Given(RawLimit::Number(_), _)));
        let nested = entries.0.iter().any(|it| matches!(it.2, Field::Given(RawLimit::Class(_), _)));
        if flat && nested {
            let hint = "put the numbers without a class under `default`".to_owned();
            self.notes.error(spot, "`limits` mixes numbers and model classes", hint);
            return limits;
        }
        if flat {
            limits.fill(self.flat_limits(entries));
            return limits;
        }
        let mut rest = QuotaLimits::default();
        let mut named = vec![false; classes.len()];
        for (name, spot, value) in &entries.0 {
            let Some(RawLimit::Class(raw)) = value.value() else { continue };
            let checked = self.class_limits(raw);
            if name == DEFAULT_CLASS {
                rest = checked;
            } else if let Some(at) = classes.iter().position(|it| it.name == *name) {
                limits[at] = checked;
                named[at] = true;
            } else {
                let known = classes.iter().map(|it| it.name.as_str()).chain([DEFAULT_CLASS]);
                self.notes.error(
                    *spot,
                    format!("there is no model class `{name}`"),
                    suggest::hint(name, known),
                );
            }
        }
        for (limit, named) in limits.iter_mut().zip(named) {
            if !named {
                *limit = rest;
            }
        }
        limits
    }

    fn flat_limits(&self, entries: &Entries<RawLimit>) -> QuotaLimits {
        let mut limits = QuotaLimits::default();
        for (name, spot, value) in &entries.0 {
            let Some((RawLimit::Number(number), at)) = value.given() else { continue };
            let number = self.per_minute_value(*number, at);
            match name.as_str() {
                "rpm" => limits.requests = number,
                "itpm" => limits.input_tokens = number,
                "otpm" => limits.output_tokens = number,
                _ => {
                    let hint = suggest::hint(name, DIMENSIONS);
                    self.notes.error(*spot, format!("there is no limit `{name}`"), hint);
                }
            }
        }
        limits
    }

    fn class_limits(&self, raw: &RawQuotaLimits) -> QuotaLimits {
        QuotaLimits {
            requests: self.per_minute(&raw.rpm),
            input_tokens: self.per_minute(&raw.itpm),
            output_tokens: self.per_minute(&raw.otpm),
        }
    }

    /// The limits of a virtual key.
    pub(super) fn caller_limits(&self, raw: &Field<RawCallerLimits>) -> CallerLimits {
        let Some((raw, spot)) = raw.given() else { return CallerLimits::default() };
        if raw.tpm.is_absent() && raw.count_cache_reads.value() == Some(&true) {
            let spot = raw.count_cache_reads.spot_or(spot);
            self.notes.warning(spot, "`count_cache_reads` says nothing without `tpm`", None);
        }
        CallerLimits {
            requests_per_minute: self.per_minute(&raw.rpm),
            tokens_per_minute: self.per_minute(&raw.tpm),
            count_cache_reads: raw.count_cache_reads.value().copied().unwrap_or(false),
        }
    }

    fn per_minute(&self, field: &Field<u64>) -> Option<u64> {
        field.given().and_then(|(&number, spot)| self.per_minute_value(number, spot))
    }

    fn per_minute_value(&self, number: u64, spot: Spot) -> Option<u64> {
        if (1..=PER_MINUTE_MAX).contains(&number) {
            return Some(number);
        }
        let hint = "leave a limit out where there is none".to_owned();
        self.notes.error(spot, format!("a limit must be from 1 to {PER_MINUTE_MAX} per minute"), hint);
        None
    }
}
