//! How many tests ran, read off the summary lines of the test runner. Every other line is ignored, so whoever needs
//! tests to have run must ask [`Totals::is_empty`].

use std::fmt;

/// Who runs the tests. Told, not guessed: nextest shows what a failed test printed, and that holds the other's summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// `cargo test`: a summary for each binary.
    Cargo,
    /// `cargo nextest`: one summary at the end.
    Nextest,
}

/// Tests by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Totals {
    /// Looks at one line of output and counts it if it is the runner's summary.
    pub(crate) fn read(&mut self, runner: Runner, line: &str) {
        let line = without_colour(line);
        let line = line.trim();
        match runner {
            Runner::Cargo => {
                let counts = line.strip_prefix("test result:").unwrap_or_default();
                self.count(counts.split(['.', ';']));
            }
            // "Summary [ 1.2s] 9 tests run: 7 passed (1 slow, 1 flaky), 1 failed, 1 timed out, 4 skipped"
            Runner::Nextest if line.starts_with("Summary [") => {
                let counts = line.split_once("run:").map_or("", |(_, counts)| counts);
                self.count(counts.split([',', '(', ')']));
            }
            Runner::Nextest => {}
        }
    }

    /// Adds another count.
    pub(crate) fn add(&mut self, other: &Totals) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// No test ran at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed + self.failed == 0
    }

    fn count<'a>(&mut self, parts: impl Iterator<Item = &'a str>) {
        for part in parts {
            let Some((number, word)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word.trim() {
                "passed" => self.passed += number,
                "failed" | "timed out" | "exec failed" => self.failed += number,
                "ignored" | "skipped" => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The line without terminal colour sequences.
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut escaped = false;
    for c in line.chars() {
        match c {
            '\u{1b}' => escaped = true,
            'm' if escaped => escaped = false,
            _ if escaped => {}
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(runner: Runner, lines: &[&str]) -> Totals {
        let mut totals = Totals::default();
        for line in lines {
            totals.read(runner, line);
        }
        totals
    }

    const CARGO: &str =
        "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.10s";
    const NEXTEST: &str =
        "  Summary [ 1.234s] 9 tests run: 7 passed (1 slow, 1 leaky), 1 failed, 1 timed out, 4 skipped";

    #[test]
    fn each_runner_is_understood_and_the_others_words_are_not_counted() {
        let lines = [CARGO, NEXTEST, CARGO];
        assert_eq!(read(Runner::Cargo, &lines), Totals { passed: 24, failed: 0, skipped: 2 });
        assert_eq!(read(Runner::Nextest, &lines), Totals { passed: 7, failed: 2, skipped: 4 });
    }

    #[test]
    fn colours_do_not_hide_a_summary() {
        let bold = "\u{1b}[1m";
        let plain = "\u{1b}[0m";
        let line = format!(
            "{bold} Summary{plain} [ 0.1s] {bold}3{plain} tests run: {bold}3{plain} passed, 0 skipped"
        );
        assert_eq!(read(Runner::Nextest, &[&line]), Totals { passed: 3, failed: 0, skipped: 0 });
    }

    #[test]
    fn other_lines_count_nothing() {
        for runner in [Runner::Cargo, Runner::Nextest] {
            assert!(read(runner, &["running 4 tests", "4 passed", "test a ... ok", ""]).is_empty());
        }
    }
}
