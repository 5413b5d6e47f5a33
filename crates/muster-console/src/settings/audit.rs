//! `/audit`: the audit log, newest first.

mod details;

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

use self::details::Details;
use super::{given, shown};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Base;
use crate::people;
use crate::preferences::{in_field, parse_time, zone_name};
use crate::subjects::{Shown, Subjects};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};

/// Path of the page.
const TAB: &str = "/audit";
/// Number of lines on the page.
const ROWS: u32 = 100;

/// Parameters of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    actor: String,
    action: String,
    subject: String,
    /// Times in RFC 3339, or, as browsers send them, days and times in the time zone of the person.
    since: String,
    until: String,
    before: Option<i64>,
}

#[derive(Template)]
#[template(path = "settings/audit.html")]
struct AuditPage<'a> {
    frame: Frame,
    asked: &'a Asked,
    /// The period, as the form shows it.
    since: String,
    until: String,
    zone: String,
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
    /// As filters take it.
    subject: String,
    shown: Shown,
    address: String,
    reason: String,
    details: Details,
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
    let (mut subjects, mut rows) = (Subjects::new(fleet, visitor), Vec::new());
    for line in found.lines {
        rows.push(row(line, &mut subjects, now).await);
    }
    let frame = Frame::new(visitor, "Audit log", TAB);
    let (command, path) = elsewhere(&actor, asked);
    Ok(AuditPage {
        next: found.next.map(|before| format!("{}&before={before}", link(&frame.base, asked))).unwrap_or_default(),
        export: export(&frame.base, asked),
        may_verify: AuditView::whole(&visitor.context).is_ok(),
        since: in_form(&asked.since),
        until: in_form(&asked.until),
        zone: zone_name(),
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

fn moment(field: &str, text: &str) -> Result<Option<Timestamp>, Error> {
    let Some(text) = given(text) else { return Ok(None) };
    let parsed = parse_time(&text).map(Some);
    parsed.ok_or_else(|| Error::invalid(field, "must be a day, such as 2026-01-31, or a time in RFC 3339"))
}

/// Returns a time as its field shows it; what was typed if it is invalid.
fn in_form(text: &str) -> String {
    parse_time(text).map_or_else(|| text.to_owned(), in_field)
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

async fn row(line: AuditLine, subjects: &mut Subjects<'_>, now: Timestamp) -> Row {
    let event = line.event;
    let sides = [&event.detail, &event.detail["after"], &event.detail["before"]];
    let told = sides.into_iter().find_map(|side| side["name"].as_str()).unwrap_or_default().to_owned();
    let binding = if event.subject.starts_with("binding:") { subjects.binding(&event.detail).await } else { None };
    // The role and who has it are its name then, and need not be repeated.
    let mut detail = event.detail.clone();
    if let (Some(_), Some(members)) = (&binding, detail.as_object_mut()) {
        members.retain(|name, _| !matches!(name.as_str(), "user" | "group" | "role"));
    }
    let mut shown = match binding {
        Some(shown) => shown,
        None => subjects.shown(&event.subject, &told).await,
    };
    if event.action.ends_with(".delete") {
        shown.link.clear();
    }
    Row {
        at: Moment::new(event.at, now),
        actor_name: subjects.actor(&event.actor).await,
        shown,
        details: Details { document: Details::of(&event.detail).document, ..Details::of(&detail) },
        actor: event.actor,
        action: event.action,
        subject: event.subject,
        address: event.address.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
    }
}
