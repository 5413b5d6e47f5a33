//! `/hosts/{id}`: a host with its agents, what they report, its host checks and its software.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use muster_core::authorization::PrivilegeName;
use muster_core::fleetd::schedule::QueryFailure;
use muster_core::plural::counted;
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::agent_views::AgentView;
use muster_fleet::host_checks::AnsweredCheck;
use muster_fleet::host_views::HostView;
use muster_fleet::software::Installed;
use serde::Deserialize;

use super::TAB;
use super::check_history::former_answer;
use super::facts::{cut, facts};
use super::installs::on_host::OnHost;
use super::inventory::InventoryRows;
use super::label_hosts::OfHost;
use super::runs::Runs;
use crate::agents::agent::name_or_id;
use crate::agents::asked::encoded;
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::Frame;
use crate::pager::Pager;
use crate::request::{Id, Pressed};
use crate::settings::shown;
use crate::text::{Badge, Moment};
use crate::visitor::{Params, Visitor};
use crate::{failure, notice};

/// Path of the hosts in the API.
const API: &str = "/api/fleet/hosts";
/// Number of packages on the page of a host, and on a page of its software.
const FEW: usize = 10;
const ROWS: u32 = 100;

#[derive(Template)]
#[template(path = "hosts/host.html")]
struct HostPage {
    frame: Frame,
    id: String,
    name: String,
    os: String,
    machine_id: String,
    first_seen: Moment,
    seen: Option<Moment>,
    facts: Vec<(&'static str, String)>,
    agents: Vec<AgentRow>,
    /// Whether it has agents of fleetd, which can move to another space.
    has_fleetd: bool,
    /// Whether osquery runs on it, which answers checks and queries.
    has_osquery: bool,
    checks: Vec<CheckRow>,
    failing: usize,
    software: SoftwareRows,
    inventory: InventoryRows,
    /// Scheduled queries that osqueryd does not run any more.
    denylisted: Vec<String>,
    failing_queries: Vec<FailingQuery>,
    /// Labels and packs, which `templates/hosts/labels.html` shows.
    labels: OfHost,
    installs: OnHost,
    runs: Runs,
    lacks: Lacks,
    cli: String,
    api: String,
}

/// The privileges that the person does not have; empty if it does.
struct Lacks {
    refetch: &'static str,
    query: &'static str,
    delete: &'static str,
}

struct AgentRow {
    id: String,
    family: &'static str,
    badge: Badge,
    version: String,
    seen: Option<Moment>,
}

/// A host check with the host's answer.
/// Scheduled query that fails.
struct FailingQuery {
    name: String,
    error: String,
    since: Moment,
}

struct CheckRow {
    id: String,
    name: String,
    state: (&'static str, &'static str, &'static str),
    since: Option<Moment>,
    /// What it answered before, and for how long; empty if that is not known.
    former: String,
    error: String,
    /// The remedy, if the host fails.
    resolution: String,
}

/// Software of a host, as far as a page shows it.
#[derive(Default)]
struct SoftwareRows {
    rows: Vec<Package>,
    total: usize,
    changed: Option<Moment>,
    left_out: u64,
}

struct Package {
    id: String,
    name: String,
    version: String,
    source: &'static str,
}

/// Shows a host.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let view = fleet.agents().host(&visitor.context.grant()?, &id).await?;
        let parts = Parts {
            labels: OfHost::of(&fleet, &visitor, &view).await?,
            installs: OnHost::of(&fleet, &visitor, &view).await?,
            runs: Runs::of(&fleet, &visitor, &view).await?,
        };
        Ok(content(&visitor, &view, parts, fleet.now()))
    };
    shown(&visitor, TAB, made.await)
}

/// What pages of other families show of a host.
struct Parts {
    labels: OfHost,
    installs: OnHost,
    runs: Runs,
}

fn content(visitor: &Visitor, view: &HostView, parts: Parts, now: Timestamp) -> HostPage {
    let Parts { labels, installs, runs } = parts;
    let id = view.host.id.to_string();
    let name = cut(&name_of(view));
    let may_run_saved = visitor.lacks(PrivilegeName::QueriesRunSaved);
    let checks: Vec<CheckRow> = view.checks.iter().map(|one| check_row(one, now)).collect();
    HostPage {
        frame: Frame::new(visitor, name.clone(), TAB),
        os: cut(&view.os()),
        machine_id: view.host.machine_id.clone().unwrap_or_default(),
        first_seen: Moment::new(view.host.created_at, now),
        seen: Moment::of(view.last_seen(), now),
        facts: facts(view),
        // Newest first: old enrollments of the host are below the one that is in use.
        agents: view.agents.iter().rev().map(|agent| agent_row(agent, now)).collect(),
        has_fleetd: view.agents.iter().any(|agent| agent.details.record.family.is_one_per_machine()),
        has_osquery: view.failing.is_some(),
        failing: view.checks.iter().filter(|one| passes(one) == Some(false)).count(),
        software: packages(&view.software, "", 0..FEW, now),
        inventory: InventoryRows::of(&view.inventory, now),
        denylisted: view.denylisted().iter().map(|name| cut(name)).collect(),
        failing_queries: view.failures.iter().filter_map(|one| failing_query(one, now)).collect(),
        installs,
        runs,
        lacks: Lacks {
            refetch: visitor.lacks(PrivilegeName::DiagnosticsRequest),
            query: may_run_saved,
            delete: visitor.lacks(PrivilegeName::AgentsPurge),
        },
        cli: cli(visitor, &format!("host show {}", shell::argument(&id))),
        api: curl(visitor, "GET", &format!("{API}/{id}"), ""),
        labels,
        checks,
        name,
        id,
    }
}

/// Returns the name of a host for its pages.
pub fn name_of(view: &HostView) -> String {
    name_or_id(&view.hostname(), view.host.id.as_str()).to_owned()
}

fn agent_row(view: &AgentView, now: Timestamp) -> AgentRow {
    let record = &view.details.record;
    AgentRow {
        id: record.id.to_string(),
        family: record.family.program(),
        badge: Badge(record.status),
        version: cut(&record.agent_version),
        seen: Moment::of(view.last_checkin, now),
    }
}

fn passes(check: &AnsweredCheck) -> Option<bool> {
    check.result.as_ref()?.passes
}

fn failing_query(one: &QueryFailure, now: Timestamp) -> Option<FailingQuery> {
    Some(FailingQuery { name: cut(&one.name), error: cut(one.error.as_ref()?), since: Moment::new(one.since, now) })
}

fn check_row(one: &AnsweredCheck, now: Timestamp) -> CheckRow {
    let AnsweredCheck { check, result, .. } = one;
    let passes = passes(one);
    CheckRow {
        id: check.id.to_string(),
        name: check.name.clone(),
        state: match passes {
            Some(true) => ("good", "●", "passes"),
            Some(false) => ("bad", "✕", "fails"),
            // Also if the query has only failed on the host so far, which is neither.
            None => ("quiet", "○", "no answer yet"),
        },
        since: result.as_ref().map(|result| Moment::new(result.since, now)),
        former: former_answer(one),
        error: result.as_ref().map(|result| cut(&result.error)).unwrap_or_default(),
        resolution: if passes == Some(false) { check.resolution.clone() } else { String::new() },
    }
}

/// Returns a part of the software whose name contains a text.
fn packages(installed: &Installed, q: &str, part: std::ops::Range<usize>, now: Timestamp) -> SoftwareRows {
    let q = q.trim().to_lowercase();
    let matching = installed.software.iter().filter(|(_, one)| one.name.to_lowercase().contains(&q));
    let row = |(id, one): &(muster_core::fleetd::software::SoftwareId, muster_core::fleetd::software::Software)| {
        Package { id: id.to_string(), name: cut(&one.name), version: cut(&one.version), source: one.source.as_str() }
    };
    SoftwareRows {
        total: matching.clone().count(),
        rows: matching.skip(part.start).take(part.len()).map(row).collect(),
        changed: Moment::of(installed.changed_at, now),
        left_out: installed.left_out,
    }
}

/// Parameters of the list of software.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct AskedSoftware {
    q: String,
    page: u32,
}

#[derive(Template)]
#[template(path = "hosts/host_software.html")]
struct HostSoftwarePage {
    frame: Frame,
    id: String,
    q: String,
    software: SoftwareRows,
    pager: Pager,
    cli: String,
    api: String,
}

/// Shows the software of a host.
pub async fn software(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(asked): Params<AskedSoftware>,
) -> Response {
    let made = async {
        let view = fleet.agents().host(&visitor.context.grant()?, &id).await?;
        let start = asked.page.saturating_mul(ROWS) as usize;
        let software = packages(&view.software, &asked.q, start..start + ROWS as usize, fleet.now());
        let link = |page: u32| format!("{}{TAB}/{id}/software?q={}&page={page}", visitor.base, encoded(&asked.q));
        Ok(HostSoftwarePage {
            frame: Frame::new(&visitor, format!("Software of {}", cut(&name_of(&view))), TAB),
            pager: Pager::numbered(asked.page, ROWS, software.total as u64, link),
            cli: cli(&visitor, &format!("host show {} --software", shell::argument(&id))),
            api: curl(&visitor, "GET", &format!("{API}/{id}"), ""),
            q: asked.q,
            software,
            id: view.host.id.to_string(),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Makes osquery report its details and answer the host checks.
pub async fn refetch(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        fleet.agents().refetch_host(&visitor.context, &id).await?;
        let text = "The host reports its details, its software and its checks with its next requests.";
        Ok::<_, Error>(notice::redirect(visitor.base.link(format_args!("{TAB}/{id}")), text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// Asks before a host is deleted.
pub async fn ask_to_delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let view = fleet.agents().host(&visitor.context.grant()?, &id).await?;
        let agents = fleet.agents().delete_host(&visitor.context.clone().trying(true), view.host.id.as_str()).await?;
        let families: Vec<&str> = view.agents.iter().map(|agent| agent.details.record.family.as_str()).collect();
        let title = format!("Delete the host {}?", cut(&name_of(&view)));
        Ok(Confirm {
            text: vec![
                format!(
                    "{} of the host ({}) will be deleted, with all of their credentials: the server rejects their keys \
                     from then on. The software and the answers to host checks are deleted, too. This cannot be undone.",
                    counted(agents, "agent"),
                    families.join(", ")
                ),
                "A program that still runs on the host and has a valid enroll secret enrolls again. To prevent that, \
                 uninstall it, or revoke the secret."
                    .to_owned(),
            ],
            button: "Delete the host",
            cli: cli(&visitor, &format!("host delete {}", shell::argument(&id))),
            api: curl(&visitor, "DELETE", &format!("{API}/{id}"), ""),
            ..Confirm::of(&visitor, title, TAB, &format!("{TAB}/{}", view.host.id), "delete")
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Deletes a host with its agents.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let agents = fleet.agents().delete_host(&visitor.context, &id).await?;
        let text = format!("The host is deleted, with {}.", counted(agents, "agent"));
        Ok::<_, Error>(notice::redirect(visitor.base.link(TAB), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
