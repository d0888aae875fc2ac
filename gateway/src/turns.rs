//! A bounded number of turns for the tasks of one worker, given out in the order of asking. Decides only whose turn it
//! is; what a turn is good for, and how long one waits for it, is its users'.
//!
//! Single-threaded: no borrow is held across an await.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The turns of one worker.
pub(crate) struct Turns {
    free: Cell<usize>,
    /// Who waits; bounded by the connections of the worker. Empty while a turn is free.
    waiting: RefCell<VecDeque<Rc<Wait>>>,
}

struct Wait {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A turn; given on when dropped.
pub(crate) struct Turn<'a>(&'a Turns);

/// Waits for a turn. Dropped early it gives up its place, and a turn that it was given meanwhile.
pub(crate) struct Waiting<'a> {
    turns: &'a Turns,
    wait: Option<Rc<Wait>>,
}

impl Turns {
    /// At most `turns` at once.
    pub(crate) fn new(turns: usize) -> Turns {
        Turns { free: Cell::new(turns), waiting: RefCell::default() }
    }

    /// The next turn that is free.
    pub(crate) fn take(&self) -> Waiting<'_> {
        Waiting { turns: self, wait: None }
    }

    fn give_on(&self) {
        let Some(next) = self.waiting.borrow_mut().pop_front() else {
            return self.free.set(self.free.get() + 1);
        };
        next.granted.set(true);
        let waker = next.waker.take();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.give_on();
    }
}

impl<'a> Future for Waiting<'a> {
    type Output = Turn<'a>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn<'a>> {
        let turns = self.turns;
        match &self.wait {
            Some(wait) if wait.granted.get() => {
                self.wait = None;
                Poll::Ready(Turn(turns))
            }
            Some(wait) => {
                *wait.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            None if turns.free.get() > 0 => {
                turns.free.set(turns.free.get() - 1);
                Poll::Ready(Turn(turns))
            }
            None => {
                let waker = RefCell::new(Some(cx.waker().clone()));
                let wait = Rc::new(Wait { granted: Cell::new(false), waker });
                turns.waiting.borrow_mut().push_back(wait.clone());
                self.wait = Some(wait);
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(wait) = self.wait.take() else { return };
        if wait.granted.get() {
            return self.turns.give_on();
        }
        let mut waiting = self.turns.waiting.borrow_mut();
        // Who gives up is mostly the one who waits longest, and stands in front.
        if let Some(at) = waiting.iter().position(|it| Rc::ptr_eq(it, &wait)) {
            waiting.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn turns_go_round_in_the_order_of_asking() {
        let turns = Turns::new(1);
        let (mut first, mut second, mut third) = (pin!(turns.take()), pin!(turns.take()), pin!(turns.take()));
        let turn = poll(first.as_mut()).expect("a free turn");
        assert!(poll(second.as_mut()).is_none() && poll(third.as_mut()).is_none());
        drop(turn);
        assert!(poll(third.as_mut()).is_none(), "the second is next");
        let turn = poll(second.as_mut()).expect("its turn");
        drop(turn);
        assert!(poll(third.as_mut()).is_some());
        assert_eq!((turns.free.get(), turns.waiting.borrow().len()), (1, 0));
    }

    #[test]
    fn who_gives_up_holds_nobody_up() {
        let turns = Turns::new(1);
        let turn = poll(pin!(turns.take()).as_mut()).expect("a free turn");
        let (mut gone, mut granted, mut last) =
            (Box::pin(turns.take()), Box::pin(turns.take()), pin!(turns.take()));
        assert!(poll(gone.as_mut()).is_none() && poll(granted.as_mut()).is_none());
        assert!(poll(last.as_mut()).is_none());
        drop(gone);
        drop(turn);
        // It was given the turn and leaves before it looks.
        drop(granted);
        assert!(poll(last.as_mut()).is_some());
        assert_eq!((turns.free.get(), turns.waiting.borrow().len()), (1, 0));
    }
}
