//! MG §11.2, §11.3, §11.4: lists and details of agents.

use std::sync::Arc;
use std::time::Duration;

use muster_core::agent::{AgentDocuments, AuditReason, AuditReport};
use muster_core::duplicate_hosts::{DuplicateHosts, HostMark, Reenrollment, ReenrollmentState};
use muster_core::id::{ActionId, AgentId, EnrollmentKeyId};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_fleet::testing::{TestFleet, steady};
use muster_store::Store;
use serde_json::{Value, json};

use crate::support::{Api, column};

/// online a, b (tagged); error c; unenrolled gone; inactive away.
async fn small_fleet() -> Api {
    let api = Api::new();
    api.agent_with("a", Some("p"), |agent| agent.tags = vec!["x".into()]).await;
    api.agent_with("b", Some("q"), |agent| agent.tags = vec!["Y".into(), "x".into()]).await;
    api.agent_with("c", Some("p"), |agent| agent.health.status = "error".into()).await;
    api.agent_with("gone", None, |agent| {
        agent.active = false;
        agent.credentials.revoke_all();
    })
    .await;
    let long_ago = api.now().minus(Duration::from_secs(7200));
    api.agent_with("away", None, |agent| {
        agent.last_checkin = Some(long_ago);
        agent.inactivity_timeout = Some(Duration::from_secs(3600));
    })
    .await;
    api
}

async fn ids(api: &Api, query: &str) -> Vec<String> {
    let mut ids = column(&api.get(&format!("/agents?{query}")).await.ok(), "/id");
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn mg27_mg28_mg36_inactive_and_unenrolled_agents_are_hidden_by_default() {
    let api = small_fleet().await;
    assert_eq!(ids(&api, "").await, ["a", "b", "c"]);
    assert_eq!(ids(&api, "showInactive=true").await, ["a", "away", "b", "c"]);
    assert_eq!(ids(&api, "kuery=status:unenrolled").await, ["gone"]);
    assert_eq!(ids(&api, "kuery=status:*").await, ["a", "away", "b", "c", "gone"]);
}

#[tokio::test]
async fn mg17_mg18_mg19_mg20_queries_filter() {
    let api = small_fleet().await;
    assert_eq!(ids(&api, "kuery=status:(online%20or%20error)").await, ["a", "b", "c"]);
    assert_eq!(ids(&api, "kuery=policy_id:p").await, ["a", "c"]);
    assert_eq!(ids(&api, "kuery=fleet-agents.policy_id:%22p%22").await, ["a", "c"]);
    assert_eq!(ids(&api, "kuery=tags:x%20and%20not%20tags:Y").await, ["a"]);
    let either = "kuery=not%20status:error%20and%20(tags:%22Y%22%20or%20tags:%22z%22)";
    assert_eq!(ids(&api, either).await, ["b"]);
    assert_eq!(ids(&api, "kuery=not%20tags:*").await, ["c"]);
    assert_eq!(ids(&api, "kuery=agent.id:(%22a%22%20or%20%22b%22)").await, ["a", "b"]);
    // Alternatives on different fields, negations, and values that do not exist.
    assert_eq!(ids(&api, "kuery=tags:Y%20or%20status:error").await, ["b", "c"]);
    assert_eq!(ids(&api, "kuery=policy_id:q%20or%20status:error%20and%20tags:x").await, ["b"]);
    assert_eq!(ids(&api, "kuery=(policy_id:q%20or%20status:error)%20and%20not%20id:c").await, ["b"]);
    assert_eq!(ids(&api, "kuery=not%20(tags:x%20and%20policy_id:p)").await, ["b", "c"]);
    assert_eq!(ids(&api, "kuery=not%20policy_id:p").await, ["b"]);
    assert_eq!(ids(&api, "kuery=not%20policy_id:*&showInactive=true").await, ["away"]);
    assert_eq!(ids(&api, "kuery=not%20policy_id:p&showInactive=true").await, ["away", "b"]);
    assert_eq!(ids(&api, "kuery=tags:Y%20or%20status:unenrolled").await, ["b", "gone"]);
    assert_eq!(ids(&api, "kuery=enrollment_key_id:(k%20or%20l)%20or%20tags:*").await, ["a", "b"]);
    let many: Vec<String> =
        (0..200).map(|n| format!("id:n{n} or tags:n{n}")).chain((200..3000).map(|n| format!("id:n{n}"))).collect();
    let deep = "(".repeat(50) + "tags:Y or status:error and not (tags:z or id:z)" + &")".repeat(50);
    for (query, count) in [(format!("{} or id:a", many.join(" or ")), 1), (deep, 2)] {
        let body = json!({"agents": query, "dryRun": true});
        assert_eq!(api.post("/agents/bulk_delete", body).await.ok()["count"], count);
    }
    let refused = api.get("/agents?kuery=host:web*").await.refused(400);
    assert!(refused["message"].as_str().unwrap().starts_with("KQLSyntaxError"));
}

#[tokio::test]
async fn mg29_mg30_invalid_pages_are_refused() {
    let api = Api::new();
    for query in ["page=101&perPage=100", "page=0", "searchAfter=%5B1%5D", "openPit=true", "sortField=colour"] {
        api.get(&format!("/agents?{query}")).await.refused(400);
    }
    api.get("/agents?page=100&perPage=100").await.ok();
}

#[tokio::test]
async fn mg31_mg55_status_summary_and_counts_agree() {
    let api = small_fleet().await;
    let counts = api.get("/agent_status").await.ok()["results"].clone();
    let count = |word: &str| counts[word].as_u64().unwrap();
    assert_eq!((count("all"), count("online"), count("error")), (5, 2, 1));
    assert_eq!((count("inactive"), count("unenrolled"), count("active")), (1, 1, 3));
    let list = api.get("/agents?getStatusSummary=true&kuery=policy_id:p").await.ok();
    let same = api.get("/agent_status?kuery=policy_id:p").await.ok()["results"].clone();
    assert_eq!(list["statusSummary"]["online"], same["online"]);
    assert_eq!(list["statusSummary"]["error"], same["error"]);
    let two = api.get("/agent_status?policyIds=p&policyIds%5B%5D=q").await.ok();
    assert_eq!(two["results"]["all"], 3);
}

#[tokio::test]
async fn mg32_duplicate_tags_are_removed_and_order_is_kept() {
    let api = small_fleet().await;
    let body = json!({"tags": ["z", "b", "z", "a"], "user_provided_metadata": {"desk": 7}});
    let item = api.put("/agents/a", body).await.ok()["item"].clone();
    assert_eq!(item["tags"], json!(["z", "b", "a"]));
    assert_eq!(item["user_provided_metadata"], json!({"desk": 7}));
    let only_tags = api.put("/agents/a", json!({"tags": []})).await.ok()["item"].clone();
    assert_eq!((&only_tags["tags"], &only_tags["user_provided_metadata"]), (&json!([]), &json!({"desk": 7})));
}

#[tokio::test]
async fn mg33_tags_are_sorted_ignoring_case_and_filtered_by_the_query() {
    let api = small_fleet().await;
    assert_eq!(api.get("/agents/tags").await.ok()["items"], json!(["x", "Y"]));
    assert_eq!(api.get("/agents/tags?kuery=policy_id:p").await.ok()["items"], json!(["x"]));
}

#[tokio::test]
async fn mg35_deletion_leaves_only_an_audit_event() {
    let api = small_fleet().await;
    let key = api.agent("doomed", Some("p")).await;
    api.post("/agents/doomed/request_diagnostics", json!({})).await.ok();
    let purge = json!({"agents": ["doomed"]});
    assert_eq!(api.post("/agents/bulk_delete", purge.clone()).await.ok(), json!({"count": 1}));
    api.get("/agents/doomed").await.refused(404);
    assert!(api.fleet.store().agent_by_credential(&key.id).await.unwrap().is_none());
    assert!(api.fleet.store().agent_documents(&AgentId::trusted("doomed")).await.unwrap().is_none());
    assert_eq!(api.audit().await.last().unwrap(), "agent.delete");
    assert_eq!(api.post("/agents/bulk_delete", purge).await.ok(), json!({"count": 0}));
}

#[tokio::test]
async fn mg34_delete_revokes_the_agent_and_keeps_its_record() {
    let api = small_fleet().await;
    let key = api.agent("doomed", Some("p")).await;
    for _ in 0..2 {
        assert_eq!(api.delete("/agents/doomed").await.ok(), json!({"action": "deleted"}), "it may be repeated");
        let item = api.get("/agents/doomed").await.ok()["item"].clone();
        assert_eq!((&item["active"], &item["status"]), (&json!(false), &json!("unenrolled")));
        assert!(item["unenrolled_at"].is_string(), "{item}");
    }
    assert!(api.fleet.authentication().agent("doomed", &key).await.is_err(), "its key is revoked");
    assert_eq!(api.audit().await, ["action.create", "agent.unenroll"], "once");
    api.delete("/agents/nobody").await.refused(404);
}

#[tokio::test]
async fn mg56_uninstalled_agents_are_found_by_a_filter_after_they_became_inactive() {
    let api = small_fleet().await;
    let long_ago = api.now().minus(Duration::from_secs(7200));
    let left = async |id: &str, reason| {
        api.agent_with(id, None, |agent| {
            agent.audit = Some(AuditReport { reason, at: long_ago });
            agent.last_checkin = Some(long_ago);
            agent.inactivity_timeout = Some(Duration::from_secs(3600));
        })
        .await;
    };
    left("removed", AuditReason::Uninstall).await;
    left("lost", AuditReason::Orphaned).await;
    assert_eq!(api.status_of("removed").await, "inactive");
    // The filter names agents that are inactive sooner or later, so they are shown without `showInactive`.
    assert_eq!(ids(&api, "kuery=audit_unenrolled_reason:uninstall").await, ["removed"]);
    assert_eq!(ids(&api, "kuery=audit_unenrolled_reason:(uninstall%20or%20orphaned)").await, ["lost", "removed"]);
    assert_eq!(ids(&api, "kuery=audit_unenrolled_reason:*").await, ["lost", "removed"]);
    assert_eq!(ids(&api, "kuery=not%20audit_unenrolled_reason:*").await, ["a", "b", "c"]);
    let unknown = api.get("/agents?kuery=audit_unenrolled_reason:bored").await.refused(400);
    assert!(unknown["message"].as_str().unwrap().contains("key_revoked"), "{unknown}");
}

#[tokio::test]
async fn mg21_mg22_times_and_patterns_of_host_names_filter() {
    let api = small_fleet().await;
    api.clock.advance(Duration::from_secs(900));
    api.agent_with("new", None, |agent| agent.hostname = "web-7".into()).await;
    assert_eq!(ids(&api, "kuery=enrolled_at%20%3E%3D%20now-10m").await, ["new"]);
    assert_eq!(ids(&api, "kuery=local_metadata.host.hostname:web*").await, ["new"]);
    assert_eq!(ids(&api, "kuery=local_metadata.host.hostname:*-7").await, ["new"]);
}

#[tokio::test]
async fn agents_are_deleted_by_query() {
    let api = small_fleet().await;
    let counted = api.post("/agents/bulk_delete", json!({"agents": "policy_id:p", "dryRun": true})).await.ok();
    assert_eq!(counted, json!({"count": 2}));
    assert_eq!(ids(&api, "").await, ["a", "b", "c"]);
    let deleted = api.post("/agents/bulk_delete", json!({"agents": "policy_id:p"})).await.ok();
    assert_eq!(deleted, json!({"count": 2}));
    assert_eq!(ids(&api, "kuery=status:*").await, ["away", "b", "gone"]);
}

#[tokio::test]
async fn details_contain_all_fields_of_an_agent() {
    let api = Api::new();
    api.agent_with("a", Some("p"), |agent| {
        agent.audit = Some(AuditReport { reason: AuditReason::Uninstall, at: agent.enrolled_at });
        agent.upgrade.rollbacks = Some(r#"[{"version":"9.4.0"}]"#.into());
    })
    .await;
    let item = api.get("/agents/a").await.ok()["item"].clone();
    assert_eq!(item["status"], Status::Uninstalled.as_str());
    assert_eq!((&item["audit_unenrolled_reason"], &item["type"]), (&json!("uninstall"), &json!("PERMANENT")));
    assert_eq!(item["upgrade"]["rollbacks"][0]["version"], "9.4.0");
    assert_eq!(item["local_metadata"]["host"]["hostname"], "host-a");
    assert_eq!((&item["components"], &item["policy_revision"]), (&json!([]), &json!(1)));
    assert_eq!(item["agent"], json!({"id": "a", "version": "9.5.0"}));
    assert!(!item.to_string().contains("hash"), "no secret is shown");
    let credentials = item["credentials"].as_array().unwrap();
    assert_eq!((credentials.len(), &credentials[0]["type"]), (1, &json!("access_key")));
    assert_eq!((&credentials[0]["id"], credentials[0].get("revoked_at")), (&item["access_api_key_id"], None));
    let row = api.get("/agents?kuery=status:*").await.ok()["items"][0].clone();
    assert_eq!((row.get("components"), row.get("credentials")), (None, None), "lists stay small");
    assert_eq!(row["local_metadata"], item["local_metadata"]);
}

#[tokio::test]
async fn duplicate_hosts_are_shown_with_their_reenrollments() {
    let api = Api::new();
    let told =
        |host: &str, state| Reenrollment { host: HostMark::of(host), at: Timestamp::from_micros(3_000_000), state };
    api.agent_with("a", Some("p"), |agent| {
        let pending = ReenrollmentState::Pending { action: ActionId::trusted("x"), key: EnrollmentKeyId::trusted("k") };
        agent.duplicate_hosts = Some(Box::new(DuplicateHosts {
            hosts: vec!["first".into(), "second".into()],
            since: Timestamp::from_micros(1_000_000),
            last: Timestamp::from_micros(2_000_000),
            keeper: HostMark::of("first"),
            reenrollments: vec![told("second", pending), told("gone", ReenrollmentState::ByHand)],
        }));
    })
    .await;
    let shown = api.get("/agents/a").await.ok()["item"]["duplicate_hosts"].clone();
    assert_eq!(shown["keeper"], "first");
    let second = json!({"host": "second", "at": "1970-01-01T00:00:03.000Z", "state": "pending", "action_id": "x"});
    assert_eq!(shown["reenrollments"][0], second);
    assert_eq!(shown["reenrollments"][1]["host"], HostMark::of("gone").as_str(), "only its fingerprint is known");
    assert_eq!(shown["reenrollments"][1]["state"], "by_hand");
}

#[tokio::test]
async fn rows_have_shortened_messages_and_no_large_metadata() {
    let api = Api::new();
    let message = "ä".repeat(4000);
    api.agent_with("a", Some("p"), |agent| agent.health.message = message.clone()).await;
    let facts = json!({"host": {"hostname": "host-a"}, "facts": "x".repeat(100_000)});
    let documents = AgentDocuments { local_metadata: Some(facts.to_string().into()), components: None };
    let id = AgentId::trusted("a");
    api.fleet
        .store()
        .commit(vec![muster_store::Write::Agent(muster_store::AgentWrite::Documents { id, documents })])
        .await
        .unwrap();

    let row = api.get("/agents?kuery=status:*").await.ok()["items"][0].clone();
    assert!(row["last_checkin_message"].as_str().unwrap().len() <= 256, "{row}");
    assert_eq!(row["local_metadata"], json!({"host": {"hostname": "host-a"}}));
    let item = api.get("/agents/a").await.ok()["item"].clone();
    assert_eq!((&item["last_checkin_message"], &item["local_metadata"]), (&json!(message), &facts));
}

#[tokio::test]
async fn available_versions_are_sorted_newest_first() {
    let api = Api::new();
    assert_eq!(api.get("/agents/available_versions").await.ok()["items"], json!(["9.5.0"]));
    let value = json!(["8.9.0", "9.1.0", "8.19.0"]).to_string();
    let setting =
        muster_store::Write::Setting(muster_store::SettingWrite::Put { name: "available_versions".into(), value });
    api.fleet.store().commit(vec![setting]).await.unwrap();
    let items: Value = api.get("/agents/available_versions").await.ok()["items"].clone();
    assert_eq!(items, json!(["9.1.0", "8.19.0", "8.9.0"]));
}

/// Reads the whole list with cursors.
async fn all_by_cursor(api: &Api, query: &str, per_page: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let listed = api.get(&format!("/agents?{query}&perPage={per_page}{next}")).await.ok();
        seen.extend(column(&listed, "/id"));
        let Some(after) = listed["nextSearchAfter"].as_str() else { return seen };
        let after: String = percent_encoding::utf8_percent_encode(after, percent_encoding::NON_ALPHANUMERIC).collect();
        next = format!("&searchAfter={after}");
        if let Some(pit) = listed["pit"].as_str() {
            next.push_str(&format!("&pitId={pit}&pitKeepAlive=1m"));
        }
    }
}

#[tokio::test]
async fn mg26_cursors_return_each_agent_once_during_enrollments_and_check_ins() {
    let api = Api::new();
    for number in 0..25 {
        api.agent_with(&format!("a{number:02}"), None, |_| {}).await;
        api.clock.advance(Duration::from_secs(1));
    }
    let everyone: Vec<String> = (0..25).map(|number| format!("a{number:02}")).collect();
    for sort in ["enrolled_at", "last_checkin", "hostname", "status", "policy_id", "version"] {
        for order in ["asc", "desc"] {
            let mut seen = all_by_cursor(&api, &format!("sortField={sort}&sortOrder={order}"), 7).await;
            seen.sort_unstable();
            assert_eq!(seen, everyone, "{sort} {order}");
        }
    }
    let first = api.get("/agents?perPage=20&sortOrder=asc&openPit=true&pitKeepAlive=1m").await.ok();
    api.clock.advance(Duration::from_secs(1));
    api.agent_with("late", None, |_| {}).await;
    let (pit, after) = (first["pit"].as_str().unwrap(), first["nextSearchAfter"].as_str().unwrap());
    let after: String = percent_encoding::utf8_percent_encode(after, percent_encoding::NON_ALPHANUMERIC).collect();
    let rest = format!("/agents?perPage=20&sortOrder=asc&pitId={pit}&pitKeepAlive=1m&searchAfter={after}");
    let rest = api.get(&rest).await.ok();
    assert_eq!((column(&rest, "/id"), &rest["total"]), (everyone[20..].to_vec(), &json!(25)));
    assert_eq!(rest["nextSearchAfter"], Value::Null);
    assert!(all_by_cursor(&api, "sortOrder=asc", 100).await.contains(&"late".to_owned()));
}

#[tokio::test]
async fn mg30_invalid_cursors_are_refused() {
    let api = Api::new();
    for (query, field) in [
        ("searchAfter=%5B1,%22a%22%5D&page=1", "searchAfter"),
        ("searchAfter=nonsense", "searchAfter"),
        ("searchAfter=%5B1,%22a%22%5D&sortField=status", "searchAfter"),
        ("openPit=true&pitId=enrolled-by-1&pitKeepAlive=1m", "pitId"),
        ("openPit=true", "pitKeepAlive"),
        ("pitId=enrolled-by-1", "pitKeepAlive"),
        ("pitId=x&pitKeepAlive=1m", "pitId"),
    ] {
        assert_eq!(api.get(&format!("/agents?{query}")).await.refused(400)["field"], field, "{query}");
    }
}

#[tokio::test]
async fn agents_are_looked_up_by_id_and_host_name_ignoring_case() {
    let api = small_fleet().await;
    api.agent_with("named", None, |agent| agent.hostname = "Web-1.example".into()).await;
    api.agent_with("old", None, |agent| {
        agent.hostname = "web-1.EXAMPLE".into();
        agent.active = false;
        agent.credentials.revoke_all();
    })
    .await;
    let body = json!({"ids": ["a", "none", "no/id"], "hostnames": ["WEB-1.example", "nowhere"]});
    let mut found = column(&api.post("/agents/_bulk_get", body).await.ok(), "/id");
    found.sort_unstable();
    assert_eq!(found, ["a", "named", "old"]);
    assert_eq!(column(&api.post("/agents/_bulk_get", json!({})).await.ok(), "/id"), Vec::<String>::new());
    assert_eq!(ids(&api, "kuery=hostname:web-1.example").await, ["named"]);
    assert_eq!(ids(&api, "kuery=local_metadata.host.hostname:%22WEB-1.EXAMPLE%22%20or%20id:a").await, ["a", "named"]);
    let many: Vec<String> = (0..2001).map(|number| format!("a{number}")).collect();
    assert_eq!(api.post("/agents/_bulk_get", json!({"ids": many})).await.refused(400)["field"], "ids");
}

#[tokio::test]
async fn list_says_how_many_of_its_rows_cannot_be_read() {
    let store = Arc::new(muster_store::testing::fresh());
    let api = Api::of(TestFleet::over(Arc::clone(&store) as Arc<dyn Store>, steady()));
    for id in ["a", "b", "c", "d"] {
        api.agent(id, None).await;
    }
    let first = "/agents?perPage=1&sortField=hostname&sortOrder=asc";
    let listed = api.get(first).await.ok();
    assert_eq!(listed.get("unreadable"), None, "{listed}");
    for id in ["b", "c"] {
        muster_store::testing::spoil_agent(&store, id).await.unwrap();
    }
    let listed = api.get(first).await.ok();
    assert_eq!((&listed["items"][0]["id"], listed.get("unreadable")), (&json!("a"), None), "they come later");
    let after = listed["nextSearchAfter"].as_str().unwrap().replace('"', "%22").replace('[', "%5B").replace(']', "%5D");
    let listed = api.get(&format!("{first}&searchAfter={after}")).await.ok();
    assert_eq!((&listed["items"][0]["id"], &listed["unreadable"]), (&json!("d"), &json!(2)));
    let listed = api.get("/agents?perPage=20").await.ok();
    assert_eq!((listed["items"].as_array().map(Vec::len), &listed["unreadable"]), (Some(2), &json!(2)));
}
