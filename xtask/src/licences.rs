//! What may be linked: licences, banned packages, packages in more than one version, whose build scripts run, and how
//! many there are at all.
//! Decides from the graph of what can be built and the lock file; an exception is a line with a reason in
//! `xtask/lists`, and a line that is no longer needed is a failure too.

use std::collections::{BTreeMap, BTreeSet};

use crate::list::{self, Entry};
use crate::metadata::{Package, Workspace};
use crate::progress::{Board, say};
use crate::spdx;

/// Licences that suit a program under Apache-2.0.
const ALLOWED: [&str; 12] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "BSL-1.0",
    "CC0-1.0",
    "Unicode-3.0",
    "CDLA-Permissive-2.0",
];
/// Our own licence.
const OURS: &str = "Apache-2.0";
/// Packages that must never be built, with the reason.
const BANNED: [(&str, &str); 4] = [
    ("native-tls", "one TLS for all: rustls"),
    ("openssl-sys", "one TLS for all: rustls"),
    ("ring", "one crypto library for all: aws-lc-rs"),
    ("sonic-rs", "ends the process on deeply nested input"),
];
/// As many packages as may be locked, one more is too many.
const LOCKED_MAX: usize = 349;
/// The list of packages that may be there in several versions: name, versions, reason.
const DUPLICATES: &str = "duplicates.txt";

/// The list of packages whose build scripts may run: name, what it does.
const BUILD_SCRIPTS: &str = "build_scripts.txt";

/// Checks all of it as one step.
pub(crate) fn step(board: &mut Board, workspace: &Workspace) {
    board.step("licences", |_| {
        let known = list::load(&workspace.root, DUPLICATES, 3)?;
        let mut complaints = licences(&workspace.packages);
        complaints.extend(bans(&workspace.built));
        complaints.extend(duplicates(&workspace.built, &known));
        let scripts = list::load(&workspace.root, BUILD_SCRIPTS, 2)?;
        complaints.extend(build_scripts(&workspace.packages, &workspace.built, &scripts));
        complaints.extend(count(workspace.locked));
        if complaints.is_empty() {
            let packages = workspace.locked;
            say(&format!(
                "{packages} packages locked (at most {LOCKED_MAX}), {} in several versions",
                known.len()
            ));
            return Ok(());
        }
        Err(complaints.join("\n"))
    });
}

fn licences(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages {
        let name = format!("{} {}", package.name, package.version);
        let Some(licence) = &package.licence else {
            complaints.push(format!("{name}: its manifest names no licence"));
            continue;
        };
        if package.folder.is_some() {
            if licence != OURS {
                complaints.push(format!("{name}: ours, so its licence is {OURS}, not {licence}"));
            }
            continue;
        }
        match spdx::satisfied(licence, &ALLOWED) {
            Ok(true) => {}
            Ok(false) => complaints.push(format!("{name}: the licence {licence} is not among those allowed")),
            Err(complaint) => complaints.push(format!("{name}: {complaint}")),
        }
    }
    complaints
}

fn bans(built: &BTreeSet<(String, String)>) -> Vec<String> {
    let banned = |name: &str| BANNED.iter().find(|(banned, _)| *banned == name);
    built
        .iter()
        .filter_map(|(name, version)| Some(format!("{name} {version}: banned, {}", banned(name)?.1)))
        .collect()
}

fn duplicates(built: &BTreeSet<(String, String)>, known: &[Entry]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, version) in built {
        versions.entry(name).or_default().insert(compatible(version));
    }
    versions.retain(|name, _| built.iter().filter(|(n, _)| n == name).count() > 1);
    let mut complaints = Vec::new();
    for entry in known {
        let listed: BTreeSet<String> = entry.fields[1].split(',').map(|v| v.trim().to_owned()).collect();
        match versions.remove(entry.fields[0].as_str()) {
            Some(found) if found == listed => {}
            Some(found) => complaints.push(format!(
                "{DUPLICATES}:{}: {} is built as {}",
                entry.line,
                entry.fields[0],
                found.into_iter().collect::<Vec<_>>().join(", ")
            )),
            None => complaints.push(format!(
                "{DUPLICATES}:{}: {} is no longer there twice, take the line out",
                entry.line, entry.fields[0]
            )),
        }
    }
    for (name, found) in versions {
        let found = found.into_iter().collect::<Vec<_>>().join(", ");
        complaints.push(format!("{name}: in several versions ({found}), and not in {DUPLICATES}"));
    }
    complaints
}

/// A build script is foreign code that runs on whoever builds, with all that may do: each was read once.
fn build_scripts(packages: &[Package], built: &BTreeSet<(String, String)>, known: &[Entry]) -> Vec<String> {
    let is_built = |it: &&Package| built.contains(&(it.name.clone(), it.version.clone()));
    let found = packages.iter().filter(|it| it.build_script).filter(is_built).map(|it| it.name.as_str());
    let found: BTreeSet<&str> = found.collect();
    let listed: BTreeSet<&str> = known.iter().map(|it| it.fields[0].as_str()).collect();
    let unread = found
        .difference(&listed)
        .map(|it| format!("{it}: has a build script, and is not in {BUILD_SCRIPTS}"));
    let gone = listed.difference(&found);
    unread
        .chain(gone.map(|it| format!("{BUILD_SCRIPTS}: {it} runs none any more, take the line out")))
        .collect()
}

/// The part of a version that says what it is compatible with: `1` of 1.4.2, `0.3` of 0.3.9.
fn compatible(version: &str) -> String {
    let mut parts = version.split('.');
    let major = parts.next().unwrap_or_default();
    match (major, parts.next()) {
        ("0", Some(minor)) => format!("0.{minor}"),
        _ => major.to_owned(),
    }
}

fn count(packages: usize) -> Option<String> {
    (packages > LOCKED_MAX).then(|| format!("{packages} packages are locked, at most {LOCKED_MAX} may be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(names: &[(&str, &str)]) -> BTreeSet<(String, String)> {
        names.iter().map(|(name, version)| ((*name).into(), (*version).into())).collect()
    }

    fn known(text: &str) -> Vec<Entry> {
        list::parse(text, 3).expect("a good list")
    }

    #[test]
    fn a_copyleft_or_missing_licence_is_refused() {
        let package = |licence: Option<&str>, folder: Option<&str>| Package {
            name: "p".into(),
            licence: licence.map(str::to_owned),
            folder: folder.map(str::to_owned),
            ..Package::default()
        };
        assert!(
            licences(&[package(Some("MIT OR GPL-3.0"), None), package(Some("Apache-2.0"), Some("core"))])
                .is_empty()
        );
        for bad in [
            package(Some("AGPL-3.0"), None),
            package(None, None),
            package(Some("MIT OR"), None),
            package(Some("MIT"), Some("core")),
        ] {
            assert_eq!(licences(&[bad]).len(), 1);
        }
    }

    #[test]
    fn a_banned_package_is_found() {
        assert!(bans(&built(&[("rustls", "0.23.1"), ("tidegate-ring", "0.1.0")])).is_empty());
        assert_eq!(bans(&built(&[("ring", "0.17.14"), ("openssl-sys", "0.9.1")])).len(), 2);
    }

    #[test]
    fn a_second_version_needs_a_line_and_a_line_needs_a_second_version() {
        let twice = built(&[("syn", "2.0.1"), ("syn", "3.1.0"), ("libc", "0.2.1")]);
        assert!(duplicates(&twice, &known("syn | 2, 3 | two generations of macros")).is_empty());
        assert_eq!(duplicates(&twice, &[]).len(), 1);
        assert_eq!(duplicates(&twice, &known("syn | 1, 2 | another pair")).len(), 1);
        let once = built(&[("syn", "3.1.0")]);
        assert!(duplicates(&once, &known("syn | 2, 3 | gone"))[0].contains("take the line out"));
    }

    #[test]
    fn a_build_script_that_nobody_read_is_found() {
        let package = |name: &str, build_script| Package {
            name: name.into(),
            version: "1.0.0".into(),
            build_script,
            ..Package::default()
        };
        let packages =
            [package("read", true), package("unread", true), package("other", true), package("none", false)];
        let built = built(&[("read", "1.0.0"), ("unread", "1.0.0"), ("none", "1.0.0"), ("other", "2.0.0")]);
        let known = |text: &str| list::parse(text, 2).expect("a good list");
        let complaints = build_scripts(&packages, &built, &known("read | why\ngone | why"));
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(
            complaints[0].starts_with("unread: has a build script")
                && complaints[1].contains("gone runs none")
        );
        assert!(build_scripts(&packages, &built, &known("read | why\nunread | why")).is_empty());
    }

    #[test]
    fn two_patch_versions_of_one_package_count_as_well() {
        let twice = built(&[("a", "1.0.1"), ("a", "1.2.0")]);
        assert_eq!(duplicates(&twice, &[]), ["a: in several versions (1), and not in duplicates.txt"]);
    }

    #[test]
    fn the_number_of_packages_is_bounded() {
        assert_eq!(count(LOCKED_MAX), None);
        assert!(count(LOCKED_MAX + 1).is_some());
    }
}
