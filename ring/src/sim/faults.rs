//! What may go wrong in the simulated world, as probabilities. It decides nothing: the network and the scheduler draw.

/// Probabilities of faults, each of 1,000 cases. Set at any time: a fault that is switched off does not strike any
/// more,
/// not even where it had been drawn before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Of 1,000 connects, how many are refused though somebody listens.
    pub connect_refused: u16,
    /// Of 1,000 connects, how many are never answered (they time out after 127 s, as on Linux).
    pub connect_stall: u16,
    /// Of 1,000 connections, how many are reset, for both sides, after a random number of bytes (1 B to 1 MiB).
    pub reset: u16,
    /// Of 1,000 connections, how many deliver nothing for a while, in one direction, after a random number of bytes.
    pub stall: u16,
    /// The longest such while, in nanoseconds.
    pub stall_max_ns: u64,
    /// Of 1,000 accepts, how many fail for want of a descriptor (EMFILE); the connection keeps waiting.
    pub accept_error: u16,
    /// After how many of 1,000 polls the worker stands still, as one that lost its core does.
    pub pause: u16,
    /// The longest such pause, in nanoseconds.
    pub pause_max_ns: u64,
}

impl Faults {
    /// Nothing goes wrong; latency, cuts and order stay random.
    pub const NONE: Faults = Faults {
        connect_refused: 0,
        connect_stall: 0,
        reset: 0,
        stall: 0,
        stall_max_ns: 0,
        accept_error: 0,
        pause: 0,
        pause_max_ns: 0,
    };

    /// Everything goes wrong now and then: what a bad day looks like.
    pub const HARSH: Faults = Faults {
        connect_refused: 20,
        connect_stall: 5,
        reset: 100,
        stall: 50,
        stall_max_ns: 300_000_000_000,
        accept_error: 20,
        pause: 2,
        pause_max_ns: 50_000_000,
    };
}
