//! The page "My device" in headless Chromium.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::host::fleetd;
use crate::world::{json as muster, ok, world};

/// Runs in the page if anything that a host reports becomes markup.
const CANARY: &str =
    "\"'></td><img src=x onerror=\"window.canary=1\"><script>window.canary=1</script><svg/onload='window.canary=1'>";

/// Label of the hosts.
const LABEL: &str = "device page";
/// Hardware UUID of another host.
const OTHER_UUID: &str = "22222222-AAAA-4000-8000-000000000002";

/// Fields of the page that a host fills, each with a value of its own.
const FIELDS: [&str; 13] = [
    "computer",
    "host name",
    "serial",
    "model",
    "os name",
    "os version",
    "osquery",
    "orbit",
    "address",
    "disk",
    "package",
    "package version",
    "certificate",
];

/// Enrolls a host whose every fact ends with `fact` after the name of its field, and announces a token for it. The queries of its host checks fail.
fn enroll(secret: &Value, uuid: &str, fact: &str, token: &str) {
    let fact = |field: &str| format!("{field}:{fact}");
    let orbit = json!({"enroll_secret": secret, "hardware_uuid": uuid, "hardware_serial": fact("serial"),
        "hostname": fact("host name"), "computer_name": fact("computer"), "hardware_model": fact("model"),
        "platform": fact("platform"), "platform_like": fact("family")});
    let (status, orbit) = fleetd("/api/fleet/orbit/enroll", &orbit);
    assert_eq!(status, 200, "{orbit}");
    let announced = json!({"orbit_node_key": orbit["orbit_node_key"], "device_auth_token": token});
    assert_eq!(fleetd("/api/fleet/orbit/device_token", &announced).0, 200);
    let system = json!({"hostname": fact("host name"), "computer_name": fact("computer"), "uuid": uuid,
        "hardware_serial": fact("serial"), "hardware_model": fact("model")});
    let os = json!({"name": fact("os name"), "version": fact("os version"), "platform": fact("platform")});
    let details = json!({"system_info": system, "os_version": os, "osquery_info": {"version": fact("osquery")}});
    let osquery = json!({"enroll_secret": secret, "host_identifier": uuid, "host_details": details});
    let (status, osquery) = fleetd("/api/v1/osquery/enroll", &osquery);
    assert_eq!(status, 200, "{osquery}");
    let details = [
        ("system_info", system),
        ("os_version", os),
        ("osquery_info", json!({"version": fact("osquery")})),
        ("orbit_info", json!({"version": fact("orbit")})),
        ("interface_addresses", json!({"address": fact("address")})),
        ("uptime", json!({"total_seconds": "60"})),
        ("disk_space_unix", json!({"path": fact("disk"), "file_system": fact("type"), "size": "500", "free": "5"})),
        ("users", json!({"uid": "1", "username": fact("user"), "type": "", "shell": fact("shell"), "groupname": "g"})),
        ("certificates_linux", json!({"common_name": fact("certificate"), "subject": fact("subject"), "sha1": "ab"})),
        ("software_deb_packages", json!({"name": fact("package"), "version": fact("package version")})),
    ];
    ok(&["label", "add-hosts", LABEL, uuid]);
    let mut queries = serde_json::Map::new();
    let (mut statuses, mut messages) = (queries.clone(), queries.clone());
    for (query, row) in details {
        let name = format!("fleet_detail_query_{query}");
        queries.insert(name.clone(), json!([row]));
        statuses.insert(name, json!(0));
    }
    let read = fleetd("/api/v1/osquery/distributed/read", &json!({"node_key": osquery["node_key"]})).1;
    for name in read["queries"].as_object().unwrap().keys().filter(|name| name.starts_with("fleet_policy_query_")) {
        statuses.insert(name.clone(), json!(1));
        messages.insert(name.clone(), json!(fact("error")));
    }
    let results =
        json!({"node_key": osquery["node_key"], "queries": queries, "statuses": statuses, "messages": messages});
    assert_eq!(fleetd("/api/v1/osquery/distributed/write", &results), (200, json!({})));
}

#[test]
fn fl75_the_page_of_a_device_hides_its_token_and_runs_nothing_that_a_host_reports() {
    let key = muster(&["enrollment-key", "create", "--family", "fleetd", "--name", "devices"]);
    // Only for these hosts: other tests have hosts on the same server.
    ok(&["label", "create", LABEL]);
    ok(&["host-check", "create", "device page", "--query", "SELECT 1 FROM device_page", "--label", LABEL]);
    let (token, other) = ("7a0c1e52-0001-4000-8000-00000000cafe", "7a0c1e52-0002-4000-8000-00000000cafe");
    enroll(&key["api_key"], "22222222-AAAA-4000-8000-000000000001", CANARY, token);
    enroll(&key["api_key"], OTHER_UUID, "of-somebody-else", other);
    let browser = Browser::start();
    let page = format!("https://{}/device", world().agents);
    browser.open(&format!("{page}/{token}"));
    assert_eq!(browser.run("return location.href"), json!(page), "the token leaves the URL");
    assert_eq!(browser.run("return document.cookie"), json!(""), "no script reads the cookie");
    // With what is in parts that are closed.
    let text = browser.run("return document.body.textContent");
    let text = text.as_str().unwrap();
    assert!(text.contains("My device"), "{text}");
    // What was reported is shown as text, in each field.
    for field in FIELDS.iter().chain(&["error"]) {
        assert!(text.contains(&format!("{field}:{CANARY}")), "{field} in {text}");
    }
    assert!(!text.contains("of-somebody-else") && !text.contains(token) && !text.contains("user:"), "{text}");
    let elements = browser.run("return document.querySelectorAll('script, img, svg, iframe, a').length");
    assert_eq!(elements, json!(0));
    // The button that asks the host for its details, and nothing that a host put there.
    assert_eq!(browser.run("return [...document.forms].map((form) => form.elements.length)"), json!([1]));
    // An event handler would run shortly after the page was loaded.
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        assert_eq!(browser.run("return window.canary === undefined"), json!(true));
    }
    browser.run("history.back()");
    assert!(!browser.run("return location.href").as_str().unwrap().contains(token), "nor is it in the history");
    // The cookie of one device opens nothing of another one.
    let foreign = muster(&["host", "show", OTHER_UUID])["id"].as_str().unwrap().to_owned();
    for path in [
        format!("/device/{foreign}"),
        format!("/device/{OTHER_UUID}"),
        format!("/device/x/../{foreign}"),
        format!("/device?host_id={foreign}"),
        format!("/api/latest/fleet/device/{foreign}"),
        format!("/api/latest/fleet/device/{OTHER_UUID}/policies"),
        format!("/api/latest/fleet/device/{foreign}/desktop"),
    ] {
        browser.open(&format!("https://{}{path}", world().agents));
        let shown = browser.run("return document.documentElement.textContent");
        assert!(!shown.as_str().unwrap().contains("of-somebody-else"), "{path}: {shown}");
    }
    browser.open(&format!("{page}/not-a-token"));
    assert!(browser.run("return document.body.innerText").as_str().unwrap().contains("expired"));
}
