//! Where the numbers of a choice come from: an even sequence for calls that belong nowhere, a hash for those that
//! do. Both are functions of their input alone; no clock, no source of randomness.

/// 2⁶⁴ divided by the golden ratio, made odd: the step whose multiples fill the circle most evenly.
const GOLDEN_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A worker's sequence of draws. Successive values fill the unit interval evenly, so a weight of 0.005 gets its
/// share within hundreds of draws, where random numbers would need hundreds of thousands.
#[derive(Debug)]
pub struct Draw(u64);

impl Draw {
    /// A sequence that begins at a place of its own; workers take different seeds.
    pub fn new(seed: u64) -> Draw {
        Draw(mixed(seed))
    }

    /// The next value, above 0 and below 1.
    pub(super) fn next_unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(GOLDEN_STEP);
        unit(self.0)
    }
}

/// What a call's account is kept by: a digest of its session, else of its cached prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity(pub u64);

impl Affinity {
    /// The affinity of a session's id or of a prefix. The same on every worker, host and version.
    pub fn of(text: &[u8]) -> Affinity {
        Affinity(name_digest(text))
    }
}

/// Rendezvous rank: over many affinities the highest one falls to each name in proportion to its weight, and a
/// name that comes or goes moves only the affinities it wins or loses.
pub(super) fn rank(affinity: Affinity, name: &str, weight: f64) -> f64 {
    weight / -unit(mixed(affinity.0 ^ name_digest(name.as_bytes()))).ln()
}

/// FNV-1a with a finaliser, written out so that hosts of different versions agree.
fn name_digest(text: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    mixed(text.iter().fold(0xCBF2_9CE4_8422_2325, step))
}

/// The finaliser of SplitMix64: every bit of the input reaches every bit of the result.
fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// Above 0 and below 1; 52 bits, so that the half step stays exact.
fn unit(bits: u64) -> f64 {
    ((bits >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}
