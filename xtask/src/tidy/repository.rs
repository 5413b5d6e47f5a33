//! Rules about the repository as a whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::citations::Citations;
use super::dependencies;
use crate::shell;

/// Parts of paths and names that are specific to one machine. They are split, so that this file does not violate the
/// rule.
// Concatenated, so that this file does not violate its own rule.
const MACHINE: [&str; 4] =
    [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("index.cr", "ates.io"), concat!("/tmp/ba", "sh")];

/// Returns all violations.
pub fn stops() -> anyhow::Result<Vec<String>> {
    let files = shell::sources()?;
    let read = |path: &Path| std::fs::read(shell::root().join(path)).with_context(|| path.display().to_string());
    let mut stops = Vec::new();
    let mut citations = Citations::of_the_pages();
    let mut texts: Vec<(PathBuf, String)> = Vec::new();
    for path in &files {
        let bytes = read(path)?;
        // Binary files have no text to check.
        let Ok(text) = String::from_utf8(bytes) else { continue };
        stops.extend(machine_words(path, &text));
        stops.extend(conflict_marker(path, &text));
        // Its tests contain invalid citations on purpose.
        if !is_data(path) && !path.ends_with("tidy/citations.rs") {
            stops.extend(citations.check(path, &text));
        }
        if path.file_name().is_some_and(|name| name == "Cargo.toml") && path.parent().is_some_and(is_member) {
            stops.extend(member(path, &text)?);
        }
        texts.push((path.clone(), text));
    }
    let deny = std::fs::read_to_string(shell::root().join("deny.toml"))?;
    let lock = std::fs::read_to_string(shell::root().join("Cargo.lock"))?;
    stops.extend(banned(&deny, &lock)?);
    let manifest = std::fs::read_to_string(shell::root().join("Cargo.toml"))?;
    let page = std::fs::read_to_string(shell::root().join("docs/dependencies.md"))?;
    stops.extend(undocumented(&manifest, &page)?);
    stops.extend(dependencies::unused(&texts)?);
    println!("reference statements that nothing cites: {}", citations.uncited().join(" "));
    Ok(stops)
}

/// Returns whether a file is data. Recorded requests may contain paths of their machines.
fn is_data(path: &Path) -> bool {
    path == Path::new("Cargo.lock") || path.iter().any(|part| part == "golden" || part == "seeds" || part == "corpus")
}

fn is_member(directory: &Path) -> bool {
    directory == Path::new("xtask") || directory.starts_with("crates")
}

fn machine_words(path: &Path, text: &str) -> Vec<String> {
    let words = MACHINE.iter().filter(|word| !is_data(path) && text.contains(**word));
    words.map(|word| format!("{}: {word} is specific to one machine", path.display())).collect()
}

/// Returns a violation if a merge left a conflict marker: neither the compiler nor a test sees one in a page.
fn conflict_marker(path: &Path, text: &str) -> Option<String> {
    let is_marker = |line: &str| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ");
    let at = text.lines().position(is_marker)?;
    Some(format!("{}:{}: conflict marker of a merge", path.display(), at + 1))
}

/// The only crate that may contain unsafe code.
pub const UNSAFE: &str = "crates/muster-platform";

/// Checks that a member inherits the lints and has a description.
fn member(path: &Path, text: &str) -> anyhow::Result<Vec<String>> {
    let manifest: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    let at = |section: &str, key: &str| manifest.get(section).and_then(|section| section.get(key)).cloned();
    let mut stops = Vec::new();
    // A crate with unsafe code cannot inherit the lint that forbids it.
    if at("lints", "workspace") != Some(toml::Value::Boolean(true)) && !path.starts_with(UNSAFE) {
        stops.push(format!("{}: lints.workspace = true is missing", path.display()));
    }
    let description = at("package", "description");
    if description.as_ref().and_then(|text| text.as_str()).is_none_or(|text| text.len() < 20) {
        stops.push(format!("{}: the description is missing or too short", path.display()));
    }
    let name = at("package", "name");
    stops.extend(walls(name.as_ref().and_then(|name| name.as_str()).unwrap_or_default(), &manifest));
    Ok(stops)
}

/// Dependencies that a crate must not have, not even in tests. Core and services are independent of the families of
/// agents, and therefore of their wire types and transports.
const WALLS: [(&str, &[&str]); 4] = [
    ("muster-core", &["muster-protocol", "muster-store", "http", "hyper", "axum", "tokio", "rusqlite"]),
    (
        "muster-fleet",
        &["muster-protocol", "muster-listen", "muster-elastic", "muster-fleetd", "http", "hyper", "axum", "rusqlite"],
    ),
    ("muster-fleetd", &["muster-elastic", "rusqlite"]),
    ("muster-store", &["muster-protocol", "muster-fleet", "http", "hyper", "axum"]),
];

fn walls(name: &str, manifest: &toml::Table) -> Vec<String> {
    let forbidden = WALLS.iter().filter(|(member, _)| *member == name).flat_map(|(_, forbidden)| *forbidden);
    let packages = packages(manifest);
    forbidden
        .filter(|dependency| packages.contains(**dependency))
        .map(|dependency| format!("{name}: it must not depend on {dependency}"))
        .collect()
}

/// Returns the packages on which a manifest depends, in any section and on any platform. A dependency may have another
/// name than its package.
fn packages(manifest: &toml::Table) -> BTreeSet<&str> {
    let platforms = manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten();
    let platforms = platforms.filter_map(|(_, platform)| platform.as_table());
    let sections = std::iter::once(manifest).chain(platforms).flat_map(|one| {
        ["dependencies", "dev-dependencies", "build-dependencies"].into_iter().filter_map(|section| one.get(section))
    });
    let dependencies = sections.filter_map(toml::Value::as_table).flatten();
    dependencies
        .map(|(name, dependency)| dependency.get("package").and_then(toml::Value::as_str).unwrap_or(name))
        .collect()
}

/// Returns crates of the lock file that `deny.toml` bans.
fn banned(deny: &str, lock: &str) -> anyhow::Result<Vec<String>> {
    let deny: toml::Table = deny.parse().context("deny.toml")?;
    let rows = deny.get("bans").and_then(|bans| bans.get("deny")).and_then(|rows| rows.as_array());
    let names = rows.into_iter().flatten().filter_map(|row| row.get("crate")?.as_str());
    let locked = |name: &str| lock.lines().any(|line| line == format!("name = \"{name}\""));
    Ok(names.filter(|name| locked(name)).map(|name| format!("Cargo.lock: {name} is banned in deny.toml")).collect())
}

/// Returns dependencies that `docs/dependencies.md` does not list.
fn undocumented(manifest: &str, page: &str) -> anyhow::Result<Vec<String>> {
    let manifest: toml::Table = manifest.parse().context("Cargo.toml")?;
    let rows =
        manifest.get("workspace").and_then(|workspace| workspace.get("dependencies")).and_then(|rows| rows.as_table());
    let ours = |row: &toml::Value| row.get("path").is_some();
    let names = rows.into_iter().flatten().filter(|(_, row)| !ours(row)).map(|(name, _)| name);
    let told: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .flat_map(|cell| cell.split(", "))
        .collect();
    let untold = names.filter(|name| !told.contains(&name.as_str()));
    Ok(untold.map(|name| format!("docs/dependencies.md: {name} is not listed")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_crate_is_found() {
        let deny = "[bans]\ndeny = [{ crate = \"openssl\", reason = \"x\" }, { crate = \"other\" }]";
        let stops = banned(deny, "[[package]]\nname = \"openssl\"\n").unwrap();
        assert_eq!(stops, ["Cargo.lock: openssl is banned in deny.toml"]);
    }

    #[test]
    fn every_dependency_is_documented() {
        let manifest =
            "[workspace.dependencies]\na = \"1\"\nb = { version = \"1\" }\nc = \"1\"\nours = { path = \"x\" }";
        let stops = undocumented(manifest, "| crate |\n| a, c | what for |\n").unwrap();
        assert_eq!(stops, ["docs/dependencies.md: b is not listed"]);
    }

    #[test]
    fn members_inherit_lints_and_describe_themselves() {
        let stops = member(Path::new("a"), "[package]\nname = \"a\"\ndescription = \"PLACEHOLDER\"").unwrap();
        assert_eq!(stops.len(), 2);
        let whole = "[package]\ndescription = \"Simulated agents for load.\"\n[lints]\nworkspace = true";
        assert!(member(Path::new("a"), whole).unwrap().is_empty());
        let own = "[package]\ndescription = \"The crate with unsafe code.\"\n";
        assert_eq!(member(Path::new("crates/a/Cargo.toml"), own).unwrap().len(), 1);
        assert!(member(&Path::new(UNSAFE).join("Cargo.toml"), own).unwrap().is_empty());
    }

    #[test]
    fn core_and_services_depend_on_no_family_and_no_transport() {
        let manifest = |text: &str| text.parse::<toml::Table>().unwrap();
        let wire = manifest("[dependencies]\nmuster-protocol.workspace = true\n[dev-dependencies]\nhttp = \"1\"");
        assert_eq!(
            walls("muster-core", &wire),
            ["muster-core: it must not depend on muster-protocol", "muster-core: it must not depend on http"]
        );
        let hidden = manifest(
            "[dependencies]\nwire = { package = \"muster-protocol\", path = \"x\" }\n\
             [build-dependencies]\naxum = \"1\"\n\
             [target.'cfg(unix)'.dependencies]\nrusqlite.workspace = true\n\
             [target.x86_64-unknown-linux-gnu.dev-dependencies.web]\npackage = \"hyper\"\nversion = \"1\"",
        );
        let found = walls("muster-core", &hidden);
        let names: Vec<_> = found.iter().filter_map(|stop| stop.rsplit(' ').next()).collect();
        assert_eq!(names, ["muster-protocol", "hyper", "axum", "rusqlite"]);
        assert!(walls("muster-elastic", &wire).is_empty());
        assert!(walls("muster-fleet", &manifest("[dependencies]\nmuster-core.workspace = true")).is_empty());
    }

    #[test]
    fn conflict_markers_are_found() {
        let merged = format!("# Page\n{} HEAD\nours\n", "<".repeat(7));
        assert_eq!(conflict_marker(Path::new("a.md"), &merged).unwrap(), "a.md:2: conflict marker of a merge");
        assert_eq!(conflict_marker(Path::new("a.md"), "a <<<<<<< b\n=======\n"), None);
    }

    #[test]
    fn machine_specific_paths_are_found_except_in_data() {
        let text = format!("see {}user", MACHINE[1]);
        assert_eq!(machine_words(Path::new("docs/a.md"), &text).len(), 1);
        assert!(machine_words(Path::new("crates/a/tests/golden/a.json"), &text).is_empty());
    }
}
