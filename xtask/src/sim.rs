//! The simulator: its runner, built optimised with every assertion, over a range of seeds. The runner shows how far it
//! is, names what fails and makes it short; it fails where a seed failed, and where none ran.

use crate::metadata::Workspace;
use crate::process;
use crate::progress::Board;

/// Seeds of a change.
pub(crate) const SEEDS: u64 = 1_000;

/// Which seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// How many.
    pub(crate) seeds: u64,
    /// The first.
    pub(crate) from: u64,
}

impl Range {
    /// What every change is run with.
    pub(crate) const DEFAULT: Range = Range { seeds: SEEDS, from: 0 };

    /// From `--seeds N` and `--from S`, in any order; `None` for other words, and for no seed at all.
    pub(crate) fn parse(words: &[&str]) -> Option<Range> {
        let mut range = Range::DEFAULT;
        for pair in words.chunks(2) {
            match pair {
                ["--seeds", seeds] => range.seeds = seeds.parse().ok().filter(|it| *it > 0)?,
                ["--from", from] => range.from = from.parse().ok()?,
                _ => return None,
            }
        }
        Some(range)
    }
}

/// Runs the seeds as one step.
pub(crate) fn step(board: &mut Board, workspace: &Workspace, range: Range) {
    board.step("simulator", |_| {
        let (seeds, from) = (range.seeds.to_string(), range.from.to_string());
        let arguments = ["run", "--profile=soak", "--package=tidegate-sim", "--locked", "--"];
        let mut command = process::cargo(&workspace.root, &arguments);
        command.args(["--seeds", &seeds, "--from", &from]);
        let mut ran = 0;
        process::run(&mut command, |line| ran = ran.max(seeds_of(line).unwrap_or(0)))?;
        if ran < range.seeds { Err(format!("{ran} of {seeds} seeds ran")) } else { Ok(()) }
    });
}

/// How many seeds the closing line tells of.
fn seeds_of(line: &str) -> Option<u64> {
    let (seeds, rest) = line.split_once(" seeds, ")?;
    rest.contains(" failed; ").then(|| seeds.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_no_seed_is_none() {
        assert_eq!(Range::parse(&[]), Some(Range::DEFAULT));
        let range = Range { seeds: 7, from: 100 };
        assert_eq!(Range::parse(&["--from", "100", "--seeds", "7"]), Some(range));
        for words in [&["--seeds", "0"][..], &["--seeds"], &["--from", "x"], &["7"], &["--bogus", "1"]] {
            assert_eq!(Range::parse(words), None, "{words:?}");
        }
    }

    #[test]
    fn the_closing_line_is_counted_and_no_other() {
        assert_eq!(seeds_of("1000 seeds, 0 failed; 5 steps; calls: 1 complete"), Some(1000));
        assert_eq!(seeds_of("[##--] 50 of 1000 seeds, 0 failed, 488 thousand steps"), None);
        assert_eq!(seeds_of("0 seeds, 0 failed; 0 steps"), Some(0));
    }
}
