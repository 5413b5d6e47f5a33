//! Enrollment over the wire (EA §3).

use muster_core::id::PolicyId;
use muster_core::time::Timestamp;
use serde_json::{Value, json};

use crate::setting::{AGENT, Ask, Got, Server, online, refused};

const PATH: &str = "/api/fleet/agents/enroll";

async fn enroll(server: &Server, token: &str, body: &Value) -> Got {
    server.get(Ask::post(PATH).key(token).agent(AGENT).json(body)).await
}

fn permanent() -> Value {
    json!({"type": "PERMANENT"})
}

#[tokio::test]
async fn ea27_enrollments_of_real_agents_are_accepted() {
    let server = Server::start().await;
    let token = server.enrollment_key("k", None).await;
    let body = json!({
        "type": "PERMANENT", "id": "", "replace_token": "",
        "metadata": {"local": {"elastic": {"agent": {"id": ""}}}, "user_provided": null, "tags": null},
    });
    let got = enroll(&server, &token, &body).await;
    assert_eq!(got.status, 200, "{got:?}");
}

#[tokio::test]
async fn ag93_mg71_no_field_of_an_enrollment_chooses_the_policy() {
    let server = Server::start().await;
    let (own, other) = (server.policy_with("own", json!({})).await, server.policy_with("other", json!({})).await);
    let token = server.enrollment_key("k", Some(&own)).await;
    let wish = json!({"policy_id": other.as_str(), "agent_policy_id": other.as_str(), "policyId": other.as_str()});
    let mut body = permanent();
    body["metadata"] = json!({"local": wish, "user_provided": wish, "tags": [other.as_str()]});
    body.as_object_mut().expect("an object").extend(wish.as_object().cloned().expect("an object"));
    for path in [PATH.to_owned(), format!("{PATH}?policy_id={other}")] {
        let got = server.get(Ask::post(&path).key(&token).agent(AGENT).json(&body)).await;
        let item = &got.json()["item"];
        assert_eq!((got.status, &item["policy_id"]), (200, &json!("own")), "{got:?}");
        assert_eq!(server.stored(item["id"].as_str().expect("an id")).await.policy_id, Some(own.clone()));
    }
}

#[tokio::test]
async fn ag157_a_former_agent_id_in_the_metadata_grants_nothing() {
    let server = Server::start().await;
    let token = server.enrollment_key("k", None).await;
    let first = server.enroll_with(&token, &permanent()).await;
    let before = server.stored(&first.id).await;
    // A host that enrolls again reports its former id, from this or another server.
    for former in [first.id.as_str(), "6f1d2c3b-0000-4000-8000-1234567890ab"] {
        let local = json!({"elastic": {"agent": {"id": former, "version": "9.5.2"}}, "host": {"id": "h"}});
        let again = json!({"type": "PERMANENT", "id": "", "metadata": {"local": local}});
        let got = enroll(&server, &token, &again).await.json();
        let item = &got["item"];
        assert_ne!(item["id"], json!(former));
        assert_eq!(item["local_metadata"]["elastic"]["agent"]["id"], item["id"], "EA38");
        assert_ne!(server.stored(item["id"].as_str().expect("an id")).await.credentials, before.credentials);
    }
    assert_eq!(server.stored(&first.id).await, before);
    server.holds(server.check_in(&first, &online())).await;
}

#[tokio::test]
async fn ea28_ea29_d1_d20_only_a_live_enrollment_key_admits() {
    let server = Server::start().await;
    let token = server.enrollment_key("k", None).await;
    let agent = server.enroll_with(&token, &permanent()).await;
    assert_eq!(enroll(&server, &agent.token, &permanent()).await.refusal(), refused(401, "ErrUnauthorized"));
    server.revoke_enrollment_key("k").await;
    assert_eq!(enroll(&server, &token, &permanent()).await.refusal(), refused(401, "ErrUnauthorized"));
}

#[tokio::test]
async fn ea30_ea31_d19_the_user_agent_is_checked_and_required() {
    let server = Server::start().await;
    let token = server.enrollment_key("k", None).await;
    let ask = Ask::post(PATH).key(&token).json(&permanent());
    assert_eq!(server.get(ask.clone()).await.refusal(), refused(400, "InvalidUserAgent"));
    for (user_agent, status, word) in [
        ("elastic agent 7.0.0", 400, "UnsupportedVersion"),
        ("curl/8", 400, "InvalidUserAgent"),
        ("", 400, "InvalidUserAgent"),
        ("elastic-agent 8.6.0", 400, "InvalidUserAgent"),
        ("Elastic Agent v9.6.0-SNAPSHOT", 200, ""),
        ("Elastic Agent v9.6.7", 200, ""),
        ("elastic agent 8.6.0-SNAPSHOT", 200, ""),
    ] {
        let got = server.get(ask.clone().agent(user_agent)).await;
        assert_eq!((got.status, got.json()["error"].as_str().unwrap_or_default()), (status, word), "{user_agent}");
    }
}

#[tokio::test]
async fn ea32_ea33_the_highest_version_is_configurable_and_the_user_agent_version_is_stored() {
    let server = Server::with(|_| {}, |settings| settings.highest_version = (9, Some(5))).await;
    let token = server.enrollment_key("k", None).await;
    let ask =
        |version: &str| Ask::post(PATH).key(&token).agent(&format!("Elastic Agent v{version}")).json(&permanent());
    assert_eq!(server.get(ask("9.6.0")).await.refusal(), refused(400, "UnsupportedVersion"));
    let got = server.get(ask("9.5.99-SNAPSHOT")).await;
    let id = got.json()["item"]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.stored(&id).await.agent_version, "9.5.99");
}

#[tokio::test]
async fn ea34_ea35_ea38_ea39_the_response_has_all_fields() {
    let server = Server::start().await;
    let policy = server.policy("policy-1").await;
    let token = server.enrollment_key("k", Some(&policy)).await;
    let body = json!({
        "type": "PERMANENT", "id": "my-id",
        "metadata": {"local": {"elastic": {"agent": {"id": "other", "version": "9.5.2"}}, "host": {"name": "web"}},
                     "user_provided": {}, "tags": ["web", "prod", "web"]},
    });
    let got = enroll(&server, &token, &body).await;
    assert_eq!((got.status, got.header("content-type")), (200, "application/json"));
    let reply = got.json();
    assert_eq!(reply["action"], "created");
    let item = &reply["item"];
    assert_eq!(item["id"], "my-id");
    assert_eq!(
        (&item["active"], &item["policy_id"], &item["type"]),
        (&json!(true), &json!("policy-1"), &json!("PERMANENT"))
    );
    assert!(Timestamp::parse_rfc3339(item["enrolled_at"].as_str().unwrap()).is_ok());
    assert_eq!(item["user_provided_metadata"], Value::Null);
    assert_eq!(item["local_metadata"]["elastic"]["agent"]["id"], "my-id");
    assert_eq!(item["local_metadata"]["host"]["name"], "web");
    assert_eq!((&item["status"], &item["tags"]), (&json!("online"), &json!(["prod", "web"])));
    assert!(item["access_api_key_id"].is_string() && item.get("actions").is_none());
}

#[tokio::test]
async fn ea36_ea37_the_key_works_immediately_and_missing_ids_are_generated() {
    let server = Server::start().await;
    let (first, second) = (server.enrolled().await, server.enrolled().await);
    assert_eq!((first.id.len(), first.id == second.id), (36, false));
    server.holds(server.check_in(&first, &online())).await;
}

#[tokio::test]
async fn ea40_ea41_replacing_an_agent_requires_its_token() {
    let server = Server::start().await;
    let token = server.enrollment_key("k", None).await;
    let body = |secret: &str| json!({"type": "PERMANENT", "id": "fixed", "replace_token": secret});
    let first = server.enroll_with(&token, &body("right")).await;
    for wrong in ["", "wrong"] {
        let got = enroll(&server, &token, &body(wrong)).await;
        assert_eq!(got.refusal(), refused(403, "AgentNotReplaceable"), "{wrong:?}");
    }
    let second = server.enroll_with(&token, &body("right")).await;
    assert_eq!(server.get(server.check_in(&first, &online())).await.refusal(), refused(401, "ErrUnauthorized"));
    server.holds(server.check_in(&second, &online())).await;
}

#[tokio::test]
async fn ea46_concurrent_enrollments_with_one_enrollment_id_create_one_agent() {
    let server = Server::start().await;
    let token = server.enrollment_key("k", None).await;
    let body = json!({"type": "PERMANENT", "enrollment_id": "same"});
    let ask = Ask::post(PATH).key(&token).agent(AGENT).json(&body);
    let all = futures_of(&server, ask, 8).await;
    assert!(all.iter().all(|got| got.status == 200 || got.refusal().1 == "EnrollDuplicate"), "{all:?}");
    let page = muster_store::query::Page { offset: 0, limit: 100 };
    let (filter, sort) = (muster_store::query::AgentFilter::default(), muster_store::query::AgentSort::EnrolledAt);
    let stored = server.fleet.store().agent_list(&filter, sort, false, page).await.unwrap();
    assert_eq!(stored.total, 1);
}

async fn futures_of(server: &Server, ask: Ask, count: usize) -> Vec<Got> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (api, request) = (server.api.clone(), ask.clone().into_parts());
        tasks.spawn(async move {
            match api.handle(request.0, request.1).await.answer {
                muster_listen::reply::Answer::Reply(reply) => Got::of(reply).await,
                _ => panic!("parked"),
            }
        });
    }
    tasks.join_all().await
}

#[tokio::test]
async fn d1_an_unknown_type_is_400() {
    let server = Server::start().await;
    let token = server.enrollment_key("k", None).await;
    for kind in ["FOREVER", "", "permanent"] {
        assert_eq!(
            enroll(&server, &token, &json!({"type": kind})).await.refusal(),
            refused(400, "BadRequest"),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn a_key_of_a_deleted_policy_is_rejected() {
    let server = Server::start().await;
    let token = server.enrollment_key("k", Some(&PolicyId::trusted("gone"))).await;
    assert_eq!(enroll(&server, &token, &permanent()).await.refusal(), refused(400, "ErrPolicyNotFound"));
}
