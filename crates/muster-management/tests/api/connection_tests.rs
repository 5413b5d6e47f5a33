//! Connection tests of Fleet Server hosts, proxies and download sources over REST; their network is a double, which records what
//! it is asked to connect to.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use muster_core::connection_test::{Cause, Step, StepName, Target, Tested, origin_of};
use muster_fleet::connection_tests::Prober;
use muster_fleet::testing::TestFleet;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::support::Api;

/// A network in which only hosts with `good` in their names answer.
struct Network {
    asked: Mutex<Vec<Target>>,
    /// Permits for answers.
    open: Semaphore,
}

#[async_trait]
impl Prober for Network {
    async fn probe(&self, target: &Target) -> Tested {
        self.open.acquire().await.unwrap().forget();
        self.asked.lock().unwrap().push(target.clone());
        let outcome = match target.url.contains("good") {
            true => Ok("fleet-server reports HEALTHY".to_owned()),
            false => Err(Cause::Refused.because("connection refused")),
        };
        Tested { url: origin_of(&target.url), steps: vec![Step { name: StepName::Response, outcome }] }
    }
}

impl Network {
    fn last(&self) -> Target {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

fn network(permits: usize) -> (Api, Arc<Network>) {
    let network = Arc::new(Network { asked: Mutex::default(), open: Semaphore::new(permits) });
    let store = Arc::new(muster_store::testing::fresh());
    (Api::of(TestFleet::probing(store, Arc::clone(&network) as Arc<dyn Prober>)), network)
}

/// The audit log as text.
async fn log(api: &Api) -> String {
    let lines = api.fleet.store().audit_events(0, 10_000).await.unwrap();
    lines.into_iter().map(|(_, json, _)| json).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn every_url_of_a_fleet_server_host_is_tested_before_or_after_it_is_saved() {
    let (api, network) = network(100);
    let host = json!({"name": "h", "host_urls": ["https://good:8220", "https://bad:8220"],
        "ssl": {"agent_certificate": "CERT", "agent_key": "KEY-OF-AGENTS"}});
    let tested = api.post("/fleet_server_hosts/_test", host.clone()).await.ok();
    assert_eq!(tested["usable"], false);
    let [good, bad] = [&tested["addresses"][0], &tested["addresses"][1]];
    assert_eq!((&good["address"], &good["usable"]), (&json!("https://good:8220"), &json!(true)));
    let step = json!({"step": "response", "passed": true, "message": "fleet-server reports HEALTHY"});
    assert_eq!(good["steps"], json!([step]));
    assert!(bad["steps"][0]["remedy"].as_str().unwrap().contains("whether the service runs"), "{bad}");
    assert_eq!(network.last().ssl.key.as_deref(), Some("KEY-OF-AGENTS"), "a key that is not saved is used");
    assert!(!network.last().is_own);
    assert_eq!(api.get("/fleet_server_hosts").await.ok()["items"], json!([]), "it is not created");

    let id = api.post("/fleet_server_hosts", host).await.ok()["item"]["id"].as_str().unwrap().to_owned();
    let path = format!("/fleet_server_hosts/{id}/_test");
    assert_eq!(api.post(&path, json!({})).await.ok()["addresses"].as_array().unwrap().len(), 2);
    assert_eq!(network.last().ssl.key.as_deref(), Some("KEY-OF-AGENTS"), "and so is a stored one");
    let tested = api.post(&path, json!({"host_urls": ["https://good:1"]})).await.ok();
    assert_eq!(tested["usable"], true, "{tested}");
    let stored = api.get(&format!("/fleet_server_hosts/{id}")).await.ok()["item"]["host_urls"].clone();
    assert_eq!(stored, json!(["https://good:8220", "https://bad:8220"]), "the change is not saved");

    let audit = log(&api).await;
    assert_eq!(audit.matches("server_host.test").count(), 3, "{audit}");
    assert!(audit.contains("https://bad:8220") && !audit.contains("KEY-OF-AGENTS"), "{audit}");
    for (field, body) in
        [("host_urls", json!({})), ("proxy_id", json!({"host_urls": ["https://good"], "proxy_id": "p"}))]
    {
        assert_eq!(api.post("/fleet_server_hosts/_test", body).await.refused(400)["field"], field);
    }
    api.post("/fleet_server_hosts/nothing/_test", json!({})).await.refused(404);
}

#[tokio::test]
async fn stored_secrets_are_tested_where_they_belong_and_never_sent_elsewhere() {
    let (api, network) = network(100);
    let source =
        json!({"id": "s", "name": "s", "host": "https://good/", "auth": {"username": "u", "password": "hush"}});
    api.post("/agent_download_sources", source).await.ok();
    api.post("/agent_download_sources/s/_test", json!({})).await.ok();
    assert_eq!(network.last().basic, Some(("u".to_owned(), "hush".to_owned())));
    let moved = api.post("/agent_download_sources/s/_test", json!({"host": "https://good.evil/"})).await.refused(400);
    assert_eq!(moved["field"], "auth.password");
    assert_eq!(network.asked.lock().unwrap().len(), 1, "nothing was connected to");
    let audit = log(&api).await;
    assert!(audit.contains("download_source.test") && !audit.contains("hush"), "{audit}");
}

#[tokio::test]
async fn a_proxy_must_connect_to_the_default_fleet_server_host() {
    let (api, network) = network(100);
    let proxy = json!({"name": "p", "url": "http://user:hush@proxy:3128", "proxy_headers": {"X-Site": "7"}});
    assert_eq!(api.post("/proxies/_test", proxy.clone()).await.refused(409)["code"], "no_fleet_server_host");
    let host = json!({"name": "h", "host_urls": ["https://good:8220"], "is_default": true});
    api.post("/fleet_server_hosts", host).await.ok();
    let id = api.post("/proxies", proxy).await.ok()["item"]["id"].as_str().unwrap().to_owned();
    assert_eq!(api.post(&format!("/proxies/{id}/_test"), json!({})).await.ok()["usable"], true);
    let target = network.last();
    let via = target.via.unwrap();
    assert_eq!((target.url.as_str(), via.url.as_str()), ("https://good:8220", "http://user:hush@proxy:3128"));
    let audit = log(&api).await;
    assert!(audit.contains("http://proxy:3128") && !audit.contains("hush"), "{audit}");
}

#[tokio::test]
async fn at_most_four_tests_run_at_once() {
    let (api, network) = network(0);
    let api = Arc::new(api);
    let test = |api: Arc<Api>| async move {
        api.post("/agent_download_sources/_test", json!({"name": "s", "host": "https://good/"})).await
    };
    let running: Vec<_> = (0..4).map(|_| tokio::spawn(test(Arc::clone(&api)))).collect();
    // Admitted before anything else is awaited that other tasks could overtake; the fifth finds all places taken.
    while api.audit().await.iter().filter(|action| *action == "download_source.test").count() < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(test(Arc::clone(&api)).await.refused(429)["code"], "too_many_connection_tests");
    network.open.add_permits(5);
    for one in running {
        assert_eq!(one.await.unwrap().ok()["usable"], true);
    }
    assert_eq!(test(api).await.ok()["usable"], true, "the places are free again");
}
