//! The health of credentials, of (credential, model class) pairs, and of accounts. Workers raise a suspicion; only
//! the control plane's own check, or an operator, takes it back.

use crate::moment::Moment;
use crate::snapshot::Carried;
use crate::sync::{AtomicU64, Ordering, step};

/// What is known of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// Nothing speaks against it.
    Good,
    /// The provider refused it, or a check did: out until an operator acts or a later check passes.
    Out,
    /// A call was refused with 401; passed over until a check decides.
    Suspect,
}

/// What a check of a credential found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyVerdict {
    /// The provider accepts it.
    Good,
    /// The provider refuses it.
    Out,
}

/// State (2 bits) and serial (62 bits) of one credential. The serial grows each time it becomes suspect, so that
/// the verdict of a check that began before a newer suspicion cannot overrule it.
#[derive(Debug, Default)]
pub struct KeyCell(AtomicU64);

const GOOD: u64 = 0;
const SUSPECT: u64 = 1;
const OUT: u64 = 2;
const STATE: u64 = 3;

impl KeyCell {
    /// Calls may use it.
    pub fn usable(&self) -> bool {
        self.0.load(Ordering::Relaxed) & STATE == GOOD
    }

    /// What is known of it.
    pub fn state(&self) -> KeyState {
        match self.0.load(Ordering::Relaxed) & STATE {
            GOOD => KeyState::Good,
            SUSPECT => KeyState::Suspect,
            _ => KeyState::Out,
        }
    }

    /// The number of the latest suspicion. A check reads it before it asks the provider.
    pub fn serial(&self) -> u64 {
        self.0.load(Ordering::Relaxed) >> 2
    }

    /// Makes a good key suspect. True when this call made it so: one report is enough for one suspicion.
    pub fn suspect(&self) -> bool {
        step(
            &self.0,
            |word| if word & STATE == GOOD { Ok(((word >> 2) + 1) << 2 | SUSPECT) } else { Err(()) },
        )
        .is_ok()
    }

    /// What the check that read `serial` found. False, and nothing changes, when the key became suspect since: the
    /// check must be made again.
    #[must_use = "a verdict that came too late means the check must be made again"]
    pub fn verdict(&self, serial: u64, found: KeyVerdict) -> bool {
        let state = match found {
            KeyVerdict::Good => GOOD,
            KeyVerdict::Out => OUT,
        };
        step(&self.0, |word| if word >> 2 == serial { Ok(serial << 2 | state) } else { Err(()) }).is_ok()
    }
}

/// When the rest of one (key, model) pair ends, in nanoseconds; written by `fetch_max` alone.
#[derive(Debug, Default)]
pub struct PairCell(AtomicU64);

impl PairCell {
    /// Rests until then; a later end stays.
    pub fn rest_until(&self, until: Moment) {
        self.0.fetch_max(until.as_ns(), Ordering::Relaxed);
    }

    /// The end of the rest, while it lasts.
    pub fn resting(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_ns(self.0.load(Ordering::Relaxed));
        (now < until).then_some(until)
    }
}

/// Whether an account may spend: zero, or one more than the nanosecond at which it was found spent.
#[derive(Debug, Default)]
pub struct AccountCell(AtomicU64);

impl AccountCell {
    /// Calls may use it.
    pub fn usable(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// The provider says that no waiting cures it (spend cap, billing): out until [`AccountCell::reopen`]. True
    /// when this call made it so.
    pub fn spent(&self, now: Moment) -> bool {
        let since = now.as_ns().saturating_add(1);
        self.0.compare_exchange(0, since, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Since when it is out.
    pub fn spent_since(&self) -> Option<Moment> {
        self.0.load(Ordering::Relaxed).checked_sub(1).map(Moment::from_ns)
    }

    /// An operator acted, or its period ended.
    pub fn reopen(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Carried for KeyCell {
    fn words(&self) -> Vec<u64> {
        vec![self.0.load(Ordering::Relaxed)]
    }

    fn take_over(&self, words: &[u64]) {
        let &[word] = words else { return };
        self.0.store(word, Ordering::Relaxed);
    }
}

impl Carried for PairCell {
    fn words(&self) -> Vec<u64> {
        vec![self.0.load(Ordering::Relaxed)]
    }

    fn take_over(&self, words: &[u64]) {
        let &[until_ns] = words else { return };
        self.rest_until(Moment::from_ns(until_ns));
    }
}

impl Carried for AccountCell {
    fn words(&self) -> Vec<u64> {
        vec![self.0.load(Ordering::Relaxed)]
    }

    fn take_over(&self, words: &[u64]) {
        let &[since] = words else { return };
        self.0.store(since, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_suspicion_is_reported_once_and_settled_by_its_own_check() {
        let key = KeyCell::default();
        assert!(key.usable());
        assert!(key.suspect());
        assert!(!key.suspect(), "a burst of 401s is one suspicion");
        assert_eq!((key.usable(), key.state()), (false, KeyState::Suspect));
        let check = key.serial();
        assert!(key.verdict(check, KeyVerdict::Good));
        assert!(key.usable());
    }

    #[test]
    fn an_old_check_cannot_overrule_a_newer_suspicion() {
        let key = KeyCell::default();
        key.suspect();
        let old = key.serial();
        assert!(key.verdict(old, KeyVerdict::Good));
        key.suspect();
        assert!(!key.verdict(old, KeyVerdict::Good));
        assert_eq!(key.state(), KeyState::Suspect);
        assert!(key.verdict(key.serial(), KeyVerdict::Out));
        assert!(!key.suspect(), "a key that is out is not checked again for each late 401");
        assert_eq!(key.state(), KeyState::Out);
        assert!(key.verdict(key.serial(), KeyVerdict::Good));
        assert!(key.usable());
    }

    #[test]
    fn a_pair_rests_until_the_latest_end() {
        let pair = PairCell::default();
        assert_eq!(pair.resting(Moment::ZERO), None);
        pair.rest_until(Moment::from_ns(50));
        pair.rest_until(Moment::from_ns(20));
        assert_eq!(pair.resting(Moment::from_ns(49)), Some(Moment::from_ns(50)));
        assert_eq!(pair.resting(Moment::from_ns(50)), None);
    }

    #[test]
    fn an_account_keeps_the_first_time_it_was_found_spent() {
        let account = AccountCell::default();
        assert!(account.spent(Moment::ZERO));
        assert!(!account.spent(Moment::from_ns(9)));
        assert_eq!((account.usable(), account.spent_since()), (false, Some(Moment::ZERO)));
        account.reopen();
        assert_eq!((account.usable(), account.spent_since()), (true, None));
    }
}
