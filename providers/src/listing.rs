//! Lists of models: which entries a page holds. The entries come from the configuration; how they are written is
//! each dialect's affair.

use crate::path::Page;

/// One model of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelCard<'a> {
    /// The name callers use.
    pub id: &'a str,
    /// Unix time that is said to be its creation.
    pub created_s: u64,
}

/// The entries of one page, and whether more follow in the direction of reading.
pub(crate) struct Slice<'a> {
    pub(crate) cards: Vec<ModelCard<'a>>,
    pub(crate) has_more: bool,
}

/// Takes the page out of `models`: `after_id` reads forwards from behind an entry, `before_id` the entries directly
/// in front of one. An id that is not in the list gives an empty page. List calls are rare; this one collects.
pub(crate) fn slice<'a>(
    models: &mut dyn Iterator<Item = ModelCard<'a>>,
    page: &Page<'_>,
    limit_default: usize,
    limit_max: usize,
) -> Slice<'a> {
    let asked = page.limit.map_or(limit_default, |it| usize::try_from(it).unwrap_or(limit_max));
    let limit = asked.clamp(1, limit_max);
    let mut cards: Vec<ModelCard<'a>> = models.collect();
    if let Some(before) = &page.before_id {
        let end = cards.iter().position(|it| it.id == before.as_ref()).unwrap_or(0);
        cards.truncate(end);
        let start = end.saturating_sub(limit);
        cards.drain(..start);
        return Slice { cards, has_more: start > 0 };
    }
    if let Some(after) = &page.after_id {
        let start = cards.iter().position(|it| it.id == after.as_ref()).map_or(cards.len(), |it| it + 1);
        cards.drain(..start);
    }
    let has_more = cards.len() > limit;
    cards.truncate(limit);
    Slice { cards, has_more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(
        limit: Option<u32>,
        after: Option<&'static str>,
        before: Option<&'static str>,
    ) -> (Vec<&'static str>, bool) {
        let names = ["a", "b", "c", "d", "e"];
        let mut cards = names.iter().map(|id| ModelCard { id, created_s: 0 });
        let page = Page { limit, after_id: after.map(Into::into), before_id: before.map(Into::into) };
        let slice = slice(&mut cards, &page, 2, 4);
        (slice.cards.iter().map(|it| it.id).collect(), slice.has_more)
    }

    #[test]
    fn pages_follow_each_other_in_both_directions() {
        assert_eq!(page(None, None, None), (vec!["a", "b"], true));
        assert_eq!(page(Some(1000), None, None), (vec!["a", "b", "c", "d"], true));
        assert_eq!(page(Some(0), None, None), (vec!["a"], true));
        assert_eq!(page(None, Some("b"), None), (vec!["c", "d"], true));
        assert_eq!(page(None, Some("c"), None), (vec!["d", "e"], false));
        assert_eq!(page(None, Some("d"), None), (vec!["e"], false));
        assert_eq!(page(None, Some("e"), None), (vec![], false));
        assert_eq!(page(None, Some("x"), None), (vec![], false));
        assert_eq!(page(None, None, Some("d")), (vec!["b", "c"], true));
        assert_eq!(page(None, None, Some("c")), (vec!["a", "b"], false));
        assert_eq!(page(None, None, Some("x")), (vec![], false));
    }
}
