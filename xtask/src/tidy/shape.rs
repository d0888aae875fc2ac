//! The shape of the code: every module says what it is, files and functions stay short, lines too, names say something.
//! Long files and functions that exist are listed with their length, which may only fall.

use super::Finding;
use super::source::{Source, closing, words};
use crate::list::Entry;

/// The list of long functions: file, function, lines, reason.
pub(super) const FUNCTION_LIST: &str = "functions.txt";
/// The list of long files: file, lines, reason.
pub(super) const FILE_LIST: &str = "files.txt";

/// Lines of code of a function, signature included; blank lines and comments do not count.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a file with its tests, and of a file of tests.
const FILE_LINES_WITH_TESTS_MAX: usize = 900;
/// Columns of a line.
const COLUMNS_MAX: usize = 120;
/// Module names that say nothing.
const EMPTY_NAMES: [&str; 9] =
    ["common", "handler", "helper", "helpers", "manager", "misc", "service", "util", "utils"];

/// Rules about one file.
pub(super) fn in_source(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(documentation(source));
    findings.extend(forbids_unsafe(source));
    findings.extend(names(source));
    // Rows of test tables hold texts of the wire, which are easier to read whole than cut.
    let is_table = source.is_test_file();
    for (index, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX && !is_table {
            let what = format!("{columns} columns, at most {COLUMNS_MAX}");
            findings.push(Finding::new(&source.path, index + 1, what));
        }
    }
    findings
}

/// A file begins with `//!`, and says more than one word there.
fn documentation(source: &Source) -> Option<Finding> {
    let first = source.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    let words =
        first.and_then(|line| line.strip_prefix("//!")).map_or(0, |doc| doc.split_whitespace().count());
    let what = "the module does not begin with `//!` and a sentence on what it decides";
    (words < 2).then(|| Finding::new(&source.path, 1, what))
}

/// The root file of each crate but `ring` forbids unsafe code.
fn forbids_unsafe(source: &Source) -> Option<Finding> {
    let path = source.path.as_str();
    let root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs") || path.contains("src/bin/");
    let needed = root && !path.starts_with("ring/");
    (needed && !source.code.contains("#![forbid(unsafe_code)]"))
        .then(|| Finding::new(path, 1, "a crate's root file says #![forbid(unsafe_code)]"))
}

/// Names of files, folders and inline modules.
fn names(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for part in source.path.trim_end_matches(".rs").split('/') {
        if EMPTY_NAMES.contains(&part) {
            findings.push(Finding::new(
                &source.path,
                1,
                format!("`{part}` says nothing: name what it is about"),
            ));
        }
    }
    for at in words(&source.code, "mod") {
        let name = identifier(&source.code[at + "mod".len()..]);
        if EMPTY_NAMES.contains(&name) {
            let what = format!("`mod {name}` says nothing: name what it is about");
            findings.push(Finding::new(&source.path, source.line(at), what));
        }
    }
    findings
}

/// Functions over the limit, held against the list.
pub(super) fn long_functions(sources: &[Source], known: &[Entry]) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in sources {
        for function in functions(source).into_iter().filter(|f| f.lines > FUNCTION_LINES_MAX) {
            let key = [source.path.clone(), function.name];
            found.push(Long {
                path: source.path.clone(),
                line: function.line,
                key: key.into(),
                lines: function.lines,
            });
        }
    }
    ratchet(FUNCTION_LIST, &found, known, FUNCTION_LINES_MAX)
}

/// Files over the limit, held against the list.
pub(super) fn long_files(sources: &[Source], known: &[Entry]) -> Vec<Finding> {
    let mut found = Vec::new();
    for source in sources {
        let all = source.text.lines().count();
        let without_tests = if source.is_test_file() { 0 } else { source.lines_without_tests() };
        if without_tests > FILE_LINES_MAX || all > FILE_LINES_WITH_TESTS_MAX {
            let key = vec![source.path.clone()];
            found.push(Long { path: source.path.clone(), line: 1, key, lines: all });
        }
    }
    ratchet(FILE_LIST, &found, known, FILE_LINES_MAX)
}

struct Long {
    path: String,
    line: usize,
    /// The fields that name it in the list.
    key: Vec<String>,
    lines: usize,
}

/// Each long thing stands in the list with exactly its length; what became shorter lowers its number.
fn ratchet(list: &str, found: &[Long], known: &[Entry], limit: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    for long in found {
        let entry = known.iter().find(|entry| entry.fields.starts_with(&long.key));
        let listed = entry.and_then(|entry| entry.fields.get(long.key.len())?.parse::<usize>().ok());
        let name = long.key.get(1).map_or("the file", String::as_str);
        let what = match listed {
            Some(listed) if listed == long.lines => continue,
            Some(listed) if listed > long.lines => {
                format!("{name} fell to {} lines: lower its number in {list}", long.lines)
            }
            Some(listed) => format!("{name} grew from {listed} to {} lines", long.lines),
            None => format!("{name}: {} lines, at most {limit}", long.lines),
        };
        findings.push(Finding::new(&long.path, long.line, what));
    }
    for entry in known {
        if !found.iter().any(|long| entry.fields.starts_with(&long.key)) {
            let what = format!("{} is no longer too long: take the line out", entry.fields[0]);
            findings.push(Finding::new(list, entry.line, what));
        }
    }
    findings
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Every function with a body, nested ones as well.
fn functions(source: &Source) -> Vec<Function> {
    let code = source.code.as_str();
    let mut functions = Vec::new();
    for at in words(code, "fn") {
        let name = identifier(&code[at + "fn".len()..]);
        let Some(open) = (if name.is_empty() { None } else { body(code, at) }) else { continue };
        let end = closing(code, open);
        let lines = code[at..end].lines().filter(|line| !line.trim().is_empty()).count();
        functions.push(Function { name: name.into(), line: source.line(at), lines });
    }
    functions
}

/// Where the body of the function at `at` opens; `None` for a declaration. Braces in brackets or parentheses belong to
/// the signature.
fn body(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0i32;
    for (offset, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(offset),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The name that follows, or nothing.
fn identifier(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &text[..end] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path, text.into())
    }

    fn function(lines: usize) -> String {
        format!("fn long(a: [u8; 2]) -> u8 {{\n{}}}\n", "    a();\n".repeat(lines - 2))
    }

    #[test]
    fn a_file_begins_with_a_sentence() {
        assert_eq!(documentation(&source("core/src/a.rs", "//! What it decides.\nfn a() {}")), None);
        assert_eq!(documentation(&source("core/src/a.rs", "#![cfg(loom)]\n\n//! What it decides.")), None);
        for bad in ["fn a() {}", "// What it decides.", "//! placeholder\nfn main() {}", ""] {
            assert!(documentation(&source("core/src/a.rs", bad)).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_crate_root_forbids_unsafe_code() {
        assert!(forbids_unsafe(&source("core/src/lib.rs", "//! A crate.\n")).is_some());
        assert!(forbids_unsafe(&source("loadtest/src/bin/tool.rs", "// #![forbid(unsafe_code)]")).is_some());
        assert!(forbids_unsafe(&source("src/main.rs", "#![forbid(unsafe_code)]")).is_none());
        assert!(forbids_unsafe(&source("core/src/a.rs", "")).is_none());
        assert!(forbids_unsafe(&source("ring/src/lib.rs", "")).is_none());
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        assert_eq!(names(&source("core/src/utils.rs", "")).len(), 1);
        assert_eq!(names(&source("tests/common/mod.rs", "")).len(), 1);
        assert_eq!(names(&source("core/src/a.rs", "mod helpers { }")).len(), 1);
        assert!(names(&source("core/src/commonly.rs", "mod utility; // mod utils")).is_empty());
    }

    #[test]
    fn long_lines_are_found() {
        let text = format!("//! Two words.\n// {}\n// {}\n", "ä".repeat(117), "x".repeat(118));
        let found = in_source(&source("core/src/a.rs", &text));
        assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_function_is_measured_in_lines_of_code() {
        let text = "trait T { fn declared(&self); }\nfn a<'a>(\n    b: &'a str,\n) -> [u8; 2] {\n    // why\n\n\
                    c(\"{\")\n}\n";
        let found = functions(&source("core/src/a.rs", text));
        assert_eq!(found.iter().map(|f| (f.name.as_str(), f.lines)).collect::<Vec<_>>(), [("a", 5)]);
    }

    #[test]
    fn a_long_function_is_refused_unless_listed_with_its_length() {
        let sources = |lines| [source("core/src/a.rs", &function(lines))];
        let known = |text| list::parse(text, 4).expect("a good list");
        assert!(long_functions(&sources(70), &[]).is_empty());
        assert!(long_functions(&sources(71), &[])[0].what.contains("71 lines, at most 70"));
        let listed = known("core/src/a.rs | long | 80 | one table");
        assert!(long_functions(&sources(80), &listed).is_empty());
        assert!(long_functions(&sources(81), &listed)[0].what.contains("grew from 80 to 81"));
        assert!(long_functions(&sources(79), &listed)[0].what.contains("fell to 79"));
        assert!(long_functions(&sources(70), &listed)[0].what.contains("take the line out"));
    }

    #[test]
    fn a_long_file_is_refused_and_tests_have_more_room() {
        let lines = |count: usize| "let a = 1;\n".repeat(count);
        let tests = |count| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", lines(count));
        assert!(long_files(&[source("core/src/a.rs", &lines(600))], &[]).is_empty());
        assert_eq!(long_files(&[source("core/src/a.rs", &lines(601))], &[]).len(), 1);
        assert!(long_files(&[source("core/src/a.rs", &(lines(590) + &tests(290)))], &[]).is_empty());
        assert_eq!(long_files(&[source("core/src/a.rs", &(lines(590) + &tests(310)))], &[]).len(), 1);
        assert!(long_files(&[source("tests/tests/a.rs", &lines(900))], &[]).is_empty());
        assert_eq!(long_files(&[source("tests/tests/a.rs", &lines(901))], &[]).len(), 1);
        let known = list::parse("core/src/a.rs | 640 | a table", 3).expect("a good list");
        assert!(long_files(&[source("core/src/a.rs", &lines(640))], &known).is_empty());
        assert_eq!(long_files(&[source("core/src/a.rs", &lines(650))], &known).len(), 1);
    }
}
