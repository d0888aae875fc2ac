//! The vocabulary between the state machine and the kernel: operations out, completions in, and the token that ties
//! them together.

use std::os::fd::{OwnedFd, RawFd};

use socket2::SockAddr;

/// Names a connection or listener of the machine for as long as it lives; a later one in the same place has another
/// generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Bits of a generation in a token.
pub(super) const GENERATION_BITS: u32 = 24;

/// What an operation does; the top byte of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Recv = 1,
    Writable = 2,
    HangUp = 3,
    Connect = 4,
    Accept = 5,
    /// Cancels a receive or another operation of the same key.
    Cancel = 6,
    Timeout = 7,
    /// Moves the timeout to an earlier time.
    Retime = 8,
    Bell = 9,
    CancelAll = 10,
}

/// `user_data` of an operation: its kind, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(u64);

impl Token {
    pub(super) fn new(kind: Kind, key: Key) -> Token {
        let generation = u64::from(key.generation & ((1 << GENERATION_BITS) - 1));
        Token((kind as u64) << 56 | generation << 32 | u64::from(key.index))
    }

    /// A token of an operation that belongs to the whole ring.
    pub(super) fn of_ring(kind: Kind) -> Token {
        Token::new(kind, Key { index: 0, generation: 0 })
    }

    pub(super) fn from_raw(user_data: u64) -> Token {
        Token(user_data)
    }

    pub(super) fn raw(self) -> u64 {
        self.0
    }

    pub(super) fn key(self) -> Key {
        Key { index: self.0 as u32, generation: (self.0 >> 32) as u32 & ((1 << GENERATION_BITS) - 1) }
    }

    pub(super) fn kind(self) -> Option<Kind> {
        Some(match self.0 >> 56 {
            1 => Kind::Recv,
            2 => Kind::Writable,
            3 => Kind::HangUp,
            4 => Kind::Connect,
            5 => Kind::Accept,
            6 => Kind::Cancel,
            7 => Kind::Timeout,
            8 => Kind::Retime,
            9 => Kind::Bell,
            10 => Kind::CancelAll,
            _ => return None,
        })
    }
}

/// How far a receive goes by itself. A cancel takes effect late: behind a fast peer half a megabyte has come by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Chunk after chunk until so many bytes have come (Linux 6.17).
    Bytes(u32),
    /// One chunk.
    Once,
}

/// An operation to submit. Descriptors stay open until its last completion: the machine holds them.
#[derive(Debug)]
pub(super) enum Op {
    /// Receive into the buffer ring.
    Recv {
        fd: RawFd,
        reach: Reach,
        token: Token,
    },
    /// Once the socket is writable.
    PollWritable {
        fd: RawFd,
        token: Token,
    },
    /// Once the peer has ended or reset; data does not count.
    PollHangUp {
        fd: RawFd,
        token: Token,
    },
    Connect {
        fd: RawFd,
        addr: Box<SockAddr>,
        token: Token,
    },
    /// Multishot accept.
    Accept {
        fd: RawFd,
        token: Token,
    },
    Cancel {
        target: Token,
        token: Token,
    },
    CancelAll,
    Timeout {
        wait_ns: u64,
    },
    Retime {
        wait_ns: u64,
    },
    /// Once the eventfd was written.
    PollBell {
        fd: RawFd,
    },
}

/// One completion, decoded. `B` is a lent buffer that goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Completion<B> {
    pub(super) token: Token,
    /// As the kernel gives it: a count or a negative errno.
    pub(super) result: i32,
    /// The operation goes on; without it, this was its last word.
    pub(super) more: bool,
    pub(super) buffer: Option<B>,
    /// What an accept brought.
    pub(super) socket: Option<OwnedFd>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_keeps_its_parts() {
        let key = Key { index: u32::MAX, generation: (1 << GENERATION_BITS) - 1 };
        let token = Token::from_raw(Token::new(Kind::CancelAll, key).raw());
        assert_eq!((token.kind(), token.key()), (Some(Kind::CancelAll), key));
        for raw in 0..=u64::from(u8::MAX) {
            let kind = Token::from_raw(raw << 56).kind();
            assert_eq!(kind.map_or(raw, |kind| kind as u64), raw);
        }
        assert_eq!(Token::from_raw(u64::MAX).kind(), None);
        assert_eq!(Token::from_raw(0).kind(), None);
    }
}
