//! Every page of the console in headless Chromium: accessibility, layout, keyboard, console.
//!
//! The list of pages comes from the router (`/ui/kit` of debug builds). Ids are taken from links, so a page that no link leads to
//! fails the test, and so does a new page for which [`furnish`] creates no object.

use std::time::Duration;

use std::process::Command;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::agents::{answered_by, answered_text};
use crate::browser::Browser;
use crate::web_pages::{CANARY, set_up_as, set_up_in};
use crate::world::{World, file};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Widths that pages are shown at, pixels, each with a theme: a screen, and a small phone. The rules of axe-core take seconds for
/// a page, so not every combination.
const SCREENS: [(u32, &str); 2] = [(1280, "light"), (360, "dark")];

/// Whether markup of an agent has become a part of the page.
const RUNS: &str = "return window.canary !== undefined || document.querySelector('main img, main script') !== null";

/// Whether a box is narrower than what a browser gives it, because the text beside it is long.
const IS_SHRUNK: &str = "return [...document.querySelectorAll('main input:is([type=checkbox], [type=radio])')]
    .some(one => one.offsetWidth > 0 && one.offsetWidth < 13)";

/// Creates an object for each page that needs one: what commands do not create, forms do.
fn furnish(world: &World, browser: &Browser, site: &str) {
    world.ok(&["space", "create", "shop", "--name", "Shop"]);
    let revision = |text: &str| {
        file("furnished.yml", &format!("name: furnished\nsettings: {{is_protected: true}}\nconfig: {text}\n"))
    };
    world.ok(&["policy", "apply", "-f", &revision("{}").1, "--yes"]);
    world.ok(&["policy", "apply", "-f", &revision("{inputs: []}").1, "--yes"]);
    world.ok(&["policy", "recovery-code", "furnished", "--yes"]);
    let key = world.json(&["enrollment-key", "create", "--policy", "furnished", "--name", "office"]);
    let agent = enroll(world, key["api_key"].as_str().unwrap());
    world.ok(&["agent", "upgrade", &agent, "--version", "9.5.3", "--yes"]);
    let next = revision("{agent: {monitoring: {enabled: false}}}");
    world.ok(&["rollout", "create", "-f", &next.1, "--waves", "5,100", "--yes"]);
    world.ok(&["server-host", "create", "furnished", "--address", "https://fleet.example:8220"]);
    world.ok(&["proxy", "create", "furnished", "--address", "http://proxy.example:3128"]);
    world.ok(&["download-source", "create", "furnished", "--address", "https://downloads.example/"]);
    world.ok(&["alert", "create", "furnished", "--syslog", "logs.example:6514"]);
    world.ok(&["user", "create", "furnished"]);
    world.ok(&["role", "bind", "helpdesk", "--user", "furnished"]);
    world.ok(&["role", "create", "furnished", "--privilege", "agents.read"]);
    for page in ["outputs", "tokens"] {
        browser.open(&format!("{site}/settings/{page}/new"));
        browser.fill("[name=name]", "furnished");
        if page == "outputs" {
            browser.fill("[name=hosts]", "https://elasticsearch.example:9200");
        }
        browser.click("main form button:not([type=button])");
        // Leaving before the form has arrived would stop it.
        browser.wait(Duration::from_secs(10), "return !document.querySelector('main form [name=name]')");
        browser.open(&format!("{site}/settings/{page}"));
        assert!(browser.text().contains("furnished"), "{}", browser.text());
    }
    furnish_hosts(world, browser, site);
}

/// Creates what the pages of hosts show: a host of osquery with software that answers a host check and a live query.
fn furnish_hosts(world: &World, browser: &Browser, site: &str) {
    let address = "https://id.example";
    world.ok(&["oidc-provider", "create", "furnished", "--issuer", address, "--client-id", "m", "--api-url", address]);
    world.ok(&["query", "save", "furnished", "SELECT 1"]);
    let (_directory, options) = file("furnished-options.yml", "config:\n  options: {logger_tls_period: 7}\n");
    world.ok(&["fleetd-options", "apply", "-f", &options, "--yes"]);
    world.ok(&["host-check", "create", "furnished", "--query", "SELECT 1", "--resolution", &"remedy".repeat(200)]);
    let secret = world.json(&["enrollment-key", "create", "--family", "fleetd", "--name", "furnished-secret"]);
    let osquery = |call: &str, body: &Value| -> Value {
        let (status, text) = answered_by(world, &format!("/api/v1/osquery/{call}"), "-", "osquery/5.21.0", body);
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let name = format!("{CANARY}{}", "very-long-osquery-name".repeat(20));
    let details = json!({"system_info": {"hostname": name, "hardware_vendor": name},
        "os_version": {"name": format!("Ubuntu {name}"), "platform": "ubuntu"}, "osquery_info": {"version": "5.21.0"}});
    let enroll = json!({"enroll_secret": secret["api_key"], "host_identifier": "furnished", "host_details": details});
    let key = osquery("enroll", &enroll)["node_key"].clone();
    browser.open(&format!("{site}/queries/run"));
    browser.fill("textarea[name=sql]", "SELECT 1");
    browser.click("main form button");
    browser.wait(Duration::from_secs(20), "return document.querySelector('button[name=confirmed]') !== null");
    browser.click("button[name=confirmed]");
    browser.wait(Duration::from_secs(20), "return document.body.innerText.includes('Waiting for rows')");
    let names: Vec<String> = osquery("distributed/read", &json!({"node_key": key}))["queries"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let rows = |query: &str| match query {
        query if query.starts_with("fleet_distributed_query_") => json!([{"a": name, "b": "<b>"}]),
        "fleet_detail_query_software_deb_packages" => json!([{"name": name, "version": "1.9"}]),
        _ => json!([]),
    };
    let answered: serde_json::Map<String, Value> =
        names.iter().filter(|name| !is_detail(name)).map(|name| (name.clone(), rows(name))).collect();
    let statuses: serde_json::Map<String, Value> = answered.keys().map(|name| (name.clone(), json!(0))).collect();
    osquery("distributed/write", &json!({"node_key": key, "queries": answered, "statuses": statuses}));
    furnish_labels(world);
    furnish_installs(world, &secret["api_key"]);
    // The index of software follows a few seconds later.
    let is_indexed = (0..150).any(|_| {
        std::thread::sleep(Duration::from_millis(200));
        world.json(&["software", "list"]).as_array().is_some_and(|found| !found.is_empty())
    });
    assert!(is_indexed);
    furnish_runs(world, secret["api_key"].as_str().unwrap(), &key);
}

/// Creates what the pages of scripts, carves and disk keys show: a run with a long output, an archive, and a stored key. The archive is one of
/// the osquery with this node key.
fn furnish_runs(world: &World, secret: &str, osquery: &Value) {
    let call = |path: &str, body: String| {
        let (status, text) = answered_text(world, path, "-", "orbit", &body);
        assert!([200, 204].contains(&status), "{path}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    };
    let name = format!("{CANARY}{}", "very-long-orbit-name".repeat(20));
    let enroll = json!({"enroll_secret": secret, "hardware_uuid": "44444444-AAAA-4000-8000-000000000001",
        "hostname": name, "platform": "ubuntu"});
    let key: Value = call("/api/fleet/orbit/enroll", enroll.to_string())["orbit_node_key"].clone();
    let (_directory, script) = file("furnished.sh", &format!("#!/bin/sh\necho {}\n", "x".repeat(500)));
    world.ok(&["script", "save", "furnished", &script, "--description", &"description".repeat(30)]);
    let run = world.json(&["script", "run", "--saved", "furnished", "--all", "--yes", "--no-wait"]);
    let output = format!("{CANARY}{}", "<b>a line that is wider than a phone</b> ".repeat(200));
    let result =
        json!({"orbit_node_key": key, "execution_id": run["id"], "output": output, "runtime": 1, "exit_code": 7});
    call("/api/fleet/orbit/scripts/result", result.to_string());
    world.ok(&["script", "run", &script, "--all", "--yes", "--no-wait"]);
    let disk = json!({"orbit_node_key": key, "passphrase": "correct horse", "salt": "s", "key_slot": 1});
    call("/api/fleet/orbit/luks_data", disk.to_string());
    let begin = json!({"node_key": osquery, "block_count": 1, "block_size": 8192, "carve_size": 3, "carve_id": "c",
        "request_id": "fleet_distributed_query_q-1"});
    let begun: Value = call("/api/v1/osquery/carve/begin", begin.to_string());
    // In the order of osqueryd, which a map would not keep.
    let (session, query) = (&begun["session_id"], "fleet_distributed_query_q-1");
    let block = format!(r#"{{"block_id":0,"session_id":{session},"request_id":"{query}","data":"YWJj"}}"#);
    call("/api/v1/osquery/carve/block", block);
}

/// Creates a label with a wide name that a host has, a pack for it, and a one-time secret.
fn furnish_labels(world: &World) {
    let label = "very-long-label-name".repeat(10);
    let hosts = world.json(&["host", "list", "--filter", "family:osquery"]);
    world.ok(&["label", "create", &label, "--host", hosts[0]["id"].as_str().unwrap()]);
    world.ok(&["label", "create", "furnished", "--query", "SELECT 1", "--platform", "linux"]);
    let (_directory, pack) = file("furnished-pack.yml", "queries:\n  users: {query: SELECT 1, interval: 60}\n");
    world.ok(&["pack", "apply", "furnished", "-f", &pack, "--label", &label]);
    world.ok(&["enrollment-key", "create", "--one-time", "--name", "furnished-once"]);
}

/// Creates an installer, and an install on a host with orbit.
fn furnish_installs(world: &World, secret: &Value) {
    let name = "very-long-orbit-name".repeat(20);
    let enroll =
        json!({"enroll_secret": secret, "hardware_uuid": "furnished-orbit", "hostname": name, "platform": "ubuntu"});
    let (status, text) = answered_by(world, "/api/fleet/orbit/enroll", "-", "orbit", &enroll);
    assert_eq!(status, 200, "{text}");
    let (_directory, package) = file("furnished_1.0_all.deb", "!<arch>\n");
    world.ok(&["software", "installer", "add", &package, "--condition", &"SELECT 1 ".repeat(50)]);
    world.ok(&["software", "install", "furnished", "--all", "--yes", "--no-wait"]);
}

/// Whether a query is about the host itself, whose facts were reported with the enrollment.
fn is_detail(query: &str) -> bool {
    query.starts_with("fleet_detail_query_") && !query.contains("software_deb_packages")
}

/// Enrolls an agent that reports markup, and a name that is wider than a phone. Returns its id.
fn enroll(world: &World, token: &str) -> String {
    let name = format!("{CANARY}{}", "very-long-host-name".repeat(20));
    let local = json!({"host": {"hostname": name, "architecture": CANARY}, "os": {"full": name}, "elastic": {"agent": {"version": "9.5.2", "upgradeable": true}}});
    let tags = [CANARY];
    let body = json!({"type": "PERMANENT", "metadata": {"local": local, "user_provided": {}, "tags": tags}});
    let (status, answer) = answered_by(world, "/api/fleet/agents/enroll", token, "elastic agent 9.5.2", &body);
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str::<Value>(&answer).unwrap()["item"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn mg191_every_page_is_accessible_by_keyboard_in_both_themes_on_screens_and_phones() {
    let installed = Command::new(format!("{ROOT}/.ci/npm")).arg("axe").output().unwrap();
    assert!(installed.status.success(), "cannot install axe-core: {}", String::from_utf8_lossy(&installed.stderr));
    let place = String::from_utf8(installed.stdout).unwrap();
    let axe = std::fs::read_to_string(format!("{}/node_modules/axe-core/axe.min.js", place.trim())).unwrap();
    let world = World::start();
    let browser = Browser::start();
    set_up_in(&world, &browser, "keyboard");
    let site = format!("http://{}", world.admin);
    furnish(&world, &browser, &site);
    browser.open(&site);
    let found = browser.run_async(include_str!("../axe/pages.js"));
    let mut faults: Vec<String> =
        texts(&found["missing"]).iter().map(|one| format!("{one}: no link leads there")).collect();
    let mut paths = texts(&found["pages"]);
    faults.extend(unsendable(&world, &site, &paths));
    paths.extend(["/login".into(), "/setup".into(), "/no-such-page".into()]);
    // The others are those of a host with osquery.
    let hosts = world.json(&["host", "list", "--filter", "family:elastic"]);
    paths.push(format!("/hosts/{}", hosts[0]["id"].as_str().unwrap()));
    let second = Browser::start();
    set_up_in(&world, &second, "second");
    // Two browsers, because the test would otherwise take longer than all others of this program together.
    let rest = Mutex::new(paths.into_iter());
    let next = || rest.lock().unwrap().next();
    let examine = |browser: &Browser| -> Vec<String> {
        std::iter::from_fn(next).flat_map(|path| faults_of(browser, &site, &path, &axe)).collect()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| examine(&second));
        faults.extend(examine(&browser));
        faults.extend(other.join().unwrap());
    });
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Returns what is wrong with a page, in both themes and at both widths.
fn faults_of(browser: &Browser, site: &str, path: &str, axe: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (width, theme) in SCREENS {
        let screen = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.devtools("Emulation.setDeviceMetricsOverride", &screen);
        browser.console_errors();
        browser.open(&format!("{site}{path}"));
        let at = |text: &str| format!("{path} at {width}: {text}");
        let shift = browser.run_async(LAYOUT_SHIFT).as_f64().unwrap();
        if shift > 0.01 {
            faults.push(at(&format!("the layout shifts by {shift}")));
        }
        if browser.run(IS_TOO_WIDE) == json!(true) {
            faults.push(at("is wider than the window"));
        }
        if browser.run(IS_SHRUNK) == json!(true) {
            faults.push(at("has boxes that are hard to hit"));
        }
        if browser.run(RUNS) == json!(true) {
            faults.push(at("markup that an agent has reported is a part of the page"));
        }
        faults.extend(texts(&browser.run(KEYBOARD)).iter().map(|text| at(text)));
        browser.run(axe);
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        browser.devtools("Emulation.setEmulatedMedia", &feature);
        faults.extend(texts(&browser.run_async(AXE)).iter().map(|text| format!("{path} at {width}, {theme}: {text}")));
        faults
            .extend(browser.console_errors().iter().filter(|text| !text.contains("no-such-page")).map(|text| at(text)));
    }
    let screen = json!({"width": SCREENS[0].0, "height": 800, "deviceScaleFactor": 1, "mobile": false});
    browser.devtools("Emulation.setDeviceMetricsOverride", &screen);
    faults.extend(unreached(browser, site, path));
    faults
}

/// Returns the controls that the key Tab does not reach.
fn unreached(browser: &Browser, site: &str, path: &str) -> Vec<String> {
    browser.open(&format!("{site}{path}"));
    let count = browser.run(CONTROLS).as_u64().unwrap();
    browser.press_tab(usize::try_from(count).unwrap() + 1);
    texts(&browser.run(UNREACHED)).iter().map(|text| format!("{path}: Tab does not reach {text}")).collect()
}

/// Returns the forms that somebody who may only read can fill in, but not send.
fn unsendable(world: &World, site: &str, paths: &[String]) -> Vec<String> {
    let browser = Browser::start();
    set_up_as(world, &browser, site, "reader", "auditor");
    texts(&browser.run_async(&format!("const paths = {};{UNSENDABLE}", json!(paths))))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
}

/// The sum of the layout shifts since the page was opened, without those that follow an input.
const LAYOUT_SHIFT: &str = "
    let sum = 0;
    new PerformanceObserver(list => list.getEntries().forEach(entry => { if (!entry.hadRecentInput) sum += entry.value; }))
        .observe({type: 'layout-shift', buffered: true});
    setTimeout(() => done(sum), 150);";
const IS_TOO_WIDE: &str = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
/// A positive tabindex changes the order of the focus, and an element that only a mouse can click has none.
const KEYBOARD: &str = "
    const shown = element => element.outerHTML.slice(0, 120);
    return [...document.querySelectorAll('[tabindex]')].filter(element => element.tabIndex > 0).map(shown);";
/// Serious and critical violations, each with the first element.
const AXE: &str = "
    axe.run(document, {resultTypes: ['violations']}).then(result => done(result.violations
        .filter(violation => ['serious', 'critical'].includes(violation.impact))
        .map(violation => violation.id + ': ' + violation.nodes.slice(0, 2)
            .map(node => node.html.slice(0, 160) + ' ' + node.any.map(check => check.message).join(' ')).join(' | '))));";
/// The forms with fields, except for those of people's own settings and views.
const UNSENDABLE: &str = "
    (async () => {
        const faults = [];
        const fields = ':is(input:not([type=hidden]), select, textarea):enabled:not([readonly])';
        for (const path of paths.filter(path => !/^.settings.(account|tokens)/.test(path))) {
            const text = await (await fetch(path)).text();
            const page = new DOMParser().parseFromString(text, 'text/html');
            for (const form of page.querySelectorAll('main form[method=post]:not([action$=\"/agents/views\"])')) {
                const field = form.querySelector(fields);
                if (field) faults.push(`${path}: a reader can fill in ${field.outerHTML.slice(0, 120)}`);
            }
        }
        done(faults);
    })();";
/// Counts the controls, and records which of them get the focus.
const CONTROLS: &str = "
    const controls = 'a[href], button:enabled, input:enabled:not([type=hidden]), select:enabled, textarea:enabled, summary, [tabindex=\"0\"]';
    const groups = new Set();
    window.controls = [...document.querySelectorAll(controls)].filter(element => {
        if (!element.checkVisibility({visibilityProperty: true}) || element.tabIndex < 0) return false;
        if (element.type !== 'radio') return true;
        const is_first = !groups.has(element.name);
        groups.add(element.name);
        return is_first;
    });
    window.reached = new Set();
    document.addEventListener('focusin', event => window.reached.add(event.target));
    if (document.activeElement) window.reached.add(document.activeElement);
    // Tab also stops at the parts of a time, and at its calendar.
    return window.controls.length + 7 * window.controls.filter(element => element.type === 'datetime-local').length;";
const UNREACHED: &str = "
    return window.controls.filter(element => !window.reached.has(element)).map(element => element.outerHTML.slice(0, 120));";
