//! `models`: public names and the chains behind them. A chain names providers, never another public name, so it
//! cannot run in a circle.

use tidegate_core::limits::{MODEL_NAME_BYTES_MAX, MODELS_MAX, PLAN_TARGETS_MAX};
use tidegate_core::snapshot::{ModelDraft, ProviderDraft, TargetDraft};

use super::Check;
use crate::config::complaint::Spot;
use crate::config::field::Field;
use crate::config::raw::{RawConfig, RawModel};
use crate::config::suggest;

impl Check<'_> {
    /// Checks all public models against the providers there are.
    pub(super) fn models(&self, raw: &RawConfig, providers: &[ProviderDraft]) -> Vec<ModelDraft> {
        let empty = Vec::new();
        let entries = raw.models.value().map_or(&empty, |it| &it.0);
        self.bounded(entries.len(), MODELS_MAX, "models", raw.models.spot_or(Spot::default()));
        if entries.is_empty() && raw.models_only.value() == Some(&true) {
            let hint = "name models under `models`, or leave `models_only` out".to_owned();
            self.notes.error(raw.models_only.spot_or(Spot::default()), "no model could be called", hint);
        }
        let public: Vec<&str> = entries.iter().map(|it| it.0.as_str()).collect();
        entries.iter().map(|(name, spot, value)| self.model(name, *spot, value, providers, &public)).collect()
    }

    fn model(
        &self,
        name: &str,
        spot: Spot,
        field: &Field<RawModel>,
        providers: &[ProviderDraft],
        public: &[&str],
    ) -> ModelDraft {
        if name.is_empty() || name.len() > MODEL_NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let hint = format!("1 to {MODEL_NAME_BYTES_MAX} bytes without control characters");
            self.notes.error(spot, format!("`{}` cannot be a model name", name.escape_debug()), hint);
        }
        let mut chain: Vec<TargetDraft> = Vec::new();
        let listed = field.value().and_then(|it| it.chain.value()).map(Vec::as_slice).unwrap_or_default();
        let broken = matches!(field, Field::Broken(_))
            || field.value().is_some_and(|it| matches!(it.chain, Field::Broken(_)));
        if listed.is_empty() && !broken {
            let at = field.value().map_or(spot, |it| it.chain.spot_or(spot));
            let hint = "for example `chain: [provider/model]`".to_owned();
            self.notes.error(at, format!("the model `{name}` has no targets"), hint);
        }
        if listed.len() > PLAN_TARGETS_MAX {
            self.notes.error(spot, format!("a chain has at most {PLAN_TARGETS_MAX} targets"), None);
        }
        for (text, spot) in listed.iter().filter_map(Field::given) {
            let Some(target) = self.target(text, spot, providers, public) else { continue };
            if chain.iter().any(|it| it.provider == target.provider && it.model == target.model) {
                self.notes.error(spot, format!("`{text}` stands in the chain twice"), None);
            } else {
                chain.push(target);
            }
        }
        self.one_dialect(name, spot, &chain, providers);
        ModelDraft { name: name.to_owned(), chain }
    }

    fn target(
        &self,
        text: &str,
        spot: Spot,
        providers: &[ProviderDraft],
        public: &[&str],
    ) -> Option<TargetDraft> {
        let Some((provider, model)) = text.split_once('/') else {
            let hint = match public.contains(&text) {
                true => "a chain names `provider/model`, never another public name".to_owned(),
                false => "write `provider/model`".to_owned(),
            };
            self.notes.error(spot, format!("`{text}` names no provider"), hint);
            return None;
        };
        if !providers.iter().any(|it| it.name == provider) {
            let hint = suggest::hint(provider, providers.iter().map(|it| it.name.as_str()));
            self.notes.error(spot, format!("there is no provider `{provider}`"), hint);
            return None;
        }
        if model.is_empty() || model.len() > MODEL_NAME_BYTES_MAX || model.chars().any(char::is_control) {
            self.notes.error(spot, format!("`{}` names no model", text.escape_debug()), None);
            return None;
        }
        Some(TargetDraft { provider: provider.to_owned(), model: model.to_owned() })
    }

    fn one_dialect(&self, name: &str, spot: Spot, chain: &[TargetDraft], providers: &[ProviderDraft]) {
        let dialect_of =
            |it: &TargetDraft| providers.iter().find(|p| p.name == it.provider).map(|p| p.dialect);
        let mut dialects = chain.iter().map(dialect_of);
        let first = dialects.next();
        if first.is_some_and(|first| dialects.any(|it| it != first)) {
            let hint = "a caller reaches the targets of the dialect it speaks".to_owned();
            self.notes.warning(
                spot,
                format!("the chain of `{name}` joins providers of different kinds"),
                hint,
            );
        }
    }
}
