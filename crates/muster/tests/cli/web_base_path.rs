//! The pages, the API and the commands under a path of a reverse proxy.

use std::time::Duration;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::web_pages::set_up_at;
use crate::world::{World, finish};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_person_walks_under_the_path_of_a_proxy_and_commands_use_its_url() {
    let world = World::start_with(&["--set", "admin.base_path=/it/muster"]);
    let site = format!("http://{}/it/muster", world.admin);
    let browser = Browser::by_keyboard();
    set_up_at(&world, &browser, &site, "proxied");
    assert_eq!(browser.run("return location.pathname"), json!("/it/muster/"));
    let cookie = browser.devtools("Network.getCookies", &json!({}));
    let paths: Vec<&Value> = cookie["cookies"].as_array().unwrap().iter().map(|one| &one["path"]).collect();
    assert_eq!(paths, [&json!("/it/muster")], "{cookie}");

    // A live list, a form that leads to another page, the theme, and the end of the session.
    browser.click("nav a[href$='/agents']");
    browser.wait(SOON, "return document.querySelector('#list') !== null");
    let live = browser.run("return document.querySelector('#list').getAttribute('hx-get')");
    assert!(live.as_str().unwrap().starts_with("/it/muster/agents?"), "{live}");
    browser.open(&format!("{site}/policies/new"));
    browser.fill("input[name=name]", "proxied");
    browser.click("main form button");
    browser.wait(
        SOON,
        "return location.pathname.startsWith('/it/muster/policies/') && document.querySelector('.notice') !== null",
    );
    let policy = browser.run("return location.pathname");
    browser.click(".who .menu:nth-child(2) > summary");
    browser.click("button[value=dark]");
    browser.wait(SOON, "return document.documentElement.dataset.theme === 'dark'");
    assert_eq!(browser.run("return location.pathname"), policy);

    assert_eq!(browser.console_errors(), [""; 0]);

    // The text of a form survives the end of the session.
    browser.open(&format!("http://{}{}/edit", world.admin, policy.as_str().unwrap()));
    browser.fill("#text", "name: proxied\n");
    browser
        .run("window.out = false; fetch('/it/muster/logout', { method: 'POST' }).then(() => { window.out = true; })");
    browser.wait(SOON, "return window.out");
    browser.click("form.with-side button");
    browser.wait(SOON, "return document.querySelector('input[name=username]') !== null");
    browser.fill("input[name=username]", "proxied");
    browser.fill("input[name=password]", crate::web_pages::PASSWORD);
    browser.click("main button");
    browser.wait(SOON, "return document.querySelector('#text')?.value === 'name: proxied\\n'");
    assert_eq!(browser.run("return location.pathname"), json!(format!("{}/edit", policy.as_str().unwrap())));

    let token = world.ok(&["token", "create", "--owner", "proxied"]);
    for url in [&site, &format!("http://{}", world.admin)] {
        let listed = finish(
            world.command(&["policy", "list", "--output", "json"]).args(["--url", url, "--token"]).arg(token.trim()),
        );
        assert!(listed.code == 0 && listed.out.contains("proxied"), "{url}: {}{}", listed.out, listed.err);
    }
}
