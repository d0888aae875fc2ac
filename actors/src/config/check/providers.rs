//! `providers`: what each speaks, where it is, its model classes. The keys are the next file's.

use std::sync::Arc;

use tidegate_core::limits::{CLASSES_MAX, PROVIDERS_MAX};
use tidegate_core::snapshot::{
    AccountDraft, ClassDraft, ForwardProxy, OriginDraft, ProviderDraft, Reach, Timeouts,
};
use tidegate_providers::{ClassRow, Dialect};

use super::Check;
use super::timeouts::DEFAULTS;
use crate::config::complaint::Spot;
use crate::config::field::Field;
use crate::config::raw::{RawConfig, RawProvider};
use crate::config::{proxy, suggest, url};

impl Check<'_> {
    /// Checks all providers. Those with mistakes are in the result, too, as far as they go, so that what refers to
    /// them is not called unknown as well.
    pub(super) fn providers(&self, raw: &RawConfig) -> Vec<ProviderDraft> {
        let base = self.timeouts(&raw.timeouts, DEFAULTS);
        let spot = raw.providers.spot_or(Spot { line: 1, column: 1 });
        let Some(entries) = raw.providers.value().filter(|it| !it.0.is_empty()) else {
            if !matches!(raw.providers, Field::Broken(_)) {
                let hint = "name at least one, with its keys, under `providers`".to_owned();
                self.notes.error(spot, "there is no provider", hint);
            }
            return Vec::new();
        };
        self.bounded(entries.0.len(), PROVIDERS_MAX, "providers", spot);
        let providers: Vec<ProviderDraft> =
            entries.0.iter().map(|(name, spot, value)| self.provider(name, *spot, value, base)).collect();
        let keys = providers.iter().flat_map(|it| &it.accounts).map(|it| it.keys.len()).sum();
        self.bounded(keys, tidegate_core::limits::KEYS_MAX, "keys", spot);
        providers
    }

    fn provider(&self, name: &str, spot: Spot, field: &Field<RawProvider>, base: Timeouts) -> ProviderDraft {
        if self.name_fits(name, spot) && name.contains(|it: char| it == '/' || it.is_whitespace()) {
            self.notes.error(spot, format!("the provider name `{name}` has a `/` or a space"), None);
        }
        let empty = RawProvider::default();
        let raw = field.value().unwrap_or(&empty);
        let broken = matches!(field, Field::Broken(_));
        let dialect = if broken { None } else { self.dialect(name, spot, raw) };
        let classes = self.classes(raw, dialect);
        let accounts = if broken { Vec::new() } else { self.accounts(name, spot, raw, &classes) };
        ProviderDraft {
            name: name.to_owned(),
            // Without a dialect a complaint was noted, and the draft is not used.
            dialect: dialect.map_or(tidegate_core::snapshot::DialectId(0), |it| it.id),
            origin: self.origin(raw, dialect),
            classes,
            state_account: self.state_account(name, raw, &accounts),
            accounts,
            passthrough: raw.passthrough.value().copied().unwrap_or(false),
            timeouts: self.timeouts(&raw.timeouts, base),
        }
    }

    fn state_account(&self, provider: &str, raw: &RawProvider, accounts: &[AccountDraft]) -> Option<String> {
        let (named, spot) = raw.state_account.given()?;
        let names = || accounts.iter().map(|it| it.name.as_str());
        if !names().any(|it| it == named) {
            let hint = suggest::hint(named, names());
            self.notes.error(spot, format!("`{provider}` has no account `{named}`"), hint);
            return None;
        }
        Some(named.clone())
    }

    fn dialect(&self, name: &str, spot: Spot, raw: &RawProvider) -> Option<&'static Dialect> {
        let (kind, at) = match &raw.kind {
            Field::Absent => (name, spot),
            Field::Broken(_) => return None,
            Field::Given(kind, at) => (kind.as_str(), *at),
        };
        let dialect = tidegate_providers::by_kind(kind);
        if dialect.is_none() {
            let kinds = tidegate_providers::ALL.iter().map(|it| it.kind);
            let (message, hint) = if raw.kind.is_absent() {
                let kinds: Vec<&str> = kinds.collect();
                let hint = format!("add `kind:`, one of {}", kinds.join(", "));
                (format!("`{name}` is not a kind of provider, and it has no `kind`"), Some(hint))
            } else {
                (format!("`{kind}` is not a kind of provider"), suggest::hint(kind, kinds))
            };
            self.notes.error(at, message, hint);
        }
        dialect
    }

    fn origin(&self, raw: &RawProvider, dialect: Option<&'static Dialect>) -> OriginDraft {
        let private = raw.private.value().copied().unwrap_or(false);
        let (text, spot) = match &raw.base_url {
            Field::Absent => {
                (dialect.map(|it| it.default_base_url.to_owned()).unwrap_or_default(), Spot::default())
            }
            field => self.text(field).unwrap_or_default(),
        };
        let url = match url::parse(&text, private) {
            Ok(url) => url,
            Err((message, hint)) => {
                // An empty text was complained about where it came from.
                if !text.is_empty() {
                    self.notes.error(spot, message, hint.map(str::to_owned));
                }
                return nowhere();
            }
        };
        if url.exposed {
            self.notes.warning(spot, "keys cross the public network without TLS", "use https://".to_owned());
        }
        if private && url.reach == Reach::Literal {
            let hint = "a literal address is its own permission".to_owned();
            self.notes.warning(raw.private.spot_or(spot), "`private` says nothing here", hint);
        }
        let ca_pem = self.certificates(&raw.ca_file, url.tls);
        let proxy = self.proxy(&raw.proxy, &url, spot);
        let url::BaseUrl { tls, host, port, path, reach, .. } = url;
        OriginDraft { tls, host, port, base_path: path, ca_pem, reach, proxy }
    }

    /// The provider's own proxy, else the environment's where that serves its origin.
    fn proxy(&self, field: &Field<String>, url: &url::BaseUrl, url_spot: Spot) -> Option<ForwardProxy> {
        if !field.is_absent() {
            let (text, is_literal, spot) = self.resolved(field)?;
            if text == "none" {
                return None;
            }
            let proxy = proxy::parse(&text, "proxy")
                .map_err(|(message, hint)| self.notes.error(spot, message, hint.map(str::to_owned)))
                .ok();
            if is_literal && proxy.as_ref().is_some_and(|it| it.authorization.is_some()) {
                let hint = "use `${env:NAME}` or `${file:/path}` within the URL".to_owned();
                self.notes.warning(spot, "the proxy's credentials stand in the file itself", hint);
            }
            return proxy;
        }
        let set = |name: &'static str| {
            self.surroundings.variable(name).filter(|it| !it.trim().is_empty()).map(|it| (name, it))
        };
        // A plain origin is an address of one's own network, or this host: no matter for the way out.
        let (name, text) = proxy::VARIABLES.into_iter().find_map(set).filter(|_| url.tls)?;
        let exceptions = proxy::EXCEPTIONS.into_iter().find_map(set).map(|it| it.1).unwrap_or_default();
        if proxy::is_exempt(&exceptions, &url.host, url.port) {
            return None;
        }
        proxy::parse(text.trim(), name)
            .map_err(|(message, _)| {
                let hint = "mend the variable, or write `proxy: none` at the provider".to_owned();
                self.notes.error(
                    url_spot,
                    format!("`{name}` of the environment cannot be used: {message}"),
                    hint,
                );
            })
            .ok()
    }

    fn certificates(&self, field: &Field<String>, tls: bool) -> Option<Arc<[u8]>> {
        let (_, spot) = field.given()?;
        if !tls {
            self.notes.warning(spot, "`ca_file` says nothing without TLS", None);
        }
        self.certificate_file(field).map(|it| it.pem)
    }

    /// The operator's classes, then the known ones that he did not restate. The last takes every model.
    fn classes(&self, raw: &RawProvider, dialect: Option<&'static Dialect>) -> Vec<ClassDraft> {
        let mut classes: Vec<ClassDraft> = Vec::new();
        let rows = dialect.map_or(&[][..], |it| it.classes);
        let drafted = |row: &ClassRow| ClassDraft {
            name: row.name.to_owned(),
            patterns: row.patterns.iter().map(|&it| it.to_owned()).collect(),
        };
        // What is about no model comes first: a class of all models must not share its bucket with that.
        let restated = |name: &str| {
            raw.classes.given().is_some_and(|(entries, _)| entries.0.iter().any(|it| it.0 == name))
        };
        let of_no_model = rows.iter().filter(|it| it.patterns == [""] && !restated(it.name));
        classes.extend(of_no_model.map(drafted));
        if let Some((entries, spot)) = raw.classes.given() {
            for (name, spot, patterns) in &entries.0 {
                if self.name_fits(name, *spot) {
                    classes.push(ClassDraft {
                        name: name.clone(),
                        patterns: self.patterns(name, *spot, patterns),
                    });
                }
            }
            self.bounded(entries.0.len(), CLASSES_MAX / 2, "classes", spot);
        }
        for row in rows {
            if !classes.iter().any(|it| it.name == row.name) {
                classes.push(drafted(row));
            }
        }
        // Holds where the dialect's own last class was restated with narrower patterns, too.
        if classes.last().is_none_or(|it| !it.patterns.iter().any(|it| it == "*")) {
            let name = if classes.iter().any(|it| it.name == "other") { "rest" } else { "other" };
            classes.push(ClassDraft { name: name.to_owned(), patterns: vec!["*".to_owned()] });
        }
        classes
    }

    fn patterns(&self, class: &str, spot: Spot, field: &Field<Vec<Field<String>>>) -> Vec<String> {
        let given = field.value().map(Vec::as_slice).unwrap_or_default();
        if given.is_empty() && !matches!(field, Field::Broken(_)) {
            self.notes.error(spot, format!("the class `{class}` has no patterns"), None);
        }
        given.iter().filter_map(|it| self.pattern(it)).collect()
    }

    /// A pattern of model names.
    pub(super) fn pattern(&self, field: &Field<String>) -> Option<String> {
        let (pattern, spot) = field.given()?;
        if pattern.is_empty() || pattern.len() > tidegate_core::limits::MODEL_NAME_BYTES_MAX {
            self.notes.error(spot, "a pattern must have 1 to 256 bytes", "`*` matches all".to_owned());
            return None;
        }
        Some(pattern.clone())
    }
}

/// Stands in for an origin that was complained about.
fn nowhere() -> OriginDraft {
    OriginDraft {
        tls: true,
        host: String::new(),
        port: 443,
        base_path: String::new(),
        ca_pem: None,
        reach: Reach::Public,
        proxy: None,
    }
}
