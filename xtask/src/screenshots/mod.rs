//! `cargo xtask screenshots`: every web page of a fleet with simulated agents, light and dark, on a screen and on a phone.
//!
//! The pictures are in `target/screenshots`, to be looked at. With `--write`, those of the README are replaced.

mod fleet;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::browser::Browser;
use crate::demo::{Demo, Muster, Steps};
use crate::shell;

/// Screens: the name, the width, the height, and whether it is a phone.
const SCREENS: [(&str, u32, u32, bool); 2] = [("desktop", 1280, 800, false), ("phone", 390, 844, true)];
const THEMES: [&str; 2] = ["light", "dark"];
/// Pictures of the README: the beginning of the page's path, the theme, and the name of the file.
const README: [(&str, &str, &str); 5] = [
    ("/", "light", "overview"),
    ("/agents", "light", "agents"),
    ("/agents/", "dark", "agent"),
    ("/policies/", "light", "policy"),
    ("/rollouts/new", "dark", "rollout"),
];
/// Maximum size of a picture of the README, bytes.
const MAX_PICTURE: usize = 150 << 10;
/// Maximum height of a picture, pixels: long lists are cut.
const MAX_HEIGHT: u32 = 2_400;
const PASSWORD: &str = "correct horse battery";

/// Arguments of `screenshots`.
#[derive(Args)]
pub struct ScreenshotsArgs {
    /// Number of simulated agents.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    drones: u32,
    /// Only pages whose path begins with this.
    #[arg(long, value_name = "PATH", default_value = "/")]
    only: String,
    /// Replace the pictures of the README in docs/screenshots.
    #[arg(long)]
    write: bool,
    /// Use the programs of the last build, of which `cargo xtask test` is one.
    #[arg(long)]
    built: bool,
}

/// Takes the screenshots.
pub fn run(args: &ScreenshotsArgs) -> anyhow::Result<()> {
    let mut steps = Steps::begin();
    let demo = Demo::start(args.built, &mut steps)?;
    let site = demo.muster.pages_url()?;
    let fleet = fleet::furnish(&demo.muster, &mut steps, args.drones)?;
    let browser = Browser::start(&shell::root().join("target/demo/chromedriver.log"))?;
    log_in(&demo.muster, &browser)?;
    let owner = ["--owner", "max@example.com", "--privilege", "agents.read"];
    demo.muster.run(&[&["token", "create", "--name", "Nightly export"][..], &owner].concat())?;
    let script = std::fs::read_to_string(shell::root().join("crates/muster/tests/axe/pages.js"))?;
    let found = browser.run_async(&script)?;
    let mut pages: Vec<String> = serde_json::from_value(found["pages"].clone())?;
    pages.extend(["/login".to_owned(), "/setup".to_owned()]);
    let mut pages: Vec<String> = pages.iter().map(|path| fleet.with_more(path)).collect();
    pages.extend(fleet.pages().into_iter().filter(|path| !pages.contains(path)).collect::<Vec<_>>());
    let pages: Vec<String> = pages.into_iter().filter(|path| path.starts_with(&args.only)).collect();
    anyhow::ensure!(!pages.is_empty(), "no page was found: {found}");
    println!("pages that no link leads to, for want of an object: {}", found["missing"]);
    let target = shell::root().join("target/screenshots");
    for path in &pages {
        take_all(&browser, &site, path, &target)?;
    }
    println!("{} pages are in {}", pages.len(), target.display());
    if args.write {
        write_readme(&browser, &site, &pages)?;
    }
    Ok(())
}

/// Logs an administrator in with a set-up link.
fn log_in(muster: &Muster, browser: &Browser) -> anyhow::Result<()> {
    muster.run(&["user", "create", "max@example.com", "--full-name", "Max Muster"])?;
    muster.run(&["role", "bind", "administrator", "--user", "max@example.com"])?;
    browser.open(&muster.setup_link("max@example.com")?)?;
    let fill = "for (const name of ['password', 'again']) document.querySelector(`[name=${name}]`).value";
    browser.run(&format!("{fill} = {}; document.querySelector('main button').click()", json!(PASSWORD)))?;
    browser.wait(Duration::from_secs(20), "return location.pathname === '/'")
}

/// Takes a page on all screens in all themes.
fn take_all(browser: &Browser, site: &str, path: &str, target: &Path) -> anyhow::Result<()> {
    for screen in SCREENS {
        for theme in THEMES {
            show(browser, site, path, screen, theme)?;
            let file = target.join(format!("{}-{theme}", screen.0)).join(format!("{}.png", name_of(path)));
            write(&file, &browser.picture(&json!({"format": "png", "captureBeyondViewport": true}))?)?;
        }
    }
    Ok(())
}

/// Opens a page, as high as it is.
fn show(
    browser: &Browser,
    site: &str,
    path: &str,
    (_, width, height, is_phone): (&str, u32, u32, bool),
    theme: &str,
) -> anyhow::Result<()> {
    let screen = |height| json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
    let feature = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
    browser.devtools("Emulation.setDeviceMetricsOverride", &screen(height))?;
    browser.devtools("Emulation.setEmulatedMedia", &feature)?;
    browser.open(&format!("{site}{path}"))?;
    let full = browser.run("return document.documentElement.scrollHeight")?.as_u64().unwrap_or_default();
    let full = u32::try_from(full).unwrap_or(MAX_HEIGHT).clamp(height, MAX_HEIGHT);
    browser.devtools("Emulation.setDeviceMetricsOverride", &screen(full))?;
    // Parts that a page loads after it is shown.
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}

/// Returns the name of the file of a page: ids are left out.
fn name_of(path: &str) -> String {
    let is_id = |word: &str| word.len() >= 32 && word.contains('-');
    let words = path.split('/').filter(|word| !word.is_empty()).map(|word| if is_id(word) { "one" } else { word });
    let name = words.collect::<Vec<_>>().join("-");
    if name.is_empty() { "overview".to_owned() } else { name }
}

fn write(file: &Path, picture: &[u8]) -> anyhow::Result<()> {
    std::fs::create_dir_all(file.parent().context("no directory")?)?;
    Ok(std::fs::write(file, picture)?)
}

/// Writes the pictures of the README, as large as a screen.
fn write_readme(browser: &Browser, site: &str, pages: &[String]) -> anyhow::Result<()> {
    for (beginning, theme, name) in README {
        let is_it = |path: &&String| match beginning.strip_suffix('/') {
            Some("") | None => path.as_str() == beginning,
            Some(parent) => {
                path.strip_prefix(parent).is_some_and(|rest| rest.len() > 8 && rest.matches('/').count() == 1)
            }
        };
        let Some(path) = pages.iter().find(is_it) else { continue };
        let (_, width, height, _) = SCREENS[0];
        show(browser, site, path, SCREENS[0], theme)?;
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let picture = browser.picture(&json!({"format": "webp", "quality": 80, "clip": clip}))?;
        anyhow::ensure!(picture.len() <= MAX_PICTURE, "{name}: {} bytes", picture.len());
        write(&shell::root().join("docs/screenshots").join(format!("{name}.webp")), &picture)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_the_path_without_ids() {
        assert_eq!(name_of("/"), "overview");
        assert_eq!(name_of("/agents/0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60"), "agents-one");
        assert_eq!(name_of("/settings/users/new"), "settings-users-new");
    }
}
