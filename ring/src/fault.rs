//! The fault seam: a script of failures for the sockets of this thread, on both real arms. It is for tests that
//! need a failure the kernel gives only by luck; without a script it costs one branch a call.
//!
//! It never invents data and never loses any: a scripted failure stands in front of the real call.

use std::cell::{Cell, RefCell};
use std::io;

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `Listener::accept`.
    Accept,
    /// `Conn::connect`.
    Connect,
    /// `Conn::recv`.
    Recv,
    /// One write to the socket within `Conn::send`.
    Send,
}

/// What happens instead of, or in front of, the real call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Connection refused.
    Refused,
    /// Connection reset by the peer.
    Reset,
    /// Timed out, as the kernel reports it.
    TimedOut,
    /// Out of descriptors (`EMFILE`).
    TooManyFiles,
    /// Not ready although announced: the call must wait again, and nobody sees it.
    WouldBlock,
    /// The ring has no receive buffer left (`ENOBUFS`); on epoll the same as `WouldBlock`. `Recv` only.
    NoBuffers,
}

/// One failure: the `nth` (from 0) call of its kind since the script was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which kind of call.
    pub call: Call,
    /// Which one of them, counted over all sockets of the thread.
    pub nth: u64,
    /// What it meets.
    pub failure: Failure,
}

/// What the sockets of this thread meet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Every received chunk is cut into pieces of at most this many bytes; 0: as they come.
    pub recv_bytes_max: usize,
    /// Every write takes at most this many bytes; 0: as many as fit.
    pub send_bytes_max: usize,
    /// Each receive of a ring brings one chunk and ends, as on kernels that cannot end one after so many bytes.
    pub receives_once: bool,
    /// Single failures.
    pub steps: Vec<Step>,
}

struct Running {
    script: Script,
    calls: [u64; 4],
}

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// Installs a script for this thread; the calls are counted from here.
pub fn install(script: Script) {
    RUNNING.set(Some(Running { script, calls: [0; 4] }));
    ON.set(true);
}

/// Ends the script of this thread.
pub fn clear() {
    ON.set(false);
    RUNNING.set(None);
}

/// The verdict on one call.
pub(crate) enum Verdict {
    /// Make the real call.
    Proceed,
    /// Behave as if it was not ready.
    WouldBlock,
    /// Behave as if there was no buffer.
    NoBuffers,
    /// Fail.
    Fail(io::Error),
}

/// Counts one call and says what it meets.
pub(crate) fn meet(call: Call) -> Verdict {
    if !ON.get() { Verdict::Proceed } else { meet_scripted(call) }
}

/// How many bytes a received chunk may have.
pub(crate) fn recv_bytes_max() -> usize {
    if ON.get() { limit(|script| script.recv_bytes_max) } else { usize::MAX }
}

/// How many bytes a write may take.
pub(crate) fn send_bytes_max() -> usize {
    if ON.get() { limit(|script| script.send_bytes_max) } else { usize::MAX }
}

/// Whether each receive of a ring brings one chunk.
pub(crate) fn receives_once() -> bool {
    ON.get() && RUNNING.with_borrow(|running| running.as_ref().is_some_and(|it| it.script.receives_once))
}

#[cold]
fn limit(of: impl Fn(&Script) -> usize) -> usize {
    RUNNING.with_borrow(|running| match running.as_ref().map_or(0, |running| of(&running.script)) {
        0 => usize::MAX,
        bytes => bytes,
    })
}

#[cold]
fn meet_scripted(call: Call) -> Verdict {
    RUNNING.with_borrow_mut(|running| {
        let Some(running) = running else { return Verdict::Proceed };
        let nth = running.calls[call as usize];
        running.calls[call as usize] += 1;
        match running.script.steps.iter().find(|step| step.call == call && step.nth == nth) {
            Some(step) => step.failure.verdict(),
            None => Verdict::Proceed,
        }
    })
}

impl Failure {
    fn verdict(self) -> Verdict {
        let errno = match self {
            Failure::WouldBlock => return Verdict::WouldBlock,
            Failure::NoBuffers => return Verdict::NoBuffers,
            Failure::Refused => libc::ECONNREFUSED,
            Failure::Reset => libc::ECONNRESET,
            Failure::TimedOut => libc::ETIMEDOUT,
            Failure::TooManyFiles => libc::EMFILE,
        };
        Verdict::Fail(io::Error::from_raw_os_error(errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_call_meets_its_failure() {
        install(Script {
            steps: vec![Step { call: Call::Send, nth: 1, failure: Failure::Reset }],
            recv_bytes_max: 3,
            ..Script::default()
        });
        assert!(matches!(meet(Call::Recv), Verdict::Proceed));
        assert!(matches!(meet(Call::Send), Verdict::Proceed));
        assert!(matches!(meet(Call::Recv), Verdict::Proceed));
        assert!(matches!(meet(Call::Send), Verdict::Fail(e) if e.kind() == io::ErrorKind::ConnectionReset));
        assert!(matches!(meet(Call::Send), Verdict::Proceed));
        assert_eq!((recv_bytes_max(), send_bytes_max()), (3, usize::MAX));
        clear();
        assert_eq!(recv_bytes_max(), usize::MAX);
    }
}
