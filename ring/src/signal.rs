//! From any thread to any worker: one bit that stays fired (drain, shut down), and a small number that goes up and down
//! (accept, pause). Neither carries data, and writing them never blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::sync::Notify;

/// A new signal that has not fired: the end that fires it and the end that waits.
pub fn signal() -> (Trigger, Signal) {
    let shared = Arc::new(Shared { fired: AtomicBool::new(false), waiters: Notify::new() });
    (Trigger(Arc::clone(&shared)), Signal(shared))
}

/// Fires a [`Signal`]. Dropping it does not.
#[derive(Clone)]
pub struct Trigger(Arc<Shared>);

/// Waits for its [`Trigger`], in any number of tasks on any worker. Waiters live in their own futures, so they take no
/// memory here, however many there are.
#[derive(Clone)]
pub struct Signal(Arc<Shared>);

struct Shared {
    fired: AtomicBool,
    waiters: Notify,
}

impl Trigger {
    /// Fires the signal, for all who wait and all who will. A second time does nothing.
    pub fn fire(&self) {
        if !self.0.fired.swap(true, Ordering::SeqCst) {
            self.0.waiters.notify_waiters();
        }
    }
}

impl Signal {
    /// Whether it has fired.
    pub fn fired(&self) -> bool {
        self.0.fired.load(Ordering::SeqCst)
    }

    /// Completes once it has fired.
    pub async fn wait(&self) {
        while !self.fired() {
            // A `Notified` sees every `notify_waiters` since it was made, so the bit is looked at again in between.
            let notified = self.0.waiters.notified();
            if self.fired() {
                return;
            }
            notified.await;
        }
    }
}

/// A small number that one side sets and any number of tasks on any worker wait for. Unlike a [`Signal`] it can go
/// back.
pub struct Level {
    value: AtomicU8,
    waiters: Notify,
}

impl Level {
    /// A level that stands at `value`.
    pub fn new(value: u8) -> Level {
        Level { value: AtomicU8::new(value), waiters: Notify::new() }
    }

    /// Where it stands.
    pub fn value(&self) -> u8 {
        self.value.load(Ordering::SeqCst)
    }

    /// Sets it, for all who wait. It never blocks.
    pub fn set(&self, value: u8) {
        if self.value.swap(value, Ordering::SeqCst) != value {
            self.waiters.notify_waiters();
        }
    }

    /// Completes once it is seen where `wanted` says.
    pub async fn reaches(&self, wanted: impl Fn(u8) -> bool) {
        while !wanted(self.value()) {
            // As in `Signal::wait`: a `Notified` sees every change since it was made.
            let notified = self.waiters.notified();
            if wanted(self.value()) {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn stays_fired() {
        let (trigger, signal) = signal();
        let mut early = pin!(signal.wait());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(early.as_mut().poll(&mut cx).is_pending());
        assert!(!signal.fired());
        trigger.fire();
        trigger.fire();
        assert!(early.poll(&mut cx).is_ready());
        assert!(pin!(signal.clone().wait()).poll(&mut cx).is_ready());
        assert!(signal.fired());
    }

    #[test]
    fn a_level_goes_back() {
        let level = Level::new(0);
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting = pin!(level.reaches(|it| it == 2));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        level.set(1);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        level.set(2);
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
        level.set(0);
        assert!(pin!(level.reaches(|it| it == 2)).poll(&mut cx).is_pending());
    }
}
