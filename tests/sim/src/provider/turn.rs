//! How one attempt is answered: drawn from the seed at the place of the attempt.

use crate::chance::Chance;
use crate::provider::Asked;
use crate::script::{MS_NS, SECOND_NS, Script};
use crate::trouble::Trouble;

/// What an answer says at its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// 200.
    Good,
    /// 429; the seconds that it names.
    Limited(Option<u64>),
    /// 429 of the ramp.
    Ramp,
    /// 402.
    Spent,
    /// 529, or an overloaded 503; the seconds that it names.
    Overload(u16, Option<u64>),
    /// A failure with this status.
    Failure(u16),
    /// 401.
    KeyRefused,
    /// 403.
    ModelRefused,
    /// 404 about the model.
    ModelMissing,
    /// 400.
    CallerFault,
    /// 302.
    Redirect,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// In chunks.
    Chunked,
    /// By a length; streams never have one.
    Length,
    /// The connection ends with it.
    UntilClose,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Turn {
    /// What its head says.
    pub base: Base,
    /// An error event stands in front of this piece.
    pub error_at: Option<usize>,
    /// The provider's own end is left out.
    pub is_unterminated: bool,
    /// Usage is stated.
    pub states_usage: bool,
    /// It ends after so many bytes.
    pub cut_after: Option<usize>,
    /// By a reset.
    pub cut_hard: bool,
    /// It stands still after so many bytes.
    pub stall_after: Option<usize>,
    /// For so long.
    pub stall_ns: u64,
    /// It is no HTTP.
    pub garbage: bool,
    /// Bytes follow that nobody asked for.
    pub surplus: bool,
    /// Bytes of text that stand in it for nothing.
    pub filler_bytes: usize,
    /// Before its head.
    pub think_ns: u64,
    /// Between its events.
    pub gap_ns: u64,
    /// Pieces of content.
    pub pieces: usize,
    /// How its end is told.
    pub framing: Framing,
    /// The connection ends afterwards, unannounced.
    pub hangup: bool,
    /// What it counts as output.
    pub output_tokens: u64,
}

impl Turn {
    /// The answer to the `number`th attempt of a call.
    pub fn draw(script: &Script, asked: &Asked, number: u64, is_calm: bool) -> Turn {
        let mut chance = Chance::at(script.seed, &[7, asked.call as u64, number]);
        let mut turn = Turn::good(&mut chance);
        let troubles = script.troubles;
        let meets_trouble = !is_calm && chance.per_mille(script.rate);
        let kinds: Vec<Trouble> = troubles.iter().filter(|it| is_of_provider(*it)).collect();
        if meets_trouble && !kinds.is_empty() {
            let first = chance.one_of(&kinds);
            turn.meet(first, &mut chance);
            // Now and then two at once.
            if chance.per_mille(200) {
                let second = chance.one_of(&kinds);
                turn.meet(second, &mut chance);
            }
        }
        if turn.framing == Framing::UntilClose && !asked.streamed {
            // Nobody could tell it from a complete one.
            turn.cut_hard = true;
        }
        turn
    }

    fn good(chance: &mut Chance) -> Turn {
        let pieces = chance.between(1, 12) as usize;
        Turn {
            base: Base::Good,
            error_at: None,
            is_unterminated: false,
            states_usage: true,
            cut_after: None,
            cut_hard: false,
            stall_after: None,
            stall_ns: 0,
            garbage: false,
            surplus: false,
            filler_bytes: 0,
            think_ns: chance.below(40 * MS_NS),
            gap_ns: chance.one_of(&[0, 0, MS_NS, 30 * MS_NS]),
            pieces,
            framing: chance.one_of(&[
                Framing::Chunked,
                Framing::Chunked,
                Framing::Length,
                Framing::UntilClose,
            ]),
            hangup: false,
            output_tokens: chance.between(pieces as u64, 900),
        }
    }

    fn meet(&mut self, kind: Trouble, chance: &mut Chance) {
        match kind {
            Trouble::Untimed => self.base = Base::Limited(None),
            Trouble::Ramp => self.base = Base::Ramp,
            Trouble::Spent => self.base = Base::Spent,
            Trouble::Overload => {
                let after = chance.one_of(&[0, 0, 1, 4]);
                self.base = Base::Overload(chance.one_of(&[529, 529, 503]), (after > 0).then_some(after));
            }
            Trouble::Failure => self.base = Base::Failure(chance.one_of(&[500, 502, 504, 520])),
            Trouble::KeyRefused => self.base = Base::KeyRefused,
            Trouble::ModelRefused => self.base = Base::ModelRefused,
            Trouble::ModelMissing => self.base = Base::ModelMissing,
            Trouble::CallerFault => self.base = Base::CallerFault,
            Trouble::Redirect => self.base = Base::Redirect,
            Trouble::Cut => {
                self.cut_after = Some(chance.one_of(&[1, 20, 300, 900, 3_000]) + chance.below(200) as usize);
                self.cut_hard = chance.per_mille(500);
            }
            Trouble::Stall => {
                self.stall_after = Some(1 + chance.below(1_500) as usize);
                self.stall_ns =
                    chance.one_of(&[SECOND_NS, 14 * SECOND_NS, 40 * SECOND_NS, 86_400 * SECOND_NS]);
            }
            Trouble::Garbage => self.garbage = true,
            Trouble::StreamError => self.error_at = Some(chance.below(self.pieces as u64 + 1) as usize),
            Trouble::Unterminated => self.is_unterminated = true,
            Trouble::NoUsage => self.states_usage = false,
            Trouble::Surplus => self.surplus = true,
            Trouble::Large => self.filler_bytes = chance.one_of(&[70_000, 300_000, 700_000, 3_000_000]),
            Trouble::Slow => {
                self.gap_ns = chance.between(SECOND_NS, 12 * SECOND_NS);
                self.think_ns = chance.between(SECOND_NS, 14 * SECOND_NS);
            }
            Trouble::Hangup => self.hangup = true,
            _ => {}
        }
    }

    /// Whether all of a good answer is there, its provider's end included.
    pub fn is_terminated(&self, asked: &Asked) -> bool {
        !asked.streamed || (!self.is_unterminated && self.error_at.is_none())
    }

    /// Whether the move that follows it is one that a budget pays for, unless it is the first.
    pub fn costs_move(&self) -> bool {
        match self.base {
            Base::Limited(_) | Base::Ramp | Base::Spent | Base::Overload(..) | Base::KeyRefused => false,
            Base::Good | Base::Failure(_) | Base::ModelRefused | Base::ModelMissing | Base::Redirect => {
                // An error within a stream may say anything.
                self.base != Base::Good || self.error_at.is_none()
            }
            Base::CallerFault => false,
        }
    }
}

fn is_of_provider(kind: Trouble) -> bool {
    (Trouble::Untimed..=Trouble::Hangup).contains(&kind)
}
