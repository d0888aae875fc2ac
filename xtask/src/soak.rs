//! The long forms of the tests that CI runs short: minutes of load, hundreds of repetitions, one after another on a
//! quiet machine, built with optimization. Each is an ordinary test that a variable of the environment makes longer;
//! what it measured is shown. Decides only what is run and how long; nothing here judges.

use crate::metadata::Workspace;
use crate::process;
use crate::progress::Board;
use crate::totals::Runner;

/// One long run.
struct Run {
    /// What it is called on the command line.
    name: &'static str,
    /// The variable that makes it long, and how long.
    length: (&'static str, &'static str),
    /// The test program of `tests/`.
    test: &'static str,
}

const RUNS: [Run; 5] = [
    Run { name: "spread", length: ("TIDEGATE_SPREAD_SECONDS", "120"), test: "spread" },
    Run { name: "take-over", length: ("TIDEGATE_TAKEOVERS", "20"), test: "takeover" },
    Run { name: "large", length: ("TIDEGATE_LARGE", "100x100"), test: "large" },
    Run { name: "slow-peers", length: ("TIDEGATE_SLOW_SECONDS", "30"), test: "slow_peers" },
    Run { name: "streams", length: ("TIDEGATE_STREAMS", "9500x600"), test: "streams" },
];

/// Whether there is such a run.
pub(crate) fn is_run(name: &str) -> bool {
    RUNS.iter().any(|it| it.name == name)
}

/// The names of all runs.
pub(crate) fn names() -> String {
    RUNS.map(|it| it.name).join(", ")
}

/// Builds once, then the runs of these names, or all of them.
pub(crate) fn steps(board: &mut Board, workspace: &Workspace, names: &[&str]) {
    let root = &workspace.root;
    let chosen = || RUNS.iter().filter(|it| names.is_empty() || names.contains(&it.name));
    let programs = [
        "build",
        "--profile=soak",
        "--locked",
        "--bins",
        "--package=tidegate",
        "--package=tidegate-loadtest",
    ];
    let built = board.step("build", |_| {
        process::run_shown(&mut process::cargo(root, &programs))?;
        let tests = chosen().map(|it| format!("--test={}", it.test)).collect::<Vec<String>>();
        let mut command = process::cargo(
            root,
            &["test", "--profile=soak", "--locked", "--no-run", "--package=tidegate-tests"],
        );
        process::run_shown(command.args(tests))
    });
    for run in chosen() {
        if !built {
            board.skip(run.name, "the build failed");
            continue;
        }
        board.step(run.name, |totals| {
            let test = format!("--test={}", run.test);
            let arguments = ["test", "--profile=soak", "--locked", "--package=tidegate-tests", &test];
            let mut command = process::cargo(root, &arguments);
            // One at a time: each fills the machine.
            command.args(["--", "--test-threads=1", "--show-output"]).env(run.length.0, run.length.1);
            process::run(&mut command, |line| totals.read(Runner::Cargo, line))?;
            if totals.is_empty() { Err("no test ran".into()) } else { Ok(()) }
        });
    }
}
