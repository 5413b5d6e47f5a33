//! MG §11.10: status of actions.

use std::sync::Arc;
use std::time::Duration;

use muster_core::action::{ActionResult, Outcome};
use muster_core::agent::AgentRecord;
use muster_core::id::{ActionId, AgentId};
use muster_store::{ActionWrite, AgentWrite, Write};
use serde_json::json;

use crate::support::{Api, column};

async fn fail(api: &Api, id: &str, agent: &str, error: &str) {
    let result = ActionResult {
        action_id: ActionId::trusted(id),
        agent_id: AgentId::trusted(agent),
        at: api.now(),
        outcome: Outcome::Failed(error.into()),
        fields: None,
    };
    let write = Write::Action(ActionWrite::Result { result: Box::new(result), addressed: true });
    api.fleet.store().commit(vec![write]).await.unwrap();
}

async fn diagnostics(api: &Api, agents: &[&str]) -> String {
    let made = api.post("/agents/bulk_request_diagnostics", json!({"agents": agents})).await.ok();
    made["actionId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn mg140_pages_start_at_zero_with_the_newest_action() {
    let api = Api::new();
    api.agent("a", None).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        api.clock.advance(Duration::from_secs(1));
        made.push(diagnostics(&api, &["a"]).await);
    }
    let page = api.get("/agents/action_status?page=0&perPage=2").await.ok();
    assert_eq!(column(&page, "/actionId"), [made[2].clone(), made[1].clone()]);
    let next = api.get("/agents/action_status?page=1&perPage=2").await.ok();
    assert_eq!(column(&next, "/actionId"), [made[0].clone()]);
}

#[tokio::test]
async fn mg144_the_latest_errors_contain_host_names() {
    let api = Api::new();
    for agent in ["a", "b", "c"] {
        api.agent(agent, None).await;
    }
    let id = diagnostics(&api, &["a", "b", "c"]).await;
    for agent in ["a", "b", "c"] {
        api.clock.advance(Duration::from_secs(1));
        fail(&api, &id, agent, &format!("broken {agent}")).await;
    }
    let shown = api.get("/agents/action_status?errorSize=2").await.ok()["items"][0].clone();
    let errors = shown["latestErrors"].as_array().unwrap();
    assert_eq!(errors.len(), 2);
    assert_eq!((&errors[0]["error"], &errors[0]["hostname"]), (&json!("broken c"), &json!("host-c")));
    assert_eq!((&shown["status"], &shown["nbAgentsFailed"]), (&json!("FAILED"), &json!(3)));
}

#[tokio::test]
async fn mg142_actions_without_results_expire() {
    let api = Api::new();
    api.agent("a", None).await;
    let id = diagnostics(&api, &["a"]).await;
    api.clock.advance(Duration::from_secs(3 * 3600 + 1));
    let shown = api.get(&format!("/agents/actions/{id}")).await.ok();
    assert_eq!(shown["item"]["status"], "EXPIRED");
}

#[tokio::test]
async fn actions_can_be_filtered_by_day_and_age() {
    let api = Api::new();
    api.agent("a", None).await;
    let old = diagnostics(&api, &["a"]).await;
    let day = api.now().to_rfc3339_seconds();
    api.clock.advance(Duration::from_secs(86_400));
    let new = diagnostics(&api, &["a"]).await;
    let of_day = api.get(&format!("/agents/action_status?date={}", &day[..10])).await.ok();
    assert_eq!(column(&of_day, "/actionId"), [old]);
    let latest = api.get("/agents/action_status?latest=60000").await.ok();
    assert_eq!(column(&latest, "/actionId"), [new]);
    api.get("/agents/action_status?date=today").await.refused(400);
}

#[tokio::test]
async fn mg148_a_policy_change_lists_the_agents_of_the_policy() {
    let api = Api::new();
    let policy = api.policy("p").await;
    api.agent("a", Some(&policy)).await;
    api.agent("b", None).await;
    let agents = api.post("/agents", json!({"actionIds": [format!("{policy}:2")]})).await.ok();
    assert_eq!(agents["items"], json!(["a"]));
    api.post("/agents", json!({"actionIds": ["nothing"]})).await.refused(404);
}

#[tokio::test]
async fn mg146_a_revision_is_complete_when_all_agents_run_it() {
    let api = Api::new();
    let policy = api.policy("p").await;
    for agent in ["a", "b", "c"] {
        api.agent(agent, Some(&policy)).await;
    }
    api.agent_with("gone", Some(&policy), |record| {
        record.active = false;
        record.unenrolled_at = Some(record.enrolled_at);
    })
    .await;
    assert_eq!(api.get("/agents/action_status").await.ok()["total"], 0, "the first revision is none");
    api.clock.advance(Duration::from_secs(1));
    let diagnostics_id = diagnostics(&api, &["a"]).await;
    api.clock.advance(Duration::from_secs(1));
    let body = json!({"name": "p", "namespace": "default", "config": {"inputs": [{"id": "i", "type": "process", "command": "/x"}]}});
    api.put(&format!("/agent_policies/{policy}"), body).await.ok();
    let id = format!("{policy}:2");
    let listed = api.get("/agents/action_status").await.ok();
    assert_eq!((column(&listed, "/actionId"), &listed["total"]), (vec![id.clone(), diagnostics_id], &json!(2)));

    // Pinned to another revision: never gets this one, so that waiting for it would not end.
    api.agent_with("pinned", Some(&policy), |record| record.target_revision = Some(1)).await;
    let targets = api.post("/agents", json!({"actionIds": [id]})).await.ok();
    assert_eq!(targets["items"], json!(["a", "b", "c"]));
    for (running, agent) in ["a", "b", "c"].into_iter().enumerate() {
        let shown = api.get(&format!("/agents/actions/{id}")).await.ok()["item"].clone();
        assert_eq!((&shown["type"], &shown["status"]), (&json!("POLICY_CHANGE"), &json!("IN_PROGRESS")));
        assert_eq!((&shown["nbAgentsActioned"], &shown["nbAgentsAck"]), (&json!(3), &json!(running)));
        assert_eq!((&shown["policyId"], &shown["revision"]), (&json!(policy), &json!(2)));
        let before = Arc::new(api.record(agent).await.unwrap());
        let after = Arc::new(AgentRecord {
            policy_revision: 2,
            policy_revision_at: Some(api.now()),
            version: before.version + 1,
            ..(*before).clone()
        });
        api.fleet.store().commit(vec![Write::Agent(AgentWrite::Update { before, after })]).await.unwrap();
    }
    let done = api.get("/agents/action_status").await.ok()["items"][0].clone();
    assert_eq!((&done["status"], &done["nbAgentsFailed"]), (&json!("COMPLETE"), &json!(0)));
    let results = api.get(&format!("/agents/actions/{id}/results?limit=2")).await.ok();
    assert_eq!(results["items"][0]["state"], "acked");
    assert!(results["items"][0]["timestamp"].is_string(), "{results}");
    assert_eq!(results["items"].as_array().unwrap().len(), 2);
    let rest = api.get(&format!("/agents/actions/{id}/results?after=1&limit=2")).await.ok();
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    for unknown in [format!("{policy}:1"), format!("{policy}:3"), "x:2".into()] {
        api.get(&format!("/agents/actions/{unknown}")).await.refused(404);
    }
    api.post(&format!("/agents/actions/{id}/cancel"), json!({})).await.refused(404);
}

#[tokio::test]
async fn mg147_every_revision_is_listed() {
    let api = Api::new();
    let policy = api.policy("p").await;
    for number in 0..200 {
        api.clock.advance(Duration::from_secs(60));
        let body = json!({"name": "p", "namespace": "default", "description": format!("{number}"),
            "config": {"inputs": [{"id": format!("i{number}"), "type": "process", "command": "/x"}]}});
        api.put(&format!("/agent_policies/{policy}"), body).await.ok();
    }
    let mut seen = Vec::new();
    for page in 0..3 {
        let listed = api.get(&format!("/agents/action_status?page={page}&perPage=70")).await.ok();
        assert_eq!(listed["total"], 200);
        seen.extend(column(&listed, "/actionId"));
    }
    let expected: Vec<String> = (2..=201).rev().map(|revision| format!("{policy}:{revision}")).collect();
    assert_eq!(seen, expected);
    for filter in ["", "&kuery=type:POLICY_CHANGE"] {
        let (mut seen, mut next) = (Vec::new(), String::new());
        loop {
            let listed = api.get(&format!("/agents/action_status?perPage=70{filter}{next}")).await.ok();
            assert_eq!(listed["total"], 200);
            seen.extend(column(&listed, "/actionId"));
            let Some(after) = listed["nextSearchAfter"].as_str() else { break };
            let after: String =
                percent_encoding::utf8_percent_encode(after, percent_encoding::NON_ALPHANUMERIC).collect();
            next = format!("&searchAfter={after}");
        }
        assert_eq!(seen, expected, "{filter}");
    }
    let refused = api.get("/agents/action_status?searchAfter=%5B1%5D").await.refused(400);
    assert_eq!(refused["field"], "searchAfter");
}
