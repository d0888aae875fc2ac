//! What may go wrong in a run. Each run switches some of it off: one with everything on hides the bugs that need calm.

use std::fmt;
use std::str::FromStr;

macro_rules! troubles {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// One kind of trouble.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Trouble {
            $($(#[$doc])* $name,)*
        }

        impl Trouble {
            /// All kinds.
            pub const ALL: &[Trouble] = &[$(Trouble::$name,)*];

            /// Its name on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Trouble::$name => $text,)*
                }
            }
        }
    };
}

troubles! {
    // Providers.
    /// Accounts have true limits of requests and answer 429 beyond them.
    Quota = "quota",
    /// 429 without a time.
    Untimed = "untimed",
    /// 429 of the ramp.
    Ramp = "ramp",
    /// 402: no money.
    Spent = "spent",
    /// 529 and its like.
    Overload = "overload",
    /// 500, 502, 504, 520.
    Failure = "failure",
    /// 401.
    KeyRefused = "key-refused",
    /// 403.
    ModelRefused = "model-refused",
    /// 404 about the model.
    ModelMissing = "model-missing",
    /// 400.
    CallerFault = "caller-fault",
    /// 302.
    Redirect = "redirect",
    /// A reply ends at any byte.
    Cut = "cut",
    /// A reply stands still for longer than any deadline.
    Stall = "stall",
    /// What is no HTTP.
    Garbage = "garbage",
    /// An error event within a stream, before or after content.
    StreamError = "stream-error",
    /// A stream without its provider's end.
    Unterminated = "unterminated",
    /// No usage is stated.
    NoUsage = "no-usage",
    /// Bytes behind a reply that nobody asked for.
    Surplus = "surplus",
    /// Replies larger than what may be held.
    Large = "large",
    /// Events that take seconds each.
    Slow = "slow",
    /// A kept connection ends without a word.
    Hangup = "hangup",
    // The network.
    /// Connects are refused or never answered.
    Unreachable = "unreachable",
    /// Connections break.
    Reset = "reset",
    /// Bytes stand still for minutes.
    Standstill = "standstill",
    /// No descriptor for a new connection.
    Descriptors = "descriptors",
    /// Workers lose their core for a while.
    Pause = "pause",
    // Callers.
    /// Callers leave in the middle.
    Leave = "leave",
    /// Callers read slowly.
    SlowReader = "slow-reader",
    /// Keys that nobody has.
    BadKey = "bad-key",
    /// Heads that cannot be read.
    Malformed = "malformed",
    /// Large bodies.
    BigBody = "big-body",
    /// Requests at which the gateway panics.
    Panic = "panic",
    // The control plane and the host.
    /// A new configuration, another path at every provider.
    Reload = "reload",
    /// Limits of virtual keys change.
    Retune = "retune",
    /// Virtual keys are revoked.
    Revoke = "revoke",
    /// There is no control plane: no check of a key, no account comes back.
    NoControl = "no-control",
    /// The wall clock jumps.
    WallJump = "wall-jump",
    /// The process is told to end in the middle.
    Shutdown = "shutdown",
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Trouble {
    type Err = String;

    fn from_str(text: &str) -> Result<Trouble, String> {
        let found = Trouble::ALL.iter().find(|it| it.name() == text);
        found.copied().ok_or_else(|| format!("no trouble is called {text}"))
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Troubles(u64);

const _: () = assert!(Trouble::ALL.len() <= 64);

impl Troubles {
    /// None.
    pub const NONE: Troubles = Troubles(0);

    /// These.
    pub fn of(kinds: &[Trouble]) -> Troubles {
        kinds.iter().fold(Troubles::NONE, |set, it| set.with(*it))
    }

    /// Whether `kind` is among them.
    pub fn has(self, kind: Trouble) -> bool {
        self.0 >> (kind as u64) & 1 == 1
    }

    /// With `kind`.
    #[must_use]
    pub fn with(self, kind: Trouble) -> Troubles {
        Troubles(self.0 | 1 << (kind as u64))
    }

    /// Without those of `off`.
    #[must_use]
    pub fn without(self, off: Troubles) -> Troubles {
        Troubles(self.0 & !off.0)
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = Trouble> {
        Trouble::ALL.iter().copied().filter(move |it| self.has(*it))
    }
}

impl fmt::Display for Troubles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Trouble::name).collect();
        f.write_str(if names.is_empty() { "-".into() } else { names.join(",") }.as_str())
    }
}

impl FromStr for Troubles {
    type Err = String;

    fn from_str(text: &str) -> Result<Troubles, String> {
        let names = text.split(',').filter(|it| !it.is_empty() && *it != "-");
        names.map(Trouble::from_str).try_fold(Troubles::NONE, |set, it| Ok(set.with(it?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_reads_as_it_is_written() {
        let set = Troubles::of(&[Trouble::Cut, Trouble::Shutdown, Trouble::Quota]);
        assert_eq!(set.to_string().parse(), Ok(set));
        assert_eq!("-".parse(), Ok(Troubles::NONE));
        assert!("cut,bogus".parse::<Troubles>().is_err());
        assert!(!set.without(Troubles::of(&[Trouble::Cut])).has(Trouble::Cut));
    }
}
