//! A copy of the RustSec advisory database, reduced to the affected versions.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::shell;

const FILE: &str = "xtask/src/deny/advisories.tsv";

/// All advisories of one day.
pub struct Advisories {
    /// Date of the newest commit of the database.
    pub date: String,
    rows: Vec<Advisory>,
}

/// One advisory.
struct Advisory {
    id: String,
    package: String,
    /// `vulnerability`, `unsound`, `unmaintained` or `notice`.
    kind: String,
    patched: Vec<VersionReq>,
    unaffected: Vec<VersionReq>,
}

impl Advisories {
    /// Reads the copy in the repository.
    pub fn of_the_repository() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(shell::root().join(FILE)).context(FILE)?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        // The date shows how old the copy is, because it is not updated automatically.
        let date = lines.next().and_then(|line| line.strip_prefix("# ")).context("no date in the first line")?;
        let rows = lines.map(Advisory::parse).collect::<anyhow::Result<_>>()?;
        Ok(Self { date: date.to_owned(), rows })
    }

    /// Returns the advisories that are errors for this version.
    pub fn vulnerabilities(&self, name: &str, version: &Version) -> Vec<String> {
        self.of(name, version, |kind| kind == "vulnerability" || kind == "unsound")
    }

    /// Returns the advisories that are warnings for this version.
    pub fn warnings(&self, name: &str, version: &Version) -> Vec<String> {
        self.of(name, version, |kind| kind == "unmaintained" || kind == "notice")
    }

    fn of(&self, name: &str, version: &Version, is_wanted: fn(&str) -> bool) -> Vec<String> {
        let rows = self.rows.iter().filter(|row| row.package == name && is_wanted(&row.kind) && row.affects(version));
        rows.map(|row| {
            let Advisory { id, kind, .. } = row;
            format!("{name} {version}: {kind}, https://rustsec.org/advisories/{id}")
        })
        .collect()
    }
}

impl Advisory {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let cells: Vec<_> = line.split('\t').collect();
        let [id, package, kind, patched, unaffected] = cells.as_slice() else {
            anyhow::bail!("{FILE}: expected five columns: {line}");
        };
        let requirements = |cell: &str| {
            let parts = cell.split("; ").filter(|part| !part.is_empty());
            parts.map(|part| VersionReq::parse(part).context(line.to_owned())).collect::<anyhow::Result<Vec<_>>>()
        };
        Ok(Self {
            id: (*id).to_owned(),
            package: (*package).to_owned(),
            kind: (*kind).to_owned(),
            patched: requirements(patched)?,
            unaffected: requirements(unaffected)?,
        })
    }

    fn affects(&self, version: &Version) -> bool {
        // The database lists the ranges that are not affected.
        !self.patched.iter().chain(&self.unaffected).any(|range| range.matches(version))
    }
}

/// Rewrites the copy from a clone of the database.
pub fn update(clone: &Path) -> anyhow::Result<()> {
    let mut command = std::process::Command::new("git");
    let output = command.arg("-C").arg(clone).args(["log", "-1", "--format=%cs"]).output()?;
    anyhow::ensure!(output.status.success(), "{} is not a clone of the advisory database", clone.display());
    let mut rows = Vec::new();
    for path in pages(&clone.join("crates"))? {
        rows.extend(page(&std::fs::read_to_string(&path)?).with_context(|| path.display().to_string())?);
    }
    // Sorted, so that an update has a small difference.
    rows.sort_unstable();
    let date = String::from_utf8(output.stdout)?;
    let text = rows.iter().fold(format!("# {date}"), |mut text, row| {
        let _ = writeln!(text, "{row}");
        text
    });
    // A copy that cannot be parsed must not replace the current one.
    Advisories::parse(&text)?;
    std::fs::write(shell::root().join(FILE), text)?;
    Ok(())
}

fn pages(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        for page in std::fs::read_dir(entry?.path())? {
            pages.push(page?.path());
        }
    }
    Ok(pages)
}

/// Returns the line of an advisory; `None` if it was withdrawn.
fn page(text: &str) -> anyhow::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Page {
        advisory: Head,
        #[serde(default)]
        versions: Versions,
    }
    #[derive(Deserialize)]
    struct Head {
        id: String,
        package: String,
        informational: Option<String>,
        withdrawn: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Versions {
        #[serde(default)]
        patched: Vec<String>,
        #[serde(default)]
        unaffected: Vec<String>,
    }
    let block = text.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```")).context("no TOML block")?.0;
    let Page { advisory, versions } = toml::from_str(block)?;
    // Withdrawn advisories were published by mistake.
    if advisory.withdrawn.is_some() {
        return Ok(None);
    }
    let kind = advisory.informational.as_deref().unwrap_or("vulnerability");
    let (patched, unaffected) = (versions.patched.join("; "), versions.unaffected.join("; "));
    Ok(Some(format!("{}\t{}\t{kind}\t{patched}\t{unaffected}", advisory.id, advisory.package)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affected_version_is_neither_patched_nor_unaffected() {
        let text = "# 2026-08-21\nRUSTSEC-1\ta\tvulnerability\t>= 1.0.5; >= 0.9.9, < 1.0.0\t< 0.5.0\nRUSTSEC-2\tb\tunmaintained\t\t\n";
        let advisories = Advisories::parse(text).unwrap();
        let affected = |version: &str| !advisories.vulnerabilities("a", &version.parse().unwrap()).is_empty();
        let found = ["0.4.0", "0.5.0", "0.9.8", "0.9.9", "1.0.4", "1.0.5"].map(affected);
        assert_eq!(found, [false, true, true, false, true, false]);
        assert!(advisories.vulnerabilities("b", &Version::new(1, 0, 0)).is_empty());
        assert_eq!(advisories.warnings("b", &Version::new(1, 0, 0)).len(), 1);
    }

    #[test]
    fn withdrawn_advisory_is_ignored() {
        let text = "```toml\n[advisory]\nid = \"R\"\npackage = \"a\"\n[versions]\npatched = [\"> 1\", \"> 2\"]\n```\n";
        assert_eq!(page(text).unwrap().unwrap(), "R\ta\tvulnerability\t> 1; > 2\t");
        assert!(page(&text.replace("[versions]", "withdrawn = \"2026-01-01\"\n[versions]")).unwrap().is_none());
        assert!(page("no block").is_err());
    }
}
