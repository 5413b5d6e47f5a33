//! Rollouts of upgrades: the agents are selected once, and each wave is an action for those of them that it reaches.

use muster_core::agent::Family;
use muster_core::authorization::{Actor, AgentsUpgrade, Grant, OpContext};
use muster_core::entropy::random_uuid;
use muster_core::id::{ActionId, AgentId, RolloutId};
use muster_core::rollout::{Plan, Rollout, State, Subject};
use muster_core::{Error, ErrorKind};
use muster_store::RolloutWrite;
use muster_store::query::{AgentCondition, AgentFilter};
use serde_json::json;

use super::{Rollouts, next_version, observe};
use crate::actions::UpgradeRequest;
use crate::audit::audit_line;
use crate::authority::{Authorized, System};
use crate::force::Force;
use crate::selection::Selection;

/// Maximum agents of one rollout.
const MOST_AGENTS: usize = 200_000;

/// A new rollout of an upgrade.
#[derive(Clone, Debug)]
pub struct NewUpgrade {
    /// Target version.
    pub version: String,
    /// Base URL of the package.
    pub source_uri: Option<String>,
    /// Waves and gate.
    pub plan: Plan,
}

/// A created rollout.
#[derive(Clone, Debug)]
pub struct CreatedUpgrade {
    /// The rollout; in a dry run, as it would be created.
    pub rollout: Rollout,
    /// Number of agents in its waves.
    pub agents: u64,
    /// Number of selected agents that are in no wave, because their programs cannot be upgraded.
    pub left_out: u64,
    /// Number of agents that each wave reaches, including those of earlier waves.
    pub wave_agents: Vec<u64>,
    /// Agents in its waves that are not eligible now, with the reasons. They may be when their wave starts.
    pub refused: Vec<(AgentId, String)>,
}

impl Rollouts {
    /// Creates a rollout of an upgrade of the selected agents. Whether an agent can be upgraded is checked again when its
    /// wave starts.
    pub async fn create_upgrade(
        &self,
        selection: &Authorized<Selection, AgentsUpgrade>,
        new: NewUpgrade,
    ) -> Result<CreatedUpgrade, Error> {
        new.plan.check()?;
        let (grant, now) = (selection.grant(), self.clock.now());
        if selection.ids.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "no_agent_matches", "no agent matches"));
        }
        let agents = self.upgradeable(selection).await?;
        if agents.is_empty() {
            let message = "none of these agents can be upgraded: fleetd's programs do not support this";
            return Err(Error::new(ErrorKind::Invalid, "no_agent_eligible", message));
        }
        if agents.len() > MOST_AGENTS {
            let reason = format!("{} agents; at most {MOST_AGENTS} in one rollout", agents.len());
            return Err(Error::invalid("agents", reason).remedy("use several rollouts"));
        }
        // Checks the version and the agents as an upgrade of all of them would.
        let of_waves = Selection { ids: agents.clone(), unknown: selection.unknown.clone(), ..Selection::default() };
        let of_waves = Authorized::new(of_waves, grant.clone());
        let checked = self.actions.try_upgrade(&of_waves, &request(&new)).await?;
        let concerned = AgentCondition::Ids(agents.clone());
        observe::check_tags(self.store.seen_by(grant), &concerned, &new.plan).await?;
        let wave_agents = observe::preview(self.store.seen_by(grant), &concerned, &new.plan).await?;
        let rollout = Rollout {
            id: RolloutId::trusted(random_uuid(&*self.entropy)),
            space: grant.space().clone(),
            subject: Subject::Upgrade { version: new.version, source_uri: new.source_uri, actions: Vec::new() },
            plan: new.plan,
            started: Vec::new(),
            state: State::Created,
            version: 1,
            created_at: now,
            created_by: grant.actor().to_string(),
            updated_at: now,
        };
        let count = agents.len() as u64;
        let left_out = (selection.ids.len() as u64).saturating_sub(count);
        let detail = json!({"subject": rollout.subject, "agents": count});
        let line = audit_line(grant.origin(), now, "rollout.create", format_args!("rollout:{}", rollout.id), detail);
        let insert = RolloutWrite::Insert { rollout: Box::new(rollout.clone()), agents };
        self.store.commit(grant, vec![insert.into(), line]).await?;
        Ok(CreatedUpgrade { rollout, agents: count, left_out, wave_agents, refused: checked })
    }

    /// Returns the selected agents whose programs can be upgraded at all. The others never become eligible, and would halt
    /// the rollout at its gate.
    async fn upgradeable(&self, selection: &Authorized<Selection, AgentsUpgrade>) -> Result<Vec<AgentId>, Error> {
        let families = Family::ALL.into_iter().filter(|family| family.takes_actions()).collect();
        let conditions = [AgentCondition::Ids(selection.ids.clone()), AgentCondition::Families(families)];
        Ok(self.store.seen_by(selection.grant()).all_agent_ids(&AgentFilter::all(conditions)).await?)
    }

    /// Creates the action of a started wave that has none: the server may have crashed between the two. Returns the
    /// rollout with the action, or `None` if nothing is missing.
    pub(super) async fn complete_wave(&self, rollout: &Rollout) -> Result<Option<Rollout>, Error> {
        let Some(wave) = rollout.wave_without_action() else { return Ok(None) };
        let Subject::Upgrade { version, source_uri, .. } = &rollout.subject else { return Ok(None) };
        let seen = self.store.within(&System, &rollout.space);
        let ids = observe::new_in_wave(seen, rollout, wave).await?;
        let new = NewUpgrade { version: version.clone(), source_uri: source_uri.clone(), plan: rollout.plan.clone() };
        let action = if ids.is_empty() { None } else { Some(self.upgrade_wave(rollout, ids, &new).await?) };
        let mut after = next_version(rollout.clone(), self.clock.now());
        if let Subject::Upgrade { actions, .. } = &mut after.subject {
            actions.push(action);
        }
        Ok(Some(after))
    }

    async fn upgrade_wave(&self, rollout: &Rollout, ids: Vec<AgentId>, new: &NewUpgrade) -> Result<ActionId, Error> {
        // The rollout was authorized when it was created; its waves are the server's work.
        let context = OpContext::administrator(Actor::System).in_space(rollout.space.clone());
        let grant: Grant<AgentsUpgrade> = context.grant()?;
        let selection = Selection { ids, ..Selection::default() };
        let submitted = self.actions.upgrade(&Authorized::new(selection, grant), &request(new)).await?;
        Ok(submitted.action.id)
    }

    /// Creates actions for the agents of a rollout that run the new version, to return to the version before.
    pub(super) async fn return_upgraded(&self, grant: &Grant<AgentsUpgrade>, rollout: &Rollout) -> Result<(), Error> {
        let ids = observe::upgraded(self.store.seen_by(grant), rollout).await?;
        if ids.is_empty() {
            return Ok(());
        }
        let selection = Selection { ids, ..Selection::default() };
        let returned = self.actions.roll_back_eligible(&Authorized::new(selection, grant.clone())).await?;
        if let Err(reason) = returned {
            // Agents before 9.3 and those whose old version was removed.
            tracing::warn!(rollout = %rollout.id, reason, "no agent of the rollout can return to its former version");
        }
        Ok(())
    }
}

fn request(new: &NewUpgrade) -> UpgradeRequest {
    UpgradeRequest {
        version: new.version.clone(),
        source_uri: new.source_uri.clone(),
        force: Force::No,
        ..UpgradeRequest::default()
    }
}
