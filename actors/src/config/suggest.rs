//! Which of the known names somebody probably meant. Pure.

/// The known name nearest to `word`, if it is near enough to be a slip of the hand.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nothing that long is a name; the distance below is quadratic.
    if word.len() > 64 {
        return None;
    }
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (distance(word, name), name))
        .filter(|(far, name)| *far <= allowed && *far < name.chars().count())
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// A hint out of [`nearest`], else the list of what there is.
pub(super) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(name) = nearest(word, known.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let all: Vec<&str> = known.into_iter().take(24).collect();
    (!all.is_empty()).then(|| format!("there is: {}", all.join(", ")))
}

/// Edits between two words: insertions, deletions, exchanges, and neighbours swapped.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, &y) in b.iter().enumerate() {
            let exchange = last[j] + usize::from(x != y);
            row[j + 1] = exchange.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                row[j + 1] = row[j + 1].min(before_last[j - 1] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["listen", "providers", "virtual_keys", "weight"];
        for (word, expect) in [
            ("lisen", Some("listen")),
            ("wieght", Some("weight")),
            ("virtual-keys", Some("virtual_keys")),
            ("Providers", Some("providers")),
            ("colour", None),
        ] {
            assert_eq!(nearest(word, known), expect, "{word}");
        }
    }
}
