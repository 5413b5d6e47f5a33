//! Saved queries, policies, software, teams and enroll secrets.

use std::time::Duration;

use muster_core::authorization::{Actor, OpContext};
use muster_core::enrollment_key::KeyFamily;
use muster_core::fleetd::numbers;
use muster_core::fleetd::software::SoftwareId;
use muster_core::id::SpaceId;
use muster_fleet::keys::{NewEnrollmentKey, OneTimeHost};
use serde_json::{Value, json};

use crate::setting::{Api, agent_id, column};

#[tokio::test]
async fn saved_queries_are_created_renamed_and_deleted() {
    let api = Api::new().await;
    let made = api.post("/queries", json!({"name": "Disk", "query": "SELECT 1", "interval": 0})).await.ok();
    assert_eq!(made["query"], made["report"]);
    let path = format!("/queries/{}", made["query"]["id"]);
    api.post("/queries", json!({"name": "disk", "query": "SELECT 2"})).await.refused(409);
    let (name, _) = api.post("/queries", json!({"name": "q", "query": "SELECT 1", "interval": 60})).await.refused(422);
    assert_eq!(name, "interval");
    api.post("/queries", json!({"name": "Users", "query": "SELECT 3"})).await.ok();
    api.patch(&path, json!({"name": "users"})).await.refused(409);
    let renamed = api.patch(&path, json!({"name": "Disks", "description": "free space"})).await.ok()["query"].clone();
    assert_eq!((&renamed["id"], &renamed["query"]), (&made["query"]["id"], &json!("SELECT 1")));
    assert_eq!(column(&api.get("/queries").await.ok()["queries"], "name"), ["Disks", "Users"]);
    assert_eq!(api.get("/reports?query=disk").await.ok()["reports"][0]["description"], "free space");
    assert_eq!(api.get(&path).await.ok()["query"]["name"], "Disks");
    api.delete("/queries/Users").await.ok();
    api.delete(&format!("/queries/id/{}", made["query"]["id"])).await.ok();
    api.delete("/queries/Users").await.refused(404);
    api.post("/queries/delete", json!({"ids": [made["query"]["id"]]})).await.refused(404);
    let kept = api.post("/queries", json!({"name": "kept", "query": "SELECT 4"})).await.ok()["query"]["id"].clone();
    api.post("/queries/delete", json!({"ids": [kept, 5]})).await.refused(404);
    let specs = json!({"specs": [{"name": "new", "query": "SELECT 5"}, {"name": "bad", "query": "SELECT 6", "team": "nowhere"}]});
    api.post("/spec/queries", specs).await.refused(404);
    assert_eq!(column(&api.get("/queries").await.ok()["queries"], "name"), ["kept"], "all or none");
    let deleted = api.post("/queries/delete", json!({"ids": [kept, kept]})).await.ok();
    assert_eq!(deleted["deleted"], 1);
    let audit = api.audit().await;
    assert_eq!(audit.iter().filter(|action| action.starts_with("saved_query.")).count(), 7);
}

#[tokio::test]
async fn policies_are_host_checks_of_no_team_and_of_teams() {
    let api = Api::new().await;
    let team = api.team("blue").await;
    let new = json!({"name": "disk", "query": "SELECT 1", "platform": "linux,darwin", "critical": true});
    let made = api.post("/global/policies", new.clone()).await.ok()["policy"].clone();
    assert_eq!((&made["platform"], &made["team_id"]), (&json!("linux,darwin"), &Value::Null));
    let of_team = api.post(&format!("/teams/{team}/policies"), new).await.ok()["policy"].clone();
    assert_eq!(of_team["team_id"], team);
    assert_eq!(api.get("/policies").await.ok()["count"], 1);
    assert_eq!(api.get("/policies/count").await.ok()["count"], 1);
    let path = format!("/global/policies/{}", made["id"]);
    let changed = api.patch(&path, json!({"resolution": "ask IT", "platform": ""})).await.ok()["policy"].clone();
    assert_eq!((&changed["resolution"], &changed["platform"]), (&json!("ask IT"), &json!("")));
    assert_eq!(api.get(&path).await.ok()["policy"], changed);
    let query = api.post("/queries", json!({"name": "q", "query": "SELECT 7"})).await.ok();
    let legacy = api.post("/policies", json!({"query_id": query["query"]["id"]})).await.ok();
    assert_eq!((&legacy["policy"]["name"], &legacy["policy"]["query"]), (&json!("q"), &json!("SELECT 7")));
    assert_eq!(
        api.post("/policies", json!({"name": "x", "query": "x", "platform": "linus"})).await.refused(422).0,
        "platform"
    );
    api.get(&format!("/hosts?policy_id={}", made["id"])).await.ok();
    api.get(&format!("/teams/{team}/policies/{}", made["id"])).await.refused(404);
    let deleted = json!({"ids": [of_team["id"]]});
    assert_eq!(
        api.post(&format!("/teams/{team}/policies/delete"), deleted.clone()).await.ok()["deleted"],
        deleted["ids"]
    );
    api.post("/policies/delete", json!({"ids": [made["id"]]})).await.ok();
    api.get(&path).await.refused(404);
}

#[tokio::test]
async fn a_body_with_unknown_members_changes_nothing() {
    let api = Api::new().await;
    let team = api.team("lab").await;
    let sql = |member: &str| json!({"name": "x", "query": "SELECT 1", member: "windows"});
    let scheduled = |member: &str| json!([{"query": "q", "interval": 60, member: true}]);
    let pack = |member: &str| json!({"name": "x", "targets": {"labels": ["All Hosts"]}, "queries": scheduled(member)});
    for (path, body, name) in [
        ("/global/policies", sql("platfrom"), "platfrom"),
        ("/global/policies", json!({"name": "x", "query": "SELECT 1", "team_id": team}), "team_id"),
        ("/global/policies", json!({"name": "x", "query": "SELECT 1", "team": "lab"}), "team_id"),
        ("/labels", sql("plattform"), "plattform"),
        ("/queries", sql("teamid"), "teamid"),
        ("/queries", sql("team"), "team"),
        ("/queries/run", json!({"query": "SELECT 1", "selected": {"host": [1]}}), "host"),
        ("/queries/run", json!({"query": "SELECT 1", "selected": {}, "timeout": 5}), "timeout"),
        ("/packs", json!({"name": "x", "labels": ["All Hosts"]}), "labels"),
        ("/packs", json!({"name": "x", "label_id": [1]}), "label_id"),
        ("/teams", json!({"name": "x", "secret": "s"}), "secret"),
        ("/policies/delete", json!({"ids": [], "all": true}), "all"),
        ("/spec/policies", json!({"specs": [sql("platfrom")]}), "platfrom"),
        ("/spec/policies", json!({"specs": [{"name": "x", "query": "SELECT 1", "team_id": team}]}), "team_id"),
        ("/spec/queries", json!({"specs": [{"name": "x", "query": "SELECT 1", "team_id": team}]}), "team_id"),
        ("/spec/labels", json!({"specs": [{"name": "x", "query": "SELECT 1", "team_id": team}]}), "team_id"),
        ("/spec/queries", json!({"specs": [], "dryRun": true}), "dryRun"),
        ("/spec/labels", json!({"specs": [sql("plattform")]}), "plattform"),
        ("/spec/packs", json!({"specs": [pack("snapshots")]}), "snapshots"),
        ("/spec/teams", json!({"specs": [{"name": "x", "secret": []}]}), "secret"),
        ("/spec/enroll_secret", json!({"spec": {"secrets": [], "team": "lab"}}), "team"),
    ] {
        assert_eq!(api.post(path, body).await.refused(422).0, name, "{path}");
    }
    for (path, count) in [("policies", 0), ("queries", 0), ("packs", 0), ("teams", 1)] {
        assert_eq!(api.get(&format!("/{path}")).await.ok()[path].as_array().unwrap().len(), count, "{path}");
    }
    assert_eq!(api.patch(&format!("/teams/{team}"), json!({"nme": "x"})).await.refused(422).0, "nme");
    for body in [json!([]), json!("x"), json!(7)] {
        assert_eq!(api.post("/labels", body).await.refused(400).1, "expected a JSON object");
    }
}

#[tokio::test]
async fn a_response_can_be_sent_back() {
    let api = Api::new().await;
    let team = api.team("lab").await;
    let body = json!({"name": "x", "query": "SELECT 1"});
    for (path, object) in [("/labels", "label"), ("/queries", "query"), ("/policies", "policy")] {
        let made = api.post(path, body.clone()).await.ok()[object].clone();
        let path = format!("{path}/{}", made["id"]);
        assert_eq!(api.patch(&path, made.clone()).await.ok()[object]["id"], made["id"], "{path}");
    }
    let all = column(&api.get("/labels").await.ok()["labels"], "id")[0].clone();
    let pack = api.post("/packs", json!({"name": "x", "label_ids": [all]})).await.ok()["pack"].clone();
    api.patch(&format!("/packs/{}", pack["id"]), pack.clone()).await.ok();
    let team = api.get(&format!("/teams/{team}")).await.ok()["team"].clone();
    api.patch(&format!("/teams/{}", team["id"]), team.clone()).await.ok();
    for path in ["/spec/labels", "/spec/queries", "/spec/packs"] {
        let specs = api.get(path).await.ok();
        api.post(path, json!({"specs": specs["specs"]})).await.ok();
    }
}

#[tokio::test]
async fn hosts_are_filtered_by_software_and_list_it() {
    let api = Api::new().await;
    let host = api.host("m-1", |_| {}).await;
    api.host("m-2", |_| {}).await;
    let entry = api.fleet.entry(&agent_id("m-1")).await.unwrap();
    let rows = json!({"fleet_detail_query_software_deb_packages": [
        {"name": "openssl", "version": "3.0.2"}, {"name": "bash", "version": "5.2"},
    ]});
    let statuses = json!({"fleet_detail_query_software_deb_packages": 0});
    api.fleet.software().reported(&entry, &rows.to_string(), &statuses.to_string()).await.unwrap();
    api.fleet.software().index().await.unwrap();
    let list = api.get("/software/versions?query=openssl").await.ok();
    assert_eq!((&list["count"], &list["software"][0]["hosts_count"]), (&json!(1), &json!(1)), "{list}");
    let id = list["software"][0]["id"].as_u64().unwrap();
    assert!(id < 1 << 52 && numbers::ids_of_software(id).any(|id: SoftwareId| id.number() > 0));
    assert_eq!(api.get(&format!("/software/versions/{id}")).await.ok()["software"]["version"], "3.0.2");
    assert_eq!(api.get("/software/count").await.ok()["count"], 2);
    assert_eq!(column(&api.get(&format!("/hosts?software_version_id={id}")).await.ok()["hosts"], "id"), [host]);
    let shown = api.get(&format!("/hosts/{host}")).await.ok()["host"].clone();
    assert_eq!(column(&shown["software"], "name"), ["bash", "openssl"]);
    let page = api.get("/hosts?populate_software=true&per_page=10").await.ok();
    assert!(page["hosts"].as_array().unwrap().iter().any(|host| host["software"] == shown["software"]));
    api.get("/software/versions/7").await.refused(404);
}

#[tokio::test]
async fn a_page_of_hosts_with_software_is_sent_host_by_host() {
    let api = Api::new().await;
    let rows: Vec<Value> =
        (0..600).map(|number| json!({"name": format!("package-{number}"), "version": "1"})).collect();
    for machine in ["m-1", "m-2", "m-3"] {
        api.host(machine, |_| {}).await;
        let entry = api.fleet.entry(&agent_id(machine)).await.unwrap();
        let rows = json!({"fleet_detail_query_software_deb_packages": rows});
        api.fleet.software().reported(&entry, &rows.to_string(), "null").await.unwrap();
    }
    let pieces = api.pieces("/hosts?populate_software=true&per_page=10").await;
    assert!(pieces.len() >= 3, "{} pieces", pieces.len());
    let body: Value = serde_json::from_slice(&pieces.concat()).unwrap();
    assert_eq!((body["hosts"].as_array().unwrap().len(), &body["count"]), (3, &json!(3)));
    for host in body["hosts"].as_array().unwrap() {
        assert_eq!((host["software"].as_array().unwrap().len(), &host["status"]), (600, &json!("online")));
    }
    let same = api.get("/hosts?populate_software=without_vulnerability_details&per_page=10").await.ok();
    assert_eq!(same["hosts"], body["hosts"]);
    api.get("/hosts?populate_software=some&per_page=10").await.refused(400);
    let none = api.get("/hosts?populate_software=true&per_page=10&query=nobody").await.ok();
    assert_eq!(none["hosts"], json!([]));
}

#[tokio::test]
async fn observers_run_only_the_queries_that_they_may_run() {
    let api = Api::new().await;
    let host = api.host("m-1", |_| {}).await;
    let made = async |name: &str, body: Value| {
        let mut body = body;
        (body["name"], body["query"]) = (json!(name), json!("SELECT 1"));
        api.post("/queries", body).await.ok()["query"].clone()
    };
    let (usual, open) = (made("usual", json!({})).await, made("open", json!({"observer_can_run": true})).await);
    assert_eq!((&usual["observer_can_run"], &open["observer_can_run"]), (&json!(false), &json!(true)));
    api.muster("/roles", json!({"name": "observer", "privileges": ["queries.run_saved", "agents.read"]})).await;
    let observer = api.user("olga", "observer", None).await;
    let run = async |query: &Value| {
        let body = json!({"query_id": query["id"], "selected": {"hosts": [host]}});
        api.with(&observer, axum::http::Method::POST, "/queries/run", body).await.status.as_u16()
    };
    assert_eq!([run(&usual).await, run(&open).await], [403, 200]);
    let path = |query: &Value| format!("/queries/{}", query["id"]);
    let kept = api.patch(&path(&open), json!({"description": "x"})).await.ok();
    assert_eq!(kept["query"]["observer_can_run"], true);
    api.patch(&path(&open), json!({"observer_can_run": false})).await.ok();
    api.post("/spec/queries", json!({"specs": [{"name": "usual", "query": "SELECT 1", "observer_can_run": true}]}))
        .await
        .ok();
    assert_eq!([run(&usual).await, run(&open).await], [200, 403]);
}

#[tokio::test]
async fn a_team_is_deleted_with_its_secrets_or_keeps_them() {
    let api = Api::new().await;
    let team = api.team("blue").await;
    let path = format!("/teams/{team}");
    let secrets = async || api.get(&format!("{path}/secrets")).await.ok()["secrets"].clone();
    let before = secrets().await;
    // A host check, which the deletion of a space refuses.
    let check = api.post(&format!("{path}/policies"), json!({"name": "p", "query": "SELECT 1"})).await.ok();
    api.delete(&path).await.refused(409);
    assert_eq!(secrets().await, before);
    api.post(&format!("{path}/policies/delete"), json!({"ids": [check["policy"]["id"]]})).await.ok();
    api.delete(&format!("{path}?dry_run=true")).await.ok();
    assert_eq!(secrets().await, before);
    api.delete(&path).await.ok();
    api.get(&path).await.refused(404);
    assert!(api.audit().await.contains(&"enrollment_key.delete".to_owned()));
}

#[tokio::test]
async fn a_new_team_has_an_enroll_secret() {
    let api = Api::new().await;
    let secrets =
        async |team: &Value| column(&api.get(&format!("/teams/{team}/secrets")).await.ok()["secrets"], "secret");
    let made = api.post("/teams", json!({"name": "blue"})).await.ok();
    let generated = secrets(&made["team"]["id"]).await;
    assert!(generated.len() == 1 && generated[0].as_str().unwrap().len() >= 32, "{generated:?}");
    let own = json!({"name": "red", "secrets": [{"secret": "r".repeat(32)}]});
    let made = api.post("/teams", own).await.ok();
    assert_eq!(secrets(&made["team"]["id"]).await, [json!("r".repeat(32))]);
    // The secret of another team: nothing is created, so that the request can be repeated.
    let taken = json!({"name": "taken", "secrets": [{"secret": "r".repeat(32)}]});
    api.post("/teams", taken.clone()).await.refused(409);
    api.post("/teams", taken).await.refused(409);
    assert_eq!(api.get("/teams?query=taken").await.ok()["count"], 0);
    let spec = |name: &str| json!({"specs": [{"name": name}]});
    let made = api.post("/spec/teams", spec("green")).await.ok()["team_ids_by_name"]["green"].clone();
    let generated = secrets(&made).await;
    assert_eq!(generated.len(), 1);
    api.post("/spec/teams", spec("green")).await.ok();
    assert_eq!(secrets(&made).await, generated, "once");
    let tried = api.post("/teams?dry_run=true", json!({"name": "tried"})).await.ok();
    assert_eq!(tried["team"]["name"], "tried");
    let manager = api.user("mia", "administrator", Some("blue")).await;
    api.with(&manager, axum::http::Method::POST, "/teams", json!({"name": "x"})).await.refused(403);
}

#[tokio::test]
async fn names_that_fleetdm_has_for_no_team_are_no_teams() {
    let api = Api::new().await;
    let team = api.team("blue").await;
    for reserved in ["No team", "no TEAM", "Unassigned", "All teams", " All teams"] {
        assert_eq!(api.post("/teams", json!({"name": reserved})).await.refused(422).0, "name");
        assert_eq!(api.patch(&format!("/teams/{team}"), json!({"name": reserved})).await.refused(422).0, "name");
        assert_eq!(api.post("/spec/teams", json!({"specs": [{"name": reserved}]})).await.refused(422).0, "name");
    }
    for (name, team) in [("a", "No team"), ("b", "Unassigned"), ("c", "")] {
        api.post("/spec/policies", json!({"specs": [{"name": name, "query": "SELECT 1", "team": team}]})).await.ok();
    }
    assert_eq!(column(&api.get("/policies").await.ok()["policies"], "name"), ["a", "b", "c"]);
}

#[tokio::test]
async fn what_a_team_cannot_have_is_refused() {
    let api = Api::new().await;
    let team = api.team("blue").await;
    for (member, value) in [
        ("mdm", json!({"macos_updates": {"minimum_version": "14"}})),
        ("host_expiry_settings", json!({"host_expiry_enabled": true, "host_expiry_window": 30})),
        ("webhook_settings", json!({"host_status_webhook": {"enable_host_status_webhook": true}})),
        ("features", json!({"enable_software_inventory": false})),
        ("features", json!({"additional_queries": {"x": "SELECT 1"}})),
    ] {
        let with = |name: &str| json!({"name": name, member: value});
        assert_eq!(api.post("/spec/teams", json!({"specs": [with("t")]})).await.refused(422).0, member);
        assert_eq!(api.post("/teams", with("t")).await.refused(422).0, member);
        assert_eq!(api.patch(&format!("/teams/{team}"), with("blue")).await.refused(422).0, member);
    }
    assert_eq!(api.get("/teams").await.ok()["count"], 1);
    // What `fleetctl get teams` prints of a team for which nothing was set.
    let plain = json!({"name": "plain", "mdm": {"enable_disk_encryption": false, "macos_updates": {"deadline": null}},
        "features": {"enable_host_users": true, "enable_software_inventory": true, "additional_queries": null},
        "host_expiry_settings": {"host_expiry_enabled": false, "host_expiry_window": 0}});
    api.post("/spec/teams", json!({"specs": [plain]})).await.ok();
}

#[tokio::test]
async fn teams_are_spaces() {
    let api = Api::new().await;
    let team = api.team("Laptops (EU)").await;
    let path = format!("/teams/{team}");
    assert_eq!(api.get("/fleets").await.ok()["fleets"][0]["name"], "Laptops (EU)");
    api.post("/teams", json!({"name": "laptops eu"})).await.refused(409);
    let changed = api.patch(&path, json!({"name": "Laptops"})).await.ok()["team"].clone();
    assert_eq!(
        (&changed["id"], &changed["name"], &changed["host_count"]),
        (&json!(team), &json!("Laptops"), &json!(0))
    );
    assert_eq!(api.get("/teams?query=lap&per_page=1").await.ok()["count"], 1);
    api.delete(&path).await.ok();
    api.get(&path).await.refused(404);
    api.get("/teams/0").await.ok();
}

#[tokio::test]
async fn enroll_secrets_are_replaced_and_left_out_ones_revoked() {
    let api = Api::new().await;
    let (one, two) = ("x".repeat(32), "y".repeat(32));
    let set = |secrets: &[&String]| {
        let secrets: Vec<Value> = secrets.iter().map(|secret| json!({"secret": secret})).collect();
        json!({"spec": {"secrets": secrets}})
    };
    let shown = async || column(&api.get("/spec/enroll_secret").await.ok()["spec"]["secrets"], "secret");
    api.post("/spec/enroll_secret", set(&[&one, &two])).await.ok();
    assert_eq!(shown().await, [json!(one), json!(two)]);
    api.post("/spec/enroll_secret", set(&[&two])).await.ok();
    assert_eq!(shown().await, [json!(two)]);
    api.post("/spec/enroll_secret", set(&[&one])).await.ok();
    assert_eq!(shown().await, [json!(one)], "a revoked secret can be listed again");
    api.post("/spec/enroll_secret", set(&[&two])).await.ok();
    let three = "z".repeat(32);
    let foreign = "f".repeat(32);
    let red = api.team("red").await;
    let path = format!("/teams/{red}/secrets");
    api.patch(&path, json!({"secrets": [{"secret": foreign}]})).await.ok();
    api.patch(&path, json!({"secrets": []})).await.ok();
    api.post("/spec/enroll_secret", set(&[&three, &foreign])).await.refused(409);
    api.post("/spec/enroll_secret", set(&[&three, &three])).await.refused(422);
    assert_eq!(shown().await, [json!(two)], "all or none");
    api.post("/spec/enroll_secret", set(&[&"short".to_owned()])).await.refused(422);
    let many: Vec<String> = (0..51).map(|number| format!("secret-number-{number:020}")).collect();
    api.post("/spec/enroll_secret", set(&many.iter().collect::<Vec<_>>())).await.refused(422);
    // As many as there can be, instead of one: the one that goes makes room.
    api.post("/spec/enroll_secret", set(&many[1..].iter().collect::<Vec<_>>())).await.ok();
    assert_eq!(shown().await.len(), 50);
    let team = api.team("blue").await;
    let path = format!("/teams/{team}/secrets");
    let set = api.patch(&path, json!({"secrets": [{"secret": "z".repeat(32)}]})).await.ok();
    assert_eq!(
        (&set["secrets"][0]["team_id"], column(&set["secrets"], "secret")),
        (&json!(team), vec![json!("z".repeat(32))])
    );
    assert_eq!(api.get(&path).await.ok()["secrets"], set["secrets"]);
    let audit = api.audit().await;
    for action in ["enrollment_key.create", "enrollment_key.revoke", "enrollment_key.reveal"] {
        assert!(audit.iter().any(|found| found == action), "{action}");
    }
}

#[tokio::test]
async fn one_time_secrets_and_those_that_admit_nobody_are_not_listed() {
    let api = Api::new().await;
    let context = OpContext::administrator(Actor::System).in_space(SpaceId::default());
    let (grant, keys) = (context.grant().unwrap(), api.fleet.enrollment_keys());
    let new = NewEnrollmentKey { family: KeyFamily::Fleetd, retrievable: true, ..NewEnrollmentKey::default() };
    let for_one = NewEnrollmentKey { one_time: Some(OneTimeHost::default()), ..new.clone() };
    let (one_time, _) = keys.create(&context.grant().unwrap(), &for_one).await.unwrap();
    let short = NewEnrollmentKey { expiration: Some("1h".into()), ..new };
    let (_, expired) = keys.create(&grant, &short).await.unwrap();
    let listed = async || column(&api.get("/spec/enroll_secret").await.ok()["spec"]["secrets"], "secret");
    assert_eq!(listed().await, [json!(expired)]);
    api.clock.advance(Duration::from_secs(2 * 60 * 60));
    assert!(listed().await.is_empty());
    let set = |secret: &str| json!({"spec": {"secrets": [{"secret": secret}]}});
    let (name, reason) = api.post("/spec/enroll_secret", set(&expired)).await.refused(422);
    assert!(name == "secrets" && reason.contains("is expired") && !reason.contains(&expired), "{name}: {reason}");
    api.post("/spec/enroll_secret", set(&"x".repeat(32))).await.ok();
    assert_eq!(listed().await, [json!("x".repeat(32))]);
    let kept = keys.find::<muster_core::authorization::EnrollmentRead>(&context, one_time.id.as_str()).await.unwrap();
    assert_eq!(kept.revoked_at, None, "a host is about to use it");
}

#[tokio::test]
async fn the_team_of_a_spec_is_an_id_or_a_name_that_only_one_team_has() {
    let api = Api::new().await;
    let (blue, red) = (api.team("blue").await, api.team("red").await);
    api.patch(&format!("/teams/{red}"), json!({"name": "blue"})).await.refused(409);
    api.rename("red", "blue").await;
    let apply = async |team: &str| {
        api.post("/spec/policies", json!({"specs": [{"name": team, "query": "SELECT 1", "team": team}]})).await
    };
    apply("blue").await.ok();
    apply("red").await.ok();
    let names = async |team: u64| column(&api.get(&format!("/teams/{team}/policies")).await.ok()["policies"], "name");
    assert_eq!((names(blue).await, names(red).await), (vec![json!("blue")], vec![json!("red")]));
    for space in ["blue", "red"] {
        api.rename(space, "same").await;
    }
    assert_eq!(apply("same").await.refused(422).0, "team");
    let spec = json!({"specs": [{"name": "same", "secrets": [{"secret": "x".repeat(32)}]}]});
    assert_eq!(api.post("/spec/teams", spec).await.refused(422).0, "team");
}

#[tokio::test]
async fn members_that_would_narrow_an_object_and_are_not_supported_are_rejected() {
    let api = Api::new().await;
    for (path, body) in [
        ("/global/policies", json!({"name": "p", "query": "SELECT 1", "labels_exclude_any": ["x"]})),
        ("/global/policies", json!({"name": "p", "query": "SELECT 1", "script_id": 7})),
        ("/queries", json!({"name": "q", "query": "SELECT 1", "labels_include_any": ["x"]})),
        ("/labels", json!({"name": "l", "criteria": {"vital": "x"}})),
    ] {
        api.post(path, body).await.refused(422);
    }
    // What says nothing, as `fleetctl` sends it.
    let empty = json!({"name": "p", "query": "SELECT 1", "labels_exclude_any": [], "calendar_events_enabled": false});
    api.post("/global/policies", empty).await.ok();
    api.post("/queries", json!({"name": "q", "query": "SELECT 1", "platform": "linux", "automations_enabled": false}))
        .await
        .ok();
}
