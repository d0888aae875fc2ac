//! The workspace as cargo sees it: our packages, their dependencies, everything that can be built. Reads `cargo
//! metadata`, `cargo tree` and `Cargo.lock` once; decides nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process;

/// Lists every package that can be built, one a line.
const TREE: [&str; 10] = [
    "tree",
    "--workspace",
    "--all-features",
    "--target=all",
    "--edges=normal,build,dev",
    "--prefix=none",
    "--format={p}",
    "--locked",
    "--color=never",
    "--quiet",
];

/// One version of one package, ours or a registry's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Package {
    /// Name as in its manifest.
    pub(crate) name: String,
    /// Exact version.
    pub(crate) version: String,
    /// The licence expression, if its manifest has one.
    pub(crate) licence: Option<String>,
    /// Folder below the workspace's root, empty for the root package; `None` for what is not ours.
    pub(crate) folder: Option<String>,
    /// Direct dependencies of all kinds.
    pub(crate) dependencies: Vec<Dependency>,
    /// Names of its binaries.
    pub(crate) binaries: Vec<String>,
    /// A program of its own runs when it is built.
    pub(crate) build_script: bool,
}

/// A direct dependency.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    /// Name of the package, even where the manifest renames it.
    pub(crate) name: String,
    /// It is a folder of this workspace.
    pub(crate) ours: bool,
}

/// What every command starts from.
pub(crate) struct Workspace {
    /// The folder of the root manifest.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// Every package of the resolved graph, on all platforms and with all features.
    pub(crate) packages: Vec<Package>,
    /// How many packages are locked.
    pub(crate) locked: usize,
    /// Name and version of every package that can be built, for any platform and feature. Fewer than are locked: the
    /// lock file also holds optional dependencies of others that nothing here turns on.
    pub(crate) built: BTreeSet<(String, String)>,
}

impl Workspace {
    /// Asks cargo. The lock file must fit the manifests; it is never rewritten here.
    pub(crate) fn load() -> Result<Workspace, String> {
        let arguments = ["metadata", "--format-version=1", "--all-features", "--locked"];
        let text = process::output(&mut process::cargo(Path::new("."), &arguments))?;
        let json: Value = serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
        let root = PathBuf::from(string(&json, "workspace_root")?);
        let target = PathBuf::from(string(&json, "target_directory")?);
        let packages =
            list(&json, "packages")?.iter().map(|p| package(p, &root)).collect::<Result<_, _>>()?;
        let lock = root.join("Cargo.lock");
        let text = std::fs::read_to_string(&lock).map_err(|e| format!("{}: {e}", lock.display()))?;
        let locked = text.lines().filter(|line| *line == "[[package]]").count();
        let built = built(&process::output(&mut process::cargo(&root, &TREE))?);
        Ok(Workspace { root, target, packages, locked, built })
    }

    /// Our own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.folder.is_some())
    }
}

fn package(json: &Value, root: &Path) -> Result<Package, String> {
    let ours = json["source"].is_null();
    let manifest = PathBuf::from(string(json, "manifest_path")?);
    let folder = manifest.parent().and_then(|folder| folder.strip_prefix(root).ok());
    let dependencies = list(json, "dependencies")?
        .iter()
        .map(|d| Ok::<_, String>(Dependency { name: string(d, "name")?, ours: d["path"].is_string() }));
    let is = |target: &Value, wanted: &str| {
        target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == wanted))
    };
    let targets = list(json, "targets")?;
    let binaries = targets.iter().filter(|it| is(it, "bin")).map(|target| string(target, "name"));
    Ok(Package {
        name: string(json, "name")?,
        version: string(json, "version")?,
        licence: json["license"].as_str().map(str::to_owned),
        folder: if ours { folder.map(|folder| folder.to_string_lossy().into_owned()) } else { None },
        dependencies: dependencies.collect::<Result<_, _>>()?,
        binaries: binaries.collect::<Result<_, _>>()?,
        build_script: targets.iter().any(|target| is(target, "custom-build")),
    })
}

fn string(json: &Value, field: &str) -> Result<String, String> {
    json[field].as_str().map(str::to_owned).ok_or_else(|| format!("cargo metadata: no text in `{field}`"))
}

fn list<'a>(json: &'a Value, field: &str) -> Result<&'a Vec<Value>, String> {
    json[field].as_array().ok_or_else(|| format!("cargo metadata: no list in `{field}`"))
}

/// Name and version from the lines of `cargo tree`: "serde v1.0.2 (proc-macro) (*)".
fn built(tree: &str) -> BTreeSet<(String, String)> {
    let package = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    };
    tree.lines().filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_gives_names_and_versions_once() {
        let tree = "a v1.0.2 (proc-macro)\nb v0.3.0\n\nb v0.3.0 (*)\nb v0.4.1\n[dev-dependencies]\n";
        let expected = [("a", "1.0.2"), ("b", "0.3.0"), ("b", "0.4.1")].map(|(n, v)| (n.into(), v.into()));
        assert_eq!(built(tree), expected.into());
    }

    #[test]
    fn a_package_of_ours_has_a_folder_and_a_foreign_one_has_none() {
        let json = |source: &str| {
            let text = format!(
                r#"{{"name":"a","version":"1.0.0","license":null,"source":{source},"manifest_path":"/r/core/Cargo.toml",
                "dependencies":[{{"name":"b","path":"/r/b"}},{{"name":"c"}}],
                "targets":[{{"kind":["lib"],"name":"a"}},{{"kind":["bin"],"name":"tool"}}]}}"#
            );
            serde_json::from_str::<Value>(&text).expect("valid")
        };
        let ours = package(&json("null"), Path::new("/r")).expect("complete");
        assert_eq!(ours.folder.as_deref(), Some("core"));
        assert_eq!(ours.binaries, ["tool"]);
        assert!(!ours.build_script);
        assert_eq!(ours.dependencies.iter().map(|d| d.ours).collect::<Vec<_>>(), [true, false]);
        let foreign = package(&json("\"registry\""), Path::new("/r")).expect("complete");
        assert_eq!(foreign.folder, None);
    }

    #[test]
    fn metadata_without_a_field_is_a_complaint() {
        assert!(package(&Value::Null, Path::new("/r")).is_err());
    }
}
