//! What a rollout has reached, in numbers, and how a step of it is carried out.

use muster_core::Error;
use muster_core::id::{ActionId, AgentId, PolicyId};
use muster_core::rollout::{
    Baseline, Members, Observation, Place, Plan, Rollout, StartedWave, State, Step, Subject, Wave,
};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_store::StoreError;
use muster_store::query::{AgentCondition, AgentFilter};

use crate::scope::Scoped;

/// Statuses of agents that a rollout can't reach any more; they do not count.
const GONE: [Status; 4] = [Status::Unenrolled, Status::Inactive, Status::Uninstalled, Status::Orphaned];

/// Failed results that are read of an action: more would halt any rollout.
const MOST_FAILURES: u32 = 100_000;

/// Describes the agents that a rollout has reached.
pub(super) async fn observation(seen: Scoped<'_>, rollout: &Rollout) -> Result<Observation, Error> {
    let reached = [AgentCondition::Any(reached_by(rollout)), concerned(rollout)];
    let those = |more: AgentCondition| AgentFilter::all(reached.iter().cloned().chain([more]).collect::<Vec<_>>());
    let (applied, failed) = match &rollout.subject {
        Subject::Policy { revision, .. } => {
            let failed = Counts::of(seen, &those(AgentCondition::FailedRevision(*revision))).await?.total();
            (AgentCondition::RunsRevision(*revision), failed)
        }
        Subject::Upgrade { version, actions, .. } => {
            (AgentCondition::Versions(vec![version.clone()]), failures(seen, actions).await?)
        }
    };
    let all = Counts::of(seen, &AgentFilter::all(reached.clone())).await?;
    let wave_applied = wave_applied(seen, rollout, &applied).await?;
    let applied = Counts::of(seen, &those(applied)).await?;
    let offline = all.in_status(Status::Offline);
    // An agent that has applied the change was connected when it got it.
    let silent = applied.in_status(Status::Offline);
    Ok(Observation {
        agents: all.total(),
        reachable: all.total().saturating_sub(offline) + silent,
        applied: applied.total(),
        wave_applied: wave_applied.unwrap_or(applied.total()),
        unhealthy: all.unhealthy(),
        failed,
        silent,
    })
}

/// Counts the agents of the current wave that have applied the change. `None` for a wave by share or number that has added
/// no agent, because the waves before have all of them.
async fn wave_applied(seen: Scoped<'_>, rollout: &Rollout, applied: &AgentCondition) -> Result<Option<u64>, Error> {
    let mut waves = reached_by(rollout);
    let Some(newest) = waves.pop() else { return Ok(Some(0)) };
    let is_by_tag = matches!(rollout.current(), Some((Wave { members: Members::Tags(_), .. }, _)));
    let mut wave = vec![newest, concerned(rollout)];
    // The agents with a tag are a wave of their own, even if another one has reached them before.
    if !is_by_tag {
        wave.push(!AgentCondition::Any(waves));
        if Counts::of(seen, &AgentFilter::all(wave.clone())).await?.total() == 0 {
            return Ok(None);
        }
    }
    wave.push(applied.clone());
    Ok(Some(Counts::of(seen, &AgentFilter::all(wave)).await?.total()))
}

/// Counts the failed results of the waves' actions.
async fn failures(seen: Scoped<'_>, actions: &[Option<ActionId>]) -> Result<u64, Error> {
    let mut failed = 0;
    for id in actions.iter().flatten() {
        if let Some(action) = seen.action(id).await? {
            failed += seen.action_results(&action, true, MOST_FAILURES).await?.len() as u64;
        }
    }
    Ok(failed)
}

/// Returns the agents of a started wave of an upgrade that no wave before it has reached.
pub(super) async fn new_in_wave(seen: Scoped<'_>, rollout: &Rollout, wave: usize) -> Result<Vec<AgentId>, Error> {
    let mut waves = reached_by(rollout);
    waves.truncate(wave + 1);
    let Some(newest) = waves.pop() else { return Ok(Vec::new()) };
    Ok(seen.all_agent_ids(&AgentFilter::all([newest, !AgentCondition::Any(waves), concerned(rollout)])).await?)
}

/// Returns the agents of an upgrade that run the new version.
pub(super) async fn upgraded(seen: Scoped<'_>, rollout: &Rollout) -> Result<Vec<AgentId>, Error> {
    let Subject::Upgrade { version, .. } = &rollout.subject else { return Ok(Vec::new()) };
    let runs = AgentCondition::Versions(vec![version.clone()]);
    let upgraded = AgentFilter::all([AgentCondition::Any(reached_by(rollout)), concerned(rollout), runs]);
    Ok(seen.all_agent_ids(&upgraded).await?)
}

/// The conditions of the started waves.
fn reached_by(rollout: &Rollout) -> Vec<AgentCondition> {
    let waves = rollout.started.iter().zip(&rollout.plan.waves);
    waves.map(|(started, wave)| members(&wave.members, started.below)).collect()
}

/// The agents that a rollout concerns at all.
pub(super) fn concerned(rollout: &Rollout) -> AgentCondition {
    match &rollout.subject {
        // Agents that are pinned to an older revision take no part.
        Subject::Policy { policy, revision, .. } => {
            AgentCondition::All(vec![on(policy), AgentCondition::TakesRevision(*revision)])
        }
        Subject::Upgrade { .. } => AgentCondition::InRollout(rollout.id.clone()),
    }
}

/// Returns how many of the concerned agents each wave of a plan reaches.
pub(super) async fn preview(seen: Scoped<'_>, concerned: &AgentCondition, plan: &Plan) -> Result<Vec<u64>, Error> {
    let (mut reached, mut counts) = (Vec::new(), Vec::with_capacity(plan.waves.len()));
    for (number, wave) in plan.waves.iter().enumerate() {
        let below = bound(seen, concerned, number, &wave.members).await?;
        reached.push(members(&wave.members, below));
        let filter = AgentFilter::all([AgentCondition::Any(reached.clone()), concerned.clone()]);
        counts.push(Counts::of(seen, &filter).await?.total());
    }
    Ok(counts)
}

/// Rejects waves by a tag that none of the concerned agents has: it is most likely misspelt. As long as there are no agents,
/// there is nothing to compare with, and nothing to break.
pub(crate) async fn check_tags(seen: Scoped<'_>, concerned: &AgentCondition, plan: &Plan) -> Result<(), Error> {
    let mut wanted: Vec<(usize, &String)> = Vec::new();
    for (number, wave) in plan.waves.iter().enumerate() {
        if let Members::Tags(tags) = &wave.members {
            wanted.extend(tags.iter().map(|tag| (number, tag)));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let concerned = AgentFilter::all([concerned.clone()]);
    let in_use = seen.agent_tags(&concerned).await?;
    let Some((number, tag)) = wanted.into_iter().find(|(_, tag)| !in_use.contains(tag)) else { return Ok(()) };
    if in_use.is_empty() && Counts::of(seen, &concerned).await?.total() == 0 {
        return Ok(());
    }
    let reason = format!("none of the agents has the tag {tag:?}");
    Err(Error::invalid(format!("waves[{number}].members"), reason)
        .remedy("check the spelling; `muster agent list --filter tags:TAG` lists the agents with a tag"))
}

/// Returns the rollout after a step.
pub(super) async fn carried_out(
    seen: Scoped<'_>,
    rollout: &Rollout,
    step: Step,
    now: Timestamp,
) -> Result<Rollout, Error> {
    let mut after = rollout.clone();
    match step {
        Step::Wait { .. } => {}
        Step::Start { wave } => after.start(started(seen, rollout, wave, now).await?),
        Step::AskApproval => after.state = State::AwaitingApproval,
        Step::AwaitAgents => after.state = State::AwaitingAgents,
        Step::Halt { breach } => after.state = State::Halted { breach, at: now },
        Step::Complete => after.state = State::Completed,
    }
    Ok(after)
}

async fn started(seen: Scoped<'_>, rollout: &Rollout, wave: usize, now: Timestamp) -> Result<StartedWave, Error> {
    let next = rollout.plan.waves.get(wave).ok_or_else(|| Error::internal("a rollout has no such wave"))?;
    let concerned = concerned(rollout);
    let below = bound(seen, &concerned, wave, &next.members).await?;
    let mut reached = reached_by(rollout);
    reached.push(members(&next.members, below));
    let filter = AgentFilter::all([AgentCondition::Any(reached), concerned]);
    let counts = Counts::of(seen, &filter).await?;
    let baseline = Baseline { agents: counts.total(), unhealthy: counts.unhealthy() };
    Ok(StartedWave { at: now, below, baseline })
}

/// Returns the place below which the agents of a wave are; `None` if it is one by tag. Waves are counted from 0.
async fn bound(
    seen: Scoped<'_>,
    concerned: &AgentCondition,
    wave: usize,
    members: &Members,
) -> Result<Option<Place>, StoreError> {
    // The first agent that is not among so many bounds them.
    let first = async |count: u32| {
        let present = AgentFilter::all([concerned.clone(), !AgentCondition::Statuses(GONE.to_vec())]);
        Ok::<_, StoreError>(seen.agent_place(&present, count).await?.unwrap_or(Place::END))
    };
    match members {
        // Of a few agents, a small share is nobody; each wave takes one agent more than the one before at least.
        Members::Percent(percent) => {
            let least = first(u32::try_from(wave).unwrap_or(u32::MAX).saturating_add(1)).await?;
            Ok(Some(Place::share(*percent).max(least)))
        }
        Members::Tags(_) => Ok(None),
        Members::Count(count) => Ok(Some(first(*count).await?)),
    }
}

fn members(members: &Members, below: Option<Place>) -> AgentCondition {
    match (members, below) {
        (Members::Tags(tags), _) => AgentCondition::Tags(tags.clone()),
        (_, Some(below)) => AgentCondition::PlaceBelow(below),
        (_, None) => AgentCondition::Any(Vec::new()),
    }
}

/// The agents on a policy.
pub(crate) fn on(policy: &PolicyId) -> AgentCondition {
    AgentCondition::Policies(vec![policy.clone()])
}

/// Numbers of agents by status, without those that are gone.
struct Counts(Vec<(Status, u64)>);

impl Counts {
    async fn of(seen: Scoped<'_>, filter: &AgentFilter) -> Result<Self, StoreError> {
        let mut counts = seen.agent_counts(filter).await?;
        counts.retain(|(status, _)| !GONE.contains(status));
        Ok(Self(counts))
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    fn in_status(&self, wanted: Status) -> u64 {
        self.0.iter().filter(|(status, _)| *status == wanted).map(|(_, count)| count).sum()
    }

    fn unhealthy(&self) -> u64 {
        self.in_status(Status::Degraded) + self.in_status(Status::Error)
    }
}
