//! MG §11.5: enrollment keys.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use muster_core::credential::ApiKey;
use muster_core::id::EnrollmentKeyId;
use serde_json::{Value, json};

use crate::support::{Api, administrator, column};

const KEYS: &str = "/enrollment_api_keys";

async fn key(api: &Api, body: Value) -> Value {
    api.post(KEYS, body).await.ok()["item"].clone()
}

fn path(key: &Value) -> String {
    format!("{KEYS}/{}", key["id"].as_str().unwrap())
}

async fn listed(api: &Api, key: &Value) -> Option<Value> {
    let list = api.get(&format!("{KEYS}?perPage=100")).await.ok();
    list["items"].as_array().unwrap().iter().find(|row| row["id"] == key["id"]).cloned()
}

#[tokio::test]
async fn mg60_mg61_a_policy_has_a_default_key_and_lists_have_the_deprecated_field() {
    let api = Api::new();
    let policy = api.policy("p").await;
    let list = api.get(&format!("{KEYS}?kuery=policy_id:{policy}")).await.ok();
    assert_eq!(list["total"], 1);
    assert_eq!(list["items"], list["list"]);
    assert_eq!(list["items"][0]["active"], true);
}

#[tokio::test]
async fn mg62_mg63_a_key_requires_only_a_policy_and_its_token_is_retrievable() {
    let api = Api::new();
    let policy = api.policy("p").await;
    let made = api.post(KEYS, json!({"policy_id": policy})).await.ok();
    assert_eq!(made["action"], "created");
    let token = made["item"]["api_key"].as_str().unwrap();
    let again = api.get(&path(&made["item"])).await.ok();
    assert_eq!(again["item"]["api_key"], token);
    let id = EnrollmentKeyId::trusted(made["item"]["id"].as_str().unwrap());
    let stored = api.fleet.store().enrollment_key(&id).await.unwrap().unwrap();
    assert!(ApiKey::parse(token).unwrap().matches(&stored.hash));
    assert_eq!(listed(&api, &made["item"]).await.unwrap()["api_key"], token, "Terraform reads it from the list");
}

#[tokio::test]
async fn mg64_a_key_for_an_unknown_policy_is_refused() {
    let api = Api::new();
    api.post(KEYS, json!({"policy_id": "nowhere"})).await.refused(404);
    assert_eq!(api.get(KEYS).await.ok()["total"], 0);
}

#[tokio::test]
async fn mg65_mg66_names_are_unique_among_the_active_keys_of_a_policy() {
    let api = Api::new();
    let (p, q) = (api.policy("p").await, api.policy("q").await);
    let first = key(&api, json!({"policy_id": p, "name": "office"})).await;
    let refused = api.post(KEYS, json!({"policy_id": p, "name": "office"})).await.refused(409);
    assert_eq!(refused["code"], "enrollment_key_name_taken");
    key(&api, json!({"policy_id": q, "name": "office"})).await;
    api.delete(&path(&first)).await.ok();
    key(&api, json!({"policy_id": p, "name": "office"})).await;
}

#[tokio::test]
async fn mg67_mg68_delete_revokes_and_force_delete_removes() {
    let api = Api::new();
    let (one, other) = (key(&api, json!({})).await, key(&api, json!({})).await);
    assert_eq!(api.delete(&path(&one)).await.ok(), json!({"action": "deleted"}));
    assert_eq!(listed(&api, &one).await.unwrap()["active"], false);
    api.delete(&format!("{}?forceDelete=true", path(&other))).await.ok();
    assert!(listed(&api, &other).await.is_none());
    api.get(&path(&other)).await.refused(404);
    api.delete(&path(&other)).await.refused(404);
}

#[tokio::test]
async fn mg69_mg70_keys_expire_and_are_used_up() {
    let api = Api::new();
    let short = key(&api, json!({"expiration": "1s"})).await;
    assert_eq!(short["active"], true);
    api.clock.advance(Duration::from_secs(1));
    let row = listed(&api, &short).await.unwrap();
    assert_eq!(row["active"], false);
    assert!(row["expire_at"].is_string());
    for bad in ["5 minutes", "0s", "yesterday"] {
        assert_eq!(api.post(KEYS, json!({"expiration": bad})).await.refused(400)["field"], "expiration");
    }
}

#[tokio::test]
async fn mg74_the_keys_of_a_deleted_policy_are_deleted_even_if_they_are_hidden() {
    let api = Api::new();
    let (gone, kept) = (api.policy("gone").await, api.policy("kept").await);
    let shown = key(&api, json!({"policy_id": gone, "name": "shown"})).await;
    let hidden = key(&api, json!({"policy_id": gone, "name": "hidden", "hidden": true})).await;
    api.post("/agent_policies/delete", json!({"agentPolicyId": gone})).await.ok();
    for one in [&shown, &hidden] {
        api.get(&path(one)).await.refused(404);
        let secret = ApiKey::parse(one["api_key"].as_str().unwrap()).unwrap();
        assert!(api.fleet.enrollment().authenticate(&secret).await.is_err(), "nobody enrolls with it");
    }
    let left = api.get(&format!("{KEYS}?perPage=100")).await.ok();
    assert_eq!(column(&left, "/policy_id"), [kept.as_str()]);
}

#[tokio::test]
async fn mg76_mg77_showing_a_token_is_audited_and_unretrievable_tokens_are_not_stored() {
    let api = Api::new();
    let kept = key(&api, json!({"name": "kept"})).await;
    let once = key(&api, json!({"name": "once", "retrievable": false})).await;
    assert!(once["api_key"].is_string());
    let before = api.audit().await.len();
    assert!(api.get(&path(&once)).await.ok()["item"].get("api_key").is_none());
    assert_eq!(api.audit().await.len(), before);
    api.get(&path(&kept)).await.ok();
    assert_eq!(api.audit().await.last().unwrap(), "enrollment_key.reveal");
    let id = EnrollmentKeyId::trusted(once["id"].as_str().unwrap());
    assert_eq!(api.fleet.store().enrollment_key(&id).await.unwrap().unwrap().sealed_token, None);
}

#[tokio::test]
async fn mg76_rows_of_lists_contain_tokens_unless_they_are_omitted() {
    let api = Api::new();
    let policy = api.policy("p").await;
    let kept = key(&api, json!({"name": "kept", "policy_id": policy})).await;
    key(&api, json!({"name": "once", "policy_id": policy, "retrievable": false})).await;
    let before = api.audit().await.len();
    let list = format!("/enrollment_api_keys?kuery=policy_id:{policy}");
    let rows = api.get(&list).await.ok()["items"].clone();
    let tokens: Vec<_> = rows.as_array().unwrap().iter().map(|row| (row["name"].clone(), row.get("api_key"))).collect();
    assert!(tokens.contains(&(json!("kept"), Some(&kept["api_key"]))), "{tokens:?}");
    assert!(tokens.contains(&(json!("once"), None)));
    assert_eq!(api.audit().await[before..], ["enrollment_key.reveal", "enrollment_key.reveal"], "and the default key");
    let plain = api.get(&format!("{list}&omitTokens=true")).await.ok()["items"].clone();
    assert!(plain.as_array().unwrap().iter().all(|row| row.get("api_key").is_none()), "{plain}");
    assert_eq!(api.audit().await.len(), before + 2);
    // A dry run commits no audit event, so it discloses nothing.
    for path in [format!("{list}&dryRun=true"), format!("{}?dryRun=true", path(&kept))] {
        assert_eq!(api.get(&path).await.refused(400)["field"], "dryRun");
    }
    api.get(&format!("{list}&omitTokens=true&dryRun=true")).await.ok();
    assert_eq!(api.audit().await.len(), before + 2);
}

#[tokio::test]
async fn mg78_names_are_kept_as_given() {
    let api = Api::new();
    assert_eq!(key(&api, json!({"name": " office "})).await["name"], "office");
    let nameless = key(&api, json!({})).await;
    assert_eq!(nameless["name"], nameless["id"]);
}

#[tokio::test]
async fn a_key_is_replaced_in_one_step() {
    let api = Api::new();
    let policy = api.policy("p").await;
    let body = json!({"policy_id": policy, "name": "office", "tags": ["a", "b", "a"], "max_uses": 5});
    let old = key(&api, body).await;
    let new = api.post(&format!("{}/replace", path(&old)), json!({})).await.ok()["item"].clone();
    for same in ["name", "policy_id", "tags", "max_uses"] {
        assert_eq!(new[same], old[same], "{same}");
    }
    assert_eq!(new["tags"], json!(["a", "b"]));
    assert_ne!(new["api_key"], old["api_key"]);
    assert_eq!(
        (listed(&api, &old).await.unwrap()["active"].clone(), new["active"].clone()),
        (json!(false), json!(true))
    );
    api.post(&format!("{}/replace", path(&old)), json!({})).await.refused(409);
}

#[tokio::test]
async fn mg37_agents_can_be_filtered_by_enrollment_key() {
    let api = Api::new();
    let made = key(&api, json!({})).await;
    let id = made["id"].as_str().unwrap();
    api.agent_with("came-in", None, |record| record.enrollment_key_id = Some(EnrollmentKeyId::trusted(id))).await;
    api.agent("other", None).await;
    let found = api.get(&format!("/agents?kuery=enrollment_key_id:%22{id}%22")).await.ok();
    assert_eq!(column(&found, "/id"), ["came-in"]);
    assert_eq!(found["items"][0]["enrollment_key_id"], id);
    assert_eq!(found["items"][0]["first_address"], "192.0.2.1");
}

#[tokio::test]
async fn the_hyphenated_alias_and_queries_over_keys_work() {
    let api = Api::new();
    key(&api, json!({"name": "seen"})).await;
    key(&api, json!({"name": "unseen", "hidden": true})).await;
    let found = api.get("/enrollment-api-keys?kuery=not%20hidden:true").await.ok();
    assert_eq!(column(&found, "/name"), ["seen"]);
    assert_eq!(found["total"], 1);
    let refused = api.get(&format!("{KEYS}?kuery=colour:red")).await.refused(400);
    assert!(refused["message"].as_str().unwrap().starts_with("KQLSyntaxError"));
}

/// Reads a whole list with cursors.
async fn all_by_cursor(api: &Api, path: &str) -> Vec<String> {
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let listed = api.get(&format!("{path}{next}")).await.ok();
        seen.extend(column(&listed, "/name"));
        let Some(after) = listed["nextSearchAfter"].as_str() else { return seen };
        let after: String = percent_encoding::utf8_percent_encode(after, percent_encoding::NON_ALPHANUMERIC).collect();
        next = format!("&searchAfter={after}");
    }
}

#[tokio::test]
async fn cursors_return_all_keys_and_policies() {
    let api = Api::new();
    for name in ["beta", "Alpha", "gamma", "Delta", "epsilon"] {
        api.clock.advance(Duration::from_secs(1));
        api.policy(name).await;
    }
    let by_name = ["Alpha", "beta", "Delta", "epsilon", "gamma"];
    let newest_first = ["epsilon", "Delta", "gamma", "Alpha", "beta"];
    for filter in ["", "&kuery=name:*"] {
        for per_page in [1, 2, 5, 9] {
            let policies = all_by_cursor(&api, &format!("/agent_policies?perPage={per_page}{filter}")).await;
            assert_eq!(policies, by_name, "{filter} {per_page}");
            let keys = all_by_cursor(&api, &format!("/enrollment_api_keys?perPage={per_page}{filter}")).await;
            assert_eq!(keys, newest_first, "{filter} {per_page}");
        }
    }
    for path in ["/agent_policies", "/enrollment_api_keys"] {
        for query in [
            "searchAfter=x",
            "searchAfter=%5B%5D",
            "searchAfter=%5B1,%22a%22%5D&page=1",
            "searchAfter=%5B%22a%22%5D&page=1",
        ] {
            assert_eq!(
                api.get(&format!("{path}?{query}")).await.refused(400)["field"],
                "searchAfter",
                "{path}?{query}"
            );
        }
    }
}

#[tokio::test]
async fn m26_fl77_enroll_secrets_are_generated_or_chosen_and_unique() {
    let api = Api::new();
    let made = key(&api, json!({"family": "fleetd", "name": "hosts"})).await;
    assert_eq!((&made["family"], made["api_key"].as_str().unwrap().len()), (&json!("fleetd"), 32));
    assert_eq!(api.get(&path(&made)).await.ok()["item"]["api_key"], made["api_key"], "it can be read again");
    let chosen = "85O6XRG8'!l~P&zWt_'f&$QK";
    let given = key(&api, json!({"family": "fleetd", "secret": chosen})).await;
    assert_eq!(given["api_key"], chosen);
    let again = api.post(KEYS, json!({"family": "fleetd", "secret": chosen})).await.refused(409);
    assert!(!again.to_string().contains(chosen));
    for bad in [
        json!({"family": "fleetd", "max_uses": 3}),
        json!({"family": "fleetd", "secret": ""}),
        json!({"family": "fleetd", "secret": "short"}),
        json!({"family": "orbit"}),
        json!({"secret": chosen}),
        json!({"family": "fleetd", "policy_id": api.policy("p").await}),
    ] {
        api.post(KEYS, bad).await.refused(400);
    }
    let list = api.get(&format!("{KEYS}?kuery=family:fleetd")).await.ok();
    assert_eq!(column(&list, "/family"), ["fleetd", "fleetd"]);
    let replaced = api.post(&format!("{}/replace", path(&made)), json!({})).await.ok();
    assert_eq!(replaced["item"]["api_key"].as_str().unwrap().len(), 32);
}

#[tokio::test]
async fn mg73_a_key_of_a_policy_is_invisible_in_other_spaces_and_policies_are_not_shared() {
    let api = Api::new();
    for space in ["blue", "red"] {
        api.v1(Method::POST, "/spaces", json!({"id": space})).await.ok();
    }
    let inside = async |space: &str, method: Method, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(format!("/s/{space}/api/fleet{path}"));
        let request = request.extension(administrator());
        api.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let draft = |spaces: Value| json!({"name": "p", "namespace": "default", "space_ids": spaces});
    for shared in [json!(["blue", "red"]), json!(["red"]), json!(["*"])] {
        let refused = inside("blue", Method::POST, "/agent_policies", draft(shared)).await.refused(400);
        assert!(refused["message"].as_str().unwrap().contains("space_ids"), "{refused}");
    }
    let policy = inside("blue", Method::POST, "/agent_policies", draft(json!(["blue"]))).await.ok()["item"].clone();
    let of_policy = json!({"policy_id": policy["id"], "name": "k"});
    let key = path(&inside("blue", Method::POST, KEYS, of_policy).await.ok()["item"]);
    inside("blue", Method::GET, &key, json!({})).await.ok();
    inside("red", Method::GET, &key, json!({})).await.refused(404);
    assert_eq!(inside("red", Method::GET, KEYS, json!({})).await.ok()["total"], 0);
}
