//! The side towards the providers: connections kept and made, one request written, one reply head read. Judges
//! nothing: what a reply means is `tidegate_providers`, where to go next is `tidegate_core::attempt`.

mod connect;
mod pool;
mod reply;
mod tunnel;
mod upload;

pub(crate) use connect::checkout;
pub(crate) use pool::Pools;
pub(crate) use reply::{Data, Reply, ReplyFailure, begin_reply, request_reply};
pub(crate) use upload::{Upload, UploadCheck, Uploaded, pass_on};

use tidegate_ring::Conn;

use crate::inbound::Source;

/// A connection to an origin, with what was received on it and not consumed.
pub(crate) struct Upstream {
    pub(crate) conn: Conn,
    pub(crate) source: Source,
    /// It carried a call before: the origin may have closed it while this request was under way.
    pub(crate) reused: bool,
}
