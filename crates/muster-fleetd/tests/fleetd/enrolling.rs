//! One-time secrets, identifiers, the cooldown, and what an orbit keeps when it enrolls again.

use std::time::Duration;

use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::fleetd::identifier::HostIdentifier;
use muster_core::raw_json;
use muster_fleet::FleetSettings;
use muster_fleet::keys::OneTimeHost;
use muster_fleet::live_queries::{NewLiveQuery, QuerySource};
use muster_fleet::testing::steady;
use muster_fleetd::FleetdApiOptions;
use muster_store::query::AgentFilter;
use serde_json::{Value, json};

use crate::setting::{Got, Server, UUID, agent_id, orbit_enroll, osquery_enroll};

const OTHER: &str = "5C4C4544-0042-3510-8052-B7C04F584433";
const REJECTED: &str = "host.enrollment_rejected";

async fn orbit(server: &Server, secret: &str, uuid: &str) -> Got {
    server.orbit("enroll", &orbit_enroll(secret, uuid)).await
}

async fn osquery(server: &Server, secret: &str, uuid: &str) -> Got {
    server.osquery("enroll", &osquery_enroll(secret, uuid)).await
}

async fn rejections(server: &Server) -> usize {
    server.audited().await.iter().filter(|action| *action == REJECTED).count()
}

#[tokio::test]
async fn fl82_fl84_each_program_uses_a_one_time_secret_once_and_the_second_within_an_hour() {
    let server = Server::start().await;
    let secret = server.one_time_secret(OneTimeHost::default()).await;
    assert_eq!(orbit(&server, &secret, UUID).await.status, 200);
    server.clock.advance(Duration::from_secs(3_599));
    assert_eq!(osquery(&server, &secret, UUID).await.status, 200);
    let spent = osquery(&server, &secret, UUID).await;
    assert_eq!((spent.status, &spent.json()["node_invalid"]), (401, &json!(true)));
    assert_eq!(spent.json()["error"], "enroll failed: invalid secret", "no reason for the host");
    assert_eq!(orbit(&server, &secret, UUID).await.status, 401);
    assert_eq!(rejections(&server).await, 1, "one for the host and the reason");
    let late = server.one_time_secret(OneTimeHost::default()).await;
    assert_eq!(osquery(&server, &late, OTHER).await.status, 200);
    server.clock.advance(Duration::from_secs(3_600));
    assert_eq!(orbit(&server, &late, OTHER).await.status, 401);
    let expired = server.one_time_secret(OneTimeHost::default()).await;
    server.clock.advance(Duration::from_secs(24 * 3_600));
    assert_eq!(orbit(&server, &expired, OTHER).await.status, 401);
}

#[tokio::test]
async fn fl83_a_one_time_secret_of_another_host_changes_nothing() {
    let server = Server::start().await;
    let of = |uuid: Option<&str>, serial: Option<&str>| OneTimeHost {
        uuid: uuid.map(str::to_owned),
        serial: serial.map(str::to_owned),
    };
    let shared = server.secret().await;
    let key = server.orbit_key(&shared, OTHER).await;
    let bound = server.one_time_secret(of(Some(UUID), None)).await;
    assert_eq!(orbit(&server, &bound, OTHER).await.status, 401);
    assert_eq!(server.orbit("config", &json!({"orbit_node_key": key})).await.status, 200, "its key is as before");
    assert_eq!(orbit(&server, &bound, &UUID.to_lowercase()).await.status, 200);
    let by_serial = server.one_time_secret(of(None, Some("other"))).await;
    assert_eq!(osquery(&server, &by_serial, UUID).await.status, 401);
    // Bound by its first use.
    let first = server.one_time_secret(of(None, Some("5jx82"))).await;
    assert_eq!(orbit(&server, &first, UUID).await.status, 200);
    assert_eq!(osquery(&server, &first, OTHER).await.status, 401);
    assert_eq!(osquery(&server, &first, UUID).await.status, 200);
    assert!(server.record(Family::Osquery, OTHER).await.is_none());
}

#[tokio::test]
async fn fl85_of_concurrent_enrollments_with_a_one_time_secret_one_succeeds() {
    let server = Server::start().await;
    let secret = server.one_time_secret(OneTimeHost::default()).await;
    let uuids: [String; 4] = std::array::from_fn(|number| format!("{}{number}", &UUID[..35]));
    let all = tokio::join!(
        orbit(&server, &secret, &uuids[0]),
        orbit(&server, &secret, &uuids[1]),
        orbit(&server, &secret, &uuids[2]),
        orbit(&server, &secret, &uuids[3]),
    );
    let statuses = [all.0.status, all.1.status, all.2.status, all.3.status];
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 401)), "{statuses:?}");
}

#[tokio::test]
async fn fl9_fl10_hosts_are_recognized_by_the_configured_identifier() {
    for (identifier, hosts) in [(HostIdentifier::Instance, 2), (HostIdentifier::Uuid, 1), (HostIdentifier::Hostname, 1)]
    {
        let server = Server::start_with(FleetdApiOptions { identifier, ..FleetdApiOptions::default() });
        let secret = server.secret().await;
        for (number, provided) in ["a", "b"].iter().enumerate() {
            let mut body = osquery_enroll(&secret, UUID);
            body["host_identifier"] = json!(provided);
            body["host_details"]["osquery_info"]["instance_id"] = json!(format!("instance-{number}"));
            assert_eq!(server.osquery("enroll", &body).await.status, 200);
        }
        let mut found = 0;
        for machine in ["instance-0", "instance-1", UUID, "web-7"] {
            found += usize::from(server.record(Family::Osquery, machine).await.is_some());
        }
        assert_eq!(found, hosts, "{identifier:?}");
        // Without the detail, the provided one counts.
        let body = json!({"enroll_secret": secret, "host_identifier": "provided-1"});
        assert_eq!(server.osquery("enroll", &body).await.status, 200);
        assert!(server.record(Family::Osquery, "provided-1").await.is_some(), "{identifier:?}");
    }
}

#[tokio::test]
async fn fl11_an_osqueryd_waits_for_the_cooldown_and_an_orbit_does_not() {
    let settings = FleetSettings { enroll_cooldown: Duration::from_secs(600), ..steady() };
    let server = Server::start_in(FleetdApiOptions::default(), settings);
    let secret = server.secret().await;
    server.orbit_key(&secret, UUID).await;
    let key = server.osquery_key(&secret, UUID).await;
    let refused = osquery(&server, &secret, UUID).await;
    assert_eq!((refused.status, &refused.json()["node_invalid"]), (429, &json!(true)));
    assert!(refused.json()["error"].is_string());
    assert_eq!(server.osquery("config", &json!({"node_key": key})).await.status, 200, "its key is as before");
    server.orbit_key(&secret, UUID).await;
    server.osquery_key(&secret, OTHER).await;
    assert_eq!(rejections(&server).await, 1);
    server.clock.advance(Duration::from_secs(600));
    server.osquery_key(&secret, UUID).await;
    let without = Server::start().await;
    let secret = without.secret().await;
    without.osquery_key(&secret, UUID).await;
    without.osquery_key(&secret, UUID).await;
}

#[tokio::test]
async fn fl50_an_orbit_that_enrolls_again_keeps_its_serial_number_and_model() {
    let server = Server::start().await;
    let secret = server.secret().await;
    server.orbit_key(&secret, UUID).await;
    let mut again = orbit_enroll(&secret, UUID);
    (again["hardware_serial"], again["hardware_model"]) = (json!(""), json!("other"));
    (again["hostname"], again["computer_name"]) = (json!("web-8"), json!("other"));
    assert_eq!(server.orbit("enroll", &again).await.status, 200);
    let documents = server.store().agent_documents(&agent_id(Family::Orbit, UUID)).await.expect("a store");
    let metadata = documents.expect("documents").local_metadata.expect("metadata");
    let fact = |path: &[&str]| raw_json::text(&metadata, path).expect("a fact").into_owned();
    assert_eq!([fact(&["hardware", "serial"]), fact(&["hardware", "model"])], ["5JX82", "PowerEdge"]);
    assert_eq!([fact(&["host", "name"]), fact(&["host", "hostname"])], ["web-7", "web-8"]);
}

#[tokio::test]
async fn fl81_no_key_or_secret_is_stored_in_clear_text() {
    let server = Server::start().await;
    let (secret, one_time) = (server.secret().await, server.one_time_secret(OneTimeHost::default()).await);
    let orbit = server.orbit_key(&secret, UUID).await;
    let osquery = server.osquery_key(&one_time, OTHER).await;
    let token = "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60";
    server.orbit("device_token", &json!({"orbit_node_key": orbit, "device_auth_token": token})).await;
    let mut stored = String::new();
    for (family, uuid) in [(Family::Orbit, UUID), (Family::Osquery, OTHER)] {
        let record = server.record(family, uuid).await.expect("enrolled");
        let credentials = server.store().agent_credentials(&record.id).await.expect("credentials");
        let key = record.enrollment_key_id.clone().expect("a key");
        let key = server.store().enrollment_key(&key).await.expect("a store").expect("a key");
        stored.push_str(&format!("{record:?} {credentials:?} {key:?}"));
    }
    stored.push_str(&format!("{:?}", server.store().audit_events(0, 100).await.expect("a log")));
    for clear in [secret.as_str(), &one_time, &orbit, &osquery, token] {
        assert!(!stored.contains(clear), "{stored}");
    }
}

#[tokio::test]
async fn fl57_orbit_gets_flags_channels_and_the_extensions_of_its_platform() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let key = server.orbit_key(&secret, UUID).await;
    let config = async || server.orbit("config", &json!({"orbit_node_key": key})).await.json();
    assert_eq!(config().await, json!({"notifications": {}}));
    let options = "command_line_flags: {verbose: true}\nupdate_channels: {osqueryd: edge}\nextensions:\n  \
        hello: {platform: linux, channel: stable}\n  arm: {platform: linux-arm64, channel: stable}\n  \
        mac: {platform: macos, channel: stable}\n";
    let context = OpContext::administrator(Actor::System);
    let grant = context.grant().expect("an administrator");
    server.fleet.fleetd_options().update(&grant, Some(options.into()), None).await.expect("valid options");
    let names =
        |config: &Value| config["extensions"].as_object().expect("extensions").keys().cloned().collect::<Vec<_>>();
    let got = config().await;
    assert_eq!(names(&got), ["hello"]);
    assert_eq!(
        (&got["command_line_startup_flags"]["verbose"], &got["update_channels"]["osqueryd"]),
        (&json!(true), &json!("edge"))
    );
    // osqueryd knows the architecture.
    let mut body = osquery_enroll(&secret, UUID);
    body["host_details"]["os_version"]["arch"] = json!("aarch64");
    server.osquery("enroll", &body).await;
    assert_eq!(names(&config().await), ["arm"]);
}

#[tokio::test]
async fn hosts_are_selected_by_serial_number_and_hardware_uuid_whatever_identifies_them() {
    let identifier = HostIdentifier::Instance;
    let server = Server::start_with(FleetdApiOptions { identifier, ..FleetdApiOptions::default() });
    let secret = server.secret().await;
    let enroll = async |uuid: &str, instance: &str, serial: &str| {
        let mut body = osquery_enroll(&secret, uuid);
        body["host_details"]["osquery_info"]["instance_id"] = json!(instance);
        body["host_details"]["system_info"]["hardware_serial"] = json!(serial);
        body["host_details"]["system_info"]["hostname"] = json!(format!("host-{instance}"));
        assert_eq!(server.osquery("enroll", &body).await.status, 200);
    };
    enroll(UUID, "i-1", "5JX82").await;
    enroll(OTHER, "i-2", "").await;
    let selected = async |named: &str| {
        let new = NewLiveQuery {
            sql: QuerySource::Sql("SELECT 1".into()),
            hosts: vec![named.to_owned()],
            labels: Vec::new(),
            filter: AgentFilter::default(),
            timeout: Duration::from_secs(60),
        };
        let context = OpContext::administrator(Actor::System).trying(true);
        let created = server.fleet.live_queries().create(&context, new).await;
        created.map(|view| view.query.targets).map_err(|error| error.code)
    };
    for named in [UUID, &UUID.to_lowercase(), "5jx82", "i-1", "host-i-1", OTHER] {
        assert_eq!(selected(named).await, Ok(1), "{named}");
    }
    assert_eq!(selected("").await, Err("not_found"));
    // A host reports the id of another one, which stays its own; and what both report stands for none of them.
    enroll("i-1", "i-3", "5JX82").await;
    assert_eq!(selected("i-1").await, Ok(1));
    assert_eq!(selected("5jx82").await, Err("host_ambiguous"));
    enroll("5c4c", "i-4", "host-i-2").await;
    assert_eq!(selected("host-i-2").await, Err("host_ambiguous"));
}
