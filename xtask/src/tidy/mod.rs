//! The house rules that can be read off the text: words in the wrong place, the shape of files and functions, and what
//! the documents claim. Each rule is a function from sources to findings, tested on made-up sources; this file reads
//! the tree and runs them. Never changes a file.

mod docs;
mod shape;
mod source;
mod words;

use std::fmt;
use std::fs;
use std::path::Path;

use crate::list;
use crate::metadata::Workspace;
use crate::progress::{Board, say};
use source::Source;

/// What holds nothing of ours, wherever it stands.
const SKIPPED: [&str; 4] = [".git", "target", "node_modules", "__pycache__"];
/// A file larger than this is data, not text.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: path.into(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Every text of the repository.
struct Tree {
    /// Rust sources, taken apart.
    rust: Vec<Source>,
    /// Everything else that is text, with its path.
    other: Vec<(String, String)>,
}

/// Runs every rule as one step.
pub(crate) fn step(board: &mut Board, workspace: &Workspace) {
    board.step("tidy", |_| {
        let tree = Tree::read(&workspace.root)?;
        let mut findings = findings(&tree, workspace)?;
        findings.sort();
        if findings.is_empty() {
            say(&format!("{} Rust files, {} other texts: clean", tree.rust.len(), tree.other.len()));
            return Ok(());
        }
        for finding in &findings {
            say(&finding.to_string());
        }
        Err(format!("{} findings", findings.len()))
    });
}

fn findings(tree: &Tree, workspace: &Workspace) -> Result<Vec<Finding>, String> {
    let root = &workspace.root;
    let mut findings = Vec::new();
    findings.extend(words::vendor_names(&tree.rust, &list::load(root, words::VENDOR_LIST, 3)?));
    findings.extend(shape::long_functions(&tree.rust, &list::load(root, shape::FUNCTION_LIST, 4)?));
    findings.extend(shape::long_files(&tree.rust, &list::load(root, shape::FILE_LIST, 3)?));
    for source in &tree.rust {
        findings.extend(words::in_source(source));
        findings.extend(shape::in_source(source));
        findings.extend(words::machine_paths(&source.path, &source.text));
    }
    for (path, text) in &tree.other {
        findings.extend(words::machine_paths(path, text));
    }
    findings.extend(docs::check(tree, workspace));
    Ok(findings)
}

impl Tree {
    fn read(root: &Path) -> Result<Tree, String> {
        let mut tree = Tree { rust: Vec::new(), other: Vec::new() };
        tree.folder(root, "")?;
        tree.rust.sort_by(|a, b| a.path.cmp(&b.path));
        tree.other.sort();
        Ok(tree)
    }

    fn folder(&mut self, root: &Path, below: &str) -> Result<(), String> {
        let folder = root.join(below);
        let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for entry in entries {
            let entry = entry.map_err(|e| format!("{}: {e}", folder.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            let kind = entry.file_type().map_err(|e| format!("{path}: {e}"))?;
            // `.git` is a file where the checkout is one of several.
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if kind.is_dir() {
                self.folder(root, &path)?;
            } else if kind.is_file() {
                self.file(root, path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, root: &Path, path: String) -> Result<(), String> {
        let whole = root.join(&path);
        let length = fs::metadata(&whole).map_err(|e| format!("{path}: {e}"))?.len();
        if length > FILE_BYTES_MAX {
            return Ok(());
        }
        let bytes = fs::read(&whole).map_err(|e| format!("{path}: {e}"))?;
        let Ok(text) = String::from_utf8(bytes) else {
            return Ok(());
        };
        if path.ends_with(".rs") {
            self.rust.push(Source::new(&path, text));
        } else {
            self.other.push((path, text));
        }
        Ok(())
    }
}
