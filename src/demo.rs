//! `tidegate demo`: mock providers with real quotas, the gateway and traffic in one process, and a live account of
//! what happened. Shows 429s, 529s, failures inside streams and a failover, and that no caller saw one.

mod screen;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tidegate_actors::ConfigOrigin;
use tidegate_gateway::{IoChoice, select};
use tidegate_loadtest::load::{self, LoadConfig, LoadCounters, LoadReport, Pace, Target};
use tidegate_loadtest::mock::{Mock, MockHandle};

use crate::process::{self, Process};
use crate::systemd::Sockets;
use crate::{complain, say};

/// Calls a second: more than the first provider's quotas allow, fewer than both together.
const RATE_PER_S: f64 = 60.0;
/// Grace of the demonstration's shutdown: its callers have ended by then.
const GRACE: Duration = Duration::from_secs(2);

/// What `demo` takes.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// How long the traffic lasts.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 20, value_parser = seconds())]
    seconds: u32,
}

fn seconds() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=3600)
}

/// Runs the demonstration; exit code 1 if a caller saw a failure.
pub(crate) fn run(arguments: &DemoArguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    match runtime.block_on(demonstrate(arguments.seconds)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => failed(&message),
    }
}

fn failed(message: &str) -> ExitCode {
    complain(message);
    ExitCode::FAILURE
}

/// True if no caller saw a failure.
async fn demonstrate(seconds: u32) -> Result<bool, String> {
    let driver = select(IoChoice::Auto).map_err(|refusal| refusal.to_string())?.driver;
    let scale = f64::from(seconds) / 20.0;
    let main = start_mock(Mock::start(world::main_provider(scale), driver))?;
    let backup = start_mock(Mock::start(world::backup_provider(), driver))?;
    let yaml = world::configuration(main.addr(), backup.addr());
    let checked =
        tidegate_actors::check_text("demo.yaml", &yaml).map_err(|complaints| complaints.to_string())?;
    let model = checked.draft.models.first().map(|it| it.name.clone()).unwrap_or_default();
    let (sockets, no_level) = (Sockets::default(), Box::new(|_| ()));
    let process = process::start(checked, ConfigOrigin::Fixed, sockets, None, no_level).await?;
    say(&screen::opening(&process, seconds));
    let counters = Arc::new(LoadCounters::default());
    let target = Target { addr: process.data.listen, keys: vec![world::KEY.into()], model };
    let traffic = LoadConfig {
        pace: Pace::Open { rate_per_s: RATE_PER_S },
        seconds: f64::from(seconds),
        body_bytes: (1_024, 8_192),
        tokens_max: 64,
        counters: counters.clone(),
        ..LoadConfig::new(target)
    };
    let traffic = std::thread::spawn(move || load::run(traffic, driver));
    screen::follow(&process, &counters, || traffic.is_finished()).await;
    let report =
        traffic.join().map_err(|_| "the traffic's thread panicked")?.map_err(|error| error.to_string())?;
    Ok(conclude(process, &counters, &report).await)
}

fn start_mock<E: std::fmt::Display>(started: Result<MockHandle, E>) -> Result<MockHandle, String> {
    started.map_err(|error| format!("the mock provider does not start: {error}"))
}

async fn conclude(process: Process, counters: &LoadCounters, _report: &LoadReport) -> bool {
    // The last reports are on their way.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let totals = process.control.totals();
    say(&screen::summary(counters, &totals));
    process.stop(GRACE, GRACE, std::future::pending()).await;
    counters.failed() == 0 && totals.failures_seen_by_callers == 0
}
