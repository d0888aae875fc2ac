//! Many slow streams for long, with callers that leave in the middle: the gateway's memory stays below the bound that
//! it states and does not grow, no call fails, and everything that was taken comes home.
//!
//! Gateway, provider and load are a process each. `TIDEGATE_STREAMS=9500x600` sets how many streams run at once, and
//! for how many seconds; these are the ones that are promised.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_loadtest::load::{self, Pace, Summary};
use tidegate_loadtest::mock::{Draw, LatencyConfig, MockConfig, OutputConfig};
use tidegate_tests::both_drivers;
use tidegate_tests::rig::{KEYED, Rig};
use tidegate_tests::time::{now, pause_ms, variable, wait_for};

/// The share of callers that leave in the middle of their stream.
const LEAVING: f64 = 0.3;
/// How far memory at the end may lie from memory at the beginning.
const DRIFT: f64 = 0.03;
/// What the short form may grow by: receive buffers of a ring are taken in turn, so that all of them come to be used once,
/// and a few seconds are no steady state.
const SHORT_GROWTH_BYTES: f64 = 40.0 * 1024.0 * 1024.0;
/// Longer than an idle upstream connection is kept.
const POOL_LIMIT: Duration = Duration::from_secs(90);

/// Streams at once and seconds; whether that is the promised form.
fn extent() -> (usize, u64, bool) {
    let stated = variable("TIDEGATE_STREAMS");
    let stated = stated.as_deref().and_then(|it| it.split_once('x'));
    stated.map_or((400, 20, false), |(count, seconds)| {
        (count.parse().expect("a number"), seconds.parse().expect("a number"), true)
    })
}

/// An event about each two seconds in the promised form; the short one has a tenth of its time and of its pauses.
fn provider(promised: bool) -> MockConfig {
    let event_ms = if promised { Draw::Uniform(1_500.0, 2_500.0) } else { Draw::Uniform(150.0, 250.0) };
    MockConfig {
        latency: LatencyConfig {
            first_ms: Draw::Uniform(100.0, 500.0),
            event_ms,
            ..LatencyConfig::default()
        },
        output: OutputConfig { tokens: Draw::Uniform(40.0, 80.0), tokens_per_event: 4 },
        requests_kept: 0,
        calls_kept: 0,
        connections_max: 19_000,
        ..MockConfig::default()
    }
}

/// Memory of the gateway, each second.
fn watch(rig: &Rig, over: &AtomicBool) -> Vec<u64> {
    let (began, mut samples) = (now(), Vec::new());
    while !over.load(Ordering::SeqCst) {
        samples.push(rig.gateway.resident_bytes());
        let due = began + Duration::from_secs(samples.len() as u64);
        while now() < due && !over.load(Ordering::SeqCst) {
            pause_ms(20);
        }
    }
    samples
}

fn mean(samples: &[u64]) -> f64 {
    samples.iter().sum::<u64>() as f64 / samples.len().max(1) as f64
}

/// The second tenth of a run and the last: minutes 2 and 10 of ten.
fn tenths(samples: &[u64], seconds: u64) -> (f64, f64) {
    let tenth = (seconds as usize / 10).max(1);
    let samples = &samples[..samples.len().min(seconds as usize)];
    (mean(&samples[tenth..2 * tenth]), mean(&samples[samples.len() - tenth..]))
}

fn tell(driver: &str, (early, late): (f64, f64), bound: f64, summary: &Summary) {
    const MIB: f64 = 1024.0 * 1024.0;
    let told = format!(
        "{driver}: {} calls, {} left, {} failed; memory {:.1} MiB, at the end {:.1} MiB ({:+.2} %), bound {:.0} MiB\n",
        summary.sent,
        summary.left,
        summary.failed,
        early / MIB,
        late / MIB,
        (late / early - 1.0) * 100.0,
        bound / MIB,
    );
    std::io::stderr().write_all(told.as_bytes()).expect("told");
}

both_drivers! {
    fn many_slow_streams_leave_nothing_behind(driver) {
        let (streams, seconds, promised) = extent();
        let rig = Rig::start(driver, provider(promised), KEYED);
        let bound = rig.metric("tidegate_memory_bound_bytes").expect("it is stated");
        let descriptors = rig.gateway.descriptors();
        let over = Arc::new(AtomicBool::new(false));
        let (summary, samples) = std::thread::scope(|scope| {
            let watching = scope.spawn(|| watch(&rig, &over));
            let mut wanted = rig.load();
            wanted.pace = Pace::Closed { connections: streams };
            wanted.seconds = seconds as f64;
            wanted.streamed_share = 1.0;
            wanted.leave_share = LEAVING;
            wanted.in_flight_max = streams;
            wanted.call_timeout = Duration::from_secs(180);
            let io = tidegate_gateway::select(driver).expect("a driver").driver;
            let report = load::run(wanted, io).expect("a load");
            over.store(true, Ordering::SeqCst);
            (report.gateway, watching.join().expect("no panic"))
        });
        let (early, late) = tenths(&samples, seconds);
        tell(&format!("{driver:?}"), (early, late), bound, &summary);
        assert_eq!(summary.failed, 0, "{:?}", summary.failures);
        assert!(summary.sent as usize >= 2 * streams, "each place is used again: {}", summary.sent);
        let left = summary.left as f64 / summary.sent as f64;
        assert!((left - LEAVING).abs() < 0.1, "{left} of the callers left");
        let highest = samples.iter().max().copied().expect("samples");
        assert!(highest as f64 <= bound, "{highest} bytes, {bound} stated");
        let drift = if promised { early * DRIFT } else { SHORT_GROWTH_BYTES };
        assert!((late - early).abs() <= drift, "{early} bytes became {late}");
        rig.wait_until_all_is_home();
        // What is left are idle upstream connections, until they are too old.
        let pooled = rig.gateway.descriptors().saturating_sub(descriptors);
        assert!(pooled <= 2 * tidegate_core::limits::POOL_IDLE_MAX, "{pooled} idle upstream connections");
        if promised {
            wait_for("all descriptors come home", POOL_LIMIT, || rig.gateway.descriptors() <= descriptors);
        }
        rig.end();
    }
}
