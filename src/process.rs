//! Joins the planes: snapshot, workers, control plane, and the order in which they start and stop. Holds no logic
//! of either.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_actors::{
    Checked, ConfigOrigin, ControlPlane, IoSetting, LogLevel, Settings, Wiring, WorkerFacts,
};
use tidegate_gateway::{DRAIN_GRACE, DRAIN_GRACE_STREAMS, IoChoice, Launch, Launched, Plane};

use crate::systemd::Sockets;
use crate::takeover::{Claim, Successor};

/// How often a drain looks whether the last call has ended.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// Both planes, running.
pub(crate) struct Process {
    /// The workers.
    pub(crate) data: Launched,
    /// The actors.
    pub(crate) control: ControlPlane,
}

/// Starts both planes with a checked configuration, on sockets that listen already where there are any. With a `claim`
/// it goes on with the old process's cells, and nobody is served before the old one has retired.
pub(crate) async fn start(
    checked: Checked,
    origin: ConfigOrigin,
    sockets: Sockets,
    mut claim: Option<&mut Claim>,
    set_log_level: Box<dyn Fn(LogLevel) + Send + Sync>,
) -> Result<Process, String> {
    let settings = checked.settings.clone();
    let mut initial = tidegate_actors::initial_snapshot(&checked, tidegate_gateway::now());
    if let Some(path) = &settings.state_file {
        let objects = tidegate_actors::load_owners(path, &initial).map_err(|error| error.to_string())?;
        tracing::info!(objects, path = %path.display(), "owners of files and batches are known");
    }
    let mut known_accounts = Vec::new();
    tidegate_actors::resolve_all(&initial).await;
    let prepared =
        tidegate_gateway::prepare(&launch_of(&settings), initial.clone()).map_err(|it| it.to_string())?;
    if let Some(claim) = &mut claim {
        prepared.pause();
        known_accounts = claim.ready(&initial).await.map_err(not_taken_over)?;
        if !known_accounts.is_empty() {
            let now = tidegate_gateway::now();
            initial = tidegate_actors::joined_snapshot(&checked, &initial, &known_accounts, now);
            prepared.publish(initial.clone()).map_err(|error| error.to_string())?;
        }
    }
    let mut data = prepared.start(settings.listen, sockets.data).map_err(|error| error.to_string())?;
    let plane = data.plane.clone();
    let facts = Facts {
        plane: plane.clone(),
        driver: data.selection.driver.to_string(),
        reason: data.selection.reason.clone(),
    };
    let wiring = Wiring {
        config: origin,
        checked,
        initial,
        publish: Box::new(move |snapshot| plane.publish(snapshot).map_err(|refused| refused.to_string())),
        set_log_level,
        entries: std::mem::take(&mut data.entries),
        entries_dropped: data.plane.entries_dropped(),
        reports: std::mem::take(&mut data.reports),
        dropped: data.plane.reports_dropped(),
        workers: Arc::new(facts),
        known_accounts,
        admin_listener: sockets.admin,
        now: Arc::new(tidegate_gateway::now),
    };
    let control = match tidegate_actors::start(wiring).await {
        Ok(control) => control,
        Err(error) => {
            data.plane.cut();
            return Err(error.to_string());
        }
    };
    let process = Process { data, control };
    if let Some(claim) = claim {
        if let Err(error) = claim.serving().await {
            process.data.plane.cut();
            return Err(not_taken_over(error));
        }
        process.resume();
    }
    Ok(process)
}

fn launch_of(settings: &Settings) -> Launch {
    Launch {
        io: match settings.io {
            IoSetting::Auto => IoChoice::Auto,
            IoSetting::Epoll => IoChoice::Epoll,
            IoSetting::IoUring => IoChoice::IoUring,
        },
        workers: settings.workers,
        listen: settings.listen,
        slots: None,
        danger_panic_mark: None,
    }
}

fn not_taken_over(error: std::io::Error) -> String {
    format!("cannot take over: {error}")
}

impl Process {
    /// Accepts nobody until [`Process::resume`]: who comes waits in the kernel's queues.
    pub(crate) fn pause(&self) {
        self.data.plane.pause();
        self.control.serve_admin(false);
    }

    /// Accepts again.
    pub(crate) fn resume(&self) {
        self.data.plane.resume();
        self.control.serve_admin(true);
    }

    /// Ends both planes once the calls that still run have ended, and with them the connections. `hurry` makes an
    /// ordinary shutdown of it.
    pub(crate) async fn retire(self, mut successor: Successor, hurry: impl Future<Output = ()>) {
        let ended = async {
            tokio::select! {
                // Nobody waits for this process to end: a whole reply has as long as a stream.
                () = wait_for_workers(&self.data, DRAIN_GRACE_STREAMS, DRAIN_GRACE_STREAMS) => {}
                () = hurry => {
                    self.data.plane.drain();
                    wait_for_workers(&self.data, DRAIN_GRACE, DRAIN_GRACE_STREAMS).await;
                }
            }
        };
        tokio::select! {
            () = ended => {}
            () = successor.tell_changes() => {}
        }
        if let Err(error) = successor.tell().await {
            tracing::warn!(%error, "the next process did not hear what the last calls have spent");
        }
        self.control.stop().await;
    }

    /// Ends both planes: running calls get their grace, `hurry` ends it at once.
    pub(crate) async fn stop(
        self,
        grace: Duration,
        grace_streams: Duration,
        hurry: impl Future<Output = ()>,
    ) {
        let Process { data, control } = self;
        data.plane.drain();
        let ended = wait_for_workers(&data, grace, grace_streams);
        tokio::select! {
            () = ended => {}
            () = hurry => {
                data.plane.cut();
                wait_for_workers(&data, Duration::ZERO, Duration::ZERO).await;
            }
        }
        // The last reports are drained before the actors end.
        control.stop().await;
    }
}

async fn wait_for_workers(data: &Launched, grace: Duration, grace_streams: Duration) {
    let began = now();
    while !data.is_finished() {
        let elapsed = now().duration_since(began);
        if elapsed >= grace_streams {
            data.plane.cut();
        } else if elapsed >= grace {
            data.plane.cut_whole();
        }
        tokio::time::sleep(DRAIN_POLL).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the grace of a shutdown is measured here, outside of both planes"
)]
fn now() -> Instant {
    Instant::now()
}

/// What the control plane may know of the workers.
struct Facts {
    plane: Arc<Plane>,
    driver: String,
    reason: String,
}

impl WorkerFacts for Facts {
    fn driver(&self) -> &str {
        &self.driver
    }

    fn reason(&self) -> &str {
        &self.reason
    }

    fn count(&self) -> usize {
        self.plane.options().workers
    }

    fn alive(&self) -> usize {
        self.plane.workers_alive()
    }

    fn connections_open(&self) -> u64 {
        self.plane.connections()
    }

    fn slots(&self) -> u64 {
        self.plane.options().slots as u64
    }

    fn panics(&self) -> u64 {
        self.plane.panics()
    }

    fn handed_over(&self) -> u64 {
        self.plane.handed_over()
    }

    fn rebuilds(&self) -> u64 {
        self.plane.rebuilds()
    }

    fn stalled(&self) -> Vec<usize> {
        self.plane.stalled(tidegate_gateway::now())
    }

    fn handshakes(&self) -> Vec<(&'static str, u64)> {
        self.plane.handshakes()
    }

    fn proxy_headers_refused(&self) -> u64 {
        self.plane.proxy_headers_refused()
    }

    fn body_bytes(&self) -> u64 {
        self.plane.body_bytes()
    }

    fn body_bytes_max(&self) -> u64 {
        self.plane.options().body_memory_bytes
    }

    fn memory_bound_bytes(&self) -> u64 {
        self.plane.memory_bound_bytes()
    }

    fn draining(&self) -> bool {
        self.plane.is_leaving()
    }
}
