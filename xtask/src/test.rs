//! Every test of the workspace, built once: units and black box, documentation examples, model checks. The black-box
//! tests choose the I/O driver themselves and run under both; nothing here selects tests one by one.

use std::path::Path;

use crate::metadata::Workspace;
use crate::progress::Board;
use crate::totals::{Runner, Totals};
use crate::{loom, neighbours, process, sdk};

/// The package of black-box tests, which `--quick` leaves out.
const BLACK_BOX: &str = "tidegate-tests";

/// Runs the tests; with `quick` only those that need neither SDKs nor the whole product.
pub(crate) fn steps(board: &mut Board, workspace: &Workspace, quick: bool) {
    let root = &workspace.root;
    let selection = if quick { vec!["--workspace", "--exclude", BLACK_BOX] } else { vec!["--workspace"] };
    if !quick {
        sdk::step(board, workspace);
        neighbours::step(board);
    }
    // All targets at once, so that the binaries which the black-box tests start have the same features and exist.
    let mut build = vec!["build", "--all-targets"];
    build.extend(&selection);
    if !board.step("build", |_| process::run_shown(&mut process::cargo(root, &build))) {
        for name in ["tests", "doc tests", "loom"].iter().take(if quick { 1 } else { 3 }) {
            board.skip(name, "the build failed");
        }
        return;
    }
    board.step("tests", |totals| tests(root, &selection, totals));
    if quick {
        return;
    }
    board.step("doc tests", |totals| {
        let mut command = process::cargo(root, &["test", "--workspace", "--doc", "--no-fail-fast"]);
        process::run(&mut command, |line| totals.read(Runner::Cargo, line))
    });
    loom::step(board, workspace);
}

/// Units and integration tests: a process per test where nextest is installed, else cargo's own runner.
fn tests(root: &Path, selection: &[&str], totals: &mut Totals) -> Result<(), String> {
    let nextest = process::answers(&mut process::cargo(root, &["nextest", "--version"]));
    let (runner, mut arguments) = if nextest {
        (Runner::Nextest, vec!["nextest", "run", "--config-file=xtask/nextest.toml", "--no-fail-fast"])
    } else {
        (Runner::Cargo, vec!["test", "--lib", "--bins", "--tests", "--no-fail-fast"])
    };
    arguments.extend(selection);
    let ended = process::run(&mut process::cargo(root, &arguments), |line| totals.read(runner, line));
    ended.map_err(|complaint| format!("{complaint}\n{totals}"))?;
    if totals.is_empty() { Err("no test ran".into()) } else { Ok(()) }
}
