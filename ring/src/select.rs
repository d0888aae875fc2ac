//! Which driver runs: what the configuration asks for against what the host allows. It is decided once, at start,
//! and the
//! reason is kept for people.

use std::fmt;
use std::str::FromStr;

use crate::driver::uring;
pub use crate::driver::uring::{ProbeRefusal, ProbeStage};

/// The configuration's `io:`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// `auto`: io_uring where the host has all of it, else epoll.
    #[default]
    Auto,
    /// `io_uring`, or refuse to start.
    IoUring,
    /// `epoll`.
    Epoll,
}

impl FromStr for IoChoice {
    type Err = ();

    fn from_str(text: &str) -> Result<IoChoice, ()> {
        match text {
            "auto" => Ok(IoChoice::Auto),
            "io_uring" => Ok(IoChoice::IoUring),
            "epoll" => Ok(IoChoice::Epoll),
            _ => Err(()),
        }
    }
}

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Driver {
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll,
    /// The simulated arm.
    #[cfg(feature = "sim")]
    Sim,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
            #[cfg(feature = "sim")]
            Driver::Sim => "sim",
        })
    }
}

/// The driver, and why it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// What runs.
    pub driver: Driver,
    /// One sentence for the log, `/readyz` and the metric.
    pub reason: String,
}

/// Decides which driver runs. `auto` tries the real thing on a ring that is thrown away.
///
/// # Errors
/// Only if io_uring is demanded and the host does not offer all of it.
pub fn select(choice: IoChoice) -> Result<Selection, ProbeRefusal> {
    match choice {
        IoChoice::Epoll => Ok(Selection { driver: Driver::Epoll, reason: "epoll, as configured".to_owned() }),
        IoChoice::IoUring => uring::probe().map(|()| Selection {
            driver: Driver::IoUring,
            reason: "io_uring, as configured; the host offers all that is needed".to_owned(),
        }),
        IoChoice::Auto => Ok(match uring::probe() {
            Ok(()) => Selection {
                driver: Driver::IoUring,
                reason: "io_uring: the host offers all that is needed".to_owned(),
            },
            Err(refusal) => Selection { driver: Driver::Epoll, reason: format!("epoll, because {refusal}") },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_taken_without_a_look_when_configured() {
        let selection = select(IoChoice::Epoll);
        assert_eq!(selection.map(|s| s.driver.to_string()).ok().as_deref(), Some("epoll"));
    }

    #[test]
    fn configuration_words() {
        assert_eq!("auto".parse(), Ok(IoChoice::Auto));
        assert_eq!("io_uring".parse(), Ok(IoChoice::IoUring));
        assert_eq!("epoll".parse(), Ok(IoChoice::Epoll));
        assert_eq!("uring".parse::<IoChoice>(), Err(()));
    }
}
