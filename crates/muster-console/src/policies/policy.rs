//! `/policies/{id}`: a policy as its file, its agents, its revisions, and what changed between two of them.

use std::cmp::Reverse;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{AgentsRead, PoliciesRead, PrivilegeName};
use muster_core::policy::Policy;
use muster_core::policy::source::restore;
use muster_core::status::Status;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_store::query::{AgentCondition, AgentFilter};
use serde::Deserialize;

use super::compare::get;
use super::differences::Changes;
use super::text::text_of;
use super::{ActiveRollout, TAB, agents, agents_on};
use crate::elsewhere::cli;
use crate::frame::{Frame, page};
use crate::people::People;
use crate::request::Id;
use crate::text::{Badge, Moment};
use crate::visitor::{Params, Visitor};
use crate::{failure, terraform};

/// Maximum number of revisions on the page.
const REVISIONS: usize = 100;

/// Parameters of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The revision to show; the newest one by default.
    revision: Option<i64>,
}

#[derive(Template)]
#[template(path = "policies/policy.html")]
struct PolicyPage {
    frame: Frame,
    id: String,
    description: String,
    active: Option<ActiveRollout>,
    revision: i64,
    newest: i64,
    agents: String,
    by: String,
    updated: Moment,
    is_default: bool,
    is_managed: bool,
    is_protected: bool,
    has_recovery_code: bool,
    text: String,
    statuses: Option<Statuses>,
    revisions: Vec<Revision>,
    /// Number of older revisions that the page does not list.
    older: usize,
    /// The revision before the shown one.
    before: Option<i64>,
    /// What this revision changed.
    changes: Changes,
    cannot_update: &'static str,
    cannot_create: &'static str,
    cannot_delete: &'static str,
    cannot_roll_out: &'static str,
    /// The privilege to create or replace the recovery code, if one of the two is missing.
    cannot_recover: &'static str,
    cannot_rotate: &'static str,
    cli: String,
    api: String,
    terraform: String,
}

impl PolicyPage {
    fn recovery_label(&self) -> &'static str {
        if self.has_recovery_code { "Replace the recovery code" } else { "Create a recovery code" }
    }
}

/// The agents of a policy; those that the visitor may see.
struct Statuses {
    counts: Vec<(Badge, u64)>,
    /// Number of agents that do not run the newest revision.
    behind: u64,
}

struct Revision {
    number: i64,
    at: Moment,
    by: String,
}

/// Shows the page.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(asked): Params<Asked>,
) -> Response {
    match read(&fleet, &visitor, &id, &asked).await {
        Ok(policy) => page(StatusCode::OK, &policy),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor, id: &str, asked: &Asked) -> Result<PolicyPage, Error> {
    let policies = fleet.policies();
    let policy = policies.find::<PoliciesRead>(&visitor.context, id).await?;
    let number = asked.revision.unwrap_or(policy.revision);
    let now = fleet.now();
    let mut shown = (*policy).clone();
    restore(&mut shown, &policies.revision(&policy, number).await?.source);
    let all = policies.revisions(&policy).await?;
    let older = all.len().saturating_sub(REVISIONS);
    let before = all.iter().map(|(other, _, _)| *other).filter(|other| *other < number).max();
    let changes = match before {
        Some(before) => policies.diff(&policy, before, number).await?,
        None => Vec::new(),
    };
    let mut people = People::new(fleet, visitor);
    let mut revisions = Vec::new();
    for (number, at, by) in all.into_iter().take(REVISIONS) {
        revisions.push(Revision { number, at: Moment::new(at, now), by: people.name(&by).await });
    }
    let cannot = |privilege| visitor.lacks(privilege);
    Ok(PolicyPage {
        frame: Frame::new(visitor, policy.name.clone(), TAB),
        id: policy.id.to_string(),
        description: policy.description.clone(),
        active: ActiveRollout::of(fleet, &policy).await?,
        revision: number,
        newest: policy.revision,
        agents: agents(agents_on(fleet, visitor, &policy).await?),
        by: people.name(&policy.updated_by).await,
        updated: Moment::new(policy.updated_at, now),
        is_default: policy.is_default,
        is_managed: policy.is_managed,
        is_protected: policy.fields["is_protected"] == true,
        has_recovery_code: policy.recovery_code_hash.is_some(),
        text: text_of(&shown),
        statuses: statuses(fleet, visitor, &policy).await?,
        revisions,
        older,
        before,
        changes: Changes::of(changes),
        cannot_update: cannot(PrivilegeName::PoliciesUpdate),
        cannot_create: cannot(PrivilegeName::PoliciesCreate),
        cannot_delete: cannot(PrivilegeName::PoliciesDelete),
        cannot_roll_out: cannot(PrivilegeName::PoliciesRollout),
        cannot_recover: match cannot(PrivilegeName::UninstallReveal) {
            "" => cannot(PrivilegeName::UninstallRotate),
            missing => missing,
        },
        cannot_rotate: cannot(PrivilegeName::UninstallRotate),
        cli: cli(visitor, &format!("policy show {}", shell::argument(&policy.name))),
        api: get(visitor, policy.id.as_str()),
        terraform: terraform::policy(visitor, &policy),
    })
}

/// Counts the agents of a policy; `None` for those who may not see agents.
async fn statuses(fleet: &Fleet, visitor: &Visitor, policy: &Policy) -> Result<Option<Statuses>, Error> {
    let Ok(grant) = visitor.context.grant::<AgentsRead>() else { return Ok(None) };
    let gone = AgentCondition::Statuses(vec![Status::Unenrolled]);
    let on = [AgentCondition::Policies(vec![policy.id.clone()]), !gone];
    let mut counts = fleet.agents().count(&grant, &AgentFilter::all(on.clone())).await?;
    counts.sort_by_key(|(status, _)| Reverse(*status));
    let behind: Vec<_> = on.into_iter().chain([!AgentCondition::RunsRevision(policy.revision)]).collect();
    let behind = AgentFilter::all(behind);
    let behind = fleet.agents().count(&grant, &behind).await?;
    Ok(Some(Statuses {
        counts: counts.into_iter().map(|(status, count)| (Badge(status), count)).collect(),
        behind: behind.iter().map(|(_, count)| count).sum(),
    }))
}
