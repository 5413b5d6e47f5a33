//! `/rollouts`: staged rollouts of policies (M8). They are created by `POST /agent_policies/_apply`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::authorization::{AgentsRollout, Grant, PoliciesRead};
use muster_core::id::AgentId;
use muster_core::rollout::{Gate, Members, Observation, Plan, Rollout as Record, State as Phase, Subject, Wave};
use muster_fleet::Fleet;
use muster_fleet::rollouts::upgrade::NewUpgrade;
use muster_protocol::management::bulk::BulkRollout;
use muster_protocol::management::envelope::IneligibleAgent;
use muster_protocol::management::rollout::{
    CreatedRollout, ListRollouts, Rollout, RolloutAgents, RolloutGate, RolloutPlan, RolloutWave,
};
use muster_protocol::management::{Empty, Item, Items};

use super::answer::{Answer, item, page};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::query::{Paging, Query};
use super::selector::selected;

/// Number of agents that are not eligible which a response lists.
const SHOWN: usize = 100;

/// Endpoints for rollouts.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/rollouts", list).about("List rollouts").needs(&[Name::PoliciesRead]),
        Endpoint::post("/rollouts", create)
            .about("Create a rollout of an upgrade")
            .needs(&[Name::AgentsRollout, Name::AgentsUpgrade]),
        Endpoint::get("/rollouts/{id}", get).about("Get a rollout").needs(&[Name::PoliciesRead]),
        Endpoint::post("/rollouts/{id}/pause", pause)
            .about("Pause a rollout")
            .needs_one_of(&[Name::PoliciesRollout, Name::AgentsRollout]),
        Endpoint::post("/rollouts/{id}/resume", resume)
            .about("Resume a rollout")
            .needs_one_of(&[Name::PoliciesRollout, Name::AgentsRollout]),
        Endpoint::post("/rollouts/{id}/approve", approve)
            .about("Approve the next wave of a rollout")
            .needs_one_of(&[Name::PoliciesRollout, Name::AgentsRollout]),
        Endpoint::post("/rollouts/{id}/rollback", roll_back)
            .about("Roll a rollout back")
            .needs_one_of(&[Name::PoliciesRollout, Name::AgentsRollout]),
    ]
}

/// Converts a plan. Its limits are checked by core.
pub fn plan(plan: RolloutPlan) -> Result<Plan, Error> {
    let waves = plan.waves.into_iter().enumerate().map(|(number, wave)| {
        let members = match (wave.percent, wave.count, wave.tags) {
            (Some(percent), None, None) => Members::Percent(percent),
            (None, Some(count), None) => Members::Count(count),
            (None, None, Some(tags)) => Members::Tags(tags),
            _ => {
                let field = format!("rollout.waves[{number}]");
                return Err(Error::invalid(field, "needs exactly one of percent, count and tags"));
            }
        };
        Ok(Wave { members, soak: Duration::from_secs(wave.soak_seconds), needs_approval: wave.needs_approval })
    });
    Ok(Plan { waves: waves.collect::<Result<_, Error>>()?, gate: gate(plan.gate.unwrap_or_default()) })
}

fn gate(given: RolloutGate) -> Gate {
    let usual = Gate::default();
    Gate {
        max_unhealthy_percent: given.max_unhealthy_percent.unwrap_or(usual.max_unhealthy_percent),
        max_failed_percent: given.max_failed_percent.unwrap_or(usual.max_failed_percent),
        max_silent_percent: given.max_silent_percent.unwrap_or(usual.max_silent_percent),
        min_applied_percent: given.min_applied_percent.unwrap_or(usual.min_applied_percent),
        apply_within: given.apply_within_seconds.unwrap_or(usual.apply_within),
    }
}

fn shown_plan(plan: Plan) -> RolloutPlan {
    let wave = |wave: Wave| {
        let (mut percent, mut count, mut tags) = (None, None, None);
        match wave.members {
            Members::Percent(share) => percent = Some(share),
            Members::Count(number) => count = Some(number),
            Members::Tags(names) => tags = Some(names),
        }
        let (soak_seconds, needs_approval) = (wave.soak.as_secs(), wave.needs_approval);
        RolloutWave { percent, count, tags, soak_seconds, needs_approval }
    };
    let gate = RolloutGate {
        max_unhealthy_percent: Some(plan.gate.max_unhealthy_percent),
        max_failed_percent: Some(plan.gate.max_failed_percent),
        max_silent_percent: Some(plan.gate.max_silent_percent),
        min_applied_percent: Some(plan.gate.min_applied_percent),
        apply_within_seconds: Some(plan.gate.apply_within),
    };
    RolloutPlan { waves: plan.waves.into_iter().map(wave).collect(), gate: Some(gate) }
}

/// Converts a rollout.
pub fn rollout(record: Record) -> Rollout {
    let mut shown = match record.subject {
        Subject::Policy { policy, revision, last_good } => Rollout {
            policy_id: Some(policy.to_string()),
            revision: Some(revision),
            last_good_revision: Some(last_good),
            ..Rollout::default()
        },
        Subject::Upgrade { version, actions, .. } => {
            // A wave that reached nobody has no action.
            let ids = actions.iter().flatten();
            Rollout { version: Some(version), action_ids: ids.map(ToString::to_string).collect(), ..Rollout::default() }
        }
    };
    shown.reason = match &record.state {
        Phase::Halted { breach, .. } | Phase::RolledBack { halted: Some(breach) } => Some(breach.to_string()),
        Phase::AwaitingAgents => Some("waiting: no agent of the wave has applied it".to_owned()),
        _ => None,
    };
    Rollout {
        id: record.id.to_string(),
        state: record.state.as_str().to_owned(),
        started_waves: record.started.len(),
        started_at: record.started.iter().map(|wave| time(wave.at)).collect(),
        plan: shown_plan(record.plan),
        created_by: record.created_by,
        created_at: time(record.created_at),
        updated_at: time(record.updated_at),
        ..shown
    }
}

fn agents(seen: Observation) -> RolloutAgents {
    let Observation { agents: reached, reachable, applied, wave_applied, unhealthy, failed, silent } = seen;
    RolloutAgents { reached, reachable, applied, wave_applied, unhealthy, failed, silent }
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListRollouts>,
) -> Answer<Items<Rollout>> {
    let paging = Paging::from_one(query.page, query.per_page)?;
    let grant = context.grant()?;
    let found = match &query.state {
        Some(state) => fleet.rollouts().in_state(&grant, state, paging.rows()).await?,
        None => fleet.rollouts().list(&grant, paging.rows()).await?,
    };
    Ok(page(found.items.into_iter().map(rollout).collect(), found.total, &paging))
}

/// Creates a rollout of an upgrade.
async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkRollout>,
) -> Answer<CreatedRollout> {
    let selection = body.selection();
    let context = context.trying(selection.dry_run);
    // Pausing and rolling back need this privilege, so that whoever starts a rollout can also stop it.
    let _: Grant<AgentsRollout> = context.grant()?;
    let agents = fleet.agents().select(&context, &selected(&selection, fleet.now())?).await?;
    let new = NewUpgrade { version: body.version, source_uri: body.source_uri, plan: plan(body.plan)? };
    let made = fleet.rollouts().create_upgrade(&agents, new).await?;
    let refusal =
        |(agent, error): &(AgentId, String)| IneligibleAgent { agent_id: agent.to_string(), error: error.clone() };
    Ok(Json(CreatedRollout {
        item: rollout(made.rollout),
        count: made.agents,
        left_out: made.left_out,
        wave_agents: made.wave_agents,
        refused: made.refused.len() as u64,
        errors: made.refused.iter().take(SHOWN).map(refusal).collect(),
    }))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<Rollout>> {
    let found = fleet.rollouts().find::<PoliciesRead>(&context, &id).await?;
    let seen = fleet.rollouts().observe(&found).await?;
    Ok(item(Rollout { agents: Some(agents(seen)), ..rollout(found.into_inner()) }))
}

/// Declares the handler of a transition.
macro_rules! transition {
    ($name:ident) => {
        async fn $name(
            State(fleet): State<Arc<Fleet>>,
            Caller(context): Caller,
            Path(id): Path<String>,
            Body(Empty {}): Body<Empty>,
        ) -> Answer<Item<Rollout>> {
            let found = fleet.rollouts().control(&context, &id).await?;
            Ok(item(rollout(fleet.rollouts().$name(&found).await?)))
        }
    };
}

transition!(pause);
transition!(resume);
transition!(approve);

async fn roll_back(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(Empty {}): Body<Empty>,
) -> Answer<Item<Rollout>> {
    let found = fleet.rollouts().control(&context, &id).await?;
    Ok(item(rollout(fleet.rollouts().roll_back(&context, &found).await?)))
}
