//! What the black-box tests stand on: a gateway in this process, an upstream that does what a test says, and a client
//! that sends exactly the bytes it is given. Real sockets, the real clock; nothing here knows how the gateway works.
//!
//! The tests themselves are in `tests/`, one file a theme. Each runs on both drivers: [`both_drivers!`].

#![forbid(unsafe_code)]

pub mod cage;
pub mod canary;
pub mod client;
pub mod framing;
pub mod gateway;
pub mod messages;
pub mod neighbours;
pub mod openai;
pub mod page;
pub mod process;
pub mod program;
pub mod provider;
pub mod proxy;
pub mod rig;
pub mod say;
pub mod sdk;
pub mod shell;
pub mod store;
pub mod time;
pub mod tls;
pub mod upstream;

pub use client::{Client, Reply};
pub use gateway::{Gateway, Setup};
pub use program::Running;
pub use say::say;
pub use tidegate_gateway::IoChoice;
pub use upstream::{Heard, Step, Upstream};

/// Makes two tests of each function, one a driver, in a module of the function's name.
///
/// A host without io_uring fails the first of the two: a run that left one driver out would say nothing about it.
#[macro_export]
macro_rules! both_drivers {
    ($($(#[$meta:meta])* fn $name:ident($driver:ident) $body:block)*) => {
        $(
            $(#[$meta])*
            mod $name {
                #[allow(unused_imports, reason = "a short test needs less than its file")]
                use super::*;

                fn run($driver: $crate::IoChoice) $body

                #[test]
                fn io_uring() {
                    run($crate::IoChoice::IoUring);
                }

                #[test]
                fn epoll() {
                    run($crate::IoChoice::Epoll);
                }
            }
        )*
    };
}
