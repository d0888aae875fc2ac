//! Listeners: one multishot accept each, armed when somebody waits, stopped when nobody takes what it brings.

use std::collections::VecDeque;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Poll, Waker};

use super::super::op::{Completion, Key, Kind, Op, Token};
use super::{Entry, Machine, gone, watch};

/// Accepted connections that a listener may hold for its worker before it tells the kernel to stop. They cost
/// a descriptor each, and a worker that has paused should leave the rest to the kernel's queue.
pub(super) const ACCEPTED_MAX: usize = 32;

/// A listening socket and what it has accepted.
pub(super) struct Door {
    pub(super) fd: OwnedFd,
    pub(super) owned: bool,
    pub(super) flying: bool,
    pub(super) stopping: bool,
    pub(super) waiting: VecDeque<OwnedFd>,
    pub(super) error: Option<i32>,
    pub(super) acceptor: Option<Waker>,
}

impl<B: Deref<Target = [u8]>> Machine<B> {
    /// A listening socket. Nothing is accepted before it is asked for.
    pub(in super::super) fn listen(&mut self, fd: OwnedFd) -> Key {
        self.insert(Entry::Door(Door {
            fd,
            owned: true,
            flying: false,
            stopping: false,
            waiting: VecDeque::new(),
            error: None,
            acceptor: None,
        }))
    }

    /// The next accepted socket.
    pub(in super::super) fn poll_accept(&mut self, key: Key, waker: &Waker) -> Poll<io::Result<OwnedFd>> {
        let closing = self.closing;
        let Some(door) = self.door(key) else { return Poll::Ready(Err(gone())) };
        if let Some(socket) = door.waiting.pop_front() {
            return Poll::Ready(Ok(socket));
        }
        if let Some(errno) = door.error.take() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
        }
        if closing {
            return Poll::Ready(Err(gone()));
        }
        let replaced = watch(&mut door.acceptor, waker);
        let armed = std::mem::replace(&mut door.flying, true);
        let fd = door.fd.as_raw_fd();
        self.discarded.extend(replaced);
        if !armed {
            self.emit(Op::Accept { fd, token: Token::new(Kind::Accept, key) });
        }
        Poll::Pending
    }

    /// Stops accepting; ready once the kernel has. What comes from then on waits in its queue.
    pub(in super::super) fn poll_stopped(&mut self, key: Key, waker: &Waker) -> Poll<()> {
        let Some(door) = self.door(key) else { return Poll::Ready(()) };
        if !door.flying {
            return Poll::Ready(());
        }
        let replaced = watch(&mut door.acceptor, waker);
        let told = std::mem::replace(&mut door.stopping, true);
        self.discarded.extend(replaced);
        if !told {
            self.emit_cancel(Token::new(Kind::Accept, key), key);
        }
        Poll::Pending
    }

    /// Its descriptor.
    pub(in super::super) fn listener_fd(&mut self, key: Key) -> Option<&OwnedFd> {
        self.door(key).map(|door| &door.fd)
    }

    /// A socket that was accepted and that nobody has asked for yet.
    pub(in super::super) fn take_accepted(&mut self, key: Key) -> Option<OwnedFd> {
        self.door(key)?.waiting.pop_front()
    }

    /// The listener is dropped, and with it what it has accepted for nobody.
    pub(in super::super) fn close_listener(&mut self, key: Key) {
        let Some(door) = self.door(key) else { return };
        door.owned = false;
        door.waiting.clear();
        let (acceptor, flying) = (door.acceptor.take(), door.flying);
        self.discarded.extend(acceptor);
        if flying {
            self.emit_cancel(Token::new(Kind::Accept, key), key);
        } else {
            self.entries.remove(key.index as usize);
        }
    }

    pub(super) fn accepted(&mut self, key: Key, completion: Completion<B>) {
        let Some(door) = self.door(key) else { return };
        if let Some(socket) = completion.socket
            && door.owned
        {
            door.waiting.push_back(socket);
        }
        if !completion.more {
            door.flying = false;
            door.stopping = false;
        }
        if completion.result < 0 && completion.result != -libc::ECANCELED {
            door.error = Some(-completion.result);
        }
        // Also woken without a socket, if the multishot has ended: the next poll arms it again.
        let wake = !door.waiting.is_empty() || !door.flying;
        let acceptor = if wake { door.acceptor.take() } else { None };
        let full = door.flying && !door.stopping && door.waiting.len() >= ACCEPTED_MAX;
        door.stopping |= full;
        let over = !door.owned && !door.flying;
        self.woken.extend(acceptor);
        if over {
            self.entries.remove(key.index as usize);
        } else if full {
            self.emit_cancel(Token::new(Kind::Accept, key), key);
        }
    }

    pub(super) fn door(&mut self, key: Key) -> Option<&mut Door> {
        match self.entries.get_mut(key.index as usize) {
            Some((generation, Entry::Door(door))) if *generation == key.generation => Some(door),
            _ => None,
        }
    }
}
