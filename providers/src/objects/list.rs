//! Lists of what an account keeps, as one caller gets them: what is not its own is taken out, and the rest of the page
//! stays consistent. Also how the next page is asked for, since a page may have nothing of the caller's and clients
//! take an empty page for the last one.

use tidegate_core::Family;
use tidegate_wire::json;

use super::ListRules;
use crate::dialect::Dialect;
use crate::reading;

/// What a caller asked for.
#[derive(Clone, Copy, Debug)]
pub struct ListAsk<'q> {
    rules: ListRules,
    query: &'q str,
}

/// What a filtered page holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// Entries that were kept.
    pub kept: usize,
    /// Where the list goes on at the provider; `None` where it ended.
    pub next: Option<Cursor>,
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    parameter: &'static str,
    value: String,
}

/// The parameter of lists whose pages are named by the provider.
const PAGE: &str = "page";

impl<'q> ListAsk<'q> {
    /// Entries that the caller wants at most.
    fn limit(&self) -> usize {
        let stated = pairs(self.query).rev().find(|it| it.0 == "limit").and_then(|it| it.1.parse().ok());
        stated.unwrap_or(self.rules.page_default).clamp(1, self.rules.page_max)
    }

    fn is_backwards(&self) -> bool {
        self.rules.before.is_some_and(|before| pairs(self.query).any(|it| it.0 == before))
    }

    /// The query for the page at `cursor`. Read forwards by ids it asks for as much as the provider gives: what is too
    /// much for the caller is cut by [`Dialect::filter_list`].
    pub fn query_at(&self, cursor: &Cursor) -> String {
        let by_id_forwards = cursor.parameter == self.rules.after;
        let kept = pairs(self.query).filter(|(name, _)| {
            let replaced = [self.rules.after, self.rules.before.unwrap_or(PAGE), PAGE].contains(name);
            !(replaced || by_id_forwards && *name == "limit")
        });
        let mut query = String::new();
        for (name, value) in kept {
            query.push_str(&format!("{name}={value}&"));
        }
        if by_id_forwards {
            query.push_str(&format!("limit={}&", self.rules.page_max));
        }
        query.push_str(cursor.parameter);
        query.push('=');
        for byte in cursor.value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    query.push(char::from(byte))
                }
                _ => query.push_str(&format!("%{byte:02X}")),
            }
        }
        query
    }
}

impl Dialect {
    /// What a list of files or batches was asked for.
    pub fn list_ask<'q>(&self, family: Family, query: Option<&'q str>) -> ListAsk<'q> {
        let rules = if family == Family::Batches { self.objects.batches } else { self.objects.files };
        ListAsk { rules, query: query.unwrap_or_default() }
    }

    /// Appends the page in `body` with those entries only whose id `keep` takes (it gets the entry, too), as many as
    /// the caller wants at most. `None` where it is no page, or an unreadable one: nothing of it may be shown.
    pub fn filter_list(
        &self,
        ask: &ListAsk<'_>,
        body: &[u8],
        keep: &mut dyn FnMut(&str, &[u8]) -> bool,
        out: &mut Vec<u8>,
    ) -> Option<ListPage> {
        // All of it is JSON before a byte of it is used.
        if !reading::is_object(body) {
            return None;
        }
        let (mut kept, mut last_there, mut first_there) = (Vec::new(), None, None);
        let mut cut = false;
        for entry in json::Elements::new(reading::member(body, "data")?) {
            let entry = entry.ok()?;
            let id = self.object_id(entry)?.into_owned();
            if keep(&id, entry) {
                cut = kept.len() >= ask.limit() && !ask.is_backwards();
                if cut {
                    break;
                }
                kept.push((id.clone(), entry));
            }
            first_there.get_or_insert_with(|| id.clone());
            last_there = Some(id);
        }
        let next = self.next_of(ask, body, first_there, last_there);
        self.write_page(body, &kept, cut, out);
        Some(ListPage { kept: kept.len(), next })
    }

    fn next_of(
        &self,
        ask: &ListAsk<'_>,
        body: &[u8],
        first: Option<String>,
        last: Option<String>,
    ) -> Option<Cursor> {
        if let Some(page) = reading::member(body, "next_page").and_then(reading::text) {
            return Some(Cursor { parameter: PAGE, value: page.into_owned() });
        }
        let more = reading::member(body, "has_more").and_then(json::as_bool).unwrap_or(false);
        let (parameter, value) = match ask.rules.before.filter(|_| ask.is_backwards()) {
            Some(before) => (before, first),
            None => (ask.rules.after, last),
        };
        value.filter(|_| more).map(|value| Cursor { parameter, value })
    }

    fn write_page(&self, body: &[u8], kept: &[(String, &[u8])], cut: bool, out: &mut Vec<u8>) {
        out.push(b'{');
        for (at, (key, value)) in json::Members::new(body).flatten().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_key(out, key.raw());
            let id = |entry: Option<&(String, &[u8])>, out: &mut Vec<u8>| match entry {
                Some((id, _)) => json::write_str(out, id),
                None => out.extend_from_slice(b"null"),
            };
            if key.is("data") {
                out.push(b'[');
                for (at, (_, entry)) in kept.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    self.write_object(out, entry);
                }
                out.push(b']');
            } else if key.is("first_id") {
                id(kept.first(), out);
            } else if key.is("last_id") {
                id(kept.last(), out);
            } else if key.is("has_more") && cut {
                out.extend_from_slice(b"true");
            } else {
                out.extend_from_slice(value);
            }
        }
        out.push(b'}');
    }
}

/// Appends a key as it was sent, and a colon.
pub(super) fn write_key(out: &mut Vec<u8>, raw: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(raw);
    out.extend_from_slice(b"\":");
}

fn pairs(query: &str) -> impl DoubleEndedIterator<Item = (&str, &str)> {
    query.split('&').filter(|it| !it.is_empty()).map(|it| it.split_once('=').unwrap_or((it, "")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{anthropic, openai};

    fn filtered(
        dialect: &'static Dialect,
        query: &str,
        body: &str,
    ) -> Option<(String, usize, Option<String>)> {
        let ask = dialect.list_ask(Family::Batches, Some(query));
        let mut out = Vec::new();
        let page = dialect.filter_list(&ask, body.as_bytes(), &mut |id, _| id.starts_with('m'), &mut out)?;
        let next = page.next.map(|it| ask.query_at(&it));
        Some((String::from_utf8(out).expect("text"), page.kept, next))
    }

    #[test]
    fn a_page_shows_what_is_the_callers_and_names_nothing_else() {
        let body = r#"{"object":"list","data":[{"id":"x1"},{"id":"m1","a":[1, 2]},{"id":"m2"},{"id":"x2"}],
            "first_id":"x1","last_id":"x2","has_more":true}"#;
        let expected = r#"{"object":"list","data":[{"id":"m1","a":[1, 2]},{"id":"m2"}],"#.to_owned()
            + r#""first_id":"m1","last_id":"m2","has_more":true}"#;
        let next = "purpose=a&limit=100&after=x2".to_owned();
        assert_eq!(
            filtered(&openai::DIALECT, "purpose=a&limit=3&after=m9", body),
            Some((expected, 2, Some(next)))
        );
        let cut = r#"{"object":"list","data":[{"id":"m1","a":[1, 2]}],"first_id":"m1","last_id":"m1","has_more":true}"#;
        let ended = body.replace("true", "false");
        assert_eq!(filtered(&openai::DIALECT, "limit=1", &ended), Some((cut.to_owned(), 1, None)));
    }

    #[test]
    fn an_empty_page_says_where_the_list_goes_on() {
        let body = r#"{"data":[{"id":"x1"},{"id":"x 2"}],"has_more":true,"first_id":"x1","last_id":"x 2"}"#;
        let empty = r#"{"data":[],"has_more":true,"first_id":null,"last_id":null}"#.to_owned();
        let next = |query: &str| filtered(&anthropic::DIALECT, query, body).expect("a page");
        assert_eq!(next("limit=2"), (empty.clone(), 0, Some("limit=1000&after_id=x%202".to_owned())));
        assert_eq!(next("limit=2&before_id=x9"), (empty, 0, Some("limit=2&before_id=x1".to_owned())));
        let named = r#"{"data":[{"id":"x1"}],"next_page":"to ken"}"#;
        let page = filtered(&anthropic::DIALECT, "limit=2&page=old", named).expect("a page");
        assert_eq!(page.2.as_deref(), Some("limit=2&page=to%20ken"));
        let last = r#"{"data":[],"has_more":false,"first_id":null,"last_id":null,"next_page":null}"#;
        assert_eq!(filtered(&anthropic::DIALECT, "", last), Some((last.to_owned(), 0, None)));
    }

    #[test]
    fn what_is_no_page_is_not_shown() {
        for body in
            ["", "[]", r#"{"data":[{"id":"m1"}]"#, r#"{"data":[{"no":1}]}"#, r#"{"data":[1]}"#, r#"{"x":1}"#]
        {
            assert_eq!(filtered(&openai::DIALECT, "", body), None, "{body}");
        }
    }
}
