//! The pages of agents in headless Chromium, with a real muster-agent.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::agents::fleet;
use crate::browser::Browser;
use crate::web_pages::set_up;
use crate::world::{json as muster, new_policy, world};

/// The directory of the programs of this workspace, which its tests have built.
fn programs() -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_muster")).parent().unwrap().to_owned();
    assert!(
        directory.join("muster-agent").try_exists().unwrap(),
        "muster-agent is missing: run `cargo build --workspace --bins`"
    );
    directory
}

/// A shell that runs commands as somebody pastes them, in a home directory of its own. Ends with all that it started.
struct Shell {
    child: Child,
    _home: tempfile::TempDir,
}

impl Shell {
    fn run(commands: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::copy(world().data().join("ca.crt"), home.path().join("ca.crt")).unwrap();
        let path = format!("{}:{}", programs().display(), std::env::var("PATH").unwrap_or_default());
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let child = Command::new("sh")
            .args(["-e", "-c", commands])
            .current_dir(home.path())
            .env("HOME", home.path())
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, _home: home }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

const SOON: Duration = Duration::from_secs(15);
/// Time for an agent to enroll, check in or upload, on a busy machine.
const AGENT: Duration = Duration::from_secs(90);

#[test]
fn mg182_a_pasted_command_enrolls_and_the_agent_is_found_tagged_examined_and_revoked() {
    let policy = new_policy("web agents walk");
    let browser = Browser::by_keyboard();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-agents-admin");

    browser.open(&format!("{site}/add-agent"));
    browser.fill("select[name=policy]", &policy);
    browser.click("main button");
    browser.wait(SOON, "return document.querySelector('#muster-agent-user') !== null");
    let commands = browser.run("return document.querySelector('#muster-agent-user').innerText");
    let _agent = Shell::run(commands.as_str().unwrap());
    browser.wait(AGENT, "return document.querySelector('#arrivals').innerText.includes('runs revision')");

    browser.open(&format!("{site}/agents"));
    browser.fill("#q", &format!("policy_id:\"{policy}\""));
    browser.click("#search button");
    let found = "return location.search.includes('policy_id') && document.querySelectorAll('[data-rows] tbody tr').length === 1";
    browser.wait(SOON, found);
    browser.press("jx");
    assert_eq!(browser.run("return document.querySelector('[data-rows] input:checked') !== null"), json!(true));
    let id = browser.run("return document.querySelector('[data-rows] tbody input:checked').value");
    let id = id.as_str().unwrap().to_owned();

    browser.click("button[name=of][value=chosen]");
    browser.wait(SOON, "return document.body.innerText.includes('Selected: 1 agent.')");
    browser.click("button[value=tag]");
    browser.wait(SOON, "return document.querySelector('input[name=add]') !== null");
    browser.fill("input[name=add]", "typed-wrong");
    browser.click("form.narrow button");
    browser.wait(SOON, "return document.querySelector('#confirm') !== null");
    // A field that is changed after the preview is neither ignored nor sent unseen.
    browser.fill("input[name=add]", "walked");
    browser.click("#confirm");
    browser.wait(SOON, "return document.body.innerText.includes('changed after the preview')");
    assert_eq!(browser.run("return document.querySelector('#confirm').innerText"), "Add the tag walked to 1 agent");
    browser.click("#confirm");
    browser.wait(SOON, "return location.pathname.startsWith('/actions/')");
    assert_eq!(muster(&["agent", "show", &id])["tags"], json!(["walked"]));

    browser.open(&format!("{site}/agents/{id}"));
    browser.click("button[value=diagnostics]");
    browser.wait(SOON, "return document.querySelector('#confirm') !== null");
    browser.click("#confirm");
    browser.wait(SOON, "return location.pathname.startsWith('/actions/')");
    browser.open(&format!("{site}/agents/{id}/diagnostics"));
    browser.wait(AGENT, "return document.querySelector('#bundles a[download]') !== null");

    browser.open(&format!("{site}/agents/{id}/timeline"));
    assert!(browser.text().contains("Request diagnostics: done"), "{}", browser.text());
    browser.open(&format!("{site}/agents/{id}"));
    browser.click("a.danger");
    browser.wait(SOON, "return document.body.innerText.includes('Nothing has been done yet.')");
    assert_eq!(muster(&["agent", "show", &id])["active"], true, "a preview changes nothing");
    browser.fill("input[name=since]", "2020-01-01T00:00");
    browser.click("form.narrow button");
    browser.wait(SOON, "return location.search.includes('since=2020')");
    // The reason is sent as it stands in its field, without another preview.
    browser.fill("input[name=reason]", "stolen laptop");
    browser.click("#confirm");
    browser.wait(SOON, "return document.body.innerText.includes('can no longer check in')");
    assert_eq!(muster(&["agent", "show", &id])["active"], false);
    assert!(muster(&["audit", "list"]).to_string().contains("stolen laptop"));
}

#[test]
fn what_an_agent_reports_at_length_fits_on_screens_and_phones() {
    let (_, agents) = fleet("web long reports", &["long-reports"]);
    // Names as long as the server accepts; it truncates messages.
    let (message, name) = ("x".repeat(900_000), "y".repeat(1_024));
    let units = json!([{"id": name, "type": name, "status": "FAILED", "message": message}]);
    let component = json!({"id": name, "type": name, "status": "FAILED", "message": message, "units": units});
    let metadata = json!({"os": {"platform": "p".repeat(60)}});
    agents[0].check_in_upgrading(
        "9.5.2",
        &json!({"status": "error", "message": message, "components": [component], "local_metadata": metadata}),
    );
    let browser = Browser::start();
    let site = format!("http://{}", world().admin);
    set_up(&browser, "web-long-reports");
    for width in [1280, 360] {
        let screen = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.devtools("Emulation.setDeviceMetricsOverride", &screen);
        let id = &agents[0].id;
        for path in ["", "/timeline", "/respond"].map(|part| format!("/agents/{id}{part}")) {
            browser.open(&format!("{site}{path}"));
            let is_wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
            assert_eq!(browser.run(is_wide), json!(false), "{path} at {width}");
            browser.run("document.querySelectorAll('main details').forEach(details => { details.open = true; })");
            assert_eq!(browser.run(is_wide), json!(false), "{path} at {width}, unfolded");
        }
        browser.open(&format!("{site}/agents/{id}"));
        assert!(browser.text().contains(&"x".repeat(250)), "the beginning of the message is shown");
        let is_scrolled = "return [...document.querySelectorAll('.units')].some((one) => one.offsetWidth > one.parentElement.clientWidth)";
        assert_eq!(browser.run(is_scrolled), json!(width < 600), "units fit their card on a screen");
        browser.open(&site);
        let is_beyond = "return [...document.querySelectorAll('.bars')].some((one) => one.getBoundingClientRect().right > one.closest('.card').getBoundingClientRect().right)";
        assert_eq!(browser.run(is_beyond), json!(false), "bars stay in their card at {width}");
    }
}
