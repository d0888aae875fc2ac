//! `tidegate-sim --seeds N --from S`: runs seeds in as many processes as there are processors, shows how far it is, and
//! makes what fails as short as it can. `--seed S [--calls N] [--off a,b]` runs one and tells all about it.
//!
//! A process each, not a thread: what the allocator counts is the process's.

#![forbid(unsafe_code)]

use std::alloc::System;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{Child, Command, ExitCode, Stdio};

use stats_alloc::StatsAlloc;
use tidegate_sim::ledger::Failure;
use tidegate_sim::run::{Outcome, run};
use tidegate_sim::shrink::{STEPS_MAX, script, shrink};
use tidegate_sim::trouble::Troubles;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = tidegate_sim::memory::ALLOCATOR;

/// Failing seeds that are made shorter; the others are named only.
const SHRUNK_MAX: usize = 3;
/// Characters of the bar.
const BAR: usize = 40;

#[derive(Default)]
struct Wish {
    seeds: u64,
    from: u64,
    /// Every so many-th seed; a child's.
    every: Option<u64>,
    jobs: u64,
    seed: Option<u64>,
    calls: Option<usize>,
    off: Troubles,
}

fn main() -> ExitCode {
    let wish = match wish(std::env::args().skip(1)) {
        Ok(wish) => wish,
        Err(complaint) => {
            say(&format!(
                "{complaint}\nusage: tidegate-sim --seeds N [--from S] [--jobs J] | --seed S [--calls N] [--off a,b]"
            ));
            return ExitCode::from(2);
        }
    };
    let good = match (wish.seed, wish.every) {
        (Some(seed), _) => tell(seed, &wish),
        (None, Some(every)) => run_some(&wish, every),
        (None, None) => run_all(&wish),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn wish(mut words: impl Iterator<Item = String>) -> Result<Wish, String> {
    let jobs = std::thread::available_parallelism().map_or(1, |it| it.get() as u64);
    let mut wish = Wish { jobs, ..Wish::default() };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{word} {value}: {error}"));
        match word.as_str() {
            "--seeds" => wish.seeds = number()?,
            "--from" => wish.from = number()?,
            "--every" => wish.every = Some(number()?.max(1)),
            "--jobs" => wish.jobs = number()?.max(1),
            "--seed" => wish.seed = Some(number()?),
            "--calls" => wish.calls = Some(number()? as usize),
            "--off" => wish.off = value.parse()?,
            _ => return Err(format!("{word} is unknown")),
        }
    }
    Ok(wish)
}

/// One seed, with all that is known of what fails.
fn tell(seed: u64, wish: &Wish) -> bool {
    let script = script(seed, wish.off, wish.calls.unwrap_or(usize::MAX));
    let outcome = run(&script, STEPS_MAX);
    say(&format!(
        "seed {seed}: {} providers, {} workers, {} calls, trouble {} in {} of 1000",
        script.providers.len(),
        script.workers,
        script.calls.len(),
        script.troubles,
        script.rate
    ));
    say(&format!(
        "{} steps, {} s of virtual time, digest {:016x}, ends {:?}, {} tries, {} paid moves, at most {} bytes held",
        outcome.steps,
        outcome.virtual_ns / 1_000_000_000,
        outcome.digest,
        outcome.ends,
        outcome.tries,
        outcome.paid_moves,
        outcome.held_bytes_max
    ));
    tell_failure(&outcome);
    outcome.failure.is_none() && outcome.steps < STEPS_MAX
}

fn tell_failure(outcome: &Outcome) {
    let Some(failure) = &outcome.failure else { return };
    say(&format!("  {failure}"));
    for line in &outcome.context {
        say(&format!("    {line}"));
    }
}

/// A child: each seed is a line.
fn run_some(wish: &Wish, every: u64) -> bool {
    let mut good = true;
    for seed in (wish.from..wish.from + wish.seeds).step_by(every as usize) {
        let outcome = run(&script(seed, wish.off, usize::MAX), STEPS_MAX);
        let [complete, error_event, refused, left, cut] = outcome.ends;
        let numbers =
            format!("{} {complete} {error_event} {refused} {left} {cut} {}", outcome.steps, outcome.tries);
        match outcome.failure {
            None if outcome.steps >= STEPS_MAX => {
                say(&format!("FAILED {seed} 0 {numbers} no end in {STEPS_MAX} steps"))
            }
            None => say(&format!("ok {seed} 0 {numbers}")),
            Some(failure) => {
                good = false;
                say(&format!("FAILED {seed} {} {numbers} {failure}", failure.assertion));
            }
        }
    }
    good
}

/// What all children have told.
#[derive(Default)]
struct Sums {
    seeds: u64,
    failed: Vec<(u64, u8, String)>,
    /// Steps; then calls by their ends, and requests on the wire.
    numbers: [u64; 7],
}

impl Sums {
    fn read(&mut self, line: &str) {
        let mut words = line.splitn(11, ' ');
        let (Some(verdict), Some(seed), Some(assertion)) = (words.next(), words.next(), words.next()) else {
            return;
        };
        for sum in &mut self.numbers {
            *sum += words.next().and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
        }
        self.seeds += 1;
        if verdict == "FAILED" {
            let (seed, assertion) = (seed.parse().unwrap_or(0), assertion.parse().unwrap_or(0));
            self.failed.push((seed, assertion, words.next().unwrap_or("").to_owned()));
        }
    }

    fn shown(&self, of: u64) -> String {
        let done = (self.seeds * BAR as u64 / of.max(1)) as usize;
        let bar = format!("{}{}", "#".repeat(done), "-".repeat(BAR - done.min(BAR)));
        let (seeds, failed, steps) = (self.seeds, self.failed.len(), self.numbers[0] / 1_000);
        format!("[{bar}] {seeds} of {of} seeds, {failed} failed, {steps} thousand steps")
    }
}

fn run_all(wish: &Wish) -> bool {
    let mut children: Vec<Child> = (0..wish.jobs).filter_map(|job| child(wish, job)).collect();
    let (sender, receiver) = std::sync::mpsc::sync_channel::<String>(1024);
    for child in &mut children {
        let Some(out) = child.stdout.take() else { continue };
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut sums = Sums::default();
    let is_terminal = std::io::stdout().is_terminal();
    let each = if is_terminal { 10 } else { (wish.seeds / 20).max(1) };
    for line in receiver {
        sums.read(&line);
        if line.starts_with("FAILED") {
            say(&line);
        }
        if sums.seeds.is_multiple_of(each) {
            let text = sums.shown(wish.seeds);
            if is_terminal { print_over(&text) } else { say(&text) }
        }
    }
    let ended = children.iter_mut().all(|it| it.wait().is_ok_and(|it| it.code().is_some_and(|it| it < 2)));
    sum_up(&sums, wish, ended)
}

fn child(wish: &Wish, job: u64) -> Option<Child> {
    let seeds = wish.seeds.checked_sub(job)?;
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args(["--seeds", &seeds.to_string(), "--from", &(wish.from + job).to_string()]);
    command.args(["--every", &wish.jobs.to_string(), "--off", &wish.off.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().ok()
}

fn sum_up(sums: &Sums, wish: &Wish, ended: bool) -> bool {
    let [steps, complete, error_event, refused, left, cut, tries] = sums.numbers;
    say(&format!(
        "\n{} seeds, {} failed; {steps} steps; calls: {complete} complete, {error_event} ended by an error event, \
         {refused} refused, {left} left, {cut} cut; {tries} requests upstream",
        sums.seeds,
        sums.failed.len()
    ));
    for (seed, assertion, _) in sums.failed.iter().take(SHRUNK_MAX) {
        let failure = Failure { assertion: *assertion, what: String::new(), call: None, step: 0, now_ns: 0 };
        let least = shrink(*seed, &failure);
        say(&format!(
            "seed {seed}: fails with its first {} calls and trouble {}, at step {}; again by\n  \
             cargo run --profile soak -p tidegate-sim -- --seed {seed} --calls {} --off {}",
            least.calls, least.on, least.outcome.steps, least.calls, least.off
        ));
        tell_failure(&least.outcome);
    }
    let whole = sums.seeds == wish.seeds && sums.seeds > 0;
    if !whole {
        say(&format!("only {} of {} seeds ran", sums.seeds, wish.seeds));
    }
    ended && whole && sums.failed.is_empty()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        // Nobody listens any more: whoever started this is gone.
        std::process::exit(2);
    }
}

fn print_over(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "\r{text}");
    let _ = out.flush();
}
