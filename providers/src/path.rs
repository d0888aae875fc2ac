//! From a request's path to a dialect and an operation, and from a query to a page of a list. Reads text only;
//! which paths exist is data of the dialects.

use std::borrow::Cow;

use crate::dialect::Dialect;
use crate::{anthropic, openai};

/// What a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation<'p> {
    /// Count the tokens of a would-be call; never touches health.
    CountTokens,
    /// Produce something.
    Generate,
    /// One model, by its percent-decoded id; answered from the configuration.
    GetModel(Cow<'p, str>),
    /// All models; answered from the configuration.
    ListModels,
    /// A client's sign-of-life call; answered at once.
    Root,
}

/// No operation of the dialect has this path and method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteMiss {
    /// The path exists with another method.
    pub known_path: bool,
}

/// One row of a dialect's route table.
#[derive(Clone, Copy, Debug)]
pub struct RouteRow {
    /// Methods in upper case.
    pub methods: &'static [&'static str],
    /// The path.
    pub path: PathShape,
    /// What it is.
    pub operation: OperationKind,
}

/// What a path of the route table looks like.
#[derive(Clone, Copy, Debug)]
pub enum PathShape {
    /// Exactly this.
    Exact(&'static str),
    /// This, which ends with a slash, and a model id after it.
    Under(&'static str),
}

/// [`Operation`] without what the path carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// See [`Operation::CountTokens`].
    CountTokens,
    /// See [`Operation::Generate`].
    Generate,
    /// See [`Operation::GetModel`].
    GetModel,
    /// See [`Operation::ListModels`].
    ListModels,
    /// See [`Operation::Root`].
    Root,
}

/// The dialect of a request and its path without the `/anthropic` or `/openai` in front (ARCHITECTURE.md).
///
/// A prefix decides; then a path that only one dialect has; then the version field; else it is OpenAI.
pub fn of_request(path: &str, has_version_field: bool) -> (&'static Dialect, &str) {
    for dialect in crate::ALL {
        if let Some(rest) = below_prefix(path, dialect.path_prefix) {
            return (dialect, rest);
        }
    }
    let owner = crate::ALL.iter().find(|it| it.own_paths.iter().any(|own| is_within(path, own)));
    let by_field = if has_version_field { &anthropic::DIALECT } else { &openai::DIALECT };
    (owner.copied().unwrap_or(by_field), path)
}

/// The operation in `routes` that `method` and `path` name.
pub(crate) fn operation<'p>(
    routes: &'static [RouteRow],
    method: &str,
    path: &'p str,
) -> Result<Operation<'p>, RouteMiss> {
    let mut known_path = false;
    for row in routes {
        let Some(rest) = row.path.rest_of(path) else { continue };
        known_path = true;
        if row.methods.contains(&method) {
            return match row.operation {
                OperationKind::CountTokens => Ok(Operation::CountTokens),
                OperationKind::Generate => Ok(Operation::Generate),
                OperationKind::GetModel => {
                    percent_decoded(rest).map(Operation::GetModel).ok_or(RouteMiss { known_path: false })
                }
                OperationKind::ListModels => Ok(Operation::ListModels),
                OperationKind::Root => Ok(Operation::Root),
            };
        }
    }
    Err(RouteMiss { known_path })
}

impl PathShape {
    /// What `path` has beyond this shape, if it has this shape.
    fn rest_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self {
            PathShape::Exact(exact) => (path == *exact).then_some(""),
            PathShape::Under(stem) => path.strip_prefix(stem).filter(|it| !it.is_empty()),
        }
    }
}

/// `path` without `prefix` where that stands as its first segment; the root for the bare prefix.
fn below_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix)?;
    if rest.is_empty() {
        return Some("/");
    }
    rest.starts_with('/').then_some(rest)
}

/// Whether `path` is `stem` or lies below it.
fn is_within(path: &str, stem: &str) -> bool {
    path.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `text` with its percent escapes resolved; `None` where an escape is cut, no hex, or the result no UTF-8.
fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok())
}

/// Which part of a list a query asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page<'q> {
    /// Entries at most; `None` is the dialect's default.
    pub limit: Option<u32>,
    /// Entries after this one.
    pub after_id: Option<Cow<'q, str>>,
    /// Entries before this one.
    pub before_id: Option<Cow<'q, str>>,
}

impl<'q> Page<'q> {
    /// Reads `limit`, `after_id` and `before_id`; whatever else stands in the query, or cannot be read, is ignored.
    pub fn of_query(query: Option<&'q str>) -> Page<'q> {
        let mut page = Page::default();
        for pair in query.unwrap_or("").split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "limit" => page.limit = value.parse().ok().or(page.limit),
                "after_id" if !value.is_empty() => page.after_id = percent_decoded(value),
                "before_id" if !value.is_empty() => page.before_id = percent_decoded(value),
                _ => {}
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_then_path_then_field_decide_the_dialect() {
        for (path, field, name, rest) in [
            ("/v1/messages", false, "Anthropic", "/v1/messages"),
            ("/v1/messages", true, "Anthropic", "/v1/messages"),
            ("/v1/messages/count_tokens", false, "Anthropic", "/v1/messages/count_tokens"),
            ("/v1/messages/batches", false, "Anthropic", "/v1/messages/batches"),
            ("/anthropic/v1/models", false, "Anthropic", "/v1/models"),
            ("/anthropic", false, "Anthropic", "/"),
            ("/anthropic/", false, "Anthropic", "/"),
            ("/v1/models", true, "Anthropic", "/v1/models"),
            ("/v1/models", false, "OpenAI", "/v1/models"),
            ("/openai/v1/models", true, "OpenAI", "/v1/models"),
            ("/v1/chat/completions", true, "OpenAI", "/v1/chat/completions"),
            ("/chat/completions", true, "OpenAI", "/chat/completions"),
            ("/anthropics/v1/models", false, "OpenAI", "/anthropics/v1/models"),
            ("/v1/messagesx", false, "OpenAI", "/v1/messagesx"),
            ("/", false, "OpenAI", "/"),
            ("", true, "Anthropic", ""),
        ] {
            let (dialect, left) = of_request(path, field);
            assert_eq!((dialect.name, left), (name, rest), "{path} {field}");
        }
    }

    #[test]
    fn escapes_are_decoded_or_refused() {
        assert_eq!(percent_decoded("a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(percent_decoded("%e2%82%AC").as_deref(), Some("€"));
        assert!(matches!(percent_decoded("plain"), Some(Cow::Borrowed("plain"))));
        for bad in ["%", "%2", "%zz", "a%ff", "%+1"] {
            assert_eq!(percent_decoded(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_query_names_a_page() {
        let page = Page::of_query(Some("beta=true&limit=1000&after_id=a%2Fb&before_id=&limit=x"));
        assert_eq!(page, Page { limit: Some(1000), after_id: Some("a/b".into()), before_id: None });
        assert_eq!(Page::of_query(None), Page::default());
        assert_eq!(Page::of_query(Some("limit=-1&&=&after_id=%f")), Page::default());
    }
}
