//! Outside vectors: where they are, and the committed lists of those about which the product has another opinion.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::say;
use crate::time::variable;

/// A folder of the outside vectors; `None`, and a line on standard error, where they are not there. `TIDEGATE_CORPORA`
/// says where they are; without it they are looked for beside the project.
pub fn folder(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora");
    let folder = variable("TIDEGATE_CORPORA").map_or_else(beside, PathBuf::from).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    say(&format!("SKIPPED: no vectors in {} (set TIDEGATE_CORPORA to their folder)", folder.display()));
    None
}

/// The files of a folder and its folders with this ending, with their paths from there, in order.
pub fn files(folder: &Path, ending: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder of vectors") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == ending) {
                let name = path.strip_prefix(folder).expect("within").display().to_string();
                found.push((name, std::fs::read(&path).expect("a file of vectors")));
            }
        }
    }
    found.sort();
    found
}

/// Holds what was found against a committed list, both ways: each line of it is `vector | opinion | reason`.
///
/// # Panics
/// Where an opinion is not on the list, or one on the list is no longer held.
#[track_caller]
pub fn hold(list: &str, found: &BTreeMap<String, String>) {
    let mut known = BTreeMap::new();
    for line in list.lines().filter(|it| !it.is_empty() && !it.starts_with('#')) {
        let parts: Vec<&str> = line.split(" | ").collect();
        let [vector, opinion, reason] = parts[..] else { panic!("not of the format: {line}") };
        assert!(reason.len() > 10, "no reason: {line}");
        assert!(known.insert(vector, opinion).is_none(), "twice on the list: {vector}");
    }
    let new = found.iter().filter(|(vector, opinion)| known.get(vector.as_str()) != Some(&opinion.as_str()));
    let new: Vec<String> = new.map(|(vector, opinion)| format!("{vector} | {opinion} | ")).collect();
    let gone =
        known.iter().filter(|(vector, opinion)| found.get(**vector).map(String::as_str) != Some(opinion));
    let gone: Vec<String> = gone.map(|(vector, opinion)| format!("{vector} | {opinion}")).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "not on the list:\n{}\n\non the list and no longer so:\n{}",
        new.join("\n"),
        gone.join("\n")
    );
}
