//! The pages of hosts in headless Chromium, with a simulated host of fleetd.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::web_pages::set_up;
use crate::web_settings::{heading, press};
use crate::world::{command, json as muster, ok, world};

const SOON: Duration = Duration::from_secs(20);

/// A host with orbit and osqueryd, until it is dropped.
pub struct SimulatedHost(Child);

impl SimulatedHost {
    pub fn start(secret: &str, number: &str) -> Self {
        let (url, ca) = (format!("https://{}", world().agents), world().data().join("ca.crt"));
        let to = ["drones", "--url", &url, "--ca", ca.to_str().unwrap(), "--enrollment-token", secret];
        let host = ["--family", "fleetd", "--count", "1", "--first", number, "--interval", "0.5"];
        let mut drones = command(&[&to[..], &host].concat());
        Self(drones.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for SimulatedHost {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_simulated_host_is_found_answers_a_live_query_and_is_deleted() {
    let secret = muster(&["enrollment-key", "create", "--family", "fleetd", "--name", "web hosts"])["api_key"].clone();
    let browser = Browser::start();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-hosts");
    let sessions = ok(&["user", "sessions", "web-hosts", "--output", "json"]);
    let sessions: Value = serde_json::from_str(&sessions).unwrap();
    assert_eq!(sessions[0]["address"], "127.0.0.1", "{sessions}");
    assert!(ok(&["user", "sessions", "web-hosts"]).contains("127.0.0.1"));

    browser.open(&format!("{site}/hosts?q=hostname%3Adrone-770"));
    assert!(browser.text().contains("No host matches."), "{}", browser.text());
    browser.run("window.reloaded = false");
    let host = SimulatedHost::start(secret.as_str().unwrap(), "770");
    browser.wait(SOON, "return document.querySelector('#list').innerText.includes('drone-770')");
    browser.wait(SOON, "return document.querySelector('#list').innerText.includes('osquery')");
    assert_eq!(browser.run("return window.reloaded"), json!(false), "the host came onto the open page");
    press(&browser, "drone-770");
    heading(&browser, "drone-770");
    assert!(browser.text().contains("PowerEdge"), "{}", browser.text());

    press(&browser, "Run a query");
    heading(&browser, "Run a query");
    browser.fill("textarea[name=sql]", "SELECT hostname FROM system_info");
    press(&browser, "Count the hosts");
    browser.wait(SOON, "return document.body.innerText.includes('The query will run on 1 host.')");
    press(&browser, "Run on 1 host");
    heading(&browser, "Live query");
    browser.run("window.reloaded = false");
    browser.wait(SOON, "return document.querySelector('#results td')?.innerText === 'drone-770'");
    browser.wait(SOON, "return document.querySelector('#state').innerText.includes('complete')");
    assert_eq!(browser.run("return window.reloaded"), json!(false), "the row came onto the open page");

    press(&browser, "drone-770");
    heading(&browser, "drone-770");
    // It would enroll again at once.
    drop(host);
    press(&browser, "Delete the host");
    heading(&browser, "Delete the host drone-770?");
    assert!(browser.text().contains("2 agents of the host"), "{}", browser.text());
    press(&browser, "Delete the host");
    browser.wait(SOON, "return document.body.innerText.includes('The host is deleted, with 2 agents.')");
    browser.open(&format!("{site}/hosts?q=hostname%3Adrone-770"));
    assert!(browser.text().contains("No host matches."), "{}", browser.text());
    assert_eq!(browser.console_errors(), Vec::<String>::new());
}
