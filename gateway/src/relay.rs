//! The side towards the caller once an upstream answered: events moved one by one, whole replies held until they
//! are complete, and the two commit points of ARCHITECTURE.md in between.

mod line;
mod stream;
mod tap;
mod whole;

pub(crate) use line::{Committed, Interrupted, Line, Sent};
pub(crate) use stream::{StreamEnd, relay_stream};
pub(crate) use tap::Tap;
pub(crate) use whole::{Collected, Rest, collect, send_whole};
