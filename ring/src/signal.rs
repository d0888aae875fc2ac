//! One bit from any thread to any worker: drain, shut down. Fired once, it stays fired. It carries no data, and firing
//! it never blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
}
