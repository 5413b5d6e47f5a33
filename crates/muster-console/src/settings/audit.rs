//! `/audit`: the audit log, newest first.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind, shell};
use muster_fleet::Fleet;
use muster_fleet::audit_log::{AuditLine, AuditPage as AuditPageOf, AuditQuery, AuditView};
use muster_management::error::status_of;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{given, shown};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Base;
use crate::people::{self, People};
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
    /// Times in RFC 3339, or days such as `2026-01-31`.
    since: String,
    until: String,
    before: Option<i64>,
}

#[derive(Template)]
#[template(path = "settings/audit.html")]
struct AuditPage<'a> {
    frame: Frame,
    asked: &'a Asked,
    rows: Vec<Row>,
    next: String,
    /// Path of the signed export of the period.
    export: String,
    /// Whether the person may verify the whole log.
    may_verify: bool,
    error: Option<Error>,
    cli: String,
    api: String,
}

struct Row {
    at: Moment,
    actor: String,
    actor_name: String,
    action: String,
    subject: String,
    subject_name: String,
    address: String,
    reason: String,
    detail: String,
}

/// Shows the page.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    match read(&fleet, &visitor, &asked).await {
        Ok(shown) => page(shown.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &shown),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read<'a>(fleet: &Fleet, visitor: &Visitor, asked: &'a Asked) -> Result<AuditPage<'a>, Error> {
    let view = AuditView::of(&visitor.context)?;
    let mut actor = asked.actor.clone();
    let (found, error) = match query(fleet, visitor, asked).await {
        Ok(query) => {
            let found = fleet.audit().list(&view, &query).await?;
            actor = query.actor.unwrap_or_default();
            (found, None)
        }
        // The form is shown again with what was typed.
        Err(error) if error.kind == ErrorKind::Invalid => (AuditPageOf::default(), Some(error)),
        Err(error) => return Err(error),
    };
    let now = fleet.now();
    let (mut people, mut rows) = (People::new(fleet, visitor), Vec::new());
    for line in found.lines {
        rows.push(row(line, &mut people, now).await);
    }
    let frame = Frame::new(visitor, "Audit log", TAB);
    let (command, path) = elsewhere(&actor, asked);
    Ok(AuditPage {
        next: found.next.map(|before| format!("{}&before={before}", link(&frame.base, asked))).unwrap_or_default(),
        export: export(&frame.base, asked),
        may_verify: AuditView::whole(&visitor.context).is_ok(),
        rows,
        cli: cli(visitor, &command),
        api: curl(visitor, "GET", &path, ""),
        frame,
        asked,
        error,
    })
}

/// Returns the command and the path in the API that list the same events.
fn elsewhere(actor: &str, asked: &Asked) -> (String, String) {
    let [since, until] = [("since", &asked.since), ("until", &asked.until)].map(|(field, text)| time(field, text));
    let filters = [
        ("actor", actor),
        ("action", asked.action.trim()),
        ("subject", asked.subject.trim()),
        ("since", since.as_str()),
        ("until", until.as_str()),
    ];
    let given = || filters.iter().filter(|(_, text)| !text.is_empty());
    let flags = given().map(|(name, text)| format!(" {}", shell::option(&format!("--{name}"), text)));
    let pairs = given().map(|(name, text)| format!("{name}={}", utf8_percent_encode(text, NON_ALPHANUMERIC)));
    let pairs = pairs.collect::<Vec<_>>().join("&");
    let path = if pairs.is_empty() { "/api/fleet/audit".to_owned() } else { format!("/api/fleet/audit?{pairs}") };
    (format!("audit list{}", flags.collect::<String>()), path)
}

async fn query(fleet: &Fleet, visitor: &Visitor, asked: &Asked) -> Result<AuditQuery, Error> {
    let actor = match given(&asked.actor) {
        Some(typed) => Some(people::actor(fleet, visitor, &typed).await?),
        None => None,
    };
    Ok(AuditQuery {
        actor,
        action: given(&asked.action),
        subject: given(&asked.subject),
        since: moment("since", &asked.since)?,
        until: moment("until", &asked.until)?,
        before: asked.before,
        limit: ROWS,
    })
}

/// Parses a time, or a day in UTC.
fn moment(field: &str, text: &str) -> Result<Option<Timestamp>, Error> {
    let Some(text) = given(text) else { return Ok(None) };
    let full = if text.contains('T') { text } else { format!("{text}T00:00:00Z") };
    let parsed = Timestamp::parse_rfc3339(&full);
    parsed.map(Some).map_err(|_| Error::invalid(field, "must be a day, such as 2026-01-31, or a time in RFC 3339"))
}

/// Returns the link to the page with these filters.
fn link(base: &Base, asked: &Asked) -> String {
    let fields = [
        ("actor", &asked.actor),
        ("action", &asked.action),
        ("subject", &asked.subject),
        ("since", &asked.since),
        ("until", &asked.until),
    ];
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> = fields.iter().map(|(name, text)| format!("{name}={}", encoded(text))).collect();
    format!("{base}{TAB}?{}", pairs.join("&"))
}

/// Returns a time as the API takes it; empty if there is none, or if it is invalid, which the page says.
fn time(field: &str, text: &str) -> String {
    moment(field, text).ok().flatten().map(Timestamp::to_rfc3339_seconds).unwrap_or_default()
}

/// Returns the link to the signed file of the period.
fn export(base: &Base, asked: &Asked) -> String {
    let period = [("since", time("since", &asked.since)), ("until", time("until", &asked.until))];
    let pairs = period.into_iter().filter(|(_, at)| !at.is_empty()).map(|(name, at)| format!("{name}={at}"));
    format!("{base}/api/fleet/audit/_export?{}", pairs.collect::<Vec<_>>().join("&"))
}

#[derive(Template)]
#[template(path = "settings/audit_verified.html")]
struct VerifiedPage {
    frame: Frame,
    lines: u64,
    heads: Vec<(String, i64, String)>,
    broken: String,
    cli: String,
    api: String,
}

/// Verifies the whole log, and shows the result.
pub async fn verify(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let verdict = fleet.audit().verify(&AuditView::whole(&visitor.context)?).await?;
        let broken = verdict.broken.map(|one| format!("chain {}, line {}: {}", one.chain, one.position, one.fault));
        let heads = verdict.heads.into_iter().map(|head| (head.chain, head.position, head.hash));
        Ok(VerifiedPage {
            frame: Frame::new(&visitor, "Verification of the audit log", TAB),
            lines: verdict.lines,
            heads: heads.collect(),
            broken: broken.unwrap_or_default(),
            cli: cli(&visitor, "audit verify"),
            api: curl(&visitor, "GET", "/api/fleet/audit/_verify", ""),
        })
    };
    shown(&visitor, TAB, made.await)
}

async fn row(line: AuditLine, people: &mut People<'_>, now: Timestamp) -> Row {
    let event = line.event;
    Row {
        at: Moment::new(event.at, now),
        actor_name: people.name(&event.actor).await,
        subject_name: people.name(&event.subject).await,
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
