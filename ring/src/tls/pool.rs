//! Reusable byte buffers of one thread for plaintext lent to readers and records on their way out.
//!
//! It keeps a bounded number of idle buffers in two sizes: most events are small, and a connection that waits with
//! a few
//! hundred bytes must not hold a buffer for a whole record. It never limits how many are lent: a connection lends one
//! for each `recv` that its owner awaited, and holds one for a send that waits.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Capacity of a small buffer: an event or a head, with the overhead of its record.
const SMALL_BYTES: usize = 4 * 1024 + 512;
/// Capacity of a large buffer: a received chunk of 16 KiB and the rest of a record before it.
const LARGE_BYTES: usize = 2 * (16 * 1024 + 256);
/// Idle buffers kept of each size; 2.3 MiB a thread at most.
const IDLE_MAX: usize = 64;

/// The idle buffers of this thread.
struct Idle {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

thread_local! {
    static IDLE: RefCell<Idle> = const { RefCell::new(Idle { small: Vec::new(), large: Vec::new() }) };
}

/// A byte vector that goes back to its thread's pool when dropped.
#[derive(Debug, Default)]
pub(crate) struct Pooled(Vec<u8>);

impl Pooled {
    /// An empty buffer with room for `bytes`; larger than any pooled size, it is allocated for this use alone.
    pub(crate) fn with_room(bytes: usize) -> Pooled {
        let pooled = IDLE.with_borrow_mut(|idle| {
            if bytes <= SMALL_BYTES {
                idle.small.pop()
            } else if bytes <= LARGE_BYTES {
                idle.large.pop()
            } else {
                None
            }
        });
        Pooled(pooled.unwrap_or_else(|| Vec::with_capacity(capacity_for(bytes))))
    }
}

fn capacity_for(bytes: usize) -> usize {
    match bytes {
        0..=SMALL_BYTES => SMALL_BYTES,
        _ if bytes <= LARGE_BYTES => LARGE_BYTES,
        _ => bytes,
    }
}

impl Deref for Pooled {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0);
        bytes.clear();
        // A buffer that grew past its size is let go: the pool's memory stays what its constants say.
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            let shelf = match bytes.capacity() {
                SMALL_BYTES => &mut idle.small,
                LARGE_BYTES => &mut idle.large,
                _ => return,
            };
            if shelf.len() < IDLE_MAX {
                shelf.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_by_size_and_the_shelves_are_bounded() {
        let held: Vec<Pooled> = (0..IDLE_MAX + 9).map(|_| Pooled::with_room(100)).collect();
        drop(held);
        drop(Pooled::with_room(SMALL_BYTES + 1));
        drop(Pooled::with_room(LARGE_BYTES + 1));
        IDLE.with_borrow(|idle| {
            assert_eq!(idle.small.len(), IDLE_MAX);
            assert_eq!(idle.large.len(), 1);
        });
        let mut grown = Pooled::with_room(1);
        grown.resize(LARGE_BYTES + 1, 7);
        drop(grown);
        IDLE.with_borrow(|idle| assert_eq!((idle.small.len(), idle.large.len()), (IDLE_MAX - 1, 1)));
        assert!(Pooled::with_room(LARGE_BYTES).is_empty());
    }
}
