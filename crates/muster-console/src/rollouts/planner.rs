//! `/rollouts/new`: the plan of a rollout, with its waves drawn before they start. A change of a policy comes from the
//! review of the change; an upgrade is chosen here.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{AgentsRollout, Forbidden, Grant, PoliciesRead, PrivilegeName};
use muster_core::id::AgentId;
use muster_core::rollout::Plan;
use muster_core::{Error, ErrorKind, shell};
use muster_fleet::Fleet;
use muster_fleet::rollouts::upgrade::{CreatedUpgrade, NewUpgrade};
use muster_fleet::selection::Selected;
use muster_management::error::status_of;
use muster_management::kql::agents::visible;
use serde::Deserialize;

use super::TAB;
use super::plan::{DrawnWave, PlanForm, draw as drawn, in_words};
use crate::agents::agent::names_of;
use crate::elsewhere::cli;
use crate::frame::{Frame, page};
use crate::policies::change::{Draft, PostedDraft};
use crate::policies::{PolicyRow, agents, rows};
use crate::request::Posted;
use crate::visitor::{Params, Visitor};
use crate::{failure, notice, policies};

/// Number of agents that cannot be upgraded which the page lists.
const REFUSED: usize = 10;

/// Parameters of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The policy whose waves are drawn.
    policy: String,
    /// KQL: the agents of an upgrade.
    q: String,
    /// Target version of an upgrade.
    version: String,
}

#[derive(Template)]
#[template(path = "rollouts/new.html")]
struct PlannerPage<'a> {
    frame: Frame,
    draft: &'a Draft,
    /// What is rolled out.
    kind: Kind,
    plan: PlanForm,
    waves: Vec<DrawnWave>,
    total: String,
    /// Agents that cannot be upgraded now, and why.
    refused: Vec<Refused>,
    more_refused: usize,
    /// Agents that are in no wave, because their programs cannot be upgraded; empty if there are none.
    left_out: String,
    secrets: Vec<String>,
    error: Option<&'a Error>,
    /// The privilege for upgrades, if it is missing.
    cannot_upgrade: &'static str,
    cli: String,
    policies: Vec<PolicyRow>,
    /// Identifies the drawn plan; empty if it could not be drawn.
    mark: String,
}

impl PlannerPage<'_> {
    /// Whether the person may only roll out policies, which the page leads to.
    fn is_refused(&self) -> bool {
        matches!(self.kind, Kind::Upgrade) && !self.cannot_upgrade.is_empty()
    }
}

/// What a rollout is about.
enum Kind {
    /// A change of a policy that is not saved yet.
    Change { name: String, revision: i64 },
    /// The waves of a policy, without a change.
    Policy { id: String, name: String },
    /// An upgrade.
    Upgrade,
}

/// The waves of a plan, and whom they reach.
#[derive(Default)]
struct Preview {
    reached: Vec<u64>,
    refused: Vec<(AgentId, String)>,
    left_out: u64,
}

/// An agent that cannot be upgraded now.
struct Refused {
    id: String,
    name: String,
    reason: String,
}

/// Shows the planner for a policy or an upgrade.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Params(asked): Params<Asked>) -> Response {
    if let Err(error) = may_plan(&visitor, !asked.policy.is_empty()) {
        return failure::inside(&visitor, &error.into(), TAB);
    }
    let draft = Draft { policy: asked.policy, q: asked.q, upgrade: asked.version, ..Draft::default() };
    planner(&fleet, &visitor, &draft, None).await
}

/// Checks that a person may start a rollout of a policy, or of anything. The page of upgrades also leads to the policies.
pub fn may_plan(visitor: &Visitor, is_of_policy: bool) -> Result<(), Forbidden> {
    let policies = visitor.context.check(PrivilegeName::PoliciesRollout);
    if is_of_policy {
        return policies;
    }
    visitor.context.check(PrivilegeName::AgentsRollout).or_else(|missing| policies.map_err(|_| missing))
}

/// Draws the waves of the plan that was entered.
pub async fn draw(State(fleet): State<Arc<Fleet>>, Posted(visitor, draft): PostedDraft) -> Response {
    planner(&fleet, &visitor, &draft, None).await
}

/// Starts the rollout.
pub async fn start(State(fleet): State<Arc<Fleet>>, Posted(visitor, draft): PostedDraft) -> Response {
    match started(&fleet, &visitor, &draft).await {
        Ok(response) => response,
        Err(error) if is_about_the_change(&error) => {
            policies::refused(&fleet, &visitor, &draft.policy, &draft, &error).await
        }
        Err(error) => planner(&fleet, &visitor, &draft, Some(&error)).await,
    }
}

/// Whether an error concerns the policy's new text, which is edited elsewhere, and not the plan.
fn is_about_the_change(error: &Error) -> bool {
    error.problems.is_some() || matches!(error.code, "policy_changed" | "active_rollout")
}

async fn started(fleet: &Fleet, visitor: &Visitor, draft: &Draft) -> Result<Response, Error> {
    let context = draft.context(&visitor.context)?;
    let plan = draft.plan_form().plan()?;
    // Nobody starts what the page has not shown.
    if draft.drawn != draft.mark() {
        return Err(Error::conflict("plan_changed", "the plan has changed since its waves were drawn")
            .remedy("look at the waves once more, then start the rollout"));
    }
    let id = if draft.policy.is_empty() {
        let _: Grant<AgentsRollout> = context.grant()?;
        let new = NewUpgrade { version: draft.upgrade.trim().to_owned(), source_uri: None, plan };
        create_upgrade(fleet, &context, draft, new).await?.rollout.id
    } else {
        let applied = draft.apply(fleet, &context, &draft.policy, Some(plan)).await?;
        applied.rollout.ok_or_else(|| Error::internal("a rollout was asked for, but not created"))?.id
    };
    Ok(notice::redirect(visitor.base.link(format_args!("{TAB}/{id}")), "The rollout has started."))
}

async fn create_upgrade(
    fleet: &Fleet,
    context: &muster_core::authorization::OpContext,
    draft: &Draft,
    new: NewUpgrade,
) -> Result<CreatedUpgrade, Error> {
    let filter = visible(&draft.q, false, fleet.now())?;
    let selection = fleet.agents().select(context, &Selected::Matching(Box::new(filter))).await?;
    fleet.rollouts().create_upgrade(&selection, new).await
}

async fn planner(fleet: &Fleet, visitor: &Visitor, draft: &Draft, error: Option<&Error>) -> Response {
    let kind = match kind(fleet, visitor, draft).await {
        Ok(kind) => kind,
        Err(error) if is_about_the_change(&error) => {
            return policies::refused(fleet, visitor, &draft.policy, draft, &error).await;
        }
        Err(error) => return failure::inside(visitor, &error, TAB),
    };
    let form = draft.plan_form();
    // What is wrong with the plan is shown in the form, with the waves as far as they can be drawn.
    let (preview, found) = match previewed(fleet, visitor, draft, &kind, &form).await {
        Ok(preview) => (preview, None),
        Err(error) if matches!(error.kind, ErrorKind::Invalid | ErrorKind::Conflict | ErrorKind::Forbidden) => {
            (Preview::default(), Some(error))
        }
        Err(error) => return failure::inside(visitor, &error, TAB),
    };
    let error = error.or(found.as_ref()).map(in_words);
    let error = error.as_ref();
    let status = error.map_or(StatusCode::OK, |error| status_of(error.kind));
    match planner_page(fleet, visitor, draft, kind, form, preview, error).await {
        Ok(shown) => page(status, &shown),
        Err(error) => failure::inside(visitor, &error, TAB),
    }
}

async fn kind(fleet: &Fleet, visitor: &Visitor, draft: &Draft) -> Result<Kind, Error> {
    if draft.policy.is_empty() {
        return Ok(Kind::Upgrade);
    }
    if draft.text.is_empty() {
        let policy = fleet.policies().find::<PoliciesRead>(&visitor.context, &draft.policy).await?;
        return Ok(Kind::Policy { id: policy.id.to_string(), name: policy.name.clone() });
    }
    let tried = draft.apply(fleet, &visitor.context.clone().trying(true), &draft.policy, None).await?;
    Ok(Kind::Change { name: tried.saved.policy.name, revision: tried.saved.policy.revision })
}

async fn previewed(
    fleet: &Fleet,
    visitor: &Visitor,
    draft: &Draft,
    kind: &Kind,
    form: &PlanForm,
) -> Result<Preview, Error> {
    let plan: Plan = form.plan()?;
    let trying = visitor.context.clone().trying(true);
    match kind {
        Kind::Upgrade if draft.upgrade.is_empty() => Ok(Preview::default()),
        Kind::Upgrade => {
            let new = NewUpgrade { version: draft.upgrade.trim().to_owned(), source_uri: None, plan };
            let tried = create_upgrade(fleet, &trying, draft, new).await?;
            Ok(Preview { reached: tried.wave_agents, refused: tried.refused, left_out: tried.left_out })
        }
        Kind::Change { .. } | Kind::Policy { .. } => {
            if matches!(kind, Kind::Change { .. }) {
                // Checks the tags of the plan, too.
                draft.apply(fleet, &trying, &draft.policy, Some(plan.clone())).await?;
            }
            let policy = fleet.policies().find::<PoliciesRead>(&visitor.context, &draft.policy).await?;
            let reached = fleet.rollouts().preview(&visitor.context.grant()?, &policy.id, &plan).await?;
            Ok(Preview { reached, ..Preview::default() })
        }
    }
}

async fn planner_page<'a>(
    fleet: &Fleet,
    visitor: &Visitor,
    draft: &'a Draft,
    kind: Kind,
    plan: PlanForm,
    preview: Preview,
    error: Option<&'a Error>,
) -> Result<PlannerPage<'a>, Error> {
    let (title, command) = match &kind {
        Kind::Change { name, .. } => {
            let file = shell::word(&format!("{name}.yml"));
            (format!("Roll out a change of {name}"), format!("create -f {file}"))
        }
        Kind::Policy { name, .. } => (format!("Waves of {name}"), String::new()),
        Kind::Upgrade => {
            let (filter, version) = (shell::option("--filter", &draft.q), shell::option("--version", &draft.upgrade));
            let command = format!("upgrade {filter} {version}");
            ("Upgrade agents in waves".to_owned(), command)
        }
    };
    let waves = match plan.plan() {
        Ok(plan) if !preview.reached.is_empty() => drawn(&plan, &preview.reached, |_| ("quiet", "", "")),
        _ => Vec::new(),
    };
    let policies = match (&kind, visitor.context.grant()) {
        (Kind::Upgrade, Ok(grant)) if draft.upgrade.is_empty() => rows(fleet, &grant).await?,
        _ => Vec::new(),
    };
    Ok(PlannerPage {
        frame: Frame::new(visitor, title, TAB),
        total: agents(preview.reached.last().copied().unwrap_or(0)),
        more_refused: preview.refused.len().saturating_sub(REFUSED),
        left_out: if preview.left_out > 0 { agents(preview.left_out) } else { String::new() },
        refused: named(fleet, visitor, preview.refused).await?,
        secrets: draft.given_secrets(),
        cannot_upgrade: visitor.lacks(PrivilegeName::AgentsRollout),
        cli: match command.as_str() {
            "" => String::new(),
            command => cli(visitor, &format!("rollout {command} {}", plan.flags())),
        },
        policies,
        mark: if waves.is_empty() { String::new() } else { draft.mark() },
        waves,
        draft,
        kind,
        plan,
        error,
    })
}

/// Returns the first of some agents that cannot be upgraded, with their names.
async fn named(fleet: &Fleet, visitor: &Visitor, refused: Vec<(AgentId, String)>) -> Result<Vec<Refused>, Error> {
    let (ids, reasons): (Vec<_>, Vec<_>) = refused.into_iter().take(REFUSED).unzip();
    let names = names_of(fleet, visitor, &ids).await?;
    Ok(names.into_iter().zip(reasons).map(|((id, name), reason)| Refused { id, name, reason }).collect())
}
