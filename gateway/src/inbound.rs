//! Received bytes that were not consumed yet, of one connection. Decides nothing: it lends what is there, in
//! place in the ring's buffer, and joins two chunks by copying only when a message's part spans them.

use std::io;

use tidegate_ring::{Chunk, Conn};

/// Unconsumed bytes of a connection, contiguous.
///
/// Either `carry` holds them or `chunk` does, never both: bytes move to `carry` only when a part (a head, a
/// chunk-size line) needs more than one chunk.
#[derive(Default)]
pub(crate) struct Source {
    chunk: Option<Chunk>,
    chunk_at: usize,
    carry: Vec<u8>,
    carry_at: usize,
    consumed_bytes: u64,
}

impl Source {
    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        if self.carry_at < self.carry.len() {
            return &self.carry[self.carry_at..];
        }
        self.chunk.as_ref().map_or(&[], |chunk| &chunk[self.chunk_at..])
    }

    /// True when nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Counts consumed bytes from zero: another request begins.
    pub(crate) fn restart_count(&mut self) {
        self.consumed_bytes = 0;
    }

    /// Bytes consumed since the request began.
    pub(crate) fn consumed_bytes(&self) -> u64 {
        self.consumed_bytes
    }

    /// Gives up the first `count` bytes. A spent chunk goes back to the ring at once.
    pub(crate) fn consume(&mut self, count: usize) {
        self.consumed_bytes += count as u64;
        if self.carry_at < self.carry.len() {
            self.carry_at = (self.carry_at + count).min(self.carry.len());
            if self.carry_at == self.carry.len() {
                self.carry.clear();
                self.carry_at = 0;
            }
            return;
        }
        self.chunk_at += count;
        if self.chunk.as_ref().is_some_and(|chunk| self.chunk_at >= chunk.len()) {
            self.chunk = None;
            self.chunk_at = 0;
        }
    }

    /// Waits for more; false at the peer's FIN.
    pub(crate) async fn fill(&mut self, conn: &Conn) -> io::Result<bool> {
        let chunk = conn.recv().await?;
        Ok(self.accept(chunk))
    }

    /// Takes a chunk that was received elsewhere; false if it is the peer's FIN.
    pub(crate) fn accept(&mut self, chunk: Chunk) -> bool {
        if chunk.is_empty() {
            return false;
        }
        if self.is_empty() {
            self.chunk = Some(chunk);
            self.chunk_at = 0;
            return true;
        }
        if let Some(held) = self.chunk.take() {
            self.carry.extend_from_slice(&held[self.chunk_at..]);
            self.chunk_at = 0;
        }
        self.carry.drain(..self.carry_at);
        self.carry_at = 0;
        self.carry.extend_from_slice(&chunk);
        true
    }
}
