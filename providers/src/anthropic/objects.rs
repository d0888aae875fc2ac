//! Files and batches of the vendor, as the API reference has them.

use tidegate_wire::follow::ITEM;

use crate::objects::{BodyForm, ListRules, Look, ObjectRules, Place, Shape, What};

const NAMES: &[&str] = &["requests", "params", "model", "file_id", "file_ids"];
const REQUESTS: u8 = 0;
const PARAMS: u8 = 1;
const MODEL: u8 = 2;
const FILE_ID: u8 = 3;
const FILE_IDS: u8 = 4;

/// The body of a batch: each of its requests is a call.
const BATCH: Shape = Shape {
    names: NAMES,
    looks: &[
        Look { place: Place::At(&[REQUESTS, ITEM, PARAMS, MODEL]), what: What::Model },
        Look { place: Place::Under(FILE_ID), what: What::File },
        Look { place: Place::Under(FILE_IDS), what: What::File },
    ],
    item: &[REQUESTS, ITEM],
    needs: &[What::Model],
};

const LISTS: ListRules =
    ListRules { after: "after_id", before: Some("before_id"), page_default: 20, page_max: 1_000 };

pub(super) const RULES: ObjectRules = ObjectRules {
    file_body: BodyForm::Unread,
    batch_body: BodyForm::Object(&BATCH),
    linked_files: &[],
    // The vendor's own clients fetch results from there, with the key they have.
    own_url: Some(("results_url", super::BATCH)),
    files: LISTS,
    batches: LISTS,
};
