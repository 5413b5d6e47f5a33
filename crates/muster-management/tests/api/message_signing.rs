//! MG §1.7: the key that signs policies and actions, over REST.

use muster_core::action::Signed;
use muster_core::signing::verify;
use serde_json::{Value, json};

use crate::support::Api;

const ROTATE: &str = "/message_signing_service/rotate_key_pair";

async fn compiled(api: &Api, policy: &str) -> Value {
    api.get(&format!("/agent_policies/{policy}/full")).await.ok()["item"].clone()
}

/// The key in a compiled policy, which must have signed it.
fn key(compiled: &Value) -> String {
    let signed = Signed {
        data: compiled["signed"]["data"].as_str().unwrap().to_owned(),
        signature: compiled["signed"]["signature"].as_str().unwrap().to_owned(),
    };
    let key = compiled["agent"]["protection"]["signing_key"].as_str().unwrap().to_owned();
    verify(&key, &signed).unwrap();
    key
}

#[tokio::test]
async fn mg115_the_signing_key_is_replaced_only_if_the_request_acknowledges_it() {
    let api = Api::new();
    let (one, other) = (api.policy("one").await, api.policy("other").await);
    let (before, audit) = (compiled(&api, &one).await, api.audit().await);
    for query in ["", "?acknowledge=false", "?acknowledge"] {
        let refused = api.post(&format!("{ROTATE}{query}"), json!({})).await.refused(400);
        assert!(!refused["message"].as_str().unwrap().is_empty(), "{refused}");
    }
    assert_eq!(api.post(ROTATE, json!({})).await.refused(400)["code"], "not_acknowledged");
    assert_eq!((compiled(&api, &one).await, api.audit().await), (before.clone(), audit));

    let told = api.post(&format!("{ROTATE}?acknowledge=true"), json!({})).await.ok();
    assert_eq!(told["message"], "the signing key was replaced: 2 policies have a new revision");
    let (after, of_other) = (compiled(&api, &one).await, compiled(&api, &other).await);
    assert_ne!(key(&after), key(&before));
    assert_eq!((key(&after), &after["revision"]), (key(&of_other), &json!(2)));
    let audit = api.audit().await;
    assert_eq!(audit.iter().filter(|action| *action == "signing_key.rotate").count(), 1);
    assert_eq!(audit.iter().filter(|action| *action == "policy.revise").count(), 2);
    let later = api.policy("later").await;
    assert_eq!(key(&compiled(&api, &later).await), key(&after));
}
