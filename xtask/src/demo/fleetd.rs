//! The part of `./demo --check` for hosts of fleetd: one enrolls, answers a live query, shows its page, and is deleted.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::muster::{Muster, items};
use super::steps::Steps;
use super::{STOP, text};
use crate::bench::now_us;
use crate::browser::Browser;

/// Name of the simulated host.
const HOST: &str = "drone-7";
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
    my_device(muster, steps)?;
    steps.done("My device opened in Chromium, and its address has no token");
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

/// Opens the page of the host in a browser, as Fleet Desktop does.
fn my_device(muster: &Muster, steps: &mut Steps) -> anyhow::Result<()> {
    let announced = |event: &Value| event["event"] == "device_token" && event["host"] == HOST;
    let event = steps.wait("the host announced a device token", || Ok(events(muster)?.into_iter().find(announced)))?;
    let browser = Browser::start(&muster.directory().join("chromedriver.log"))?;
    let page = format!("{}/device", muster.url()?);
    browser.open(&format!("{page}/{}", text(&event, "token")?))?;
    let address = browser.run("return location.href")?;
    anyhow::ensure!(address == page.as_str(), "the address of the page is {address}");
    let shown = browser.run("return document.body.innerText")?;
    let is_of_host = shown.as_str().is_some_and(|shown| shown.contains("My device") && shown.contains(HOST));
    anyhow::ensure!(is_of_host, "the page does not show the host: {shown}");
    Ok(())
}

/// Returns the time at which the second of the two keys was rejected, in microseconds since 1970.
fn rejected(muster: &Muster) -> anyhow::Result<Option<u64>> {
    let rejected = events(muster)?.into_iter().filter(|event| event["event"] == "rejected");
    Ok(rejected.filter_map(|event| event["at_us"].as_u64()).nth(1))
}

/// Returns what the simulated host has reported so far.
fn events(muster: &Muster) -> anyhow::Result<Vec<Value>> {
    let log = std::fs::read_to_string(muster.fleetd_log()).context("no log of the simulated host")?;
    Ok(log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
