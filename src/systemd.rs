//! What a process owes systemd when it is started by it: takes the sockets that were opened for it, says when it is
//! ready, reloading, stopping, and that its workers turn. Without systemd nothing is said and nothing is missed.
//!
//! The protocols: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).

use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Sockets that one start may pass. More than the workers of any host are a slip of the hand.
const SOCKETS_MAX: usize = 1_024;

/// Sockets that listen already.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// For callers.
    pub(crate) data: Vec<TcpListener>,
    /// For operators and probes.
    pub(crate) admin: Option<TcpListener>,
}

/// The variables by which systemd speaks to a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    listen_pid: Option<String>,
    listen_fds: Option<String>,
    listen_names: Option<String>,
    notify_socket: Option<String>,
    watchdog_usec: Option<String>,
    watchdog_pid: Option<String>,
}

impl Surroundings {
    /// Reads them.
    pub(crate) fn read() -> Surroundings {
        Surroundings {
            listen_pid: variable("LISTEN_PID"),
            listen_fds: variable("LISTEN_FDS"),
            listen_names: variable("LISTEN_FDNAMES"),
            notify_socket: variable("NOTIFY_SOCKET"),
            watchdog_usec: variable("WATCHDOG_USEC"),
            watchdog_pid: variable("WATCHDOG_PID"),
        }
    }

    /// What each passed socket is for, in order; empty where none was passed to this process.
    fn roles(&self, own_pid: u32) -> Result<Vec<Role>, String> {
        if self.listen_pid.as_deref() != Some(own_pid.to_string().as_str()) {
            return Ok(Vec::new());
        }
        let count: usize =
            self.listen_fds.as_deref().unwrap_or("0").parse().map_err(|_| "LISTEN_FDS is no number")?;
        if count > SOCKETS_MAX {
            return Err(format!("{count} sockets were passed; {SOCKETS_MAX} are possible"));
        }
        let Some(names) = &self.listen_names else { return Ok(vec![Role::Data; count]) };
        let names: Vec<&str> = names.split(':').collect();
        if names.len() != count {
            return Err(format!("LISTEN_FDNAMES has {} names for {count} sockets", names.len()));
        }
        let roles: Vec<Role> = names.into_iter().map(Role::of).collect::<Result<_, _>>()?;
        match roles.iter().filter(|it| **it == Role::Admin).count() {
            0 | 1 => Ok(roles),
            more => Err(format!("{more} sockets named `admin` were passed; there is one admin port")),
        }
    }

    /// How often the watchdog wants to hear of this process: half of the time after which it acts.
    pub(crate) fn watchdog_interval(&self, own_pid: u32) -> Option<Duration> {
        let for_us = self.watchdog_pid.as_deref().is_none_or(|it| it == own_pid.to_string());
        let usec: u64 = self.watchdog_usec.as_deref()?.parse().ok()?;
        (for_us && usec > 0).then(|| Duration::from_micros(usec) / 2)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Admin,
    Data,
}

impl Role {
    /// By the socket unit's `FileDescriptorName=`; `unknown` is what one without has, and systemd's own default ends in
    /// `.socket`.
    fn of(name: &str) -> Result<Role, String> {
        match name {
            "admin" => Ok(Role::Admin),
            "data" | "unknown" => Ok(Role::Data),
            it if it.ends_with(".socket") => Ok(Role::Data),
            other => Err(format!("a socket named `{other}` was passed; `data` and `admin` are known")),
        }
    }
}

/// Takes over the sockets that systemd has opened. First thing in the process.
pub(crate) fn passed_sockets(surroundings: &Surroundings) -> Result<Sockets, String> {
    let roles = surroundings.roles(std::process::id())?;
    if roles.is_empty() {
        return Ok(Sockets::default());
    }
    let passed = tidegate_gateway::inherited_listeners(roles.len())
        .map_err(|error| format!("the sockets that systemd passes cannot be used: {error}"))?;
    let mut sockets = Sockets::default();
    for (role, socket) in roles.into_iter().zip(passed) {
        match role {
            Role::Data => sockets.data.push(socket),
            Role::Admin => sockets.admin = Some(socket),
        }
    }
    Ok(sockets)
}

/// The line to systemd. It never waits: what finds no room is lost, and is said again where it matters.
#[derive(Debug, Default)]
pub(crate) struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// To the socket that the surroundings name; to nobody where they name none.
    pub(crate) fn new(surroundings: &Surroundings) -> io::Result<Notifier> {
        let Some(name) = &surroundings.notify_socket else { return Ok(Notifier(None)) };
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Notifier(Some((socket, address))))
    }

    /// Everything serves.
    pub(crate) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// This process is the service's main one from now on.
    pub(crate) fn main_process(&self) {
        self.say(&format!("MAINPID={}", std::process::id()));
    }

    /// A reload begins; [`Notifier::ready`] ends it.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=reloading the configuration"));
    }

    /// The end has begun.
    pub(crate) fn stopping(&self, status: &str) {
        self.say(&format!("STOPPING=1\nSTATUS={status}"));
    }

    /// All workers turn.
    pub(crate) fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    fn say(&self, what: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(what.as_bytes(), address) {
            tracing::debug!(%error, "systemd was not told");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how systemd speaks to a process; a command's surroundings")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 7;

    fn passed(pid: &str, count: &str, names: Option<&str>) -> Surroundings {
        Surroundings {
            listen_pid: Some(pid.into()),
            listen_fds: Some(count.into()),
            listen_names: names.map(Into::into),
            ..Surroundings::default()
        }
    }

    #[test]
    fn sockets_have_the_roles_that_their_names_say() {
        use Role::{Admin, Data};
        for (surroundings, expect) in [
            (Surroundings::default(), Ok(vec![])),
            (passed("8", "2", None), Ok(vec![])),
            (passed("7", "0", None), Ok(vec![])),
            (passed("7", "2", None), Ok(vec![Data, Data])),
            (passed("7", "3", Some("data:admin:tidegate.socket")), Ok(vec![Data, Admin, Data])),
            (passed("7", "1", Some("unknown")), Ok(vec![Data])),
        ] {
            assert_eq!(surroundings.roles(OWN), expect, "{surroundings:?}");
        }
        for wrong in [
            passed("7", "many", None),
            passed("7", "9999", None),
            passed("7", "2", Some("data")),
            passed("7", "2", Some("admin:admin")),
            passed("7", "1", Some("metrics")),
        ] {
            assert!(wrong.roles(OWN).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_watchdog_hears_twice_in_its_time() {
        let wants = |usec: &str, pid: Option<&str>| {
            let pid = pid.map(Into::into);
            let it =
                Surroundings { watchdog_usec: Some(usec.into()), watchdog_pid: pid, ..Default::default() };
            it.watchdog_interval(OWN)
        };
        assert_eq!(wants("30000000", None), Some(Duration::from_secs(15)));
        assert_eq!(wants("30000000", Some("7")), Some(Duration::from_secs(15)));
        assert_eq!(wants("30000000", Some("8")), None);
        assert_eq!((wants("0", None), wants("soon", None)), (None, None));
        assert_eq!(Surroundings::default().watchdog_interval(OWN), None);
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let bytes = socket.recv(&mut buffer).expect("it was said");
        String::from_utf8_lossy(&buffer[..bytes]).into_owned()
    }

    #[test]
    fn what_is_said_arrives_on_a_path_and_on_an_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let abstract_name = format!("tidegate-test-{}", std::process::id());
        let on_path = UnixDatagram::bind(&path).expect("a socket");
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("a name");
        let on_name = UnixDatagram::bind_addr(&address).expect("a socket");
        for (socket, name) in [(on_path, path.display().to_string()), (on_name, format!("@{abstract_name}"))]
        {
            let surroundings = Surroundings { notify_socket: Some(name), ..Default::default() };
            let notifier = Notifier::new(&surroundings).expect("an address");
            notifier.ready("serving");
            notifier.reloading();
            notifier.stopping("draining");
            notifier.alive();
            assert_eq!(heard(&socket), "READY=1\nSTATUS=serving");
            let reloading = heard(&socket);
            let usec = reloading.lines().find_map(|it| it.strip_prefix("MONOTONIC_USEC=")).expect("a time");
            assert!(reloading.starts_with("RELOADING=1\n") && usec.parse::<u64>().is_ok(), "{reloading}");
            assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=draining");
            assert_eq!(heard(&socket), "WATCHDOG=1");
        }
        Notifier::default().ready("to nobody");
    }
}
