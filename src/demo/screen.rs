//! What the demonstration shows: a table that is redrawn on a terminal, a line a second elsewhere, and a summary
//! that a stranger understands. Reads sums; decides nothing.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use tidegate_actors::Totals;
use tidegate_loadtest::load::LoadCounters;

use crate::process::Process;
use crate::say;

/// What is happening, before it does.
pub(crate) fn opening(process: &Process, seconds: u32) -> String {
    format!(
        "tidegate demo: two mock providers with real quotas, the gateway at http://{} ({}), and callers, \
         for {seconds} s.\n\
         The first provider's quotas are too small for the traffic; it will also refuse, overload and break streams.",
        process.data.listen, process.data.selection.driver,
    )
}

/// Shows how things stand each second until `over`.
pub(crate) async fn follow(process: &Process, counters: &LoadCounters, over: impl Fn() -> bool) {
    let redraw = std::io::stdout().is_terminal();
    let mut drawn_lines = 0;
    let mut second = 0;
    while !over() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        second += 1;
        let totals = process.control.totals();
        if redraw {
            let table = table(second, counters, &totals);
            // Back to the table's first line, and clear from there.
            let back = if drawn_lines == 0 { String::new() } else { format!("\x1b[{drawn_lines}A\x1b[J") };
            drawn_lines = table.lines().count();
            say(&format!("{back}{table}"));
        } else {
            say(&line(second, counters, &totals));
        }
    }
}

fn line(second: u64, counters: &LoadCounters, totals: &Totals) -> String {
    format!(
        "{second:>3} s  calls {:>5}  failed {:>2}  in flight {:>3}  \
         429 absorbed {:>3}  529 absorbed {:>3}  failovers {:>4}",
        counters.ended(),
        counters.failed(),
        counters.in_flight(),
        totals.rate_limited_absorbed,
        totals.overloaded_absorbed,
        totals.failovers,
    )
}

fn table(second: u64, counters: &LoadCounters, totals: &Totals) -> String {
    let mut text = line(second, counters, totals);
    text.push('\n');
    text.push_str(&accounts(totals));
    text
}

fn accounts(totals: &Totals) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "  {:<20} {:>7} {:>7} {:>5} {:>5} {:>9}",
        "account", "tries", "served", "429", "529", "tokens"
    );
    for it in &totals.accounts {
        let name = format!("{}/{}", it.provider, it.account);
        let _ = writeln!(
            text,
            "  {name:<20} {:>7} {:>7} {:>5} {:>5} {:>9}",
            it.attempts, it.served, it.rate_limited, it.overloaded, it.tokens
        );
    }
    text.truncate(text.trim_end().len());
    text
}

/// What happened, when it is over.
pub(crate) fn summary(counters: &LoadCounters, totals: &Totals) -> String {
    let verdict = if counters.failed() == 0 && totals.failures_seen_by_callers == 0 {
        "No caller saw a failure."
    } else {
        "CALLERS SAW FAILURES."
    };
    let statuses: Vec<String> =
        counters.statuses().iter().map(|(status, count)| format!("{status}: {count}")).collect();
    format!(
        "\n{verdict}\n\
         calls {}, of them failed {} (statuses {})\n\
         absorbed: {} answers of 429, {} of 529; {} calls were carried on elsewhere, {} spread before a limit was hit\n\
         upstream tries {}, tokens in {} and out {}\n{}",
        counters.ended(),
        counters.failed(),
        statuses.join(", "),
        totals.rate_limited_absorbed,
        totals.overloaded_absorbed,
        totals.failovers,
        totals.spills,
        totals.attempts,
        totals.input_tokens,
        totals.output_tokens,
        accounts(totals),
    )
}
