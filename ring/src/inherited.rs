//! Descriptors that this process was started with, as systemd's socket activation passes them: numbers from 3 on that
//! nobody in the process owns yet. Decides nothing about what they are for.

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{SockRef, Type};

/// The first passed descriptor, after the three standard ones (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// Takes over the first `count` listening TCP sockets from descriptor 3 on. Call it first thing in a process, before it
/// has opened anything of its own: only then are these numbers the starter's. Each is marked to be closed in programs
/// that this one starts.
///
/// # Errors
/// `AlreadyExists` from the second call on; `InvalidInput` for one that is no listening TCP socket; what `fcntl`
/// says of one that is not open. Those before it are closed then.
pub fn inherited_listeners(count: usize) -> io::Result<Vec<TcpListener>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the passed descriptors are taken already"));
    }
    (FIRST..).take(count).map(adopt).collect()
}

fn adopt(number: RawFd) -> io::Result<TcpListener> {
    // SAFETY: fcntl with F_SETFD takes no pointer and changes a flag alone; it fails on a number that is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is open (checked above) and nobody else in this process owns it: the starter passed it, the
    // process has taken over nothing before (`TAKEN`), and each number is taken once.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    if !is_listener(&socket).unwrap_or(false) {
        let what = format!("descriptor {number} is not a listening TCP socket");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(TcpListener::from(socket))
}

fn is_listener(socket: &OwnedFd) -> io::Result<bool> {
    let socket = SockRef::from(socket);
    let is_tcp = socket.r#type()? == Type::STREAM && socket.local_addr()?.as_socket().is_some();
    Ok(is_tcp && socket.is_listener()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Within a test program the numbers belong to others, so that only the refusals can be shown here.
    #[test]
    fn what_is_not_open_is_refused_and_nothing_is_taken_twice() {
        let error = adopt(1 << 20).expect_err("not open");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        assert!(inherited_listeners(0).expect("nothing to take").is_empty());
        assert_eq!(inherited_listeners(0).map_err(|it| it.kind()).err(), Some(io::ErrorKind::AlreadyExists));
    }
}
