//! The control plane's own log: lines on standard error, as text or JSON. Decides nothing: level and format come from
//! the configuration, the level also from a reload, and `TIDEGATE_LOG` stands above it.

mod lines;

use std::io::{self, IsTerminal};

use tidegate_actors::{LogFormat, LogLevel, LogSettings};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

use lines::{Finish, Lines};

/// Sets the level of the log that runs.
pub(crate) type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// Begins to log. Where `TIDEGATE_LOG` says what is logged, as `RUST_LOG` does elsewhere, the level stays. The second
/// value is dropped when everything was said.
pub(crate) fn begin(settings: &LogSettings) -> io::Result<(SetLevel, Finish)> {
    let fixed = EnvFilter::try_from_env("TIDEGATE_LOG").ok();
    let is_fixed = fixed.is_some();
    let (filter, handle) = reload::Layer::new(fixed.unwrap_or_else(|| filter_of(settings.level)));
    let lost = match settings.format {
        LogFormat::Text => lost_as_text,
        LogFormat::Json => lost_as_json,
    };
    let (lines, finish) = Lines::start(lost)?;
    let layer = fmt::layer().with_writer(lines).with_target(false);
    let layer = match settings.format {
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(layer).init();
    if settings.format == LogFormat::Json {
        log_panics();
    }
    let set_level = move |level| {
        if !is_fixed {
            // The only error is that the subscriber is gone, and it stays to the end.
            let _ = handle.reload(filter_of(level));
        }
    };
    Ok((Box::new(set_level), finish))
}

/// What is logged at a level. Libraries' own reasons are not for operators, and nobody vouches for what they hold.
fn filter_of(level: LogLevel) -> EnvFilter {
    EnvFilter::new(match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "info,tidegate=debug",
    })
}

fn lost_as_text(count: u64) -> String {
    format!("{count} lines of this log were lost: nobody took them")
}

fn lost_as_json(count: u64) -> String {
    format!(r#"{{"level":"WARN","message":"lines of this log were lost: nobody took them","count":{count}}}"#)
}

/// Makes a panic a line like every other.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string);
        tracing::error!(thread = thread.name(), place, panic = panic.payload_as_str(), "a panic");
    }));
}
