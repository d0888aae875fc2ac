//! The long forms of the tests that CI runs short: minutes of load, hundreds of repetitions, one after another on a
//! quiet machine, built with optimization. Each is an ordinary test that a variable of the environment makes longer;
//! what it measured is shown. Decides only what is run and how long; nothing here judges.

use crate::metadata::Workspace;
use crate::process;
use crate::progress::Board;
use crate::sim;
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

const RUNS: [Run; 6] = [
    Run { name: "spread", length: ("TIDEGATE_SPREAD_SECONDS", "120"), test: "spread" },
    Run { name: "take-over", length: ("TIDEGATE_TAKEOVERS", "20"), test: "takeover" },
    Run { name: "large", length: ("TIDEGATE_LARGE", "100x100"), test: "large" },
    Run { name: "neighbours", length: ("TIDEGATE_FRAMING_SEEDS", "20000"), test: "neighbours" },
    Run { name: "slow-peers", length: ("TIDEGATE_SLOW_SECONDS", "30"), test: "slow_peers" },
    Run { name: "streams", length: ("TIDEGATE_STREAMS", "9500x600"), test: "streams" },
];

/// The simulator's long run: its name, and seeds that no change is run with.
const SIMULATOR: (&str, sim::Range) = ("simulator", sim::Range { seeds: 100_000, from: 1_000_000 });

/// Whether there is such a run.
pub(crate) fn is_run(name: &str) -> bool {
    name == SIMULATOR.0 || RUNS.iter().any(|it| it.name == name)
}

/// The names of all runs.
pub(crate) fn names() -> String {
    format!("{}, {}", SIMULATOR.0, RUNS.map(|it| it.name).join(", "))
}

/// Builds once, then the runs of these names, or all of them.
pub(crate) fn steps(board: &mut Board, workspace: &Workspace, names: &[&str]) {
    let root = &workspace.root;
    if names.is_empty() || names.contains(&SIMULATOR.0) {
        sim::step(board, workspace, SIMULATOR.1);
    }
    let chosen = || RUNS.iter().filter(|it| names.is_empty() || names.contains(&it.name));
    if chosen().next().is_none() {
        return;
    }
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
