//! What the check of a key costs, counted in instructions: no wrong key may be told from another one by it, a removed one
//! among them. This program runs itself under valgrind, which counts nothing but the check; without valgrind it says so.

use std::hint::black_box;
use std::process::{Command, Stdio};

use tidegate_core::Moment;
use tidegate_core::caller::{CallerTable, Presenter, digest};
use tidegate_core::family::Families;
use tidegate_core::guessing::Guesses;
use tidegate_core::snapshot::{CallerDraft, CallerLimits};
use tidegate_tests::say;
use tidegate_tests::time::variable;

/// Names the key that a run presents.
const CASE: &str = "TIDEGATE_TIMING_CASE";
/// Tables of one run, each with a seed of its own: in one of them a digest may happen to look like another's at first.
const TABLES: u64 = 250;
/// Checks of one key in each.
const CHECKS: u64 = 1;
/// Virtual keys in the table.
const CALLERS: usize = 50;
/// Instructions that one check may differ by from another, of several thousand: what happens to look alike in some of the
/// tables, and a look at a flag of the caller that was found.
const SLACK: u64 = 250;

/// The keys that are presented, all of them wrong; all as long as the right ones.
const KEYS: [(&str, &str); 7] = [
    ("removed", "vk-0123456789-0123456789-0123456789-001"),
    ("unknown", "vk-9876543210-9876543210-9876543210-999"),
    ("wrong in its last sign", "vk-0123456789-0123456789-0123456789-00x"),
    ("wrong in its first sign", "xk-0123456789-0123456789-0123456789-002"),
    ("wrong in all signs", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"),
    ("wrong in one half", "vk-0123456789-0123456789-xxxxxxxxxxxxxx"),
    ("in capitals", "VK-0123456789-0123456789-0123456789-002"),
];

/// One check. Valgrind begins to count where it is entered.
#[inline(never)]
fn counted_check(table: &CallerTable, key: &[u8], by: &Presenter<'_>) -> bool {
    black_box(table.identify([key].into_iter(), by)).is_ok()
}

fn table() -> CallerTable {
    let draft = |at: usize| CallerDraft {
        name: format!("caller-{at}"),
        digest: digest(format!("vk-0123456789-0123456789-0123456789-{at:03}").as_bytes()),
        limits: CallerLimits::default(),
        models: None,
        operations: Families::GENERATION,
    };
    let table = CallerTable::build((0..CALLERS).map(draft).collect(), None, Moment::ZERO);
    table.caller(table.named("caller-1").expect("a caller")).cells.revoke();
    table
}

/// What valgrind runs; in an ordinary run each wrong key is refused once.
#[test]
fn one_key_is_checked() {
    let tables: Vec<CallerTable> = (0..TABLES).map(|_| table()).collect();
    let guesses = Guesses::new();
    let by = Presenter { guesses: &guesses, source: guesses.mark(None), now: Moment::ZERO };
    let case = variable(CASE);
    let chosen = KEYS.iter().filter(|it| case.as_deref().is_none_or(|case| case == it.0));
    for (name, key) in chosen {
        for table in &tables {
            for _ in 0..CHECKS {
                assert!(!counted_check(table, black_box(key.as_bytes()), &by), "{name}");
            }
        }
    }
    let right = tables[0].identify([b"vk-0123456789-0123456789-0123456789-002".as_slice()].into_iter(), &by);
    assert!(right.is_ok(), "a right one");
}

#[test]
fn wrong_keys_cost_the_same_instructions() {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        say("wrong_keys_cost_the_same_instructions: skipped, there is no valgrind");
        return;
    }
    let counts: Vec<(&str, u64)> =
        KEYS.iter().map(|(name, _)| (*name, instructions(name) / (TABLES * CHECKS))).collect();
    say(&format!("instructions of a check: {counts:?}"));
    let all = || counts.iter().map(|it| it.1);
    let (least, most) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
    assert!(least > 500, "valgrind counted the checks: {counts:?}");
    assert!(most - least <= SLACK, "{counts:?}");
}

/// Instructions of all checks of one key.
fn instructions(case: &str) -> u64 {
    let program = std::env::current_exe().expect("this program");
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*counted_check*")
        .arg(program)
        .args(["--exact", "one_key_is_checked", "--test-threads=1"])
        .env(CASE, case)
        .output()
        .expect("valgrind runs");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stdout));
    let collected = said.lines().find_map(|it| it.split("Collected : ").nth(1));
    collected.and_then(|it| it.trim().parse().ok()).unwrap_or_else(|| panic!("no count in {said}"))
}
