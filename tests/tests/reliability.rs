//! The page of promises, held against the tests that it names: each exists, each row is whole, and no test is named for
//! its looks alone. Whether they pass is the business of the run that this is a part of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tidegate_tests::say;

/// Heads of the two kinds of tables.
const SHOWN: [&str; 4] = ["promise", "shown by", "last result", "seen failing when"];
const MISSING: [&str; 2] = ["promise", "why it does not apply yet"];
/// Forms that a result may have.
const FORMS: [&str; 2] = ["CI", "long"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A row of the page.
struct Row {
    line: usize,
    cells: Vec<String>,
}

/// The rows under heads of this kind; the error says what is no row.
fn rows(page: &str, head: &[&str]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let mut inside = false;
    for (at, line) in page.lines().enumerate() {
        let Some(inner) = line.strip_prefix('|').and_then(|it| it.trim_end().strip_suffix('|')) else {
            inside = false;
            continue;
        };
        let cells: Vec<String> = inner.split('|').map(|it| it.trim().to_owned()).collect();
        if cells == head {
            inside = true;
        } else if inside && !cells.iter().all(|it| it.chars().all(|it| it == '-')) {
            if cells.len() != head.len() || cells.iter().any(String::is_empty) {
                return Err(format!("line {}: not {} cells, or an empty one", at + 1, head.len()));
            }
            rows.push(Row { line: at + 1, cells });
        }
    }
    Ok(rows)
}

/// The tests of a cell: `file::name`, each in backticks, with commas between.
fn tests(cell: &str) -> Result<Vec<(String, String)>, String> {
    let named = cell.split(", ").map(|it| {
        let text = it.strip_prefix('`').and_then(|it| it.strip_suffix('`'))?;
        let (file, name) = text.split_once("::")?;
        Some((file.to_owned(), name.to_owned()))
    });
    named.collect::<Option<_>>().ok_or_else(|| format!("not a list of tests: {cell}"))
}

/// Whether a result is a day and a form.
fn is_result(cell: &str) -> bool {
    let Some((day, form)) = cell.split_once(", ") else { return false };
    let digits = |it: &str, length: usize| it.len() == length && it.bytes().all(|it| it.is_ascii_digit());
    let parts: Vec<&str> = day.split('-').collect();
    matches!(parts.as_slice(), [y, m, d] if digits(y, 4) && digits(m, 2) && digits(d, 2))
        && FORMS.contains(&form)
}

fn check(page: &str, source: impl Fn(&str) -> Option<String>) -> Result<(usize, usize, usize), String> {
    let shown = rows(page, &SHOWN)?;
    let missing = rows(page, &MISSING)?;
    let mut all = BTreeSet::new();
    for row in &shown {
        let complain = |what: &str| format!("line {}: {what}", row.line);
        for (file, name) in tests(&row.cells[1]).map_err(|it| complain(&it))? {
            let text = source(&file).ok_or_else(|| complain(&format!("there is no {file}")))?;
            if !text.contains(&format!("fn {name}(")) {
                return Err(complain(&format!("there is no `{name}` in {file}")));
            }
            all.insert((file, name));
        }
        if !is_result(&row.cells[2]) {
            return Err(complain("a result is a day and one of the forms, as `2026-01-31, CI`"));
        }
    }
    Ok((shown.len(), missing.len(), all.len()))
}

#[test]
fn every_promise_names_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/reliability.md")).expect("the page");
    let counts = check(&page, |file| std::fs::read_to_string(root().join(file)).ok());
    let (shown, missing, tests) = counts.unwrap_or_else(|wrong| panic!("docs/reliability.md, {wrong}"));
    say(&format!("{shown} promises, shown by {tests} tests; {missing} about what is not there yet"));
    assert!(shown >= 50 && tests >= 90 && missing >= 5, "rows got lost: {shown}, {tests}, {missing}");
}

#[test]
fn the_page_is_led_to() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README");
    assert!(readme.contains("(docs/reliability.md)"));
}

#[test]
fn what_is_not_whole_is_found() {
    let source = |file: &str| (file == "a.rs").then(|| "fn one() {} fn two() {}".to_owned());
    let head = "| promise | shown by | last result | seen failing when |\n| --- | --- | --- | --- |\n";
    let good = "| it holds | `a.rs::one`, `a.rs::two` | 2026-01-31, CI | it was left out |\n";
    let later =
        "\n| promise | why it does not apply yet |\n| --- | --- |\n| it caches | there is no cache |\n";
    assert_eq!(check(&format!("{head}{good}{later}"), source), Ok((1, 1, 2)));
    for (wrong, why) in [
        (good.replace("one", "none"), "line 3: there is no `none` in a.rs"),
        (good.replace("a.rs::two", "b.rs::two"), "line 3: there is no b.rs"),
        (good.replace('`', ""), "not a list of tests"),
        (good.replace(", CI", ""), "a day and one of the forms"),
        (good.replace("CI", "somewhere"), "a day and one of the forms"),
        (good.replace("it was left out", ""), "an empty one"),
        (good.replace("| it holds ", ""), "not 4 cells"),
    ] {
        let found = check(&format!("{head}{wrong}{later}"), source).expect_err(&wrong);
        assert!(found.contains(why), "{found}");
    }
    assert!(check(&format!("{head}{good}{later}").replace("there is no cache", ""), source).is_err());
}
