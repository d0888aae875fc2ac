//! The old process's side: offers its sockets and cells to the next one, and tells it what its running calls still
//! spend.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_actors::snapshot::{Change, Settlements, Snapshot};
use tokio::net::{UnixListener, UnixStream};

use super::line::{Line, Message};
use super::{
    CHANGES_INTERVAL, MESSAGE_TIMEOUT, PAUSE_POLL, PAUSE_TIMEOUT, READY_TIMEOUT, SERVING_TIMEOUT, VERSION,
};
use crate::process::Process;

/// A socket at which the next process may ask.
pub(crate) struct Offer {
    listener: UnixListener,
    path: PathBuf,
    /// The path is another process's now.
    given_away: bool,
}

/// The next process, which serves.
pub(crate) struct Successor {
    line: Line,
    settlements: Settlements,
}

impl Offer {
    /// Offers at `path`. A socket that stands there is replaced in one step: it is a process's that has ended, or the
    /// one this process took over from.
    pub(crate) fn at(path: &Path) -> io::Result<Offer> {
        // Made aside and moved: nobody can connect before the mode is right, and the path is never without a socket.
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}", std::process::id()));
        let aside = PathBuf::from(aside);
        let _ = std::fs::remove_file(&aside);
        let listener = UnixListener::bind(&aside)?;
        std::fs::set_permissions(&aside, Permissions::from_mode(0o600))?;
        std::fs::rename(&aside, path)?;
        Ok(Offer { listener, path: path.to_owned(), given_away: false })
    }

    /// Waits for a process that takes over and serves. Attempts that fail leave `process` as it was.
    pub(crate) async fn accepted(&mut self, process: &Process) -> Successor {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the take-over socket could not accept");
                    tokio::time::sleep(MESSAGE_TIMEOUT).await;
                    continue;
                }
            };
            match self.hand_over(stream, process).await {
                Ok(successor) => return successor,
                Err(error) => tracing::warn!(%error, "a take-over failed; this process goes on"),
            }
        }
    }

    async fn hand_over(&mut self, stream: UnixStream, process: &Process) -> io::Result<Successor> {
        let mut line = Line::new(stream)?;
        match hand_over(&mut line, process).await {
            Ok(settlements) => {
                self.given_away = true;
                Ok(Successor { line, settlements })
            }
            Err(error) => {
                // It may have gone already.
                let why = format!("the old process goes on: {error}");
                let _ = tokio::time::timeout(MESSAGE_TIMEOUT, line.send(&Message::Refused { why })).await;
                Err(error)
            }
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if !self.given_away {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the process serve again unless the hand-over was completed.
struct Paused<'a>(Option<&'a Process>);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if let Some(process) = self.0 {
            process.resume();
        }
    }
}

async fn hand_over(line: &mut Line, process: &Process) -> io::Result<Settlements> {
    let Message::Hello { version } = line.receive(MESSAGE_TIMEOUT).await? else { return Err(out_of_step()) };
    if version != VERSION {
        let why = format!("it hands over by version {VERSION}, the next one takes over by version {version}");
        return Err(io::Error::other(why));
    }
    let (data, admin) = (process.data.plane.sockets()?, process.control.admin_socket()?);
    line.send(&Message::Sockets { version: VERSION, data: data.len(), admin: true }).await?;
    for socket in data.iter().chain([&admin]) {
        line.send_socket(socket).await?;
    }
    let Message::Ready = line.receive(READY_TIMEOUT).await? else { return Err(out_of_step()) };
    let mut paused = Paused(Some(process));
    process.pause();
    wait_until_paused(process).await?;
    let snapshot: Arc<Snapshot> = process.control.snapshot();
    let settlements = Settlements::begin(snapshot.clone(), tidegate_gateway::now());
    let dump = snapshot.dump();
    let known_accounts = process.control.known_accounts();
    line.send(&Message::Cells { version: dump.version, cells: dump.cells, known_accounts }).await?;
    let Message::Serving = line.receive(SERVING_TIMEOUT).await? else { return Err(out_of_step()) };
    line.send(&Message::Retired).await?;
    paused.0 = None;
    process.data.plane.retire();
    Ok(settlements)
}

async fn wait_until_paused(process: &Process) -> io::Result<()> {
    let until = tokio::time::Instant::now() + PAUSE_TIMEOUT;
    while process.data.plane.accepting() > 0 {
        if tokio::time::Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the workers did not stop accepting"));
        }
        tokio::time::sleep(PAUSE_POLL).await;
    }
    Ok(())
}

fn out_of_step() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the next process is out of step")
}

impl Successor {
    /// Tells what calls still spend and give back, until this is dropped or nobody listens.
    pub(crate) async fn tell_changes(&mut self) {
        loop {
            if let Err(error) = self.tell().await {
                tracing::warn!(%error, "the next process no longer hears what running calls spend");
                return std::future::pending().await;
            }
            tokio::time::sleep(CHANGES_INTERVAL).await;
        }
    }

    /// Tells the last of it.
    pub(crate) async fn tell(&mut self) -> io::Result<()> {
        let changes: Vec<Change> = self.settlements.changes(tidegate_gateway::now());
        if changes.is_empty() {
            return Ok(());
        }
        match tokio::time::timeout(MESSAGE_TIMEOUT, self.line.send(&Message::Changes { changes })).await {
            Ok(sent) => sent,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
