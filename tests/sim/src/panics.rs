//! The words of the last panic on this thread: the executor catches panics at the edge of their task, and only counts
//! them.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on panics are noted instead of printed.
pub fn note() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let text = info.to_string();
            LAST.with(|last| last.replace(text));
        }));
    });
}

/// What the last one said, and where.
pub fn last() -> String {
    LAST.with(|last| last.borrow().clone())
}
