//! The load generator: calls against a gateway on this machine, timed so that a slow reply cannot hide the calls that
//! should have been made meanwhile.
//!
//! Latency counts from the moment a call was *meant* to start. An open loop fixes these moments beforehand (a Poisson
//! process), so a server that stalls is charged for everybody who had to wait. Against the same upstream directly,
//! windows
//! alternate (gateway, direct, gateway, direct), so that a drift of the machine falls on both sides.
//!
//! It decides when to call, what to send and how a reply counts. It never leaves the loopback interface, never
//! repeats a
//! call, and prints nothing: `tidegate-load` and `demo` do.

mod call;
mod counters;
mod cpu;
mod pace;
mod report;
mod request;
mod tally;
mod watch;
mod worker;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_ring::{Driver, fresh_now_ns};

pub use counters::{Failure, LoadCounters};
pub use report::{Added, AddedQuantiles, CpuReport, LoadReport, Quantiles, Summary, WindowReport};

use cpu::CpuClock;
use request::Bodies;
use tally::Tally;
use worker::Window;

/// The largest request body that can be asked for.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest run, so that a forgotten one ends.
pub const SECONDS_MAX: f64 = 24.0 * 3600.0;
/// Threads at most.
pub const THREADS_MAX: usize = 64;
/// Calls under way at most: each takes a descriptor, and twice as many ports linger.
pub const IN_FLIGHT_MAX: usize = 16_384;
/// Pairs of windows at most.
pub const PAIRS_MAX: u32 = 100;

/// When calls are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// At moments of a Poisson process of this rate, whatever became of the calls before.
    Open {
        /// Calls a second, over all threads.
        rate_per_s: f64,
    },
    /// So many callers, each making its next call when the last has ended. A slow server slows them: compare
    /// throughput with it, not latency.
    Closed {
        /// Callers, over all threads.
        connections: usize,
    },
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `POST /v1/messages`, the key in `x-api-key`.
    Messages,
    /// `POST /v1/chat/completions`, the key as a bearer token.
    Chat,
}

/// Whom to call.
#[derive(Clone, Debug)]
pub struct Target {
    /// A loopback address.
    pub addr: SocketAddr,
    /// Keys to present, one drawn for each call. At least one.
    pub keys: Vec<String>,
    /// The model to ask for.
    pub model: String,
}

/// A run.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The gateway.
    pub target: Target,
    /// Its upstream, to be called directly in every second window.
    pub direct: Option<Target>,
    /// What both speak.
    pub protocol: Protocol,
    /// When calls are made.
    pub pace: Pace,
    /// Seconds of the whole run, warm-ups included; shared evenly by the windows.
    pub seconds: f64,
    /// Seconds at the start of each window whose calls are counted but not timed.
    pub warm_up_s: f64,
    /// Pairs of windows, if there is a direct target; else one window is run.
    pub pairs: u32,
    /// Calls of the whole run at most.
    pub requests_max: Option<u64>,
    /// Threads that make calls.
    pub threads: usize,
    /// Calls under way at most. An open loop that meets this limit waits, and the wait counts as latency.
    pub in_flight_max: usize,
    /// The share of calls that ask for a stream, 0 to 1.
    pub streamed_share: f64,
    /// The share of streamed calls whose caller leaves in the middle of the stream, 0 to 1.
    pub leave_share: f64,
    /// Smallest and largest request body in bytes; sizes are spread evenly over the magnitudes between.
    pub body_bytes: (usize, usize),
    /// `max_tokens` of each call.
    pub tokens_max: u64,
    /// How long a call may take once it was started.
    pub call_timeout: Duration,
    /// The gateway's process, whose CPU time is measured.
    pub pid: Option<u32>,
    /// Whether the last stretch before each call is waited for by spinning. Without it calls start up to about a
    /// millisecond late (and that counts as latency, on both sides alike); with it a core is busy.
    pub spin: bool,
    /// Seed of arrivals, sizes and choices: equal seeds offer the equal load.
    pub seed: u64,
    /// Live figures, and the way to stop early.
    pub counters: Arc<LoadCounters>,
}

impl LoadConfig {
    /// Ten seconds of whole and streamed calls, half and half, 1 KB each, at 100/s.
    pub fn new(target: Target) -> LoadConfig {
        LoadConfig {
            target,
            direct: None,
            protocol: Protocol::Messages,
            pace: Pace::Open { rate_per_s: 100.0 },
            seconds: 10.0,
            warm_up_s: 0.0,
            pairs: 2,
            requests_max: None,
            threads: 1,
            in_flight_max: 4_096,
            streamed_share: 0.5,
            leave_share: 0.0,
            body_bytes: (1_024, 1_024),
            tokens_max: 256,
            call_timeout: Duration::from_secs(60),
            pid: None,
            spin: false,
            seed: 1,
            counters: Arc::default(),
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        for target in [Some(&self.target), self.direct.as_ref()].into_iter().flatten() {
            check_target(target, self.protocol)?;
        }
        let share = 0.0..=1.0;
        let in_order = [
            (self.seconds > 0.0 && self.seconds <= SECONDS_MAX, "seconds: above 0, at most a day"),
            (self.warm_up_s >= 0.0, "warm-up: not negative"),
            (self.warm_up_s < self.window_seconds(), "warm-up: must be shorter than a window"),
            ((1..=PAIRS_MAX).contains(&self.pairs), "pairs: 1 to 100"),
            ((1..=THREADS_MAX).contains(&self.threads), "threads: 1 to 64"),
            ((1..=IN_FLIGHT_MAX).contains(&self.in_flight_max), "calls under way: 1 to 16384"),
            (share.contains(&self.streamed_share), "streamed share: 0 to 1"),
            (share.contains(&self.leave_share), "leaving share: 0 to 1"),
            (self.body_bytes.0 <= self.body_bytes.1, "body bytes: the smallest is above the largest"),
            (self.body_bytes.1 <= BODY_BYTES_MAX, "body bytes: at most 4 MiB"),
            (!self.call_timeout.is_zero(), "timeout: above 0"),
            (self.call_timeout.as_secs_f64() <= SECONDS_MAX, "timeout: at most a day"),
            (self.requests_max != Some(0), "requests: at least 1"),
            (pace_is_sound(self.pace), "pace: a rate of up to a million a second, or 1 to 16384 connections"),
        ];
        match in_order.into_iter().find(|(fine, _)| !fine) {
            Some((_, what)) => Err(LoadError::Setting(what)),
            None => Ok(()),
        }
    }

    fn windows(&self) -> u32 {
        if self.direct.is_some() { self.pairs.saturating_mul(2) } else { 1 }
    }

    fn window_seconds(&self) -> f64 {
        self.seconds / f64::from(self.windows().max(1))
    }
}

/// Why there was no run, or not all of it.
#[derive(Debug)]
pub enum LoadError {
    /// The address is not of this machine's loopback interface.
    NotLoopback(SocketAddr),
    /// A key or model that cannot be sent, or none.
    Target(&'static str),
    /// A setting out of its range.
    Setting(&'static str),
    /// The process whose CPU time is to be measured cannot be read.
    Process(u32, io::Error),
    /// A thread could not be started, or its ring not be built.
    Worker(io::Error),
    /// A thread, or so many calls, ended by a panic: the figures would not be whole.
    Panicked(u64),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::NotLoopback(addr) => {
                write!(f, "{addr} is not a loopback address; load is made on this machine only")
            }
            LoadError::Target(what) | LoadError::Setting(what) => f.write_str(what),
            LoadError::Process(pid, error) => write!(f, "process {pid} cannot be measured: {error}"),
            LoadError::Worker(error) => write!(f, "cannot make calls: {error}"),
            LoadError::Panicked(calls) => write!(f, "{calls} calls or threads ended by a panic"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Makes the calls on threads of its own and returns when the last has ended: at the latest twice `call_timeout`
/// after each window's end.
///
/// # Errors
/// A configuration that is refused, before any call; a process or thread that fails.
pub fn run(config: LoadConfig, driver: Driver) -> Result<LoadReport, LoadError> {
    config.check()?;
    let cpu = match config.pid {
        Some(pid) => Some(CpuClock::of(pid).map_err(|error| LoadError::Process(pid, error))?),
        None => None,
    };
    let config = Arc::new(config);
    let bodies = Arc::new(Bodies::new(&config));
    let windows = config.windows();
    let mut done = Vec::new();
    for index in 0..windows {
        if config.counters.stop_asked() {
            break;
        }
        let direct = config.direct.as_ref().filter(|_| index % 2 == 1);
        let target = direct.unwrap_or(&config.target).clone();
        let window = Window {
            config: Arc::clone(&config),
            bodies: Arc::clone(&bodies),
            target,
            index,
            start_ns: 0,
            budget: Arc::new(AtomicU64::new(budget_of(config.requests_max, windows, index))),
        };
        let cpu = cpu.as_ref().filter(|_| direct.is_none());
        done.push(run_window(window, driver, cpu)?);
    }
    Ok(LoadReport::new(&config, driver, &done))
}

/// One window and what came of it.
struct Done {
    direct: bool,
    /// Seconds that calls were started in and timed.
    timed_s: f64,
    tally: Tally,
    cpu: Option<CpuSample>,
}

/// CPU time that was used while so many calls ended.
#[derive(Clone, Copy, Debug, Default)]
struct CpuSample {
    cpu_ns: u64,
    calls: u64,
    elapsed_ns: u64,
}

/// The calls that a window may make: an even share, and what does not divide goes to the first ones.
fn budget_of(requests_max: Option<u64>, windows: u32, index: u32) -> u64 {
    let Some(max) = requests_max else { return u64::MAX };
    let windows = u64::from(windows.max(1));
    max / windows + u64::from(u64::from(index) < max % windows)
}

fn run_window(window: Window, driver: Driver, cpu: Option<&CpuClock>) -> Result<Done, LoadError> {
    let window = Arc::new(Window { start_ns: fresh_now_ns(), ..window });
    let (alive, ended) = sync_channel(1);
    let mut threads = Vec::with_capacity(window.config.threads);
    for thread in 0..window.config.threads {
        threads.push(start_thread(&window, thread, driver, alive.clone())?);
    }
    drop(alive);
    let sample = observe(&window, &ended, cpu)?;
    let mut tally = Tally::new();
    for thread in threads {
        tally.add(&thread.join().map_err(|_| LoadError::Panicked(1))?.map_err(LoadError::Worker)?);
    }
    if tally.panics > 0 {
        return Err(LoadError::Panicked(tally.panics));
    }
    let until_ns = window.end_ns().min(fresh_now_ns());
    let timed_s = seconds_between(window.timed_from_ns(), until_ns);
    Ok(Done { direct: window.is_direct(), timed_s, tally, cpu: sample })
}

/// A thread of calls. It holds `alive` while it runs.
fn start_thread(
    window: &Arc<Window>,
    thread: usize,
    driver: Driver,
    alive: SyncSender<()>,
) -> Result<JoinHandle<io::Result<Tally>>, LoadError> {
    let window = Arc::clone(window);
    std::thread::Builder::new()
        .name(format!("load-{thread}"))
        .spawn(move || {
            let _alive = alive;
            worker::run_thread(window, thread, driver)
        })
        .map_err(LoadError::Worker)
}

/// Waits for the threads and reads the CPU clock at both ends of the timed part. Replies that come after its end are
/// not in the sample, so that waiting for the slowest does not count as work.
fn observe(
    window: &Window,
    ended: &Receiver<()>,
    cpu: Option<&CpuClock>,
) -> Result<Option<CpuSample>, LoadError> {
    wait_until(window.timed_from_ns(), ended);
    let before = read_cpu(window, cpu)?;
    wait_until(window.end_ns(), ended);
    let after = read_cpu(window, cpu)?;
    // No thread sends anything: this returns once all have dropped their end.
    while ended.recv().is_ok() {}
    Ok(before.zip(after).map(|(before, after)| CpuSample {
        cpu_ns: after.cpu_ns.saturating_sub(before.cpu_ns),
        calls: after.calls.saturating_sub(before.calls),
        elapsed_ns: after.elapsed_ns.saturating_sub(before.elapsed_ns),
    }))
}

fn read_cpu(window: &Window, cpu: Option<&CpuClock>) -> Result<Option<CpuSample>, LoadError> {
    let Some(cpu) = cpu else { return Ok(None) };
    let cpu_ns = cpu.cpu_ns().map_err(|error| LoadError::Process(cpu.pid(), error))?;
    Ok(Some(CpuSample { cpu_ns, calls: window.config.counters.ended(), elapsed_ns: fresh_now_ns() }))
}

/// Returns at `until_ns`, or when the last thread has ended.
fn wait_until(until_ns: u64, ended: &Receiver<()>) {
    loop {
        let left_ns = until_ns.saturating_sub(fresh_now_ns());
        if left_ns == 0 {
            return;
        }
        if let Err(RecvTimeoutError::Disconnected) = ended.recv_timeout(Duration::from_nanos(left_ns)) {
            return;
        }
    }
}

fn check_target(target: &Target, protocol: Protocol) -> Result<(), LoadError> {
    if !target.addr.ip().is_loopback() {
        return Err(LoadError::NotLoopback(target.addr));
    }
    if target.keys.is_empty() {
        return Err(LoadError::Target("no key to present"));
    }
    if target.model.is_empty() {
        return Err(LoadError::Target("no model to ask for"));
    }
    let (mut head, host) = (Vec::new(), target.addr.to_string());
    for key in &target.keys {
        head.clear();
        if request::write_head(&mut head, protocol, &host, key, 0).is_err() {
            return Err(LoadError::Target("a key that cannot stand in a header"));
        }
    }
    Ok(())
}

fn pace_is_sound(pace: Pace) -> bool {
    match pace {
        Pace::Open { rate_per_s } => rate_per_s > 0.0 && rate_per_s <= 1e6,
        Pace::Closed { connections } => (1..=IN_FLIGHT_MAX).contains(&connections),
    }
}

fn seconds_between(from_ns: u64, to_ns: u64) -> f64 {
    Duration::from_nanos(to_ns.saturating_sub(from_ns)).as_secs_f64()
}

#[cfg(test)]
mod tests;
