//! The supervision tree: root over config, key, quota and chain actors, resolver, pump, exporter, access
//! log and admin.
//!
//! One for one: a child that dies is started anew, and finds what it needs on the board and in the cells. More than
//! ten restarts in a minute and the root gives up: what died stays dead and readiness fails, while the data plane
//! goes on with the last snapshot and its cells.

mod restarts;
mod spec;

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, SupervisionEvent,
};
use rtrb::Consumer;
use tidegate_core::access::Entry;
use tidegate_core::report::Report;
use tidegate_core::{Moment, Snapshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::access::{AccessLog, AccessMessage};
use crate::admin::Admin;
use crate::board::{Board, BoardParts, ConfigOrigin, Directory, Loaded, Publish, SetLogLevel, WorkerFacts};
use crate::chain::ChainActor;
use crate::config::{Checked, Complaints};
use crate::door::{Door, Ticket};
use crate::exporter::{self, Exporter, ExporterMessage};
use crate::initial::KnownAccount;
use crate::key::{KeyActor, KeyMessage};
use crate::owners::Owners;
use crate::pump::Pump;
use crate::quota::{QuotaActor, QuotaMessage};
use crate::reload::{self, ConfigActor, ConfigMessage};
use crate::resolver::Resolver;
use crate::status;
use crate::totals::Totals;
use crate::watchdog::Watchdog;
use restarts::Restarts;
pub(crate) use spec::Spec;

/// Pause before a child that could not even start is tried again.
const RESPAWN_PAUSE: Duration = Duration::from_secs(1);
/// Time for a reload: names are resolved in it.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for the children to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Marks of one account that may wait.
const QUOTA_WAITING_MAX: usize = 4;

/// What the control plane is given.
pub struct Wiring {
    /// Where the configuration comes from.
    pub config: ConfigOrigin,
    /// The configuration that `initial` was built from.
    pub checked: Checked,
    /// The snapshot that the data plane has.
    pub initial: Arc<Snapshot>,
    /// Hands a snapshot to the data plane. An error means that it was refused and the old one stays.
    pub publish: Publish,
    /// Sets what the control plane's log leaves out; called when a reload says so.
    pub set_log_level: SetLogLevel,
    /// The workers' entries for the access log.
    pub entries: Vec<Consumer<Entry>>,
    /// What each worker dropped of them for want of room.
    pub entries_dropped: Vec<Arc<AtomicU64>>,
    /// The workers' reports.
    pub reports: Vec<Consumer<Report>>,
    /// What each worker dropped for want of room.
    pub dropped: Vec<Arc<AtomicU64>>,
    /// What may be said of the workers.
    pub workers: Arc<dyn WorkerFacts>,
    /// What is known of accounts already; `initial` was built with it.
    pub known_accounts: Vec<KnownAccount>,
    /// A socket that listens already for operators and probes; without one the address of the settings is bound.
    pub admin_listener: Option<TcpListener>,
    /// The clock of the data plane.
    pub now: Arc<dyn Fn() -> Moment + Send + Sync>,
}

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The admin address cannot be had.
    #[error("cannot listen on {address} for the admin port: {source}")]
    AdminListen {
        /// The address.
        address: SocketAddr,
        /// What the host says.
        source: std::io::Error,
    },
    /// The root did not start.
    #[error("the supervision tree did not start: {0}")]
    Tree(#[from] SpawnErr),
}

/// The running control plane. Dropping it leaves the actors running until their runtime ends.
pub struct ControlPlane {
    board: Arc<Board>,
    root: ActorRef<RootMessage>,
    task: JoinHandle<()>,
}

/// Starts the control plane. The admin listener is bound when this returns.
pub async fn start(wiring: Wiring) -> Result<ControlPlane, StartError> {
    let address = wiring.checked.settings.admin.listen;
    let admin_listener = wiring
        .admin_listener
        .map_or_else(|| TcpListener::bind(address), Ok)
        .and_then(|it| it.set_nonblocking(true).map(|()| it))
        .map_err(|source| StartError::AdminListen { address, source })?;
    let board = Arc::new(Board::new(BoardParts {
        origin: wiring.config,
        publish: wiring.publish,
        set_log_level: wiring.set_log_level,
        workers: wiring.workers,
        now: wiring.now,
        dropped: wiring.dropped,
        rings: wiring.reports,
        entries: wiring.entries,
        entries_dropped: wiring.entries_dropped,
        initial: wiring.initial,
        loaded: Loaded { digest: Some(wiring.checked.text_digest()), checked: wiring.checked },
        admin_listener,
    }));
    board.marks.store(Arc::new(reload::marks_of(&wiring.known_accounts)));
    let (root, task) = Actor::spawn(None, Root, board.clone()).await?;
    Ok(ControlPlane { board, root, task })
}

fn reopen_access_log(board: &Board) -> bool {
    board.directory.load().access.as_ref().is_some_and(|it| it.push(AccessMessage::Reopen))
}

impl ControlPlane {
    /// Reads the configuration again and publishes it; the new revision. The error says everything that is wrong,
    /// and the old configuration stays.
    pub async fn reload(&self) -> Result<u64, Complaints> {
        let door = self.board.directory.load().config.clone();
        let Some(door) = door else { return Err(Complaints::of("the configuration actor does not run")) };
        match door.actor().call(ConfigMessage::Reload, Some(RELOAD_TIMEOUT)).await {
            Ok(CallResult::Success(result)) => result,
            Ok(CallResult::Timeout) => Err(Complaints::of("the reload took too long")),
            Ok(CallResult::SenderError) | Err(_) => {
                Err(Complaints::of("the configuration actor ended before the reload did"))
            }
        }
    }

    /// Opens the access log's file anew, after it was moved away. False where that is already under way.
    pub fn reopen_access_log(&self) -> bool {
        reopen_access_log(&self.board)
    }

    /// The same for whoever outlives the sight of this: a plane that is being stopped writes its last lines, too.
    pub fn access_log_opener(&self) -> impl Fn() -> bool + use<> {
        let board = self.board.clone();
        move || reopen_access_log(&board)
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.board.admin_listener.local_addr().ok()
    }

    /// A handle of the admin listener, for the process that takes it over.
    pub fn admin_socket(&self) -> std::io::Result<TcpListener> {
        self.board.admin_listener.try_clone()
    }

    /// Whether the admin listener is served from now on; what was accepted goes on either way.
    pub fn serve_admin(&self, open: bool) {
        self.board.admin_open.send_replace(open);
    }

    /// Whose account each was seen to be.
    pub fn known_accounts(&self) -> Vec<KnownAccount> {
        let marks = self.board.marks.load();
        marks.iter().map(|((a, b), it)| (a.clone(), b.clone(), it.organization, it.workspace)).collect()
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.board.snapshot.load_full()
    }

    /// Sums since the start.
    pub fn totals(&self) -> Totals {
        self.board.metrics.sums.read()
    }

    /// The text that `/metrics` answers.
    pub fn metrics(&self) -> String {
        crate::admin::text(&self.board).unwrap_or_default()
    }

    /// Whether new work should be sent here; the error says why not.
    pub fn readiness(&self) -> Result<(), &'static str> {
        status::readiness(&self.board)
    }

    /// Actors restarted so far.
    pub fn restarts(&self) -> u64 {
        self.board.restarts.load(Ordering::Relaxed)
    }

    /// Names of the actors that live: `access-log`, `admin`, `config`, `exporter`, `owners`, `pump`, `resolver`,
    /// `watchdog`, `key/PROVIDER/KEY`, `quota/PROVIDER/ACCOUNT`, `chain/MODEL`.
    pub fn actors(&self) -> Vec<String> {
        self.board.directory.load().cells.keys().cloned().collect()
    }

    /// Kills one actor, as a crash would; its supervisor starts it anew. False where none has this name.
    pub fn kill(&self, actor: &str) -> bool {
        let directory = self.board.directory.load();
        directory.cells.get(actor).inspect(|it| it.kill()).is_some()
    }

    /// Kills every actor and what would restart them. The data plane goes on.
    pub fn kill_tree(&self) {
        self.root.get_cell().kill();
        self.board.directory.load().cells.values().for_each(ActorCell::kill);
    }

    /// Ends all actors in order.
    pub async fn stop(self) {
        let stopped = self.root.call(RootMessage::Stop, Some(STOP_TIMEOUT * 2)).await;
        if !matches!(stopped, Ok(CallResult::Success(()))) {
            self.kill_tree();
        }
        // The task only ever ends with its actor; a panic in it was logged by the runtime.
        let _ = self.task.await;
    }
}

/// What the root is told.
pub(crate) enum RootMessage {
    /// A snapshot was published: start and end actors as it says.
    Reconcile(Ticket),
    /// A child that could not start is tried again.
    Respawn(Spec),
    /// End the children, then oneself.
    Stop(RpcReplyPort<()>),
}

/// The way into a child's mailbox, for those that others send to.
enum Way {
    Access(Door<AccessMessage>),
    Closed,
    Config(Door<ConfigMessage>),
    Exporter(Door<ExporterMessage>),
    Key(Door<KeyMessage>),
    Quota(Door<QuotaMessage>),
}

struct Child {
    spec: Spec,
    cell: ActorCell,
    way: Way,
}

/// The actor.
pub(crate) struct Root;

pub(crate) struct RootState {
    board: Arc<Board>,
    children: HashMap<ActorId, Child>,
    restarts: Restarts,
    stopping: bool,
}

impl Actor for Root {
    type Msg = RootMessage;
    type State = RootState;
    type Arguments = Arc<Board>;

    async fn pre_start(
        &self,
        myself: ActorRef<RootMessage>,
        board: Arc<Board>,
    ) -> Result<RootState, ActorProcessingErr> {
        let mut state =
            RootState { board, children: HashMap::new(), restarts: Restarts::default(), stopping: false };
        state.reconcile(&myself).await;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMessage>,
        message: RootMessage,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMessage::Reconcile(_ticket) => state.reconcile(&myself).await,
            RootMessage::Respawn(spec) => {
                if !state.stopping && state.wants(&spec) && state.restarts.allow(Instant::now()) {
                    state.spawn(&myself, spec).await;
                    state.publish_directory();
                }
            }
            RootMessage::Stop(reply) => {
                state.stopping = true;
                myself.get_cell().stop_children_and_wait(None, Some(STOP_TIMEOUT)).await;
                state.children.clear();
                state.publish_directory();
                let _ = reply.send(());
                myself.stop(None);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMessage>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, error) => {
                state.died(&myself, who.get_id(), &error.to_string()).await
            }
            SupervisionEvent::ActorTerminated(who, last_state, reason) => {
                // What the dead actor held (rings, a socket) is free before its successor asks for it.
                drop(last_state);
                state.died(&myself, who.get_id(), reason.as_deref().unwrap_or("ended")).await;
            }
            _ => {}
        }
        Ok(())
    }
}

impl RootState {
    fn wants(&self, spec: &Spec) -> bool {
        Spec::all_of(&self.board.snapshot.load()).contains(spec)
    }

    /// Starts what the snapshot in force asks for and is not there, ends what it no longer does.
    async fn reconcile(&mut self, myself: &ActorRef<RootMessage>) {
        let wanted = Spec::all_of(&self.board.snapshot.load_full());
        let wanted_set: HashSet<&Spec> = wanted.iter().collect();
        self.children.retain(|_, child| {
            let keep = wanted_set.contains(&child.spec);
            if !keep {
                child.cell.stop(None);
            }
            keep
        });
        let there: HashSet<Spec> = self.children.values().map(|it| it.spec.clone()).collect();
        for spec in wanted.into_iter().filter(|it| !there.contains(it)) {
            self.spawn(myself, spec).await;
        }
        self.publish_directory();
    }

    async fn died(&mut self, myself: &ActorRef<RootMessage>, who: ActorId, why: &str) {
        // One that was ended on purpose is no longer listed.
        let Some(child) = self.children.remove(&who) else { return };
        if self.stopping {
            return;
        }
        let actor = child.spec.name();
        if self.restarts.allow(Instant::now()) {
            tracing::warn!(actor, why, "an actor died; it is started anew");
            self.board.restarts.fetch_add(1, Ordering::Relaxed);
            self.spawn(myself, child.spec).await;
        } else {
            tracing::error!(
                actor,
                why,
                "an actor died, and too many did before: it stays dead, readiness fails"
            );
            self.board.gave_up.store(true, Ordering::Relaxed);
        }
        self.publish_directory();
    }

    async fn spawn(&mut self, myself: &ActorRef<RootMessage>, spec: Spec) {
        match self.try_spawn(myself, &spec).await {
            Ok((cell, way)) => {
                self.children.insert(cell.get_id(), Child { spec, cell, way });
            }
            Err(error) => {
                tracing::error!(actor = spec.name(), %error, "an actor did not start");
                myself.send_after(RESPAWN_PAUSE, || RootMessage::Respawn(spec));
            }
        }
    }

    async fn try_spawn(
        &self,
        myself: &ActorRef<RootMessage>,
        spec: &Spec,
    ) -> Result<(ActorCell, Way), SpawnErr> {
        let root = myself.get_cell();
        let board = self.board.clone();
        Ok(match spec {
            Spec::Access => {
                let (actor, _) = Actor::spawn_linked(None, AccessLog, board, root).await?;
                (actor.get_cell(), Way::Access(Door::new(actor, 1)))
            }
            Spec::Admin => (Actor::spawn_linked(None, Admin, board, root).await?.0.get_cell(), Way::Closed),
            Spec::Chain(model) => {
                let (actor, _) = Actor::spawn_linked(None, ChainActor, (board, model.clone()), root).await?;
                (actor.get_cell(), Way::Closed)
            }
            Spec::Config => {
                let to_root = Door::new(myself.clone(), 2);
                let (actor, _) = Actor::spawn_linked(None, ConfigActor, (board, to_root), root).await?;
                (actor.get_cell(), Way::Config(Door::new(actor, reload::MARKS_WAITING_MAX)))
            }
            Spec::Exporter => {
                let (actor, _) = Actor::spawn_linked(None, Exporter, board, root).await?;
                (actor.get_cell(), Way::Exporter(Door::new(actor, exporter::BATCHES_MAX)))
            }
            Spec::Key(name) => {
                let (actor, _) = Actor::spawn_linked(None, KeyActor, (board, name.clone()), root).await?;
                (actor.get_cell(), Way::Key(Door::new(actor, 1)))
            }
            Spec::Owners => (Actor::spawn_linked(None, Owners, board, root).await?.0.get_cell(), Way::Closed),
            Spec::Pump => (Actor::spawn_linked(None, Pump, board, root).await?.0.get_cell(), Way::Closed),
            Spec::Quota(name) => {
                let (actor, _) = Actor::spawn_linked(None, QuotaActor, (board, name.clone()), root).await?;
                (actor.get_cell(), Way::Quota(Door::new(actor, QUOTA_WAITING_MAX)))
            }
            Spec::Resolver => {
                (Actor::spawn_linked(None, Resolver, board, root).await?.0.get_cell(), Way::Closed)
            }
            Spec::Watchdog => {
                (Actor::spawn_linked(None, Watchdog, board, root).await?.0.get_cell(), Way::Closed)
            }
        })
    }

    fn publish_directory(&self) {
        let mut directory = Directory::default();
        for child in self.children.values() {
            directory.cells.insert(child.spec.name(), child.cell.clone());
            match (&child.way, &child.spec) {
                (Way::Access(door), _) => directory.access = Some(door.clone()),
                (Way::Config(door), _) => directory.config = Some(door.clone()),
                (Way::Exporter(door), _) => directory.exporter = Some(door.clone()),
                (Way::Key(door), Spec::Key(it)) => {
                    directory
                        .keys
                        .entry(it.provider.clone())
                        .or_default()
                        .insert(it.key.clone(), door.clone());
                }
                (Way::Quota(door), Spec::Quota(it)) => {
                    directory
                        .quotas
                        .entry(it.provider.clone())
                        .or_default()
                        .insert(it.account.clone(), door.clone());
                }
                _ => {}
            }
        }
        self.board.directory.store(Arc::new(directory));
    }
}

#[cfg(test)]
mod tests;
