//! The line between the two processes: messages as JSON behind their length, and descriptors, one a byte. Bounded both
//! ways; decides nothing.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tidegate_actors::KnownAccount;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::MESSAGE_TIMEOUT;

/// Bytes of a message: 100,000 callers and 4,096 keys with all their classes fit.
const MESSAGE_BYTES_MAX: u32 = 256 * 1024 * 1024;

/// What the two say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(super) enum Message {
    /// The next process wants to take over.
    Hello { version: u32 },
    /// So many listening sockets for callers follow, then one for operators where `admin` says so.
    Sockets { version: u32, data: usize, admin: bool },
    /// The next process can start at once.
    Ready,
    /// What the cells stand at.
    Cells { version: u32, cells: Vec<(Vec<String>, Vec<u64>)>, known_accounts: Vec<KnownAccount> },
    /// The next process serves.
    Serving,
    /// The old process will not accept again.
    Retired,
    /// What calls of the old process have spent or given back since.
    Changes { changes: Vec<(Vec<String>, Vec<i64>, u64)> },
    /// The other side does not go on.
    Refused { why: String },
}

/// One end of the line, to a process of the same user.
pub(super) struct Line(UnixStream);

impl Line {
    /// Refuses a process of another user.
    pub(super) fn new(stream: UnixStream) -> io::Result<Line> {
        let peer = stream.peer_cred()?.uid();
        if peer != rustix::process::geteuid().as_raw() {
            let what = format!("a process of user {peer} is at the other end");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        Ok(Line(stream))
    }

    pub(super) async fn send(&mut self, message: &Message) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).ok().filter(|it| *it <= MESSAGE_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("a message is too long for the line"))?;
        // The other side may have stopped reading.
        let sending = async {
            self.0.write_all(&length.to_le_bytes()).await?;
            self.0.write_all(&body).await
        };
        timed(MESSAGE_TIMEOUT, sending).await
    }

    /// The next message; a refusal is an error with its reason.
    pub(super) async fn receive(&mut self, within: Duration) -> io::Result<Message> {
        let message = timed(within, async {
            let length = self.0.read_u32_le().await?;
            if length > MESSAGE_BYTES_MAX {
                return Err(io::Error::other("a message is too long for the line"));
            }
            let mut body = vec![0; length as usize];
            self.0.read_exact(&mut body).await?;
            Ok(serde_json::from_slice(&body)?)
        });
        match message.await? {
            Message::Refused { why } => Err(io::Error::other(why)),
            message => Ok(message),
        }
    }

    /// Sends a listening socket. This process keeps its own handle.
    pub(super) async fn send_socket(&mut self, socket: &TcpListener) -> io::Result<()> {
        let sockets = [socket.as_fd()];
        let sending = self.0.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            if !rights.push(SendAncillaryMessage::ScmRights(&sockets)) {
                return Err(io::Error::other("no room for a descriptor"));
            }
            let sent = sendmsg(&self.0, &[IoSlice::new(b"s")], &mut rights, SendFlags::NOSIGNAL)?;
            if sent == 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
        });
        timed(MESSAGE_TIMEOUT, sending).await
    }

    /// Receives a listening socket.
    pub(super) async fn receive_socket(&mut self, within: Duration) -> io::Result<TcpListener> {
        let receiving = self.0.async_io(Interest::READABLE, || {
            let mut byte = [0];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut rights = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut byte)];
            recvmsg(&self.0, &mut into, &mut rights, RecvFlags::CMSG_CLOEXEC)?;
            let mut received = rights.drain().filter_map(|it| match it {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            });
            let descriptor: Option<OwnedFd> = received.next().and_then(|mut it| it.next());
            descriptor.ok_or_else(|| io::Error::other("a byte came without its socket"))
        });
        let socket = timed(within, receiving).await?;
        if !rustix::net::sockopt::socket_acceptconn(&socket)? {
            return Err(io::Error::other("what came is no listening socket"));
        }
        let socket = TcpListener::from(socket);
        socket.local_addr()?;
        Ok(socket)
    }
}

async fn timed<T>(within: Duration, doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(within, doing).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {within:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SOON: Duration = Duration::from_millis(200);

    fn ends() -> (Line, Line) {
        let (a, b) = UnixStream::pair().expect("a pair");
        (Line::new(a).expect("oneself"), Line::new(b).expect("oneself"))
    }

    #[tokio::test]
    async fn messages_and_sockets_arrive_in_order() {
        let (mut here, mut there) = ends();
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        here.send(&Message::Sockets { version: 1, data: 2, admin: false }).await.expect("sent");
        here.send_socket(&socket).await.expect("sent");
        here.send_socket(&socket).await.expect("sent");
        here.send(&Message::Ready).await.expect("sent");
        drop(socket);
        assert!(matches!(there.receive(SOON).await, Ok(Message::Sockets { data: 2, admin: false, .. })));
        for _ in 0..2 {
            let received = there.receive_socket(SOON).await.expect("a socket");
            assert_eq!(received.local_addr().expect("an address"), address);
        }
        assert!(matches!(there.receive(SOON).await, Ok(Message::Ready)));
        here.send(&Message::Refused { why: "not today".into() }).await.expect("sent");
        assert_eq!(there.receive(SOON).await.expect_err("refused").to_string(), "not today");
    }

    #[tokio::test]
    async fn a_large_message_passes_and_an_endless_one_does_not() {
        let (mut here, mut there) = ends();
        let cells = vec![(vec!["caller".to_owned(), "n".repeat(100)], vec![u64::MAX; 11]); 20_000];
        let sending = tokio::spawn(async move {
            here.send(&Message::Cells { version: 1, cells, known_accounts: Vec::new() }).await.expect("sent");
            here.0.write_all(&u32::MAX.to_le_bytes()).await.expect("sent");
            here
        });
        let received = there.receive(Duration::from_secs(20)).await.expect("cells");
        assert!(
            matches!(received, Message::Cells { cells, .. } if cells.len() == 20_000 && cells[9].1[0] == u64::MAX)
        );
        assert!(there.receive(SOON).await.is_err());
        drop(sending.await);
    }

    #[tokio::test]
    async fn silence_ends_and_what_is_no_socket_is_refused() {
        let (mut here, mut there) = ends();
        assert_eq!(there.receive(SOON).await.expect_err("silence").kind(), io::ErrorKind::TimedOut);
        here.0.write_all(b"s").await.expect("sent");
        assert!(there.receive_socket(SOON).await.is_err());
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"x").expect("written");
        let fake = TcpListener::from(OwnedFd::from(file));
        here.send_socket(&fake).await.expect("sent");
        assert!(there.receive_socket(SOON).await.is_err());
        drop(here);
        assert!(there.receive(SOON).await.is_err());
    }
}
