//! One simulated connection: two ends, and one half for the bytes of each direction.
//!
//! It decides how bytes are cut into packets and how long a packet flies; order within a half is kept, as TCP keeps it.
//! It holds state and never acts by itself: `net` moves it.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::task::Waker;

use super::faults::Faults;
use super::random::Random;

/// Index of the side that connected.
pub(super) const CLIENT: usize = 0;
/// Index of the side that listened.
pub(super) const SERVER: usize = 1;
/// Largest packet: as large as the segments of a loopback or of an offloading card.
const PACKET_BYTES_MAX: usize = 64 * 1024;

/// How far the connect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
    Failed(ErrorKind),
}

pub(super) struct Link {
    pub(super) phase: Phase,
    pub(super) since_ns: u64,
    pub(super) ends: [End; 2],
    /// By the side that sends.
    pub(super) halves: [Half; 2],
    latency_ns: u64,
    /// Bytes, of both directions, until the network resets the connection.
    reset_after: Option<u64>,
}

/// What one side sees and waits for.
pub(super) struct End {
    pub(super) addr: SocketAddr,
    /// Nobody holds this side: not accepted yet nor waiting for it, or closed.
    pub(super) gone: bool,
    /// A reset arrived.
    pub(super) reset: bool,
    pub(super) reset_told: bool,
    pub(super) reset_sent: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    pub(super) watcher: Option<Waker>,
}

/// Bytes on their way from one side to the other.
pub(super) struct Half {
    /// Written, and not on the wire: the sender's buffer.
    pub(super) unsent: VecDeque<u8>,
    /// Arrived, and not read: the receiver's buffer.
    pub(super) readable: VecDeque<u8>,
    pub(super) fin_wanted: bool,
    pub(super) fin_arrived: bool,
    pub(super) last_arrival_ns: u64,
    fin_launched: bool,
    flying: VecDeque<Packet>,
    flying_bytes: usize,
    unsent_max: usize,
    window_bytes: usize,
    /// Of 1,000 packets, reads and writes, how many are cut short: some connections are smooth, some are in shreds.
    cut_per_mille: u16,
    /// Bytes until this half stalls once.
    stall_after: Option<u64>,
}

/// What arrives at once.
pub(super) enum Packet {
    Data(Vec<u8>),
    Fin,
    Reset,
}

impl Packet {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Packet::Data(bytes) => bytes.len(),
            Packet::Fin | Packet::Reset => 0,
        }
    }
}

impl Link {
    pub(super) fn new(
        from: SocketAddr,
        to: SocketAddr,
        now_ns: u64,
        random: &Random,
        faults: &Faults,
    ) -> Link {
        let struck = |per_mille| random.chance(per_mille).then(|| random.length(1 << 20) as u64);
        Link {
            phase: Phase::Connecting,
            since_ns: now_ns,
            // The listening side comes into being when the connect reaches it.
            ends: [End::new(from, false), End::new(to, true)],
            halves: [Half::new(random, struck(faults.stall)), Half::new(random, struck(faults.stall))],
            latency_ns: random.between(5_000, 2_000_000),
            reset_after: struck(faults.reset),
        }
    }

    /// How long the next packet flies.
    pub(super) fn flight_ns(&self, random: &Random) -> u64 {
        self.latency_ns + random.below(self.latency_ns)
    }

    /// Counts arrived bytes; whether these are the ones that the network resets the connection at.
    pub(super) fn strikes(&mut self, bytes: u64) -> bool {
        match self.reset_after {
            Some(left) if left <= bytes => {
                self.reset_after = None;
                true
            }
            Some(left) => {
                self.reset_after = Some(left - bytes);
                false
            }
            None => false,
        }
    }
}

impl End {
    fn new(addr: SocketAddr, gone: bool) -> End {
        let (reader, writer, watcher) = (None, None, None);
        End { addr, gone, reset: false, reset_told: false, reset_sent: false, reader, writer, watcher }
    }

    /// Marks this side as gone; the wakers that it held, to be dropped where nothing is borrowed.
    pub(super) fn let_go(&mut self) -> impl Iterator<Item = Waker> + use<> {
        self.gone = true;
        [self.reader.take(), self.writer.take(), self.watcher.take()].into_iter().flatten()
    }
}

impl Half {
    fn new(random: &Random, stall_after: Option<u64>) -> Half {
        Half {
            unsent: VecDeque::new(),
            readable: VecDeque::new(),
            fin_wanted: false,
            fin_arrived: false,
            last_arrival_ns: 0,
            fin_launched: false,
            flying: VecDeque::new(),
            flying_bytes: 0,
            unsent_max: 1 << random.between(12, 17),
            window_bytes: 1 << random.between(12, 18),
            cut_per_mille: random.below(500) as u16,
            stall_after,
        }
    }

    /// How many of `bytes` go through at once: all, or any part.
    pub(super) fn cut(&self, bytes: usize, random: &Random) -> usize {
        if random.chance(self.cut_per_mille) { random.length(bytes).min(bytes) } else { bytes }
    }

    /// Free bytes of the sender's buffer.
    pub(super) fn room(&self) -> usize {
        self.unsent_max.saturating_sub(self.unsent.len())
    }

    /// The next packet that may leave: as much as the receiver has room for, cut anywhere.
    pub(super) fn next_packet(&mut self, random: &Random) -> Option<Packet> {
        let window = self.window_bytes.saturating_sub(self.readable.len() + self.flying_bytes);
        let bytes = self.unsent.len().min(window).min(PACKET_BYTES_MAX);
        if bytes > 0 {
            let bytes = self.cut(bytes, random);
            let mut data = Vec::with_capacity(bytes);
            take_front(&mut self.unsent, bytes, &mut data);
            return Some(Packet::Data(data));
        }
        if self.unsent.is_empty() && self.fin_wanted && !self.fin_launched {
            self.fin_launched = true;
            return Some(Packet::Fin);
        }
        None
    }

    /// Sends `packet` off; when it arrives, which is never before the one ahead of it.
    pub(super) fn launch(
        &mut self,
        packet: Packet,
        now_ns: u64,
        flight_ns: u64,
        random: &Random,
        faults: &Faults,
    ) -> u64 {
        let stall_ns = self.stall_ns(packet.bytes() as u64, random, faults);
        self.flying_bytes += packet.bytes();
        self.flying.push_back(packet);
        self.last_arrival_ns = (now_ns + flight_ns + stall_ns).max(self.last_arrival_ns);
        self.last_arrival_ns
    }

    fn stall_ns(&mut self, bytes: u64, random: &Random, faults: &Faults) -> u64 {
        match self.stall_after {
            Some(left) if left <= bytes => {
                self.stall_after = None;
                if faults.stall > 0 { random.below(faults.stall_max_ns) } else { 0 }
            }
            Some(left) => {
                self.stall_after = Some(left - bytes);
                0
            }
            None => 0,
        }
    }

    /// The packet that flew longest has arrived.
    pub(super) fn land(&mut self) -> Option<Packet> {
        let packet = self.flying.pop_front()?;
        self.flying_bytes -= packet.bytes();
        Some(packet)
    }
}

/// Moves the first `bytes` bytes of `from` to the end of `to`, by slices: an iterator over single bytes is what a debug
/// build spends most of a simulation in.
pub(super) fn take_front(from: &mut VecDeque<u8>, bytes: usize, to: &mut Vec<u8>) {
    let (first, second) = from.as_slices();
    let of_first = bytes.min(first.len());
    to.extend_from_slice(&first[..of_first]);
    to.extend_from_slice(&second[..bytes - of_first]);
    from.drain(..bytes);
}
