//! The API of Fleet Desktop, and the page of a device.

use std::time::Duration;

use http::Method;
use muster_core::agent::Family;
use muster_core::authorization::{Actor, OpContext};
use muster_core::fleetd::numbers;
use muster_fleet::host_checks::CheckDraft;
use serde_json::{Value, json};

use crate::setting::{Got, Server, UUID, agent_id, details, orbit_enroll};

const TOKEN: &str = "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60";
const NEXT: &str = "1c2d7c8f-5c4a-4c1f-8b8e-4a9a5a8c3a71";

async fn announce(server: &Server, key: &str, token: &str) {
    let got = server.orbit("device_token", &json!({"orbit_node_key": key, "device_auth_token": token})).await;
    assert_eq!(got.status, 200, "{got:?}");
}

async fn get(server: &Server, path: &str, cookie: &str) -> Got {
    server.raw(Method::GET, path, &[("cookie", cookie)], "").await
}

/// A host whose orbit has announced [`TOKEN`]; returns both keys.
async fn host(server: &Server, secret: &str) -> (String, String) {
    let (orbit, osquery) = (server.orbit_key(secret, UUID).await, server.osquery_key(secret, UUID).await);
    announce(server, &orbit, TOKEN).await;
    (orbit, osquery)
}

#[tokio::test]
async fn fl69_a_good_token_gets_the_data_and_another_one_401() {
    let server = Server::start().await;
    let secret = server.secret().await;
    host(&server, &secret).await;
    for version in ["v1", "2022-04", "latest"] {
        for suffix in ["", "/ping", "/desktop"] {
            let path = |token: &str| format!("/api/{version}/fleet/device/{token}{suffix}");
            assert_eq!(get(&server, &path(TOKEN), "").await.status, 200);
            for bad in ["wrong", "a%2fb", UUID] {
                let got = get(&server, &path(bad), "").await;
                assert_eq!((got.status, got.json()["message"].is_string()), (401, true), "{got:?}");
            }
        }
    }
    assert_eq!(get(&server, "/device", "").await.status, 401, "without a cookie");
    assert_eq!(server.raw(Method::HEAD, &format!("/api/v1/fleet/device/{TOKEN}/ping"), &[], "").await.status, 200);
    let ping = server.raw(Method::HEAD, "/api/fleet/device/ping", &[], "").await;
    assert!(ping.status == 200 && ping.headers.contains_key("x-fleet-capabilities"));
}

#[tokio::test]
async fn m29_fl70_a_token_ends_after_an_hour_and_the_previous_one_at_its_own_time() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (orbit, _) = host(&server, &secret).await;
    let status = async |token: &str| get(&server, &format!("/api/latest/fleet/device/{token}/ping"), "").await.status;
    server.clock.advance(Duration::from_secs(3000));
    announce(&server, &orbit, TOKEN).await;
    announce(&server, &orbit, NEXT).await;
    assert_eq!((status(TOKEN).await, status(NEXT).await), (200, 200));
    server.clock.advance(Duration::from_secs(700));
    assert_eq!((status(TOKEN).await, status(NEXT).await), (401, 200), "announced again is no update");
    server.clock.advance(Duration::from_secs(3000));
    assert_eq!(status(NEXT).await, 401);
}

#[tokio::test]
async fn fl71_the_token_of_a_deleted_host_is_gone() {
    let server = Server::start().await;
    let secret = server.secret().await;
    host(&server, &secret).await;
    let context = OpContext::administrator(Actor::System);
    let record = server.record(Family::Orbit, UUID).await.expect("there");
    let id = record.host_id.expect("on a host");
    assert_eq!(server.fleet.agents().delete_host(&context, id.as_str()).await.expect("deleted"), 2);
    assert_eq!(get(&server, &format!("/api/latest/fleet/device/{TOKEN}/ping"), "").await.status, 401);
}

#[tokio::test]
async fn fl73_the_data_has_no_secret_and_nothing_of_another_host() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (orbit, osquery) = host(&server, &secret).await;
    server.osquery("distributed/write", &details(&osquery, "mine")).await;
    let mut other = orbit_enroll(&secret, "OTHER-UUID");
    other["hostname"] = json!("somebody-else");
    assert_eq!(server.orbit("enroll", &other).await.status, 200);
    let run = crate::scripts::run(&server, "echo script-text", &[UUID]).await;
    let reported = [
        ("scripts/result", json!({"execution_id": run.id, "output": "script-output", "runtime": 1, "exit_code": 0})),
        ("disk_encryption_key", json!({"encryption_key": "ZGlzay1rZXktb2YtbWluZQ=="})),
        ("luks_data", json!({"passphrase": "passphrase-of-mine", "salt": "salt-of-mine", "key_slot": 1})),
    ];
    for (call, mut body) in reported {
        body["orbit_node_key"] = json!(orbit);
        assert!(server.orbit(call, &body).await.status < 300, "{call}");
    }
    let data = get(&server, &format!("/api/latest/fleet/device/{TOKEN}"), "").await;
    assert_eq!(data.json()["host"]["hostname"], "mine");
    assert_eq!(data.json()["host"]["hardware_model"], "PowerEdge");
    let mut texts = vec![data.text, get(&server, "/device", &format!("muster_device={TOKEN}")).await.text];
    for rest in ["/desktop", "/policies", "/certificates", "/ping"] {
        let got = get(&server, &format!("/api/latest/fleet/device/{TOKEN}{rest}"), "").await;
        assert_eq!(got.status, 200, "{rest}");
        texts.push(got.text);
    }
    let hidden = [
        "script-text",
        "script-output",
        "ZGlzay1rZXktb2YtbWluZQ==",
        "disk-key-of-mine",
        "passphrase-of-mine",
        "salt-of-mine",
    ];
    for text in &texts {
        for hidden in [orbit.as_str(), &osquery, &secret, TOKEN, "somebody-else", "OTHER-UUID"].iter().chain(&hidden) {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
    }
}

#[tokio::test]
async fn m29_fl75_the_token_leaves_the_url_with_the_first_request() {
    let server = Server::start().await;
    let secret = server.secret().await;
    host(&server, &secret).await;
    for tail in ["", "/policies", "/self-service", "/software"] {
        let got = get(&server, &format!("/device/{TOKEN}{tail}"), "").await;
        assert_eq!((got.status, got.headers["location"].to_str().unwrap()), (303, "/device"));
        let cookie = got.headers["set-cookie"].to_str().unwrap();
        for part in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/device", "Max-Age=3600"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        let page = get(&server, "/device", cookie.split(';').next().unwrap()).await;
        for got in [&got, &page] {
            assert_eq!(got.headers["referrer-policy"], "no-referrer");
            assert_eq!(got.headers["cache-control"], "no-store");
            assert!(got.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        }
        assert!(page.status == 200 && page.text.contains("web-7"));
    }
    for (path, cookie) in [("/device/wrong", ""), ("/device", ""), ("/device", "muster_device=wrong")] {
        let got = get(&server, path, cookie).await;
        assert_eq!(got.status, 401);
        assert!(got.text.contains("expired") && !got.text.contains("wrong"), "{got:?}");
    }
}

#[tokio::test]
async fn what_a_host_reports_never_becomes_markup() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let canary = "<img src=x onerror=alert(1)>\"'&";
    let mut body = orbit_enroll(&secret, UUID);
    for field in ["hardware_serial", "hostname", "computer_name", "hardware_model", "platform", "platform_like"] {
        body[field] = json!(canary);
    }
    let key = server.orbit("enroll", &body).await.json()["orbit_node_key"].as_str().unwrap().to_owned();
    announce(&server, &key, TOKEN).await;
    let osquery = server.osquery_key(&secret, UUID).await;
    let mut facts = details(&osquery, canary);
    for (_, rows) in facts["queries"].as_object_mut().unwrap() {
        for value in rows[0].as_object_mut().unwrap().values_mut() {
            *value = Value::from(canary);
        }
    }
    server.osquery("distributed/write", &facts).await;
    let page = get(&server, "/device", &format!("muster_device={TOKEN}")).await;
    assert!(page.text.contains("&lt;img") && !page.text.contains("<img"), "{}", page.text);
}

#[tokio::test]
async fn trouble_of_the_store_is_no_invalid_token() {
    let server = Server::start().await;
    let secret = server.secret().await;
    host(&server, &secret).await;
    server.fleet.lose_lease();
    server.switch_off(true);
    let got = get(&server, &format!("/api/latest/fleet/device/{TOKEN}/ping"), "").await;
    assert_eq!(got.status, 503);
    let page = get(&server, "/device", &format!("muster_device={TOKEN}")).await;
    assert!(page.status == 503 && page.text.contains("not available"));
}

#[tokio::test]
async fn fl72_an_address_that_guesses_tokens_learns_how_long_to_wait() {
    let server = Server::start().await;
    let secret = server.secret().await;
    host(&server, &secret).await;
    let path = |token: &str| format!("/api/latest/fleet/device/{token}/ping");
    for _ in 0..1000 {
        assert_eq!(get(&server, &path("guess"), "").await.status, 401);
    }
    let refused = get(&server, &path(TOKEN), "").await;
    assert_eq!((refused.status, &refused.headers["retry-after"]), (429, &"60".parse().unwrap()));
    let told = server.events("agent.secret_guessing").await;
    assert_eq!(told.len(), 1, "one event for each time that an address is refused: {told:?}");
    assert_eq!((&told[0]["subject"], &told[0]["address"]), (&json!("address:192.0.2.7"), &json!("192.0.2.7")));
    let detail = json!({"secret": "device_token", "count": 1000, "refused_for_seconds": 60});
    assert_eq!(told[0]["detail"], detail);
}

#[tokio::test]
async fn fl73_data_of_a_device_is_not_cached() {
    let server = Server::start().await;
    let secret = server.secret().await;
    host(&server, &secret).await;
    for suffix in ["", "/desktop", "/ping", "/policies", "/transparency"] {
        let got = get(&server, &format!("/api/latest/fleet/device/{TOKEN}{suffix}"), "").await;
        let status = if suffix == "/transparency" { 307 } else { 200 };
        assert_eq!((got.status, &got.headers["cache-control"]), (status, &"no-store".parse().unwrap()), "{suffix}");
    }
}

#[tokio::test]
async fn fl69_the_links_of_fleet_desktop_lead_to_the_policies_and_to_what_is_known_about_the_host() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (_, key) = host(&server, &secret).await;
    let grant = OpContext::administrator(Actor::System).grant().expect("an administrator");
    let draft = CheckDraft {
        name: Some("disk".into()),
        query: Some("SELECT 1".into()),
        resolution: Some("Turn on encryption.".into()),
        ..CheckDraft::default()
    };
    let check = server.fleet.host_checks().create(&grant, draft).await.expect("a check");
    let results = json!({"node_key": key, "queries": {check.query_name(): []}, "statuses": {check.query_name(): 0}});
    assert_eq!(server.osquery("distributed/write", &results).await.status, 200);
    let at = async |suffix: &str| get(&server, &format!("/api/latest/fleet/device/{TOKEN}/{suffix}"), "").await;
    let policies = at("policies").await.json()["policies"].clone();
    assert_eq!((&policies[0]["name"], &policies[0]["response"]), (&json!("disk"), &json!("fail")), "{policies}");
    assert_eq!(policies[0]["resolution"], "Turn on encryption.");
    assert!(policies[0].get("query").is_none(), "SQL is not shown to users");
    let link = at("transparency").await;
    assert_eq!((link.status, link.headers["location"].to_str().unwrap()), (307, "/device"));
    let cookie = link.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    assert!(get(&server, "/device", cookie).await.text.contains("Turn on encryption."));
    for suffix in ["policies", "transparency"] {
        assert_eq!(get(&server, &format!("/api/latest/fleet/device/wrong/{suffix}"), "").await.status, 401);
    }
}

#[tokio::test]
async fn fl74_the_host_for_browsers_is_that_of_the_options_of_the_space() {
    let server = Server::start().await;
    let secret = server.secret().await;
    host(&server, &secret).await;
    let path = format!("/api/latest/fleet/device/{TOKEN}/desktop");
    let told = async || get(&server, &path, "").await.json()["alternative_browser_host"].clone();
    assert_eq!(told().await, "");
    let grant = OpContext::administrator(Actor::System).grant().expect("an administrator");
    let options = "fleet_desktop: {alternative_browser_host: 'device.example.com:8443'}".to_owned();
    server.fleet.fleetd_options().update(&grant, Some(options), None).await.expect("valid options");
    assert_eq!(told().await, "device.example.com:8443");
}

#[tokio::test]
async fn the_page_says_whose_server_it_is_and_how_to_reach_its_administrators() {
    let server = Server::start().await;
    let secret = server.secret().await;
    host(&server, &secret).await;
    let page = async || get(&server, "/device", &format!("muster_device={TOKEN}")).await.text;
    let before = page().await;
    assert!(before.contains("your organization's fleet server") && !before.contains("<a "), "{before}");
    let grant = OpContext::administrator(Actor::System).grant().expect("an administrator");
    let options = "fleet_desktop: {organization: 'A & <B>', contact_url: 'https://it.example.com/?q=\"x'}".to_owned();
    server.fleet.fleetd_options().update(&grant, Some(options), None).await.expect("valid options");
    let after = page().await;
    assert!(after.contains("the fleet server of A &amp; &lt;B&gt;"), "{after}");
    assert!(after.contains("<a href=\"https://it.example.com/?q=&quot;x\""), "{after}");
    let told = async |suffix: &str| get(&server, &format!("/api/latest/fleet/device/{TOKEN}{suffix}"), "").await.json();
    assert_eq!(told("").await["org_contact_url"], "https://it.example.com/?q=\"x");
    let desktop = told("/desktop").await["config"]["org_info"].clone();
    assert_eq!(
        (&desktop["org_name"], &desktop["contact_url"]),
        (&json!("A & <B>"), &json!("https://it.example.com/?q=\"x"))
    );
}

#[tokio::test]
async fn the_data_of_a_device_has_the_id_and_the_status_of_fleetdms_api() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let orbit = server.orbit_key(&secret, UUID).await;
    announce(&server, &orbit, TOKEN).await;
    let told = async || get(&server, &format!("/api/latest/fleet/device/{TOKEN}"), "").await.json()["host"].clone();
    assert_eq!((&told().await["id"], &told().await["status"]), (&Value::Null, &json!("offline")), "without osquery");
    let osquery = server.osquery_key(&secret, UUID).await;
    server.osquery("config", &json!({"node_key": osquery})).await;
    let id = numbers::of_host(&agent_id(Family::Osquery, UUID)).expect("a number");
    assert_eq!((&told().await["id"], &told().await["status"]), (&json!(id), &json!("online")));
}

#[tokio::test]
async fn a_refetch_from_the_page_makes_the_host_report_and_is_written_once() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (orbit, key) = (server.orbit_key(&secret, UUID).await, server.osquery_key(&secret, UUID).await);
    let token = "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60";
    server.orbit("device_token", &json!({"orbit_node_key": orbit, "device_auth_token": token})).await;
    server.osquery("distributed/write", &details(&key, "web-7")).await;
    let asked = async || {
        let read = server.osquery("distributed/read", &json!({"node_key": key})).await.json();
        read["queries"].as_object().expect("queries").contains_key("fleet_detail_query_system_info")
    };
    assert!(!asked().await);
    let path = format!("/api/latest/fleet/device/{token}/refetch");
    let refetch = async || server.raw(Method::POST, &path, &[], "").await.status;
    assert_eq!(refetch().await, 200);
    assert!(asked().await);
    let commits = server.commits();
    assert_eq!((refetch().await, server.commits()), (200, commits), "it has not reported since");
    server.osquery("distributed/write", &details(&key, "web-7")).await;
    let cookie = format!("muster_device={token}");
    let page = server.raw(Method::POST, "/device/refetch", &[("cookie", &cookie)], "").await;
    assert_eq!((page.status, page.headers["location"].to_str().expect("text")), (303, "/device"));
    assert!(asked().await);
    assert_eq!(server.raw(Method::POST, "/device/refetch", &[], "").await.status, 401);
    assert_eq!(server.raw(Method::GET, &path, &[], "").await.status, 405);
    let shown = server.raw(Method::GET, "/device", &[("cookie", &cookie)], "").await;
    assert!(shown.text.contains("action=\"/device/refetch\""));
}
