//! Which of our crates may depend on which: the architecture as cargo sees it. An edge that is not listed is refused,
//! and so is a crate that the table does not know. Reads manifests only, never source.

use std::collections::BTreeSet;

use crate::metadata::{Package, Workspace};
use crate::progress::{Board, say};

/// What a crate may depend on, dev and build dependencies included.
#[derive(Clone, Copy)]
enum May {
    /// Any crate of ours that others may depend on: for what stands outside the product and looks in.
    Anything,
    /// Exactly these.
    Only(&'static [&'static str]),
}

/// The table, in the order of the layers. A crate under [`May::Anything`], and any that only ends here, is depended on
/// by nobody.
const TABLE: [(&str, May); 13] = [
    ("tidegate-core", May::Only(&[])),
    ("tidegate-wire", May::Only(&[])),
    ("tidegate-ring", May::Only(&[])),
    ("tidegate-providers", May::Only(&["tidegate-core", "tidegate-wire"])),
    (
        "tidegate-gateway",
        May::Only(&["tidegate-core", "tidegate-wire", "tidegate-providers", "tidegate-ring"]),
    ),
    ("tidegate-actors", May::Only(&["tidegate-core", "tidegate-providers"])),
    // Never on core: the mock's quotas and the gateway's must not share a mistake.
    ("tidegate-loadtest", May::Only(&["tidegate-wire", "tidegate-ring"])),
    ("tidegate", May::Only(&["tidegate-gateway", "tidegate-actors", "tidegate-loadtest"])),
    ("tidegate-tests", May::Anything),
    ("tidegate-sim", May::Anything),
    ("tidegate-loom", May::Only(&["tidegate-core"])),
    ("tidegate-bench", May::Anything),
    ("xtask", May::Only(&[])),
];
/// Crates that nothing may depend on, not even those that may depend on anything.
const LEAVES: [&str; 6] =
    ["tidegate", "tidegate-tests", "tidegate-sim", "tidegate-loom", "tidegate-bench", "xtask"];

/// Checks the edges as one step.
pub(crate) fn step(board: &mut Board, workspace: &Workspace) {
    board.step("crate edges", |_| {
        let members: Vec<&Package> = workspace.members().collect();
        let complaints = check(&members);
        if complaints.is_empty() {
            say(&format!("{} crates, every edge between them is listed", members.len()));
            return Ok(());
        }
        Err(complaints.join("\n"))
    });
}

fn check(members: &[&Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in members {
        let Some((_, may)) = TABLE.iter().find(|(name, _)| *name == package.name) else {
            complaints.push(format!("{}: unknown to the table of edges", package.name));
            continue;
        };
        let found: BTreeSet<&str> =
            package.dependencies.iter().filter(|d| d.ours).map(|d| d.name.as_str()).collect();
        for dependency in found {
            let allowed = match may {
                May::Anything => !LEAVES.contains(&dependency),
                May::Only(names) => names.contains(&dependency),
            };
            if !allowed {
                complaints.push(format!("{} -> {dependency}: not a listed edge", package.name));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Dependency;

    fn package(name: &str, on: &[&str]) -> Package {
        let dependencies = on.iter().map(|name| Dependency { name: (*name).into(), ours: true }).collect();
        Package { name: name.into(), folder: Some(String::new()), dependencies, ..Package::default() }
    }

    #[test]
    fn listed_edges_pass() {
        let gateway = package("tidegate-gateway", &["tidegate-core", "tidegate-ring"]);
        let tests = package("tidegate-tests", &["tidegate-core", "tidegate-loadtest", "tidegate-gateway"]);
        assert_eq!(check(&[&gateway, &tests]), Vec::<String>::new());
    }

    #[test]
    fn other_edges_and_unknown_crates_are_refused() {
        for (name, on) in [
            ("tidegate-core", "tidegate-wire"),
            ("tidegate-actors", "tidegate-gateway"),
            ("tidegate-gateway", "tidegate-actors"),
            ("tidegate-loadtest", "tidegate-core"),
            ("tidegate-tests", "tidegate-loom"),
            ("tidegate-gateway", "tidegate-tests"),
        ] {
            let package = package(name, &[on]);
            assert_eq!(check(&[&package]), [format!("{name} -> {on}: not a listed edge")]);
        }
        assert_eq!(check(&[&package("newcomer", &[])]).len(), 1);
    }

    #[test]
    fn a_registry_package_is_no_edge() {
        let mut package = package("tidegate-core", &["tidegate-wire"]);
        package.dependencies[0].ours = false;
        assert!(check(&[&package]).is_empty());
    }

    #[test]
    fn what_the_table_allows_is_itself_in_the_table() {
        for (name, may) in TABLE {
            if let May::Only(names) = may {
                for dependency in names {
                    assert!(TABLE.iter().any(|(known, _)| known == dependency), "{name} -> {dependency}");
                    assert!(!LEAVES.contains(dependency), "{name} -> {dependency} is a leaf");
                }
            }
        }
    }
}
