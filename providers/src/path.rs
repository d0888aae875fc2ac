//! From a request's path to a dialect and an operation, and from a query to a page of a list. Reads text only;
//! which paths exist is data of the dialects.

use std::borrow::Cow;

use tidegate_core::Family;

use crate::dialect::Dialect;
use crate::{anthropic, openai};

/// What a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<'p> {
    /// How it is carried out.
    pub kind: OperationKind,
    /// What a caller must be allowed to do.
    pub family: Family,
    /// Its path at an upstream, behind the path of the base URL.
    pub path: &'p str,
    /// What the path names: a model, percent-decoded, or something kept. Empty where it names nothing.
    pub id: Cow<'p, str>,
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
    /// The path, without what the base URL may hold already.
    pub path: PathShape,
    /// How it is carried out.
    pub kind: OperationKind,
    /// What a caller must be allowed to do.
    pub family: Family,
}

/// What a path of the route table looks like.
#[derive(Clone, Copy, Debug)]
pub enum PathShape {
    /// Exactly this.
    Exact(&'static str),
    /// This, which ends with a slash, and a model id after it, which may have slashes of its own.
    Under(&'static str),
    /// The first, which ends with a slash, the id of something kept, and the second, which may be empty.
    Object(&'static str, &'static str),
}

/// How an operation is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Count the tokens of a would-be call, whose JSON body names a model; never touches health.
    CountTokens,
    /// Produce something from a form that names a model and holds files.
    Form,
    /// Produce something from a JSON body that names a model.
    Generate,
    /// One model; answered from the configuration.
    GetModel,
    /// All models; answered from the configuration.
    ListModels,
    /// Whatever is wanted of something kept at the state account; names no model.
    Object,
    /// The content of an owned object, whatever it is.
    ObjectContent,
    /// Make an object that belongs to the caller from then on; the body may be large, and the reply describes it.
    ObjectCreate,
    /// Delete an owned object.
    ObjectDelete,
    /// Read or change an owned object; the reply describes it.
    ObjectDescribe,
    /// List objects: the caller gets its own.
    ObjectList,
    /// A client's sign-of-life call; answered at once, whoever asks.
    Root,
}

/// Longest id of something kept.
const ID_BYTES_MAX: usize = 256;

impl OperationKind {
    /// Whether it produces something, which uses quotas and says something about their health.
    pub fn generates(self) -> bool {
        matches!(self, OperationKind::Form | OperationKind::Generate)
    }
}

impl RouteRow {
    pub(crate) const fn new(
        methods: &'static [&'static str],
        path: PathShape,
        kind: OperationKind,
        family: Family,
    ) -> RouteRow {
        RouteRow { methods, path, kind, family }
    }
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
        let Some(id) = row.path.id_in(path) else { continue };
        known_path = true;
        if row.methods.contains(&method) {
            return Ok(Operation { kind: row.kind, family: row.family, path, id });
        }
    }
    Err(RouteMiss { known_path })
}

impl PathShape {
    /// What `path` names, if it has this shape.
    fn id_in<'p>(&self, path: &'p str) -> Option<Cow<'p, str>> {
        match self {
            PathShape::Exact(exact) => (path == *exact).then_some(Cow::Borrowed("")),
            PathShape::Under(stem) => percent_decoded(path.strip_prefix(stem).filter(|it| !it.is_empty())?),
            PathShape::Object(stem, tail) => {
                let id = path.strip_prefix(stem)?.strip_suffix(tail)?;
                is_id(id).then_some(Cow::Borrowed(id))
            }
        }
    }
}

/// Ids go upstream as they are: what a provider could read as another path (dots, escapes, slashes) is none.
fn is_id(text: &str) -> bool {
    let plain = |it: u8| it.is_ascii_alphanumeric() || it == b'_' || it == b'-';
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
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
    fn ids_are_one_plain_segment() {
        const ROUTES: &[RouteRow] = &[
            RouteRow::new(
                &["GET"],
                PathShape::Object("/r/", ""),
                OperationKind::Object,
                Family::StoredResponses,
            ),
            RouteRow::new(
                &["POST"],
                PathShape::Object("/r/", "/cancel"),
                OperationKind::Object,
                Family::Batches,
            ),
        ];
        let found = |method, path| operation(ROUTES, method, path).map(|it| (it.family, it.id.into_owned()));
        assert_eq!(found("GET", "/r/resp_a-1"), Ok((Family::StoredResponses, "resp_a-1".to_owned())));
        assert_eq!(found("POST", "/r/resp_a-1/cancel"), Ok((Family::Batches, "resp_a-1".to_owned())));
        assert_eq!(found("POST", "/r/resp_a-1"), Err(RouteMiss { known_path: true }));
        let long = format!("/r/{}", "a".repeat(ID_BYTES_MAX + 1));
        for path in ["/r/", "/r/..", "/r/a/b", "/r/a%2Fb", "/r/../files/f", "/r//cancel", "/r/a.b", &long] {
            assert_eq!(found("GET", path), Err(RouteMiss { known_path: false }), "{path}");
            assert_eq!(found("POST", path), Err(RouteMiss { known_path: false }), "{path}");
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
