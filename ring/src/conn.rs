//! The facade's connection: one stream of bytes each way, on whichever arm, with TLS or without. Decides nothing
//! about the
//! bytes.
//!
//! All methods take `&self`: one task may wait for bytes while another sends.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::chunk::Chunk;
use crate::plain::Plain;
use crate::tls::{ClientTls, ConnectError, ServerName, ServerTls, TlsConn};

/// A connection of this worker. Dropping it closes it.
pub struct Conn {
    layer: Layer,
}

enum Layer {
    Plain(Plain),
    Tls(TlsConn),
}

impl Conn {
    /// Connects over plain TCP, with no delay and keepalive set. The caller sets a deadline around it.
    ///
    /// # Errors
    /// What `connect` says.
    ///
    /// # Panics
    /// Outside of a worker.
    pub async fn connect(addr: SocketAddr) -> io::Result<Conn> {
        Plain::connect(addr).await.map(Conn::plain)
    }

    /// Connects and shakes hands over TLS with a server that proves to be `name`. It never falls back to plain text
    /// nor to
    /// an unverified peer. The caller sets a deadline around it.
    ///
    /// # Errors
    /// What `connect` says, or the check of TLS that failed.
    ///
    /// # Panics
    /// Outside of a worker.
    pub async fn connect_tls(
        addr: SocketAddr,
        tls: &ClientTls,
        name: &ServerName,
    ) -> Result<Conn, ConnectError> {
        Conn::start_tls(Conn::connect(addr).await?, tls, name).await
    }

    /// Shakes hands over TLS on a connection that is there already, through a tunnel say, and of which all that was
    /// received has been read. Otherwise as [`Conn::connect_tls`].
    ///
    /// # Errors
    /// The socket's, or the check of TLS that failed; `InvalidInput` for a connection that has TLS already.
    pub async fn start_tls(conn: Conn, tls: &ClientTls, name: &ServerName) -> Result<Conn, ConnectError> {
        match conn.layer {
            Layer::Plain(plain) => TlsConn::connect(plain, tls, name).await.map(Conn::tls),
            Layer::Tls(_) => Err(ConnectError::Io(io::ErrorKind::InvalidInput.into())),
        }
    }

    /// Shakes hands as the server of an accepted connection, of which nothing was read yet. The caller sets a deadline
    /// around it: a client that says nothing is waited for.
    ///
    /// # Errors
    /// The socket's, or the check of TLS that failed; `InvalidInput` for a connection that has TLS already.
    pub async fn accept_tls(conn: Conn, tls: &ServerTls) -> Result<Conn, ConnectError> {
        Conn::accept_tls_after(conn, tls, b"", async |step| step()).await
    }

    /// The same for a connection from which `received`, the beginning of the client's handshake, was read already.
    ///
    /// `pace` is given each step of the handshake that computes, half a millisecond or so, and carries it out when it
    /// may: who shakes hands with many at once spreads them over turns of its loop, for the sake of what else runs.
    ///
    /// # Errors
    /// As [`Conn::accept_tls`].
    pub async fn accept_tls_after(
        conn: Conn,
        tls: &ServerTls,
        received: &[u8],
        pace: impl AsyncFn(&mut dyn FnMut()),
    ) -> Result<Conn, ConnectError> {
        match conn.layer {
            Layer::Plain(plain) => TlsConn::accept(plain, tls, received, pace).await.map(Conn::tls),
            Layer::Tls(_) => Err(ConnectError::Io(io::ErrorKind::InvalidInput.into())),
        }
    }

    /// Whether it has TLS, and if so, whether the handshake took up an earlier session.
    pub fn resumed(&self) -> Option<bool> {
        match &self.layer {
            Layer::Plain(_) => None,
            Layer::Tls(tls) => Some(tls.is_resumed()),
        }
    }

    /// The next bytes; an empty chunk means that the peer has finished sending, now and each time after. One waiter
    /// at a
    /// time. Dropping the future loses no byte.
    ///
    /// # Errors
    /// When the connection is broken. With TLS also `InvalidData` for what is no TLS, and `UnexpectedEof` for an
    /// end that
    /// the peer did not announce (close_notify): somebody may have cut the text.
    pub async fn recv(&self) -> io::Result<Chunk> {
        match &self.layer {
            Layer::Plain(plain) => plain.recv().await,
            Layer::Tls(tls) => tls.recv().await.map(Chunk::decrypted),
        }
    }

    /// Sends all bytes of all slices, with one system call if the socket takes them and there are at most eight slices
    /// (with TLS: one for each 16 KiB). One sender at a time. A future dropped half-way has sent an unknown part: the
    /// connection is then good for nothing but closing.
    ///
    /// # Errors
    /// When the connection is broken. It never raises a signal.
    pub async fn send(&self, slices: &[&[u8]]) -> io::Result<()> {
        match &self.layer {
            Layer::Plain(plain) => plain.send(slices).await,
            Layer::Tls(tls) => tls.send(slices).await,
        }
    }

    /// Completes when the peer is gone: it reset the connection, or finished sending while something was still due
    /// to it.
    /// For use while nobody waits in `recv`; bytes that came before stay readable. One waiter at a time.
    pub async fn closed(&self) {
        match &self.layer {
            Layer::Plain(plain) => plain.closed().await,
            Layer::Tls(tls) => tls.closed().await,
        }
    }

    /// Whether an idle connection can be used again: no end, no error and no byte that nobody asked for has been
    /// seen. It
    /// does not wait, so an end that is still under way is not seen.
    pub fn is_quiet(&self) -> bool {
        match &self.layer {
            Layer::Plain(plain) => plain.is_quiet(),
            Layer::Tls(tls) => tls.is_quiet(),
        }
    }

    /// Finishes sending: the peer sees the end of the stream after what was sent. Receiving goes on. With TLS this
    /// is what
    /// tells the peer that nothing was cut off; a connection dropped without it ends like one that was.
    pub fn shutdown_write(&self) {
        match &self.layer {
            Layer::Plain(plain) => plain.shutdown_write(),
            Layer::Tls(tls) => tls.shutdown_write(),
        }
    }

    /// Makes the close of this connection a reset, so that the peer cannot take a cut message for a complete one.
    pub fn abort(&self) {
        match &self.layer {
            Layer::Plain(plain) => plain.abort(),
            Layer::Tls(tls) => tls.abort(),
        }
    }

    /// The other side's address; `None` once the connection is gone.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.layer {
            Layer::Plain(plain) => plain.peer_addr(),
            Layer::Tls(tls) => tls.peer_addr(),
        }
    }

    /// Gives the socket of a freshly accepted connection up, to be adopted by another worker ([`Conn::adopt`]).
    ///
    /// # Errors
    /// `Unsupported` once `recv` or `closed` was called (bytes may be on their way into this worker's buffers), and
    /// with
    /// TLS (its keys stay here).
    pub fn release(self) -> io::Result<OwnedFd> {
        match self.layer {
            Layer::Plain(plain) => plain.release(),
            Layer::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes over a socket that another worker has released.
    ///
    /// # Errors
    /// If it cannot be watched.
    ///
    /// # Panics
    /// Outside of a worker.
    pub fn adopt(fd: OwnedFd) -> io::Result<Conn> {
        Plain::adopt(fd).map(Conn::plain)
    }

    pub(crate) fn plain(plain: Plain) -> Conn {
        Conn { layer: Layer::Plain(plain) }
    }

    fn tls(tls: TlsConn) -> Conn {
        Conn { layer: Layer::Tls(tls) }
    }
}
