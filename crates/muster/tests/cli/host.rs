//! `muster host …`, with hosts of fleetd over the server's listener.

use serde_json::{Value, json};

use crate::agents::answered;
use crate::world::{fails, json, ok};

/// Sends a request of fleetd; returns the status and the response.
pub fn fleetd(path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = answered(path, "-", "osquery/5.21.0", body);
    (status, serde_json::from_str(&text).unwrap())
}

#[test]
fn fl47_orbit_and_osqueryd_are_one_host_whose_deletion_ends_both_keys() {
    let key = json(&["enrollment-key", "create", "--family", "fleetd", "--name", "hosts of fleetd"]);
    let (secret, uuid) = (&key["api_key"], "0D1E2F3A-4B5C-6D7E-8F90-A1B2C3D4E5F6");
    let orbit = json!({"enroll_secret": secret, "hardware_uuid": uuid, "hostname": "laptop-9", "platform": "ubuntu"});
    let (status, orbit) = fleetd("/api/fleet/orbit/enroll", &orbit);
    assert_eq!(status, 200, "{orbit}");
    let details = json!({"system_info": {"hostname": "laptop-9", "uuid": uuid, "hardware_serial": "CLI-5JX82",
            "hardware_model": "PowerEdge R740", "physical_memory": "17179869184"},
        "os_version": {"name": "Ubuntu", "version": "24.04", "platform": "ubuntu"}, "osquery_info": {"version": "5.21.0"}});
    let osquery = json!({"enroll_secret": secret, "host_identifier": uuid, "host_details": details});
    let (status, osquery) = fleetd("/api/v1/osquery/enroll", &osquery);
    assert_eq!(status, 200, "{osquery}");
    let orbit_config = || fleetd("/api/fleet/orbit/config", &json!({"orbit_node_key": orbit["orbit_node_key"]}));
    let read = || fleetd("/api/v1/osquery/distributed/read", &json!({"node_key": osquery["node_key"]}));
    assert_eq!((orbit_config().0, read().0), (200, 200));
    let listed = ok(&["host", "list", "--filter", "family:osquery"]);
    assert!(listed.contains("laptop-9") && listed.contains("orbit online, osquery online"), "{listed}");
    let shown = json(&["host", "show", "LAPTOP-9"]);
    assert_eq!((shown["agents"].as_array().unwrap().len(), &shown["os"]), (2, &json!("Ubuntu 24.04")));
    assert_eq!(json(&["host", "show", "cli-5jx82"])["serial"], "CLI-5JX82");
    assert!(ok(&["host", "list", "--filter", "serial:cli-5jx82", "--output", "wide"]).contains("CLI-5JX82"));
    let table = ok(&["host", "show", "laptop-9"]);
    assert!(table.contains("PowerEdge R740") && table.contains("16.0 GiB"), "{table}");
    assert!(table.contains("osquery") && table.contains("5.21.0") && table.contains(&uuid.to_lowercase()), "{table}");
    assert!(["duplicates", "model", "cpu", "memory", "addresses"].iter().all(|row| table.contains(row)), "{table}");
    assert!(ok(&["host", "delete", "laptop-9", "--dry-run"]).contains("with 2 agents"));
    ok(&["host", "delete", "laptop-9", "--yes"]);
    let (status, refused) = read();
    assert_eq!((status, &refused["node_invalid"]), (401, &json!(true)));
    let (status, refused) = orbit_config();
    assert_eq!((status, refused.get("node_invalid")), (401, None));
    fails(3, &["host", "show", "laptop-9"]);
}

#[test]
fn hosts_are_transferred_to_another_space_after_a_dry_run() {
    let key = json(&["enrollment-key", "create", "--family", "fleetd", "--name", "hosts to transfer"]);
    let uuid = "0D1E2F3A-4B5C-6D7E-8F90-A1B2C3D4E5F7";
    let enroll =
        json!({"enroll_secret": key["api_key"], "hardware_uuid": uuid, "hostname": "laptop-t", "platform": "ubuntu"});
    let (status, orbit) = fleetd("/api/fleet/orbit/enroll", &enroll);
    assert_eq!(status, 200, "{orbit}");
    ok(&["space", "create", "finance"]);
    let transfer = ["host", "transfer", "laptop-t", "--to-space", "finance"];
    let tried = json(&[&transfer[..], &["--dry-run"]].concat());
    assert_eq!((&tried[0]["moved"], tried[0].get("new_id")), (&json!(true), None), "{tried}");
    assert!(ok(&[&transfer[..], &["--dry-run"]].concat()).contains("would move"));
    assert!(fails(2, &transfer).contains("Transfer 1 host to the space finance?"));
    ok(&["host", "show", "laptop-t"]);
    let moved = ok(&[&transfer[..], &["--yes"]].concat());
    assert!(moved.contains("laptop-t") && moved.contains("moved"), "{moved}");
    fails(3, &["host", "show", "laptop-t"]);
    ok(&["host", "show", "laptop-t", "--space", "finance"]);
    let (status, _) = fleetd("/api/fleet/orbit/config", &json!({"orbit_node_key": orbit["orbit_node_key"]}));
    assert_eq!(status, 200, "it keeps its key");
    fails(2, &["host", "transfer", "--to-space", "finance"]);
    fails(3, &["host", "transfer", "--filter", "family:orbit", "--to-space", "no-such-space", "--yes"]);
    let back = ["host", "transfer", "--filter", "hostname:laptop-t", "--to-space", "default", "--space", "finance"];
    let back = ok(&[&back[..], &["--yes", "--output", "name"]].concat());
    assert_eq!(json(&["host", "show", "laptop-t"])["id"], json!(back.trim()));
    ok(&["host", "delete", "laptop-t", "--yes"]);
    ok(&["space", "delete", "finance", "--yes"]);
}
