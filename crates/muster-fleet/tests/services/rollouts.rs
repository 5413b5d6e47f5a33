//! Staged rollouts of policies, from the file to the agents.

use std::time::Duration;

use muster_core::ErrorKind;
use muster_core::agent::{AgentDocuments, AgentRecord, Family};
use muster_core::authorization::{Actor, AgentsRollout, OpContext, PoliciesRollout};
use muster_core::id::{AgentId, PolicyId};
use muster_core::rollout::{Gate, Members, Observation, Place, Plan, Rollout, State, Subject, Wave};
use muster_core::status::Status;
use muster_core::testing::online_agent;
use muster_fleet::check_in::{Delivery, Poll};
use muster_fleet::force::Force;
use muster_fleet::policies::apply::Application;
use muster_fleet::policies::{Expected, PolicyDraft};
use muster_fleet::rollouts::upgrade::NewUpgrade;
use muster_fleet::selection::Selected;
use muster_fleet::testing::TestFleet;
use muster_store::AgentWrite;
use muster_store::query::{AgentCondition, AgentFilter};
use serde_json::json;

const AGENTS: usize = 40;

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

fn plan(waves: &[Members], needs_approval: bool) -> Plan {
    let soak = Duration::from_secs(600);
    Plan {
        waves: waves.iter().map(|members| Wave { members: members.clone(), soak, needs_approval }).collect(),
        gate: Gate::default(),
    }
}

fn halves() -> Plan {
    plan(&[Members::Percent(50), Members::Percent(100)], false)
}

fn file(number: usize) -> String {
    format!("name: web\nconfig:\n  outputs: {{default: {{type: kafka, hosts: [\"k{number}:9092\"]}}}}\n")
}

/// A fleet with a policy `web` and connected agents that run its first revision.
struct World {
    test: TestFleet,
    policy: PolicyId,
}

impl World {
    async fn new() -> Self {
        let test = TestFleet::default();
        let draft = PolicyDraft { id: Some("web".into()), name: Some("web".into()), ..PolicyDraft::default() };
        let made = test.fleet.policies().create(&root().grant().expect("all rights"), draft).await.expect("it is made");
        let policy = made.policy.id;
        for number in 0..AGENTS {
            let mut record = online_agent(&format!("agent-{number}"), Some("web"), test.now());
            record.running_policy_id = Some(policy.clone());
            (record.policy_revision, record.last_checkin) = (1, Some(test.now()));
            record.tags = if number == 0 { vec!["canary".into()] } else { Vec::new() };
            let metadata = json!({"elastic": {"agent": {"upgradeable": true}}}).to_string();
            let documents = AgentDocuments { local_metadata: Some(metadata.into()), components: None };
            test.add_agent(record, documents).await;
        }
        Self { test, policy }
    }

    async fn apply(&self, number: usize, rollout: Option<Plan>) -> Result<Option<Rollout>, muster_core::Error> {
        let application = Application { text: file(number), rollout, ..Application::default() };
        let applied = self.test.fleet.policies().apply(&root(), application).await?;
        self.refresh().await;
        Ok(applied.rollout)
    }

    /// What the change feed does.
    async fn refresh(&self) {
        self.test.fleet.inner().policy_cache.refresh(&self.policy).await.expect("it renders");
    }

    async fn begin(&self, plan: Plan) -> Rollout {
        let rollout = self.apply(1, Some(plan)).await.expect("it is applied").expect("a rollout was asked for");
        self.advance(0).await;
        rollout
    }

    /// Lets the background work look once, after some minutes.
    async fn advance(&self, minutes: u64) {
        self.test.clock.advance(Duration::from_secs(60 * minutes));
        self.test.fleet.rollouts().advance().await.expect("it looks");
        self.refresh().await;
    }

    async fn state(&self, rollout: &Rollout) -> (State, usize) {
        let found =
            self.test.store().rollout_in(&rollout.space, &rollout.id).await.expect("readable").expect("it is there");
        (found.state, found.started.len())
    }

    async fn seen(&self, rollout: &Rollout) -> Observation {
        let found = self.test.fleet.rollouts().find(&root(), rollout.id.as_str()).await.expect("it is there");
        self.test.fleet.rollouts().observe(&found).await.expect("it is read")
    }

    async fn change(&self, agent: &AgentId, change: impl FnOnce(&mut AgentRecord)) {
        let before = self.test.stored(agent.as_str()).await;
        let mut after = before.clone();
        change(&mut after);
        let update = AgentWrite::Update {
            before: before.into(),
            after: AgentRecord { version: after.version + 1, ..after }.into(),
        };
        self.test.commit(vec![update.into()]).await;
    }

    /// The agents whose next check-in brings this revision.
    async fn due(&self, revision: i64) -> Vec<AgentId> {
        let mut due = Vec::new();
        for number in 0..AGENTS {
            let id = AgentId::trusted(format!("agent-{number}"));
            let entry = self.test.fleet.entry(&id).await.expect("it is there");
            let revision_now = self.test.stored(id.as_str()).await.policy_revision;
            let running = json!({"status": "online", "agent_policy_id": "web", "policy_revision_idx": revision_now});
            match self.test.check_in(&entry, &running.to_string()).await.expect("it is taken") {
                Poll::Due(Delivery::Policy(policy)) if policy.revision == revision => due.push(id),
                _ => {}
            }
        }
        due
    }

    async fn apply_revision(&self, agents: &[AgentId], revision: i64) {
        for agent in agents {
            self.change(agent, |record| record.policy_revision = revision).await;
        }
    }
}

fn below(percent: u8) -> Vec<AgentId> {
    let ids = (0..AGENTS).map(|number| AgentId::trusted(format!("agent-{number}")));
    ids.filter(|id| Place::of(id) < Place::share(percent)).collect()
}

#[tokio::test]
async fn m8_a_wave_reaches_its_agents_and_no_others() {
    let world = World::new().await;
    let rollout = world.begin(halves()).await;
    assert_eq!(world.state(&rollout).await, (State::Running, 1));
    let first = below(50);
    assert!((10..30).contains(&first.len()));
    assert_eq!(world.due(2).await, first);
    let seen = world.seen(&rollout).await;
    assert_eq!((seen.agents, seen.applied), (first.len() as u64, 0));
    world.advance(11).await;
    assert_eq!(world.state(&rollout).await, (State::Running, 1), "nobody has applied it: that proves nothing");
    world.apply_revision(&first, 2).await;
    world.advance(0).await;
    assert_eq!(world.state(&rollout).await, (State::Running, 2));
    assert_eq!(world.due(2).await.len(), AGENTS - first.len(), "the rest");
}

#[tokio::test]
async fn m8_an_unhealthy_wave_halts_the_rollout_and_a_rollback_reaches_everybody() {
    let world = World::new().await;
    let rollout = world.begin(halves()).await;
    let first = below(50);
    world.apply_revision(&first, 2).await;
    for agent in &first[..first.len() / 3] {
        world.change(agent, |record| record.status = Status::Degraded).await;
    }
    world.advance(11).await;
    let (state, waves) = world.state(&rollout).await;
    assert!(matches!(&state, State::Halted { breach, .. } if breach.to_string().contains("degraded or failed")));
    assert_eq!(waves, 1);
    world.advance(600).await;
    assert_eq!(world.state(&rollout).await.1, 1, "it stays halted");
    let found = world.test.fleet.rollouts().control(&root(), rollout.id.as_str()).await.unwrap();
    world.test.fleet.rollouts().roll_back(&root(), &found).await.expect("it is rolled back");
    world.refresh().await;
    let (state, wave) = world.state(&rollout).await;
    assert!(matches!(&state, State::RolledBack { halted: Some(breach) } if breach.to_string().contains("degraded")));
    assert_eq!(wave, 1);
    let policy = world.test.store().policy_newest_revision(&world.policy).await.unwrap().unwrap();
    let first_revision = world.test.store().policy_revision(&world.policy, 1).await.unwrap().unwrap();
    assert_eq!((policy.revision, policy.source), (3, first_revision.source));
    assert!(world.apply(2, None).await.is_ok(), "the policy can be changed again");
}

#[tokio::test]
async fn m8_a_policy_cannot_be_changed_during_its_rollout() {
    let world = World::new().await;
    let rollout = world.begin(halves()).await;
    let refused = world.apply(2, None).await.unwrap_err();
    assert_eq!((refused.kind, refused.code), (ErrorKind::Conflict, "active_rollout"), "{refused}");
    assert_eq!(world.apply(2, Some(halves())).await.unwrap_err().code, "active_rollout");
    let application = Application { text: file(2), ..Application::default() };
    let tried = world.test.fleet.policies().apply(&root().trying(true), application).await;
    assert_eq!(tried.unwrap_err().code, "active_rollout", "a dry run tells it too");
    let found = world.test.fleet.policies().find(&root(), "web").await.unwrap();
    let draft =
        PolicyDraft { description: Some("new".into()), expected: Expected::default(), ..PolicyDraft::default() };
    assert_eq!(world.test.fleet.policies().update(&found, draft).await.unwrap_err().code, "active_rollout");
    assert_eq!(world.state(&rollout).await, (State::Running, 1));
    assert!(refused.message.contains("\"web\"") && refused.message.contains(rollout.id.as_str()), "{refused}");
}

#[tokio::test]
async fn m8_a_policy_without_agents_cannot_be_deleted_during_its_rollout() {
    let test = TestFleet::default();
    let draft = PolicyDraft { id: Some("web".into()), name: Some("web".into()), ..PolicyDraft::default() };
    test.fleet.policies().create(&root().grant().expect("all rights"), draft).await.expect("it is made");
    let application = Application { text: file(1), rollout: Some(halves()), ..Application::default() };
    let applied = test.fleet.policies().apply(&root(), application).await.expect("it is applied");
    let rollout = applied.rollout.expect("a rollout was asked for");
    for is_dry in [true, false] {
        let found = test.fleet.policies().find(&root().trying(is_dry), "web").await.expect("it is there");
        let refused = test.fleet.policies().delete(&found, Force::No).await.unwrap_err();
        assert_eq!(refused.code, "active_rollout", "dry run: {is_dry}");
        assert!(refused.remedy.is_some_and(|remedy| remedy.contains(rollout.id.as_str())));
    }
    let found = test.fleet.rollouts().control(&root(), rollout.id.as_str()).await.expect("it is there");
    test.fleet.rollouts().roll_back(&root(), &found).await.expect("it is ended");
    let found = test.fleet.policies().find(&root(), "web").await.expect("it is there");
    test.fleet.policies().delete(&found, Force::No).await.expect("nothing is in the way any more");
}

#[tokio::test]
async fn m8_tags_then_numbers_then_everybody_with_approval() {
    let world = World::new().await;
    let waves = [Members::Tags(vec!["canary".into()]), Members::Count(10), Members::Percent(100)];
    let rollout = world.begin(plan(&waves, true)).await;
    assert_eq!(world.due(2).await, [AgentId::trusted("agent-0")]);
    world.apply_revision(&[AgentId::trusted("agent-0")], 2).await;
    world.advance(11).await;
    assert_eq!(world.state(&rollout).await, (State::AwaitingApproval, 1));
    let find = async || world.test.fleet.rollouts().control(&root(), rollout.id.as_str()).await.unwrap();
    world.test.fleet.rollouts().approve(&find().await).await.expect("it is approved");
    world.refresh().await;
    let seen = world.seen(&rollout).await;
    assert!((10..=11).contains(&seen.agents), "ten and the canary, which may be one of them: {}", seen.agents);
    let paused = world.test.fleet.rollouts().pause(&find().await).await.expect("it is paused");
    assert_eq!(paused.state, State::Paused);
    world.advance(600).await;
    assert_eq!(world.state(&rollout).await, (State::Paused, 2));
}

#[tokio::test]
async fn m8_a_wave_of_offline_agents_holds_the_next_one_until_one_applies_it_or_a_person_approves() {
    let world = World::new().await;
    let canary = AgentId::trusted("agent-0");
    world.change(&canary, |record| record.status = Status::Offline).await;
    let waves = [Members::Tags(vec!["canary".into()]), Members::Percent(1), Members::Percent(100)];
    let rollout = world.begin(plan(&waves, false)).await;
    world.advance(11).await;
    assert_eq!(world.state(&rollout).await, (State::AwaitingAgents, 1), "nobody has shown that the change works");
    world.advance(600).await;
    assert_eq!(world.state(&rollout).await, (State::AwaitingAgents, 1));
    world.change(&canary, |record| (record.status, record.policy_revision) = (Status::Online, 2)).await;
    world.advance(0).await;
    assert_eq!(world.state(&rollout).await, (State::Running, 2));
    // One percent of 40 agents is nobody by place; the wave takes somebody nevertheless, who is offline.
    assert!((2..=3).contains(&world.seen(&rollout).await.agents));
    for number in 1..AGENTS {
        world.change(&AgentId::trusted(format!("agent-{number}")), |record| record.status = Status::Offline).await;
    }
    world.advance(11).await;
    assert_eq!(world.state(&rollout).await, (State::AwaitingAgents, 2), "the canary is of the wave before");
    let found = world.test.fleet.rollouts().control(&root(), rollout.id.as_str()).await.unwrap();
    world.test.fleet.rollouts().approve(&found).await.expect("a person takes the risk");
    assert_eq!(world.state(&rollout).await, (State::Running, 3));
}

#[tokio::test]
async fn m8_a_wave_by_a_tag_that_no_agent_has_is_refused() {
    let world = World::new().await;
    let waves = plan(&[Members::Tags(vec!["canary".into(), "canray".into()]), Members::Percent(100)], false);
    let refused = world.apply(1, Some(waves.clone())).await.unwrap_err();
    assert_eq!(refused.message, "waves[0].members: none of the agents has the tag \"canray\"");
    assert!(refused.remedy.is_some_and(|remedy| remedy.contains("spelling")));
    let agents = world.test.fleet.agents().select(&root(), &Selected::Matching(Box::default())).await.unwrap();
    let new = NewUpgrade { version: "9.6.0".into(), source_uri: None, plan: waves };
    let refused = world.test.fleet.rollouts().create_upgrade(&agents, new).await.unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("waves[0].members"));
}

#[tokio::test]
async fn m8_a_rollout_needs_a_change_of_an_existing_policy() {
    let world = World::new().await;
    world.apply(1, None).await.expect("it is applied");
    let nothing = world.apply(1, Some(halves())).await.unwrap_err();
    assert_eq!(nothing.code, "nothing_to_roll_out");
    let text = "name: other\n".to_owned();
    let application = Application { text, rollout: Some(halves()), ..Application::default() };
    let unknown = world.test.fleet.policies().apply(&root(), application).await.unwrap_err();
    assert_eq!(unknown.field.as_deref(), Some("rollout"));
    let short = world.apply(2, Some(plan(&[Members::Percent(50)], false))).await.unwrap_err();
    assert_eq!(short.message, "waves: the last wave must contain 100 percent of the agents");
}

async fn upgrade(world: &World, plan: Plan) -> Rollout {
    let everybody = Selected::Matching(Box::default());
    let agents = world.test.fleet.agents().select(&root(), &everybody).await.expect("they are read");
    let new = NewUpgrade { version: "9.6.0".into(), source_uri: None, plan };
    let made = world.test.fleet.rollouts().create_upgrade(&agents, new).await.expect("it is made");
    assert_eq!((made.agents, made.refused.len()), (AGENTS as u64, 0));
    made.rollout
}

#[tokio::test]
async fn programs_that_cannot_be_upgraded_are_in_no_wave() {
    let world = World::new().await;
    let fleet = &world.test.fleet;
    for (id, family) in [("o-1", Family::Osquery), ("b-1", Family::Orbit)] {
        let record = AgentRecord { family, ..online_agent(id, None, world.test.now()) };
        world.test.add_agent(record, AgentDocuments::default()).await;
    }
    let create = async |ids: &Selected| {
        let agents = fleet.agents().select(&root(), ids).await.expect("they are read");
        let new = NewUpgrade { version: "9.6.0".into(), source_uri: None, plan: halves() };
        fleet.rollouts().create_upgrade(&agents, new).await
    };
    let made = create(&Selected::Matching(Box::default())).await.expect("it is made");
    assert_eq!((made.agents, made.left_out, made.refused.len()), (AGENTS as u64, 2, 0));
    assert_eq!(made.wave_agents.last(), Some(&(AGENTS as u64)));
    let families = AgentFilter::all([AgentCondition::Families(vec![Family::Osquery, Family::Orbit])]);
    let none = create(&Selected::Matching(Box::new(families))).await.unwrap_err();
    assert_eq!(none.code, "no_agent_eligible");
}

/// The actions of a rollout's waves, with the number of targets of each.
async fn waves(world: &World, rollout: &Rollout) -> Vec<i64> {
    let found = world.test.store().rollout_in(&rollout.space, &rollout.id).await.expect("readable").expect("there");
    let Subject::Upgrade { actions, .. } = found.subject else { panic!("it is an upgrade") };
    let mut totals = Vec::new();
    for id in actions.into_iter().flatten() {
        totals.push(world.test.store().action(&id).await.expect("readable").expect("it is made").total);
    }
    totals
}

#[tokio::test]
async fn m8_each_wave_of_an_upgrade_is_an_action_for_its_agents() {
    let world = World::new().await;
    let rollout = upgrade(&world, halves()).await;
    world.advance(0).await;
    assert_eq!((world.state(&rollout).await, waves(&world, &rollout).await), ((State::Running, 1), vec![]));
    world.advance(0).await;
    let first = below(50);
    assert_eq!(waves(&world, &rollout).await, [first.len() as i64]);
    world.advance(11).await;
    assert_eq!(world.state(&rollout).await.1, 1, "nobody runs it yet");
    for agent in &first {
        world.change(agent, |record| record.agent_version = "9.6.0".into()).await;
    }
    world.advance(0).await;
    world.advance(0).await;
    assert_eq!(waves(&world, &rollout).await, [first.len() as i64, (AGENTS - first.len()) as i64]);
    let seen = world.seen(&rollout).await;
    assert_eq!((seen.agents, seen.applied), (AGENTS as u64, first.len() as u64));
}

#[tokio::test]
async fn m8_an_unhealthy_upgrade_halts_and_is_ended_by_a_rollback() {
    let world = World::new().await;
    let rollout = upgrade(&world, halves()).await;
    world.advance(0).await;
    world.advance(0).await;
    for agent in &below(50) {
        world.change(agent, |record| record.status = Status::Error).await;
    }
    world.advance(11).await;
    assert!(matches!(world.state(&rollout).await, (State::Halted { .. }, 1)));
    let find = async || world.test.fleet.rollouts().control(&root(), rollout.id.as_str()).await.expect("it is there");
    let ended = world.test.fleet.rollouts().roll_back(&root(), &find().await).await.expect("it is ended");
    assert!(matches!(ended.state, State::RolledBack { halted: Some(_) }));
    world.advance(600).await;
    assert_eq!(waves(&world, &rollout).await.len(), 1, "no further wave");
}

#[tokio::test]
async fn m8_rollouts_of_upgrades_need_a_privilege_of_their_own() {
    let world = World::new().await;
    let rollout = upgrade(&world, halves()).await;
    let rollouts = world.test.fleet.rollouts();
    let code = async |context: OpContext, id: &str| rollouts.control(&context, id).await.err().map(|error| error.code);
    let id = rollout.id.as_str();
    let of_policies = || OpContext::with_only::<PoliciesRollout>(Actor::Local { uid: 7 });
    let of_upgrades = || OpContext::with_only::<AgentsRollout>(Actor::Local { uid: 7 });
    assert_eq!(code(of_policies(), id).await, Some("forbidden"));
    assert_eq!((code(of_upgrades(), id).await, code(of_upgrades(), "unknown").await), (None, Some("not_found")));
    assert_eq!(code(of_policies(), "unknown").await, Some("not_found"));
    let other = World::new().await;
    let staged = other.begin(halves()).await;
    let rollouts = other.test.fleet.rollouts();
    assert!(rollouts.control(&of_policies(), staged.id.as_str()).await.is_ok());
    assert_eq!(rollouts.control(&of_upgrades(), staged.id.as_str()).await.unwrap_err().kind, ErrorKind::Forbidden);
}
