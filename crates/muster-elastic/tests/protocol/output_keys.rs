//! Keys of agents at the clusters of their outputs (EA §6): the agent API over a fleet that calls a stub of Elasticsearch's
//! security API over HTTP.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, and so do their helpers")]

mod bootstrap;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::action::ActionType;
use muster_core::authorization::{Actor, OpContext, OutputsRead};
use muster_core::id::{AgentId, PolicyId};
use muster_elasticsearch::SecurityApi;
use muster_elasticsearch::testing::{Mode, Stub, StubKey, TOKEN, USER};
use muster_fleet::force::Force;
use muster_fleet::outgoing::LocalTargets;
use muster_fleet::outputs::OutputDraft;
use muster_fleet::policies::PolicyDraft;
use muster_fleet::selection::Selected;
use muster_listen::reply::Parked;
use serde_json::{Map, Value, json};

use crate::setting::{Enrolled, Got, Server};

/// Longer than anything takes that does not depend on time.
const SOON: Duration = Duration::from_secs(20);

/// A server with the output `main` at a stub, which is the default.
struct World {
    server: Server,
    stub: Stub,
}

impl Deref for World {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

fn fields(value: &Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// One input that writes to `logs-DATASET-default`.
fn input(dataset: &str) -> Value {
    json!({"inputs": [
        {"type": "filestream", "id": "files", "streams": [{"data_stream": {"type": "logs", "dataset": dataset}}]}
    ]})
}

fn can_write(key: &StubKey, index: &str) -> bool {
    let roles = key.roles.values().flat_map(|role| role["indices"].as_array().cloned().unwrap_or_default());
    roles.flat_map(|indices| indices["names"].as_array().cloned().unwrap_or_default()).any(|name| name == index)
}

impl World {
    async fn new() -> Self {
        Self::with_timeout(SOON).await
    }

    async fn with_timeout(timeout: Duration) -> Self {
        let stub = Stub::start().await;
        let server =
            Server::issuing(|_| {}, |_| {}, Arc::new(SecurityApi::new(LocalTargets::Permitted).with_timeout(timeout)));
        let world = Self { server, stub };
        world.output("main", true, world.stub.output()).await;
        world
    }

    async fn output(&self, id: &str, is_default: bool, mut settings: Value) {
        let kind = settings.as_object_mut().and_then(|fields| fields.remove("type"));
        let draft = OutputDraft {
            id: Some(id.into()),
            name: Some(id.into()),
            kind: kind.and_then(|kind| kind.as_str().map(str::to_owned)),
            is_default: Some(is_default),
            is_default_monitoring: Some(false),
            fields: fields(&settings),
        };
        self.fleet.outputs().create(&root().grant().unwrap(), draft).await.unwrap();
    }

    async fn change_output(&self, id: &str, mut settings: Value) {
        settings.as_object_mut().and_then(|fields| fields.remove("type"));
        let output = self.fleet.outputs().find(&root(), id).await.unwrap();
        let draft = OutputDraft { fields: fields(&settings), ..OutputDraft::default() };
        self.fleet.outputs().update(&output, draft).await.unwrap();
        self.refresh("p").await;
    }

    /// Makes the newest revision known. The change feed does the same, a moment later.
    async fn refresh(&self, policy: &str) {
        self.fleet.inner().policy_cache.refresh(&PolicyId::trusted(policy)).await.unwrap();
    }

    async fn policy(&self, id: &str, config: Value) {
        let draft =
            PolicyDraft { id: Some(id.into()), name: Some(id.into()), config: Some(config), ..PolicyDraft::default() };
        self.fleet.policies().create(&root().grant().unwrap(), draft).await.unwrap();
    }

    async fn change_policy(&self, id: &str, config: Value) {
        let policy = self.fleet.policies().find(&root(), id).await.unwrap();
        let draft = PolicyDraft { config: Some(config), ..PolicyDraft::default() };
        self.fleet.policies().update(&policy, draft).await.unwrap();
        self.refresh(id).await;
    }

    async fn agent(&self, policy: &str) -> Enrolled {
        let token = self.add_key(Some(policy), |_| {}).await.token();
        self.enroll_with(&token, &json!({"type": "PERMANENT"})).await
    }

    /// The work that the background does.
    async fn work(&self) {
        self.fleet.output_keys().work().await.unwrap();
    }

    /// A poll of an agent that runs a revision of a policy.
    async fn poll(&self, agent: &Enrolled, policy: &str, revision: i64) -> Parked {
        let running = json!({"status": "online", "agent_policy_id": policy, "policy_revision_idx": revision});
        self.park(self.check_in(agent, &running)).await
    }

    /// The policy that a poll returns at once.
    async fn delivered(&self, agent: &Enrolled, policy: &str, revision: i64) -> Value {
        let running = json!({"status": "online", "agent_policy_id": policy, "policy_revision_idx": revision});
        policy_of(&self.get(self.check_in(agent, &running)).await)
    }

    async fn ack(&self, agent: &Enrolled, action: &str) {
        let acked = self.get(self.acks(agent, &json!([{"action_id": action, "agent_id": agent.id}]))).await;
        assert_eq!(acked.status, 200, "{acked:?}");
    }

    /// An agent that has got its first revision with its key, and acked it.
    async fn running(&self, policy: &str) -> (Enrolled, String) {
        let agent = self.agent(policy).await;
        let parked = self.poll(&agent, policy, 0).await;
        self.work().await;
        let got = woken(parked).await;
        self.ack(&agent, &format!("policy:{policy}:1")).await;
        (agent, key_of(&got, "default"))
    }

    async fn health(&self) -> (String, String) {
        let health = self.fleet.outputs().health(&root().grant::<OutputsRead>().unwrap(), "main").await.unwrap();
        (health.state.to_owned(), health.message)
    }

    fn well(&self) {
        assert_eq!(self.stub.complaints(), Vec::<String>::new(), "what the stub rejects, Elasticsearch rejects");
    }
}

fn policy_of(got: &Got) -> Value {
    let reply = got.json();
    assert_eq!(reply["actions"].as_array().map(Vec::len), Some(1), "{reply}");
    assert_eq!(reply["actions"][0]["type"], "POLICY_CHANGE");
    reply["actions"][0]["data"]["policy"].clone()
}

/// The policy that a held poll is answered with.
async fn woken(parked: Parked) -> Value {
    policy_of(&Got::of(tokio::time::timeout(SOON, parked).await.expect("woken")).await)
}

fn key_of(policy: &Value, output: &str) -> String {
    policy["outputs"][output]["api_key"].as_str().unwrap_or_else(|| panic!("no key: {policy}")).to_owned()
}

#[tokio::test]
async fn ea101_ea102_each_agent_gets_a_key_of_its_own_with_exactly_the_permissions_of_its_policy() {
    let world = World::new().await;
    world.policy("p", input("nginx")).await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let agent = world.agent("p").await;
        let parked = world.poll(&agent, "p", 0).await;
        world.work().await;
        let policy = woken(parked).await;
        let key = world.stub.authenticate(&key_of(&policy, "default")).expect("a valid key as id:secret");
        assert_eq!(Value::Object(key.roles), policy["output_permissions"]["default"]);
        assert_eq!(key.name, format!("{}:default", agent.id));
        let metadata = &key.metadata;
        assert_eq!((&metadata["agent_id"], &metadata["output_name"]), (&json!(agent.id), &json!("default")));
        assert_eq!((&metadata["managed"], &metadata["type"]), (&json!(true), &json!("output")));
        assert!(policy["outputs"]["default"].get("service_token").is_none(), "{policy}");
        keys.push(key.id);
    }
    assert_ne!(keys[0], keys[1]);
    world.well();
}

#[tokio::test]
async fn ea101_a_new_revision_with_the_same_permissions_calls_nothing() {
    let world = World::new().await;
    world.policy("p", input("nginx")).await;
    let (agent, key) = world.running("p").await;
    let mut config = input("nginx");
    config["agent"] = json!({"logging": {"level": "debug"}});
    let calls = world.stub.calls();
    world.change_policy("p", config).await;
    assert_eq!(key_of(&world.delivered(&agent, "p", 1).await, "default"), key);
    world.work().await;
    assert_eq!(world.stub.calls(), calls);
}

#[tokio::test]
async fn ea103_exporters_of_collectors_get_the_key_in_base64() {
    let world = World::new().await;
    let config = json!({
        "receivers": {"otlp": {}},
        "exporters": {
            "elasticsearch/default": {"endpoints": ["https://es:9200"]}, "elasticsearch/other": {"endpoints": ["https://x"]},
            "debug": null
        },
        "service": {"pipelines": {
            "logs": {"receivers": ["otlp"], "exporters": ["elasticsearch/default", "debug"]},
            "metrics/a": {"receivers": ["otlp"], "exporters": ["elasticsearch/default"]}
        }}
    });
    world.policy("p", config).await;
    let agent = world.agent("p").await;
    let parked = world.poll(&agent, "p", 0).await;
    world.work().await;
    let policy = woken(parked).await;
    let key = key_of(&policy, "default");
    assert_eq!(policy["exporters"]["elasticsearch/default"]["api_key"], STANDARD.encode(&key));
    assert_eq!(policy["exporters"]["elasticsearch/other"], json!({"endpoints": ["https://x"]}));
    let key = world.stub.authenticate(&key).unwrap();
    assert!(can_write(&key, "logs-*") && can_write(&key, "metrics-*") && !can_write(&key, "traces-*"), "{key:?}");
    world.well();
}

#[tokio::test]
async fn ea104_a_remote_cluster_is_delivered_as_elasticsearch_with_a_key_of_that_cluster() {
    let world = World::new().await;
    let remote = Stub::start().await;
    let mut settings = remote.output();
    settings["type"] = "remote_elasticsearch".into();
    world.output("far", false, settings).await;
    let mut config = input("nginx");
    config["inputs"][0]["use_output"] = "far".into();
    world.policy("p", config).await;
    let agent = world.agent("p").await;
    let parked = world.poll(&agent, "p", 0).await;
    world.work().await;
    let policy = woken(parked).await;
    let output = &policy["outputs"]["far"];
    assert_eq!((&output["type"], output.get("service_token")), (&json!("elasticsearch"), None));
    assert!(can_write(&remote.authenticate(&key_of(&policy, "far")).unwrap(), "logs-nginx-default"));
    assert!(world.stub.authenticate(&key_of(&policy, "default")).is_some(), "each cluster has keys of its own");
    assert_eq!((remote.valid().len(), world.stub.valid().len()), (1, 1));
}

#[tokio::test]
async fn ea105_other_outputs_get_no_key_and_need_no_cluster() {
    let world = World::new().await;
    world.stub.set(Mode::Status(500, None));
    let config = json!({
        "outputs": {
            "default": {"type": "logstash", "hosts": ["l:5044"]}, "k": {"type": "kafka", "hosts": ["k:9092"]},
            "own": {"type": "elasticsearch", "hosts": ["https://es:9200"], "api_key": "id:shared"}
        }
    });
    world.policy("p", config).await;
    let agent = world.agent("p").await;
    let policy = world.delivered(&agent, "p", 0).await;
    assert!(policy["outputs"]["default"].get("api_key").is_none() && policy["outputs"]["k"].get("api_key").is_none());
    assert_eq!(policy["outputs"]["own"]["api_key"], "id:shared", "configured for all agents");
    world.work().await;
    assert_eq!(world.stub.calls(), Default::default());
}

#[tokio::test]
async fn ea106_former_permissions_stay_until_the_ack_and_go_after_it() {
    let world = World::new().await;
    world.policy("p", input("old")).await;
    let (agent, secret) = world.running("p").await;
    world.change_policy("p", input("new")).await;
    let parked = world.poll(&agent, "p", 1).await;
    world.work().await;
    let policy = woken(parked).await;
    assert_eq!(key_of(&policy, "default"), secret, "the same key");
    let key = world.stub.authenticate(&secret).unwrap();
    assert!(can_write(&key, "logs-old-default") && can_write(&key, "logs-new-default"), "{key:?}");
    world.work().await;
    assert!(can_write(&world.stub.authenticate(&secret).unwrap(), "logs-old-default"), "not confirmed yet");
    world.ack(&agent, "policy:p:2").await;
    drop(world.poll(&agent, "p", 2).await);
    world.work().await;
    let key = world.stub.authenticate(&secret).unwrap();
    assert_eq!(Value::Object(key.roles), policy["output_permissions"]["default"]);
    assert_eq!(world.stub.keys().len(), 1);
    world.well();
}

#[tokio::test]
async fn ea106_an_agent_that_moves_to_another_cluster_keeps_its_former_key_until_it_has_confirmed() {
    let world = World::new().await;
    let second = Stub::start().await;
    world.policy("p", input("nginx")).await;
    let (agent, former) = world.running("p").await;
    world.change_output("main", second.output()).await;
    let parked = world.poll(&agent, "p", 1).await;
    world.work().await;
    let policy = woken(parked).await;
    assert!(second.authenticate(&key_of(&policy, "default")).is_some());
    world.work().await;
    assert!(world.stub.authenticate(&former).is_some(), "the agent still runs the former revision");
    // Agents of 9.x also confirm by what they report.
    drop(world.poll(&agent, "p", 2).await);
    world.work().await;
    assert!(world.stub.authenticate(&former).is_none());
    assert_eq!(second.valid().len(), 1);
}

#[tokio::test]
async fn ea106_the_keys_of_a_policy_without_outputs_are_invalidated_after_a_reassignment() {
    let world = World::new().await;
    world.policy("p", input("nginx")).await;
    world.policy("q", json!({"outputs": {"default": {"type": "logstash", "hosts": ["l:5044"]}}})).await;
    let (agent, key) = world.running("p").await;
    let selected = Selected::one(&agent.id).unwrap();
    let selection = world.fleet.agents().select(&root(), &selected).await.unwrap();
    world.fleet.actions().reassign(&selection, Some("q"), None, Force::No).await.unwrap();
    // The new policy and the action arrive in either order.
    let mut running = json!({"status": "online", "agent_policy_id": "p", "policy_revision_idx": 1});
    let mut arrived = Vec::new();
    while arrived.len() < 2 {
        let reply = world.get_in_time(world.check_in(&agent, &running)).await.json();
        let kind = reply["actions"][0]["type"].as_str().unwrap().to_owned();
        if kind == "POLICY_REASSIGN" {
            running["ack_token"] = reply["ack_token"].clone();
        } else {
            // Delivered, but not known to run yet.
            world.work().await;
            assert!(world.stub.authenticate(&key).is_some());
            running["agent_policy_id"] = json!("q");
        }
        arrived.push(kind);
    }
    arrived.sort_unstable();
    assert_eq!(arrived, ["POLICY_CHANGE", "POLICY_REASSIGN"]);
    world.ack(&agent, "policy:q:1").await;
    world.holds(world.check_in(&agent, &running)).await;
    world.work().await;
    assert!(world.stub.authenticate(&key).is_none());
}

#[tokio::test]
async fn ea107_ea110_d18_a_failing_cluster_delays_keys_but_no_check_in() {
    let failures = [
        (Mode::Status(503, None), "503"),
        (Mode::Status(401, None), "401"),
        (Mode::Status(403, None), "403"),
        (Mode::Html(200), "not a response of Elasticsearch"),
        (Mode::Html(502), "not a response of Elasticsearch"),
        (Mode::Endless, "exceeds"),
        (Mode::Never, "no response in time"),
    ];
    for (mode, reason) in failures {
        let world = World::with_timeout(Duration::from_millis(if mode == Mode::Never { 100 } else { 20_000 })).await;
        world.policy("p", input("nginx")).await;
        world.stub.set(mode.clone());
        let agent = world.agent("p").await;
        let parked = world.poll(&agent, "p", 0).await;
        world.work().await;
        let policy = woken(parked).await;
        assert_eq!(policy["outputs"]["default"].get("api_key"), None, "{mode:?}");
        assert_eq!(policy["outputs"]["default"]["hosts"], json!([world.stub.url()]));
        let (state, message) = world.health().await;
        assert!(state == "DEGRADED" && message.contains(reason), "{mode:?}: {state} {message}");
        // The next agent does not even wait.
        let second = world.agent("p").await;
        assert_eq!(world.delivered(&second, "p", 0).await["outputs"]["default"].get("api_key"), None);
        world.ack(&agent, "policy:p:1").await;

        let parked = world.poll(&agent, "p", 1).await;
        world.stub.set(Mode::Well);
        world.work().await;
        assert_eq!(world.stub.keys().len(), 0, "{mode:?}: it is left alone for a while");
        world.clock.advance(Duration::from_secs(60));
        world.work().await;
        let policy = woken(parked).await;
        assert!(
            world.stub.authenticate(&key_of(&policy, "default")).is_some(),
            "{mode:?}: the same revision with the key"
        );
        // Not acked yet, so the delivery may have been lost.
        assert_eq!(policy["revision"], world.delivered(&agent, "p", 1).await["revision"]);
        world.ack(&agent, "policy:p:1").await;
        drop(world.poll(&agent, "p", 1).await);
        assert_eq!(world.health().await.0, "HEALTHY", "{mode:?}");
        world.well();
    }
}

#[tokio::test]
async fn ea107_an_agent_that_never_acks_gets_a_late_key_a_few_times_only() {
    let world = World::new().await;
    world.policy("p", input("nginx")).await;
    world.stub.set(Mode::Status(503, None));
    let agent = world.agent("p").await;
    let parked = world.poll(&agent, "p", 0).await;
    world.work().await;
    woken(parked).await;
    world.stub.set(Mode::Well);
    world.clock.advance(Duration::from_secs(60));
    world.work().await;
    let mut deliveries = 0;
    loop {
        let running = json!({"status": "online", "agent_policy_id": "p", "policy_revision_idx": 1});
        let ask = world.check_in(&agent, &running);
        match world.ask(ask).await {
            muster_listen::reply::Answer::Reply(reply) => {
                key_of(&policy_of(&Got::of(reply).await), "default");
                deliveries += 1;
                assert!(deliveries < 20, "for ever");
                world.clock.advance(Duration::from_secs(600));
            }
            _ => break,
        }
    }
    assert!((2..=6).contains(&deliveries), "{deliveries}");
}

#[tokio::test]
async fn an_overloaded_cluster_is_waited_for() {
    let world = World::new().await;
    world.policy("p", input("nginx")).await;
    world.stub.set(Mode::Status(429, Some(7)));
    let agent = world.agent("p").await;
    let parked = world.poll(&agent, "p", 0).await;
    world.work().await;
    assert!(world.health().await.1.contains("429"));
    world.stub.set(Mode::Well);
    let calls = world.stub.calls();
    world.clock.advance(Duration::from_secs(6));
    world.work().await;
    assert_eq!(world.stub.calls(), calls, "as long as it asks for");
    world.clock.advance(Duration::from_secs(2));
    world.work().await;
    key_of(&woken(parked).await, "default");
}

#[tokio::test]
async fn permissions_that_a_cluster_rejects_fail_alone() {
    let world = World::new().await;
    world.policy("p", input("nginx")).await;
    let mut bad = input("nginx");
    bad["output_permissions"] = json!({"default": {"mine": {"cluster": ["no-such-privilege"]}}});
    world.policy("bad", bad).await;
    world.stub.reject_privilege("no-such-privilege");
    let (well, ill) = (world.agent("p").await, world.agent("bad").await);
    let (one, other) = (world.poll(&well, "p", 0).await, world.poll(&ill, "bad", 0).await);
    world.work().await;
    key_of(&woken(one).await, "default");
    assert_eq!(woken(other).await["outputs"]["default"].get("api_key"), None);
    let (state, message) = world.health().await;
    assert!(state == "DEGRADED" && message.contains("unknown privilege"), "{state} {message}");
}

#[tokio::test]
async fn ea108_all_keys_of_an_agent_are_invalidated_when_it_leaves() {
    for way in ["unenroll", "migrate", "force", "delete"] {
        let world = World::new().await;
        let second = Stub::start().await;
        world.policy("p", input("nginx")).await;
        let (agent, _) = world.running("p").await;
        // A retired key that nothing has confirmed, and one that is in use.
        world.change_output("main", second.output()).await;
        let parked = world.poll(&agent, "p", 1).await;
        world.work().await;
        woken(parked).await;
        assert_eq!((world.stub.valid().len(), second.valid().len()), (1, 1));
        // The clusters are away meanwhile.
        world.stub.set(Mode::Status(503, None));
        second.set(Mode::Status(503, None));
        leave(&world, &agent, way).await;
        world.work().await;
        assert_eq!((world.stub.valid().len(), second.valid().len()), (1, 1), "{way}");
        world.stub.set(Mode::Well);
        second.set(Mode::Well);
        world.clock.advance(Duration::from_secs(60));
        world.work().await;
        assert_eq!((world.stub.valid().len(), second.valid().len()), (0, 0), "{way}");
        world.well();
    }
}

async fn leave(world: &World, agent: &Enrolled, way: &str) {
    let selected = Selected::one(&agent.id).unwrap();
    match way {
        "force" | "delete" => {
            world.revoke(agent).await;
            if way == "delete" {
                let selection = world.fleet.agents().select(&root(), &selected).await.unwrap();
                world.fleet.agents().delete_many(&selection).await.unwrap();
                assert!(world.fleet.store().agent(&AgentId::trusted(agent.id.as_str())).await.unwrap().is_none());
            }
        }
        _ => {
            let kind = if way == "migrate" { ActionType::Migrate } else { ActionType::Unenroll };
            world.add_action("go", kind, &agent.id, if way == "migrate" { "{}" } else { "" }).await;
            world.ack(agent, "go").await;
        }
    }
}

#[tokio::test]
async fn ea108_a_key_that_is_created_while_its_agent_leaves_is_invalidated() {
    let world = World::new().await;
    world.policy("p", input("nginx")).await;
    let agent = world.agent("p").await;
    let parked = world.poll(&agent, "p", 0).await;
    let keys = Arc::clone(world.fleet.output_keys());
    // The work has read what is wanted, and calls the cluster, when the agent is unenrolled.
    let (worked, ()) = tokio::join!(keys.work(), world.revoke(&agent));
    worked.unwrap();
    drop(parked);
    world.work().await;
    assert_eq!(world.stub.valid().len(), 0);
}

#[tokio::test]
async fn ea109_no_secret_of_a_key_is_stored_in_clear_text() {
    let world = World::new().await;
    world.policy("p", input("nginx")).await;
    let (agent, key) = world.running("p").await;
    let (held, _) = world.fleet.store().output_keys(&AgentId::trusted(agent.id.as_str())).await.unwrap();
    let secret = key.split_once(':').unwrap().1;
    let sealed = held[0].issued.as_ref().unwrap();
    assert_eq!(sealed.id.as_str(), key.split_once(':').unwrap().0);
    assert!(!sealed.sealed.windows(secret.len()).any(|window| window == secret.as_bytes()));
    let cluster = world.fleet.store().output_clusters().await.unwrap().remove(0);
    let token = TOKEN.as_bytes();
    assert!(!cluster.sealed.windows(token.len()).any(|window| window == token));
}

#[tokio::test]
async fn a_key_that_was_invalidated_at_the_cluster_is_replaced_when_it_must_change() {
    let world = World::new().await;
    world.policy("p", input("old")).await;
    let (agent, former) = world.running("p").await;
    world.stub.revoke(former.split_once(':').unwrap().0);
    world.change_policy("p", input("new")).await;
    let parked = world.poll(&agent, "p", 1).await;
    world.work().await;
    let policy = woken(parked).await;
    let key = key_of(&policy, "default");
    assert_ne!(key, former);
    assert!(can_write(&world.stub.authenticate(&key).unwrap(), "logs-new-default"));
}

#[tokio::test]
async fn a_key_whose_creation_was_not_answered_is_found_and_invalidated() {
    let world = World::new().await;
    world.policy("p", input("nginx")).await;
    let agent = world.agent("p").await;
    let parked = world.poll(&agent, "p", 0).await;
    world.stub.set(Mode::Lost);
    world.work().await;
    woken(parked).await;
    let lost = world.stub.valid();
    assert_eq!(lost.len(), 1);
    world.stub.set(Mode::Well);
    world.clock.advance(Duration::from_secs(60));
    world.work().await;
    assert_eq!(world.stub.valid().len(), 2);
    let keys = world.fleet.output_keys();
    keys.sweep().await.unwrap();
    world.work().await;
    assert_eq!(world.stub.valid().len(), 2, "it may be one that is being stored");
    world.clock.advance(Duration::from_secs(900));
    keys.sweep().await.unwrap();
    world.work().await;
    let left = world.stub.valid();
    assert_eq!(left.len(), 1);
    assert_ne!(left[0].id, lost[0].id);
    world.well();
}

#[tokio::test]
async fn ea101_many_agents_do_not_fall_on_the_cluster_at_once() {
    let world = World::new().await;
    world.policy("p", input("old")).await;
    let mut agents = Vec::new();
    for _ in 0..90 {
        let agent = world.agent("p").await;
        drop(world.poll(&agent, "p", 0).await);
        agents.push(agent);
    }
    world.work().await;
    let calls = world.stub.calls();
    assert_eq!((calls.create, world.stub.valid().len()), (90, 90));
    assert!(calls.most_at_once <= 8, "{calls:?}");
    for agent in &agents {
        world.delivered(agent, "p", 0).await;
    }
    world.change_policy("p", input("new")).await;
    for agent in &agents {
        drop(world.poll(agent, "p", 1).await);
    }
    world.work().await;
    let after = world.stub.calls();
    assert_eq!((after.create, after.read, after.update), (90, 1, 1), "agents with the same permissions are one call");
    assert!(world.stub.valid().iter().all(|key| can_write(key, "logs-new-default")));
}

#[tokio::test]
async fn ea101_keys_are_created_with_a_user_that_agents_never_see() {
    let world = World::new().await;
    world.output("other", false, world.stub.output_with_user()).await;
    let mut config = input("nginx");
    config["inputs"][0]["use_output"] = "other".into();
    world.policy("p", config).await;
    let agent = world.agent("p").await;
    let parked = world.poll(&agent, "p", 0).await;
    world.work().await;
    let got = woken(parked).await;
    let key = key_of(&got, "other");
    assert!(world.stub.authenticate(&key).is_some(), "{key}");
    let text = got.to_string();
    assert!(USER.iter().all(|word| !text.contains(&format!("\"{word}\""))) && !text.contains("agent_keys"), "{text}");
}

#[tokio::test]
async fn ea101_agents_keep_their_keys_when_an_output_gets_another_host() {
    let world = World::new().await;
    world.policy("p", input("nginx")).await;
    let (agent, key) = world.running("p").await;
    world
        .change_output("main", json!({"hosts": [world.stub.url(), "http://127.0.0.1:1"], "service_token": TOKEN}))
        .await;
    let policy = world.delivered(&agent, "p", 1).await;
    assert_eq!((key_of(&policy, "default"), world.stub.calls().create), (key, 1));
}
