//! Enrollment, and what a host is asked and reports.

use std::time::Duration;

use http::Method;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::fleetd::details::SCHEDULE;
use muster_core::id::{HostId, SpaceId};
use muster_core::status::Status;
use muster_fleet::host_views::HostView;
use muster_store::query::{AgentCondition, AgentFilter, HostRows, Page};
use serde_json::{Value, json};

use crate::setting::{Server, UUID, agent_id, details, orbit_enroll, osquery_enroll};

async fn host_of(server: &Server, family: Family, machine: &str) -> HostId {
    server.record(family, machine).await.expect("enrolled").host_id.expect("on a host")
}

#[tokio::test]
async fn m27_fl2_fl47_orbit_and_osqueryd_join_one_host_in_either_order() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let first = server.osquery_key(&secret, UUID).await;
    assert_eq!(first.len(), 32);
    server.orbit_key(&secret, &UUID.to_lowercase()).await;
    let host = host_of(&server, Family::Osquery, UUID).await;
    assert_eq!(host, host_of(&server, Family::Orbit, UUID).await);
    server.orbit_key(&secret, "other").await;
    server.osquery_key(&secret, "other").await;
    assert_eq!(host_of(&server, Family::Osquery, "other").await, host_of(&server, Family::Orbit, "other").await);
    let again = server.osquery_key(&secret, UUID).await;
    assert_ne!(first, again, "each enrollment has a key of its own");
    assert_eq!(host_of(&server, Family::Osquery, UUID).await, host);
    assert_eq!(server.osquery("config", &json!({"node_key": first})).await.status, 401, "replaced");
    assert_eq!(server.osquery("config", &json!({"node_key": again})).await.status, 200);
}

#[tokio::test]
async fn fl47_concurrent_enrollments_of_one_machine_make_one_host_with_two_agents() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (osquery, orbit) = (osquery_enroll(&secret, UUID), orbit_enroll(&secret, UUID));
    let all = tokio::join!(
        server.osquery("enroll", &osquery),
        server.orbit("enroll", &orbit),
        server.osquery("enroll", &osquery),
        server.orbit("enroll", &orbit),
    );
    assert_eq!([all.0.status, all.1.status, all.2.status, all.3.status], [200; 4]);
    assert_eq!(host_of(&server, Family::Osquery, UUID).await, host_of(&server, Family::Orbit, UUID).await);
}

#[tokio::test]
async fn m27_fl48_machines_with_one_uuid_are_told_apart_by_the_instance_id() {
    let server = Server::start().await;
    let secret = server.secret().await;
    for instance in ["i-1", "i-2"] {
        let mut body = orbit_enroll(&secret, UUID);
        body["osquery_identifier"] = json!(instance);
        assert_eq!(server.orbit("enroll", &body).await.status, 200);
        let mut body = osquery_enroll(&secret, UUID);
        body["host_identifier"] = json!(instance);
        assert_eq!(server.osquery("enroll", &body).await.status, 200);
    }
    let (one, other) = (host_of(&server, Family::Orbit, "i-1").await, host_of(&server, Family::Orbit, "i-2").await);
    assert_ne!(one, other);
    assert_eq!(one, host_of(&server, Family::Osquery, "i-1").await);
    assert!(server.record(Family::Orbit, UUID).await.is_none());
}

#[tokio::test]
async fn fl12_an_enrolled_host_has_a_name_a_platform_and_a_version() {
    let server = Server::start().await;
    let secret = server.secret().await;
    server.osquery_key(&secret, UUID).await;
    let record = server.record(Family::Osquery, UUID).await.unwrap();
    assert_eq!((record.hostname.as_str(), record.agent_version.as_str()), ("web-7", "5.21.0"));
    assert!(record.os.contains("ubuntu") && record.policy_id.is_none());
    assert_eq!(record.status, Status::Enrolling);
}

#[tokio::test]
async fn fl8_fl45_details_and_the_serial_number_may_be_absent_but_not_the_identifier() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let body =
        json!({"enroll_secret": secret, "host_identifier": "bare", "host_details": {"system_info": 5}, "new": []});
    assert_eq!(server.osquery("enroll", &body).await.status, 200);
    assert_eq!(server.orbit("enroll", &json!({"enroll_secret": secret, "hardware_uuid": "bare"})).await.status, 200);
    for uuid in ["", " ", &"x".repeat(300)] {
        let got = server.orbit("enroll", &json!({"enroll_secret": secret, "hardware_uuid": uuid})).await;
        assert_eq!(got.status, 400, "{got:?}");
        let got = server.osquery("enroll", &json!({"enroll_secret": secret, "host_identifier": uuid})).await;
        assert_eq!((got.status, &got.json()["node_invalid"]), (400, &json!(true)));
    }
}

#[tokio::test]
async fn orbit_is_not_enrolled_by_a_placeholder_that_many_machines_have() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let placeholder = "03000200-0400-0500-0006-000700080009";
    let mut body = json!({"enroll_secret": secret, "hardware_uuid": placeholder, "osquery_identifier": ""});
    let got = server.orbit("enroll", &body).await;
    assert!(got.status == 400 && got.json()["message"].to_string().contains("--host-identifier=instance"), "{got:?}");
    body["osquery_identifier"] = "c1f0c1f0-0000-4000-8000-000000000001".into();
    assert_eq!(server.orbit("enroll", &body).await.status, 200);
}

#[tokio::test]
async fn fl24_fl26_fl161_a_host_is_asked_for_its_details_until_it_reports_them_and_again_after_an_hour() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let read = async || {
        let read = server.osquery("distributed/read", &json!({"node_key": key})).await.json();
        let queries = read["queries"].as_object().unwrap();
        let discovery = read["discovery"].as_object().unwrap();
        assert_eq!(queries.keys().collect::<Vec<_>>(), discovery.keys().collect::<Vec<_>>());
        assert!(queries.values().chain(discovery.values()).all(|sql| sql.as_str().is_some_and(|sql| !sql.is_empty())));
        queries.len()
    };
    // Eight for facts, eight for software, ten for the inventory, and the one in place of host checks (FL29).
    assert_eq!((read().await, read().await), (27, 27));
    let got = server.osquery("distributed/write", &details(&key, "web-8")).await;
    assert_eq!((got.status, got.text.as_str()), (200, "{}"));
    assert_eq!(read().await, 0);
    let record = server.record(Family::Osquery, UUID).await.unwrap();
    assert_eq!((record.hostname.as_str(), record.agent_version.as_str()), ("web-8", "5.22.0"));
    server.clock.advance(Duration::from_secs(3600 + 360));
    assert_eq!(read().await, 27);
}

#[tokio::test]
async fn fl25_a_host_without_a_name_or_a_platform_asks_more_often() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let body = json!({"enroll_secret": secret, "host_identifier": "bare"});
    let key = server.osquery("enroll", &body).await.json()["node_key"].clone();
    let read = async || server.osquery("distributed/read", &json!({"node_key": key})).await.json();
    assert_eq!(read().await["accelerate"], json!(10));
    server.osquery("distributed/write", &details(key.as_str().unwrap(), "named")).await;
    assert!(read().await.get("accelerate").is_none());
}

#[tokio::test]
async fn fl30_fl34_fl164_failed_and_odd_results_keep_what_is_known_and_repetitions_write_nothing() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    server.osquery("distributed/write", &details(&key, "web-8")).await;
    let commits = server.commits();
    assert_eq!(server.osquery("distributed/write", &details(&key, "web-8")).await.status, 200);
    assert_eq!(server.commits(), commits, "the same facts");
    let mut failed = details(&key, "renamed");
    failed["statuses"]["fleet_detail_query_system_info"] = json!(1);
    for odd in [
        failed,
        json!({"node_key": key, "queries": {"fleet_detail_query_system_info": ""}, "statuses": {}}),
        json!({"node_key": key, "queries": 5, "statuses": [], "messages": null, "stats": {"x": {}}}),
        json!({"node_key": key, "queries": {"fleet_detail_query_system_info": [{"hostname": 5}]}}),
        json!({"node_key": key}),
    ] {
        let got = server.osquery("distributed/write", &odd).await;
        assert_eq!((got.status, got.text.as_str()), (200, "{}"), "{odd}");
    }
    assert_eq!(server.record(Family::Osquery, UUID).await.unwrap().hostname, "web-8");
}

#[tokio::test]
async fn a_request_that_changes_nothing_writes_nothing_and_keeps_the_host_online() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (osquery, orbit) = (server.osquery_key(&secret, UUID).await, server.orbit_key(&secret, UUID).await);
    server.osquery("distributed/write", &details(&osquery, "web-7")).await;
    server.orbit("config", &json!({"orbit_node_key": orbit})).await;
    for family in [Family::Osquery, Family::Orbit] {
        assert_eq!(server.record(family, UUID).await.unwrap().status, Status::Online);
    }
    let commits = server.commits();
    for _ in 0..30 {
        server.clock.advance(Duration::from_secs(10));
        server.osquery("distributed/read", &json!({"node_key": osquery})).await;
        server.osquery("config", &json!({"node_key": osquery})).await;
        server.osquery("log", &json!({"node_key": osquery, "log_type": "status", "data": []})).await;
        server.orbit("config", &json!({"orbit_node_key": orbit})).await;
    }
    assert_eq!(server.commits(), commits);
    let seen = server.fleet.registry().last_seen(&agent_id(Family::Osquery, UUID), server.now());
    assert_eq!(seen, Some(server.now()));
}

#[tokio::test]
async fn fl13_fl17_fl169_the_configuration_has_an_etag_only_for_those_that_ask_for_one() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let config = async |body| server.osquery("config", &body).await.json();
    let plain = config(json!({"node_key": key})).await;
    assert!(plain.get("etag").is_none() && plain.get("error").is_none() && plain["options"].is_object());
    let mut with = config(json!({"node_key": key, "etag": ""})).await;
    let etag = with.as_object_mut().unwrap().remove("etag").unwrap();
    assert_eq!(with, plain);
    assert_eq!(config(json!({"node_key": key, "etag": etag})).await, json!({"etag": "ok"}));
    assert_eq!(config(json!({"node_key": key, "etag": "old"})).await["etag"], etag);
    for etag in [json!("old"), etag] {
        let got = server.osquery("config", &json!({"node_key": key, "etag": etag})).await;
        assert_eq!(got.headers["cache-control"], "private, no-cache");
    }
}

#[tokio::test]
async fn results_without_statuses_are_those_of_queries_that_succeeded() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let mut body = details(&key, "web-8");
    body.as_object_mut().unwrap().remove("statuses");
    assert_eq!(server.osquery("distributed/write", &body).await.status, 200);
    assert_eq!(server.record(Family::Osquery, UUID).await.unwrap().hostname, "web-8");
    let read = server.osquery("distributed/read", &json!({"node_key": key})).await.json();
    assert!(read.get("accelerate").is_none_or(Value::is_null), "{read}");
    assert!(!read["queries"].as_object().unwrap().contains_key("fleet_detail_query_system_info"), "{read}");
}

#[tokio::test]
async fn fl20_fl21_fl163_lines_of_logs_are_accepted_whatever_they_contain() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.osquery_key(&secret, UUID).await;
    let lines: Vec<_> = (0..1024).map(|n| json!({"name": format!("unknown/{n}"), "columns": 5})).collect();
    for (kind, data) in
        [("result", json!(lines)), ("status", json!([{"message": "x".repeat(1 << 20)}])), ("result", json!("x"))]
    {
        let got = server.osquery("log", &json!({"node_key": key, "log_type": kind, "data": data})).await;
        assert_eq!((got.status, got.text.as_str()), (200, "{}"));
    }
    let got = server.osquery("log", &json!({"node_key": key, "log_type": "other", "data": []})).await;
    assert!(got.json()["error"].is_string() && got.json().get("node_invalid").is_none());
    // Not UTF-8, and a lone surrogate: osqueryd would send the lines again for ever.
    let mut body = format!(r#"{{"node_key":"{key}","log_type":"status","data":["\ud800 "#).into_bytes();
    body.extend_from_slice(b"\xff\"]}");
    let got = server.raw(Method::POST, "/api/osquery/log", &[], body).await;
    assert_eq!((got.status, got.text.as_str()), (200, "{}"));
}

#[tokio::test]
async fn fl51_an_enrollment_with_a_secret_of_another_space_moves_the_host_without_what_it_had() {
    let server = Server::start().await;
    let (secret, other) = (server.secret().await, server.secret_in("other").await);
    let key = server.osquery_key(&secret, UUID).await;
    let host = host_of(&server, Family::Osquery, UUID).await;
    server.osquery_key(&other, UUID).await;
    let record = server.record(Family::Osquery, UUID).await.unwrap();
    assert_eq!(record.space, SpaceId::trusted("other"));
    assert_ne!(record.host_id, Some(host.clone()), "a host belongs to one space");
    assert_eq!(server.store().host(&host).await.unwrap(), None, "deleted with its last agent");
    assert_eq!(server.osquery("config", &json!({"node_key": key})).await.status, 401);
}

#[tokio::test]
async fn fl52_fl167_a_replaced_key_of_another_machine_is_a_duplicate_identifier_in_the_audit_log() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let duplicates = async || server.events("agent.duplicate_identifier").await;
    server.orbit_key(&secret, UUID).await;
    server.osquery_key(&secret, UUID).await;
    assert!(duplicates().await.is_empty());
    let mut clone = orbit_enroll(&secret, UUID);
    clone["hostname"] = json!("clone");
    assert_eq!(server.orbit("enroll", &clone).await.status, 200);
    let found = duplicates().await;
    assert_eq!(found[0]["detail"]["former"], json!({"hostname": "web-7", "address": "192.0.2.7"}));
    assert_eq!(found[0]["detail"]["address"], json!("192.0.2.7"));
    let mut clone = osquery_enroll(&secret, UUID);
    clone["host_details"]["system_info"]["hostname"] = json!("clone");
    assert_eq!(server.osquery("enroll", &clone).await.status, 200);
    let osquery = json!(format!("agent:{}", agent_id(Family::Osquery, UUID)));
    let found = duplicates().await;
    assert!(found.len() == 2 && found.iter().any(|event| event["subject"] == osquery), "also of a second osqueryd");
    let text = format!("{:?}", server.store().audit_events(0, 100).await.expect("a log"));
    assert!(!text.contains(&secret), "FL80");
    let filter = AgentFilter::all([AgentCondition::HasDuplicateHosts]);
    let grant = OpContext::administrator(Actor::System).grant().expect("an administrator");
    let shown = server.fleet.agents().hosts(&grant, &filter, &HostRows::Page(Page { offset: 0, limit: 9 })).await;
    let shown: Vec<_> = shown.expect("a list").items.iter().map(HostView::duplicates).collect();
    assert_eq!(shown, [["clone (192.0.2.7)", "web-7 (192.0.2.7)"]]);
}

#[tokio::test]
async fn fl52_fl167_clones_with_equal_names_and_addresses_are_reported_when_they_replace_each_other_again() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let duplicates = async || {
        let events = server.store().audit_events(0, 100).await.expect("a log");
        events.iter().filter(|(_, event, _)| event.contains("agent.duplicate_identifier")).count()
    };
    for expected in [0, 0, 0, 1] {
        server.osquery_key(&secret, UUID).await;
        assert_eq!(duplicates().await, expected);
        server.clock.advance(Duration::from_secs(30));
    }
}

#[tokio::test]
async fn fl50_a_host_that_reports_identifiers_of_another_keeps_its_own_and_is_in_the_audit_log() {
    let server = Server::start().await;
    let secret = server.secret().await;
    server.orbit_key(&secret, UUID).await;
    server.osquery_key(&secret, UUID).await;
    let own = "4C4C4544-0042-3510-8052-00000000000E";
    let mut enroll = osquery_enroll(&secret, own);
    enroll["host_details"]["system_info"]["hardware_serial"] = json!("OWN");
    let key = server.osquery("enroll", &enroll).await.json()["node_key"].as_str().expect("a key").to_owned();
    let report = async |uuid: &str, serial: &str| {
        let mut write = details(&key, "web-7");
        write["queries"]["fleet_detail_query_system_info"] =
            json!([{"hostname": "web-7", "uuid": uuid, "hardware_serial": serial}]);
        assert_eq!(server.osquery("distributed/write", &write).await.status, 200);
        server.record(Family::Osquery, own).await.expect("enrolled")
    };
    let claims = async || server.events("agent.claimed_identifier").await;
    report(own, "OWN").await;
    report("4C4C4544-0042-3510-8052-00000000000F", "NOBODYS").await;
    assert!(claims().await.is_empty(), "not those of another host");
    for _ in 0..2 {
        let record = report(UUID, "5JX82").await;
        assert_eq!((record.hardware_uuid(), record.serial()), (own.to_lowercase().as_str(), "own"));
    }
    let found = claims().await;
    assert_eq!(found.len(), 1, "once in twelve hours");
    let detail = &found[0]["detail"];
    assert_eq!((&detail["hardware_uuid"], &detail["serial"]), (&json!(UUID.to_lowercase()), &json!("5jx82")));
    assert_eq!(detail["agents"].as_array().expect("a list").len(), 2, "both programs of the other host");
    // What is shown of the host is its own, too.
    let documents = server.store().agent_documents(&agent_id(Family::Osquery, own)).await.expect("a store");
    let metadata = documents.expect("documents").local_metadata.expect("metadata");
    assert!(!metadata.contains(UUID) && !metadata.contains("5JX82"), "{metadata}");
    server.clock.advance(Duration::from_secs(12 * 3600));
    report(UUID, "OWN").await;
    assert_eq!(claims().await.len(), 2);
}

#[tokio::test]
async fn a_host_that_enrolled_without_identifiers_learns_them_from_its_first_report() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let body = json!({"enroll_secret": secret, "host_identifier": "bare"});
    let key = server.osquery("enroll", &body).await.json()["node_key"].as_str().expect("a key").to_owned();
    assert_eq!(server.osquery("distributed/write", &details(&key, "bare")).await.status, 200);
    let record = server.record(Family::Osquery, "bare").await.expect("enrolled");
    assert_eq!(record.hardware_uuid(), UUID.to_lowercase());
}

#[tokio::test]
async fn the_version_of_orbit_is_shown_at_its_agent() {
    let server = Server::start().await;
    let secret = server.secret().await;
    server.orbit_key(&secret, UUID).await;
    let key = server.osquery_key(&secret, UUID).await;
    let mut write = details(&key, "web-7");
    write["queries"]["fleet_detail_query_orbit_info"] = json!([{"version": "1.61.0"}]);
    write["statuses"]["fleet_detail_query_orbit_info"] = json!(0);
    assert_eq!(server.osquery("distributed/write", &write).await.status, 200);
    let version = async || server.record(Family::Orbit, UUID).await.unwrap().agent_version;
    assert_eq!(version().await, "1.61.0");
    let commits = server.commits();
    assert_eq!(server.osquery("distributed/write", &write).await.status, 200);
    assert_eq!(server.commits(), commits, "unchanged facts are not written");
    // An osqueryd that claims to be another host does not change what that host's orbit reports.
    let stranger = server.osquery_key(&secret, "4C4C4544-0042-3510-8052-000000000009").await;
    write["node_key"] = json!(stranger);
    write["queries"]["fleet_detail_query_orbit_info"] = json!([{"version": "6.6.6"}]);
    assert_eq!(server.osquery("distributed/write", &write).await.status, 200);
    assert_eq!(version().await, "1.61.0");
}

#[tokio::test]
async fn a_detail_query_that_fails_drops_none_of_the_other_facts() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    let mut write = details(&key, "renamed");
    write["queries"]["fleet_detail_query_os_version"] = json!([]);
    write["statuses"]["fleet_detail_query_os_version"] = json!(1);
    assert_eq!(server.osquery("distributed/write", &write).await.status, 200);
    let record = server.record(Family::Osquery, UUID).await.unwrap();
    assert_eq!((record.hostname.as_str(), record.agent_version.as_str()), ("renamed", "5.22.0"));
    let documents = server.store().agent_documents(&record.id).await.unwrap().unwrap();
    let metadata: Value = serde_json::from_str(documents.local_metadata.as_deref().unwrap()).unwrap();
    assert_eq!(metadata["os"]["name"], json!("Ubuntu"), "known from the enrollment");
    assert_eq!(metadata["host"]["ip"], json!(["192.0.2.7"]));
}

#[tokio::test]
async fn denylisted_scheduled_queries_are_told_as_such_until_osqueryd_runs_them_again() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    let read = server.osquery("distributed/read", &json!({"node_key": key})).await.json();
    assert!(read["queries"][SCHEDULE].as_str().is_some_and(|sql| sql.contains("denylisted = 1")), "{read}");
    let reported = async |rows: Value, status: u8| {
        let mut write = details(&key, "web-7");
        write["queries"][SCHEDULE] = rows;
        write["statuses"][SCHEDULE] = json!(status);
        assert_eq!(server.osquery("distributed/write", &write).await.status, 200);
        let grant = OpContext::administrator(Actor::System).grant().expect("an administrator");
        server.fleet.agents().host(&grant, UUID).await.expect("a host").denylisted()
    };
    assert_eq!(reported(json!([{"name": "pack/Global/files"}]), 0).await, ["pack/Global/files"]);
    let commits = server.commits();
    reported(json!([{"name": "pack/Global/files"}]), 0).await;
    assert_eq!(server.commits(), commits, "an equal report writes nothing");
    assert!(reported(json!([]), 0).await.is_empty());
    assert!(reported(json!([]), 1).await.is_empty(), "an osquery without the column");
}
