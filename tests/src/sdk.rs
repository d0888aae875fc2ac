//! The real clients: where `cargo xtask sdk` installed them, and how a test runs one of its scripts with them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::time::variable;

/// Runs a Python script of `tests/sdk` with the current SDKs; `arguments` are its arguments.
#[track_caller]
pub fn python(script: &str, arguments: &[&str]) {
    run(Command::new(installed("py/bin/python")).arg(scripts().join(script)).args(arguments));
}

/// Runs a Python script with the line of SDKs that speaks the older API version.
#[track_caller]
pub fn python_older(script: &str, arguments: &[&str]) {
    run(Command::new(installed("py-older/bin/python")).arg(scripts().join(script)).args(arguments));
}

/// Runs a Node script with the SDKs; their folder is its first argument.
#[track_caller]
pub fn node(script: &str, arguments: &[&str]) {
    let modules = installed("node/node_modules");
    run(Command::new("node").arg(scripts().join(script)).arg(modules).args(arguments));
}

/// A program of the workspace that this run of cargo built.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let path = profile_folder().join(name);
    assert!(path.exists(), "{} is not built: run `cargo xtask test`, or `cargo build` first", path.display());
    path
}

#[track_caller]
fn run(command: &mut Command) {
    // Nothing of the host's own set-up may reach a client: not its keys, not its proxies.
    for name in [
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
    ] {
        command.env_remove(name);
    }
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    assert!(said.contains("all checks passed"), "a script must say that it came to its end:\n{said}");
}

#[track_caller]
fn installed(part: &str) -> PathBuf {
    let path = target_folder().join("sdk").join(part);
    assert!(path.exists(), "the SDKs are not installed ({}): run `cargo xtask sdk`", path.display());
    path
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk")
}

fn target_folder() -> PathBuf {
    match variable("CARGO_TARGET_DIR") {
        Some(folder) => Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder),
        None => profile_folder().parent().expect("a profile stands in the target folder").to_owned(),
    }
}

/// Test programs stand in `<target>/<profile>/deps`.
fn profile_folder() -> PathBuf {
    let program = std::env::current_exe().expect("a running test has a path");
    program.ancestors().nth(2).expect("a test stands in a folder of folders").to_owned()
}
