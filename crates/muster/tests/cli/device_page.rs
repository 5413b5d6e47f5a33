//! The page "My device" in headless Chromium.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::host::fleetd;
use crate::world::{json as muster, world};

/// Runs in the page if anything that a host reports becomes markup.
const CANARY: &str =
    "\"'></td><img src=x onerror=\"window.canary=1\"><script>window.canary=1</script><svg/onload='window.canary=1'>";

/// Enrolls a host whose every fact is `fact`, and announces a token for it.
fn enroll(secret: &Value, uuid: &str, fact: &str, token: &str) {
    let orbit = json!({"enroll_secret": secret, "hardware_uuid": uuid, "hardware_serial": fact, "hostname": fact,
        "computer_name": fact, "hardware_model": fact, "platform": fact, "platform_like": fact});
    let (status, orbit) = fleetd("/api/fleet/orbit/enroll", &orbit);
    assert_eq!(status, 200, "{orbit}");
    let announced = json!({"orbit_node_key": orbit["orbit_node_key"], "device_auth_token": token});
    assert_eq!(fleetd("/api/fleet/orbit/device_token", &announced).0, 200);
    let system =
        json!({"hostname": fact, "computer_name": fact, "uuid": uuid, "hardware_serial": fact, "hardware_model": fact});
    let os = json!({"name": fact, "version": fact, "platform": fact});
    let details = json!({"system_info": system, "os_version": os, "osquery_info": {"version": fact}});
    let osquery = json!({"enroll_secret": secret, "host_identifier": uuid, "host_details": details});
    let (status, osquery) = fleetd("/api/v1/osquery/enroll", &osquery);
    assert_eq!(status, 200, "{osquery}");
    let name = |query: &str| format!("fleet_detail_query_{query}");
    let rows = [
        ("system_info", system),
        ("os_version", os),
        ("osquery_info", json!({"version": fact})),
        ("orbit_info", json!({"version": fact})),
        ("interface_addresses", json!({"address": fact})),
    ];
    let queries: serde_json::Map<_, _> = rows.iter().map(|(query, row)| (name(query), json!([row]))).collect();
    let statuses: serde_json::Map<_, _> = rows.iter().map(|(query, _)| (name(query), json!(0))).collect();
    let results = json!({"node_key": osquery["node_key"], "queries": queries, "statuses": statuses});
    assert_eq!(fleetd("/api/v1/osquery/distributed/write", &results), (200, json!({})));
}

#[test]
fn fl75_the_page_of_a_device_hides_its_token_and_runs_nothing_that_a_host_reports() {
    let key = muster(&["enrollment-key", "create", "--family", "fleetd", "--name", "devices"]);
    let (token, other) = ("7a0c1e52-0001-4000-8000-00000000cafe", "7a0c1e52-0002-4000-8000-00000000cafe");
    enroll(&key["api_key"], "22222222-AAAA-4000-8000-000000000001", CANARY, token);
    enroll(&key["api_key"], "22222222-AAAA-4000-8000-000000000002", "of-somebody-else", other);
    let browser = Browser::start();
    let page = format!("https://{}/device", world().agents);
    browser.open(&format!("{page}/{token}"));
    assert_eq!(browser.run("return location.href"), json!(page), "the token leaves the URL");
    assert_eq!(browser.run("return document.cookie"), json!(""), "no script reads the cookie");
    let text = browser.run("return document.body.innerText");
    let text = text.as_str().unwrap();
    // What was reported is shown as text, in each field.
    assert!(text.contains("My device") && text.matches("onerror=\"window.canary=1\"").count() >= 6, "{text}");
    assert!(!text.contains("of-somebody-else") && !text.contains(token), "{text}");
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
    browser.open(&format!("{page}/not-a-token"));
    assert!(browser.run("return document.body.innerText").as_str().unwrap().contains("expired"));
}
