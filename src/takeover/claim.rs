//! The new process's side: asks for sockets, gets ready, goes on with the old one's cells.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate_actors::KnownAccount;
use tidegate_actors::snapshot::{DUMP_VERSION, Dump, Snapshot};
use tokio::net::UnixStream;

use super::line::{Line, Message};
use super::{MESSAGE_TIMEOUT, PAUSE_TIMEOUT, VERSION};
use crate::systemd::Sockets;

/// Longer than any old process drains: silence is no end while calls run.
const SILENCE_MAX: Duration = Duration::from_secs(3600);

/// A take-over that has begun.
pub(crate) struct Claim(Line);

/// Asks the process at `path` for its sockets.
pub(crate) async fn claim(path: &Path) -> io::Result<(Claim, Sockets)> {
    let mut line = Line::new(UnixStream::connect(path).await?)?;
    line.send(&Message::Hello { version: VERSION }).await?;
    let Message::Sockets { version, data, admin } = line.receive(MESSAGE_TIMEOUT).await? else {
        return Err(out_of_step());
    };
    if version != VERSION || data == 0 {
        return Err(io::Error::other(format!("the old process offers {data} sockets by version {version}")));
    }
    let mut sockets = Sockets::default();
    for _ in 0..data {
        sockets.data.push(line.receive_socket(MESSAGE_TIMEOUT).await?);
    }
    if admin {
        sockets.admin = Some(line.receive_socket(MESSAGE_TIMEOUT).await?);
    }
    Ok((Claim(line), sockets))
}

impl Claim {
    /// Says that this process can start at once, and goes on with what the old one's cells stand at. From here on until
    /// [`Claim::serving`] nobody accepts. Returns what the old one knew of accounts.
    pub(crate) async fn ready(&mut self, snapshot: &Snapshot) -> io::Result<Vec<KnownAccount>> {
        self.0.send(&Message::Ready).await?;
        let message = self.0.receive(PAUSE_TIMEOUT + MESSAGE_TIMEOUT).await?;
        let Message::Cells { version, cells, known_accounts } = message else { return Err(out_of_step()) };
        let offered = cells.len();
        let taken = snapshot.take_over(&Dump { version, cells });
        if version == DUMP_VERSION {
            tracing::info!(taken, offered, "goes on with the cells of the old process");
        } else {
            tracing::warn!(
                version,
                "the old process writes its cells in another version: limits and rests begin anew"
            );
        }
        Ok(known_accounts)
    }

    /// Says that this process serves, and waits for the old one's word that it no longer does.
    pub(crate) async fn serving(&mut self) -> io::Result<()> {
        self.0.send(&Message::Serving).await?;
        match self.0.receive(MESSAGE_TIMEOUT).await {
            Ok(Message::Retired) => Ok(()),
            Ok(_) => Err(out_of_step()),
            Err(error) if is_gone(&error) => {
                tracing::warn!("the old process died while it handed over");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Settles what the old process's calls still spend, until it has ended.
    pub(crate) async fn settle(mut self, snapshot: impl Fn() -> Arc<Snapshot>) {
        loop {
            match self.0.receive(SILENCE_MAX).await {
                Ok(Message::Changes { changes }) => snapshot().settle(&changes, tidegate_gateway::now()),
                Ok(_) => tracing::warn!("the old process is out of step"),
                Err(error) if is_gone(&error) => return tracing::info!("the old process has ended"),
                Err(error) => return tracing::warn!(%error, "the old process is no longer heard"),
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

fn out_of_step() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the old process is out of step")
}
