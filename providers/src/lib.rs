//! Dialects: what providers and callers speak. The only crate that knows a vendor's name.
//!
//! A [`Dialect`] is data (paths, fields, model classes, codes) and a few functions: what a reply means, what an
//! event of a stream is, what a reply says of usage and limits, how errors and lists are written. Everything is
//! bytes in, values out: no I/O, no clock, and nothing that came from the network is trusted or can panic here.
//! What follows from a verdict is decided in `core`; what goes on a wire is decided in `gateway`.

#![forbid(unsafe_code)]

mod agents;
pub mod anthropic;
mod dialect;
mod example;
mod fields;
mod forwarding;
mod judge;
mod listing;
mod objects;
pub mod openai;
mod path;
mod reading;
mod waits;

use tidegate_core::snapshot::DialectId;

pub use agents::{AGENTS, Agent, AgentSetup};
pub use dialect::{
    CONTENT_TYPE_JSON, CONTENT_TYPE_STREAM, CallerLimitView, ClassRow, CredentialField, Dialect, LimitView,
    Phase, StreamEvent, USAGE,
};
pub use example::curl_example;
pub use fields::{CREDENTIALS, FieldList, Fields, GATEWAY_KEY, brings_credential, presented_credentials};
pub use forwarding::is_hop_by_hop;
pub use listing::ModelCard;
pub use objects::{Asked, BodyCheck, BodyRefusal, Cursor, ListAsk, ListPage, RefusalKind};
pub use path::{Operation, OperationKind, Page, PathShape, RouteMiss, RouteRow, of_request};

/// Every dialect; its position is its number.
pub const ALL: &[&Dialect] = &[&anthropic::DIALECT, &openai::DIALECT];

/// The dialect with this number.
///
/// # Panics
/// If no dialect has it: numbers in a snapshot come from [`by_kind`].
pub fn dialect(id: DialectId) -> &'static Dialect {
    ALL[id.index()]
}

/// The dialect that the configuration calls `kind`.
pub fn by_kind(kind: &str) -> Option<&'static Dialect> {
    ALL.iter().find(|it| it.kind == kind).copied()
}

#[cfg(test)]
mod tests {
    use tidegate_core::limits::CLASSES_MAX;

    use super::*;

    #[test]
    fn positions_are_numbers_and_kinds_are_found() {
        for (at, it) in ALL.iter().enumerate() {
            assert_eq!(it.id.index(), at);
            assert_eq!(dialect(it.id).name, it.name);
            assert_eq!(by_kind(it.kind).map(|it| it.id), Some(it.id));
        }
        assert!(by_kind("Anthropic").is_none(), "kinds are lower case");
    }

    #[test]
    fn class_tables_are_complete() {
        for it in ALL {
            let last = it.classes.last().expect("a class");
            assert_eq!((last.name, last.patterns), ("other", &["*"][..]), "{}", it.name);
            assert!(it.classes.len() <= CLASSES_MAX);
            let mut names: Vec<_> = it.classes.iter().map(|it| it.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), it.classes.len(), "{}: a name twice", it.name);
            assert_eq!(it.class_of("a-model-nobody-knows").map(|it| it.name), Some("other"));
        }
    }

    /// No pattern is hidden behind an earlier one: each row is reached by its own first pattern.
    #[test]
    fn every_class_can_be_reached() {
        for it in ALL {
            for row in it.classes {
                let model = row.patterns[0].replace('*', "x");
                assert_eq!(it.class_of(&model).map(|it| it.name), Some(row.name), "{model}");
            }
        }
    }
}
