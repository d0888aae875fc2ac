//! What the gateway answers by itself: model lists from the configuration, and clients' signs of life. Never asks
//! an upstream.

use tidegate_core::Snapshot;
use tidegate_core::fault::{Fault, FaultKind};
use tidegate_core::report::CallEnd;
use tidegate_core::route;
use tidegate_providers::{CONTENT_TYPE_JSON, Dialect, ModelCard, Operation, OperationKind, Page};
use tidegate_wire::head::RequestHead;

use crate::answer;
use crate::path::Stop;
use crate::record::Record;
use crate::relay::Line;

/// Said to be the creation of every configured model: the configuration does not know a better one, and clients
/// sort by it.
const MODEL_CREATED_S: u64 = 1_767_225_600;

/// Answers `HEAD` and `GET` of the root, with which clients look whether anybody is there.
pub(crate) async fn root(line: &mut Line<'_>, record: &mut Record) -> Result<(), Stop> {
    record.ended(CallEnd::Complete);
    answer::own_reply(line, record, CONTENT_TYPE_JSON, b"{}").await?;
    Ok(())
}

/// Answers a model list, or one entry of it: those that the caller may use.
pub(crate) async fn models(
    line: &mut Line<'_>,
    record: &mut Record,
    snapshot: &Snapshot,
    dialect: &'static Dialect,
    operation: &Operation<'_>,
    head: &RequestHead,
) -> Result<(), Stop> {
    let mut cards = route::visible_models(snapshot, record.caller, dialect.id)
        .map(|it| ModelCard { id: &it.name, created_s: MODEL_CREATED_S });
    let mut body = Vec::with_capacity(1024);
    if operation.kind == OperationKind::GetModel {
        let id = operation.id.as_ref();
        let unknown = || Stop::Fault(Fault::new(FaultKind::NoSuchModel), Some(id.to_owned()));
        let card = cards.find(|it| it.id == id).ok_or_else(unknown)?;
        dialect.write_model(&mut body, card);
    } else {
        let page = Page::of_query(head.query());
        dialect.write_models(&mut body, &mut cards, &page);
    }
    record.ended(CallEnd::Complete);
    answer::own_reply(line, record, CONTENT_TYPE_JSON, &body).await?;
    Ok(())
}
