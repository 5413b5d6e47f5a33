//! MG §11.9: actions for agents.

use std::time::{Duration, Instant};

use muster_core::action::{ActionResult, ActionType, Outcome};
use muster_core::credential::ApiKey;
use muster_core::id::{ActionId, AgentId, SecretId};
use muster_core::seal::Place;
use muster_core::signing::verify;
use muster_store::{ActionWrite, Write};
use serde_json::{Value, json};

use crate::support::Api;

async fn action(api: &Api, id: &Value) -> Value {
    api.get(&format!("/agents/actions/{}", id.as_str().unwrap())).await.ok()["item"].clone()
}

async fn results(api: &Api, id: &Value) -> Value {
    api.get(&format!("/agents/actions/{}/results", id.as_str().unwrap())).await.ok()["items"].clone()
}

/// Acknowledges an action as the agent.
async fn ack(api: &Api, id: &Value, agent: &str) {
    let result = ActionResult {
        action_id: ActionId::trusted(id.as_str().unwrap()),
        agent_id: AgentId::trusted(agent),
        at: api.now(),
        outcome: Outcome::Acked,
        fields: None,
    };
    let write = Write::Action(ActionWrite::Result { result: Box::new(result), addressed: true });
    api.fleet.store().commit(vec![write]).await.unwrap();
}

#[tokio::test]
async fn mg119_ineligible_agents_get_an_error_result() {
    let api = Api::new();
    let managed = json!({"name": "managed", "namespace": "default", "is_managed": true});
    let managed = api.post("/agent_policies", managed).await.ok()["item"]["id"].as_str().unwrap().to_owned();
    api.agent("free", None).await;
    api.agent("bound", Some(&managed)).await;
    let body = json!({"agents": ["free", "bound", "nobody"]});
    let id = api.post("/agents/bulk_unenroll", body).await.ok()["actionId"].clone();
    let shown = action(&api, &id).await;
    assert_eq!((&shown["nbAgentsActioned"], &shown["nbAgentsActionCreated"]), (&json!(3), &json!(1)));
    assert_eq!((&shown["nbAgentsFailed"], &shown["status"]), (&json!(2), &json!("IN_PROGRESS")));
    assert_eq!((api.due("free").await.len(), api.due("bound").await.len()), (1, 0));
    assert_eq!(api.status_of("free").await, "unenrolling");
    assert_eq!(api.status_of("bound").await, "online");
    let errors = shown["latestErrors"].as_array().unwrap();
    assert!(errors.iter().any(|one| one["agentId"] == "bound" && one["hostname"] == "host-bound"), "{errors:?}");
}

#[tokio::test]
async fn mg120_an_empty_query_selects_all_visible_agents() {
    let api = Api::new();
    api.agent("a", None).await;
    api.agent("b", None).await;
    api.agent_with("gone", None, |agent| agent.active = false).await;
    let counted = api.post("/agents/bulk_request_diagnostics", json!({"agents": "", "dryRun": true})).await.ok();
    assert_eq!(counted, json!({"count": 2}));
}

#[tokio::test]
async fn mg122_a_dry_run_counts_targets_and_creates_nothing() {
    let api = Api::new();
    let policy = api.policy("p").await;
    let until = api.now().plus(Duration::from_secs(60)).to_rfc3339_seconds();
    let rollbacks = json!([{"version": "9.4.0", "valid_until": until}]).to_string();
    api.agent_with("a", Some(&policy), |agent| agent.upgrade.rollbacks = Some(rollbacks.into())).await;
    let before = api.record("a").await.unwrap();
    for (path, extra) in [
        ("bulk_unenroll", json!({})),
        ("bulk_reassign", json!({"policy_id": null})),
        ("bulk_upgrade", json!({"version": "9.6.0"})),
        ("bulk_rollback", json!({})),
        ("bulk_request_diagnostics", json!({})),
        ("bulk_update_agent_tags", json!({"tagsToAdd": ["x"]})),
        ("bulk_migrate", json!({"uri": "https://x", "enrollment_token": "aWQ6c2VjcmV0"})),
        ("bulk_privilege_level_change", json!({})),
        ("bulk_actions", json!({"action": {"type": "SETTINGS", "data": {"log_level": "debug"}}})),
        ("bulk_delete", json!({})),
    ] {
        let mut body = json!({"agents": ["a", "a", "nobody"], "dryRun": true});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let nobody = json!([{"agent_id": "nobody", "error": "agent not found"}]);
        let answer = match path {
            // Deletion skips agents that do not exist.
            "bulk_delete" => json!({"count": 1}),
            _ => json!({"count": 1, "refused": 1, "errors": nobody}),
        };
        assert_eq!(api.post(&format!("/agents/{path}"), body).await.ok(), answer, "{path}");
    }
    assert_eq!(api.get("/agents/action_status").await.ok()["total"], 0);
    assert_eq!(api.record("a").await.unwrap(), before);
}

#[tokio::test]
async fn mg122_a_dry_run_is_refused_like_the_action_itself() {
    let api = Api::new();
    api.agent("a", None).await;
    let before = api.record("a").await.unwrap();
    for (path, extra, status) in [
        ("bulk_upgrade", json!({"version": "banana"}), 400),
        ("bulk_upgrade", json!({"version": "9.6.0", "rollout_duration_seconds": 5}), 400),
        ("bulk_upgrade", json!({"version": "9.6.0", "start_time": "soon"}), 400),
        ("bulk_reassign", json!({"policy_id": "none such"}), 404),
        ("bulk_reassign", json!({"policy_id": null}), 400),
        ("bulk_rollback", json!({}), 400),
        ("bulk_update_agent_tags", json!({"tagsToAdd": []}), 400),
        ("bulk_migrate", json!({"uri": "x", "enrollment_token": "aWQ6c2VjcmV0"}), 400),
        ("bulk_actions", json!({"action": {"type": "SETTINGS", "data": {"log_level": "loud"}}}), 400),
        ("bulk_actions", json!({"action": {"type": "DANCE"}}), 400),
    ] {
        let mut body = json!({"agents": ["a"]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let meant = api.post(&format!("/agents/{path}"), body.clone()).await.refused(status);
        body["dryRun"] = json!(true);
        let tried = api.post(&format!("/agents/{path}"), body).await.refused(status);
        assert_eq!(tried, meant, "{path}");
    }
    assert_eq!(api.get("/agents/action_status").await.ok()["total"], 0);
    assert_eq!(api.record("a").await.unwrap(), before);
}

#[tokio::test]
async fn an_empty_list_of_agents_is_refused() {
    let api = Api::new();
    api.agent("a", None).await;
    for path in ["bulk_unenroll", "bulk_delete", "bulk_request_diagnostics"] {
        for dry_run in [false, true] {
            let body = json!({"agents": [], "dryRun": dry_run});
            let refusal = api.post(&format!("/agents/{path}"), body).await.refused(400);
            assert_eq!(refusal["field"], "agents", "{path}");
            assert!(refusal["message"].as_str().unwrap().contains("the list is empty"), "{refusal}");
        }
    }
    assert_eq!(api.get("/agents/action_status").await.ok()["total"], 0);
}

#[tokio::test]
async fn mg121_ten_thousand_agents_are_reassigned_by_one_request() {
    let api = Api::new();
    let policy = api.policy("target").await;
    for thousand in 0..10 {
        let insertion = |number: i32| {
            let key = ApiKey::generate(api.fleet.entropy());
            api.insertion(&format!("agent-{thousand}-{number}"), None, &key, |_| {})
        };
        api.fleet.store().commit((0..1000).map(insertion).collect()).await.unwrap();
    }
    let begun = Instant::now();
    let body = json!({"agents": "", "policy_id": policy});
    let id = api.post("/agents/bulk_reassign", body).await.ok()["actionId"].clone();
    let took = begun.elapsed();
    let shown = action(&api, &id).await;
    assert_eq!((&shown["nbAgentsActioned"], &shown["nbAgentsActionCreated"]), (&json!(10_000), &json!(10_000)));
    let there = api.get(&format!("/agent_status?policyId={policy}")).await.ok();
    assert_eq!(there["results"]["updating"], 10_000);
    println!("10,000 agents reassigned in {took:?}");
    // The aim is two seconds in a release build on two idle cores; this only catches what is quadratic.
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[tokio::test]
async fn mg123_mg124_mg125_a_rollout_is_spread_over_its_window() {
    let api = Api::new();
    for number in 0..4 {
        api.agent(&format!("a{number}"), None).await;
    }
    let short = json!({"agents": "", "version": "9.6.0", "rollout_duration_seconds": 599});
    assert_eq!(api.post("/agents/bulk_upgrade", short).await.refused(400)["field"], "rollout_duration_seconds");
    let hour = json!({"agents": ["a0", "a1", "a2", "a3"], "version": "9.6.0", "rollout_duration_seconds": 3600});
    let id = api.post("/agents/bulk_upgrade", hour).await.ok()["actionId"].clone();
    let shown = action(&api, &id).await;
    assert_eq!(shown["hasRolloutPeriod"], true);
    assert_eq!(shown["version"], "9.6.0");
    let two_hours = api.now().plus(Duration::from_secs(7200)).to_rfc3339_millis();
    assert_eq!(shown["expiration"], two_hours);
    let mut places = Vec::new();
    for number in 0..4 {
        places.push(api.due(&format!("a{number}")).await[0].position);
    }
    assert_eq!(places, [0, 1, 2, 3], "in the order in which they were named");
}

#[tokio::test]
async fn mg113_mg114_actions_are_signed_for_each_agent_with_its_start_time() {
    let api = Api::new();
    api.agent("a", None).await;
    api.agent("b", None).await;
    let body = json!({"agents": ["a", "b"], "version": "9.6.0", "rollout_duration_seconds": 3600});
    api.post("/agents/bulk_upgrade", body).await.ok();
    let due = api.due("b").await;
    let signed = due[0].action.signed.clone().unwrap();
    let bytes = verify(api.fleet.inner().signer.public_key(), &signed).unwrap();
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&document["agents"], &document["type"]), (&json!(["b"]), &json!("UPGRADE")));
    assert_eq!(document["data"], json!({"version": "9.6.0"}));
    let half_an_hour = api.now().plus(Duration::from_secs(1800)).to_rfc3339_seconds();
    assert_eq!(document["start_time"], half_an_hour);
    api.post("/agents/a/request_diagnostics", json!({})).await.ok();
    let due = api.due("a").await;
    assert_eq!(due.last().unwrap().action.kind, ActionType::RequestDiagnostics);
    assert_eq!(due.last().unwrap().action.signed, None);
}

#[tokio::test]
async fn mg126_mg127_upgrades_to_the_same_or_an_older_version_need_force() {
    let api = Api::new();
    api.agent("a", None).await;
    let refused = api.post("/agents/a/upgrade", json!({"version": "9.4.0"})).await.refused(400);
    assert_eq!(refused["code"], "agent_not_eligible");
    assert_eq!(api.get("/agents/action_status").await.ok()["total"], 0);
    api.post("/agents/a/upgrade", json!({"version": "9.4.0", "force": true})).await.ok();
    assert_eq!(api.status_of("a").await, "updating");
    assert_eq!(api.post("/agents/a/upgrade", json!({"version": "new"})).await.refused(400)["field"], "version");
}

#[tokio::test]
async fn mg126_the_delivered_version_and_uri_are_the_validated_ones() {
    let api = Api::new();
    for (number, (given, sent)) in [("v9.6.0", "9.6.0"), (" 9.6.0", "9.6.0")].iter().enumerate() {
        let agent = format!("a{number}");
        api.agent(&agent, None).await;
        let request = json!({"version": given, "source_uri": " HTTPS://mirror.example/x "});
        api.post(&format!("/agents/{agent}/upgrade"), request).await.ok();
        let due = api.due(&agent).await.remove(0).action;
        let data: Value = serde_json::from_str(due.data.as_deref().unwrap()).unwrap();
        assert_eq!(data, json!({"version": sent, "source_uri": "https://mirror.example/x"}));
        assert_eq!(api.record(&agent).await.unwrap().upgrade.open.unwrap().version, *sent);
    }
    api.agent("b", None).await;
    let refused = async |path: &str, body: Value| api.post(path, body).await.refused(400)["field"].clone();
    for bad in ["09.6.0", "9.6", "9.6.0 ; x", "9.6.0.1"] {
        let request = json!({"version": bad, "force": true});
        assert_eq!(refused("/agents/b/upgrade", request).await, "version", "{bad}");
    }
    let source = json!({"version": "9.6.0", "source_uri": "mirror.example"});
    assert_eq!(refused("/agents/b/upgrade", source).await, "source_uri");
    let quoted = json!({"uri": "https://x", "enrollment_token": "'aWQ6c2VjcmV0'"});
    assert_eq!(refused("/agents/b/migrate", quoted).await, "enrollment_token");
    let spaced = json!({"uri": "https://x y", "enrollment_token": "aWQ6c2VjcmV0"});
    assert_eq!(refused("/agents/b/migrate", spaced).await, "uri");
    let input = json!({"agents": ["b"], "action": {"type": "INPUT_ACTION", "input_type": "os query", "data": {}}});
    assert_eq!(refused("/agents/bulk_actions", input).await, "input_type");
    assert_eq!(api.due("b").await.len(), 0);
}

#[tokio::test]
async fn mg128_mg129_mg145_cancelling_an_upgrade_withdraws_it() {
    let api = Api::new();
    api.agent("a", None).await;
    let id = api.post("/agents/a/upgrade", json!({"version": "9.6.0"})).await.ok()["actionId"].clone();
    assert_eq!(api.status_of("a").await, "updating");
    let cancel = format!("/agents/actions/{}/cancel", id.as_str().unwrap());
    let cancelled = api.post(&cancel, json!({})).await.ok()["item"].clone();
    assert_eq!(cancelled["type"], "CANCEL");
    assert_eq!(api.status_of("a").await, "online");
    let shown = action(&api, &id).await;
    assert_eq!(shown["status"], "CANCELLED");
    assert!(shown["cancellationTime"].is_string());
    let due = api.due("a").await;
    let refusal = due.iter().find(|one| one.action.kind == ActionType::Cancel).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(refusal.action.data.as_deref().unwrap()).unwrap(),
        json!({"target_id": id})
    );
    assert_eq!(api.get("/agents/action_status").await.ok()["total"], 1, "CANCEL entries are not listed");
    api.post("/agents/actions/nothing/cancel", json!({})).await.refused(404);
    let settings = json!({"action": {"type": "SETTINGS", "data": {"log_level": "debug"}}});
    let settings = api.post("/agents/a/actions", settings).await.ok()["item"]["id"].clone();
    api.post(&format!("/agents/actions/{}/cancel", settings.as_str().unwrap()), json!({})).await.refused(400);
}

#[tokio::test]
async fn mg131_diagnostics_expire_after_three_hours() {
    let api = Api::new();
    api.agent("a", None).await;
    let body = json!({"additional_metrics": ["CPU"]});
    let id = api.post("/agents/a/request_diagnostics", body).await.ok()["actionId"].clone();
    let end = api.now().plus(Duration::from_secs(3 * 3600)).to_rfc3339_millis();
    assert_eq!(action(&api, &id).await["expiration"], end);
    let bad = json!({"additional_metrics": ["GPU"]});
    api.post("/agents/a/request_diagnostics", bad).await.refused(400);
}

#[tokio::test]
async fn mg132_mg133_agents_are_reassigned() {
    let api = Api::new();
    let (p, q) = (api.policy("p").await, api.policy("q").await);
    api.agent("a", Some(&p)).await;
    let before = api.record("a").await.unwrap();
    api.post("/agents/a/reassign", json!({"policy_id": q})).await.ok();
    let after = api.record("a").await.unwrap();
    assert_eq!((after.policy_id.unwrap().as_str(), after.policy_revision), (q.as_str(), 0));
    assert_eq!(after.credentials, before.credentials);
    assert_eq!(api.status_of("a").await, "updating");
    let same = api.post("/agents/bulk_reassign", json!({"agents": "", "policy_id": q})).await.refused(400);
    assert_eq!(same["code"], "no_agent_eligible");
    api.post("/agents/a/reassign", json!({"policy_id": "nowhere"})).await.refused(404);
    api.post("/agents/a/reassign", json!({"policy_id": null})).await.ok();
    assert_eq!(api.record("a").await.unwrap().policy_id, None);
    assert_eq!(api.post("/agents/a/reassign", json!({})).await.refused(400)["field"], "policy_id");
}

#[tokio::test]
async fn mg134_revoking_invalidates_the_key_and_completes_pending_actions() {
    let api = Api::new();
    let key = api.agent("a", None).await;
    let graceful = api.post("/agents/a/unenroll", json!({})).await.ok()["actionId"].clone();
    let open = api.post("/agents/a/request_diagnostics", json!({})).await.ok()["actionId"].clone();
    assert!(api.fleet.authentication().agent("a", &key).await.is_ok());
    let forced = api.post("/agents/a/unenroll", json!({"revoke": true})).await.ok()["actionId"].clone();
    assert!(api.fleet.authentication().agent("a", &key).await.is_err());
    assert_eq!(api.status_of("a").await, "unenrolled");
    assert_eq!(action(&api, &forced).await["status"], "COMPLETE");
    assert_eq!(action(&api, &graceful).await["status"], "COMPLETE");
    let ended = &results(&api, &open).await[0];
    assert_eq!((&ended["state"], &ended["error"]), (&json!("failed"), &json!("the agent was unenrolled")));
    assert_eq!(action(&api, &open).await["status"], "FAILED");
    assert!(api.due("a").await.iter().all(|due| due.action.id.as_str() != open.as_str().unwrap()));
    api.post("/agents/a/unenroll", json!({"revoke": true})).await.refused(400);
}

#[tokio::test]
async fn mg135_graceful_unenrollment_waits_for_the_ack() {
    let api = Api::new();
    api.agent("a", None).await;
    let id = api.post("/agents/a/unenroll", json!({})).await.ok()["actionId"].clone();
    assert_eq!(api.status_of("a").await, "unenrolling");
    assert!(api.record("a").await.unwrap().active);
    assert_eq!(action(&api, &id).await["status"], "IN_PROGRESS");
    ack(&api, &id, "a").await;
    assert_eq!(action(&api, &id).await["status"], "COMPLETE");
}

#[tokio::test]
async fn mg136_mg137_tags_are_added_and_removed() {
    let api = Api::new();
    api.agent_with("a", None, |agent| agent.tags = vec!["x".into(), "y".into(), "z".into()]).await;
    let body = json!({"agents": ["a"], "tagsToAdd": ["new"], "tagsToRemove": ["y"]});
    api.post("/agents/bulk_update_agent_tags?dryRun=true", body.clone()).await.ok();
    api.post("/agents/bulk_update_agent_tags?dryRun=%74rue", body.clone()).await.ok();
    for unclear in ["yes", "1", "True", ""] {
        api.post(&format!("/agents/bulk_update_agent_tags?dryRun={unclear}"), body.clone()).await.refused(400);
    }
    assert_eq!(api.record("a").await.unwrap().tags, ["x", "y", "z"], "a dry run changes nothing");
    let id = api.post("/agents/bulk_update_agent_tags", body).await.ok()["actionId"].clone();
    assert_eq!(api.record("a").await.unwrap().tags, ["x", "new", "z"]);
    assert_eq!(action(&api, &id).await["status"], "COMPLETE");
    let managed = json!({"name": "managed", "namespace": "default", "is_managed": true});
    let managed = api.post("/agent_policies", managed).await.ok()["item"]["id"].as_str().unwrap().to_owned();
    api.agent("bound", Some(&managed)).await;
    let body = json!({"agents": ["bound"], "tagsToAdd": ["x"]});
    let id = api.post("/agents/bulk_update_agent_tags", body).await.ok()["actionId"].clone();
    assert_eq!(action(&api, &id).await["status"], "FAILED");
    assert!(api.record("bound").await.unwrap().tags.is_empty());
    assert_eq!(api.due("bound").await.len(), 0);
}

#[tokio::test]
async fn mg138_a_bulk_rollback_creates_an_action_for_each_version() {
    let api = Api::new();
    let until = api.now().plus(Duration::from_secs(60)).to_rfc3339_seconds();
    for (id, version) in [("a", "9.4.0"), ("b", "9.3.0"), ("c", "9.4.0")] {
        let offers = json!([{"version": version, "valid_until": until}]).to_string();
        api.agent_with(id, None, |agent| agent.upgrade.rollbacks = Some(offers.into())).await;
    }
    api.agent("none", None).await;
    let ids = api.post("/agents/bulk_rollback", json!({"agents": ""})).await.ok()["actionIds"].clone();
    assert_eq!(ids.as_array().unwrap().len(), 2);
    let data = |due: &[muster_core::action::DueAction]| due[0].action.data.as_deref().unwrap().to_owned();
    assert_eq!(
        serde_json::from_str::<Value>(&data(&api.due("b").await)).unwrap(),
        json!({"version": "9.3.0", "rollback": true})
    );
    api.post("/agents/none/rollback", json!({})).await.refused(400);
}

#[tokio::test]
async fn mg139_actions_show_their_creator_and_targets() {
    let api = Api::new();
    api.agent("a", None).await;
    api.agent("b", None).await;
    let body = json!({"agents": ["a"]});
    let id = api.post("/agents/bulk_request_diagnostics", body).await.ok()["actionId"].clone();
    assert!(action(&api, &id).await["createdBy"].as_str().unwrap().starts_with("local:"));
    let agents = api.post("/agents", json!({"actionIds": [id]})).await.ok();
    assert_eq!(agents["items"], json!(["a"]));
    assert_eq!(api.audit().await.last().unwrap(), "action.create");
    api.post("/agents/bulk_request_diagnostics", json!({"agents": "id:b"})).await.ok();
    let line = api.fleet.store().audit_events(0, 100).await.unwrap().pop().unwrap().1;
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["detail"]["kuery"], "id:b");
}

#[tokio::test]
async fn ea84_secrets_of_actions_are_sealed_and_never_shown() {
    let api = Api::new();
    api.agent("a", None).await;
    let body =
        json!({"uri": "https://other:8220", "enrollment_token": "c2VjcmV0OnRva2Vu", "settings": {"insecure": true}});
    let id = api.post("/agents/a/migrate", body).await.ok()["actionId"].clone();
    let stored = api.fleet.store().action(&ActionId::trusted(id.as_str().unwrap())).await.unwrap().unwrap();
    let data: Value = serde_json::from_str(stored.data.as_deref().unwrap()).unwrap();
    let reference = data["enrollment_token"].as_str().unwrap();
    let secret = reference.strip_prefix("$co.elastic.secret{").unwrap().strip_suffix('}').unwrap();
    let secret = SecretId::trusted(secret);
    let sealed = api.fleet.store().secrets(std::slice::from_ref(&secret)).await.unwrap().remove(0).1;
    assert_eq!(api.fleet.inner().sealer.open(Place::secret(&secret), &sealed).unwrap().as_slice(), b"c2VjcmV0OnRva2Vu");
    let sneaky = json!({"action": {"type": "INPUT_ACTION", "input_type": "x", "data": {"a": reference}}});
    assert_eq!(api.post("/agents/a/actions", sneaky).await.refused(400)["field"], "data");
    let unknown = json!({"uri": "https://x", "enrollment_token": "aWQ6c2VjcmV0", "settings": {"colour": 1}});
    assert_eq!(api.post("/agents/a/migrate", unknown).await.refused(400)["field"], "settings.colour");
    let password = json!({"user_info": {"username": "u", "password": "s3cret-password"}});
    let id = api.post("/agents/a/privilege_level_change", password).await.ok()["actionId"].clone();
    let stored = api.fleet.store().action(&ActionId::trusted(id.as_str().unwrap())).await.unwrap().unwrap();
    assert!(!stored.data.as_deref().unwrap().contains("s3cret"));
}

#[tokio::test]
async fn settings_of_a_migration_get_the_names_that_agents_read() {
    let api = Api::new();
    api.agent("a", None).await;
    let migrate = |settings: Value| {
        let body = json!({"uri": "https://other:8220", "enrollment_token": "c2VjcmV0OnRva2Vu", "settings": settings});
        api.post("/agents/a/migrate", body)
    };
    let given = json!({"certificate_authorities": "/etc/ca.crt", "elastic_agent_cert": "/c.crt", "elastic_agent_cert_key": "k",
        "key_passphrase_path": "/p", "tags": ["x"], "insecure": false, "headers": {"a": "b"}});
    let id = migrate(given).await.ok()["actionId"].clone();
    let stored = api.fleet.store().action(&ActionId::trusted(id.as_str().unwrap())).await.unwrap().unwrap();
    let mut data: Value = serde_json::from_str(stored.data.as_deref().unwrap()).unwrap();
    let key = data["settings"]["key"].take();
    assert!(key.as_str().unwrap().starts_with("$co.elastic.secret{"), "the key is sealed: {key}");
    let expected = json!({"ca": ["/etc/ca.crt"], "certificate": "/c.crt", "key": null,
        "key_passphrase_path": "/p", "tags": ["x"], "insecure": false, "headers": {"a": "b"}});
    assert_eq!(data["settings"], expected);
    for (field, settings) in [
        ("settings.ca", json!({"certificate_authorities": "/a", "ca": ["/b"]})),
        ("settings.elastic_agent_cert_key_passphrase", json!({"elastic_agent_cert_key_passphrase": "p"})),
        ("settings.insecure", json!({"insecure": "yes"})),
        ("settings.tags", json!({"tags": [1]})),
        ("settings.headers", json!({"headers": {"a": 1}})),
        ("settings.proxy_url", json!({"proxy_url": ["http://p"]})),
    ] {
        let told = migrate(settings).await.refused(400);
        assert!(told["field"].as_str().unwrap().starts_with("settings."), "{field}: {told}");
        if field != "settings.ca" {
            assert_eq!(told["field"], field);
        }
    }
}

#[tokio::test]
async fn every_type_with_valid_data_can_be_created() {
    let api = Api::new();
    api.agent("a", None).await;
    let create = |action: Value| api.post("/agents/a/actions", json!({"action": action}));
    let input = json!({"type": "INPUT_ACTION", "input_type": "osquery", "data": {"q": "select 1"}, "timeout": 60,
        "expiration": "5m"});
    let made = create(input).await.ok()["item"].clone();
    assert_eq!((&made["type"], &made["agents"]), (&json!("INPUT_ACTION"), &json!(["a"])));
    assert_eq!(made["expiration"], api.now().plus(Duration::from_secs(300)).to_rfc3339_millis());
    let due = api.due("a").await;
    assert_eq!((due[0].action.input_type.as_str(), due[0].action.timeout), ("osquery", Some(60)));
    create(json!({"type": "SETTINGS", "data": {"log_level": "loud"}})).await.refused(400);
    create(json!({"type": "DANCE"})).await.refused(400);
    create(json!({"type": "UPDATE_TAGS"})).await.refused(400);
    create(json!({"type": "UNENROLL"})).await.ok();
    assert_eq!(api.status_of("a").await, "unenrolling");
}

#[tokio::test]
async fn bulk_requests_accept_at_most_ten_thousand_ids() {
    let api = Api::new();
    let ids = |count: usize| json!({"agents": vec!["a"; count], "dryRun": true});
    let refusal = api.post("/agents/bulk_unenroll", ids(10_001)).await.refused(400);
    assert_eq!((&refusal["field"], refusal["remedy"].is_string()), (&json!("agents"), true), "{refusal}");
    assert_ne!(api.post("/agents/bulk_unenroll", ids(10_000)).await.body["field"], "agents");
    api.post("/agents/bulk_unenroll", json!({"agents": ["a".repeat(3 << 20)]})).await.refused(413);
}
