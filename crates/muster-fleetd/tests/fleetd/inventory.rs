//! Disks, the last boot, users and certificates that hosts report.

use std::time::Duration;

use http::Method;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::fleetd::inventory::Inventory;
use muster_core::id::SpaceId;
use muster_core::time::Clock as _;
use serde_json::{Value, json};

use crate::setting::{Server, UUID};

const TOKEN: &str = "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60";

/// Returns a report of a host that was booted `uptime` seconds ago and has `free` bytes of 1,000,000 free.
fn report(key: &str, uptime: u64, free: u64) -> Value {
    let results = json!({
        "fleet_detail_query_uptime": [{"total_seconds": uptime.to_string()}],
        "fleet_detail_query_disk_space_unix": [{"path": "/", "file_system": "ext4", "size": "1000000",
            "free": free.to_string(), "is_system": "1", "depth": "1"}],
        "fleet_detail_query_disk_encryption_linux": [{"path": "/"}],
        "fleet_detail_query_users": [{"uid": "1000", "username": "ada", "groupname": "staff", "shell": "/bin/bash"}],
        "fleet_detail_query_certificates_linux": [{"common_name": "<b>Root</b>", "sha1": "AB", "ca": "1",
            "subject": "/C=US/O=Example/CN=Root", "not_valid_after": "1924991999", "username": ""}],
    });
    let statuses: Value = results.as_object().expect("an object").keys().map(|name| (name.clone(), json!(0))).collect();
    json!({"node_key": key, "queries": results, "statuses": statuses})
}

async fn send(server: &Server, body: &Value) {
    let got = server.osquery("distributed/write", body).await;
    assert_eq!((got.status, got.text.as_str()), (200, "{}"));
}

/// Returns what is stored, as a person in a space sees it.
async fn seen(server: &Server, space: &str) -> Inventory {
    let context = OpContext::administrator(Actor::System).in_space(SpaceId::trusted(space));
    server.fleet.agents().host(&context.grant().expect("as expected"), UUID).await.expect("a host").inventory
}

#[tokio::test]
async fn a_host_is_asked_for_disks_users_and_certificates_and_reports_them() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    let read = server.osquery("distributed/read", &json!({"node_key": key})).await.json();
    for name in ["uptime", "disk_space_unix", "disk_encryption_windows", "users", "certificates_darwin"] {
        let name = format!("fleet_detail_query_{name}");
        assert!(read["queries"][&name].is_string() && read["discovery"][&name].is_string(), "{name}");
    }
    send(&server, &report(&key, 3600, 250_000)).await;
    let found = seen(&server, "default").await;
    let disk = found.main_disk().expect("a disk");
    assert_eq!((disk.percent_free(), disk.encrypted, disk.is_system), (25, Some(true), true));
    assert_eq!(server.clock.now().since(found.system.booted_at.expect("a boot")).as_secs(), 3600);
    assert_eq!((found.users.items[0].username.as_str(), found.users.items[0].uid), ("ada", 1000));
    let certificate = &found.certificates.items[0];
    assert!(certificate.is_ca && certificate.sha1 == "ab" && certificate.source == "system", "{certificate:?}");
}

#[tokio::test]
async fn fl34_a_report_that_changes_nothing_noticeably_writes_nothing() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    send(&server, &report(&key, 3600, 500_000)).await;
    let commits = server.commits();
    server.clock.advance(Duration::from_secs(7200));
    send(&server, &report(&key, 3600 + 7200 - 20, 505_000)).await;
    assert_eq!(server.commits(), commits, "the same boot, and 1 % of the free space");
    let failed = json!({"node_key": key, "queries": {}, "statuses": {"fleet_detail_query_users": 1}});
    send(&server, &failed).await;
    assert_eq!((server.commits(), seen(&server, "default").await.users.items.len()), (commits, 1));
    send(&server, &report(&key, 30, 100_000)).await;
    assert_eq!(server.commits(), commits + 1);
    let found = seen(&server, "default").await;
    assert_eq!(found.main_disk().expect("a disk").free, 100_000);
    assert_eq!(server.clock.now().since(found.system.booted_at.expect("a boot")).as_secs(), 30, "it was booted again");
}

#[tokio::test]
async fn the_inventory_of_a_host_does_not_follow_it_to_another_space() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    send(&server, &report(&key, 3600, 500_000)).await;
    let key = server.osquery_key(&server.secret_in("red").await, UUID).await;
    assert_eq!(seen(&server, "red").await, Inventory::default());
    send(&server, &report(&key, 3600, 500_000)).await;
    assert_eq!(seen(&server, "red").await.users.items.len(), 1);
    assert!(server.record(Family::Osquery, UUID).await.is_some_and(|record| record.space.as_str() == "red"));
}

#[tokio::test]
async fn fl73_the_page_of_a_device_shows_its_disks_and_certificates_but_no_users() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (orbit, key) = (server.orbit_key(&secret, UUID).await, server.osquery_key(&secret, UUID).await);
    let token = json!({"orbit_node_key": orbit, "device_auth_token": TOKEN});
    assert_eq!(server.orbit("device_token", &token).await.status, 200);
    let get = async |path: &str| {
        let cookie = format!("muster_device={TOKEN}");
        server.raw(Method::GET, path, &[("cookie", &cookie)], "").await
    };
    let certificates = format!("/api/latest/fleet/device/{TOKEN}/certificates");
    assert_eq!(get(&certificates).await.json()["certificates"], json!([]));
    send(&server, &report(&key, 3600, 250_000)).await;
    let page = get("/device").await.text;
    assert!(page.contains("25 %), encrypted") && page.contains("&lt;b&gt;Root&lt;/b&gt;"), "{page}");
    let data = get(&format!("/api/latest/fleet/device/{TOKEN}")).await;
    let host = &data.json()["host"];
    assert_eq!((&host["percent_disk_space_available"], &host["disk_encryption_enabled"]), (&json!(25), &json!(true)));
    assert_eq!(host["uptime"], 3_600_000_000_000_u64);
    let listed = get(&certificates).await.json();
    assert_eq!(
        (&listed["count"], &listed["certificates"][0]["subject"]["organization"]),
        (&json!(1), &json!("Example"))
    );
    assert!(!page.contains("ada") && !data.text.contains("ada"), "other people");
    assert_eq!(get("/api/latest/fleet/device/wrong/certificates").await.status, 401);
}
