//! A gateway in this process: workers on real sockets, and the control plane beside them where a test asks for it.
//! Without one it is a data plane whose every actor is dead from the start.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_actors::{Checked, ConfigOrigin, ControlPlane, Totals, Wiring, WorkerFacts};
use tidegate_core::report::CallReport;
use tidegate_core::{Report, Snapshot};
use tidegate_gateway::{IoChoice, Launch, Launched, Plane};
use tokio::sync::mpsc;

use crate::time::{now, pause_ms};

/// How long a test's workers may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long the control plane may take to do what it is told.
const CONTROL_LIMIT: Duration = Duration::from_secs(10);

/// What runs, and how.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The driver.
    pub driver: IoChoice,
    /// Workers.
    pub workers: usize,
    /// Client connections; `None` is what the host allows.
    pub slots: Option<usize>,
    /// A request whose body holds this panics.
    pub danger_panic_mark: Option<&'static str>,
    /// Whether there are actors.
    pub control: bool,
    /// The file that the configuration is read again from.
    pub file: Option<PathBuf>,
}

/// A running gateway. Dropping it drains and ends it.
pub struct Gateway {
    address: SocketAddr,
    plane: Arc<Plane>,
    launched: Option<Launched>,
    control: Option<Control>,
}

impl Setup {
    /// Two workers on `driver`, nothing else.
    pub fn new(driver: IoChoice) -> Setup {
        Setup { driver, workers: 2, slots: None, danger_panic_mark: None, control: false, file: None }
    }

    /// With actors.
    pub fn with_control(driver: IoChoice) -> Setup {
        Setup { control: true, ..Setup::new(driver) }
    }

    /// Starts a gateway with the configuration `yaml`.
    #[track_caller]
    pub fn start(self, yaml: &str) -> Gateway {
        self.start_on(Vec::new(), yaml)
    }

    /// As [`Setup::start`], with sockets that listen already.
    #[track_caller]
    pub fn start_on(self, sockets: Vec<std::net::TcpListener>, yaml: &str) -> Gateway {
        let checked = match tidegate_actors::check_text("test.yaml", yaml) {
            Ok(checked) => checked,
            Err(complaints) => panic!("the configuration of a test is wrong: {complaints}\n{yaml}"),
        };
        let snapshot = tidegate_actors::initial_snapshot(&checked, tidegate_gateway::now());
        publish_literals(&snapshot);
        if let Some(path) = &checked.settings.state_file {
            tidegate_actors::load_owners(path, &snapshot).expect("a state file");
        }
        let launch = Launch {
            io: self.driver,
            workers: Some(self.workers),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            slots: self.slots,
            danger_panic_mark: self.danger_panic_mark,
        };
        let mut launched =
            tidegate_gateway::launch(&launch, snapshot.clone(), sockets).expect("the data plane starts");
        let control = self.control.then(|| {
            let origin = self.file.clone().map_or(ConfigOrigin::Fixed, ConfigOrigin::File);
            Control::start(wiring(origin, checked, snapshot, &mut launched))
        });
        let (address, plane) = (launched.listen, launched.plane.clone());
        Gateway { address, plane, launched: Some(launched), control }
    }
}

impl Gateway {
    /// `workers` on `driver` with the configuration `yaml`, without actors.
    #[track_caller]
    pub fn start(driver: IoChoice, workers: usize, yaml: &str) -> Gateway {
        Setup { workers, ..Setup::new(driver) }.start(yaml)
    }

    /// Where callers connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the workers share.
    pub fn plane(&self) -> &Plane {
        &self.plane
    }

    /// Ends a gateway of which a worker has failed for good, and checks why.
    #[track_caller]
    pub fn expect_failure(mut self, why: &str) {
        self.plane.drain();
        let launched = self.launched.take().expect("runs until it is dropped");
        let failure = launched.join().expect_err("a worker failed").to_string();
        assert!(failure.contains(why), "{failure}");
    }

    /// What the workers reported of calls since the last look; of a gateway without a control plane, which takes them.
    pub fn calls(&mut self) -> Vec<CallReport> {
        let rings = self.launched.iter_mut().flat_map(|it| &mut it.reports);
        let mut calls = Vec::new();
        for ring in rings {
            while let Ok(report) = ring.pop() {
                if let Report::Call(call) = report {
                    calls.push(call);
                }
            }
        }
        calls
    }

    /// The control plane of a gateway that was started with one.
    #[track_caller]
    pub fn control(&self) -> &Control {
        self.control.as_ref().expect("started with a control plane")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.plane.drain();
        let Some(launched) = self.launched.take() else { return };
        let began = now();
        while !launched.is_finished() && began.elapsed() < END_LIMIT {
            if began.elapsed() > Duration::from_millis(500) {
                self.plane.cut();
            }
            pause_ms(2);
        }
        let finished = launched.is_finished();
        if finished {
            let ended = launched.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a worker failed: {ended:?}");
        }
        drop(self.control.take());
        assert!(finished || std::thread::panicking(), "the workers did not end within {END_LIMIT:?}");
    }
}

/// The control plane on a thread of its own.
pub struct Control {
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    admin: SocketAddr,
}

enum Command {
    Kill(String, SyncSender<bool>),
    KillTree(SyncSender<()>),
    Reload(SyncSender<Result<u64, String>>),
    Totals(SyncSender<Totals>),
    Actors(SyncSender<(Vec<String>, u64)>),
    Metrics(SyncSender<String>),
    ReopenAccessLog(SyncSender<bool>),
}

impl Control {
    fn start(wiring: Wiring) -> Control {
        let (commands, receiver) = mpsc::channel(16);
        let (started, start) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let control = tidegate_actors::start(wiring).await.expect("the control plane starts");
                let admin = control.admin_address().expect("an admin listener");
                started.send(admin).expect("the test waits");
                serve(control, receiver).await;
            });
        });
        let admin = receive(&start);
        Control { commands: Some(commands), thread: Some(thread), admin }
    }

    /// Where operators and probes connect.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Kills one actor as a crash would; false where none has this name.
    pub fn kill(&self, actor: &str) -> bool {
        self.ask(|reply| Command::Kill(actor.to_owned(), reply))
    }

    /// Kills every actor and what would restart them.
    pub fn kill_tree(&self) {
        self.ask(Command::KillTree);
    }

    /// Reads the configuration again; the new revision.
    pub fn reload(&self) -> Result<u64, String> {
        self.ask(Command::Reload)
    }

    /// Sums since the start.
    pub fn totals(&self) -> Totals {
        self.ask(Command::Totals)
    }

    /// Names of the actors that live.
    pub fn actors(&self) -> Vec<String> {
        self.ask(Command::Actors).0
    }

    /// Actors restarted so far.
    pub fn restarts(&self) -> u64 {
        self.ask(Command::Actors).1
    }

    /// The body of `/readyz`.
    #[track_caller]
    pub fn ready(&self) -> serde_json::Value {
        crate::client::call(self.admin, crate::client::request("GET /readyz", &[], "")).json()
    }

    /// The text of the metrics.
    pub fn metrics(&self) -> String {
        self.ask(Command::Metrics)
    }

    /// Opens the access log's file anew.
    pub fn reopen_access_log(&self) -> bool {
        self.ask(Command::ReopenAccessLog)
    }

    fn ask<T>(&self, command: impl FnOnce(SyncSender<T>) -> Command) -> T {
        let (reply, answer) = sync_channel(1);
        let commands = self.commands.as_ref().expect("runs until it is dropped");
        commands.blocking_send(command(reply)).expect("the control plane's thread runs");
        receive(&answer)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.commands = None;
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the control plane panicked");
    }
}

fn receive<T>(answer: &Receiver<T>) -> T {
    answer.recv_timeout(CONTROL_LIMIT).expect("the control plane answers in time")
}

async fn serve(control: ControlPlane, mut commands: mpsc::Receiver<Command>) {
    // A test that no longer waits for an answer has failed already.
    while let Some(command) = commands.recv().await {
        match command {
            Command::Kill(actor, reply) => drop(reply.send(control.kill(&actor))),
            Command::KillTree(reply) => {
                control.kill_tree();
                let _ = reply.send(());
            }
            Command::Reload(reply) => drop(reply.send(control.reload().await.map_err(|it| it.to_string()))),
            Command::Totals(reply) => drop(reply.send(control.totals())),
            Command::Actors(reply) => drop(reply.send((control.actors(), control.restarts()))),
            Command::Metrics(reply) => drop(reply.send(control.metrics())),
            Command::ReopenAccessLog(reply) => drop(reply.send(control.reopen_access_log())),
        }
    }
    control.stop().await;
}

fn wiring(origin: ConfigOrigin, checked: Checked, initial: Arc<Snapshot>, launched: &mut Launched) -> Wiring {
    let plane = launched.plane.clone();
    let facts = Facts {
        plane: plane.clone(),
        driver: launched.selection.driver.to_string(),
        reason: launched.selection.reason.clone(),
    };
    Wiring {
        config: origin,
        checked,
        initial,
        publish: Box::new(move |snapshot| plane.publish(snapshot).map_err(|refused| refused.to_string())),
        set_log_level: Box::new(|_| ()),
        entries: std::mem::take(&mut launched.entries),
        entries_dropped: launched.plane.entries_dropped(),
        reports: std::mem::take(&mut launched.reports),
        dropped: launched.plane.reports_dropped(),
        workers: Arc::new(facts),
        known_accounts: Vec::new(),
        admin_listener: None,
        now: Arc::new(tidegate_gateway::now),
    }
}

/// Tests name their upstreams by address, which needs no resolver.
fn publish_literals(snapshot: &Snapshot) {
    for provider in &snapshot.providers {
        let origin = &provider.origin;
        let (host, port, _) = origin.dialed();
        let address: IpAddr = host.parse().expect("tests name whom they connect to by address");
        origin.addresses.publish(vec![SocketAddr::new(address, port)]);
    }
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
        self.plane.is_draining()
    }
}
