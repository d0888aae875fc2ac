//! What both real arms ask of a socket without waiting: its options, one write, one look. Never blocks.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::fault::{self, Call, Verdict};

/// Connections that the kernel may hold for one listener until they are accepted.
pub(crate) const BACKLOG: i32 = 4096;
/// Slices of one write.
const SLICES_PER_WRITE: usize = 8;

/// A listener that shares its port with the other workers.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket to connect with, options set.
pub(crate) fn outgoing(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    set_options(&socket)?;
    Ok(socket)
}

/// No delay, and keepalive so that a peer that vanished without a word is found out in about two minutes. Set on a
/// listener they pass to what it accepts: on Linux a connection is a copy of its listener, and no call is spent.
pub(crate) fn set_options(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let times = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket.set_tcp_keepalive(&times)
}

/// Makes the close of this socket a reset: what is unsent is thrown away, and the peer knows that it was cut.
pub(crate) fn reset_on_close(socket: &impl AsFd) {
    // It fails only on a socket that is gone already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Ends the sending half.
pub(crate) fn shutdown_write(socket: &impl AsFd) {
    // It fails only on a connection that is gone already.
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Write);
}

/// The other side's address, while there is one.
pub(crate) fn peer_addr(socket: &impl AsFd) -> Option<SocketAddr> {
    SockRef::from(socket).peer_addr().ok()?.as_socket()
}

/// True if nothing has come and nothing has ended: a look that takes no byte.
pub(crate) fn nothing_to_read(socket: &impl AsFd) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let looked = SockRef::from(socket).recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT);
    matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// How far a gathered write has come.
pub(crate) struct Gather<'a> {
    slices: &'a [&'a [u8]],
    /// Bytes of the first slice that are written already.
    offset: usize,
}

impl<'a> Gather<'a> {
    pub(crate) fn new(slices: &'a [&'a [u8]]) -> Gather<'a> {
        let mut gather = Gather { slices, offset: 0 };
        gather.advance(0);
        gather
    }

    /// Whether all bytes are written.
    pub(crate) fn is_done(&self) -> bool {
        self.slices.is_empty()
    }

    /// The scripted fault of the next write, if there is one.
    pub(crate) fn meet_fault(&self) -> io::Result<()> {
        match fault::meet(Call::Send) {
            Verdict::Proceed => Ok(()),
            Verdict::WouldBlock | Verdict::NoBuffers => Err(io::ErrorKind::WouldBlock.into()),
            Verdict::Fail(error) => Err(error),
        }
    }

    /// One `sendmsg` that neither blocks nor raises a signal. `Ok(false)`: the socket took less than was offered, so
    /// it is full.
    pub(crate) fn write(&mut self, socket: &impl AsFd) -> io::Result<bool> {
        let mut io_slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let mut left = fault::send_bytes_max();
        let (mut count, mut offered, mut offset) = (0, 0, self.offset);
        for (place, slice) in io_slices.iter_mut().zip(self.slices) {
            let rest = slice.get(offset..).unwrap_or_default();
            let rest = &rest[..rest.len().min(left)];
            *place = IoSlice::new(rest);
            (left, offered, offset) = (left - rest.len(), offered + rest.len(), 0);
            count += 1;
        }
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let socket = SockRef::from(socket);
        let written = match &io_slices[..count] {
            // One slice is the common case, and `send` is the cheaper call.
            [only] => socket.send_with_flags(only, flags),
            several => socket.send_vectored_with_flags(several, flags),
        }?;
        self.advance(written);
        Ok(written == offered)
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some((first, rest)) = self.slices.split_first() {
            let remaining = first.len() - self.offset;
            if bytes < remaining {
                self.offset += bytes;
                return;
            }
            bytes -= remaining;
            self.slices = rest;
            self.offset = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn writes_every_byte_of_many_slices_in_order() {
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("a port");
        let sender = TcpStream::connect(listener.local_addr().expect("an address")).expect("loopback");
        let (mut receiver, _) = listener.accept().expect("loopback");
        let parts: Vec<Vec<u8>> = (0..20_u8).map(|n| vec![n; usize::from(n % 5) * 7]).collect();
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        fault::install(fault::Script { send_bytes_max: 5, ..fault::Script::default() });
        let mut gather = Gather::new(&slices);
        let mut writes = 0;
        while !gather.is_done() {
            gather.write(&sender).expect("room on loopback");
            writes += 1;
        }
        fault::clear();
        drop(sender);
        let mut all = Vec::new();
        receiver.read_to_end(&mut all).expect("loopback");
        assert_eq!(all, parts.concat());
        assert_eq!(writes, parts.concat().len().div_ceil(5));
        assert!(Gather::new(&[]).is_done() && Gather::new(&[b"", b""]).is_done());
    }

    #[test]
    fn accepted_sockets_inherit_the_options_of_their_listener() {
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("a port");
        set_options(&listener).expect("options");
        let _sender = TcpStream::connect(listener.local_addr().expect("an address")).expect("loopback");
        let (accepted, _) = listener.accept().expect("loopback");
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().expect("option") && accepted.keepalive().expect("option"));
        assert_eq!(accepted.tcp_keepalive_time().expect("option"), Duration::from_secs(60));
    }
}
