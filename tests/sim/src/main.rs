//! Runs seeds, one after the other.

use tidegate_sim::run::run;
use tidegate_sim::script::Script;

#[expect(clippy::print_stdout, reason = "a program")]
fn main() {
    let words: Vec<u64> = std::env::args().skip(1).filter_map(|it| it.parse().ok()).collect();
    let (from, seeds) = (words[0], words[1]);
    let mut steps = 0;
    let mut failed = 0;
    let mut ends = [0; 5];
    let mut paid = 0;
    let mut tries = 0;
    for seed in from..from + seeds {
        let script = Script::of(seed);
        let outcome = run(&script, 3_000_000);
        steps += outcome.steps;
        paid += outcome.paid_moves;
        tries += outcome.tries;
        for (sum, n) in ends.iter_mut().zip(outcome.ends) { *sum += n; }
        if let Some(failure) = outcome.failure {
            failed += 1;
            println!("seed {seed}: {failure}\n   {} rate {}", script.troubles, script.rate);
            if seeds == 1 { for line in outcome.context { println!("   {line}"); } }
        } else if outcome.steps >= 3_000_000 {
            println!("seed {seed}: too long {} s", outcome.virtual_ns / 1_000_000_000);
        }
    }
    println!("{seeds} seeds, {failed} failed, {steps} steps, ends {ends:?}, tries {tries}, paid {paid}");
}
