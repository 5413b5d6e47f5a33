//! The pages of policies and rollouts in headless Chromium, as an administrator walks through them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::agents::{Agent, fleet};
use crate::browser::Browser;
use crate::web_pages::{PASSWORD, set_up};
use crate::world::{file, json as muster, new_policy, new_token, ok, world};

const SOON: Duration = Duration::from_secs(10);
const ENTER: &str = "\u{e007}";

fn text_of(name: &str, broker: &str) -> String {
    format!("name: {name}\nconfig:\n  outputs:\n    default: {{type: kafka, hosts: [\"{broker}:9092\"]}}\n")
}

/// Waits for a heading.
#[track_caller]
fn heading(browser: &Browser, text: &str) {
    browser.wait(SOON, &format!("return document.querySelector('h1').innerText.includes('{text}')"));
}

/// The page fits a narrow window.
#[track_caller]
fn fits(browser: &Browser) {
    let is_wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
    assert_eq!(browser.run(is_wide), json!(false), "{}", browser.text());
}

#[test]
fn mg188_a_policy_is_edited_with_the_keyboard_and_saved_after_a_review() {
    let (policy, _agents) = fleet("web edited", &["web-edited-1"]);
    let browser = Browser::by_keyboard();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-editor");
    browser.open(&format!("{site}/policies/{policy}"));
    fits(&browser);
    browser.tab_to("main a[href$='/edit']");
    browser.press(ENTER);
    heading(&browser, "Edit web edited");
    browser.wait(SOON, "return document.querySelector('.editor .lines').innerText.startsWith('1\\n2')");

    // A mistake: the text stays, and the problem leads to its place.
    browser.fill("#text", "name: web edited\nconfig:\n  input: [{id: hello, type: process, command: /bin/true}]\n");
    browser.tab_to("main form button");
    browser.press(ENTER);
    browser.wait(SOON, "return document.querySelector('#problems a') !== null");
    assert_eq!(browser.run("return document.querySelector('#problems a').innerText"), json!("3:3"));
    let kept = browser.run("return document.querySelector('#text').value");
    assert_eq!(kept, json!("name: web edited\nconfig:\n  input: [{id: hello, type: process, command: /bin/true}]\n"));
    browser.tab_to("#problems a");
    browser.press(ENTER);
    let caret = "const t = document.querySelector('#text'); return document.activeElement === t && t.selectionStart";
    assert_eq!(browser.run(caret), json!("name: web edited\nconfig:\n  ".len()));

    // The caret is before `input`: the missing letter is typed.
    browser.press("\u{e014}\u{e014}\u{e014}\u{e014}\u{e014}s");
    browser.tab_to("main form button");
    browser.press(ENTER);
    heading(&browser, "Review the change of web edited");
    let shown = browser.text();
    assert!(shown.contains("1 agent will get revision 2") && shown.contains("/config/inputs"), "{shown}");
    fits(&browser);
    assert_eq!(muster(&["policy", "show", "web edited"])["revision"], 1, "nothing is saved yet");
    browser.tab_to("input[name=reason]");
    browser.press("tidied");
    browser.tab_to("#save");
    browser.press(ENTER);
    browser
        .wait(SOON, "return document.querySelector('.notice')?.innerText === 'Saved revision 2. It reaches 1 agent.'");
    assert_eq!(muster(&["policy", "show", "web edited"])["revision"], 2);
    let events = muster(&["audit", "list", "--action", "policy.update"]);
    let event = events.as_array().unwrap().iter().find(|event| event["detail"]["name"] == "web edited").unwrap();
    assert_eq!(event["reason"], "tidied", "{event}");
}

#[test]
fn the_text_of_a_policy_survives_the_end_of_the_session() {
    let policy = new_policy("web kept");
    let browser = Browser::start();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-keeper");
    browser.open(&format!("{site}/policies/{policy}/edit"));
    let warns = "return !dispatchEvent(new Event('beforeunload', { cancelable: true }))";
    assert_eq!(browser.run(warns), json!(false));
    browser.fill("#text", &text_of("web kept", "typed"));
    assert_eq!(browser.run(warns), json!(true), "the text is not sent yet");
    browser.run("window.out = false; fetch('/logout', { method: 'POST' }).then(() => { window.out = true; })");
    browser.wait(SOON, "return window.out");

    browser.click("form.with-side button");
    heading(&browser, "Log in");
    let shown = browser.text();
    assert!(shown.contains("nothing was saved") && shown.contains("shows the text of the policy again"), "{shown}");
    browser.fill("input[name=username]", "web-keeper");
    browser.fill("input[name=password]", PASSWORD);
    browser.click("main button");
    heading(&browser, "Edit web kept");
    let text = browser.run("return document.querySelector('#text').value");
    assert_eq!(text, json!(text_of("web kept", "typed")));
    assert!(browser.text().contains("the text that you sent before your session ended"), "{}", browser.text());
    fits(&browser);
    browser.click("form.with-side button");
    heading(&browser, "Review the change of web kept");
    browser.open(&format!("{site}/policies/{policy}/edit"));
    assert!(browser.run("return document.querySelector('#text').value.includes('typed')") == json!(false));
}

#[test]
fn a_concurrent_edit_shows_both_versions() {
    let policy = new_policy("web contested");
    let browser = Browser::start();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-contender");
    browser.open(&format!("{site}/policies/{policy}/edit"));
    let mine = text_of("web contested", "mine");
    browser.fill("#text", &mine);
    let (_directory, theirs) = file("theirs.yml", &text_of("web contested", "theirs"));
    ok(&["policy", "apply", "-f", &theirs, "--yes"]);
    browser.click("form.with-side button");
    heading(&browser, "web contested was changed meanwhile");
    let shown = browser.text();
    assert!(shown.contains("theirs:9092") && shown.contains("mine:9092"), "{shown}");
    browser.click("#yours ~ form button");
    heading(&browser, "Edit web contested");
    assert_eq!(browser.run("return document.querySelector('#text').value"), json!(mine));
    browser.click("form.with-side button");
    heading(&browser, "Review the change");
    browser.click("#save");
    browser.wait(SOON, "return document.querySelector('.notice') !== null");
    let saved = muster(&["policy", "show", "web contested", "--full"]);
    assert_eq!(saved["outputs"]["default"]["hosts"][0], "mine:9092");
}

#[test]
fn a_rollout_that_the_gate_halts_is_resumed_and_rolled_back() {
    let (policy, _others) = fleet("web staged", &["web-staged-1"]);
    let canary = Agent::enroll(&new_token(&policy), "web-staged-2", &["web-canary"]);
    let browser = Browser::by_keyboard();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-stager");
    browser.open(&format!("{site}/policies/{policy}/edit"));
    browser.fill("#text", &text_of("web staged", "two"));
    browser.click("form.with-side button");
    heading(&browser, "Review the change");
    browser.click("button[formaction$='/rollouts/new']");
    heading(&browser, "Roll out a change of web staged");
    browser.fill("tbody tr:nth-child(1) input[name=members]", "web-canary");
    browser.fill("tbody tr:nth-child(2) input[name=members]", "100");
    browser.fill("tbody tr:nth-child(3) input[name=members]", "");
    browser.click("form.review button.plain");
    let waves = "[...document.querySelectorAll('.plan tbody tr')].map((row) => row.cells[4].innerText).join()";
    browser.wait(SOON, &format!("return {waves} === '1,1,'"));
    assert_eq!(muster(&["policy", "show", "web staged"])["revision"], 1, "nothing has started yet");
    fits(&browser);
    browser.click("#start");
    browser.wait(SOON, "return document.querySelector('#state')?.innerText.includes('running')");

    // The first wave turns unhealthy: the gate halts the rollout, and the open page shows it.
    browser.run("window.reloaded = false");
    let is_new = |action: &Value| action["type"] == "POLICY_CHANGE" && action["data"]["policy"]["revision"] == 2;
    canary.ack(canary.get(is_new)["id"].as_str().unwrap(), None);
    canary.check_in_upgrading("9.5.2", &json!({"status": "degraded", "message": "no such broker"}));
    browser.wait(Duration::from_secs(20), "return document.querySelector('#state').innerText.includes('halted')");
    assert_eq!(browser.run("return window.reloaded"), json!(false), "the page was not loaded again");
    assert!(browser.text().contains("1 of 1 agents are degraded or failed"), "{}", browser.text());
    assert!(browser.text().contains("Halted by the health gate"), "{}", browser.text());

    let buttons =
        "return [...document.querySelectorAll('#live .acts a')].map((a) => a.innerText + a.className.trim()).join()";
    assert_eq!(browser.run(buttons), json!("Roll backbutton,Resumebutton plain"), "the safe act is the primary one");
    browser.click("a[href$='act=resume']");
    heading(&browser, "Resume the rollout");
    browser.click("main form button");
    browser.wait(SOON, "return document.querySelector('.notice')?.innerText.startsWith('Resumed at ')");
    browser.wait(Duration::from_secs(20), "return document.querySelector('#state').innerText.includes('halted')");
    browser.click("a[href$='act=rollback']");
    heading(&browser, "Roll back the rollout");
    assert!(browser.text().contains("the content of revision 1"), "{}", browser.text());
    browser.fill("input[name=reason]", "broken brokers");
    browser.click("main form button");
    browser.wait(SOON, "return document.querySelector('#state')?.innerText.includes('rolled back')");
    assert!(browser.text().contains("broken brokers"), "{}", browser.text());
    assert_eq!(muster(&["policy", "show", "web staged"])["revision"], 3);
}
