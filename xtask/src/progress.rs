//! What a person sees: each step's name and time as it runs, and one closing summary. The only file of this crate
//! that prints or reads a clock. Never decides whether a step is good; it only remembers what the step said.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::totals::Totals;

/// One line to the person who runs the command. A closed pipe is no reason to fail.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// The time, for durations of steps.
#[expect(clippy::disallowed_methods, reason = "a command measures itself; nothing of the product runs here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

enum Ended {
    Failed(String),
    Ok,
    Skipped(&'static str),
}

struct Step {
    name: String,
    took: Duration,
    ended: Ended,
}

/// The steps of one command, as far as they have run.
pub(crate) struct Board {
    command: String,
    started: Instant,
    steps: Vec<Step>,
    totals: Totals,
}

impl Board {
    /// A board without steps.
    pub(crate) fn new(command: &str) -> Board {
        Board { command: command.into(), started: now(), steps: Vec::new(), totals: Totals::default() }
    }

    /// Runs one step and remembers how it ended; true if it is good. Tests that the step ran are added up.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce(&mut Totals) -> Result<(), String>) -> bool {
        say(&format!("\n== {name} ({} since the start)", shown(self.started.elapsed())));
        let begun = now();
        let mut totals = Totals::default();
        let ended = match work(&mut totals) {
            Ok(()) => Ended::Ok,
            Err(complaint) => Ended::Failed(complaint),
        };
        self.totals.add(&totals);
        let took = begun.elapsed();
        let good = matches!(ended, Ended::Ok);
        if let Ended::Failed(complaint) = &ended {
            say(complaint);
        }
        say(&format!("== {name}: {} in {}", if good { "ok" } else { "FAILED" }, shown(took)));
        self.steps.push(Step { name: name.into(), took, ended });
        good
    }

    /// Remembers a step that could not be run, which makes the command fail as well.
    pub(crate) fn skip(&mut self, name: &str, why: &'static str) {
        say(&format!("\n== {name}: skipped, {why}"));
        self.steps.push(Step { name: name.into(), took: Duration::ZERO, ended: Ended::Skipped(why) });
    }

    /// Prints the summary; true if every step ran and is good.
    pub(crate) fn close(self) -> bool {
        let good = self.good();
        say(&self.summary());
        good
    }

    fn good(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| matches!(step.ended, Ended::Ok))
    }

    fn summary(&self) -> String {
        let mut text = String::from("\n");
        for step in &self.steps {
            let (word, note) = match &step.ended {
                Ended::Failed(complaint) => ("FAILED", complaint.lines().next_back().unwrap_or_default()),
                Ended::Ok => ("ok", ""),
                Ended::Skipped(why) => ("skipped", *why),
            };
            let line = format!("  {word:<8} {:<28} {:>12}  {note}", step.name, shown(step.took));
            text.push_str(line.trim_end());
            text.push('\n');
        }
        if !self.totals.is_empty() {
            text.push_str(&format!("tests: {}\n", self.totals));
        }
        let verdict = if self.good() { "passed" } else { "FAILED" };
        text.push_str(&format!("{}: {verdict} in {}", self.command, shown(self.started.elapsed())));
        text
    }
}

/// A duration as a person reads it.
fn shown(took: Duration) -> String {
    let seconds = took.as_secs();
    if seconds >= 60 {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::totals::Runner;

    #[test]
    fn a_failed_or_skipped_step_and_an_empty_board_are_not_good() {
        assert!(!Board::new("x").good());
        let mut board = Board::new("x");
        assert!(board.step("one", |_| Ok(())));
        assert!(board.good());
        assert!(!board.step("two", |_| Err("broken".into())));
        assert!(!board.good());
        let mut board = Board::new("x");
        board.step("one", |_| Ok(()));
        board.skip("two", "one is missing");
        assert!(!board.good());
    }

    #[test]
    fn the_summary_names_each_step_and_adds_up_the_tests() {
        let mut board = Board::new("test");
        board.step("units", |totals| {
            totals.read(
                Runner::Cargo,
                "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            );
            Ok(())
        });
        board.step("docs", |totals| {
            totals.read(
                Runner::Cargo,
                "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            );
            Err("first line\n2 tests failed".into())
        });
        let summary = board.summary();
        assert!(summary.contains("tests: 6 passed, 2 failed, 1 skipped"), "{summary}");
        assert!(summary.contains("2 tests failed"), "{summary}");
        assert!(summary.contains("test: FAILED in"), "{summary}");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(shown(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(shown(Duration::from_secs(125)), "2 min 05 s");
    }
}
