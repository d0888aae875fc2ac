//! Received bytes on loan: a buffer of the ring, or of the worker's pool. Decides nothing; dropping a chunk gives its
//! buffer back.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use crate::driver::uring;
#[cfg(feature = "sim")]
use crate::sim;
use crate::tls;

/// Bytes received from a connection. It belongs to its worker (`!Send`) and counts against its connection's credit
/// until it is dropped, so a reader should not collect them. Empty: the peer has finished sending.
#[derive(Default)]
pub struct Chunk {
    store: Store,
    start: usize,
    end: usize,
}

#[derive(Default)]
enum Store {
    #[default]
    Nothing,
    /// A buffer of the worker's pool.
    Pooled { buffer: Vec<u8>, pool: Rc<VecPool> },
    /// Bytes of its own, where there is no pool to give back to.
    Owned(Box<[u8]>),
    /// A buffer of the ring, or a copy of one, counted by its connection.
    Lent(uring::Lent),
    /// Plaintext in a buffer of the thread's TLS pool.
    Decrypted(tls::Pooled),
    /// Bytes that a simulated connection counts.
    #[cfg(feature = "sim")]
    Simulated(sim::Lent),
}

impl Chunk {
    /// The end of the stream.
    pub(crate) fn end() -> Chunk {
        Chunk::default()
    }

    /// The first `len` bytes of a buffer that goes back to `pool`.
    pub(crate) fn pooled(buffer: Vec<u8>, len: usize, pool: &Rc<VecPool>) -> Chunk {
        let end = len.min(buffer.len());
        Chunk { store: Store::Pooled { buffer, pool: Rc::clone(pool) }, start: 0, end }
    }

    pub(crate) fn owned(bytes: &[u8]) -> Chunk {
        Chunk { store: Store::Owned(bytes.into()), start: 0, end: bytes.len() }
    }

    pub(crate) fn lent(lent: uring::Lent) -> Chunk {
        let end = lent.len();
        Chunk { store: Store::Lent(lent), start: 0, end }
    }

    pub(crate) fn decrypted(plaintext: tls::Pooled) -> Chunk {
        let end = plaintext.len();
        Chunk { store: Store::Decrypted(plaintext), start: 0, end }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn simulated(lent: sim::Lent) -> Chunk {
        let end = lent.len();
        Chunk { store: Store::Simulated(lent), start: 0, end }
    }

    /// Splits off the first `len` bytes as a chunk of their own; `self` keeps the rest. Copies: for scripted short
    /// reads only.
    pub(crate) fn split_front(&mut self, len: usize) -> Chunk {
        let front = Chunk::owned(&self[..len.min(self.len())]);
        self.start += front.len();
        front
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.store {
            Store::Nothing => &[],
            Store::Pooled { buffer, .. } => buffer,
            Store::Owned(bytes) => bytes,
            Store::Lent(lent) => lent,
            Store::Decrypted(plaintext) => plaintext,
            #[cfg(feature = "sim")]
            Store::Simulated(lent) => lent,
        };
        &all[self.start..self.end]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Store::Pooled { buffer, pool } = &mut self.store {
            pool.give_back(std::mem::take(buffer));
        }
    }
}

impl fmt::Debug for Chunk {
    /// The length only: these are a caller's or a provider's bytes, and they do not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("bytes", &self.len()).finish()
    }
}

/// Buffers of one size, of which a stated number is kept for the next user. More can be out at a time; how many is
/// bounded by whoever takes them.
pub(crate) struct VecPool {
    buffer_bytes: usize,
    keep: usize,
    free: RefCell<Vec<Vec<u8>>>,
    lent: Cell<usize>,
}

impl VecPool {
    /// A pool of `buffer_bytes` buffers that keeps at most `keep` unused ones.
    pub(crate) fn new(buffer_bytes: usize, keep: usize) -> Rc<VecPool> {
        Rc::new(VecPool { buffer_bytes, keep, free: RefCell::new(Vec::new()), lent: Cell::new(0) })
    }

    /// A buffer of full length. Its content is whatever the last user left.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.lent.set(self.lent.get() + 1);
        self.free.borrow_mut().pop().unwrap_or_else(|| vec![0; self.buffer_bytes])
    }

    /// How many buffers are out.
    pub(crate) fn lent(&self) -> usize {
        self.lent.get()
    }

    /// Takes a buffer back. One of another size is dropped.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        self.lent.set(self.lent.get() - 1);
        let mut free = self.free.borrow_mut();
        if free.len() < self.keep && buffer.len() == self.buffer_bytes {
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_chunk_gives_its_buffer_back_and_the_pool_keeps_no_more_than_it_may() {
        let pool = VecPool::new(8, 2);
        let chunks: Vec<Chunk> = (0..5).map(|n| Chunk::pooled(pool.take(), n, &pool)).collect();
        assert_eq!(chunks.iter().map(|c| c.len()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        drop(chunks);
        assert_eq!(pool.free.borrow().len(), 2);
    }

    #[test]
    fn a_split_chunk_loses_no_byte() {
        let pool = VecPool::new(8, 1);
        let mut buffer = pool.take();
        buffer.copy_from_slice(b"abcdefgh");
        let mut chunk = Chunk::pooled(buffer, 7, &pool);
        assert_eq!(&*chunk.split_front(3), b"abc");
        assert_eq!(&*chunk, b"defg");
        assert_eq!(&*chunk.split_front(9), b"defg");
        assert!(chunk.is_empty());
    }
}
