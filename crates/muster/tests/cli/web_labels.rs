//! The pages of labels and packs in headless Chromium, by keyboard, with a simulated host of fleetd.

use std::time::Duration;

use serde_json::json;

use crate::browser::Browser;
use crate::web_hosts::SimulatedHost;
use crate::web_pages::set_up;
use crate::web_settings::{heading, press};
use crate::world::{json as muster, world};

const SOON: Duration = Duration::from_secs(20);
const SPACE: &str = " ";

#[test]
fn a_host_gets_a_label_a_pack_and_a_live_query_by_keyboard() {
    let secret = muster(&["enrollment-key", "create", "--family", "fleetd", "--name", "web labels"])["api_key"].clone();
    let host = SimulatedHost::start(secret.as_str().unwrap(), "771");
    let browser = Browser::by_keyboard();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-labeller");
    browser.open(&format!("{site}/hosts?q=hostname%3Adrone-771"));
    browser.wait(SOON, "return document.querySelector('#list').innerText.includes('osquery')");

    // A manual label, on its own page.
    browser.open(&format!("{site}/labels"));
    press(&browser, "Create a label");
    heading(&browser, "Create a label");
    browser.fill("input[name=name]", "walked group");
    press(&browser, "Save");
    heading(&browser, "Label walked group");
    assert!(browser.text().contains("The label walked group is created, with 0 hosts."), "{}", browser.text());
    browser.fill("textarea[name=add]", "nowhere");
    press(&browser, "Add the label to these hosts");
    browser.wait(SOON, "return document.querySelector('#problem-hosts') !== null");
    assert_eq!(browser.run("return document.querySelector('textarea[name=add]').value"), json!("nowhere"));
    assert!(browser.console_errors().iter().all(|text| text.contains("404")), "the form that has failed");
    browser.fill("textarea[name=add]", "drone-771");
    press(&browser, "Add the label to these hosts");
    browser.wait(SOON, "return document.body.innerText.includes('The label is added to 1 host.')");

    // A pack for it.
    browser.open(&format!("{site}/packs/new"));
    browser.fill("input[name=name]", "walked pack");
    browser.tab_to("input[name=labels][value='walked group']");
    browser.press(SPACE);
    press(&browser, "Save");
    heading(&browser, "Pack walked pack");
    browser.tab_to("details.spaced summary");
    browser.press(SPACE);
    browser.fill("input[name=name]", "ports");
    browser.fill("textarea[name=query]", "SELECT port FROM listening_ports");
    press(&browser, "Save the query");
    browser.wait(SOON, "return document.body.innerText.includes('The pack walked pack is saved.')");
    assert!(browser.text().contains("ports") && browser.text().contains("1 h"), "{}", browser.text());
    let pack = muster(&["pack", "show", "walked pack"]);
    assert_eq!(pack["pack"]["queries"]["ports"]["interval"], 3600, "{pack}");

    // Both are on the page of the host, where the label is removed.
    browser.open(&format!("{site}/hosts?label=walked%20group"));
    press(&browser, "drone-771");
    heading(&browser, "drone-771");
    assert!(browser.text().contains("walked group") && browser.text().contains("walked pack"), "{}", browser.text());
    assert_eq!(browser.run(WIDE_CARDS), json!([]), "a card is scrolled sideways");

    // A live query on the hosts with the label.
    press(&browser, "walked group");
    heading(&browser, "Label walked group");
    press(&browser, "Run a query on them");
    heading(&browser, "Run a query");
    browser.fill("textarea[name=sql]", "SELECT hostname FROM system_info");
    press(&browser, "Count the hosts");
    browser.wait(SOON, "return document.body.innerText.includes('The query will run on 1 host.')");
    press(&browser, "Run on 1 host");
    heading(&browser, "Live query");
    browser.wait(SOON, "return document.querySelector('#results td')?.innerText === 'drone-771'");

    press(&browser, "drone-771");
    heading(&browser, "drone-771");
    browser.tab_to("button[name=remove]");
    browser.press(SPACE);
    browser.wait(SOON, "return document.body.innerText.includes('The label is removed from the host.')");
    assert!(!browser.text().contains("walked pack"), "{}", browser.text());
    drop(host);
    assert_eq!(muster(&["label", "show", "walked group"])["hosts"], 0);
    assert_eq!(browser.console_errors(), Vec::<String>::new());
}

/// The headings of the cards whose tables are wider than they are.
const WIDE_CARDS: &str = "return [...document.querySelectorAll('.card .scroll')]
    .filter(one => one.scrollWidth > one.clientWidth).map(one => one.closest('.card').querySelector('h2').innerText)";
