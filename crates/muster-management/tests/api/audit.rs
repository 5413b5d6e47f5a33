//! `/audit`: filters, cursors and verification of the audit log (M25).

use axum::body::Body;
use axum::http::{Method, Request};
use muster_core::audit::verify::{Verified, Verifier};
use muster_listen::reply::{ListenerKind, Peer};
use serde_json::{Value, json};

use crate::support::{Api, administrator};

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

async fn exported(api: &Api, query: &str) -> Verified {
    let answer = api.get(&format!("/audit/_export{query}")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"application/x-ndjson".parse().unwrap())
    );
    let file = answer.body.as_str().unwrap().to_owned();
    let mut verifier = Verifier::new(Some(api.fleet.inner().signer.public_key().to_owned()));
    file.split_inclusive('\n').for_each(|line| verifier.line(line.as_bytes()).unwrap());
    verifier.end().unwrap()
}

#[tokio::test]
async fn m25_an_export_is_signed_with_the_key_of_the_fleet_and_has_the_events_of_a_period() {
    let api = with_policies().await;
    let head = api.get("/audit/_verify").await.ok()["heads"][0].clone();
    let whole = exported(&api, "").await;
    assert_eq!(api.audit().await.last().unwrap(), "audit.export", "which is not part of the export");
    assert_eq!((whole.events, json!(whole.heads[0].hash)), (4, head["hash"].clone()));
    assert_eq!(json!(whole.header.chains[0].chain), head["chain"]);
    let at = api.get("/audit").await.ok()["items"][0]["at"].as_str().unwrap().to_owned();
    api.clock.advance(std::time::Duration::from_secs(60));
    // More than one piece.
    for n in 0..600 {
        let id = format!("late-{n}");
        api.post("/agent_policies", json!({"id": id, "name": id, "namespace": "default"})).await.ok();
    }
    let early = exported(&api, &format!("?since={at}&until=2100-01-01T00:00:00Z")).await;
    assert_eq!((early.events, early.heads[0].position), (605, 605));
    let late = api.get("/audit?perPage=1").await.ok()["items"][0]["at"].as_str().unwrap().to_owned();
    let last = exported(&api, &format!("?since={late}")).await;
    assert_eq!((last.events, last.header.chains[0].after, last.header.since.is_some()), (601, 5, true));
    let first = exported(&api, &format!("?until={late}")).await;
    assert_eq!((first.events, first.heads[0].position), (5, 5));
    assert_eq!(exported(&api, "?since=2100-01-01T00:00:00Z").await.events, 0);
    assert_eq!(exported(&api, "?until=2001-01-01T00:00:00Z").await.events, 0);
    api.get("/audit/_export?since=yesterday").await.refused(400);
}

#[tokio::test]
async fn m25_whoever_has_a_role_in_one_space_reads_the_events_of_this_space_only() {
    let api = with_policies().await;
    api.v1(Method::POST, "/spaces", json!({"id": "blue"})).await.ok();
    let in_blue = json!({"id": "of-blue", "name": "of-blue", "namespace": "default"});
    let created = Request::builder().method("POST").uri("/s/blue/api/fleet/agent_policies").extension(administrator());
    let created = created.header("content-type", "application/json").header("kbn-xsrf", "x");
    api.send(created.body(in_blue.to_string().into()).unwrap()).await.ok();
    api.v1(Method::POST, "/service_accounts", json!({"name": "eve"})).await.ok();
    api.v1(Method::POST, "/bindings", json!({"user": "eve", "role": "auditor", "space": "blue"})).await.ok();
    let made = api.v1(Method::POST, "/tokens", json!({"owner": "eve"})).await.ok();
    let token = made["item"]["token"].as_str().unwrap();
    let peer = || Peer { address: Some("192.0.2.1:50000".parse().unwrap()), ..Peer::new(ListenerKind::Admin) };
    let eve = async |path: &str| {
        let request = Request::builder().uri(path).extension(peer()).header("authorization", format!("ApiKey {token}"));
        api.send(request.body(Body::empty()).unwrap()).await
    };
    let own = eve("/s/blue/api/fleet/audit").await.ok();
    assert_eq!((subjects(&own), &own["items"][0]["space"]), (vec!["policy:of-blue"], &json!("blue")));
    eve("/api/fleet/audit").await.refused(403);
    eve("/s/blue/api/fleet/audit/_verify").await.refused(403);

    let file = eve("/s/blue/api/fleet/audit/_export").await.body.as_str().unwrap().to_owned();
    assert!(file.contains("policy:of-blue") && !file.contains("policy:a") && !file.contains("user:"), "{file}");
    let mut verifier = Verifier::new(Some(api.fleet.inner().signer.public_key().to_owned()));
    file.split_inclusive('\n').for_each(|line| verifier.line(line.as_bytes()).unwrap());
    let verified = verifier.end().unwrap();
    assert_eq!((verified.events, verified.header.space.as_deref()), (1, Some("blue")));

    // Whoever may read everything reads everything in the default space, and the events of a space in another one.
    let all = api.get("/audit?perPage=100").await.ok();
    assert!(subjects(&all).contains(&"policy:of-blue") && subjects(&all).contains(&"policy:a"));
    let of_blue = Request::builder().uri("/s/blue/api/fleet/audit").extension(administrator());
    let of_blue = api.send(of_blue.body(Body::empty()).unwrap()).await.ok();
    assert_eq!(subjects(&of_blue), ["audit", "policy:of-blue"]);
    // The default space is one like the others if the path names it.
    let of_default = Request::builder().uri("/s/default/api/fleet/audit?perPage=100").extension(administrator());
    let of_default = api.send(of_default.body(Body::empty()).unwrap()).await.ok();
    assert!(subjects(&of_default).contains(&"policy:a") && !subjects(&of_default).contains(&"policy:of-blue"));
    let all_of_default = of_default["items"].as_array().unwrap().iter().all(|event| event["space"] == "default");
    assert!(all_of_default, "{of_default}");
}

async fn newest(api: &Api, action: &str) -> Value {
    api.get(&format!("/audit?action={action}&perPage=1")).await.ok()["items"][0]["detail"].clone()
}

#[tokio::test]
async fn mg163_targets_of_alerts_and_settings_of_keys_and_policies_are_recorded_without_secrets() {
    let api = Api::new();
    let webhook = |url: &str, secret: &str| json!({"name": "n", "webhook": {"url": url, "secret": secret}});
    let made = api.post("/alerts", webhook("https://one.example/token-1", "first secret of the hook")).await.ok();
    let path = format!("/alerts/{}", made["item"]["id"].as_str().unwrap());
    api.put(&path, webhook("https://two.example/token-2", "second secret of the hook")).await.ok();
    let updated = newest(&api, "alert_receiver.update").await;
    assert_eq!(updated["before"]["target"]["url"], "https://one.example", "{updated}");
    assert_eq!(updated["after"]["target"]["url"], "https://two.example", "{updated}");
    assert!(!updated.to_string().contains("token-") && !updated.to_string().contains("secret of"), "{updated}");

    let policy = api.policy("web").await;
    let key = json!({"policy_id": policy, "name": "k", "tags": ["west"], "max_uses": 5});
    api.post("/enrollment_api_keys", key).await.ok();
    let created = newest(&api, "enrollment_key.create").await;
    assert_eq!((&created["tags"], &created["max_uses"]), (&json!(["west"]), &json!(5)), "{created}");

    let change = json!({"name": "web", "namespace": "default", "is_protected": true, "unenroll_timeout": 86_400});
    api.put(&format!("/agent_policies/{policy}"), change).await.ok();
    let updated = newest(&api, "policy.update").await;
    assert_eq!(updated["after"]["unenroll_timeout"], 86_400, "{updated}");
}
