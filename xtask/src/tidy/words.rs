//! Words that have their place: vendors' names under `providers/`, unsafe code in `ring/`, marks of unfinished work and
//! paths of somebody's machine nowhere. An exception for a vendor's name is a line with a reason, and goes stale.

use super::Finding;
use super::source::{Source, words};
use crate::list::Entry;

/// The list of exceptions for vendors' names: file, name, reason.
pub(super) const VENDOR_LIST: &str = "vendor_names.txt";

/// Names that only a dialect, a mock of a provider or a test may know.
const VENDORS: [&str; 11] = [
    "anthropic",
    "azure",
    "bedrock",
    "claude",
    "deepseek",
    "gemini",
    "gpt-",
    "mistral",
    "ollama",
    "openai",
    "vertex",
];
/// Folders in which they stand by right.
const VENDOR_FOLDERS: [&str; 6] = ["providers/", "loadtest/", "tests/", "bench/", "fuzz/", "xtask/"];
/// The only crate with unsafe code.
const UNSAFE_FOLDER: &str = "ring/";
/// The rules spell what they forbid.
const RULES: &str = "xtask/src/tidy/";
/// Marks of unfinished work in comments.
const UNFINISHED: [&str; 4] = ["FIXME", "HACK", "TODO", "XXX"];
/// Macros of unfinished work.
const UNFINISHED_MACROS: [&str; 2] = ["todo!", "unimplemented!"];
/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 5] = ["/work/", "/root/", "/home/", "/Users/", "/mnt/"];

/// Vendors' names outside their places, tests left out.
pub(super) fn vendor_names(sources: &[Source], known: &[Entry]) -> Vec<Finding> {
    let mut used = vec![false; known.len()];
    let mut findings = Vec::new();
    for source in sources {
        if VENDOR_FOLDERS.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        let lower = source.text.to_ascii_lowercase();
        for vendor in VENDORS {
            for (at, _) in lower.match_indices(vendor).filter(|(at, _)| !source.is_test(*at)) {
                match known.iter().position(|e| e.fields[0] == source.path && e.fields[1] == vendor) {
                    Some(index) => used[index] = true,
                    None => findings.push(Finding::new(
                        &source.path,
                        source.line(at),
                        format!("`{vendor}`: vendors' names belong under providers/ or into {VENDOR_LIST}"),
                    )),
                }
            }
        }
    }
    for (entry, _) in known.iter().zip(used).filter(|(_, used)| !used) {
        let what =
            format!("`{}` no longer stands in {}: take the line out", entry.fields[1], entry.fields[0]);
        findings.push(Finding::new(VENDOR_LIST, entry.line, what));
    }
    findings
}

/// Unsafe code, unfinished work, ignored tests without a reason.
pub(super) fn in_source(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |at: usize, what: String| findings.push(Finding::new(&source.path, source.line(at), what));
    if !source.path.starts_with(UNSAFE_FOLDER) {
        for at in words(&source.code, "unsafe") {
            add(at, "unsafe code outside ring/".into());
        }
    }
    for name in UNFINISHED_MACROS {
        for (at, _) in source.code.match_indices(name) {
            add(at, format!("`{name}`: nothing lands unfinished"));
        }
    }
    if !source.path.starts_with(RULES) {
        for mark in UNFINISHED {
            for at in words(&source.comments, mark) {
                add(at, format!("{mark}: nothing lands unfinished"));
            }
        }
    }
    for (at, _) in source.code.match_indices("#[ignore]") {
        add(at, "an ignored test says why: #[ignore = \"…\"]".into());
    }
    findings
}

/// Paths of somebody's machine, in any text.
pub(super) fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    if path.starts_with(RULES) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for machine in MACHINE_PATHS {
            let begins = line.match_indices(machine).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '-' | '_' | '}' | ')'))
            });
            if begins {
                findings.push(Finding::new(path, index + 1, format!("{machine}: a path of one machine")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path, text.into())
    }

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn vendors_are_found_in_code_strings_and_comments_but_not_in_tests() {
        let text = "//! A\nlet a = \"Claude\"; // OpenAI\nstruct Anthropic;\n#[cfg(test)]\nmod tests {\n\
                    const B: &str = \"gpt-5\";\n}\n";
        let found = vendor_names(&[source("core/src/a.rs", text)], &[]);
        let mut found = lines(&found);
        found.sort_unstable();
        assert_eq!(found, [2, 2, 3]);
        assert!(vendor_names(&[source("providers/src/a.rs", text)], &[]).is_empty());
        assert!(vendor_names(&[source("gateway/src/path/tests.rs", text)], &[]).is_empty());
    }

    #[test]
    fn an_exception_is_one_file_and_one_name_and_goes_stale() {
        let sources = [source("src/serve.rs", "let a = \"ANTHROPIC_API_KEY\";")];
        let known = |text| list::parse(text, 3).expect("a good list");
        assert!(vendor_names(&sources, &known("src/serve.rs | anthropic | the variable's name")).is_empty());
        assert_eq!(vendor_names(&sources, &known("src/check.rs | anthropic | why")).len(), 2);
        assert_eq!(vendor_names(&sources, &known("src/serve.rs | openai | why")).len(), 2);
    }

    #[test]
    fn unsafe_code_stays_in_ring() {
        let text = "//! A\n#![forbid(unsafe_code)]\nfn a() {\n    unsafe { b() }\n}\n";
        assert_eq!(lines(&in_source(&source("core/src/a.rs", text))), [4]);
        assert!(in_source(&source("ring/src/a.rs", text)).is_empty());
    }

    #[test]
    fn unfinished_work_is_found() {
        let text = "// FIXME later\nfn a() { todo!() }\nfn b() { unimplemented!(\"x\") }\n// XXX\nlet c = \"TODO\";\n";
        let mut found = lines(&in_source(&source("core/src/a.rs", text)));
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3, 4]);
    }

    #[test]
    fn an_ignored_test_needs_a_reason() {
        let text = "#[ignore]\nfn a() {}\n#[ignore = \"needs an hour\"]\nfn b() {}\n";
        assert_eq!(lines(&in_source(&source("core/src/a.rs", text))), [1]);
    }

    #[test]
    fn machine_paths_are_found_and_addresses_are_not() {
        let text = "cd /work/dir0\nsee `/home/me/x`\nhttps://example.com/work/a\na/home/b, ${x}/work/y\n\"/root/.a\"";
        assert_eq!(lines(&machine_paths("README.md", text)), [1, 2, 5]);
    }
}
