//! The control plane's own log: lines on standard error, as text or JSON. Decides nothing: level and format come from
//! the configuration, the level also from a reload, and `TIDEGATE_LOG` stands above both.

use std::io::IsTerminal;

use tidegate_actors::{LogFormat, LogLevel, LogSettings};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

/// Sets the level of the log that runs.
pub(crate) type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// Begins to log. Where `TIDEGATE_LOG` says what is logged, as `RUST_LOG` does elsewhere, the level stays.
pub(crate) fn begin(settings: &LogSettings) -> SetLevel {
    let fixed = EnvFilter::try_from_env("TIDEGATE_LOG").ok();
    let is_fixed = fixed.is_some();
    let (filter, handle) = reload::Layer::new(fixed.unwrap_or_else(|| filter_of(settings.level)));
    let lines = match settings.format {
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal();
            fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(ansi).boxed()
        }
        LogFormat::Json => {
            let lines =
                fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
            lines.with_writer(std::io::stderr).with_target(false).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    if settings.format == LogFormat::Json {
        log_panics();
    }
    Box::new(move |level| {
        if !is_fixed {
            // The only error is that the subscriber is gone, and it stays to the end.
            let _ = handle.reload(filter_of(level));
        }
    })
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

/// Makes a panic a line like every other.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string);
        tracing::error!(thread = thread.name(), place, panic = panic.payload_as_str(), "a panic");
    }));
}
