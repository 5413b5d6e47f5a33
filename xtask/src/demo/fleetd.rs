//! The part of `./demo --check` for hosts of fleetd: one enrolls, answers a live query, and is deleted.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::muster::{Muster, items};
use super::steps::Steps;
use super::{STOP, text};
use crate::bench::now_us;
use crate::screenshots::browser::Browser;

/// Name of the simulated host.
const HOST: &str = "drone-7";
/// Its first device token.
const DEVICE_TOKEN: &str = "00000001-0000-4000-8000-000000000007";
/// Maximum time from the deletion of a host until its keys are rejected.
const WITHIN: Duration = Duration::from_secs(1);

/// Takes a simulated host through its life cycle.
pub fn check(muster: &Muster, steps: &mut Steps) -> anyhow::Result<()> {
    let key = muster.json(&["enrollment-key", "create", "--family", "fleetd", "--name", "demo hosts"])?;
    let (secret, key) = (text(&key, "api_key")?, text(&key, "id")?);
    steps.done("enroll secret of fleetd created");
    let mut host = muster.start_fleetd_host(&secret)?;
    steps.wait("orbit and osquery are online as one host", || online(muster))?;
    answers(muster)?;
    steps.done("the host answered a live query");
    let browser = Browser::start(&muster.fleetd_log().with_file_name("chromedriver.log"))?;
    steps.wait("My device opens in Chromium", || opens(muster, &browser))?;
    drop(browser);
    muster.run(&["enrollment-key", "revoke", &key, "--yes"])?;
    answers(muster)?;
    steps.done("enroll secret revoked; the host still answers");
    let deleted = now_us();
    muster.run(&["host", "delete", HOST, "--yes"])?;
    let last = steps.wait("the keys of the deleted host are rejected", || rejected(muster))?;
    let took = Duration::from_micros(last.saturating_sub(deleted));
    anyhow::ensure!(took <= WITHIN, "the keys were rejected only after {} ms", took.as_millis());
    host.stop(STOP)?;
    Ok(())
}

/// Returns whether there is one host, with two agents that are online.
fn online(muster: &Muster) -> anyhow::Result<Option<()>> {
    let hosts = muster.json(&["host", "list", "--filter", "family:osquery or family:orbit"])?;
    anyhow::ensure!(items(&hosts).count() <= 1, "two hosts instead of one: {hosts}");
    let agents = items(&hosts).flat_map(|host| items(&host["agents"]));
    Ok((agents.filter(|agent| agent["status"] == "online").count() == 2).then_some(()))
}

/// Runs a live query, and checks the row of the host.
fn answers(muster: &Muster) -> anyhow::Result<()> {
    let sql = "SELECT hostname FROM system_info";
    let result = muster.json(&["query", "run", sql, "--host", HOST, "--timeout", "30"])?;
    anyhow::ensure!(result["rows"][0]["hostname"] == HOST, "not the row of the host: {result}");
    Ok(())
}

/// Opens the page of the host as Fleet Desktop does, and returns whether it has announced the token.
fn opens(muster: &Muster, browser: &Browser) -> anyhow::Result<Option<()>> {
    let page = format!("{}/device", muster.url()?);
    browser.open(&format!("{page}/{DEVICE_TOKEN}"))?;
    // Without a redirect to the address without the token, it is unknown yet.
    if browser.run("return location.href")? != page.as_str() {
        return Ok(None);
    }
    let text = browser.run("return document.body.innerText")?;
    let is_of_host = text.as_str().is_some_and(|text| text.contains("My device") && text.contains(HOST));
    anyhow::ensure!(is_of_host, "not the page of the host: {text}");
    Ok(Some(()))
}

/// Returns the time at which the second of the two keys was rejected, in microseconds since 1970.
fn rejected(muster: &Muster) -> anyhow::Result<Option<u64>> {
    let log = std::fs::read_to_string(muster.fleetd_log()).context("no log of the simulated host")?;
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut times = events.filter(|event| event["event"] == "rejected").filter_map(|event| event["at_us"].as_u64());
    Ok(times.nth(1))
}
