//! What a rollout has reached, in numbers, and how a step of it is carried out.

use muster_core::Error;
use muster_core::id::PolicyId;
use muster_core::rollout::{Baseline, Members, Observation, Place, Plan, Rollout, StartedWave, State, Step, Subject};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_store::StoreError;
use muster_store::query::{AgentCondition, AgentFilter};

use crate::scope::Scoped;

/// Statuses of agents that a rollout can't reach any more; they do not count.
const GONE: [Status; 4] = [Status::Unenrolled, Status::Inactive, Status::Uninstalled, Status::Orphaned];

/// Describes the agents that a rollout has reached.
pub(super) async fn observation(seen: Scoped<'_>, rollout: &Rollout) -> Result<Observation, Error> {
    let Subject::Policy { policy, revision, .. } = &rollout.subject else { return Ok(Observation::default()) };
    let waves = rollout.started.iter().zip(&rollout.plan.waves);
    let reached = waves.map(|(started, wave)| members(&wave.members, started.below)).collect();
    let followers = [AgentCondition::Any(reached), follows(policy, *revision)];
    let those = |more: AgentCondition| AgentFilter::all(followers.iter().cloned().chain([more]).collect::<Vec<_>>());
    let all = Counts::of(seen, &AgentFilter::all(followers.clone())).await?;
    let applied = Counts::of(seen, &those(AgentCondition::RunsRevision(*revision))).await?;
    let failed = Counts::of(seen, &those(AgentCondition::FailedRevision(*revision))).await?;
    let offline = all.in_status(Status::Offline);
    // An agent that has applied the revision was connected when it got it.
    let silent = applied.in_status(Status::Offline);
    Ok(Observation {
        agents: all.total(),
        reachable: all.total().saturating_sub(offline) + silent,
        applied: applied.total(),
        unhealthy: all.unhealthy(),
        failed: failed.total(),
        silent,
    })
}

/// Returns how many agents each wave of a plan reaches.
pub(super) async fn preview(seen: Scoped<'_>, policy: &PolicyId, plan: &Plan) -> Result<Vec<u64>, Error> {
    let (mut reached, mut counts) = (Vec::new(), Vec::with_capacity(plan.waves.len()));
    for wave in &plan.waves {
        let below = bound(seen, policy, &wave.members).await?;
        reached.push(members(&wave.members, below));
        let filter = AgentFilter::all([AgentCondition::Any(reached.clone()), on(policy)]);
        counts.push(Counts::of(seen, &filter).await?.total());
    }
    Ok(counts)
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
        Step::Halt { breach } => after.state = State::Halted { breach, at: now },
        Step::Complete => after.state = State::Completed,
    }
    Ok(after)
}

async fn started(seen: Scoped<'_>, rollout: &Rollout, wave: usize, now: Timestamp) -> Result<StartedWave, Error> {
    let (Subject::Policy { policy, revision, .. }, Some(next)) = (&rollout.subject, rollout.plan.waves.get(wave))
    else {
        return Err(Error::internal("a rollout has no such wave"));
    };
    let below = bound(seen, policy, &next.members).await?;
    let before = rollout.started.iter().zip(&rollout.plan.waves).map(|(one, wave)| members(&wave.members, one.below));
    let reached = before.chain([members(&next.members, below)]).collect();
    let filter = AgentFilter::all([AgentCondition::Any(reached), follows(policy, *revision)]);
    let counts = Counts::of(seen, &filter).await?;
    let baseline = Baseline { agents: counts.total(), unhealthy: counts.unhealthy() };
    Ok(StartedWave { at: now, below, baseline })
}

/// Returns the place below which the agents of a wave are; `None` if it is one by tag.
async fn bound(seen: Scoped<'_>, policy: &PolicyId, members: &Members) -> Result<Option<Place>, StoreError> {
    match members {
        Members::Percent(percent) => Ok(Some(Place::share(*percent))),
        Members::Tags(_) => Ok(None),
        Members::Count(count) => {
            let present = AgentFilter::all([on(policy), !AgentCondition::Statuses(GONE.to_vec())]);
            // The first agent that is not in the wave bounds it.
            Ok(Some(seen.agent_place(&present, *count).await?.unwrap_or(Place::END)))
        }
    }
}

fn members(members: &Members, below: Option<Place>) -> AgentCondition {
    match (members, below) {
        (Members::Tags(tags), _) => AgentCondition::Tags(tags.clone()),
        (_, Some(below)) => AgentCondition::PlaceBelow(below),
        (_, None) => AgentCondition::Any(Vec::new()),
    }
}

fn on(policy: &PolicyId) -> AgentCondition {
    AgentCondition::Policies(vec![policy.clone()])
}

/// Agents that are pinned to an older revision take no part.
fn follows(policy: &PolicyId, revision: i64) -> AgentCondition {
    AgentCondition::All(vec![on(policy), AgentCondition::TakesRevision(revision)])
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
