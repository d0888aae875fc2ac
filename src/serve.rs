//! `tidegate serve`: runs the gateway until a signal ends it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tidegate_actors::{Checked, ConfigOrigin, LogFormat};
use tidegate_gateway::{DRAIN_GRACE, DRAIN_GRACE_STREAMS};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::process::{self, Process};
use crate::{check, complain, log, say};

/// What `serve` takes.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// The configuration; without it, keys come from the providers' usual environment variables.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where callers connect, instead of what the configuration says.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Worker threads, instead of one for each core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
}

/// Serves; exit code 0 after a drain, 1 where nothing could be served.
pub(crate) fn run(arguments: &ServeArguments) -> ExitCode {
    let checked = match configured(arguments) {
        Ok(checked) => checked,
        Err(complaints) => return failed(&complaints.to_string()),
    };
    let format = checked.logs.format;
    let (set_level, _finish) = match log::begin(&checked.logs) {
        Ok(begun) => begun,
        Err(error) => return failed(&error.to_string()),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    match runtime.block_on(serve(arguments, checked, set_level)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) if format == LogFormat::Json => {
            tracing::error!("{message}");
            ExitCode::FAILURE
        }
        Err(message) => failed(&message),
    }
}

fn failed(message: &str) -> ExitCode {
    complain(message);
    ExitCode::FAILURE
}

async fn serve(arguments: &ServeArguments, checked: Checked, set_level: log::SetLevel) -> Result<(), String> {
    match checked.logs.format {
        LogFormat::Text => check::warn(&checked),
        LogFormat::Json if checked.warnings.is_empty() => {}
        LogFormat::Json => {
            tracing::warn!("the configuration works, but:\n{}", checked.render_warnings(false))
        }
    }
    let origin = arguments.config.clone().map_or(ConfigOrigin::Fixed, ConfigOrigin::File);
    let greeting = arguments.config.is_none().then(|| checked.clone());
    // Signals are caught before the first connection is accepted.
    let mut signals = Signals::catch().map_err(|error| error.to_string())?;
    let process = process::start(checked, origin, set_level).await?;
    announce(&process);
    announce_proxies(&process);
    if let Some(checked) = greeting {
        say(&greet(&process, &checked));
    }
    signals.reload_until_end(&process).await;
    tracing::info!("draining: no new calls; running ones go on");
    process.stop(DRAIN_GRACE, DRAIN_GRACE_STREAMS, signals.end()).await;
    Ok(())
}

fn configured(arguments: &ServeArguments) -> Result<Checked, tidegate_actors::Complaints> {
    let mut checked = check::load(arguments.config.as_ref())?;
    if let Some(listen) = arguments.listen {
        checked.listen_on(listen)?;
    }
    if let Some(workers) = arguments.workers {
        checked.settings.workers = Some(usize::from(workers));
    }
    Ok(checked)
}

fn announce(process: &Process) {
    let plane = &process.data.plane;
    let selection = &process.data.selection;
    tracing::info!(
        listen = %process.data.listen,
        driver = %selection.driver,
        reason = selection.reason,
        workers = plane.options().workers,
        slots = plane.options().slots,
        memory_bound_mib = plane.memory_bound_bytes() / (1024 * 1024),
        "serving"
    );
}

/// One line for each provider that is reached through a proxy, for nobody looks at the environment first.
fn announce_proxies(process: &Process) {
    let snapshot = process.data.plane.snapshot();
    for provider in &snapshot.providers {
        if let Some(proxy) = &provider.origin.proxy {
            let (provider, proxy, named_by) = (&*provider.name, &*proxy.authority, proxy.named_by);
            tracing::info!(provider, proxy, named_by, "a provider is reached through a proxy");
        }
    }
}

/// One line for each provider that is live without a file.
fn live_routes(checked: &Checked) -> String {
    let mut text = String::new();
    for provider in &checked.draft.providers {
        let keys: usize = provider.accounts.iter().map(|it| it.keys.len()).sum();
        let _ = writeln!(text, "  {} -> {} ({keys} key)", provider.name, provider.origin.host);
    }
    text
}

fn greet(process: &Process, checked: &Checked) -> String {
    let base_url = format!("http://{}", process.data.listen);
    let routes = live_routes(checked);
    let examples = tidegate_actors::curl_examples(checked, &base_url).join("\n");
    format!("Live:\n{routes}Point an SDK's base URL at {base_url}, or try:\n{examples}")
}

/// The signals of a service: end, reload, open the access log anew.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user_1: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
        })
    }

    /// Reloads on each hang-up and opens the access log anew on each SIGUSR1; returns at the first signal that ends
    /// the process.
    async fn reload_until_end(&mut self, process: &Process) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.user_1.recv() => {
                    process.control.reopen_access_log();
                }
                _ = self.hangup.recv() => match process.control.reload().await {
                    Ok(revision) => tracing::info!(revision, "reloaded"),
                    Err(complaints) => tracing::error!("not reloaded, the old configuration stays\n{complaints}"),
                },
            }
        }
    }

    /// The next signal that ends the process.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
