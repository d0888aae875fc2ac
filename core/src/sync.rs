//! The atomics of the cells: std's, and loom's where the model checks of `tests/loom` are built.
//!
//! Only cells use these; a type that is published whole (`arc-swap`) or written by one actor alone uses std
//! directly. `Arc` stays std's under loom: cells are shared by it, and no protocol here depends on its count.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};

pub(crate) use std::sync::atomic::Ordering;

/// Replaces the word by what `next` makes of it, in one atomic step; `Err` with the word where `next` declines.
///
/// `Relaxed` on purpose: every protocol of the cells decides from one word alone and publishes nothing beside it,
/// so the modification order of that word is all that is needed.
pub(crate) fn step<T>(word: &AtomicU64, mut next: impl FnMut(u64) -> Result<u64, T>) -> Result<u64, T> {
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        let wanted = next(seen)?;
        match word.compare_exchange_weak(seen, wanted, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(before) => return Ok(before),
            Err(newer) => seen = newer,
        }
    }
}
