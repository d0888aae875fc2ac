//! The project's own commands: `cargo xtask <command>`. Picks the command and turns its verdict into an exit code.
//!
//! Nothing here is part of the product and nothing of the product depends on it. A person and CI run the same commands.

#![forbid(unsafe_code)]

mod ci;
mod edges;
mod licences;
mod list;
mod loom;
mod metadata;
mod neighbours;
mod package;
mod process;
mod progress;
mod sdk;
mod sim;
mod soak;
mod spdx;
mod test;
mod tidy;
mod totals;

use std::process::ExitCode;

use metadata::Workspace;
use progress::{Board, say};

/// The commands, with what each does. `tidy` holds the documents against this table.
pub(crate) const COMMANDS: [(&str, &str); 9] = [
    (
        "ci",
        "everything a change must pass: format, lints, tidy, licences, edges, tests, loom, simulator, documentation",
    ),
    ("licences", "licences, bans, duplicate versions and the number of locked packages"),
    ("loom", "the model checks of the atomics"),
    ("package", "the Debian package, with cargo-deb"),
    ("sdk", "install the pinned provider SDKs (Python and Node) that the black-box tests use"),
    ("sim", "the simulator over 1,000 seeds; --seeds N and --from S for others"),
    ("soak", "the long forms of load and fault tests, one after another; names after it choose some"),
    ("test", "build once, then every test; --quick leaves out the black-box tests, the doc tests and loom"),
    ("tidy", "the house rules that can be read off the source text"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(complaint) => {
            say(&complaint);
            ExitCode::from(2)
        }
    }
}

/// Runs one command. `Ok(false)` means that it ran and something failed; `Err` that it could not be run.
fn run(arguments: &[String]) -> Result<bool, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut seeds = sim::Range::DEFAULT;
    let (command, quick) = match words.as_slice() {
        ["test", "--quick"] => ("test", true),
        ["soak", names @ ..] if names.iter().all(|name| soak::is_run(name)) => ("soak", false),
        ["sim", range @ ..] => {
            seeds = sim::Range::parse(range).ok_or_else(usage)?;
            ("sim", false)
        }
        [command] if COMMANDS.iter().any(|(name, _)| name == command) => (*command, false),
        _ => return Err(usage()),
    };
    let workspace = Workspace::load()?;
    let mut board = Board::new(command);
    match command {
        "ci" => ci::steps(&mut board, &workspace),
        "licences" => licences::step(&mut board, &workspace),
        "loom" => loom::step(&mut board, &workspace),
        "package" => package::steps(&mut board, &workspace),
        "sdk" => sdk::step(&mut board, &workspace),
        "soak" => soak::steps(&mut board, &workspace, &words[1..]),
        "sim" => sim::step(&mut board, &workspace, seeds),
        "test" => test::steps(&mut board, &workspace, quick),
        _ => tidy::step(&mut board, &workspace),
    }
    Ok(board.close())
}

fn usage() -> String {
    let mut text = String::from("usage: cargo xtask <command>\n");
    for (name, what) in COMMANDS {
        text.push_str(&format!("\n  {name:<9} {what}"));
    }
    text.push_str(&format!("\n\nlong runs: {}\n", soak::names()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_and_surplus_words_are_refused_with_the_usage() {
        for words in [
            &["bogus"][..],
            &[],
            &["ci", "--fast"],
            &["tidy", "tidy"],
            &["test", "--quick", "x"],
            &["soak", "x"],
            &["sim", "--seeds", "0"],
        ] {
            let arguments: Vec<String> = words.iter().map(ToString::to_string).collect();
            let complaint = run(&arguments).expect_err("must be refused");
            assert!(complaint.contains("usage: cargo xtask"), "{complaint}");
        }
    }
}
