//! Where messages end: a text format for vectors of bytes, and what the product's own readers make of such bytes.
//!
//! The vectors are in `tests/framing`, the outside ones where `TIDEGATE_CORPORA` says. Nothing here opens a socket.

pub mod call;
pub mod corpora;
pub mod front;
pub mod llhttp;
pub mod mutation;
pub mod random;
pub mod reading;
pub mod vector;

pub use random::Random;
pub use reading::{End, Message, Reading, read_replies, read_requests};
pub use vector::{Vector, vectors};
