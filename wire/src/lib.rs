//! Bytes to messages and back: HTTP/1.1 heads and bodies, event streams, and the one-pass reading of JSON bodies.
//!
//! Everything here is incremental and bounded: bytes in, values out. Limits come in as arguments; nothing here
//! reads a clock, touches a socket, or knows a vendor. What comes from the network ends in a typed refusal and
//! never in a panic. Nothing is repaired: a message that two readers could understand differently is refused.

#![forbid(unsafe_code)]

pub mod body;
pub mod follow;
pub mod form;
pub mod forwarded;
pub mod head;
pub mod json;
pub mod passing;
pub mod proxy;
mod scan;
pub mod skim;
pub mod splice;
pub mod sse;
