//! `/agents/{id}/timeline`: what happened to an agent: changes of its status, revisions of its policy, actions, and what
//! people did.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{AgentsRead, PoliciesRead};
use muster_core::event::Event;
use muster_core::id::PolicyId;
use muster_core::reported::shortened_to;
use muster_core::rollout::Rollout;
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::audit_log::{AuditQuery, AuditView};
use muster_fleet::authority::Authorized;
use serde::Deserialize;

use super::agent::name_of;
use super::asked::{TAB, encoded};
use super::report::SHORT;
use super::words;
use crate::actions::{policy_names, state_text, title_of};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Base;
use crate::people::People;
use crate::request::Id;
use crate::subjects::Subjects;
use crate::text::Moment;
use crate::visitor::{Params, Visitor};

/// Number of entries of each kind that are read.
const ENTRIES: u32 = 100;

/// Parameters of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Kind of entries; empty for all.
    kind: String,
}

#[derive(Template)]
#[template(path = "agents/timeline.html")]
struct TimelinePage {
    frame: Frame,
    id: String,
    kinds: Vec<(&'static str, &'static str, bool)>,
    entries: Vec<Entry>,
    /// Why the audit events are missing.
    no_audit: bool,
    /// The lines of the audit log, as a command and as a request; empty if the person may not read them.
    cli: String,
    api: String,
}

/// An entry: kind, time, text and link.
struct Entry {
    kind: &'static str,
    at: Timestamp,
    moment: Moment,
    text: String,
    /// Its code in filters, in the API and in alerts; empty if it has none.
    code: String,
    detail: String,
    link: String,
}

impl Entry {
    /// Returns the text and the second, which are equal for an event and the line of the audit log about it.
    fn key(&self) -> (String, String) {
        (self.text.clone(), self.at.to_rfc3339_seconds())
    }
}

/// Kinds of entries, by which the page can be filtered.
const KINDS: [(&str, &str); 4] =
    [("event", "Status"), ("policy", "Policy"), ("action", "Actions"), ("audit", "Audit log")];

/// Shows the page.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(asked): Params<Asked>,
) -> Response {
    match read(&fleet, &visitor, &id, &asked.kind).await {
        Ok(timeline) => page(StatusCode::OK, &timeline),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor, id: &str, kind: &str) -> Result<TimelinePage, Error> {
    let agent = fleet.agents().find::<AgentsRead>(&visitor.context, id).await?;
    let is_wanted = |one: &str| kind.is_empty() || kind == one;
    let (mut people, mut subjects) = (People::new(fleet, visitor), Subjects::new(fleet, visitor));
    let mut entries = Vec::new();
    if is_wanted("event") {
        entries.extend(events(fleet, &agent).await?);
    }
    if is_wanted("policy") {
        entries.extend(revisions(fleet, visitor, &mut people, &agent).await?);
    }
    if is_wanted("action") {
        entries.extend(actions(fleet, visitor, &mut people, &agent).await?);
    }
    let log = AuditView::of(&visitor.context).ok();
    let no_audit = log.is_none();
    if let Some(log) = log.filter(|_| is_wanted("audit")) {
        entries.extend(audit(fleet, &visitor.base, &mut subjects, &log, &agent).await?);
    }
    let mut entries = merged(entries);
    let subject = format!("agent:{}", agent.id);
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.at));
    Ok(TimelinePage {
        frame: Frame::new(visitor, format!("{}: timeline", name_of(&agent)), TAB),
        id: agent.id.to_string(),
        kinds: KINDS.map(|(key, name)| (key, name, key == kind)).into(),
        entries,
        cli: cli(visitor, &format!("audit list {}", shell::option("--subject", &subject))),
        api: if no_audit {
            String::new()
        } else {
            curl(visitor, "GET", &format!("/api/fleet/audit?subject={}", encoded(&subject)), "")
        },
        no_audit,
    })
}

/// Merges events with the lines of the audit log about them, which tell who has caused them.
fn merged(entries: Vec<Entry>) -> Vec<Entry> {
    let (mut lines, mut merged): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.kind == "audit");
    for event in merged.iter_mut().filter(|entry| entry.kind == "event") {
        if let Some(position) = lines.iter().position(|line| line.key() == event.key()) {
            let line = lines.remove(position);
            (event.link, event.detail) = (line.link, [&event.detail, &line.detail].map(String::as_str).join(" "));
        }
    }
    merged.extend(lines);
    merged
}

async fn events(fleet: &Fleet, agent: &Authorized<AgentRecord, AgentsRead>) -> Result<Vec<Entry>, Error> {
    let now = fleet.now();
    let entry = |(_, event): (i64, Event)| {
        let message = event.detail["message"].as_str().or(event.detail["reason"].as_str()).unwrap_or_default();
        let detail = shortened_to(message, SHORT).into_owned();
        let text = shortened_to(&words::of_event(&event), SHORT).into_owned();
        let entry = entry("event", event.at, now, text, detail, String::new());
        Entry { code: event.kind.as_str().to_owned(), ..entry }
    };
    Ok(fleet.agents().events_of(agent, None, ENTRIES).await?.into_iter().map(entry).collect())
}

/// Returns the revisions of the policy since the agent enrolled, and since when it runs its own.
async fn revisions(
    fleet: &Fleet,
    visitor: &Visitor,
    people: &mut People<'_>,
    agent: &AgentRecord,
) -> Result<Vec<Entry>, Error> {
    let now = fleet.now();
    let mut entries = Vec::new();
    if let Some(at) = agent.policy_revision_at.filter(|_| agent.policy_revision > 0) {
        let text = format!("Applied revision {} of its policy", agent.policy_revision);
        entries.push(entry("policy", at, now, text, String::new(), String::new()));
    }
    let Some(id) = agent.policy_id.as_ref().map(PolicyId::as_str) else { return Ok(entries) };
    let Ok(policy) = fleet.policies().find::<PoliciesRead>(&visitor.context, id).await else { return Ok(entries) };
    let link = format!("{}/policies/{id}", visitor.base);
    let revisions = fleet.policies().revisions(&policy).await?.into_iter();
    // A revision with which a rollout has not reached the agent is not for it yet.
    let rollout = fleet.rollouts().active_of(&policy).await?;
    let wanted = Rollout::wanted_revision(rollout.as_ref(), agent, policy.revision);
    let is_due = |revision: i64| revision <= wanted;
    let since_then =
        revisions.filter(|(revision, at, _)| *at >= agent.enrolled_at && is_due(*revision)).take(ENTRIES as usize);
    for (revision, at, by) in since_then {
        let text = format!("Policy {} changed to revision {revision}", policy.name);
        entries.push(entry("policy", at, now, text, format!("by {}", people.name(&by).await), link.clone()));
    }
    Ok(entries)
}

async fn actions(
    fleet: &Fleet,
    visitor: &Visitor,
    people: &mut People<'_>,
    agent: &Authorized<AgentRecord, AgentsRead>,
) -> Result<Vec<Entry>, Error> {
    let now = fleet.now();
    let found = fleet.actions().of_agent(agent, ENTRIES).await?;
    let names = policy_names(fleet, visitor, &found.iter().map(|one| &one.action).collect::<Vec<_>>()).await?;
    let mut entries = Vec::new();
    for one in found {
        let title = shortened_to(&title_of(&one.action, &names), SHORT).into_owned();
        let text = format!("{title}: {}", state_text(one.state));
        let link = format!("{}/actions/{}", visitor.base, one.action.id);
        let by = format!("by {}", people.name(&one.action.created_by).await);
        let entry = entry("action", one.action.created_at, now, text, by, link);
        entries.push(Entry { code: one.action.kind.as_str().to_owned(), ..entry });
    }
    Ok(entries)
}

async fn audit(
    fleet: &Fleet,
    base: &Base,
    subjects: &mut Subjects<'_>,
    log: &AuditView,
    agent: &AgentRecord,
) -> Result<Vec<Entry>, Error> {
    let now = fleet.now();
    let subject = format!("agent:{}", agent.id);
    let link = format!("{base}/audit?subject={}", encoded(&subject));
    let question =
        AuditQuery { subject: Some(subject), since: Some(agent.enrolled_at), limit: ENTRIES, ..AuditQuery::default() };
    let mut entries = Vec::new();
    for line in fleet.audit().list(log, &question).await?.lines {
        let event = line.event;
        let text = shortened_to(&words::of_audit(&event), SHORT).into_owned();
        let reason = event.reason.map(|reason| format!("{reason} ")).unwrap_or_default();
        let by = format!("{reason}by {}", subjects.actor(&event.actor).await);
        let entry = entry("audit", event.at, now, text, by, link.clone());
        entries.push(Entry { code: event.action, ..entry });
    }
    Ok(entries)
}

fn entry(kind: &'static str, at: Timestamp, now: Timestamp, text: String, detail: String, link: String) -> Entry {
    Entry { kind, at, moment: Moment::new(at, now), text, code: String::new(), detail, link }
}
