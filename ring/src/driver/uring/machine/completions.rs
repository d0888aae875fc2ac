//! The kernel's half of the machine: what each completion changes, and what has to be armed, stopped or watched
//! after it.

use std::ops::Deref;
use std::os::fd::AsRawFd;

use super::super::op::{Completion, Key, Kind, Op, Token};
use super::{End, Machine, Piece, Recv, bit};

impl<B: Deref<Target = [u8]>> Machine<B> {
    /// Takes one completion. `free`: buffers that are not lent, with this completion's counted as lent.
    pub(in super::super) fn complete(&mut self, completion: Completion<B>, free: usize) {
        let key = completion.token.key();
        if !completion.more {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        match completion.token.kind() {
            Some(Kind::Recv) => self.received(key, completion, free),
            Some(Kind::Accept) => self.accepted(key, completion),
            Some(Kind::Cancel) => self.cancelled(key, completion.result),
            Some(Kind::Timeout) => {
                self.timeout_flying = false;
                self.alarm_ns = u64::MAX;
            }
            Some(Kind::Bell) => self.bell_rang = true,
            Some(kind @ (Kind::Writable | Kind::HangUp | Kind::Connect)) => {
                self.polled(key, kind, completion.result);
            }
            Some(Kind::Retime | Kind::CancelAll) | None => {}
        }
    }

    fn received(&mut self, key: Key, completion: Completion<B>, free: usize) {
        let (credit, reserve) = (self.credit, self.reserve);
        let mut tally = self.tally;
        let Some(slot) = self.slot(key) else { return };
        let mut wake = false;
        match (completion.result, completion.buffer) {
            // Not owned: the buffer goes back unseen.
            (1.., Some(_)) if !slot.owned => {}
            (1.., Some(buffer)) => {
                let lend = slot.outstanding < credit && free > reserve;
                let piece = if lend { Piece::Buffer(buffer) } else { Piece::Copy((*buffer).into()) };
                tally.copied += u64::from(!lend);
                slot.inbox.push_back(piece);
                slot.outstanding += 1;
                wake = true;
            }
            (0, _) => slot.end = Some(End::Finished),
            (errno, _) => match -errno {
                libc::ENOBUFS if slot.owned && !completion.more => slot.recv = Recv::Starved,
                libc::ENOBUFS | libc::ECANCELED | libc::EINTR => {}
                // Bytes without a buffer: not possible with a buffer ring.
                ..=0 => slot.end = Some(End::Broken(libc::EIO)),
                // Also EAGAIN: it means that the socket is non-blocking, and arming it again would go round for ever.
                errno => slot.end = Some(End::Broken(errno)),
            },
        }
        if !completion.more {
            slot.flying &= !bit(Kind::Recv);
            if slot.recv != Recv::Starved {
                slot.recv = Recv::Idle;
            }
        }
        let starved = slot.recv == Recv::Starved;
        let ended = slot.end.is_some();
        let reader = if wake || ended { slot.reader.take() } else { None };
        let closer = if ended { slot.closer.take() } else { None };
        self.woken.extend(reader);
        self.woken.extend(closer);
        if starved {
            tally.starved += 1;
            self.starved.push_back(key);
        }
        self.tally = tally;
        self.settle(key);
    }

    fn polled(&mut self, key: Key, kind: Kind, result: i32) {
        let Some(slot) = self.slot(key) else { return };
        slot.flying &= !bit(kind);
        let waker = match kind {
            Kind::Connect => {
                slot.connected = Some(-result);
                slot.writer.take()
            }
            Kind::HangUp if result >= 0 => {
                slot.hung_up = true;
                slot.closer.take()
            }
            Kind::Writable => {
                slot.writable = true;
                slot.writer.take()
            }
            _ => None,
        };
        self.woken.extend(waker);
        self.settle(key);
    }

    /// A cancel that found nothing: what it was for has ended, or is cancelled again when it next delivers.
    fn cancelled(&mut self, key: Key, result: i32) {
        if result >= 0 {
            return;
        }
        if let Some(slot) = self.slot(key)
            && slot.recv == Recv::Stopping
        {
            slot.recv = Recv::Armed;
        }
        if let Some(door) = self.door(key) {
            door.stopping = false;
        }
    }

    /// Brings a connection to where it should be after anything has changed.
    pub(super) fn settle(&mut self, key: Key) {
        let (credit, closing) = (self.credit, self.closing);
        let Some(slot) = self.slot(key) else { return };
        if !slot.owned {
            if slot.flying == 0 {
                self.entries.remove(key.index as usize);
            }
            return;
        }
        if closing || slot.end.is_some() {
            return;
        }
        if slot.recv == Recv::Armed && slot.outstanding >= credit && slot.reader.is_none() {
            slot.recv = Recv::Stopping;
            self.tally.paused += 1;
            self.emit_cancel(Token::new(Kind::Recv, key), key);
        } else if slot.recv == Recv::Idle && slot.used && slot.has_room(credit) {
            self.arm(key);
        }
        self.watch_hang_up(key);
    }

    /// An armed receive sees the end itself; without one, whoever waits for the end needs a watch of its own.
    fn watch_hang_up(&mut self, key: Key) {
        let Some(slot) = self.slot(key) else { return };
        let watched = slot.recv == Recv::Armed || slot.hung_up || slot.flying & bit(Kind::HangUp) != 0;
        if slot.closer.is_some() && !watched {
            slot.flying |= bit(Kind::HangUp);
            let fd = slot.fd.as_raw_fd();
            self.emit(Op::PollHangUp { fd, token: Token::new(Kind::HangUp, key) });
        }
    }
}
