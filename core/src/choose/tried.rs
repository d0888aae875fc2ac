//! What a call has tried at one target, so that no try repeats what is known to fail. Bounded, without heap.

use std::sync::Arc;

use crate::limits::PLAN_ACCOUNTS_MAX;
use crate::snapshot::{AccountId, ClassId, KeyId, Snapshot};

/// How much a failed try takes out of play for the rest of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The key; another one of the account may do.
    Key,
    /// The account with all its keys.
    Account,
    /// The account and every other one that shares its quota.
    Quota,
}

/// Tries of one call at one target.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    tries: [(AccountId, KeyId, Scope); PLAN_ACCOUNTS_MAX],
    len: u8,
}

const _: () = assert!(PLAN_ACCOUNTS_MAX <= u8::MAX as usize);

impl Tried {
    /// Nothing tried.
    pub const NOTHING: Tried =
        Tried { tries: [(AccountId(0), KeyId(0), Scope::Key); PLAN_ACCOUNTS_MAX], len: 0 };

    /// True when no further try is allowed at this target.
    pub fn is_full(&self) -> bool {
        self.len as usize == PLAN_ACCOUNTS_MAX
    }

    /// Takes note of a try. Past the bound nothing is noted: [`Tried::is_full`] ends the tries before that.
    pub fn add(&mut self, account: AccountId, key: KeyId, scope: Scope) {
        if !self.is_full() {
            self.tries[self.len as usize] = (account, key, scope);
            self.len += 1;
        }
    }

    /// Whether this key was tried.
    pub fn key(&self, id: KeyId) -> bool {
        self.as_slice().iter().any(|it| it.1 == id)
    }

    /// Whether this account is out of play, by itself or by the quota it shares.
    pub fn account(&self, snapshot: &Snapshot, id: AccountId, class: ClassId) -> bool {
        let quota = |id: AccountId| &snapshot.account(id).quotas[class.index()];
        self.as_slice().iter().any(|&(account, _, scope)| match scope {
            Scope::Key => false,
            Scope::Account => account == id,
            Scope::Quota => account == id || Arc::ptr_eq(quota(account), quota(id)),
        })
    }

    fn as_slice(&self) -> &[(AccountId, KeyId, Scope)] {
        &self.tries[..self.len as usize]
    }
}
