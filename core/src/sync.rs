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
/// `Relaxed` on purpose: the protocols of the cells decide from one word alone and publish nothing beside it, so
/// the modification order of that word is all that is needed. [`step_releasing`] is for the one that needs more.
pub(crate) fn step<T>(word: &AtomicU64, next: impl FnMut(u64) -> Result<u64, T>) -> Result<u64, T> {
    step_as(word, Ordering::Relaxed, next)
}

/// As [`step`]; who then changes the word with `Acquire` sees what this thread wrote before.
pub(crate) fn step_releasing<T>(word: &AtomicU64, next: impl FnMut(u64) -> Result<u64, T>) -> Result<u64, T> {
    step_as(word, Ordering::Release, next)
}

fn step_as<T>(
    word: &AtomicU64,
    order: Ordering,
    mut next: impl FnMut(u64) -> Result<u64, T>,
) -> Result<u64, T> {
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        let wanted = next(seen)?;
        match word.compare_exchange_weak(seen, wanted, order, Ordering::Relaxed) {
            Ok(before) => return Ok(before),
            Err(newer) => seen = newer,
        }
    }
}
