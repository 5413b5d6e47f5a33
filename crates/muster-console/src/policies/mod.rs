//! `/policies`: the policies of a space, with their agents. A change of a policy goes from the editor ([`edit`]) or the
//! settings ([`settings`]) over a review ([`review`]) to the service that applies policy files.

mod acts;
pub mod change;
mod compare;
mod create;
pub mod differences;
pub mod edit;
mod hints;
mod policy;
mod recovery_code;
mod review;
mod settings;
pub mod text;

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use muster_core::Error;
use muster_core::authorization::{Grant, PoliciesRead, PrivilegeName};
use muster_core::policy::Policy;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::authority::Authorized;
use muster_store::query::Page;
use serde::Deserialize;

use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::pager::Pager;
use crate::rollouts::StateText;
use crate::text::Moment;
use crate::visitor::{Params, Visitor};
use crate::{Route, failure};

pub use review::refused;

/// Path of the list.
pub const TAB: &str = "/policies";
/// Path of the policies in the API.
pub const API: &str = "/api/fleet/agent_policies";
/// Number of policies on a page of the list.
const ROWS: u32 = 100;
/// Maximum number of policies to choose from.
const CHOICES: u32 = 1_000;

/// The pages of policies.
pub fn routes() -> Vec<Route> {
    vec![
        (TAB, get(show)),
        ("/policies/new", get(create::show).post(create::create)),
        ("/policies/{id}", get(policy::show)),
        ("/policies/{id}/edit", get(edit::show).post(review::review)),
        // What a login leads back to after the session has expired.
        ("/policies/{id}/save", get(edit::show).post(review::save)),
        ("/policies/{id}/settings", get(settings::show).post(settings::review)),
        ("/policies/{id}/diff", get(compare::show)),
        ("/policies/{id}/compiled", get(compare::compiled)),
        ("/policies/{id}/rollback", get(acts::ask_roll_back).post(acts::roll_back)),
        ("/policies/{id}/copy", get(acts::ask_copy).post(acts::copy)),
        ("/policies/{id}/recovery-code", get(recovery_code::ask_create).post(recovery_code::create)),
        ("/policies/{id}/recovery-code/remove", get(recovery_code::ask_remove).post(recovery_code::remove)),
        ("/policies/{id}/delete", get(acts::ask_delete).post(acts::delete)),
    ]
}

/// Parameters of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    page: u32,
}

#[derive(Template)]
#[template(path = "policies/list.html")]
struct PoliciesPage {
    frame: Frame,
    rows: Vec<PolicyRow>,
    pager: Pager,
    /// The privilege to create policies, if it is missing.
    cannot_create: &'static str,
    cli: String,
    api: String,
}

/// A policy with the number of its agents.
pub struct PolicyRow {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Newest revision.
    pub revision: i64,
    /// Number of active agents.
    pub agents: u64,
    /// Whether agents without a key of a policy get it.
    pub is_default: bool,
    /// Whether it can only be changed with `--force`.
    pub is_managed: bool,
    /// Time of the last change.
    pub updated: Moment,
}

/// Shows the list.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    match read(&fleet, &visitor, &asked).await {
        Ok(policies) => page(StatusCode::OK, &policies),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor, asked: &Asked) -> Result<PoliciesPage, Error> {
    let grant = visitor.context.grant()?;
    let rows = Page { offset: asked.page.saturating_mul(ROWS), limit: ROWS };
    let found = fleet.policies().list(&grant, rows).await?;
    Ok(PoliciesPage {
        frame: Frame::new(visitor, "Policies", TAB),
        pager: Pager::numbered(asked.page, ROWS, found.total, |page| format!("{}{TAB}?page={page}", visitor.base)),
        rows: with_agents(fleet, &grant, found.items).await?,
        cannot_create: visitor.lacks(PrivilegeName::PoliciesCreate),
        cli: cli(visitor, "policy list"),
        api: curl(visitor, "GET", API, ""),
    })
}

/// Reads the policies with the numbers of their agents, by name.
pub async fn rows(fleet: &Fleet, grant: &Grant<PoliciesRead>) -> Result<Vec<PolicyRow>, Error> {
    let found = fleet.policies().list(grant, Page { offset: 0, limit: CHOICES }).await?.items;
    with_agents(fleet, grant, found).await
}

async fn with_agents(fleet: &Fleet, grant: &Grant<PoliciesRead>, found: Vec<Policy>) -> Result<Vec<PolicyRow>, Error> {
    let counts: HashMap<_, _> = fleet.policies().agent_counts(grant).await?.into_iter().collect();
    let now = fleet.now();
    let row = |policy: Policy| row(counts.get(&policy.id).copied().unwrap_or(0), policy, now);
    Ok(found.into_iter().map(row).collect())
}

fn row(agents: u64, policy: Policy, now: Timestamp) -> PolicyRow {
    PolicyRow {
        agents,
        updated: Moment::new(policy.updated_at, now),
        id: policy.id.to_string(),
        name: policy.name,
        description: policy.description,
        revision: policy.revision,
        is_default: policy.is_default,
        is_managed: policy.is_managed,
    }
}

/// Returns the number of active agents on a policy.
async fn agents_on(fleet: &Fleet, visitor: &Visitor, policy: &Policy) -> Result<u64, Error> {
    let counts = fleet.policies().agent_counts(&visitor.context.grant()?).await?;
    Ok(counts.iter().find(|(id, _)| *id == policy.id).map_or(0, |(_, count)| *count))
}

/// The rollout because of which a policy cannot be changed now.
struct ActiveRollout {
    id: String,
    state: StateText,
}

impl ActiveRollout {
    async fn of(fleet: &Fleet, policy: &Authorized<Policy, PoliciesRead>) -> Result<Option<Self>, Error> {
        let found = fleet.rollouts().active_of(policy).await?;
        Ok(found.map(|rollout| Self { id: rollout.id.to_string(), state: StateText::of(&rollout.state) }))
    }
}

/// `1 agent`, `2 agents`.
pub fn agents(count: u64) -> String {
    format!("{count} {}", if count == 1 { "agent" } else { "agents" })
}
