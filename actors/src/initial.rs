//! What a process needs before its first worker starts: the first snapshot, and a call to show a person. Decides
//! nothing that a reload would decide otherwise.

use std::sync::Arc;

use tidegate_core::{Moment, Snapshot};

use crate::config::Checked;
use crate::reload;

/// The first snapshot of a checked configuration.
pub fn initial_snapshot(checked: &Checked, now: Moment) -> Arc<Snapshot> {
    Arc::new(Snapshot::build(checked.draft.clone(), None, now))
}

/// Whose account one was seen to be: provider, account, and marks of organization and workspace.
pub type KnownAccount = (String, String, u64, u64);

/// The snapshot after `first` in which accounts that are known to be one organization and workspace share their quotas.
pub fn joined_snapshot(
    checked: &Checked,
    first: &Snapshot,
    known: &[KnownAccount],
    now: Moment,
) -> Arc<Snapshot> {
    let draft = reload::merged(&checked.draft, &reload::marks_of(known));
    Arc::new(Snapshot::build(draft, Some(first), now))
}

/// A `curl` line for each provider of the configuration that speaks another dialect than those before it.
pub fn curl_examples(checked: &Checked, base_url: &str) -> Vec<String> {
    let mut dialects: Vec<_> = checked.draft.providers.iter().map(|it| it.dialect).collect();
    let mut seen = Vec::new();
    dialects.retain(|it| {
        !seen.contains(it) && {
            seen.push(*it);
            true
        }
    });
    dialects
        .into_iter()
        .map(|id| tidegate_providers::curl_example(tidegate_providers::dialect(id), base_url))
        .collect()
}
