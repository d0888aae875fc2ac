//! What is wrong with a configuration, where, and what to do about it. Collects and renders; decides nothing.
//!
//! A snippet never shows a literal secret: the text that snippets are cut from is masked before it is kept.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Complaints listed before the rest is only counted: a generated file with one mistake repeated must not bury it.
const COMPLAINTS_MAX: usize = 200;

/// Whether a complaint stops the configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It works, but hardly as meant.
    Warning,
}

/// A position in a file, both numbers from one, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named.
    pub file: Arc<str>,
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is; `None` where the file as a whole is meant, or there is none.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        let level = if self.severity == Severity::Error { "error" } else { "warning" };
        write!(f, "{level}: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with one configuration, at least one error among it.
#[derive(Clone, Debug)]
pub struct Complaints {
    list: Vec<Complaint>,
    text: Arc<str>,
}

impl Complaints {
    pub(super) fn new(list: Vec<Complaint>, text: Arc<str>) -> Complaints {
        Complaints { list, text }
    }

    /// A single error without a place.
    pub fn of(message: impl Into<String>) -> Complaints {
        let only = Complaint { severity: Severity::Error, place: None, message: message.into(), hint: None };
        Complaints { list: vec![only], text: "".into() }
    }

    /// The complaints, in the order of their places.
    pub fn list(&self) -> &[Complaint] {
        &self.list
    }

    /// All of them with the lines they are about, for a terminal when `styled`.
    pub fn render(&self, styled: bool) -> String {
        render(&self.list, &self.text, styled)
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Complaints {}

/// A position inside the file being checked. Zero where the reader knows none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Where a check writes down what it finds. The only state of a check.
pub(super) struct Notes {
    file: Arc<str>,
    list: RefCell<Vec<Complaint>>,
    unlisted: Cell<usize>,
    failed: Cell<bool>,
}

impl Notes {
    pub(super) fn new(file: &str) -> Notes {
        Notes {
            file: file.into(),
            list: RefCell::default(),
            unlisted: Cell::default(),
            failed: Cell::default(),
        }
    }

    pub(super) fn error(&self, spot: Spot, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.failed.set(true);
        self.add(Severity::Error, spot, message.into(), hint.into());
    }

    pub(super) fn warning(&self, spot: Spot, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.add(Severity::Warning, spot, message.into(), hint.into());
    }

    /// True once an error was noted.
    pub(super) fn failed(&self) -> bool {
        self.failed.get()
    }

    fn add(&self, severity: Severity, spot: Spot, message: String, hint: Option<String>) {
        let mut list = self.list.borrow_mut();
        if list.len() >= COMPLAINTS_MAX {
            self.unlisted.set(self.unlisted.get() + 1);
            return;
        }
        let place =
            (spot.line > 0).then(|| Place { file: self.file.clone(), line: spot.line, column: spot.column });
        list.push(Complaint { severity, place, message, hint });
    }

    /// What was noted, in the order of the file.
    pub(super) fn into_list(self) -> Vec<Complaint> {
        let mut list = self.list.into_inner();
        list.sort_by_key(|it| it.place.as_ref().map_or((0, 0), |place| (place.line, place.column)));
        let unlisted = self.unlisted.get();
        if unlisted > 0 {
            let severity = if self.failed.get() { Severity::Error } else { Severity::Warning };
            list.push(Complaint {
                severity,
                place: None,
                message: format!("{unlisted} more complaints are not listed"),
                hint: Some("mend those above first".into()),
            });
        }
        list
    }
}

pub(super) fn render(list: &[Complaint], text: &str, styled: bool) -> String {
    let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    for complaint in list {
        out.push_str(&render_one(complaint, &lines, &renderer));
        out.push_str("\n\n");
    }
    out
}

fn render_one(complaint: &Complaint, lines: &[&str], renderer: &Renderer) -> String {
    let level = match complaint.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(complaint.message.as_str()));
    let place = complaint.place.as_ref();
    if let Some((place, line)) = place.and_then(|it| Some((it, *lines.get(it.line as usize - 1)?))) {
        let span = word_at(line, place.column as usize);
        group = group.element(
            Snippet::source(line)
                .line_start(place.line as usize)
                .path(&*place.file)
                .annotation(AnnotationKind::Primary.span(span)),
        );
    }
    if let Some(hint) = &complaint.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    renderer.render(&[group])
}

/// The bytes of the word that begins at a column counted in characters from one.
fn word_at(line: &str, column: usize) -> std::ops::Range<usize> {
    let start = line.char_indices().nth(column.saturating_sub(1)).map_or(line.len(), |(at, _)| at);
    let rest = &line[start..];
    let ends_word = |it: char| it.is_whitespace() || matches!(it, ',' | ':' | '}' | ']' | '{' | '[');
    let quote = rest.chars().next().filter(|it| matches!(it, '"' | '\''));
    let length = match quote {
        Some(quote) => rest[1..].find(quote).map_or(rest.len(), |at| at + 2),
        None => rest.find(ends_word).unwrap_or(rest.len()),
    };
    let first = rest.chars().next().map_or(0, char::len_utf8);
    start..start + length.max(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_at_the_signs_of_yaml() {
        for (line, column, word) in [
            ("listen: here", 1, "listen"),
            ("listen: here", 9, "here"),
            ("a: { b: \"x, y\" }", 9, "\"x, y\""),
            ("é: ü", 4, "ü"),
            ("short", 40, ""),
            ("{ x }", 1, "{"),
        ] {
            assert_eq!(&line[word_at(line, column)], word, "{line}");
        }
    }

    #[test]
    fn a_flood_is_counted_not_listed() {
        let notes = Notes::new("f.yaml");
        for at in 0..COMPLAINTS_MAX as u32 + 7 {
            notes.error(Spot { line: at + 1, column: 1 }, "wrong", None);
        }
        let list = notes.into_list();
        assert_eq!(list.len(), COMPLAINTS_MAX + 1);
        assert!(list.last().is_some_and(|it| it.message.starts_with("7 more")));
    }
}
