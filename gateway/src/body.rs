//! Collecting a request body: how much memory bodies may hold together, how long one may take, where it ends.
//! Never looks inside. A body that finds no memory stays unread until its deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_core::fault::{Fault, FaultKind};
use tidegate_core::{Moment, limits};
use tidegate_ring::Conn;
use tidegate_wire::body::{BodyError, BodyReader};

use crate::inbound::Source;
use crate::path::Stop;

/// The bytes that request bodies of the process may hold together. One counter: workers add before they
/// allocate and subtract after they freed, so it never reads below what is held.
#[derive(Clone)]
pub(crate) struct BodyMemory {
    used: Arc<AtomicU64>,
    max_bytes: u64,
}

impl BodyMemory {
    pub(crate) fn new(max_bytes: u64) -> BodyMemory {
        BodyMemory { used: Arc::new(AtomicU64::new(0)), max_bytes }
    }

    /// Bytes held now.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= self.max_bytes;
        if !fits {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

/// A share of body memory, given back on drop.
pub(crate) struct BodyLease {
    memory: BodyMemory,
    bytes: u64,
}

impl BodyLease {
    pub(crate) fn new(memory: &BodyMemory) -> BodyLease {
        BodyLease { memory: memory.clone(), bytes: 0 }
    }

    /// Grows the share to cover `wanted` bytes, in steps; false when there is none left.
    pub(crate) fn cover(&mut self, wanted: usize) -> bool {
        let wanted = wanted.next_multiple_of(limits::BODY_STEP_BYTES) as u64;
        if wanted <= self.bytes {
            return true;
        }
        let granted = self.memory.take(wanted - self.bytes);
        if granted {
            self.bytes = wanted;
        }
        granted
    }
}

impl Drop for BodyLease {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Collects the body into `into`, all of it or until `enough` says of a new piece (given with how many bytes there are
/// then) that the rest can wait. What was not read stays with `reader` and `source`, so that a refusal knows what is
/// left on the line.
pub(crate) async fn collect(
    memory: &BodyMemory,
    conn: &Conn,
    source: &mut Source,
    reader: &mut BodyReader,
    into: &mut Vec<u8>,
    mut enough: impl FnMut(&[u8], usize) -> Result<bool, Stop>,
) -> Result<BodyLease, Stop> {
    let deadline = Moment::from_ns(tidegate_ring::now_ns()) + limits::BODY_TIMEOUT;
    let mut lease = BodyLease::new(memory);
    into.clear();
    while !reader.ended() {
        let step = reader.next(source.bytes()).map_err(fault_of)?;
        let rest = reader.remaining_length();
        let taken =
            take(&mut lease, &source.bytes()[step.data.clone()], rest, into, deadline, &mut enough).await;
        // Off the line before a refusal, too: what the reader has passed must never be read as the next request.
        source.consume(step.consumed);
        if taken? {
            break;
        }
        if step.consumed == 0 && !step.ended {
            match tidegate_ring::deadline(deadline.as_ns(), source.fill(conn)).await {
                Err(_) => return Err(Fault::new(FaultKind::BodyTooSlow).into()),
                Ok(Ok(true)) => {}
                Ok(Ok(false) | Err(_)) => return Err(Fault::new(FaultKind::Malformed).into()),
            }
        }
    }
    Ok(lease)
}

/// Whether a content type names a charset other than the one in which bodies are read: whoever believed it would read
/// other text.
pub(crate) fn is_in_another_charset(content_type: &[u8]) -> bool {
    content_type.split(|&byte| byte == b';').skip(1).any(|parameter| {
        let mut halves = parameter.splitn(2, |&byte| byte == b'=').map(<[u8]>::trim_ascii);
        let is_charset = halves.next().is_some_and(|it| it.eq_ignore_ascii_case(b"charset"));
        let value = halves.next().unwrap_or_default();
        let value = value.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\"")).unwrap_or(value);
        is_charset && ![&b"utf-8"[..], b"utf8", b"us-ascii"].iter().any(|it| value.eq_ignore_ascii_case(it))
    })
}

/// Adds a piece to what was collected; true where that is enough.
async fn take(
    lease: &mut BodyLease,
    piece: &[u8],
    rest: Option<u64>,
    into: &mut Vec<u8>,
    deadline: Moment,
    enough: &mut impl FnMut(&[u8], usize) -> Result<bool, Stop>,
) -> Result<bool, Stop> {
    if piece.is_empty() {
        return Ok(false);
    }
    if into.len() + piece.len() > limits::BODY_BYTES_MAX {
        return Err(Fault::never(FaultKind::BodyTooLarge).into());
    }
    let capacity = capacity_for(into, piece.len(), rest);
    wait_for_memory(lease, capacity, deadline).await?;
    into.reserve_exact(capacity - into.len());
    into.extend_from_slice(piece);
    enough(piece, into.len())
}

async fn wait_for_memory(lease: &mut BodyLease, wanted: usize, deadline: Moment) -> Result<(), Fault> {
    while !lease.cover(wanted) {
        let now = Moment::from_ns(tidegate_ring::now_ns());
        if now >= deadline {
            return Err(Fault::later(FaultKind::Overloaded, Duration::from_secs(1)));
        }
        tidegate_ring::sleep_until((now + limits::MEMORY_POLL).as_ns()).await;
    }
    Ok(())
}

/// The capacity that the next run of data asks for. Where the length is known and moderate, room for all of it at
/// once, so that a body is copied once; a large one grows as it really arrives, whatever length was announced.
fn capacity_for(into: &Vec<u8>, data: usize, remaining: Option<u64>) -> usize {
    let wanted = into.len() + data;
    if wanted <= into.capacity() {
        return into.capacity();
    }
    match remaining {
        Some(rest) if rest <= limits::BODY_AT_ONCE_BYTES_MAX => wanted + rest as usize,
        Some(rest) => (2 * wanted).min(wanted.saturating_add(usize::try_from(rest).unwrap_or(usize::MAX))),
        None => 2 * wanted,
    }
}

/// Whose fault a broken body is.
pub(crate) fn fault_of(error: BodyError) -> Fault {
    match error {
        BodyError::TooLarge => Fault::never(FaultKind::BodyTooLarge),
        _ => Fault::new(FaultKind::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_comes_home() {
        let memory = BodyMemory::new(3 * limits::BODY_STEP_BYTES as u64);
        let mut first = BodyLease::new(&memory);
        let mut second = BodyLease::new(&memory);
        assert!(first.cover(1));
        assert!(second.cover(limits::BODY_STEP_BYTES + 1));
        assert!(!first.cover(limits::BODY_STEP_BYTES + 1));
        assert!(first.cover(limits::BODY_STEP_BYTES));
        drop(second);
        assert!(first.cover(3 * limits::BODY_STEP_BYTES));
        drop(first);
        assert_eq!(memory.used(), 0);
    }
}
