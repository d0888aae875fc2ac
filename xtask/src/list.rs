//! Committed lists of known exceptions: one a line, fields separated by `|`, the last one the reason. A line without a
//! reason is refused, so an exception cannot be had for nothing. What the fields mean is the reader's business.

use std::path::Path;

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where it stands, for complaints.
    pub(crate) line: usize,
    /// The fields, the reason among them as the last.
    pub(crate) fields: Vec<String>,
}

/// Reads a list of `xtask/lists`; `fields` counts the reason.
pub(crate) fn load(root: &Path, name: &str, fields: usize) -> Result<Vec<Entry>, String> {
    let path = format!("xtask/lists/{name}");
    let text = std::fs::read_to_string(root.join(&path)).map_err(|e| format!("{path}: {e}"))?;
    parse(&text, fields).map_err(|complaint| format!("{path}:{complaint}"))
}

/// Reads a list. Empty lines and lines that begin with `#` say nothing.
pub(crate) fn parse(text: &str, fields: usize) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let found: Vec<String> = line.split('|').map(|field| field.trim().to_owned()).collect();
        if found.len() != fields || found.iter().any(String::is_empty) {
            return Err(format!(
                "{}: {fields} fields separated by `|`, none empty, the last a reason",
                index + 1
            ));
        }
        entries.push(Entry { line: index + 1, fields: found });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_trimmed_and_comments_left_out() {
        let entries = parse("# what\n\na | 1 | because of it\n", 3).expect("good");
        assert_eq!(
            entries,
            [Entry { line: 3, fields: vec!["a".into(), "1".into(), "because of it".into()] }]
        );
    }

    #[test]
    fn an_entry_without_a_reason_is_refused() {
        assert!(parse("a | 1", 3).is_err());
        assert!(parse("a | 1 | ", 3).is_err());
        assert!(parse("a | 1 | why | more", 3).expect_err("four").starts_with("1:"));
    }
}
