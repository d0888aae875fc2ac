//! Why no account could take a call, kept so that the answer tells the truth and names the soonest time.

use super::Standing;
use crate::moment::Moment;
use crate::quota::Closed;

/// Why nobody can take a call now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoChoice {
    /// When the first quota opens; [`Moment::NEVER`] where none is closed.
    pub soonest: Moment,
    /// A quota rests, waits for its probe or ramps up.
    pub any_resting: bool,
    /// A quota has no room for the call.
    pub any_without_room: bool,
    /// An account is out of money.
    pub any_spent: bool,
    /// An account has only suspect keys, or none that may be used.
    pub any_suspect: bool,
    /// An account's keys may not be used for this model.
    pub any_pair_resting: bool,
    /// An account was tried by this call before.
    pub any_tried: bool,
}

impl NoChoice {
    /// Nothing known against anybody.
    pub const NOTHING: NoChoice = NoChoice {
        soonest: Moment::NEVER,
        any_resting: false,
        any_without_room: false,
        any_spent: false,
        any_suspect: false,
        any_pair_resting: false,
        any_tried: false,
    };

    /// Waiting helps: a quota is closed for a time.
    pub fn any_closed(&self) -> bool {
        self.any_resting || self.any_without_room
    }

    /// Every account is out of money.
    pub fn all_spent(&self) -> bool {
        self.any_spent && !(self.any_closed() || self.any_suspect || self.any_pair_resting || self.any_tried)
    }

    /// No account has a usable key.
    pub fn all_suspect(&self) -> bool {
        self.any_suspect && !(self.any_closed() || self.any_spent || self.any_pair_resting || self.any_tried)
    }

    /// Both, for a call that looked at several targets.
    pub fn merge(&mut self, other: &NoChoice) {
        self.soonest = self.soonest.min(other.soonest);
        self.any_resting |= other.any_resting;
        self.any_without_room |= other.any_without_room;
        self.any_spent |= other.any_spent;
        self.any_suspect |= other.any_suspect;
        self.any_pair_resting |= other.any_pair_resting;
        self.any_tried |= other.any_tried;
    }

    /// Takes note of a closed quota.
    pub fn note_closed(&mut self, until: Moment, why: Closed) {
        self.soonest = self.soonest.min(until);
        match why {
            Closed::NoRoom => self.any_without_room = true,
            Closed::Resting | Closed::Probing | Closed::Ramping => self.any_resting = true,
        }
    }

    pub(super) fn note(&mut self, standing: &Standing) {
        match *standing {
            Standing::Open { .. } => {}
            Standing::Closed { until, why } => self.note_closed(until, why),
            Standing::Tried { closed } => {
                self.any_tried = true;
                if let Some((until, why)) = closed {
                    self.note_closed(until, why);
                }
            }
            Standing::Spent => self.any_spent = true,
            Standing::Suspect => self.any_suspect = true,
            Standing::PairResting => self.any_pair_resting = true,
        }
    }
}
