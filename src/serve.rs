//! `tidegate serve`: runs the gateway until a signal ends it.

use std::convert::Infallible;
use std::fmt::Write;
use std::future::pending;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tidegate_actors::{Checked, ConfigOrigin, LogFormat};
use tidegate_gateway::{DRAIN_GRACE, DRAIN_GRACE_STREAMS, Plane};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::process::{self, Process};
use crate::systemd::{self, Notifier, Sockets, Surroundings};
use crate::takeover::{self, Claim, Offer};
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
    /// Take the sockets, limits and rests over from the process that runs with this configuration; no call is lost.
    #[arg(long)]
    takeover: bool,
}

/// Serves; exit code 0 after a drain, 1 where nothing could be served.
pub(crate) fn run(arguments: &ServeArguments) -> ExitCode {
    let surroundings = Surroundings::read();
    // Before anything else is opened: until then the passed numbers are nobody else's.
    let passed = systemd::passed_sockets(&surroundings);
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
    match passed
        .and_then(|passed| runtime.block_on(serve(arguments, &surroundings, checked, passed, set_level)))
    {
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

async fn serve(
    arguments: &ServeArguments,
    surroundings: &Surroundings,
    mut checked: Checked,
    passed: Sockets,
    set_level: log::SetLevel,
) -> Result<(), String> {
    let (mut claim, sockets) = sockets(arguments, &mut checked, passed).await?;
    warn(&checked);
    let notifier = Notifier::new(surroundings).map_err(|error| format!("NOTIFY_SOCKET: {error}"))?;
    let origin = arguments.config.clone().map_or(ConfigOrigin::Fixed, ConfigOrigin::File);
    let greeting = arguments.config.is_none().then(|| checked.clone());
    let offered_at = checked.settings.takeover.clone();
    // Signals are caught before the first connection is accepted.
    let mut signals = Signals::catch().map_err(|error| error.to_string())?;
    let process = process::start(checked, origin, sockets, claim.as_mut(), set_level).await?;
    announce(&process);
    announce_proxies(&process);
    if let Some(checked) = greeting {
        say(&greet(&process, &checked));
    }
    if let Some(claim) = claim {
        notifier.main_process();
        let plane = process.data.plane.clone();
        tokio::spawn(claim.settle(move || plane.snapshot()));
    }
    let offer = offered_at.and_then(|path| offer(&path));
    let plane = process.data.plane.clone();
    let life = live(process, offer, &notifier, &mut signals);
    match surroundings.watchdog_interval(std::process::id()) {
        None => life.await,
        Some(interval) => tokio::select! {
            outcome = life => outcome,
            never = feed_watchdog(&notifier, &plane, interval) => match never {},
        },
    }
}

/// Shows what is not wrong but unwise, where it is looked for.
fn warn(checked: &Checked) {
    match checked.logs.format {
        LogFormat::Text => check::warn(checked),
        LogFormat::Json if checked.warnings.is_empty() => {}
        LogFormat::Json => {
            tracing::warn!("the configuration works, but:\n{}", checked.render_warnings(false))
        }
    }
}

/// Offers this process to the next one. Without the socket it serves all the same.
fn offer(path: &Path) -> Option<Offer> {
    let offered = Offer::at(path);
    let said =
        |error| tracing::error!(path = %path.display(), %error, "no process can take over from this one");
    offered.map_err(said).ok()
}

/// From ready to the end.
async fn live(
    process: Process,
    mut offer: Option<Offer>,
    notifier: &Notifier,
    signals: &mut Signals,
) -> Result<(), String> {
    notifier.ready(&status_of(&process));
    let accepted = async {
        match &mut offer {
            Some(offer) => offer.accepted(&process).await,
            None => pending().await,
        }
    };
    let outcome = tokio::select! {
        () = signals.reload_until_end(&process, notifier) => Ok(()),
        () = process.data.plane.gave_up() => Err("a worker failed too often; see the log".to_owned()),
        successor = accepted => {
            tracing::info!("another process serves now; running calls go on here");
            let reopen = process.control.access_log_opener();
            process.retire(successor, signals.end(reopen)).await;
            return Ok(());
        }
    };
    notifier.stopping("draining: running calls go on");
    tracing::info!("draining: no new calls; running ones go on");
    let reopen = process.control.access_log_opener();
    process.stop(DRAIN_GRACE, DRAIN_GRACE_STREAMS, signals.end(reopen)).await;
    outcome
}

fn status_of(process: &Process) -> String {
    format!("serving on {} with {} workers", process.data.listen, process.data.plane.options().workers)
}

/// Tells systemd's watchdog that this process lives, as long as all workers make progress.
async fn feed_watchdog(notifier: &Notifier, plane: &Plane, interval: Duration) -> Infallible {
    loop {
        if plane.stalled(tidegate_gateway::now()).is_empty() {
            notifier.alive();
        }
        tokio::time::sleep(interval).await;
    }
}

/// The sockets to serve on: the old process's with its claim, those that were passed, or none yet.
async fn sockets(
    arguments: &ServeArguments,
    checked: &mut Checked,
    passed: Sockets,
) -> Result<(Option<Claim>, Sockets), String> {
    if !arguments.takeover {
        adopt_addresses("passed sockets", checked, &passed)?;
        return Ok((None, passed));
    }
    let Some(path) = &checked.settings.takeover else {
        return Err(
            "--takeover needs `takeover: { socket: /run/tidegate/takeover.sock }` in the configuration, \
                    and the same in that of the process that runs"
                .to_owned(),
        );
    };
    let (claim, sockets) = takeover::claim(path)
        .await
        .map_err(|error| format!("cannot take over from the process at {}: {error}", path.display()))?;
    let wanted = (checked.settings.listen, checked.settings.admin.listen);
    adopt_addresses("the old process's sockets", checked, &sockets)?;
    let found = (checked.settings.listen, checked.settings.admin.listen);
    for (name, wanted, found) in [("listen", wanted.0, found.0), ("admin.listen", wanted.1, found.1)] {
        if wanted.port() != 0 && wanted != found {
            return Err(format!(
                "cannot take over: `{name}` is {wanted}, and the old process listens on {found}; that takes a restart"
            ));
        }
    }
    Ok((Some(claim), sockets))
}

/// Takes the addresses of sockets that listen already for those of the configuration, under the same rules.
fn adopt_addresses(whose: &str, checked: &mut Checked, sockets: &Sockets) -> Result<(), String> {
    let of = |socket: &TcpListener| socket.local_addr().map_err(|error| format!("{whose}: {error}"));
    let admin = sockets.admin.as_ref().map(of).transpose()?.unwrap_or(checked.settings.admin.listen);
    let mut all = sockets.data.iter().map(of).collect::<Result<Vec<_>, _>>()?;
    if all.is_empty() {
        all.push(checked.settings.listen);
    }
    // Each is served, so each is judged; the first is the one that is shown.
    for data in all.into_iter().rev() {
        if (data, admin) != (checked.settings.listen, checked.settings.admin.listen) {
            checked.listen_on(whose, data, admin).map_err(|complaints| complaints.to_string())?;
        }
    }
    Ok(())
}

fn configured(arguments: &ServeArguments) -> Result<Checked, tidegate_actors::Complaints> {
    let mut checked = check::load(arguments.config.as_ref())?;
    if let Some(listen) = arguments.listen {
        let admin = checked.settings.admin.listen;
        checked.listen_on("--listen", listen, admin)?;
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

async fn reload(process: &Process, notifier: &Notifier) {
    notifier.reloading();
    match process.control.reload().await {
        Ok(revision) => tracing::info!(revision, "reloaded"),
        Err(complaints) => tracing::error!("not reloaded, the old configuration stays\n{complaints}"),
    }
    notifier.ready(&status_of(process));
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
    async fn reload_until_end(&mut self, process: &Process, notifier: &Notifier) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.user_1.recv() => {
                    process.control.reopen_access_log();
                }
                _ = self.hangup.recv() => reload(process, notifier).await,
            }
        }
    }

    /// The next signal that ends the process. Calls that still run have their lines written, so until then the access
    /// log is opened anew as before.
    async fn end(&mut self, reopen: impl Fn() -> bool) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.user_1.recv() => {
                    reopen();
                }
            }
        }
    }
}
