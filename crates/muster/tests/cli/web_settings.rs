//! Keys, roles, spaces, the audit log and alerts in headless Chromium, as an administrator and the helpdesk walk through them.

use std::time::Duration;

use serde_json::json;

use crate::agents::Agent;
use crate::browser::Browser;
use crate::web_pages::{PASSWORD, set_up};
use crate::world::{fails, json as muster, new_policy, ok, world};

const SOON: Duration = Duration::from_secs(10);

/// Waits until a page is shown with this heading.
#[track_caller]
pub fn heading(browser: &Browser, text: &str) {
    browser.wait(SOON, &format!("return document.querySelector('h1')?.innerText.startsWith({})", json!(text)));
}

/// Presses the button or link with this text.
#[track_caller]
pub fn press(browser: &Browser, text: &str) {
    let script = format!(
        "const found = [...document.querySelectorAll('main a, main button')].find(one => one.innerText.trim() === {});
         found.setAttribute('id', 'pressed'); return true",
        json!(text)
    );
    browser.run(&script);
    browser.click("#pressed");
}

#[test]
fn an_administrator_replaces_a_key_and_sees_it_in_the_audit_log() {
    let policy = new_policy("web replaced");
    let old = muster(&["enrollment-key", "create", "--policy", &policy, "--name", "web replaced key"]);
    let agent = Agent::enroll(old["api_key"].as_str().unwrap(), "web-replaced", &[]);
    let browser = Browser::by_keyboard();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-replacer");
    browser.open(&format!("{site}/keys?policy={policy}"));
    press(&browser, "web replaced key");
    heading(&browser, "Key web replaced key");
    assert!(browser.text().contains("1 agent"), "who came in: {}", browser.text());
    press(&browser, "Replace");
    heading(&browser, "Replace the key web replaced key?");
    press(&browser, "Replace the key");
    browser.wait(SOON, "return document.querySelector('#token') !== null");
    let token = browser.run("return document.querySelector('#token').innerText");
    assert_ne!(token, old["api_key"]);
    Agent::enroll(token.as_str().unwrap(), "web-replaced-2", &[]);
    let id = old["id"].as_str().unwrap();
    assert_eq!(muster(&["enrollment-key", "list", "--filter", &format!("id:\"{id}\"")])[0]["active"], false);
    fails(6, &["enrollment-key", "replace", id, "--yes"]);
    browser.open(&format!("{site}/audit"));
    browser.fill("input[name=action]", "enrollment_key.replace");
    browser.fill("input[name=subject]", &format!("enrollment_key:{id}"));
    browser.click("form[role=search] button");
    browser.wait(SOON, "return location.search.includes('enrollment_key.replace')");
    assert!(browser.text().contains("web replaced key"), "{}", browser.text());
    let _ = agent;
}

#[test]
fn the_helpdesk_sees_less_and_is_told_why_an_act_is_refused() {
    let browser = Browser::by_keyboard();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-chief");
    browser.open(&format!("{site}/settings/users/new"));
    browser.fill("input[name=name]", "web-helper");
    browser.click("main form button");
    heading(&browser, "User web-helper");
    assert!(browser.text().contains("is created, and has no role yet"), "{}", browser.text());
    browser.fill("select[name=role]", "helpdesk");
    press(&browser, "Give the role");
    browser.wait(SOON, "return document.body.innerText.includes('The role helpdesk is given.')");
    press(&browser, "Create a set-up link");
    browser.wait(SOON, "return document.querySelector('#link') !== null");
    let link = browser.run("return document.querySelector('#link').innerText");

    let helper = Browser::by_keyboard();
    helper.open(link.as_str().unwrap());
    helper.fill("input[name=password]", PASSWORD);
    helper.fill("input[name=again]", PASSWORD);
    helper.click("main button");
    heading(&helper, "Overview");
    helper.open(&format!("{site}/keys"));
    assert!(helper.text().contains("enrollment.read"), "the missing privilege: {}", helper.text());
    helper.open(&format!("{site}/settings"));
    assert!(helper.text().contains("Needs the privilege users.read"), "{}", helper.text());
    helper.open(&format!("{site}/agents"));
    heading(&helper, "Agents");

    press(&browser, "Lock");
    heading(&browser, "Lock web-helper?");
    press(&browser, "Lock the user");
    browser.wait(SOON, "return document.body.innerText.includes('web-helper is locked.')");
    helper.open(&format!("{site}/agents"));
    assert!(helper.text().contains("Log in"), "the session is ended: {}", helper.text());
}

#[test]
fn a_space_is_created_entered_and_left_by_the_menu() {
    let browser = Browser::by_keyboard();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-founder");
    browser.open(&format!("{site}/settings/spaces/new"));
    browser.fill("input[name=id]", "web-lab");
    browser.fill("input[name=name]", "The laboratory");
    browser.click("main form button");
    heading(&browser, "Spaces");
    browser.open(&format!("{site}/s/web-lab/agents"));
    assert!(browser.text().contains("No agent has enrolled in this space"), "{}", browser.text());
    browser.click(".who .menu > summary");
    let link = browser.run("return document.querySelector('.who .menu a:last-child').innerText");
    assert_eq!(link, json!("All spaces"));
    browser.click(".who .menu .sheet a:last-child");
    heading(&browser, "Spaces");
    assert_eq!(browser.run("return location.pathname"), json!("/s/web-lab/settings/spaces"));
    browser.open(&format!("{site}/settings/spaces/web-lab/delete"));
    press(&browser, "Delete the space");
    browser.wait(SOON, "return document.body.innerText.includes('The space The laboratory is deleted.')");
}

#[test]
fn a_receiver_of_alerts_is_tested_and_the_theme_is_kept() {
    let browser = Browser::by_keyboard();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-watcher");
    browser.open(&format!("{site}/alerts/new"));
    browser.fill("input[name=name]", "web siem");
    browser.fill("select[name=kind]", "syslog");
    // There is no such host.
    browser.fill("input[name=host]", "siem.invalid");
    browser.fill("input[name=port]", "6514");
    browser.click("main form.form p.actions button");
    heading(&browser, "Receiver web siem");
    press(&browser, "Send a test message");
    browser.wait(SOON, "return document.querySelector('.notice')?.innerText.includes('cannot be reached')");
    press(&browser, "Delete");
    press(&browser, "Delete the receiver");
    browser.wait(SOON, "return document.body.innerText.includes('The receiver web siem is deleted.')");

    browser.click(".who .menu:nth-child(2) > summary");
    browser.click("button[value=dark]");
    browser.wait(SOON, "return document.documentElement.dataset.theme === 'dark' && location.pathname === '/alerts'");
    let dark = browser.run("return getComputedStyle(document.body).backgroundColor");
    assert_ne!(dark, json!("rgb(255, 255, 255)"));
    ok(&["status"]);
}

#[test]
fn a_lost_connection_is_shown_on_every_page_and_heals() {
    let browser = Browser::start();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-traveller");
    browser.open(&format!("{site}/agents"));
    let network = |is_offline: bool, latency: u32| {
        let conditions =
            json!({"offline": is_offline, "latency": latency, "downloadThroughput": -1, "uploadThroughput": -1});
        browser.devtools("Network.enable", &json!({}));
        browser.devtools("Network.emulateNetworkConditions", &conditions);
    };
    let is_shown = "return document.getElementById('lost').checkVisibility()";
    let is_hidden = "return !document.getElementById('lost').checkVisibility()";
    assert_eq!(browser.run(is_shown), json!(false));
    network(true, 0);
    browser.wait(SOON, is_shown);
    std::thread::sleep(Duration::from_secs(3));
    let errors = browser.console_errors();
    assert!(!errors.iter().any(|error| error.contains("htmx:")), "{errors:?}");
    network(false, 0);
    browser.wait(SOON, is_hidden);

    // A page that does not renew itself, and a server that does not answer in time.
    browser.open(&format!("{site}/settings/account"));
    network(false, 60_000);
    let a_check = Duration::from_secs(25);
    browser.wait(a_check, is_shown);
    let covers = "const [lost, brand, heading] = ['#lost', '.brand', 'h1'].map((one) => document.querySelector(one).getBoundingClientRect());
        return lost.top !== 0 || brand.top < lost.bottom || heading.top < lost.bottom";
    assert_eq!(browser.run(covers), json!(false), "it is at the top, and covers nothing");
    let can_save =
        "return [...document.querySelectorAll('main form[method=post] button')].some((one) => !one.disabled)";
    assert_eq!(browser.run(can_save), json!(false));
    network(false, 0);
    browser.wait(a_check, is_hidden);
    assert_eq!(browser.run(can_save), json!(true));
}
