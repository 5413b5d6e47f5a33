//! `muster fleetd-options …`, `muster host-check …`, `muster label …` and `muster pack …`, with a host of fleetd over the server's listener.

use serde_json::{Value, json};

use crate::agents::answered;
use crate::world::{fails, file, json, ok, run};

/// Sends a request of osqueryd.
fn osquery(call: &str, body: &Value) -> Value {
    let (status, text) = answered(&format!("/api/v1/osquery/{call}"), "-", "osquery/5.21.0", body);
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Enrolls a host; returns its node key.
fn host(name: &str) -> Value {
    let secret = json(&["enrollment-key", "create", "--family", "fleetd", "--name", name])["api_key"].clone();
    let details = json!({"system_info": {"hostname": name}, "os_version": {"name": "Ubuntu", "platform": "ubuntu"},
        "osquery_info": {"version": "5.21.0"}});
    let body = json!({"enroll_secret": secret, "host_identifier": name, "host_details": details});
    osquery("enroll", &body)["node_key"].clone()
}

#[test]
fn fl18_options_are_shown_applied_and_reset() {
    let key = host("options-of-a-host");
    let config = || osquery("config", &json!({"node_key": key}));
    assert!(ok(&["fleetd-options", "show"]).contains("distributed_interval: 10"));
    let (_directory, path) = file("options.yml", "config:\n  options: {logger_tls_period: 7}\n");
    let planned = ok(&["fleetd-options", "apply", "-f", &path, "--dry-run"]);
    assert!(planned.contains("would change") && planned.contains("logger_tls_period"), "{planned}");
    assert_eq!(config()["options"]["logger_tls_period"], 10);
    assert!(ok(&["fleetd-options", "apply", "-f", &path, "--yes"]).contains("changed the configuration of hosts"));
    // Without the packs, which belong to other tests.
    assert_eq!(config()["options"], json!({"logger_tls_period": 7}));
    assert!(ok(&["fleetd-options", "apply", "--file", &path, "--yes"]).contains("no changes"));
    assert_eq!(ok(&["fleetd-options", "apply", "-f", &path, "--yes", "-o", "name"]).trim(), "1");
    assert_eq!(json(&["fleetd-options", "get"])["is_default"], json!(false));
    let (_directory, wrong) = file("wrong.yml", "config:\n  scedule: {}\n");
    let message = fails(2, &["fleetd-options", "apply", "-f", &wrong, "--dry-run"]);
    assert!(message.contains(":2:3: config.scedule") && message.contains("did you mean `schedule`?"), "{message}");
    let (_directory, odd) = file("odd.yml", "config:\n  options:\n    logger_plugin: syslog\n    pack_delimiter: /\n");
    let warned = run(&["fleetd-options", "apply", "-f", &odd, "--dry-run"]);
    assert!(warned.code == 0 && warned.err.contains(":3:5: config.options.logger_plugin: "), "{}", warned.err);
    assert!(ok(&["fleetd-options", "reset", "--dry-run"]).contains("would change"));
    let reset: Value = serde_json::from_str(&ok(&["fleetd-options", "reset", "--yes", "--output", "json"])).unwrap();
    assert_eq!(reset["options"]["is_default"], json!(true));
    assert_eq!(config()["options"]["logger_tls_period"], 10);
}

#[test]
fn fl31_a_host_check_is_answered_and_shown() {
    let key = host("checked-host");
    let query = "SELECT 1 FROM disk_encryption";
    let made = json(&[
        "host-check",
        "create",
        "disk",
        "--query",
        query,
        "--description",
        "d",
        "--resolution",
        "ask IT",
        "--platform",
        "linux",
    ]);
    let name = format!("fleet_policy_query_{}", made["id"].as_str().unwrap());
    let read = osquery("distributed/read", &json!({"node_key": key}));
    assert_eq!(read["queries"][&name], query);
    osquery("distributed/write", &json!({"node_key": key, "queries": {&name: []}, "statuses": {&name: 0}}));
    assert!(ok(&["host", "refetch", "checked-host"]).contains("next requests"));
    assert!(osquery("distributed/read", &json!({"node_key": key}))["queries"][&name].is_string());
    assert!(ok(&["host-check", "list", "--output", "wide"]).contains("disk"));
    let shown = ok(&["host-check", "show", "disk"]);
    assert!(shown.contains("checked-host") && shown.contains("ask IT"), "{shown}");
    assert!(!ok(&["host-check", "show", "disk", "--hosts", "passing"]).contains("checked-host"));
    let broken =
        json!({"node_key": key, "queries": {}, "statuses": {&name: 1}, "messages": {&name: "no such table: x"}});
    osquery("distributed/write", &broken);
    // Hosts of other tests may have an error, too.
    assert!(json(&["host-check", "show", "disk"])["errors"].as_u64().is_some_and(|errors| errors >= 1));
    let shown = ok(&["host-check", "show", "disk", "--hosts", "error"]);
    assert!(shown.contains("checked-host") && shown.contains("no such table: x"), "{shown}");
    let days = json(&["host-check", "history", "disk"]);
    assert_eq!((&days[0]["passing"], &days[0]["failing"]), (&json!(0), &json!(1)), "{days}");
    let history = json(&["host-check", "history", "disk", "--host", "checked-host"]);
    assert_eq!((history.as_array().unwrap().len(), &history[0]["passes"]), (1, &json!(false)), "{history}");
    assert!(ok(&["host-check", "history", "disk", "--host", "checked-host"]).contains("fails"));
    fails(3, &["host-check", "history", "disk", "--host", "no-such-host"]);
    let host = ok(&["host", "show", "checked-host"]);
    assert!(host.contains("disk") && host.contains("fails"), "{host}");
    assert_eq!(json(&["host", "show", "checked-host"])["checks"][0]["resolution"], "ask IT");
    let renamed = json(&["host-check", "update", "disk", "--name", "disks", "--all-platforms", "--query", "SELECT 2"]);
    assert_eq!((&renamed["platforms"], &renamed["version"]), (&json!([]), &json!(2)));
    assert!(ok(&["host-check", "delete", "disks", "--dry-run"]).contains("would delete"));
    ok(&["host-check", "delete", "disks", "--yes"]);
    fails(3, &["host-check", "show", "disks"]);
}

#[test]
fn fl32_labels_are_dynamic_or_manual_and_select_hosts() {
    let key = host("labelled-host");
    let sql = "SELECT 1 FROM processes";
    let made = json(&["label", "create", "docker", "--query", sql, "--platform", "linux", "--description", "d"]);
    let name = format!("fleet_label_query_{}", made["id"].as_str().unwrap());
    assert_eq!(osquery("distributed/read", &json!({"node_key": key}))["queries"][&name], sql);
    osquery("distributed/write", &json!({"node_key": key, "queries": {&name: [{"1": "1"}]}, "statuses": {&name: 0}}));
    assert!(ok(&["label", "list", "--output", "wide"]).contains("docker"));
    assert!(ok(&["label", "show", "Docker"]).contains("labelled-host"));
    assert_eq!(json(&["host", "list", "--label", "docker"]).as_array().unwrap().len(), 1);
    assert!(fails(3, &["host", "list", "--label", "dokcer"]).contains("no label with the name \"dokcer\""));
    assert_eq!(json(&["agent", "list", "--label", "docker", "--filter", "family:orbit"]), json!([]));
    assert!(ok(&["query", "run", "SELECT 1", "--label", "docker", "--dry-run"]).contains("on 1 host"));
    assert!(json(&["host", "show", "labelled-host"])["labels"].as_array().unwrap().contains(&json!("docker")));
    let failed = json!({"node_key": key, "queries": {}, "statuses": {&name: 1}, "messages": {&name: "near SELEC"}});
    osquery("distributed/write", &failed);
    assert!(ok(&["label", "show", "docker"]).contains("near SELEC"));
    ok(&["host-check", "create", "sockets", "--query", "SELECT 1", "--label", "docker"]);
    assert!(fails(6, &["label", "delete", "docker", "--yes"]).contains("sockets"));
    ok(&["host-check", "update", "sockets", "--any-label"]);
    ok(&["host-check", "delete", "sockets", "--yes"]);
    let changed =
        json(&["label", "update", "docker", "--name", "containers", "--all-platforms", "--query", "SELECT 2"]);
    assert_eq!((&changed["platforms"], &changed["version"]), (&json!([]), &json!(2)));
    assert!(ok(&["label", "delete", "containers", "--dry-run"]).contains("would delete"));
    ok(&["label", "delete", "containers", "--yes"]);
    ok(&["label", "create", "chosen", "--host", "labelled-host"]);
    assert!(ok(&["label", "remove-hosts", "chosen", "labelled-host"]).contains("removed 1 host"));
    assert!(ok(&["label", "add-hosts", "chosen", "labelled-host"]).contains("added 1 host"));
    assert!(ok(&["label", "add-hosts", "chosen", "labelled-host"]).contains("added 0 hosts"));
    assert_eq!(json(&["label", "get", "chosen"])["hosts"], 1);
    ok(&["label", "delete", "chosen", "--yes"]);
    fails(3, &["label", "show", "chosen"]);
}

#[test]
fn fl15_packs_are_applied_shown_and_deleted() {
    let key = host("host-with-packs");
    let packs = || osquery("config", &json!({"node_key": key}))["packs"].clone();
    let (_directory, path) = file("docker.yml", "queries:\n  containers: {query: SELECT 1, interval: 60}\n");
    let made = json(&[
        "pack",
        "apply",
        "docker",
        "-f",
        &path,
        "--platform",
        "linux",
        "--label",
        "All Linux",
        "--description",
        "d",
    ]);
    assert_eq!((&made["version"], &made["all_spaces"]), (&json!(1), &json!(false)));
    assert_eq!(packs()["docker"]["queries"]["containers"]["interval"], 60);
    let (_directory, other) = file("other.yml", "queries:\n  other: {query: SELECT 1, interval: 60}\n");
    assert_eq!(json(&["pack", "apply", "docker", "-f", &other, "--dry-run"])["version"], 2);
    let (_directory, empty) = file("empty.yml", "");
    fails(2, &["pack", "apply", "docker", "-f", &empty]);
    assert_eq!(packs()["docker"]["queries"]["containers"]["interval"], 60, "neither is saved");
    assert_eq!(json(&["pack", "apply", "Global", "--file", &path, "--all-spaces"])["all_spaces"], true);
    assert!(packs()["Global"].is_object());
    let listed = ok(&["pack", "list", "--output", "wide"]);
    assert!(listed.contains("docker") && listed.contains("All Linux"), "{listed}");
    assert_eq!(json(&["pack", "show", "Docker"])["pack"]["queries"]["containers"]["query"], "SELECT 1");
    let shown = ok(&["pack", "show", "docker"]);
    assert!(!shown.contains("DENYLISTED"), "every query works");
    assert!(shown.contains("INTERVAL") && shown.contains("containers  60        SELECT 1"), "{shown}");
    let message = "Error executing scheduled query pack/docker/containers: no such table: docker";
    osquery("log", &json!({"node_key": key, "log_type": "status", "data": [{"severity": "2", "message": message}]}));
    let shown = ok(&["pack", "show", "docker"]);
    assert!(shown.contains("HOSTS DENYLISTED") && shown.contains("pack/docker/containers"), "{shown}");
    let failures = json!([{"query": "containers", "name": "pack/docker/containers", "failing": 1, "denylisted": 0}]);
    assert_eq!(json(&["pack", "show", "docker"])["failures"], failures);
    let failing = json(&["host", "list", "--filter", "failing_queries:\"pack/docker/containers\""]);
    assert_eq!(failing[0]["hostname"], "host-with-packs");
    let host = ok(&["host", "show", "host-with-packs"]);
    assert!(host.contains("FAILING QUERY") && host.contains("no such table: docker"), "{host}");
    let (_directory, wrong) = file("wrong.yml", "queries:\n  containers: {query: SELECT 1}\n");
    let message = fails(2, &["pack", "apply", "docker", "-f", &wrong]);
    assert!(message.contains(":2:3: queries.containers"), "{message}");
    assert!(ok(&["pack", "delete", "docker", "--dry-run"]).contains("would delete"));
    ok(&["pack", "delete", "docker", "--yes"]);
    ok(&["pack", "delete", "Global", "--yes"]);
    fails(3, &["pack", "get", "docker"]);
    assert!(packs().as_object().is_none_or(serde_json::Map::is_empty));
}

#[test]
fn software_of_hosts_is_listed_and_shown() {
    let key = host("host-with-software");
    let name = "fleet_detail_query_software_deb_packages";
    let rows = json!([{"name": "cli-tool", "version": "1.9-1"}, {"name": "cli-tool", "version": "1.10-1"}]);
    osquery("distributed/write", &json!({"node_key": key, "queries": {name: rows}, "statuses": {name: 0}}));
    let list = || json(&["software", "list", "--name", "CLI-*", "--version", "<1.10", "--source", "deb_packages"]);
    // The index follows a few seconds later.
    let is_indexed = (0..150).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(200));
        list().as_array().is_some_and(|found| found.len() == 1)
    });
    assert!(is_indexed);
    let found = list()[0].clone();
    assert_eq!((&found["version"], &found["hosts"]), (&json!("1.9-1"), &json!(1)));
    let shown = ok(&["software", "show", "cli-tool", "--version", "1.10-1"]);
    assert!(shown.contains("host-with-software") && shown.contains("deb_packages"), "{shown}");
    assert_eq!(ok(&["software", "list", "--name", "cli-tool", "--output", "name"]).lines().count(), 2);
    assert!(ok(&["software", "show", "cli-tool", "--version", "1.10-1", "--output", "yaml"]).contains("cli-tool"));
    assert!(ok(&["software", "get", found["id"].as_str().unwrap()]).contains("1.9-1"));
    let message = fails(2, &["software", "show", "cli-tool"]);
    assert!(message.contains("cli-tool"), "{message}");
    let message = fails(3, &["software", "show", "cli-tool", "--version", "=9"]);
    assert!(message.contains("with this version") && message.contains("1.10-1"), "{message}");
    assert!(ok(&["host", "show", "host-with-software", "--software"]).contains("1.10-1"));
    assert_eq!(json(&["host", "show", "host-with-software"])["software"].as_array().unwrap().len(), 2);
    assert_eq!(json(&["software", "show", "cli-tool", "--version", "=1.9-1"])["id"], found["id"]);
}

#[test]
fn disks_users_and_certificates_of_a_host_are_shown() {
    let key = host("host-with-disks");
    let results = json!({
        "fleet_detail_query_uptime": [{"total_seconds": "3600"}],
        "fleet_detail_query_disk_space_unix": [{"path": "/", "file_system": "ext4", "size": "2147483648",
            "free": "1073741824", "is_system": "1"}],
        "fleet_detail_query_disk_encryption_linux": [{"path": "/"}],
        "fleet_detail_query_users": [{"uid": "1000", "username": "lovelace", "groupname": "staff", "shell": "/bin/bash"}],
        "fleet_detail_query_certificates_linux": [{"common_name": "Example Root", "sha1": "AB", "ca": "1"}],
    });
    let statuses: Value = results.as_object().unwrap().keys().map(|name| (name.clone(), json!(0))).collect();
    osquery("distributed/write", &json!({"node_key": key, "queries": results, "statuses": statuses}));
    let shown = ok(&["host", "show", "host-with-disks"]);
    for text in ["1.0 GiB (50 %)", "yes", "1 user", "1 certificate", "booted"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert!(!shown.contains("lovelace") && !shown.contains("Example Root"), "{shown}");
    let shown = ok(&["host", "show", "host-with-disks", "--users", "--certificates"]);
    assert!(shown.contains("lovelace") && shown.contains("Example Root"), "{shown}");
    let all = json(&["host", "show", "host-with-disks"]);
    assert_eq!((&all["disks"][0]["encrypted"], &all["disks"][0]["percent_free"]), (&json!(true), &json!(50)));
    assert_eq!((&all["users"][0]["uid"], &all["certificates"][0]["is_ca"]), (&json!(1000), &json!(true)));
    assert!(all["booted_at"].is_string() && all.get("has_more_users").is_none());
}
