//! The gateway's own account of every call, its access log, against what callers saw and what providers did.

use tidegate_core::access::Entry;
use tidegate_core::report::CallEnd;

use crate::control::Control;
use crate::ledger::{AttemptRecord, CallRecord, End, Ledger};

/// Takes in one entry.
pub fn note_entry(entry: Entry, control: &Control, ledger: &mut Ledger) {
    let id = String::from_utf8_lossy(&entry.id).into_owned();
    if control.snapshot_of(entry.call.revision).is_none() {
        ledger.fail(6, None, format!("an entry of revision {}, which never was", entry.call.revision));
    }
    if ledger.entries.insert(id.clone(), entry).is_some() {
        ledger.fail(3, None, format!("{id} was reported twice"));
    }
}

/// Compares everything, once nothing moves any more.
pub fn check(control: &Control, ledger: &mut Ledger) {
    let (entries, sent) = (ledger.entries.len(), ledger.calls.iter().filter(|it| it.end.is_some()).count());
    if entries > sent {
        ledger.fail(3, None, format!("{entries} calls were reported, and {sent} were made"));
    }
    let mut complaints = Vec::new();
    for (call, record) in ledger.calls.iter().enumerate() {
        let Some(id) = &record.request_id else { continue };
        match ledger.entries.get(id) {
            None => complaints.push((3, call, "it was never reported".to_owned())),
            Some(entry) => compare(call, record, entry, control, &ledger.attempts, &mut complaints),
        }
    }
    for (assertion, call, what) in complaints {
        ledger.fail(assertion, Some(call), what);
    }
}

fn compare(
    call: usize,
    record: &CallRecord,
    entry: &Entry,
    control: &Control,
    attempts: &[AttemptRecord],
    complaints: &mut Vec<(u8, usize, String)>,
) {
    let mut complain = |assertion, what: String| complaints.push((assertion, call, what));
    let said = &entry.call;
    if let Some((end, _)) = record.end
        && !agree(end, said.end, said.status)
    {
        complain(3, format!("its caller saw {end:?}, and its report says {:?} {}", said.end, said.status));
    }
    if let (Some(caller), Some(snapshot)) = (said.caller, control.snapshot_of(said.revision)) {
        let name = &snapshot.callers.caller(caller).name;
        if **name != *format!("t{}", record.tenant) {
            complain(8, format!("it is of tenant {}, and its report says {name}", record.tenant));
        }
    }
    if let Some(it) = record.tries.iter().find(|it| it.revision != said.revision) {
        complain(6, format!("sent by revision {}, and its report says {}", it.revision, said.revision));
    }
    if !matches!(record.end, Some((End::Complete, _))) || record.counts_tokens {
        return;
    }
    let Some(attempt) = record.attempt.and_then(|it| attempts.get(it)) else { return };
    match attempt.stated {
        Some(stated) if said.usage != stated && !said.usage_estimated => {
            complain(10, format!("the provider stated {stated:?}, and it was settled by {:?}", said.usage));
        }
        Some(_) if said.usage_estimated && attempt.is_complete => {
            complain(10, "its usage was stated, and it was settled by an estimate".to_owned());
        }
        None if !said.usage_estimated => {
            complain(10, format!("no usage was stated, and it was settled by {:?}", said.usage));
        }
        _ => {}
    }
}

/// Whether what the caller saw is what the gateway says of it.
fn agree(seen: End, said: CallEnd, status: u16) -> bool {
    match seen {
        End::Complete => said == CallEnd::Complete,
        End::ErrorEvent => matches!(said, CallEnd::Fault(_) | CallEnd::UpstreamError),
        End::Refused(seen) => seen == status && matches!(said, CallEnd::Fault(_) | CallEnd::UpstreamError),
        End::Left | End::Cut { .. } => true,
    }
}
