//! The pages of scripts, carves and disk keys in headless Chromium, without a mouse, with a simulated host of fleetd.

use std::time::Duration;

use serde_json::json;

use crate::browser::Browser;
use crate::web_hosts::SimulatedHost;
use crate::web_pages::set_up;
use crate::web_settings::{heading, press};
use crate::world::{json as muster, world};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_simulated_host_runs_a_script_and_uploads_files_while_the_pages_wait() {
    let secret =
        muster(&["enrollment-key", "create", "--family", "fleetd", "--name", "web scripts"])["api_key"].clone();
    let browser = Browser::by_keyboard();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-scripts");
    let _host = SimulatedHost::start(secret.as_str().unwrap(), "780");
    browser.open(&format!("{site}/hosts?q=hostname%3Adrone-780"));
    browser.wait(SOON, "return document.querySelector('#list')?.innerText.includes('drone-780')");
    browser.wait(SOON, "return document.querySelector('#list').innerText.includes('orbit')");
    // The list is renewed while the host reports, so the keyboard would lose its place.
    let host = browser.run("return document.querySelector('#list td a').href");
    browser.open(host.as_str().unwrap());
    heading(&browser, "drone-780");

    press(&browser, "Run a script");
    heading(&browser, "Run a script");
    browser.fill("textarea[name=script]", "#!/bin/sh\necho hi");
    browser.fill("input[name=name]", "greet");
    press(&browser, "Review the run");
    heading(&browser, "Review the run");
    assert!(browser.text().contains("1 host: drone-780"), "{}", browser.text());
    press(&browser, "Run on 1 host");
    heading(&browser, "Run of greet");
    browser.run("window.reloaded = false");
    browser.wait(SOON, "return document.querySelector('#results pre')?.innerText.includes('drone-780: 2 lines')");
    browser.wait(SOON, "return document.querySelector('#state').innerText.includes('complete')");
    assert_eq!(browser.run("return window.reloaded"), json!(false), "the output came onto the open page");

    press(&browser, "drone-780");
    heading(&browser, "drone-780");
    assert!(browser.text().contains("greet"), "{}", browser.text());
    press(&browser, "Request files");
    heading(&browser, "Request a carve");
    browser.fill("textarea[name=paths]", "/etc/hosts");
    press(&browser, "Review the request");
    browser.wait(SOON, "return document.body.innerText.includes('This live query runs on 1 host')");
    press(&browser, "Request from 1 host");
    heading(&browser, "Carves");
    browser.wait(SOON, "return document.querySelector('#carves td')?.innerText.includes('drone-780')");
    browser.wait(SOON, "return document.querySelector('#carves').innerText.includes('complete')");
    press(&browser, "Open");
    heading(&browser, "Carve of drone-780");
    press(&browser, "Delete");
    heading(&browser, "Delete the carve of drone-780");
    press(&browser, "Delete the carve");
    browser.wait(SOON, "return document.body.innerText.includes('The carve is deleted.')");
    assert_eq!(browser.console_errors(), Vec::<String>::new());
}
