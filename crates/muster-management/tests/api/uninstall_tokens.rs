//! MG §11.6: uninstall tokens over REST.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::{recovery_code, uninstall_token};
use serde_json::{Value, json};

use crate::support::{Api, column};

async fn newest(api: &Api, policy: &str) -> Value {
    let list = api.get(&format!("/uninstall_tokens?policyId={policy}&page=1&perPage=1000")).await.ok();
    assert_eq!(list["total"], 1, "{list}");
    list["items"][0].clone()
}

async fn token(api: &Api, id: &Value) -> String {
    let path = format!("/uninstall_tokens/{}", id.as_str().unwrap());
    api.get(&path).await.ok()["item"]["token"].as_str().unwrap().to_owned()
}

async fn hash_in(api: &Api, policy: &str) -> Value {
    let full = api.get(&format!("/agent_policies/{policy}/full")).await.ok();
    full["item"]["agent"]["protection"]["uninstall_token_hash"].clone()
}

#[tokio::test]
async fn mg79_mg80_mg81_each_policy_has_a_token_whose_hash_is_compiled_into_it() {
    let api = Api::new();
    let policy = api.policy("web").await;
    let listed = newest(&api, &policy).await;
    assert_eq!((&listed["policy_name"], listed.get("token")), (&json!("web"), None));
    assert_eq!(listed["namespaces"], json!(["default"]));
    let before = api.audit().await.len();
    let dry = format!("/uninstall_tokens/{}?dryRun=true", listed["id"].as_str().unwrap());
    assert_eq!(api.get(&dry).await.refused(400)["field"], "dryRun");
    let token = token(&api, &listed["id"]).await;
    assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    assert_eq!(hash_in(&api, &policy).await, uninstall_token::hash(&token));
    assert_eq!(api.audit().await[before..], ["uninstall_token.reveal"]);
}

#[tokio::test]
async fn mg178_elastics_go_client_reads_the_token_of_a_policy_from_one_large_page() {
    let api = Api::new();
    for number in 0..30 {
        api.policy(&format!("other {number}")).await;
    }
    let policy = api.policy("web").await;
    let page = api.get(&format!("/uninstall_tokens?policyId={policy}&page=1&perPage=1000")).await.ok();
    assert_eq!((column(&page, "/policy_id"), &page["perPage"]), (vec![policy], &json!(1000)));
    let read = api.get(&format!("/uninstall_tokens/{}", page["items"][0]["id"].as_str().unwrap())).await.ok();
    assert_eq!(read["item"]["token"].as_str().map(str::len), Some(32));
}

#[tokio::test]
async fn mg82_tokens_are_found_by_parts_of_the_id_and_the_name_of_a_policy() {
    let api = Api::new();
    for (id, name) in [("pol-one", "Web servers"), ("pol-two", "Mail_100%"), ("other", "pol")] {
        api.post("/agent_policies", json!({"id": id, "name": name, "namespace": "default"})).await.ok();
    }
    api.post(
        "/agent_policies",
        json!({"id": "hosted", "name": "pol hosted", "namespace": "default", "is_managed": true}),
    )
    .await
    .ok();
    let found = async |query: &str| {
        let mut found = column(&api.get(&format!("/uninstall_tokens?{query}")).await.ok(), "/policy_id");
        found.sort_unstable();
        found
    };
    assert_eq!(found("").await, ["other", "pol-one", "pol-two"], "without the managed one");
    assert_eq!(found("search=WEB%20ser").await, ["pol-one"]);
    assert_eq!(found("search=pol").await, ["other", "pol-one", "pol-two"]);
    assert_eq!(found("policyId=POL-").await, ["pol-one", "pol-two"]);
    assert_eq!(found("search=_100%25").await, ["pol-two"], "no wildcards");
    assert_eq!(found("search=%25").await, ["pol-two"]);
    let page = api.get("/uninstall_tokens?page=2&perPage=5").await.ok();
    assert_eq!((&page["items"], &page["total"]), (&json!([]), &json!(3)));
    let long = "x".repeat(51);
    for (query, field) in [
        (format!("search={long}"), "search"),
        (format!("policyId={long}"), "policyId"),
        ("search=a&policyId=b".into(), "search"),
        ("perPage=4".into(), "perPage"),
    ] {
        assert_eq!(api.get(&format!("/uninstall_tokens?{query}")).await.refused(400)["field"], field, "{query}");
    }
    api.get(&format!("/uninstall_tokens?search={}", &long[1..])).await.ok();
}

#[tokio::test]
async fn mg83_mg84_rotation_deploys_a_new_token_and_the_former_one_stays_readable() {
    let api = Api::new();
    let policy = api.policy("web").await;
    let rotate = format!("/uninstall_tokens/{policy}/rotate");
    assert_eq!(api.post(&rotate, json!({})).await.refused(400)["code"], "policy_not_protected");
    let protected = json!({"name": "web", "namespace": "default", "is_protected": true});
    let revision = api.put(&format!("/agent_policies/{policy}"), protected).await.ok()["item"]["revision"].clone();
    assert_eq!(revision, 2);
    let first = newest(&api, &policy).await;
    let (text, hash) = (token(&api, &first["id"]).await, hash_in(&api, &policy).await);
    assert!(api.post(&rotate, json!({})).await.ok()["message"].is_string());
    let second = newest(&api, &policy).await;
    let shown = api.get(&format!("/agent_policies/{policy}")).await.ok()["item"].clone();
    assert_eq!(shown["revision"], 3);
    assert_ne!(second["id"], first["id"]);
    let next = hash_in(&api, &policy).await;
    assert_ne!(next, hash);
    assert_eq!(next, uninstall_token::hash(&token(&api, &second["id"]).await));
    assert_eq!(token(&api, &first["id"]).await, text);
    assert!(api.audit().await.contains(&"uninstall_token.rotate".to_owned()));
    // A later revision keeps the new token.
    let again = json!({"name": "web", "namespace": "default", "description": "d"});
    api.put(&format!("/agent_policies/{policy}"), again).await.ok();
    assert_eq!(hash_in(&api, &policy).await, next);
}

#[tokio::test]
async fn mg85_tokens_outlive_their_policy() {
    let api = Api::new();
    let policy = api.policy("web").await;
    let text = token(&api, &newest(&api, &policy).await["id"]).await;
    api.post("/agent_policies/delete", json!({"agentPolicyId": policy})).await.ok();
    let kept = newest(&api, &policy).await;
    assert_eq!(kept["policy_name"], Value::Null);
    assert_eq!(token(&api, &kept["id"]).await, text);
}

#[tokio::test]
async fn a_recovery_code_is_returned_once_and_its_slow_hash_is_signed_into_a_protected_policy() {
    let api = Api::new();
    let policy = api.policy("web").await;
    let (code_of, path) = (format!("/agent_policies/{policy}/recovery_code"), format!("/agent_policies/{policy}"));
    let refused = api.post(&code_of, json!({})).await.refused(400);
    assert_eq!(
        (&refused["code"], &refused["remedy"]),
        (&json!("policy_not_protected"), &json!("set is_protected first"))
    );
    assert_eq!(api.delete(&code_of).await.refused(404)["code"], "not_found");
    let protect = |is: bool| json!({"name": "web", "namespace": "default", "is_protected": is});
    api.put(&path, protect(true)).await.ok();
    let protection = async || api.get(&format!("{path}/full")).await.ok()["item"]["agent"]["protection"].clone();
    assert_eq!(protection().await.get("recovery_code_hash"), None);
    assert_eq!(api.post(&format!("{code_of}?dryRun=true"), json!({})).await.refused(400)["field"], "dryRun");
    let create = async || {
        let made = api.post(&code_of, json!({})).await.ok()["item"].clone();
        assert_eq!(made["policy_id"], json!(policy));
        made["recovery_code"].as_str().unwrap().to_owned()
    };
    let (first, audited) = (create().await, api.audit().await);
    assert!(audited.contains(&"recovery_code.create".to_owned()), "{audited:?}");
    let shown = api.get(&path).await.ok()["item"].clone();
    assert_eq!((&shown["has_recovery_code"], &shown["revision"]), (&json!(true), &json!(3)));
    let hash = protection().await["recovery_code_hash"].as_str().unwrap().to_owned();
    assert!(recovery_code::verify(&first, &hash));
    // The token stays as it is, and a later revision keeps the code.
    api.put(&path, json!({"name": "web", "namespace": "default", "description": "d"})).await.ok();
    assert_eq!(protection().await["recovery_code_hash"], hash);
    let full = api.get(&format!("{path}/full")).await.ok()["item"].clone();
    let signed = STANDARD.decode(full["signed"]["data"].as_str().unwrap()).unwrap();
    let signed: Value = serde_json::from_slice(&signed).unwrap();
    assert_eq!(signed["agent"]["protection"], full["agent"]["protection"]);
    // A replacement.
    let second = create().await;
    let next = protection().await["recovery_code_hash"].as_str().unwrap().to_owned();
    assert!(recovery_code::verify(&second, &next) && !recovery_code::verify(&first, &next));
    // Without protection, agents do not get it. A copy and a rollback do not bring back a code.
    api.put(&path, protect(false)).await.ok();
    assert_eq!(protection().await.get("recovery_code_hash"), None);
    let copy = api.post(&format!("{path}/copy"), json!({"name": "copy"})).await.ok()["item"].clone();
    assert_eq!(copy.get("has_recovery_code"), None);
    api.post(&format!("{path}/rollback"), json!({"revision": 3})).await.ok();
    assert_eq!(protection().await["recovery_code_hash"], next, "revision 3 had the first code");
    assert!(api.delete(&code_of).await.ok()["message"].is_string());
    assert_eq!(protection().await.get("recovery_code_hash"), None);
    assert_eq!(api.get(&path).await.ok()["item"].get("has_recovery_code"), None);
    let audited = api.audit().await;
    assert!(audited.ends_with(&["recovery_code.remove".to_owned(), "policy.revise".to_owned()]), "{audited:?}");
    assert!(audited.contains(&"recovery_code.replace".to_owned()), "{audited:?}");
    let lines = format!("{:?}", api.fleet.store().audit_events(0, 10_000).await.unwrap());
    assert!(!lines.contains(&first) && !lines.contains(&second) && !lines.contains("pbkdf2"), "{lines}");
}
