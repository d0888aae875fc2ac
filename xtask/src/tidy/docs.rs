//! What the documents claim and the tree can confirm: commands, links, the map of crates, the table of cells, and a
//! line for every direct dependency. Never judges prose.

use std::collections::BTreeSet;

use super::source::{Source, words};
use super::{Finding, Tree};
use crate::COMMANDS;
use crate::metadata::Workspace;

const README: &str = "README.md";
const ARCHITECTURE: &str = "ARCHITECTURE.md";
const DEPENDENCIES: &str = "docs/dependencies.md";
/// Where the cells are: what changes per request, written by many.
const CELLS: &str = "core/src/";
/// The types of which cells are made.
const ATOMICS: [&str; 8] =
    ["ArcSwap", "AtomicBool", "AtomicI64", "AtomicU16", "AtomicU32", "AtomicU64", "AtomicU8", "AtomicUsize"];

/// Runs the rules about documents.
pub(super) fn check(tree: &Tree, workspace: &Workspace) -> Vec<Finding> {
    let paths: BTreeSet<&str> = tree
        .rust
        .iter()
        .map(|source| source.path.as_str())
        .chain(tree.other.iter().map(|(path, _)| path.as_str()))
        .collect();
    let binaries: BTreeSet<&str> =
        workspace.members().flat_map(|package| package.binaries.iter().map(String::as_str)).collect();
    let dependencies: BTreeSet<&str> = workspace
        .members()
        .flat_map(|package| package.dependencies.iter().filter(|d| !d.ours).map(|d| d.name.as_str()))
        .collect();
    let folders: Vec<&str> = workspace.members().filter_map(|package| package.folder.as_deref()).collect();
    let mut findings = Vec::new();
    for (path, text) in tree.other.iter().filter(|(path, _)| path.ends_with(".md")) {
        findings.extend(commands(path, text, &paths, &binaries));
        findings.extend(links(path, text, &paths));
    }
    findings.extend(named(tree, README, two_commands));
    findings.extend(named(tree, DEPENDENCIES, |text| dependency_lines(text, &dependencies)));
    findings.extend(named(tree, ARCHITECTURE, |text| folders_named(text, &folders)));
    findings.extend(named(tree, ARCHITECTURE, |text| cells_named(text, &tree.rust)));
    findings
}

/// Runs a rule about one document, which has to be there.
fn named(tree: &Tree, path: &str, rule: impl FnOnce(&str) -> Vec<Finding>) -> Vec<Finding> {
    match tree.other.iter().find(|(there, _)| there == path) {
        Some((_, text)) => rule(text),
        None => vec![Finding::new(path, 1, "the document is missing")],
    }
}

/// The two commands that a stranger types.
fn two_commands(text: &str) -> Vec<Finding> {
    ["cargo run --release -- demo", "cargo xtask test"]
        .into_iter()
        .filter(|command| !text.contains(command))
        .map(|command| Finding::new(README, 1, format!("`{command}` is not shown")))
        .collect()
}

/// Every command that a document shows exists: those of `xtask`, of the binary, and binaries by name.
fn commands(path: &str, text: &str, paths: &BTreeSet<&str>, binaries: &BTreeSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let product = |name: &str| {
        paths.contains(format!("src/{name}.rs").as_str())
            || paths.contains(format!("src/{name}/mod.rs").as_str())
    };
    for (index, line) in code_lines(text) {
        let mut complain = |what: String| findings.push(Finding::new(path, index + 1, what));
        for name in words_after(&line, "cargo xtask ") {
            if !COMMANDS.iter().any(|(known, _)| *known == name) {
                complain(format!("`cargo xtask {name}` does not exist"));
            }
        }
        for name in words_after(&line, "--bin ").filter(|name| !binaries.contains(name)) {
            complain(format!("there is no binary `{name}`"));
        }
        for before in ["cargo run --release -- ", "cargo run -- ", "tidegate "] {
            for name in words_after(&line, before).filter(|name| !product(name)) {
                complain(format!("`tidegate {name}` does not exist"));
            }
        }
    }
    findings
}

/// Code of a document by line: the lines of fenced blocks without their comments, and what stands in backticks.
fn code_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            lines.push((index, line.split(" #").next().unwrap_or_default().to_owned()));
        } else {
            lines.extend(line.split('`').skip(1).step_by(2).map(|code| (index, code.to_owned())));
        }
    }
    lines
}

/// The command words behind each `before` that is not the end of a longer word.
fn words_after<'a>(line: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(before).filter_map(move |(at, _)| {
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-')) {
            return None;
        }
        let rest = &line[at + before.len()..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(rest.len());
        let word = &rest[..end];
        (!word.is_empty() && !word.starts_with('-')).then_some(word)
    })
}

/// Relative links lead to a file or folder of the tree.
fn links(path: &str, text: &str, paths: &BTreeSet<&str>) -> Vec<Finding> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let whole = resolved(folder, target);
            let below = format!("{whole}/");
            if !paths.contains(whole.as_str()) && !paths.iter().any(|there| there.starts_with(&below)) {
                findings.push(Finding::new(path, index + 1, format!("the link to {target} leads nowhere")));
            }
        }
    }
    findings
}

/// A relative path below the root.
fn resolved(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// A row for each direct dependency and none for what is no longer one.
fn dependency_lines(text: &str, dependencies: &BTreeSet<&str>) -> Vec<Finding> {
    let mut rows = BTreeSet::new();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(name) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) else { continue };
        if !dependencies.contains(name) {
            findings.push(Finding::new(DEPENDENCIES, index + 1, format!("`{name}` is no direct dependency")));
        }
        rows.insert(name);
    }
    for name in dependencies.difference(&rows) {
        findings.push(Finding::new(DEPENDENCIES, 1, format!("`{name}` has no row")));
    }
    findings
}

/// The map names every folder that holds a crate.
fn folders_named(text: &str, folders: &[&str]) -> Vec<Finding> {
    let missing = |folder: &&&str| !folder.is_empty() && !text.contains(&format!("`{folder}/`"));
    let finding = |folder: &&str| Finding::new(ARCHITECTURE, 1, format!("`{folder}/` is not on the map"));
    folders.iter().filter(missing).map(finding).collect()
}

/// The table of cells names every atomic of the crate that holds them.
fn cells_named(text: &str, sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with(CELLS)) {
        for (at, name) in atomic_fields(source) {
            if !text.contains(&format!("`{name}`")) {
                let what = format!("the cell `{name}` has no row in {ARCHITECTURE}");
                findings.push(Finding::new(&source.path, source.line(at), what));
            }
        }
    }
    findings
}

/// Fields `name: AtomicU64`, fields that wrap or repeat one, and tuple structs made of one, outside tests.
fn atomic_fields(source: &Source) -> Vec<(usize, &str)> {
    let mut fields = Vec::new();
    let mut offset = 0;
    for line in source.code.split_inclusive('\n') {
        let (at, declaration) = (offset, line.trim());
        offset += line.len();
        if !ATOMICS.iter().any(|atomic| words(declaration, atomic).next().is_some()) || source.is_test(at) {
            continue;
        }
        let declaration = declaration.strip_prefix("pub(crate) ").unwrap_or(declaration);
        let declaration = declaration.strip_prefix("pub ").unwrap_or(declaration);
        let name = match declaration.strip_prefix("struct ") {
            Some(tuple) => tuple.split(['(', '<']).next(),
            None => field_name(declaration),
        };
        fields.extend(name.map(|name| (at, name)));
    }
    fields
}

/// The name of a field that is declared, not of one that is being filled in or passed.
fn field_name(line: &str) -> Option<&str> {
    let (name, kind) = line.split_once(':')?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let declared = line.ends_with(',') && !kind.contains("::new") && !kind.contains('&');
    (declared && !name.is_empty() && name.bytes().all(plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(names: &[&'a str]) -> BTreeSet<&'a str> {
        names.iter().copied().collect()
    }

    #[test]
    fn a_command_that_does_not_exist_is_found() {
        let paths = set(&["src/serve.rs", "src/demo.rs"]);
        let binaries = set(&["tidegate-load"]);
        let good = "```\ncargo run --release -- demo\n$ tidegate serve -c x.yaml # tidegate dance\n\
                    cargo xtask tidy\ncargo run -p l --bin tidegate-load\n```\n\
                    `tidegate serve`, a tidegate user, `cargo xtask`, `tidegate -h`";
        assert_eq!(commands(README, good, &paths, &binaries), []);
        for bad in [
            "`tidegate dance`",
            "```\ncargo run --release -- dance\n```",
            "`cargo xtask dance`",
            "`x --bin dance`",
        ] {
            assert_eq!(commands(README, bad, &paths, &binaries).len(), 1, "{bad}");
        }
    }

    #[test]
    fn the_readme_shows_the_two_commands() {
        assert_eq!(two_commands("cargo run --release -- demo, cargo xtask test"), []);
        assert_eq!(two_commands("").len(), 2);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let paths = set(&["LICENSE", "docs/a.md", "docs/decisions/001.md"]);
        let good = "[a](LICENSE) [b](docs/decisions) [c](https://x.y/z) [d](#here) [e](docs/a.md#part)";
        assert_eq!(links(README, good, &paths), []);
        assert_eq!(links("docs/decisions/001.md", "[up](../../LICENSE) [beside](../a.md)", &paths), []);
        assert_eq!(links(README, "[a](docs/b.md)\n[b](doc)", &paths).len(), 2);
    }

    #[test]
    fn a_dependency_without_a_row_and_a_row_without_a_dependency_are_found() {
        let text = "| name | what |\n| --- | --- |\n| `libc` | calls | nothing |\n";
        assert_eq!(dependency_lines(text, &set(&["libc"])), []);
        assert_eq!(dependency_lines(text, &set(&["libc", "slab"])).len(), 1);
        assert_eq!(dependency_lines(text, &set(&[])).len(), 1);
    }

    #[test]
    fn a_crate_off_the_map_is_found() {
        assert_eq!(folders_named("`core/` and `tests/loom/`", &["core", "tests/loom", ""]), []);
        assert_eq!(folders_named("core", &["core"]).len(), 1);
    }

    #[test]
    fn a_cell_without_a_row_is_found() {
        let text = "struct Cell {\n    level: AtomicU64,\n    pub resting_until: Padded<AtomicU64>,\n\
                    name: String,\n}\nfn a(b: &AtomicU64, c: u8) {\n    Cell {\n    made: AtomicU64::new(0),\n    } }\n\
                    pub struct Wrapped(AtomicU32);\n#[cfg(test)]\nmod tests {\nstruct B {\n\
                    other: AtomicU64,\n} }";
        let source = |path: &str| Source::new(path, text.into());
        let sources = [source("core/src/quota.rs"), source("ring/src/a.rs")];
        let complete = "`level` `resting_until` `Wrapped`";
        assert_eq!(cells_named(complete, &sources), []);
        assert_eq!(cells_named("`level` `Wrapped`", &sources).len(), 1);
        assert_eq!(cells_named("", &sources).len(), 3);
    }
}
