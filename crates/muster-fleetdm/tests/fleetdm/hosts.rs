//! Hosts and labels.

use std::time::Duration;

use muster_core::agent::{AgentDocuments, AgentRecord, Family};
use muster_core::id::HostId;
use muster_core::status::Status;
use muster_core::testing::online_agent;
use serde_json::{Value, json};

use crate::setting::{Api, agent_id, column, in_space};

#[tokio::test]
async fn hosts_are_listed_in_pages_over_all_teams() {
    let api = Api::new().await;
    let team = api.team("Blue Team").await;
    let mut ids = Vec::new();
    for (machine, space) in [("m-1", "default"), ("m-2", "default"), ("m-3", "blue-team")] {
        ids.push(json!(api.host(machine, in_space(space)).await));
    }
    let all = api.get("/hosts?order_key=hostname").await.ok();
    assert_eq!((column(&all["hosts"], "id"), &all["count"]), (ids.clone(), &json!(3)));
    assert_eq!(column(&all["hosts"], "team_name"), [Value::Null, Value::Null, json!("Blue Team")]);
    let page = api.get("/hosts?order_key=hostname&page=1&per_page=1").await.ok();
    assert_eq!(column(&page["hosts"], "id"), ids[1..2]);
    assert_eq!(page["meta"], json!({"has_next_results": true, "has_previous_results": true}));
    let page = api.get("/hosts?order_key=hostname&page=1&per_page=2").await.ok();
    assert_eq!((column(&page["hosts"], "id"), &page["meta"]["has_next_results"]), (ids[2..].to_vec(), &json!(false)));
    let of_team = api.get(&format!("/hosts?fleet_id={team}")).await.ok();
    assert_eq!(column(&of_team["hosts"], "id"), ids[2..]);
    assert_eq!(api.get("/hosts?team_id=0").await.ok()["count"], 2);
    let reversed = api.get("/hosts?team_id=0&order_key=hostname&order_direction=desc").await.ok();
    assert_eq!(column(&reversed["hosts"], "hostname"), ["m-2.example", "m-1.example"]);
}

#[tokio::test]
async fn hosts_are_counted_and_filtered_by_status() {
    let api = Api::new().await;
    api.host("m-1", |_| {}).await;
    let gone = |record: &mut AgentRecord| {
        record.last_checkin = Some(record.enrolled_at.minus(Duration::from_secs(40 * 86_400)));
        record.enrolled_at = record.enrolled_at.minus(Duration::from_secs(50 * 86_400));
    };
    let gone = api.host("m-2", gone).await;
    for (status, expected) in [("online", 1), ("offline", 1), ("new", 1), ("missing", 1), ("mia", 1)] {
        let found = api.get(&format!("/hosts/count?status={status}")).await.ok();
        assert_eq!(found["count"], expected, "{status}");
    }
    let missing = api.get("/hosts?status=missing").await.ok();
    assert_eq!((&missing["hosts"][0]["id"], &missing["hosts"][0]["status"]), (&json!(gone), &json!("offline")));
    assert_eq!(api.get("/hosts?query=M-1").await.ok()["count"], 1);
    for filter in ["os_name=Windows", "low_disk_space=32", "mdm_id=1", "vulnerability=CVE-2024-1"] {
        api.get(&format!("/hosts?{filter}")).await.refused(422);
        api.get(&format!("/hosts/count?{filter}")).await.refused(422);
    }
    let summary = api.get("/host_summary").await.ok();
    let numbers = ["totals_hosts_count", "online_count", "offline_count", "mia_count", "new_count", "all_linux_count"];
    assert_eq!(numbers.map(|name| summary[name].as_u64().unwrap()), [2, 1, 1, 1, 1, 2]);
    assert_eq!(summary["platforms"], json!([{"platform": "linux", "hosts_count": 2}]));
}

#[tokio::test]
async fn a_host_is_found_by_id_name_and_uuid_and_keeps_its_id() {
    let api = Api::new().await;
    let uuid = "4C4C4544-0042-3510-8052-B7C04F584432";
    let id = api.host(uuid, |record| record.hostname = "web-7".into()).await;
    for path in [format!("/hosts/{id}"), "/hosts/identifier/web-7".into(), format!("/hosts/identifier/{uuid}")] {
        let host = api.get(&path).await.ok()["host"].clone();
        assert_eq!((&host["id"], &host["uuid"], &host["hostname"]), (&json!(id), &json!(uuid), &json!("web-7")));
        assert_eq!((&host["orbit_version"], &host["memory"]), (&json!("1.40.0"), &json!(2_084_032_512_i64)));
        assert_eq!(host["labels"][0]["name"], "All Hosts");
    }
    api.host("m-2", |record| record.hostname = uuid.into()).await;
    assert_eq!(
        api.get(&format!("/hosts/identifier/{uuid}")).await.ok()["host"]["id"],
        id,
        "not the one with this name"
    );
    let found = api.get(&format!("/hosts?query={uuid}")).await.ok();
    assert!(column(&found["hosts"], "id").contains(&json!(id)), "{found}");
    for missing in ["/hosts/report", "/hosts/abc", "/labels/x/hosts"] {
        api.get(missing).await.refused(404);
    }
    assert_eq!(api.get(&format!("/hosts/{id}/software")).await.ok()["software"], json!([]));
    api.post(&format!("/hosts/{id}/refetch"), Value::Null).await.ok();
    api.delete(&format!("/hosts/{id}")).await.ok();
    api.get(&format!("/hosts/{id}")).await.refused(404);
    assert_eq!(api.audit().await.into_iter().rev().take(2).collect::<Vec<_>>(), ["agent.delete", "host.refetch"]);
    assert_eq!(api.host(uuid, |_| {}).await, id);
}

#[tokio::test]
async fn hosts_are_found_by_serial_number_and_searched_by_what_people_see() {
    let api = Api::new().await;
    let described = |record: &mut AgentRecord, serial: &str| {
        record.hardware = format!("4c4c4544-0042-3510-8052-b7c04f584432\n{serial}").into();
        record.os = "ubuntu\ndebian\nUbuntu\n24.04\nx86_64".into();
    };
    let one = api.host("m-1", |record| described(record, "5jx82")).await;
    let other = api.host("m-2", |record| described(record, "other")).await;
    assert_eq!(api.get("/hosts/identifier/5JX82").await.ok()["host"]["id"], one);
    let searched = async |words: &str| column(&api.get(&format!("/hosts?query={words}")).await.ok()["hosts"], "id");
    assert_eq!(searched("5JX82").await, [json!(one)]);
    assert_eq!(searched("M-2.EX").await, [json!(other)]);
    assert_eq!(searched("4c4c4544-0042-3510-8052-b7c04f584432").await, [json!(one), json!(other)]);
    // Neither a part of an id, nor a platform, nor a wildcard.
    let id = muster_core::host::agent_id(Family::Osquery, "m-1");
    for words in [&id.as_str()[1..7], "ubun", "4c4c", "5jx8", "*", "m*1", "%25", "x86"] {
        assert_eq!(searched(words).await, Vec::<Value>::new(), "{words}");
        let filters = json!({"filters": {"query": words.replace("%25", "%")}});
        assert_eq!(api.post("/hosts/delete?dry_run=true", filters).await.ok(), json!({"count": 0}), "{words}");
    }
    // Hosts choose what they report: whoever acts on one of several must name it.
    api.host("m-3", |record| record.hostname = "5jx82".into()).await;
    api.get("/hosts/identifier/5jx82").await.ok();
    api.post("/hosts/identifier/5jx82/query", json!({"query": "SELECT 1"})).await.refused(409);
    let run = json!({"query": "SELECT 1", "selected": {"labels": [], "hosts": ["m-2.example", "5jx82"]}});
    api.post("/reports/run_by_identifiers", run).await.refused(409);
    for filter in ["policy_response=failing", "order_direction=sideways&order_key=hostname", "order_direction=sideways"]
    {
        api.get(&format!("/hosts?{filter}")).await.refused(422);
    }
    api.get("/host_summary?low_disk_space=5").await.refused(422);
}

#[tokio::test]
async fn hosts_are_deleted_by_ids_or_filters_and_never_all_by_accident() {
    let api = Api::new().await;
    let mut ids = Vec::new();
    for machine in ["m-1", "m-2", "m-3"] {
        ids.push(api.host(machine, |_| {}).await);
    }
    for bad in [json!({}), json!({"ids": []}), json!({"filters": {}}), json!({"ids": [1], "filters": {"query": "x"}})] {
        api.post("/hosts/delete", bad).await.refused(422);
    }
    api.post("/hosts/delete", json!({"ids": [ids[0], 7]})).await.refused(404);
    for filters in [
        json!({"query": "m-1", "os_name": "Windows"}),
        json!({"team_id": 0, "qurey": "zzz"}),
        json!([]),
        json!({"label_id": "1"}),
    ] {
        api.post("/hosts/delete", json!({"filters": filters})).await.refused(422);
        api.post("/hosts/transfer/filter", json!({"team_id": 0, "filters": filters})).await.refused(422);
    }
    let tried = api.post("/hosts/delete?dry_run=true", json!({"filters": {"team_id": 0}})).await.ok();
    assert_eq!(tried, json!({"count": 3}));
    assert_eq!(api.get("/hosts/count").await.ok()["count"], 3, "nothing was deleted");
    api.post("/hosts/delete", json!({"ids": [ids[0]]})).await.ok();
    api.post("/hosts/delete", json!({"filters": {"query": "m-2"}})).await.ok();
    assert_eq!(column(&api.get("/hosts").await.ok()["hosts"], "id"), [ids[2]]);
}

#[tokio::test]
async fn a_dry_run_that_is_misspelled_changes_nothing() {
    let api = Api::new().await;
    let host = api.host("m-1", |_| {}).await;
    for query in ["dryRun=true", "dry_run", "dry_run=", "DRY_RUN=true", "dry_run=false&dry_run=true", "filter=x"] {
        api.post(&format!("/hosts/delete?{query}"), json!({"ids": [host]})).await.refused(422);
        api.delete(&format!("/hosts/{host}?{query}")).await.refused(422);
    }
    api.post("/hosts/delete?dry_run=yes", json!({"ids": [host]})).await.refused(400);
    assert_eq!(api.get("/hosts/count?dryRun=true").await.ok()["count"], 1, "a read ignores what it does not know");
}

#[tokio::test]
async fn a_host_is_being_refetched_until_it_reports() {
    let api = Api::new().await;
    let host = api.host("m-1", |_| {}).await;
    let path = format!("/hosts/{host}");
    let refetching = async || api.get(&path).await.ok()["host"]["refetch_requested"].clone();
    let entry = api.fleet.entry(&agent_id("m-1")).await.unwrap();
    entry.remember_facts(api.now());
    assert_eq!(refetching().await, false);
    api.post(&format!("{path}/refetch"), Value::Null).await.ok();
    assert_eq!(refetching().await, true);
    assert_eq!(api.get("/hosts").await.ok()["hosts"][0]["refetch_requested"], true);
    entry.remember_facts(api.now());
    assert_eq!(refetching().await, false);
    let hardware = api.get(&path).await.ok()["host"].clone();
    assert_eq!((&hardware["cpu_physical_cores"], &hardware["cpu_logical_cores"]), (&json!(4), &json!(8)));
    assert_eq!((&hardware["code_name"], &hardware["hardware_version"]), (&json!("noble"), &json!("A00")));
}

#[tokio::test]
async fn hosts_are_transferred_by_ids_or_filters_and_keep_their_numbers() {
    let api = Api::new().await;
    let team = api.team("blue").await;
    let mut ids = Vec::new();
    for machine in ["m-1", "m-2", "m-3"] {
        ids.push(api.host(machine, |_| {}).await);
    }
    let of_team = async |team: u64| column(&api.get(&format!("/hosts?team_id={team}")).await.ok()["hosts"], "id");
    api.post("/hosts/transfer", json!({"team_id": team, "hosts": [ids[0], 7]})).await.refused(404);
    api.post("/hosts/transfer/filter", json!({"team_id": team, "filters": {}})).await.refused(422);
    api.post("/hosts/transfer", json!({"team_id": 7, "hosts": [ids[0]]})).await.refused(404);
    assert_eq!(of_team(team).await, [] as [u64; 0], "nothing was moved");
    assert_eq!(api.post("/hosts/transfer", json!({"team_id": team, "hosts": [ids[0]]})).await.ok(), json!({}));
    api.post("/hosts/transfer/filter", json!({"fleet_id": team, "filters": {"query": "m-2"}})).await.ok();
    assert_eq!(of_team(team).await, [ids[0], ids[1]]);
    let moved = api.get(&format!("/hosts/{}", ids[0])).await.ok()["host"].clone();
    assert_eq!((&moved["team_id"], &moved["team_name"]), (&json!(team), &json!("blue")));
    // Those that are there already stay, and no team is the default space.
    api.post("/hosts/transfer", json!({"team_id": null, "hosts": [ids[0], ids[2]]})).await.ok();
    assert_eq!((of_team(0).await.len(), of_team(team).await), (2, vec![json!(ids[1])]));
    let moves = api.audit().await.into_iter().filter(|action| action == "host.transfer").count();
    assert_eq!(moves, 6, "one in either space");
}

#[tokio::test]
async fn a_transfer_without_a_team_or_with_unknown_members_moves_no_host() {
    let api = Api::new().await;
    let (host, team) = (api.host("m-1", |_| {}).await, api.team("lab").await);
    api.post("/hosts/transfer", json!({"team_id": team, "hosts": [host]})).await.ok();
    for (body, name) in [
        (json!({"teamid": team, "hosts": [host]}), "teamid"),
        (json!({"team": "lab", "hosts": [host]}), "team"),
        (json!({"team_id": 0, "hosts": [host], "dry_run": true}), "dry_run"),
    ] {
        assert_eq!(api.post("/hosts/transfer", body).await.refused(422), (name.to_owned(), "unknown field".to_owned()));
    }
    assert!(api.post("/hosts/transfer", json!({"hosts": [host]})).await.refused(400).1.contains("team_id"));
    api.post("/hosts/transfer/filter", json!({"filters": {"query": "m-1"}})).await.refused(400);
    let filter = json!({"filters": {"query": "m-1"}, "team": 0});
    assert_eq!(api.post("/hosts/transfer/filter", filter).await.refused(422).0, "team");
    assert_eq!(api.post("/hosts/delete", json!({"ids": [host], "filter": {}})).await.refused(422).0, "filter");
    assert_eq!(column(&api.get(&format!("/hosts?team_id={team}")).await.ok()["hosts"], "id"), [host]);
    api.post("/hosts/transfer", json!({"fleet_id": 0, "hosts": [host]})).await.ok();
    assert_eq!(api.get(&format!("/hosts?team_id={team}")).await.ok()["hosts"], json!([]));
}

#[tokio::test]
async fn a_transfer_moves_no_host_if_one_cannot_move() {
    let api = Api::new().await;
    let team = api.team("blue").await;
    let ids = [api.host("m-1", |_| {}).await, api.host("m-2", |_| {}).await];
    let elastic = AgentRecord {
        host_id: Some(HostId::trusted("host-m-2")),
        hostname: "m-2.example".into(),
        ..online_agent("e", None, api.now())
    };
    api.add_agent(elastic, AgentDocuments::default()).await;
    let (name, reason) = api.post("/hosts/transfer", json!({"team_id": team, "hosts": ids})).await.refused(422);
    assert!(name == "hosts" && reason.contains("m-2.example cannot be transferred"), "{reason}");
    assert_eq!(api.get("/hosts/count?team_id=0").await.ok()["count"], 2);
}

#[tokio::test]
async fn a_list_of_names_is_one_query_and_a_name_of_several_hosts_is_rejected() {
    let api = Api::new().await;
    let named = |name: &'static str, minutes: i64| {
        let seen = api.now().plus(Duration::from_secs(60 * minutes.unsigned_abs()));
        move |record: &mut AgentRecord| (record.hostname, record.last_checkin) = (name.into(), Some(seen))
    };
    api.host("m-1", named("twin", 1)).await;
    api.host("m-2", named("twin", 5)).await;
    api.host("m-3", named("other", 1)).await;
    api.post("/labels", json!({"name": "wrong", "hosts": ["TWIN", "m-3"]})).await.refused(409);
    let seen_last = api.get("/hosts/identifier/twin").await.ok();
    assert_eq!(seen_last["host"]["uuid"], "m-2", "a host to read is one of them");
    let label = json!({"name": "chosen", "hosts": ["m-2", "OTHER"]});
    let made = api.post("/labels", label).await.ok()["label"].clone();
    let hosts = api.get(&format!("/labels/{}/hosts", made["id"])).await.ok()["hosts"].clone();
    let mut uuids = column(&hosts, "uuid");
    uuids.sort_by_key(ToString::to_string);
    assert_eq!(uuids, ["m-2", "m-3"]);
    api.post("/labels", json!({"name": "wrong", "hosts": ["other", "nobody"]})).await.refused(404);
}

#[tokio::test]
async fn labels_select_hosts() {
    let api = Api::new().await;
    let (first, second) = (api.host("m-1", |_| {}).await, api.host("m-2", |_| {}).await);
    let made = api.post("/labels", json!({"name": "Managers", "host_ids": [first]})).await.ok()["label"].clone();
    assert_eq!((&made["label_membership_type"], &made["host_count"]), (&json!("manual"), &json!(1)));
    let path = format!("/labels/{}", made["id"]);
    assert_eq!(column(&api.get(&format!("{path}/hosts")).await.ok()["hosts"], "id"), [first]);
    api.patch(&path, json!({"hosts": ["m-2.example"], "description": "who decides"})).await.ok();
    let of_label = format!("/hosts?label_id={}", made["id"]);
    assert_eq!(column(&api.get(&of_label).await.ok()["hosts"], "id"), [second]);
    let found = api.get(&path).await.ok()["label"].clone();
    assert_eq!((&found["description"], &found["count"]), (&json!("who decides"), &json!(1)));
    let names = column(&api.get("/labels").await.ok()["labels"], "name");
    assert!(names.contains(&json!("All Hosts")) && names.contains(&json!("Managers")));
    assert_eq!(api.get(&format!("/hosts/{second}")).await.ok()["host"]["labels"].as_array().unwrap().len(), 4);
    api.delete(&format!("/labels/id/{}", made["id"])).await.ok();
    api.get(&path).await.refused(404);
    api.post("/labels", json!({"name": "all hosts"})).await.refused(409);
}

#[tokio::test]
async fn a_host_that_is_not_online_is_offline() {
    let api = Api::new().await;
    let id = api.host("m-1", |_| {}).await;
    assert_eq!(api.get(&format!("/hosts/{id}")).await.ok()["host"]["status"], "online");
    let online: Vec<_> = Status::ALL.into_iter().filter(|status| status.as_str() == "online").collect();
    assert_eq!(online, [Status::Online]);
}

#[tokio::test]
async fn disks_the_last_boot_users_and_certificates_are_in_the_format_of_fleetdm() {
    let api = Api::new().await;
    let id = api.host("m-1", |_| {}).await;
    let other = api.host("m-2", |_| {}).await;
    let results = json!({
        "fleet_detail_query_uptime": [{"total_seconds": "60"}],
        "fleet_detail_query_disk_space_unix": [{"path": "/", "size": "500107862016", "free": "250000000000"}],
        "fleet_detail_query_users": [{"uid": "1000", "username": "ada", "groupname": "staff", "shell": "/bin/sh"}],
        "fleet_detail_query_certificates_linux": [
            {"sha1": "b", "common_name": "B", "issuer": "/O=Example/CN=Root"}, {"sha1": "a", "common_name": "A"}],
    });
    let statuses: Value = results.as_object().unwrap().keys().map(|name| (name.clone(), json!(0))).collect();
    let entry = api.fleet.entry(&agent_id("m-1")).await.unwrap();
    api.fleet.inventory().reported(&entry, &results.to_string(), &statuses.to_string()).await.unwrap();
    let listed = api.get("/hosts?order_key=hostname").await.ok()["hosts"].clone();
    let host = api.get(&format!("/hosts/{id}")).await.ok()["host"].clone();
    for host in [&listed[0], &host] {
        assert_eq!(
            (&host["gigs_disk_space_available"], &host["gigs_total_disk_space"]),
            (&json!(250.0), &json!(500.1))
        );
        assert_eq!(
            (&host["percent_disk_space_available"], &host["disk_encryption_enabled"]),
            (&json!(49), &Value::Null)
        );
        assert!(host["uptime"].as_u64().unwrap() >= 60_000_000_000 && host["last_restarted_at"].is_string());
    }
    assert_eq!((&listed[1]["gigs_total_disk_space"], &listed[1]["uptime"]), (&json!(0.0), &json!(0)));
    let ada = json!({"uid": 1000, "username": "ada", "type": "", "groupname": "staff", "shell": "/bin/sh"});
    assert_eq!(host["users"], json!([ada]));
    let found = api.get(&format!("/hosts/{id}/certificates?per_page=1&page=1")).await.ok();
    assert_eq!((column(&found["certificates"], "common_name"), &found["count"]), (vec![json!("B")], &json!(2)));
    assert_eq!(found["certificates"][0]["issuer"]["organization"], "Example");
    assert_eq!(api.get(&format!("/hosts/{other}/certificates")).await.ok()["certificates"], json!([]));
}
