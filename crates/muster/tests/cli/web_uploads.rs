//! Uploads of installers, and connection tests, from the pages in headless Chromium, without a mouse.

use std::time::Duration;

use serde_json::json;

use crate::browser::Browser;
use crate::web_pages::set_up;
use crate::web_settings::{heading, press};
use crate::world::{json as muster, ok, world};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_package_is_uploaded_from_the_page_in_blocks_and_errors_are_at_their_fields() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    // Three blocks, of which the last is short.
    let package = [b"!<arch>\ndebian-binary".to_vec(), vec![7; (2 << 20) + 5]].concat();
    std::fs::write(path("web-upload_5.9_amd64.deb"), &package).unwrap();
    std::fs::write(path("not-a-package.deb"), "text").unwrap();
    std::fs::write(path("archive-1.0.tar.gz"), [0x1f, 0x8b, 8]).unwrap();
    let browser = Browser::by_keyboard();
    set_up(&browser, "web-uploads");
    browser.open(&format!("http://{}/software/installers", world().admin));
    heading(&browser, "Installers");
    press(&browser, "Upload an installer");
    heading(&browser, "Upload an installer");

    browser.choose_file("input[name=file]", &path("archive-1.0.tar.gz"));
    browser.fill("input[name=version]", "1.0");
    browser.click("#send");
    browser.wait(SOON, "return document.getElementById('problem-platform').innerText.includes('required')");
    assert_eq!(browser.run("return document.activeElement.name"), json!("platform"), "the field has the focus");
    browser.choose_file("input[name=file]", &path("not-a-package.deb"));
    browser.click("#send");
    browser.wait(SOON, "return document.getElementById('problem-file').innerText.includes('not of the format deb')");
    assert_eq!(
        browser.run("return document.querySelector('[name=version]').value"),
        json!("1.0"),
        "what was typed stays"
    );
    let names = |installers: &serde_json::Value| installers.to_string().contains("not-a-package");
    assert!(!names(&muster(&["software", "installer", "list"])), "what cannot be completed is deleted");

    browser.choose_file("input[name=file]", &path("web-upload_5.9_amd64.deb"));
    browser.fill("input[name=version]", "5.9-web");
    browser.fill("textarea[name=condition]", "SELECT 1");
    browser.click("#send");
    heading(&browser, "web-upload 5.9-web");
    let stored = muster(&["software", "installer", "show", "web-upload"]);
    assert_eq!((&stored["size"], &stored["version"]), (&json!(package.len()), &json!("5.9-web")), "{stored}");
    assert!(!stored["uploaded_at"].is_null() && stored["condition"] == "SELECT 1", "{stored}");
    ok(&["software", "installer", "delete", "web-upload", "--yes"]);
    let errors = browser.console_errors();
    // The browser reports responses with errors, which the page has handled.
    assert!(errors.iter().all(|error| error.contains("Failed to load resource")), "{errors:?}");
}

#[test]
fn the_connection_of_a_fleet_server_host_is_tested_from_its_form() {
    let browser = Browser::by_keyboard();
    set_up(&browser, "web-connections");
    browser.open(&format!("http://{}/settings/hosts/new", world().admin));
    heading(&browser, "Create a Fleet Server host");
    browser.fill("input[name=name]", "typed");
    browser.fill("textarea[name=yaml]", "host_urls: [https://fleet.invalid:8220]");
    press(&browser, "Test the connection");
    browser.wait(SOON, "return document.getElementById('tested')?.innerText.includes('The test has failed')");
    let shown = browser.text();
    assert!(shown.contains("cannot resolve fleet.invalid") && shown.contains("Check the spelling"), "{shown}");
    assert_eq!(browser.run("return document.querySelector('[name=name]').value"), json!("typed"));
    assert_eq!(browser.console_errors(), Vec::<String>::new());
}
