//! `/audit`: the audit log, newest first.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::audit_log::{AuditLine, AuditQuery, AuditView};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::failure;
use crate::frame::{Frame, page};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};

/// Path of the page.
const TAB: &str = "/audit";
/// Number of lines on the page.
const ROWS: u32 = 100;
/// Maximum length of the details of a line, characters.
const DETAIL: usize = 400;

/// Parameters of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    actor: String,
    action: String,
    subject: String,
    before: Option<i64>,
}

#[derive(Template)]
#[template(path = "settings/audit.html")]
struct AuditPage<'a> {
    frame: Frame,
    asked: &'a Asked,
    rows: Vec<Row>,
    next: String,
}

struct Row {
    at: Moment,
    actor: String,
    action: String,
    subject: String,
    address: String,
    reason: String,
    detail: String,
}

/// Shows the page.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    match read(&fleet, &visitor, &asked).await {
        Ok(lines) => page(StatusCode::OK, &lines),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read<'a>(fleet: &Fleet, visitor: &Visitor, asked: &'a Asked) -> Result<AuditPage<'a>, Error> {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let query = AuditQuery {
        actor: given(&asked.actor),
        action: given(&asked.action),
        subject: given(&asked.subject),
        before: asked.before,
        limit: ROWS,
        ..AuditQuery::default()
    };
    let found = fleet.audit().list(&AuditView::of(&visitor.context)?, &query).await?;
    let now = fleet.now();
    let frame = Frame::new(visitor, "Audit log", TAB);
    let next = found.next.map(|before| link(&frame.base, asked, before)).unwrap_or_default();
    Ok(AuditPage { frame, asked, rows: found.lines.into_iter().map(|line| row(line, now)).collect(), next })
}

fn link(base: &str, asked: &Asked, before: i64) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (actor, action, subject) = (encoded(&asked.actor), encoded(&asked.action), encoded(&asked.subject));
    format!("{base}{TAB}?actor={actor}&action={action}&subject={subject}&before={before}")
}

fn row(line: AuditLine, now: Timestamp) -> Row {
    let event = line.event;
    Row {
        at: Moment::new(event.at, now),
        actor: event.actor,
        action: event.action,
        subject: event.subject,
        address: event.address.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        detail: match event.detail.as_object() {
            Some(members) if members.is_empty() => String::new(),
            _ => event.detail.to_string().chars().take(DETAIL).collect(),
        },
    }
}
