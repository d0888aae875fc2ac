//! The unsafe part, all of it: the ring, its memory, and the buffers that the kernel fills. It decides nothing; it
//! turns
//! an [`Op`] into a submission and a completion into an owned value.
//!
//! Two promises carry everything. A buffer is in exactly one place: with the kernel, or in one [`RBuf`]. And memory
//! that
//! a submission points to lives until the kernel has copied it, which it does while it takes the submission
//! (`IORING_FEAT_SUBMIT_STABLE`, asked for by the probe).

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use socket2::SockAddr;

use super::op::{Completion, Kind, Op, Reach, Token};

/// The only buffer group.
const GROUP: u16 = 0;
const PAGE_BYTES: usize = 4096;
const ENTRY_BYTES: usize = std::mem::size_of::<BufRingEntry>();

/// One ring. Dropped, it is closed before the memory that it points into.
pub(super) struct Ring {
    ring: IoUring,
    buffers: Rc<Buffers>,
    /// Where the timeout's submission points.
    wait: Box<Timespec>,
    /// Where connects' submissions point, until those are taken.
    #[expect(
        clippy::vec_box,
        reason = "the kernel has their addresses; a growing vector must not move them"
    )]
    addresses: Vec<Box<SockAddr>>,
}

impl Ring {
    /// A ring with the flags that the driver counts on, without buffers yet in the kernel's hands.
    pub(super) fn new(entries: u32, buffers: Rc<Buffers>) -> io::Result<Ring> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_clamp()
            // A turn takes all completions there are, and multishots post many a turn.
            .setup_cqsize(entries.saturating_mul(4))
            .setup_submit_all()
            // Completions are made on this thread, when it asks for them, and never interrupt it.
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            // The kernel says when there is deferred work, so that a turn without any costs no call.
            .setup_taskrun_flag()
            .build(entries)?;
        let wait = Box::new(Timespec::new());
        Ok(Ring { ring, buffers, wait, addresses: Vec::new() })
    }

    /// Features that the driver counts on and this kernel lacks.
    pub(super) fn missing_features(&self) -> Vec<&'static str> {
        let params = self.ring.params();
        let all = [
            ("NODROP", params.is_feature_nodrop()),
            ("SUBMIT_STABLE", params.is_feature_submit_stable()),
            ("FAST_POLL", params.is_feature_fast_poll()),
            ("EXT_ARG", params.is_feature_ext_arg()),
        ];
        all.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
    }

    /// Operations that the driver counts on and this kernel lacks.
    pub(super) fn missing_operations(&self) -> io::Result<Vec<&'static str>> {
        let mut probe = Probe::new();
        self.ring.submitter().register_probe(&mut probe)?;
        let all = [
            ("ACCEPT", opcode::AcceptMulti::CODE),
            ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
            ("CONNECT", opcode::Connect::CODE),
            ("POLL_ADD", opcode::PollAdd::CODE),
            ("RECV", opcode::RecvMulti::CODE),
            ("TIMEOUT", opcode::Timeout::CODE),
            ("TIMEOUT_REMOVE", opcode::TimeoutUpdate::CODE),
        ];
        Ok(all.into_iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| name).collect())
    }

    /// Hands all buffers to the kernel.
    pub(super) fn register_buffers(&mut self) -> io::Result<()> {
        let address = self.buffers.base.as_ptr() as u64;
        // SAFETY: the entries lie at the page-aligned start of a mapping that holds `count` of them; `self.buffers`
        // keeps it
        // until after `self.ring`, which stands before it, is closed.
        unsafe {
            self.ring.submitter().register_buf_ring_with_flags(address, self.buffers.count, GROUP, 0)?;
        }
        for id in 0..self.buffers.count {
            self.buffers.give_to_kernel(id);
        }
        Ok(())
    }

    /// Queues a submission; gives the operation back if there is no room even after a submit.
    pub(super) fn push(&mut self, op: Op) -> Result<(), Op> {
        if self.ring.submission().is_full() {
            // A failure shows as a queue that is still full.
            let _ = self.ring.submit();
            self.forget_taken();
            if self.ring.submission().is_full() {
                return Err(op);
            }
        }
        let entry = self.entry(op);
        // SAFETY: the entry points at nothing, or into `self.wait` and `self.addresses`, whose boxes stay until the
        // kernel has taken the entry. Buffers are the kernel's own, by group. A descriptor that is wrong would fail the
        // operation, and touch no memory.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        debug_assert!(pushed.is_ok(), "there was room");
        Ok(())
    }

    /// Submits what is queued. With `block` it waits for a completion; without, it makes a call only if there is
    /// something to submit or deferred work to run.
    pub(super) fn enter(&mut self, block: bool) -> io::Result<()> {
        let queue = self.ring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if idle && !block {
            return Ok(());
        }
        let entered = self.ring.submit_and_wait(usize::from(block));
        self.forget_taken();
        passing(entered)
    }

    /// `enter` that waits for a completion at most so long.
    pub(super) fn enter_within(&mut self, wait_ms: u32) -> io::Result<()> {
        let wait = Timespec::new().nsec(wait_ms.min(999) * 1_000_000);
        let entered = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&wait));
        self.forget_taken();
        passing(entered)
    }

    /// Takes every completion there is.
    pub(super) fn reap(&mut self, mut take: impl FnMut(Completion<RBuf>)) {
        for entry in self.ring.completion() {
            let token = Token::from_raw(entry.user_data());
            let result = entry.result();
            let bytes = u32::try_from(result).unwrap_or(0);
            let buffer = cqueue::buffer_select(entry.flags()).map(|id| self.buffers.lend(id, bytes));
            let socket = (token.kind() == Some(Kind::Accept) && result >= 0).then(|| {
                // SAFETY: a successful accept makes a new descriptor, and this completion is the only one to name it.
                unsafe { OwnedFd::from_raw_fd(result) }
            });
            take(Completion { token, result, more: cqueue::more(entry.flags()), buffer, socket });
        }
    }

    fn forget_taken(&mut self) {
        if !self.addresses.is_empty() && self.ring.submission().is_empty() {
            self.addresses.clear();
        }
    }

    fn entry(&mut self, op: Op) -> squeue::Entry {
        match op {
            Op::Recv { fd, reach: Reach::Bytes(bytes), token } => {
                let mut entry = opcode::RecvMulti::new(Fd(fd), GROUP).build().user_data(token.raw());
                end_after(&mut entry, bytes);
                entry
            }
            Op::Recv { fd, reach: Reach::Once, token } => opcode::Recv::new(Fd(fd), std::ptr::null_mut(), 0)
                .buf_group(GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
                .user_data(token.raw()),
            Op::PollWritable { fd, token } => {
                opcode::PollAdd::new(Fd(fd), libc::POLLOUT as u32).build().user_data(token.raw())
            }
            Op::PollHangUp { fd, token } => {
                opcode::PollAdd::new(Fd(fd), libc::POLLRDHUP as u32).build().user_data(token.raw())
            }
            Op::Connect { fd, addr, token } => {
                let entry = opcode::Connect::new(Fd(fd), addr.as_ptr().cast(), addr.len());
                self.addresses.push(addr);
                entry.build().user_data(token.raw())
            }
            Op::Accept { fd, token } => {
                opcode::AcceptMulti::new(Fd(fd)).flags(libc::SOCK_CLOEXEC).build().user_data(token.raw())
            }
            Op::Cancel { target, token } => {
                opcode::AsyncCancel::new(target.raw()).build().user_data(token.raw())
            }
            Op::CancelAll => opcode::AsyncCancel2::new(CancelBuilder::any())
                .build()
                .user_data(Token::of_ring(Kind::CancelAll).raw()),
            Op::Timeout { wait_ns } => {
                *self.wait = timespec(wait_ns);
                let timeout = opcode::Timeout::new(&raw const *self.wait).count(0);
                timeout.build().user_data(Token::of_ring(Kind::Timeout).raw())
            }
            Op::Retime { wait_ns } => {
                *self.wait = timespec(wait_ns);
                let target = Token::of_ring(Kind::Timeout).raw();
                opcode::TimeoutUpdate::new(target, &raw const *self.wait)
                    .flags(TimeoutFlags::empty())
                    .build()
                    .user_data(Token::of_ring(Kind::Retime).raw())
            }
            Op::PollBell { fd } => opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32)
                .build()
                .user_data(Token::of_ring(Kind::Bell).raw()),
        }
    }
}

/// Where a submission says after how many bytes a multishot receive ends (`optlen` of `struct io_uring_sqe`). The
/// `io-uring` crate has no name for it yet.
const ENTRY_LIMIT_OFFSET: usize = 44;
const _: () = assert!(std::mem::size_of::<squeue::Entry>() == 64);

fn end_after(entry: &mut squeue::Entry, bytes: u32) {
    // SAFETY: an entry is the kernel's `struct io_uring_sqe` and nothing else (`repr(C)`, 64 bytes, asserted above),
    // whose layout never changes; the four bytes written lie within it, are aligned, and any value is valid there.
    unsafe { std::ptr::from_mut(entry).cast::<u8>().add(ENTRY_LIMIT_OFFSET).cast::<u32>().write(bytes) }
}

fn timespec(wait_ns: u64) -> Timespec {
    Timespec::new().sec(wait_ns / 1_000_000_000).nsec((wait_ns % 1_000_000_000) as u32)
}

/// What an enter may answer without the ring being broken: a signal came, the time is over, or the kernel wants its
/// completions taken (EBUSY) or has no memory this moment (EAGAIN).
fn passing(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

/// The receive buffers of one worker and the ring of entries by which the kernel gets them.
pub(super) struct Buffers {
    /// Start of the mapping: `count` entries, then from the next page on `count` buffers.
    base: NonNull<u8>,
    mapped_bytes: usize,
    count: u16,
    buffer_bytes: usize,
    /// Entries written since the start; the kernel's own copy is behind the first entry.
    tail: Cell<u16>,
    /// Buffers that are out in an `RBuf`.
    lent: Cell<usize>,
}

impl Buffers {
    /// Maps memory for `count` (a power of two) buffers. Pages that are never used are never backed.
    pub(super) fn new(count: u16, buffer_bytes: usize) -> io::Result<Rc<Buffers>> {
        let mapped_bytes = data_offset(count) + usize::from(count) * buffer_bytes;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new private mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), mapped_bytes, protection, flags, -1, 0) };
        let base = NonNull::new(base.cast::<u8>()).filter(|_| base != libc::MAP_FAILED);
        let base = base.ok_or_else(io::Error::last_os_error)?;
        let (tail, lent) = (Cell::new(0), Cell::new(0));
        Ok(Rc::new(Buffers { base, mapped_bytes, count, buffer_bytes, tail, lent }))
    }

    /// How many buffers are out.
    pub(super) fn lent(&self) -> usize {
        self.lent.get()
    }

    /// How many buffers are not lent.
    pub(super) fn free(&self) -> usize {
        usize::from(self.count) - self.lent.get()
    }

    fn lend(self: &Rc<Buffers>, id: u16, bytes: u32) -> RBuf {
        assert!(
            id < self.count && bytes as usize <= self.buffer_bytes,
            "the kernel names buffers it was given"
        );
        self.lent.set(self.lent.get() + 1);
        RBuf { buffers: Rc::clone(self), id, bytes }
    }

    fn address(&self, id: u16) -> *mut u8 {
        // SAFETY: `id < count`, so the buffer lies within the mapping.
        unsafe { self.base.as_ptr().add(data_offset(self.count) + usize::from(id) * self.buffer_bytes) }
    }

    fn give_to_kernel(&self, id: u16) {
        let entries = self.base.as_ptr().cast::<BufRingEntry>();
        let tail = self.tail.get();
        let place = usize::from(tail & (self.count - 1));
        // SAFETY: `place < count` entries at the mapping's page-aligned start, zeroed when mapped. The kernel reads
        // only
        // entries before the tail, and at most `count` buffers exist, so this one is ours. The tail shares the
        // memory of
        // the first entry's reserved field, which no setter touches; it is naturally aligned and read by the kernel
        // with
        // acquire, after the entry was written.
        unsafe {
            let entry = &mut *entries.add(place);
            entry.set_addr(self.address(id) as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(id);
            let shared = BufRingEntry::tail(entries).cast_mut();
            AtomicU16::from_ptr(shared).store(tail.wrapping_add(1), Ordering::Release);
        }
        self.tail.set(tail.wrapping_add(1));
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length; every `RBuf` and the `Ring` hold an `Rc` of it,
        // so nothing
        // points into it any more.
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), self.mapped_bytes);
        }
    }
}

fn data_offset(count: u16) -> usize {
    (usize::from(count) * ENTRY_BYTES).next_multiple_of(PAGE_BYTES)
}

/// A buffer that the kernel has filled and handed over. Dropped, it goes back. It stays valid after its ring is gone.
pub(crate) struct RBuf {
    buffers: Rc<Buffers>,
    id: u16,
    bytes: u32,
}

impl Deref for RBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `lend` checked id and length against the mapping, which `self.buffers` keeps. A completion named the
        // buffer, so the kernel writes to it no more until `drop` gives it back, and no other `RBuf` has it.
        unsafe { std::slice::from_raw_parts(self.buffers.address(self.id), self.bytes as usize) }
    }
}

impl Drop for RBuf {
    fn drop(&mut self) {
        self.buffers.lent.set(self.buffers.lent.get() - 1);
        self.buffers.give_to_kernel(self.id);
    }
}

/// A counter that can be written from any thread and watched by a ring.
pub(super) fn eventfd() -> io::Result<File> {
    // SAFETY: the call takes no pointer, and a descriptor it returns is new and nobody else's.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd)) }
    }
}
