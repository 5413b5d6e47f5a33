//! `/audit`: the audit log and its verification.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use futures_util::stream::try_unfold;
use muster_core::Error;
use muster_core::audit::ChainHead;
use muster_core::error_chain::chain;
use muster_core::hex;
use muster_core::time::Timestamp;
use muster_protocol::management::audit::{
    AuditDefect, AuditEvent, AuditEvents, AuditHead, AuditVerdict, ExportAuditEvents, ListAuditEvents,
};

use super::answer::Answer;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::{Caller, NamesSpace};
use super::error::ApiResult;
use super::query::{Paging, Query};
use muster_core::authorization::{Forbidden, OpContext, PrivilegeName as Name};
use muster_fleet::Fleet;
use muster_fleet::audit_export::Period;
use muster_fleet::audit_log::{self, AuditLine, AuditQuery, AuditView};

/// Content type of an export.
const JSON_LINES: &str = "application/x-ndjson";

/// Endpoints for the audit log (M25).
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/audit", list).about("List audit events").needs(&[Name::AuditRead]),
        Endpoint::get("/audit/_verify", verify).about("Verify the audit log").needs_everywhere(Name::AuditRead),
        Endpoint::get("/audit/_export", export)
            .about("Export audit events as a signed file")
            .returning(JSON_LINES)
            .needs(&[Name::AuditRead]),
    ]
}

/// Returns the events of the space that the path names, or all that the caller may read.
fn view(context: &OpContext, NamesSpace(names_space): NamesSpace) -> Result<AuditView, Forbidden> {
    if names_space { AuditView::of_space(context) } else { AuditView::of(context) }
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    names_space: NamesSpace,
    Query(query): Query<ListAuditEvents>,
) -> Answer<AuditEvents> {
    let page = fleet.audit().list(&view(&context, names_space)?, &question(query)?).await?;
    Ok(Json(AuditEvents {
        items: page.lines.into_iter().map(event).collect(),
        next_search_after: page.next.map(|seq| seq.to_string()),
    }))
}

/// Streams the export. An error after the first piece ends the connection, so that the client does not take the file for complete.
async fn export(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    names_space: NamesSpace,
    Query(query): Query<ExportAuditEvents>,
) -> ApiResult<Response> {
    let view = view(&context, names_space)?;
    let period =
        Period { since: moment("since", query.since.as_deref())?, until: moment("until", query.until.as_deref())? };
    let installation = fleet.server_status().installation().await?;
    let export = fleet.audit().export(&view, installation, period).await?;
    let pieces = try_unfold(export, async |mut export| match export.next().await {
        Ok(piece) => Ok(piece.map(|piece| (piece, export))),
        Err(error) => {
            tracing::error!(error = %chain(&error), "an export of the audit log was aborted");
            Err(error)
        }
    });
    let headers = [
        (CONTENT_TYPE, JSON_LINES),
        (CONTENT_DISPOSITION, "attachment; filename=\"audit.jsonl\""),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

fn moment(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Error> {
    match text.map(Timestamp::parse_rfc3339) {
        None => Ok(None),
        Some(Ok(at)) => Ok(Some(at)),
        Some(Err(_)) => Err(Error::invalid(name, "must be a time, such as 2026-01-02T03:04:05Z")),
    }
}

fn question(query: ListAuditEvents) -> Result<AuditQuery, Error> {
    // The cursor is a sequence number. Lines are immutable and never removed, so it stays valid.
    let not_ours = |_| Error::invalid("searchAfter", "must be nextSearchAfter from the previous response");
    Ok(AuditQuery {
        since: moment("since", query.since.as_deref())?,
        until: moment("until", query.until.as_deref())?,
        actor: query.actor,
        action: query.action,
        subject: query.subject,
        before: query.search_after.map(|text| text.parse().map_err(not_ours)).transpose()?,
        limit: Paging::from_one(None, query.per_page)?.per_page,
    })
}

fn event(line: AuditLine) -> AuditEvent {
    AuditEvent {
        seq: line.seq,
        at: time(line.event.at),
        actor: line.event.actor,
        action: line.event.action,
        subject: line.event.subject,
        detail: line.event.detail,
        address: line.event.address,
        reason: line.event.reason,
        space: line.event.space.map(|space| space.to_string()),
        hash: hex::encode(&line.hash),
    }
}

async fn verify(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<AuditVerdict> {
    let verdict = fleet.audit().verify(&AuditView::whole(&context)?).await?;
    Ok(Json(AuditVerdict {
        intact: verdict.broken.is_none(),
        lines: verdict.lines,
        heads: verdict.heads.into_iter().map(head).collect(),
        broken: verdict.broken.map(defect),
    }))
}

fn head(head: ChainHead) -> AuditHead {
    AuditHead { chain: head.chain, position: head.position, hash: head.hash }
}

fn defect(defect: audit_log::AuditDefect) -> AuditDefect {
    AuditDefect { chain: defect.chain, position: defect.position, reason: defect.fault.to_string() }
}
