//! The configuration actor: reads the file when it changes or when asked, and publishes a new snapshot, all or
//! nothing. A file that it refers to (a certificate, a secret) is a part of it. What is refused leaves the old one in
//! force, with the reasons on the board.
//!
//! It also merges accounts that replies show to be one organization and workspace: from the next snapshot on they
//! share one quota. It never resolves a conflict by guessing: equal organization alone is only reported.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tidegate_core::Snapshot;
use tidegate_core::caller::digest;
use tidegate_core::snapshot::Draft;

use crate::board::{Board, ConfigOrigin, Loaded, Marks};
use crate::config::{self, Checked, Complaints, Outside};
use crate::door::{Door, Ticket};
use crate::initial::KnownAccount;
use crate::quota::{AccountName, Mark};
use crate::resolver;
use crate::root::RootMessage;

/// Editors and secret stores change a file in several steps.
const SETTLE: Duration = Duration::from_millis(200);
/// How often the file and those it refers to are looked at where no watch reports it.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Marks come in as the first replies do; they are merged together.
const MERGE_DELAY: Duration = Duration::from_millis(500);

/// What the configuration actor is told.
pub(crate) enum ConfigMessage {
    /// Something happened in the file's folder.
    Changed(Ticket),
    /// The file may have settled.
    Settled,
    /// The next look at the file is due.
    Poll,
    /// Read and publish now.
    Reload(RpcReplyPort<Result<u64, Complaints>>),
    /// A reply said whose account it is.
    Marked {
        /// The account.
        name: AccountName,
        /// Whose it is.
        mark: Mark,
        /// Room in the mailbox.
        ticket: Ticket,
    },
    /// Marks have come in.
    Merge,
}

/// Messages of quota actors that may wait.
pub(crate) const MARKS_WAITING_MAX: usize = 256;

/// The actor.
pub(crate) struct ConfigActor;

pub(crate) struct ConfigActorState {
    board: Arc<Board>,
    root: Door<RootMessage>,
    /// Ends with the actor.
    _watcher: Option<RecommendedWatcher>,
    /// Of the file and of those it refers to, when they were last looked at.
    stamps: Vec<Option<Stamp>>,
    /// The files that the text last tried refers to.
    outside: Vec<Outside>,
    /// Digest of the text that was last tried, good or not.
    tried: Option<[u8; 32]>,
    settling: bool,
    merging: bool,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Actor for ConfigActor {
    type Msg = ConfigMessage;
    type State = ConfigActorState;
    type Arguments = (Arc<Board>, Door<RootMessage>);

    async fn pre_start(
        &self,
        myself: ActorRef<ConfigMessage>,
        (board, root): Self::Arguments,
    ) -> Result<ConfigActorState, ActorProcessingErr> {
        let tried = board.loaded.load().digest;
        let outside = board.loaded.load().checked.outside().to_vec();
        let watcher = match &board.origin {
            ConfigOrigin::Fixed => None,
            ConfigOrigin::File(path) => {
                myself.send_message(ConfigMessage::Poll)?;
                watch(path, Door::new(myself.clone(), 1))
            }
        };
        // No stamps: the first poll reads what there is and compares, so that a change during the start is not missed.
        let (stamps, settling, merging) = (Vec::new(), false, false);
        Ok(ConfigActorState { board, root, _watcher: watcher, stamps, outside, tried, settling, merging })
    }

    async fn handle(
        &self,
        myself: ActorRef<ConfigMessage>,
        message: ConfigMessage,
        state: &mut ConfigActorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ConfigMessage::Changed(_ticket) => state.settle(&myself),
            ConfigMessage::Settled => {
                state.settling = false;
                state.look().await;
            }
            ConfigMessage::Poll => {
                if state.stamps() != state.stamps {
                    state.settle(&myself);
                }
                myself.send_after(POLL_INTERVAL, || ConfigMessage::Poll);
            }
            ConfigMessage::Reload(reply) => {
                let result = state.reload().await;
                if !reply.is_closed() {
                    reply.send(result)?;
                }
            }
            ConfigMessage::Marked { name, mark, ticket: _ticket } => {
                state.take_mark(name, mark);
                if !std::mem::replace(&mut state.merging, true) {
                    myself.send_after(MERGE_DELAY, || ConfigMessage::Merge);
                }
            }
            ConfigMessage::Merge => {
                state.merging = false;
                state.merge().await;
            }
        }
        Ok(())
    }
}

impl ConfigActorState {
    /// Looks at the files in a moment: a certificate and its key do not change at once either.
    fn settle(&mut self, myself: &ActorRef<ConfigMessage>) {
        if !std::mem::replace(&mut self.settling, true) {
            myself.send_after(SETTLE, || ConfigMessage::Settled);
        }
    }

    /// Of the file and of those it refers to, as they are now.
    fn stamps(&self) -> Vec<Option<Stamp>> {
        let ConfigOrigin::File(path) = &self.board.origin else { return Vec::new() };
        std::iter::once(path).chain(self.outside.iter().map(|it| &it.path)).map(|it| stamp(it)).collect()
    }

    /// Reads the file if it, or one that it refers to, is not what was last tried.
    async fn look(&mut self) {
        let ConfigOrigin::File(path) = &self.board.origin else { return };
        let before = self.stamps();
        let Some(seen) = text_digest(path) else { return };
        if self.tried != Some(seen) || self.outside.iter().any(Outside::has_changed) {
            // The outcome is on the board and in the log.
            let _ = self.reload().await;
        }
        // Those of before: a change since then is found by the next poll.
        self.stamps = before;
    }

    /// Reads, checks and publishes. The error leaves everything as it was.
    async fn reload(&mut self) -> Result<u64, Complaints> {
        let read = match &self.board.origin {
            ConfigOrigin::Fixed => Ok(self.board.loaded.load().checked.clone()),
            ConfigOrigin::File(path) => {
                // Before the text is checked: should the file change in between, the next look finds it.
                self.tried = text_digest(path);
                let (checked, outside) = config::check_file_noting(path);
                if checked.is_ok() || !outside.is_empty() {
                    self.outside = outside;
                }
                checked
            }
        };
        let result = match read {
            Ok(checked) => self.publish(checked).await,
            Err(complaints) => Err(complaints),
        };
        match &result {
            Ok(revision) => {
                self.board.refused.store(None);
                tracing::info!(revision, "a new configuration is in force");
            }
            Err(complaints) => {
                tracing::error!("the new configuration is refused, the old one stays:\n{complaints}");
                self.board.refused.store(Some(Arc::new(complaints.clone())));
            }
        }
        result
    }

    async fn publish(&mut self, mut checked: Checked) -> Result<u64, Complaints> {
        let before = self.board.loaded.load_full();
        // What is open is judged, whatever the file says: without virtual keys only this host may reach it.
        let open = &before.checked.settings;
        if (open.listen, open.admin.listen) != checked.stated_listeners() {
            checked.listen_on("the sockets that are open", open.listen, open.admin.listen)?;
        }
        if !checked.warnings.is_empty() {
            tracing::warn!("the configuration works, but:\n{}", checked.render_warnings(false));
        }
        warn_of_settings(&before.checked, &checked);
        let revision = self.publish_draft(&checked.draft, &before.checked.draft).await?;
        // An operator acted: what was out for want of money may be tried again.
        self.board.snapshot.load().accounts.iter().for_each(|it| it.cell.reopen());
        (self.board.set_log_level)(checked.logs.level);
        self.board.loaded.store(Arc::new(Loaded { checked, digest: self.tried }));
        Ok(revision)
    }

    /// Builds a snapshot beside the one in force and swaps it in, or does nothing.
    async fn publish_draft(&self, draft: &Draft, before: &Draft) -> Result<u64, Complaints> {
        let board = &self.board;
        let current = board.snapshot.load_full();
        let marks = board.marks.load_full();
        let next = Arc::new(Snapshot::build(merged(draft, &marks), Some(&current), board.now()));
        resolver::resolve_all(&next).await;
        if let Err(reason) = (board.publish)(next.clone()) {
            // Building took over the cells and gave them the new limits: give the old ones back.
            drop(Snapshot::build(merged(before, &marks), Some(&current), board.now()));
            return Err(Complaints::of(reason));
        }
        let revision = next.revision;
        revoke_removed(&current, &next);
        board.put_snapshot(next);
        self.root.push(RootMessage::Reconcile);
        Ok(revision)
    }

    fn take_mark(&self, name: AccountName, mark: Mark) {
        let mut marks = Marks::clone(&self.board.marks.load());
        marks.insert((name.provider, name.account), mark);
        // Accounts of past configurations are forgotten with the next mark.
        let draft = &self.board.loaded.load().checked.draft;
        marks.retain(|(provider, account), _| {
            draft
                .providers
                .iter()
                .any(|it| it.name == *provider && it.accounts.iter().any(|it| it.name == *account))
        });
        self.board.marks.store(Arc::new(marks));
    }

    /// Publishes the configuration in force anew if marks show accounts to be one that do not share a quota yet.
    async fn merge(&self) {
        let loaded = self.board.loaded.load_full();
        let draft = &loaded.checked.draft;
        let marks = self.board.marks.load_full();
        let snapshot = self.board.snapshot.load_full();
        let fresh: Vec<Group> =
            groups(draft, &marks).into_iter().filter(|it| !shares(&snapshot, it)).collect();
        report_kin(draft, &marks);
        if fresh.is_empty() {
            return;
        }
        match self.publish_draft(draft, draft).await {
            Ok(revision) => {
                for group in fresh {
                    let accounts = group.accounts.join(", ");
                    let provider = &group.provider;
                    tracing::warn!(
                        provider,
                        accounts,
                        revision,
                        "accounts are one organization and workspace: from now on they share one quota"
                    );
                }
            }
            Err(complaints) => tracing::error!("accounts could not be joined:\n{complaints}"),
        }
    }
}

/// Accounts of one provider that are one organization and workspace; at least two.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    provider: String,
    accounts: Vec<String>,
}

fn groups(draft: &Draft, marks: &Marks) -> Vec<Group> {
    let mut groups = Vec::new();
    for provider in &draft.providers {
        let mut by_mark: HashMap<(u64, u64), Vec<String>> = HashMap::new();
        for account in &provider.accounts {
            if let Some(mark) = marks.get(&(provider.name.clone(), account.name.clone())) {
                by_mark.entry((mark.organization, mark.workspace)).or_default().push(account.name.clone());
            }
        }
        let mut joint: Vec<Vec<String>> = by_mark.into_values().filter(|it| it.len() > 1).collect();
        joint.sort();
        groups.extend(joint.into_iter().map(|accounts| Group { provider: provider.name.clone(), accounts }));
    }
    groups
}

/// What was known when it was written down.
pub(crate) fn marks_of(known: &[KnownAccount]) -> Marks {
    let mark = |(provider, account, organization, workspace): &KnownAccount| {
        let mark = Mark { organization: *organization, workspace: *workspace };
        ((provider.clone(), account.clone()), mark)
    };
    known.iter().map(mark).collect()
}

/// The draft with each group's accounts marked as sharing one quota.
pub(crate) fn merged(draft: &Draft, marks: &Marks) -> Draft {
    let mut draft = draft.clone();
    for (at, group) in groups(&draft, marks).into_iter().enumerate() {
        let provider = draft.providers.iter_mut().find(|it| it.name == group.provider);
        for account in provider.into_iter().flat_map(|it| &mut it.accounts) {
            if group.accounts.contains(&account.name) {
                account.shared_quota = Some(at as u64);
            }
        }
    }
    draft
}

/// Whether the accounts of a group share their quotas in this snapshot.
fn shares(snapshot: &Snapshot, group: &Group) -> bool {
    let Some(id) = snapshot.provider_named(&group.provider) else { return true };
    let accounts = snapshot.provider(id).accounts.iter().map(|it| snapshot.account(*it));
    let mut quotas = accounts
        .filter(|it| group.accounts.iter().any(|name| **name == *it.name))
        .filter_map(|it| it.quotas.first());
    let Some(first) = quotas.next() else { return true };
    quotas.all(|it| Arc::ptr_eq(first, it))
}

/// Says which accounts belong to one organization but differ in their workspace, or stand at two providers.
fn report_kin(draft: &Draft, marks: &Marks) {
    let mut by_organization: HashMap<u64, Vec<(&str, &str, u64)>> = HashMap::new();
    for provider in &draft.providers {
        for account in &provider.accounts {
            if let Some(mark) = marks.get(&(provider.name.clone(), account.name.clone())) {
                let kin = by_organization.entry(mark.organization).or_default();
                kin.push((&provider.name, &account.name, mark.workspace));
            }
        }
    }
    for kin in by_organization.values() {
        let differ = kin.iter().any(|it| (it.0, it.2) != (kin[0].0, kin[0].2));
        if differ {
            let accounts: Vec<String> =
                kin.iter().map(|(provider, name, _)| format!("{provider}/{name}")).collect();
            tracing::info!(
                accounts = accounts.join(", "),
                "accounts belong to one organization and may share limits"
            );
        }
    }
}

fn warn_of_settings(before: &Checked, after: &Checked) {
    let format = before.logs.format != after.logs.format;
    let (stated, now_stated) = (before.stated_listeners(), after.stated_listeners());
    let (before, after) = (&before.settings, &after.settings);
    for (name, changed) in [
        ("listen", stated.0 != now_stated.0),
        ("admin.listen", stated.1 != now_stated.1),
        ("io", before.io != after.io),
        ("takeover", before.takeover != after.takeover),
        ("workers", before.workers != after.workers),
        ("log.format", format),
        ("state.file", before.state_file != after.state_file),
    ] {
        if changed {
            tracing::warn!("`{name}` changed in the configuration; that takes a restart");
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let it = std::fs::metadata(path).ok()?;
    Some(Stamp { inode: it.ino(), bytes: it.size(), modified_s: it.mtime(), modified_ns: it.mtime_nsec() })
}

/// Switches off the virtual keys that are gone: refused at once, also by a worker that still holds the old snapshot.
fn revoke_removed(before: &Snapshot, after: &Snapshot) {
    for (_, caller) in before.callers.iter() {
        if after.callers.named(&caller.name).is_none() {
            caller.cells.revoke();
        }
    }
}

/// Digest of the file's content; `None` where it cannot be read just now.
pub(crate) fn text_digest(path: &Path) -> Option<[u8; 32]> {
    std::fs::read(path).ok().map(|it| digest(&it))
}

/// Watches the folder, not the file: editors and secret stores replace files. Without a watch the polls remain.
fn watch(path: &Path, door: Door<ConfigMessage>) -> Option<RecommendedWatcher> {
    let folder: PathBuf = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let tell = move |event: notify::Result<notify::Event>| {
        // Reading is an event, too, and this actor reads.
        if event.is_ok_and(|it| !matches!(it.kind, EventKind::Access(_))) {
            door.push(ConfigMessage::Changed);
        }
    };
    let watcher = notify::recommended_watcher(tell)
        .and_then(|mut it| it.watch(&folder, RecursiveMode::NonRecursive).map(|()| it));
    watcher
        .map_err(|error| tracing::warn!(%error, "no watch on the configuration's folder; it is looked at each 5 s"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests as shared;

    fn mark(organization: u64, workspace: u64) -> Mark {
        Mark { organization, workspace }
    }

    #[test]
    fn equal_marks_make_one_quota_and_equal_organizations_do_not() {
        let bench = shared::bench();
        let draft = bench.board.loaded.load().checked.draft.clone();
        let mut marks = Marks::new();
        let name = |it: &str| ("anthropic".to_owned(), it.to_owned());
        marks.insert(name("a"), mark(7, 1));
        marks.insert(name("b"), mark(7, 2));
        assert_eq!(groups(&draft, &marks), []);
        marks.insert(name("b"), mark(7, 1));
        let expect = Group { provider: "anthropic".into(), accounts: vec!["a".into(), "b".into()] };
        assert_eq!(groups(&draft, &marks), [expect]);
        let before = bench.board.snapshot.load_full();
        let group = groups(&draft, &marks).remove(0);
        assert!(!shares(&before, &group));
        let after = Snapshot::build(merged(&draft, &marks), Some(&before), bench.board.now());
        assert!(shares(&after, &group));
    }

    #[test]
    fn what_one_process_knows_of_accounts_the_next_one_goes_on_with() {
        let checked = shared::checked(shared::CONFIG);
        let now = tidegate_core::Moment::from_ns(9);
        let first = Snapshot::build(checked.draft.clone(), None, now);
        let known = |workspace| {
            let of = |it: &str| ("anthropic".to_owned(), it.to_owned(), 7, workspace);
            vec![of("a"), (of("b").0, of("b").1, 7, 1)]
        };
        let quotas = |it: &Snapshot| [it.accounts[0].quotas[0].clone(), it.accounts[1].quotas[0].clone()];
        first.accounts[1].quotas[0].rest_until(now + Duration::from_secs(9));
        let [a, b] = quotas(&crate::joined_snapshot(&checked, &first, &known(1), now));
        assert!(Arc::ptr_eq(&a, &b) && a.view(now).resting_until.is_some(), "one quota, which rests");
        let [a, b] = quotas(&crate::joined_snapshot(&checked, &first, &known(2), now));
        assert!(!Arc::ptr_eq(&a, &b), "another workspace is another quota");
    }
}
