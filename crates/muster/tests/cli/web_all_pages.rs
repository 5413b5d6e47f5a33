//! Every page of the console in headless Chromium: accessibility, layout, keyboard, console.
//!
//! The list of pages comes from the router (`/ui/kit` of debug builds). Ids are taken from links, so a page that no link leads to
//! fails the test, and so does a new page for which [`furnish`] creates no object.

use std::collections::{BTreeMap, VecDeque};
use std::process::Command;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::web_pages::set_up_in;
use crate::world::World;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Widths that pages are shown at, pixels: a screen, and a small phone.
const WIDTHS: [u32; 2] = [1280, 360];

/// Creates an object for each page that needs one.
fn furnish(world: &World) {
    world.ok(&["space", "create", "shop", "--name", "Shop"]);
    world.ok(&["policy", "create", "furnished"]);
    world.ok(&["enrollment-key", "create", "--policy", "furnished", "--name", "furnished"]);
    world.ok(&["output", "create", "furnished", "--type", "logstash", "--host", "logs.example:5044"]);
    world.ok(&["server-host", "create", "furnished", "--host-url", "https://fleet.example:8220"]);
    world.ok(&["proxy", "create", "furnished", "--url", "http://proxy.example:3128"]);
    world.ok(&["download-source", "create", "furnished", "--host", "https://downloads.example/"]);
    world.ok(&["alert", "create", "furnished", "--syslog", "logs.example:6514"]);
    world.ok(&["user", "create", "furnished"]);
    world.ok(&["role", "bind", "helpdesk", "--user", "furnished"]);
    world.ok(&["role", "create", "furnished", "--privilege", "agents.read"]);
}

#[test]
fn mg191_every_page_is_accessible_by_keyboard_in_both_themes_on_screens_and_phones() {
    let installed = Command::new(format!("{ROOT}/.ci/npm")).arg("axe").output().unwrap();
    assert!(installed.status.success(), "cannot install axe-core: {}", String::from_utf8_lossy(&installed.stderr));
    let place = String::from_utf8(installed.stdout).unwrap();
    let axe = std::fs::read_to_string(format!("{}/node_modules/axe-core/axe.min.js", place.trim())).unwrap();
    let world = World::start();
    furnish(&world);
    let browser = Browser::start();
    set_up_in(&world, &browser, "keyboard");
    let site = format!("http://{}", world.admin);
    let mut faults = Vec::new();
    let visited = visit_all(&browser, &site, |path| faults.extend(faults_of(&browser, &site, path, &axe)));
    for (pattern, path) in visited {
        if path.is_none() {
            faults.push(format!("{pattern}: no link leads to such a page"));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Visits each page of the router once. Returns the patterns with the path that was visited; `None` if no link matched.
fn visit_all(browser: &Browser, site: &str, mut visit: impl FnMut(&str)) -> BTreeMap<String, Option<String>> {
    browser.open(&format!("{site}/ui/kit"));
    let listed = browser.run("return [...document.querySelectorAll('#paths code')].map(code => code.innerText)");
    let patterns: Vec<String> = serde_json::from_value(listed).unwrap();
    let mut visited: BTreeMap<String, Option<String>> = patterns.into_iter().map(|one| (one, None)).collect();
    let mut open: VecDeque<String> = visited.keys().filter(|one| !one.contains('{')).cloned().collect();
    open.extend(["/login".into(), "/setup".into(), "/no-such-page".into()]);
    while let Some(path) = open.pop_front() {
        if let Some(pattern) = pattern_of(&visited, &path).filter(|one| visited[one].is_none()) {
            visited.insert(pattern, Some(path.clone()));
        }
        if !is_page(browser, &path) {
            continue;
        }
        visit(&path);
        for link in links(browser) {
            let is_new = pattern_of(&visited, &link).is_some_and(|one| visited[&one].is_none());
            if is_new && !open.contains(&link) {
                open.push_back(link);
            }
        }
    }
    // What only forms are sent to is no page.
    visited.retain(|pattern, path| path.is_some() || status(browser, &pattern.replace("{id}", "x")) != json!(405));
    visited
}

/// Returns the pattern of a path. A pattern without an id comes before those that would take its last word for an id.
fn pattern_of(patterns: &BTreeMap<String, Option<String>>, path: &str) -> Option<String> {
    if patterns.contains_key(path) {
        return Some(path.to_owned());
    }
    let fits = |pattern: &&String| {
        let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
        pattern.len() == path.len() && pattern.iter().zip(&path).all(|(a, b)| a.starts_with('{') || a == b)
    };
    patterns.keys().find(fits).cloned()
}

fn status(browser: &Browser, path: &str) -> Value {
    ask(browser, path, "request.status")
}

/// Returns whether a path is that of a page: downloads and forms without a page of their own are not.
fn is_page(browser: &Browser, path: &str) -> bool {
    status(browser, path) != json!(405)
        && ask(browser, path, "request.getResponseHeader('content-type')")
            .as_str()
            .unwrap_or("")
            .starts_with("text/html")
}

fn ask(browser: &Browser, path: &str, what: &str) -> Value {
    let path = json!(path);
    browser.run(&format!(
        "const request = new XMLHttpRequest(); request.open('HEAD', {path}, false); request.send(); return {what}"
    ))
}

/// Returns the paths of the links of a page to pages of this server in the default space.
fn links(browser: &Browser) -> Vec<String> {
    let links = "return [...document.links].filter(a => a.origin === location.origin).map(a => a.pathname)";
    let found: Vec<String> = serde_json::from_value(browser.run(links)).unwrap();
    found.into_iter().filter(|path| !path.starts_with("/s/")).collect()
}

/// Returns what is wrong with a page, in both themes and at both widths.
fn faults_of(browser: &Browser, site: &str, path: &str, axe: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for width in WIDTHS {
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
        faults.extend(texts(&browser.run(KEYBOARD)).iter().map(|text| at(text)));
        browser.run(axe);
        for theme in ["light", "dark"] {
            let feature = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
            browser.devtools("Emulation.setEmulatedMedia", &feature);
            faults.extend(
                texts(&browser.run_async(AXE)).iter().map(|text| format!("{path} at {width}, {theme}: {text}")),
            );
        }
        faults
            .extend(browser.console_errors().iter().filter(|text| !text.contains("no-such-page")).map(|text| at(text)));
    }
    let screen = json!({"width": WIDTHS[0], "height": 800, "deviceScaleFactor": 1, "mobile": false});
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
    return window.controls.length;";
const UNREACHED: &str = "
    return window.controls.filter(element => !window.reached.has(element)).map(element => element.outerHTML.slice(0, 120));";
