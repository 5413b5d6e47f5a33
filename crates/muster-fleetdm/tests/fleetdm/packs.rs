//! Packs, and their specifications.

use serde_json::{Value, json};

use crate::setting::{Api, column};

/// Returns the number of a label.
async fn label(api: &Api, name: &str) -> Value {
    let labels = api.get("/labels").await.ok()["labels"].clone();
    let found = labels.as_array().and_then(|labels| labels.iter().find(|label| label["name"] == name));
    found.map(|label| label["id"].clone()).expect("a label")
}

#[tokio::test]
async fn packs_are_created_changed_listed_and_deleted() {
    let api = Api::new().await;
    api.post("/labels", json!({"name": "docker", "query": "SELECT 1"})).await.ok();
    let (all, docker) = (label(&api, "All Hosts").await, label(&api, "docker").await);
    let new = json!({"name": "it", "description": "d", "platform": "linux,darwin", "label_ids": [docker]});
    let made = api.post("/packs", new.clone()).await.ok()["pack"].clone();
    assert_eq!((&made["label_ids"], &made["platform"]), (&json!([docker]), &json!("linux,darwin")));
    assert!(made["id"].as_u64().is_some_and(|id| id < 1 << 52));
    api.post("/packs", new).await.refused(409);
    let path = format!("/packs/{}", made["id"]);
    let changed = api.patch(&path, json!({"label_ids": [all], "description": "e"})).await.ok()["pack"].clone();
    assert_eq!((&changed["id"], &changed["name"], &changed["label_ids"]), (&made["id"], &json!("it"), &json!([all])));
    assert_eq!((&changed["platform"], &changed["description"]), (&made["platform"], &json!("e")));
    assert_eq!(api.get(&path).await.ok()["pack"], changed);
    assert_eq!(api.get("/packs?query=it").await.ok()["packs"], json!([changed]));
    assert_eq!(api.get("/packs?query=other").await.ok()["count"], 0);
    assert_eq!(api.get(&format!("{path}/scheduled")).await.ok()["scheduled"], json!([]));
    let team = api.team("blue").await;
    api.post(&format!("/packs?team_id={team}"), json!({"name": "blue", "label_ids": [all]})).await.ok();
    assert_eq!(column(&api.get(&format!("/packs?team_id={team}")).await.ok()["packs"], "name"), ["blue"]);
    api.delete(&format!("/packs/id/{}", made["id"])).await.ok();
    api.get(&path).await.refused(404);
    api.delete("/packs/blue").await.refused(404);
    api.delete(&format!("/packs/Blue?team_id={team}")).await.ok();
    let audit = api.audit().await;
    assert_eq!(audit.iter().filter(|action| action.starts_with("pack.")).count(), 5, "{audit:?}");
}

#[tokio::test]
async fn what_packs_do_not_have_is_rejected_by_name() {
    let api = Api::new().await;
    let all = label(&api, "All Hosts").await;
    for (body, name) in [
        (json!({"name": "p"}), "label_ids"),
        (json!({"label_ids": [all]}), "name"),
        (json!({"name": "p", "label_ids": [all], "host_ids": [7]}), "host_ids"),
        (json!({"name": "p", "label_ids": [all], "team_ids": [7]}), "team_ids"),
        (json!({"name": "p", "label_ids": [all], "disabled": true}), "disabled"),
        (json!({"name": "p", "label_ids": [all], "platform": "linus"}), "platform"),
    ] {
        assert_eq!(api.post("/packs", body.clone()).await.refused(422).0, name, "{body}");
    }
    api.post("/packs", json!({"name": "p", "label_ids": [7]})).await.refused(404);
    let path = format!("/packs/{}", {
        let empty = json!({"name": "p", "label_ids": [all], "host_ids": [], "team_ids": [], "disabled": false});
        api.post("/packs", empty).await.ok()["pack"]["id"].clone()
    });
    for (body, name) in [(json!({"name": "q"}), "name"), (json!({"label_ids": []}), "label_ids")] {
        assert_eq!(api.patch(&path, body).await.refused(422).0, name);
    }
    let targets = |targets: Value| json!({"specs": [{"name": "s", "targets": targets}]});
    for (body, name) in [
        (targets(json!({"labels": []})), "targets.labels"),
        (targets(json!({"labels": "All Hosts"})), "targets.labels"),
        (targets(json!({"labels": ["All Hosts"], "teams": ["blue"]})), "targets.teams"),
        (targets(json!({"labels": ["All Hosts"], "hosts": ["web-7"]})), "targets.hosts"),
        (json!({"specs": [{"name": "s", "disabled": true, "targets": {"labels": ["All Hosts"]}}]}), "disabled"),
    ] {
        assert_eq!(api.post("/spec/packs", body.clone()).await.refused(422).0, name, "{body}");
    }
    api.post("/spec/packs", targets(json!({"labels": ["no such label"]}))).await.refused(404);
}

#[tokio::test]
async fn specifications_of_packs_name_saved_queries_and_are_applied_again_without_a_difference() {
    let api = Api::new().await;
    for (name, sql) in [("users", "SELECT * FROM users"), ("os", "SELECT * FROM os_version")] {
        api.post("/queries", json!({"name": name, "query": sql})).await.ok();
    }
    let queries = json!([
        {"query": "users", "interval": 3600, "removed": false, "platform": "linux", "version": "", "shard": null},
        {"query": "os", "name": "os daily", "description": "d", "interval": 86400, "snapshot": true},
    ]);
    let spec = json!({"name": "it", "description": "d", "targets": {"labels": ["All Hosts"], "teams": null},
        "queries": queries});
    api.post("/spec/packs", json!({"specs": [spec]})).await.ok();
    let shown = api.get("/spec/packs/it").await.ok()["spec"].clone();
    assert_eq!(column(&shown["queries"], "query"), ["os", "users"]);
    let daily = &shown["queries"][0];
    assert_eq!(
        (&daily["name"], &daily["snapshot"], &daily["interval"]),
        (&json!("os daily"), &json!(true), &json!(86400))
    );
    assert_eq!(shown["queries"][1]["platform"], "linux");
    assert_eq!(shown["targets"]["labels"], json!(["All Hosts"]));
    let scheduled = api.get(&format!("/packs/{}/scheduled", shown["id"])).await.ok()["scheduled"].clone();
    assert_eq!((&scheduled[1]["query"], &scheduled[1]["query_name"]), (&json!("SELECT * FROM users"), &json!("users")));
    // The document keeps what FleetDM's packs do not have, and the SQL of queries that are not saved.
    let document = json!({"queries": {"unsaved": {"query": "SELECT 7", "interval": 60}}, "shard": 50}).to_string();
    api.pack("own", &document).await;
    let all = api.get("/spec/packs").await.ok()["specs"].clone();
    assert_eq!(column(&all, "name"), ["it", "own"]);
    let audited = api.audit().await.len();
    api.post("/spec/packs", json!({"specs": all})).await.ok();
    assert_eq!(api.audit().await.len(), audited, "nothing changed");
    for queries in [json!([{"query": "none", "interval": 60}]), json!([{"query": "users", "name": "unsaved2"}])] {
        let bad = json!({"name": "own", "targets": {"labels": ["All Hosts"]}, "queries": queries});
        let good = json!({"name": "new", "targets": {"labels": ["All Hosts"]}, "queries": []});
        let answer = api.post("/spec/packs", json!({"specs": [good, bad]})).await;
        assert!([404, 422].contains(&answer.status.as_u16()), "{}", answer.body);
    }
    let twice = json!([{"query": "users", "interval": 60}, {"query": "os", "name": "users", "interval": 60}]);
    let twice = json!({"name": "new", "targets": {"labels": ["All Hosts"]}, "queries": twice});
    assert_eq!(api.post("/spec/packs", json!({"specs": [twice]})).await.refused(422).0, "queries");
    assert_eq!(column(&api.get("/packs").await.ok()["packs"], "name"), ["it", "own"], "all or none");
    api.get("/spec/packs/none").await.refused(404);
}
