//! Joins the planes: snapshot, workers, control plane, and the order in which they start and stop. Holds no logic
//! of either.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_actors::{Checked, ConfigOrigin, ControlPlane, IoSetting, LogLevel, Wiring, WorkerFacts};
use tidegate_gateway::{IoChoice, Launch, Launched, Plane};

/// How often a drain looks whether the last call has ended.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// Both planes, running.
pub(crate) struct Process {
    /// The workers.
    pub(crate) data: Launched,
    /// The actors.
    pub(crate) control: ControlPlane,
}

/// Starts both planes with a checked configuration.
pub(crate) async fn start(
    checked: Checked,
    origin: ConfigOrigin,
    set_log_level: Box<dyn Fn(LogLevel) + Send + Sync>,
) -> Result<Process, String> {
    let settings = checked.settings.clone();
    let initial = tidegate_actors::initial_snapshot(&checked, tidegate_gateway::now());
    tidegate_actors::resolve_all(&initial).await;
    let launch = Launch {
        io: match settings.io {
            IoSetting::Auto => IoChoice::Auto,
            IoSetting::Epoll => IoChoice::Epoll,
            IoSetting::IoUring => IoChoice::IoUring,
        },
        workers: settings.workers,
        listen: settings.listen,
        danger_panic_mark: None,
    };
    let mut data = tidegate_gateway::launch(&launch, initial.clone()).map_err(|error| error.to_string())?;
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
        now: Arc::new(tidegate_gateway::now),
    };
    match tidegate_actors::start(wiring).await {
        Ok(control) => Ok(Process { data, control }),
        Err(error) => {
            data.plane.cut();
            Err(error.to_string())
        }
    }
}

impl Process {
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

    fn handshakes(&self) -> Vec<(&'static str, u64)> {
        self.plane.handshakes()
    }

    fn proxy_headers_refused(&self) -> u64 {
        self.plane.proxy_headers_refused()
    }

    fn draining(&self) -> bool {
        self.plane.is_draining()
    }
}
