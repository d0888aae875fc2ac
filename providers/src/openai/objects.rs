//! Files and batches of the vendor, as the API reference has them: a batch is made of a file, of which each line is a
//! call.

use crate::objects::{BodyForm, ListRules, Look, ObjectRules, Place, Shape, What};

const LINE_NAMES: &[&str] = &["body", "model", "url", "file_id", "file_ids", "previous_response_id"];
const BODY: u8 = 0;
const MODEL: u8 = 1;
const URL: u8 = 2;
const FILE_ID: u8 = 3;
const FILE_IDS: u8 = 4;
const PREVIOUS_RESPONSE: u8 = 5;

/// A line of a file that a batch is made of.
const LINE: Shape = Shape {
    names: LINE_NAMES,
    looks: &[
        Look { place: Place::At(&[BODY, MODEL]), what: What::Model },
        Look { place: Place::At(&[URL]), what: What::Endpoint },
        Look { place: Place::Under(FILE_ID), what: What::File },
        Look { place: Place::Under(FILE_IDS), what: What::File },
        Look { place: Place::At(&[BODY, PREVIOUS_RESPONSE]), what: What::Response },
    ],
    item: &[],
    needs: &[What::Model, What::Endpoint],
};

const BATCH_NAMES: &[&str] = &["input_file_id", "endpoint"];
const INPUT_FILE: u8 = 0;
const ENDPOINT: u8 = 1;

/// The body that makes a batch.
const BATCH: Shape = Shape {
    names: BATCH_NAMES,
    looks: &[
        Look { place: Place::At(&[INPUT_FILE]), what: What::File },
        Look { place: Place::At(&[ENDPOINT]), what: What::Endpoint },
    ],
    item: &[],
    needs: &[What::File, What::Endpoint],
};

pub(super) const RULES: ObjectRules = ObjectRules {
    file_body: BodyForm::FormOfLines { field: "purpose", value: "batch", file: "file", lines: &LINE },
    batch_body: BodyForm::Object(&BATCH),
    linked_files: &["output_file_id", "error_file_id"],
    own_url: None,
    files: ListRules { after: "after", before: None, page_default: 10_000, page_max: 10_000 },
    batches: ListRules { after: "after", before: None, page_default: 20, page_max: 100 },
};
