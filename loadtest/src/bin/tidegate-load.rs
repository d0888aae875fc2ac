//! The load generator's command line: reads what is to be run, shows how far it came, prints what was found; all
//! else is in `load`.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate_loadtest::load::{self, LoadConfig, LoadCounters, LoadReport, Pace, Protocol, Target};
use tidegate_ring::{Driver, IoChoice, fresh_now_ns};

/// How often the progress bar is drawn.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Makes calls against a gateway on this machine and measures them, free of coordinated omission.
///
/// Latency counts from the moment a call was due. With --direct every second window calls the upstream itself, and the
/// difference is what the gateway adds.
#[derive(Parser)]
#[command(name = "tidegate-load", max_term_width = 100)]
struct Args {
    /// The gateway: a loopback address and port
    #[arg(value_parser = address)]
    target: SocketAddr,
    /// Its upstream, called directly in every second window
    #[arg(long, value_name = "ADDR", value_parser = address)]
    direct: Option<SocketAddr>,
    /// A virtual key to present; give several to be several callers
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// A file with one virtual key a line
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// The key to present to the upstream [default: the same keys]
    #[arg(long, value_name = "KEY", requires = "direct")]
    direct_key: Option<String>,
    /// The model to ask for
    #[arg(long, default_value = "claude-sonnet-5-5")]
    model: String,
    /// The model to ask the upstream for [default: the same]
    #[arg(long, value_name = "MODEL", requires = "direct")]
    direct_model: Option<String>,
    /// What is spoken
    #[arg(long, value_enum, default_value_t = Speech::Messages)]
    protocol: Speech,
    /// Open loop: calls a second [default: 100]
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "connections")]
    rate: Option<f64>,
    /// Closed loop: so many callers, each calling again when its last call has ended
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Seconds of the whole run
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds at the start of each window that are not timed
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warm_up: f64,
    /// Pairs of windows with --direct
    #[arg(long, default_value_t = 2)]
    pairs: u32,
    /// Calls of the whole run at most
    #[arg(long, value_name = "N")]
    max_requests: Option<u64>,
    /// Threads that make calls
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Calls under way at most
    #[arg(long, value_name = "N", default_value_t = 4096)]
    in_flight: usize,
    /// Share of calls that ask for a stream, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    streamed: f64,
    /// Share of streamed calls whose caller leaves mid-stream, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    leave: f64,
    /// Bytes of a request body: N, or MIN-MAX
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = body_bytes)]
    body: (usize, usize),
    /// `max_tokens` of each call
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: u64,
    /// Seconds a call may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    timeout: f64,
    /// The gateway's process, to measure its CPU time a call
    #[arg(long)]
    pid: Option<u32>,
    /// Start calls exactly when due; costs a core
    #[arg(long)]
    spin: bool,
    /// Seed of arrivals, sizes and choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The I/O driver: auto, io_uring or epoll
    #[arg(long, default_value = "auto", value_parser = io_choice)]
    io: IoChoice,
    /// Print JSON in place of the table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Speech {
    /// POST /v1/messages
    Messages,
    /// POST /v1/chat/completions
    Chat,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.json;
    match prepare(args)
        .and_then(|(config, driver)| run(config, driver))
        .and_then(|report| print(&report, json))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Nothing is left to be done if the message cannot be written.
            let _ = writeln!(io::stderr(), "tidegate-load: {message}");
            ExitCode::from(2)
        }
    }
}

fn prepare(args: Args) -> Result<(LoadConfig, Driver), String> {
    let keys = keys_of(&args)?;
    let call_timeout =
        Duration::try_from_secs_f64(args.timeout).map_err(|error| format!("--timeout: {error}"))?;
    let driver = tidegate_ring::select(args.io).map_err(|refusal| refusal.to_string())?.driver;
    let direct = args.direct.map(|addr| Target {
        addr,
        keys: args.direct_key.clone().map_or_else(|| keys.clone(), |key| vec![key]),
        model: args.direct_model.clone().unwrap_or_else(|| args.model.clone()),
    });
    let pace = match args.connections {
        Some(connections) => Pace::Closed { connections },
        None => Pace::Open { rate_per_s: args.rate.unwrap_or(100.0) },
    };
    let config = LoadConfig {
        direct,
        pace,
        protocol: match args.protocol {
            Speech::Messages => Protocol::Messages,
            Speech::Chat => Protocol::Chat,
        },
        seconds: args.seconds,
        warm_up_s: args.warm_up,
        pairs: args.pairs,
        requests_max: args.max_requests,
        threads: args.threads,
        in_flight_max: args.in_flight,
        streamed_share: args.streamed,
        leave_share: args.leave,
        body_bytes: args.body,
        tokens_max: args.max_tokens,
        call_timeout,
        pid: args.pid,
        spin: args.spin,
        seed: args.seed,
        ..LoadConfig::new(Target { addr: args.target, keys, model: args.model })
    };
    Ok((config, driver))
}

/// The keys of the command line and of the file; a made-up one if there are none, for a gateway that takes any.
fn keys_of(args: &Args) -> Result<Vec<String>, String> {
    let mut keys = args.keys.clone();
    if let Some(path) = &args.keys_file {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        keys.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    if keys.is_empty() {
        keys.push("tidegate-load".to_owned());
    }
    Ok(keys)
}

/// Runs on a thread of its own, and shows progress on a terminal meanwhile.
fn run(config: LoadConfig, driver: Driver) -> Result<LoadReport, String> {
    let bar = Progress::new(&config);
    let (alive, ended) = sync_channel::<()>(1);
    let thread = std::thread::spawn(move || {
        let _alive = alive;
        load::run(config, driver)
    });
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(PROGRESS_INTERVAL) {
        bar.draw();
    }
    bar.bar.finish_and_clear();
    let report = thread.join().map_err(|_| "the run panicked".to_owned())?;
    report.map_err(|error| error.to_string())
}

struct Progress {
    bar: ProgressBar,
    counters: Arc<LoadCounters>,
    start_ns: u64,
}

impl Progress {
    fn new(config: &LoadConfig) -> Progress {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some((config.seconds * 1e3) as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent:>3}%  {msg}") {
            bar.set_style(style);
        }
        Progress { bar, counters: Arc::clone(&config.counters), start_ns: fresh_now_ns() }
    }

    fn draw(&self) {
        self.bar.set_position(fresh_now_ns().saturating_sub(self.start_ns) / 1_000_000);
        self.bar.set_message(format!(
            "{} sent, {} ok, {} left, {} failed, {} under way",
            self.counters.sent(),
            self.counters.ok(),
            self.counters.left(),
            self.counters.failed(),
            self.counters.in_flight(),
        ));
    }
}

fn print(report: &LoadReport, json: bool) -> Result<(), String> {
    let mut out = io::stdout().lock();
    let written = if json {
        let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
        writeln!(out, "{text}")
    } else {
        write!(out, "{report}")
    };
    written.and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))
}

/// `127.0.0.1:4000`, `localhost:4000`, with or without `http://` before it.
fn address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let bare = match bare.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => bare.to_owned(),
    };
    let addr: SocketAddr =
        bare.parse().map_err(|_| "an address and port such as 127.0.0.1:4000".to_owned())?;
    if addr.ip().is_loopback() { Ok(addr) } else { Err(load::LoadError::NotLoopback(addr).to_string()) }
}

fn body_bytes(text: &str) -> Result<(usize, usize), String> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let number =
        |text: &str| text.trim().parse::<usize>().map_err(|_| "a number of bytes, or MIN-MAX".to_owned());
    Ok((number(least)?, number(most)?))
}

fn io_choice(text: &str) -> Result<IoChoice, String> {
    text.parse().map_err(|()| "auto, io_uring or epoll".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_only() {
        let home = "127.0.0.1:4000".parse().expect("an address");
        assert_eq!(address("http://localhost:4000/"), Ok(home));
        assert_eq!(address("127.0.0.1:4000"), Ok(home));
        assert!(address("[::1]:4000").is_ok());
        assert!(address("192.0.2.1:80").is_err_and(|why| why.contains("loopback")));
        assert!(address("example.com:80").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        assert_eq!(body_bytes("1024-409600"), Ok((1024, 409_600)));
        assert_eq!(body_bytes("77"), Ok((77, 77)));
        assert!(body_bytes("1k").is_err());
    }
}
