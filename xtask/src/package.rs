//! The Debian package: the program as it ships, the manual page and completions that it prints itself, and cargo-deb,
//! which reads what goes where from the root manifest. Installs nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::metadata::Workspace;
use crate::process;
use crate::progress::Board;

/// Files that the program prints: name, arguments.
const PRINTED: [(&str, &[&str]); 4] = [
    ("tidegate.1", &["man"]),
    ("tidegate.bash", &["completions", "bash"]),
    ("tidegate.fish", &["completions", "fish"]),
    ("tidegate.zsh", &["completions", "zsh"]),
];

/// Runs all steps; the package stands in `<target>/debian`.
pub(crate) fn steps(board: &mut Board, workspace: &Workspace) {
    let root = &workspace.root;
    let release = workspace.target.join("release");
    let built = board.step("build", |_| {
        let arguments = ["build", "--release", "--locked", "--package=tidegate", "--bin=tidegate"];
        process::run_shown(&mut process::cargo(root, &arguments))
    });
    if !built || !board.step("manual and completions", |_| print(&release)) {
        board.skip("package", "what belongs into it is missing");
        return;
    }
    board.step("package", |_| {
        if !process::answers(&mut process::cargo(root, &["deb", "--version"])) {
            return Err("cargo-deb is not there: `cargo install cargo-deb --locked`".into());
        }
        process::run_shown(&mut process::cargo(root, &["deb", "--no-build", "--locked"]))
    });
}

/// Writes what the program in `release` prints into the folder that the manifest names.
fn print(release: &Path) -> Result<(), String> {
    let folder = release.join("package");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for (name, arguments) in PRINTED {
        let text = process::output(Command::new(release.join("tidegate")).args(arguments))?;
        let path = folder.join(name);
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
