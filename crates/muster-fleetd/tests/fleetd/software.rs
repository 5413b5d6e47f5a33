//! Software: what hosts report of it, and how it is found.

use http::Method;
use muster_core::authorization::{Actor, OpContext};
use muster_core::fleetd::software::version::Conditions;
use muster_core::id::SpaceId;
use muster_fleet::software::Search;
use muster_store::query::{HostRows, Page, SoftwareSearch};
use serde_json::{Value, json};

use crate::setting::{Server, UUID};

const DEB: &str = "fleet_detail_query_software_deb_packages";
const PYTHON: &str = "fleet_detail_query_software_python_packages";
const PAGE: Page = Page { offset: 0, limit: 10 };
const TOKEN: &str = "0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60";

fn packages(packages: &[(&str, &str)]) -> Value {
    packages.iter().map(|(name, version)| json!({"name": name, "version": version})).collect()
}

async fn report(server: &Server, key: &str, debs: &Value, python: &Value, python_status: u8) {
    let body =
        json!({"node_key": key, "queries": {DEB: debs, PYTHON: python}, "statuses": {DEB: 0, PYTHON: python_status}});
    let got = server.osquery("distributed/write", &body).await;
    assert_eq!((got.status, got.text.as_str()), (200, "{}"));
}

fn in_space(space: &str) -> OpContext {
    OpContext::administrator(Actor::System).in_space(SpaceId::trusted(space))
}

/// Returns what a search finds: names, versions and numbers of hosts.
async fn found(server: &Server, space: &str, name: &str, versions: Option<&str>) -> Vec<(String, String, u64)> {
    server.fleet.software().index().await.expect("an index");
    let search = Search {
        software: SoftwareSearch { name: name.into(), source: None },
        versions: versions.map(|text| Conditions::parse(text).expect("valid conditions")),
        after: None,
    };
    let grant = in_space(space).grant().expect("an administrator");
    let found = server.fleet.software().list(&grant, &search, PAGE).await.expect("a list");
    assert_eq!(found.total, found.items.len() as u64);
    found.items.into_iter().map(|found| (found.software.name, found.software.version, found.hosts)).collect()
}

#[tokio::test]
async fn software_is_asked_with_the_details_and_found_by_name_and_version() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let keys = [server.osquery_key(&secret, UUID).await, server.osquery_key(&secret, "other").await];
    let read = server.osquery("distributed/read", &json!({"node_key": keys[0]})).await.json();
    assert!(read["queries"][DEB].is_string() && read["discovery"][PYTHON].is_string(), "{read}");
    report(&server, &keys[0], &packages(&[("openssl", "3.0.2-1"), ("bash", "5.1")]), &packages(&[("pip", "22.0")]), 0)
        .await;
    report(&server, &keys[1], &packages(&[("OpenSSL", "3.0.10-1"), ("bash", "5.1")]), &json!([]), 0).await;
    let openssl = found(&server, "default", "openssl", None).await;
    assert_eq!(openssl, [("openssl".into(), "3.0.2-1".into(), 1), ("OpenSSL".into(), "3.0.10-1".into(), 1)]);
    let old = found(&server, "default", "open*", Some("<3.0.7")).await;
    assert_eq!(old, [("openssl".into(), "3.0.2-1".into(), 1)]);
    assert_eq!(found(&server, "default", "bash", None).await, [("bash".into(), "5.1".into(), 2)]);
    assert_eq!(found(&server, "default", "", None).await.len(), 4);
    assert!(found(&server, "elsewhere", "", None).await.is_empty(), "of the space only");
}

#[tokio::test]
async fn fl34_an_equal_report_writes_nothing_and_a_changed_one_replaces_the_list() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    let first = packages(&[("bash", "5.1"), ("vim", "9.0")]);
    report(&server, &key, &first, &json!([]), 0).await;
    let commits = server.commits();
    report(&server, &key, &first, &json!([]), 0).await;
    // Also in another order.
    report(&server, &key, &packages(&[("vim", "9.0"), ("bash", "5.1")]), &json!([]), 0).await;
    assert_eq!(server.commits(), commits);
    assert_eq!(found(&server, "default", "", None).await.len(), 2);
    report(&server, &key, &packages(&[("bash", "5.2")]), &json!([]), 0).await;
    assert_eq!(found(&server, "default", "", None).await, [("bash".into(), "5.2".into(), 1)]);
}

#[tokio::test]
async fn software_from_a_source_whose_query_failed_is_kept() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    report(&server, &key, &packages(&[("bash", "5.1")]), &packages(&[("pip", "22.0")]), 0).await;
    report(&server, &key, &packages(&[("bash", "5.2")]), &json!([]), 1).await;
    let names = found(&server, "default", "", None).await;
    assert_eq!(names, [("bash".into(), "5.2".into(), 1), ("pip".into(), "22.0".into(), 1)]);
}

#[tokio::test]
async fn software_from_a_source_without_an_answer_is_kept_unless_the_system_was_replaced() {
    let server = Server::start().await;
    let key = server.osquery_key(&server.secret().await, UUID).await;
    report(&server, &key, &packages(&[("bash", "5.1")]), &packages(&[("pip", "22.0")]), 0).await;
    let answer = async |query: &str, found: &Value| {
        let body = json!({"node_key": key, "queries": {query: found}, "statuses": {query: 0}});
        assert_eq!(server.osquery("distributed/write", &body).await.status, 200);
    };
    let names = async || {
        let found = found(&server, "default", "", None).await.into_iter();
        found.map(|(name, ..)| name).collect::<Vec<_>>()
    };
    answer(DEB, &packages(&[("bash", "5.1")])).await;
    assert_eq!(names().await, ["bash", "pip"]);
    answer(PYTHON, &json!([])).await;
    assert_eq!(names().await, ["bash"]);
    answer("fleet_detail_query_software_programs", &packages(&[("7-Zip", "24")])).await;
    assert_eq!(names().await, ["7-Zip"]);
}

#[tokio::test]
async fn software_leaves_the_index_with_its_host_and_moves_with_it() {
    let server = Server::start().await;
    let (secret, other) = (server.secret().await, server.secret_in("other").await);
    let key = server.osquery_key(&secret, UUID).await;
    report(&server, &key, &packages(&[("bash", "5.1")]), &json!([]), 0).await;
    assert_eq!(found(&server, "default", "bash", None).await.len(), 1);
    server.osquery_key(&other, UUID).await;
    assert!(found(&server, "default", "bash", None).await.is_empty());
    assert_eq!(found(&server, "other", "bash", None).await.len(), 1);
    let context = in_space("other");
    let hosts = server
        .fleet
        .agents()
        .hosts(&context.grant().expect("a grant"), &Default::default(), &HostRows::Page(PAGE))
        .await;
    let host = hosts.expect("a list").items.remove(0).host.id;
    server.fleet.agents().delete_host(&context, host.as_str()).await.expect("as expected");
    assert!(found(&server, "other", "bash", None).await.is_empty());
}

#[tokio::test]
async fn my_device_shows_the_software_of_the_host_and_hides_what_it_could_run() {
    let server = Server::start().await;
    let secret = server.secret().await;
    let (orbit, key) = (server.orbit_key(&secret, UUID).await, server.osquery_key(&secret, UUID).await);
    let elsewhere = server.osquery_key(&secret, "other").await;
    report(&server, &key, &packages(&[("<script>alert(1)</script>", "5.1")]), &json!([]), 0).await;
    report(&server, &elsewhere, &packages(&[("of-somebody-else", "1")]), &json!([]), 0).await;
    server.orbit("device_token", &json!({"orbit_node_key": orbit, "device_auth_token": TOKEN})).await;
    let page = server.raw(Method::GET, "/device", &[("cookie", &format!("muster_device={TOKEN}"))], "").await.text;
    assert!(
        page.contains("&lt;script&gt;alert(1)") && !page.contains("<script") && page.contains("1 package"),
        "{page}"
    );
    assert!(!page.contains("of-somebody-else"));
    let data = server.raw(Method::GET, &format!("/api/latest/fleet/device/{TOKEN}"), &[], "").await.json();
    assert_eq!(data["host"]["software"][0]["version"], "5.1");
}
