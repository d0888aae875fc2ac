//! The real clients of the black-box tests: the pinned SDKs for Python and Node, installed once into `<target>/sdk`.
//!
//! What the tests find there: `py/bin/python` (current SDKs), `py-older/bin/python` (the line that speaks the older
//! API version) and `node/node_modules`. The pins are the files of `xtask/sdk`; a change of one installs anew. Never
//! touches anything outside the target folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::metadata::Workspace;
use crate::process;
use crate::progress::{Board, say};

/// The files that pin what is installed; together with the layout's number they are the stamp.
const PINS: [&str; 4] = ["python.txt", "python-older.txt", "package.json", "package-lock.json"];
/// Raised when the installed files change though the pins do not.
const LAYOUT: &str = "layout 1\n";
/// What a person can do when an installation fails.
const HINT: &str = "
The SDKs come from pypi.org and registry.npmjs.org once, and are then kept in the target \
                    folder. Without a network `cargo xtask test --quick` runs everything that needs none; behind \
                    a mirror set PIP_INDEX_URL and npm_config_registry.";

/// Installs the SDKs as one step; at once if they are there.
pub(crate) fn step(board: &mut Board, workspace: &Workspace) {
    board.step("sdk", |_| install(&workspace.root, &workspace.target.join("sdk")));
}

fn install(root: &Path, folder: &Path) -> Result<(), String> {
    let pins = root.join("xtask/sdk");
    let stamp = stamp(&pins)?;
    let stamp_file = folder.join("stamp");
    if fs::read_to_string(&stamp_file).is_ok_and(|there| there == stamp) {
        say(&format!("installed already: {}", folder.display()));
        return Ok(());
    }
    for (program, what) in [("python3", "Python 3.11 or later"), ("node", "Node 20 or later"), ("npm", "npm")]
    {
        if !process::answers(Command::new(program).arg("--version")) {
            return Err(format!("`{program}` is not there: the black-box tests need {what}"));
        }
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    python(&pins.join("python.txt"), &folder.join("py"), "import anthropic, openai")?;
    python(&pins.join("python-older.txt"), &folder.join("py-older"), "import anthropic")?;
    node(&pins, &folder.join("node"))?;
    write(&stamp_file, &stamp)
}

/// The text that says what is installed: the pins themselves.
fn stamp(pins: &Path) -> Result<String, String> {
    let mut stamp = String::from(LAYOUT);
    for name in PINS {
        let path = pins.join(name);
        stamp.push_str(&fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?);
    }
    Ok(stamp)
}

/// A virtual environment, or, where Python comes without the module for it, a folder and a small script that uses it.
fn python(pins: &Path, folder: &Path, proof: &str) -> Result<(), String> {
    let interpreter = folder.join("bin/python");
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(folder);
    if process::answers(&mut venv) {
        pip(&interpreter, pins, None)?;
    } else {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let site = folder.join("site");
        pip(Path::new("python3"), pins, Some(&site))?;
        let script = format!("#!/bin/sh\nPYTHONPATH='{}' exec python3 \"$@\"\n", site.display());
        write(&interpreter, &script)?;
        fs::set_permissions(&interpreter, fs::Permissions::from_mode(0o755))
            .map_err(|e| format!("{}: {e}", interpreter.display()))?;
    }
    process::run_shown(Command::new(&interpreter).args(["-c", proof]))
}

fn pip(interpreter: &Path, pins: &Path, site: Option<&PathBuf>) -> Result<(), String> {
    let mut command = Command::new(interpreter);
    command.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
    if let Some(site) = site {
        command.arg("--target").arg(site);
    }
    command.arg("--requirement").arg(pins);
    process::run_shown(&mut command).inspect_err(|_| say(HINT))
}

/// `npm ci` on the committed lock file; scripts of packages are not run.
fn node(pins: &Path, folder: &Path) -> Result<(), String> {
    for name in ["package.json", "package-lock.json"] {
        let text = fs::read_to_string(pins.join(name)).map_err(|e| format!("{name}: {e}"))?;
        write(&folder.join(name), &text)?;
    }
    let mut command = Command::new("npm");
    command
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(folder);
    process::run_shown(&mut command).inspect_err(|_| say(HINT))?;
    let proof = "require('@anthropic-ai/sdk'); require('anthropic-sdk-older'); require('openai'); \
                 require('eventsource-parser')";
    process::run_shown(Command::new("node").args(["-e", proof]).current_dir(folder))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed pins, seen from where cargo runs the tests of this package.
    const PINS_HERE: &str = "sdk";

    #[test]
    fn the_committed_pins_are_exact() {
        for name in ["python.txt", "python-older.txt"] {
            let text = fs::read_to_string(Path::new(PINS_HERE).join(name)).expect("committed");
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                assert!(line.contains("=="), "{name}: {line}");
            }
        }
        let manifest = fs::read_to_string(Path::new(PINS_HERE).join("package.json")).expect("committed");
        assert!(!manifest.contains('^') && !manifest.contains('~'), "{manifest}");
    }

    #[test]
    fn every_pin_is_part_of_the_stamp() {
        let stamp = stamp(Path::new(PINS_HERE)).expect("committed");
        for part in [LAYOUT, "anthropic==2.", "anthropic==1.", "\"openai\": \"", "lockfileVersion"] {
            assert!(stamp.contains(part), "{part}");
        }
        assert!(super::stamp(Path::new("no-such-folder")).is_err());
    }
}
