//! What a simulation shows of its wire: every connect, every byte as it is written, every end, in order. For whoever
//! asserts something about code under simulation from the outside; it changes nothing, and is off unless asked for.

use std::net::SocketAddr;

/// One thing that happened on the simulated network, at the moment a worker did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireEvent {
    /// Somebody began to connect.
    Connect {
        /// Names the connection from here on.
        link: u64,
        /// The address of the side that connects.
        from: SocketAddr,
        /// The address connected to.
        to: SocketAddr,
    },
    /// A side handed bytes to its socket.
    Write {
        /// The connection.
        link: u64,
        /// The side that connected wrote, not the one that listened.
        by_client: bool,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Bytes reached the socket of the other side, which may read them from now on.
    Arrive {
        /// The connection.
        link: u64,
        /// The side that connected had written them.
        by_client: bool,
        /// How many.
        bytes: usize,
    },
    /// A side let go of the connection; the last event of that side.
    Close {
        /// The connection.
        link: u64,
        /// The side that connected closed.
        by_client: bool,
    },
    /// The network itself broke the connection, for both sides: a fault struck.
    Broken {
        /// The connection.
        link: u64,
    },
}
