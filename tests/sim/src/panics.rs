//! The words of the last panic in a run: the executor catches panics at the edge of their task, and only counts them.

use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Notes the panics of `work`, on this thread, instead of printing them.
pub fn noting<T>(work: impl FnOnce() -> T) -> T {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_RUNNING.get() {
                LAST.with(|last| last.replace(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
    IS_RUNNING.set(true);
    let done = work();
    IS_RUNNING.set(false);
    done
}

/// What the last one said, and where.
pub fn last() -> String {
    LAST.with(|last| last.borrow().clone())
}
