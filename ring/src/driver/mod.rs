//! The arms of the facade that talk to the kernel. Both offer the same calls; `crate::conn` and `crate::listener`
//! choose
//! between them, and nothing above knows which one it got.

pub(crate) mod epoll;
pub(crate) mod uring;
