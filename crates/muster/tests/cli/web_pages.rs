//! The web pages in headless Chromium, as an administrator walks through them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::agents::answered;
use crate::browser::Browser;
use crate::world::{World, new_policy, ok, world};

pub const PASSWORD: &str = "correct horse battery";
/// Runs in the page if anything that an agent reports becomes markup.
pub const CANARY: &str = "\"'></td><img src=x onerror=\"window.canary=1\"><script>window.canary=1</script>";

/// Creates an administrator, and sets the password in the browser.
pub fn set_up(browser: &Browser, name: &str) {
    set_up_in(world(), browser, name);
}

/// Creates an administrator of a server, and sets the password in the browser.
pub fn set_up_in(world: &World, browser: &Browser, name: &str) {
    set_up_at(world, browser, &format!("http://{}", world.admin), name);
}

/// Creates an administrator of a server, and sets the password in the browser at an address of it.
pub fn set_up_at(world: &World, browser: &Browser, site: &str, name: &str) {
    set_up_as(world, browser, site, name, "administrator");
}

/// Creates a person with a role, and sets the password in the browser at an address of the server.
pub fn set_up_as(world: &World, browser: &Browser, site: &str, name: &str, role: &str) {
    world.ok(&["user", "create", name]);
    world.ok(&["role", "bind", role, "--user", name]);
    let link = world.json(&["user", "setup-link", name]);
    browser.open(&format!("{site}/setup?token={}", link["token"].as_str().unwrap()));
    browser.fill("input[name=password]", PASSWORD);
    browser.fill("input[name=again]", PASSWORD);
    browser.click("main button");
    browser.wait(Duration::from_secs(10), "return document.querySelector('h1').innerText.startsWith('Overview')");
}

#[test]
fn the_link_that_the_first_start_prints_sets_the_password_of_the_administrator() {
    let world = World::start();
    let link = || world.printed().split_whitespace().find(|word| word.contains("/setup?token=")).map(str::to_owned);
    let printed = (0..100).find_map(|_| {
        link().or_else(|| {
            std::thread::sleep(Duration::from_millis(50));
            None
        })
    });
    let browser = Browser::start();
    browser.open(&printed.expect("the server prints a link"));
    browser.fill("input[name=password]", PASSWORD);
    browser.fill("input[name=again]", PASSWORD);
    browser.click("main button");
    let overview = "return document.querySelector('h1').innerText.startsWith('Overview')";
    browser.wait(Duration::from_secs(10), overview);
    browser.run("document.querySelector('form[data-log-out]').requestSubmit(); return true");
    browser.wait(Duration::from_secs(10), "return document.querySelector('input[name=username]') !== null");
    browser.fill("input[name=username]", "admin");
    browser.fill("input[name=password]", PASSWORD);
    browser.click("main button");
    browser.wait(Duration::from_secs(10), overview);
}

/// Enrolls an agent whose host has this name.
fn enroll(token: &str, hostname: &str) -> Value {
    let agent = json!({"agent": {"version": "9.5.2", "id": "web-page"}});
    let local = json!({"host": {"hostname": hostname}, "os": {"full": hostname}, "elastic": agent});
    let body = json!({"type": "PERMANENT", "metadata": {"local": local, "user_provided": {}}});
    let (status, answer) = answered("/api/fleet/agents/enroll", token, "elastic agent 9.5.2", &body);
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str::<Value>(&answer).unwrap()["item"].clone()
}

/// Checks in as degraded, with a message.
fn degrade(agent: &Value, message: &str) {
    let body = json!({"status": "degraded", "message": message, "poll_timeout": "1s"});
    let path = format!("/api/fleet/agents/{}/checkin", agent["id"].as_str().unwrap());
    let key = agent["access_api_key"].as_str().unwrap();
    let (code, answer) = answered(&path, key, "Elastic Agent v9.5.2", &body);
    assert_eq!(code, 200, "{answer}");
}

#[test]
fn mg182_mg187_an_agent_appears_and_changes_on_open_pages_without_a_reload() {
    let policy = new_policy("web pages");
    let browser = Browser::start();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-admin");

    browser.open(&format!("{site}/add-agent"));
    browser.fill("select[name=policy]", &policy);
    browser.click("main button");
    browser.wait(Duration::from_secs(10), "return document.getElementById('muster-agent-root') !== null");
    let command = browser.run("return document.getElementById('muster-agent-root').innerText");
    let token = command.as_str().unwrap().split("--enrollment-token=").nth(1).unwrap();
    browser.run("window.reloaded = false");
    let enrolled = enroll(token.split_whitespace().next().unwrap(), CANARY);
    browser.wait(Duration::from_secs(10), "return document.body.innerText.includes('onerror')");
    assert_eq!(browser.run("return window.reloaded"), json!(false), "the page was not loaded again");

    browser.open(&format!("{site}/agents?q=policy_id%3A%22{policy}%22"));
    let id = enrolled["id"].as_str().unwrap();
    browser.run("window.reloaded = false");
    browser.tab_to("#list tbody a");
    ok(&["agent", "tag", id, "--tag", "seen-live"]);
    browser.wait(Duration::from_secs(5), "return document.querySelector('#list').innerText.includes('seen-live')");
    // The list asks every 1.5 s, which is a test of its page: here, the machine may be busy with other tests.
    degrade(&enrolled, "The disk is nearly full");
    let row = "return document.querySelector('#list tbody').innerText.includes('The disk is nearly full')";
    browser.wait(Duration::from_secs(10), row);
    let focused = browser.run("return document.activeElement.getAttribute('href')");
    assert_eq!(focused, json!(format!("/agents/{id}")), "the new rows have the focus where it was");
    assert_eq!(browser.run("return window.reloaded"), json!(false), "the page was not loaded again");

    let of_agent = ["", "/timeline", "/diagnostics", "/respond"].map(|part| format!("/agents/{id}{part}"));
    let of_policy = format!("/policies/{policy}");
    let selection = format!("/agents/bulk?agent={id}");
    let columns = "/agents?columns=hostname%2Cos%2Cstatus%2Cid";
    let others =
        ["/", "/agents", columns, &selection, "/actions", "/agents/menu/tag", "/audit", "/policies", &of_policy];
    for path in others.into_iter().chain(of_agent.iter().map(String::as_str)) {
        browser.open(&format!("{site}{path}"));
        assert_eq!(browser.run("return window.canary === undefined"), json!(true), "{path}");
        assert_eq!(browser.run("return document.querySelectorAll('main img, main script').length"), json!(0), "{path}");
        let is_wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
        assert_eq!(browser.run(is_wide), json!(false), "{path}: nothing that an agent reports breaks the layout");
    }
}

#[test]
fn an_expired_session_returns_to_the_same_page_after_the_login() {
    let browser = Browser::start();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-returning");
    browser.open(&format!("{site}/agents?q=status%3Aonline"));
    browser.run("document.querySelectorAll('.who details.menu')[1].open = true");
    browser.click("form[action='/logout'] button");
    browser.wait(Duration::from_secs(10), "return location.pathname === '/login'");
    browser.open(&format!("{site}/agents?q=status%3Aonline"));
    assert!(browser.text().contains("Log in"), "{}", browser.text());
    browser.fill("input[name=username]", "web-returning");
    browser.fill("input[name=password]", PASSWORD);
    browser.click("main button");
    browser.wait(Duration::from_secs(10), "return location.pathname + location.search === '/agents?q=status%3Aonline'");
    assert_eq!(browser.run("return document.querySelector('#q').value"), json!("status:online"));
}
