//! Everything a change must pass, in one command for a person and for CI. The cheap checks come first; a failure does
//! not stop the rest, so that one run reports all there is, and any failure makes the whole fail.

use crate::metadata::Workspace;
use crate::progress::Board;
use crate::{edges, licences, process, sim, test, tidy};

/// Runs all steps.
pub(crate) fn steps(board: &mut Board, workspace: &Workspace) {
    let root = &workspace.root;
    board.step("format", |_| process::run_shown(&mut process::cargo(root, &["fmt", "--all", "--check"])));
    tidy::step(board, workspace);
    licences::step(board, workspace);
    edges::step(board, workspace);
    board.step("clippy", |_| {
        let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"];
        process::run_shown(&mut process::cargo(root, &arguments))
    });
    // The whole workspace turns the simulated driver on; the binary that ships is built without it.
    board.step("clippy, as shipped", |_| {
        let arguments = ["clippy", "--package=tidegate", "--locked", "--", "--deny", "warnings"];
        process::run_shown(&mut process::cargo(root, &arguments))
    });
    test::steps(board, workspace, false);
    sim::step(board, workspace, sim::Range::DEFAULT);
    board.step("documentation", |_| {
        let mut command = process::cargo(root, &["doc", "--workspace", "--no-deps", "--locked"]);
        process::run_shown(command.env("RUSTDOCFLAGS", "--deny warnings"))
    });
}
