//! Whether this host offers all of io_uring that the driver needs. It tries the real thing on a ring that is thrown
//! away,
//! and names what is missing. It never guesses from a kernel version: distributions and container profiles differ.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::op::{Key, Kind, Op, Reach, Token};
use super::sys::{Buffers, Ring};
use crate::options::RingOptions;

/// What the probe was at when it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeStage {
    /// Making a ring: the system call itself, and the set-up flags (Linux 6.1).
    Setup,
    /// Features of the ring.
    Features,
    /// Operations.
    Operations,
    /// A ring of provided buffers (Linux 5.19).
    Buffers,
    /// A receive into those buffers.
    Receive,
}

/// Why io_uring cannot be used on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRefusal {
    stage: ProbeStage,
    errno: Option<i32>,
    detail: String,
}

impl ProbeRefusal {
    /// What it was at.
    pub fn stage(&self) -> ProbeStage {
        self.stage
    }

    /// What the kernel said, where it was the kernel.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }

    fn missing(stage: ProbeStage, what: &str, names: &[&str]) -> ProbeRefusal {
        ProbeRefusal {
            stage,
            errno: None,
            detail: format!("this kernel's io_uring lacks {what} {}", names.join(", ")),
        }
    }

    fn refused(stage: ProbeStage, what: &str, error: &io::Error) -> ProbeRefusal {
        let errno = error.raw_os_error();
        let why = match (stage, errno) {
            (ProbeStage::Setup, Some(libc::ENOSYS)) => "; this kernel has no io_uring",
            (_, Some(libc::EPERM | libc::EACCES)) => {
                "; a seccomp profile or the setting kernel.io_uring_disabled forbids it"
            }
            (ProbeStage::Setup, Some(libc::EINVAL)) => "; it needs Linux 6.1 or later",
            _ => "",
        };
        ProbeRefusal { stage, errno, detail: format!("{what} is refused: {error}{why}") }
    }
}

impl fmt::Display for ProbeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for ProbeRefusal {}

/// Tries everything that the driver uses.
pub(crate) fn probe() -> Result<(), ProbeRefusal> {
    use ProbeStage as Stage;
    let refused =
        |stage, what: &'static str| move |error: io::Error| ProbeRefusal::refused(stage, what, &error);
    let buffers = Buffers::new(4, 64).map_err(refused(Stage::Buffers, "memory for receive buffers"))?;
    let mut ring = Ring::new(8, buffers).map_err(refused(Stage::Setup, "io_uring_setup"))?;
    let features = ring.missing_features();
    if !features.is_empty() {
        return Err(ProbeRefusal::missing(Stage::Features, "the features", &features));
    }
    let operations =
        ring.missing_operations().map_err(refused(Stage::Operations, "the list of operations"))?;
    if !operations.is_empty() {
        return Err(ProbeRefusal::missing(Stage::Operations, "the operations", &operations));
    }
    ring.register_buffers().map_err(refused(Stage::Buffers, "a ring of provided buffers"))?;
    try_receive(&mut ring).map_err(refused(Stage::Receive, "a receive into provided buffers"))
}

/// One byte through a receive as every kernel knows it.
fn try_receive(ring: &mut Ring) -> io::Result<()> {
    receive(ring, Reach::Once).map(drop)
}

/// How far receives of this ring may go: as many bytes as a connection's credit, where the kernel can end a receive
/// after so many, else one chunk. The ring must be new; it is as new afterwards.
pub(super) fn reach(ring: &mut Ring, options: &RingOptions) -> io::Result<Reach> {
    let credit_bytes = options.recv_buffer_bytes.saturating_mul(usize::from(options.lent_chunks_max));
    match receive(ring, Reach::Bytes(1)) {
        Ok(true) => Ok(Reach::Bytes(u32::try_from(credit_bytes).unwrap_or(u32::MAX))),
        Ok(false) => Ok(Reach::Once),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Reach::Once),
        Err(error) => Err(error),
    }
}

/// One byte through a receive of a new ring; whether it ended with it. One that went on ends with its sender.
fn receive(ring: &mut Ring, reach: Reach) -> io::Result<bool> {
    let (receiver, mut sender) = UnixStream::pair()?;
    sender.write_all(b"?")?;
    let token = Token::new(Kind::Recv, Key { index: 0, generation: 0 });
    let pushed = ring.push(Op::Recv { fd: receiver.as_raw_fd(), reach, token });
    if pushed.is_err() {
        return Err(io::Error::other("no room in a new ring"));
    }
    let mut outcome = Err(io::ErrorKind::TimedOut.into());
    ring.enter_within(900)?;
    ring.reap(|completion| {
        outcome = match (completion.result, completion.buffer) {
            (1, Some(buffer)) if *buffer == *b"?" => Ok(!completion.more),
            (result, _) if result < 0 => Err(io::Error::from_raw_os_error(-result)),
            _ => Err(io::Error::other("it did not deliver what was sent")),
        };
    });
    outcome
}
