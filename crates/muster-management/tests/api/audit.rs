//! `/audit`: filters, cursors and verification of the audit log (M25).

use serde_json::{Value, json};

use crate::support::Api;

/// A fleet with four policies, each with an event in the audit log.
async fn with_policies() -> Api {
    let api = Api::new();
    for id in ["a", "b", "c", "d"] {
        api.post("/agent_policies", json!({"id": id, "name": id, "namespace": "default"})).await.ok();
    }
    api
}

fn subjects(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().map(|line| line["subject"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn m25_lines_are_listed_newest_first_and_filtered() {
    let api = with_policies().await;
    let all = api.get("/audit").await.ok();
    assert_eq!(subjects(&all), ["policy:d", "policy:c", "policy:b", "policy:a"]);
    let line = &all["items"][0];
    assert_eq!((&line["action"], &line["detail"]["name"]), (&json!("policy.create"), &json!("d")));
    assert_eq!(line["hash"].as_str().unwrap().len(), 64);
    assert_eq!(subjects(&api.get("/audit?subject=policy:b").await.ok()), ["policy:b"]);
    assert_eq!(subjects(&api.get("/audit?action=policy.delete").await.ok()), [] as [&str; 0]);
    let actor = line["actor"].as_str().unwrap();
    assert_eq!(subjects(&api.get(&format!("/audit?actor={actor}&subject=policy:c")).await.ok()), ["policy:c"]);
    let at = line["at"].as_str().unwrap();
    assert_eq!(subjects(&api.get(&format!("/audit?until={at}")).await.ok()), [] as [&str; 0], "the clock stands still");
    assert_eq!(subjects(&api.get(&format!("/audit?since={at}")).await.ok()).len(), 4);
    for wrong in ["since=yesterday", "searchAfter=x", "perPage=20000"] {
        api.get(&format!("/audit?{wrong}")).await.refused(400);
    }
}

#[tokio::test]
async fn cursors_lead_to_the_first_line() {
    let api = with_policies().await;
    let first = api.get("/audit?perPage=3").await.ok();
    assert_eq!(subjects(&first), ["policy:d", "policy:c", "policy:b"]);
    let next = first["nextSearchAfter"].as_str().unwrap();
    let last = api.get(&format!("/audit?perPage=3&searchAfter={next}")).await.ok();
    assert_eq!((subjects(&last), &last["nextSearchAfter"]), (vec!["policy:a"], &Value::Null));
}

#[tokio::test]
async fn an_intact_log_is_verified_and_its_head_is_the_newest_hash() {
    let api = with_policies().await;
    let newest = api.get("/audit?perPage=1").await.ok()["items"][0]["hash"].clone();
    let verdict = api.get("/audit/_verify").await.ok();
    let head = &verdict["heads"][0];
    assert_eq!((&verdict["intact"], &verdict["lines"], &head["hash"]), (&json!(true), &json!(4), &newest));
    assert_eq!((&head["position"], verdict["heads"].as_array().unwrap().len()), (&json!(4), 1));
    assert!(verdict.get("broken").is_none(), "{verdict}");
}
