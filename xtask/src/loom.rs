//! The model checks: the package of loom tests, built with its own flags into its own folder, so that the ordinary
//! build is not thrown away. Fails if no test ran: an empty model proves nothing.

use crate::metadata::Workspace;
use crate::process;
use crate::progress::Board;
use crate::totals::Runner;

/// Runs the model checks as one step.
pub(crate) fn step(board: &mut Board, workspace: &Workspace) {
    board.step("loom", |totals| {
        let folder = workspace.target.join("loom").to_string_lossy().into_owned();
        let arguments = [
            "test",
            "--package=tidegate-loom",
            "--release",
            "--lib",
            "--tests",
            "--target-dir",
            folder.as_str(),
        ];
        let mut command = process::cargo(&workspace.root, &arguments);
        // Optimized, because a model visits every interleaving; with the assertions that the ordinary tests have.
        command
            .env("RUSTFLAGS", "--cfg loom")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
            .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
        process::run(&mut command, |line| totals.read(Runner::Cargo, line))?;
        if totals.is_empty() { Err("no model check ran".into()) } else { Ok(()) }
    });
}
