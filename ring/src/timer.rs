//! Futures about time and order: a sleep on the worker's wheel, a deadline around another future, two futures at
//! once, and
//! giving way. Deadlines are points in monotonic time ([`crate::now_ns`]), `u64::MAX` is never.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::{error, fmt};

use crate::wheel::TimerKey;
use crate::worker::{self, Worker};

/// Completes at `deadline_ns` or up to about a millisecond later, never before; at `u64::MAX` never. Dropping it takes
/// it off the wheel. It costs no timer until it is first polled.
pub fn sleep_until(deadline_ns: u64) -> Sleep {
    Sleep { deadline_ns, armed: None }
}

/// A wait for a point in time; see [`sleep_until`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline_ns: u64,
    armed: Option<(Rc<Worker>, TimerKey)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((worker, key)) = &self.armed {
            let (fired, replaced) = worker.wheel.borrow_mut().poll(*key, cx.waker());
            drop(replaced);
            if !fired {
                return Poll::Pending;
            }
            self.disarm();
            return Poll::Ready(());
        }
        if self.deadline_ns == u64::MAX {
            return Poll::Pending;
        }
        let worker = worker::current();
        if worker.clock.now_ns() >= self.deadline_ns {
            return Poll::Ready(());
        }
        let key = worker.wheel.borrow_mut().set(self.deadline_ns, cx.waker().clone());
        self.armed = Some((worker, key));
        Poll::Pending
    }
}

impl Sleep {
    fn disarm(&mut self) {
        if let Some((worker, key)) = self.armed.take() {
            let waker = worker.wheel.borrow_mut().remove(key);
            drop(waker);
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// A deadline passed before the future completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline passed")
    }
}

impl error::Error for Elapsed {}

/// `future`, or [`Elapsed`] once `deadline_ns` has passed. The future is polled first: if it is ready at the same
/// turn, it
/// wins. `u64::MAX` sets no deadline and costs no timer.
///
/// # Errors
/// [`Elapsed`]; the future is dropped.
pub async fn deadline<T>(deadline_ns: u64, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    // By reference: what is awaited by value is held twice, here and in there.
    match race(pin!(future), sleep_until(deadline_ns)).await {
        Either::Left(output) => Ok(output),
        Either::Right(()) => Err(Elapsed),
    }
}

/// Which of two futures completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first one.
    Left(A),
    /// The second one.
    Right(B),
}

/// The one of two futures that completes first; the other is dropped. `a` is polled first and wins a tie.
pub async fn race<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|cx| {
        if let Poll::Ready(output) = a.as_mut().poll(cx) {
            return Poll::Ready(Either::Left(output));
        }
        b.as_mut().poll(cx).map(Either::Right)
    })
    .await
}

/// Lets every other ready task and the driver have a turn.
pub fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}
