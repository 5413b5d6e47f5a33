//! Software on the page of a device, and in what Fleet Desktop reads.

use std::fmt::Write as _;

use muster_core::fleetd::software::{Software, SoftwareId};
use muster_core::plural::counted;
use muster_fleet::software::Installed;
use serde_json::{Value, json};

use super::device::escaped;

/// Returns the software for programs, in FleetDM's form.
pub(super) fn data(installed: &Installed) -> Value {
    let one = |(id, software): &(SoftwareId, Software)| {
        json!({
            "id": id.number(),
            "name": software.name,
            "version": software.version,
            "source": software.source.as_str(),
        })
    };
    installed.software.iter().map(one).collect()
}

/// Returns the part of the page with the software; empty without any. Closed: a host may have thousands of packages.
pub(super) fn section(installed: &Installed) -> String {
    if installed.software.is_empty() {
        return String::new();
    }
    let count = counted(installed.software.len() as u64, "package");
    let mut section = format!("<h2>Software</h2><details><summary>{count}</summary><table>");
    for (_, software) in &installed.software {
        let (name, version) = (escaped(&software.name), escaped(&software.version));
        let _ = write!(section, "<tr><th scope=\"row\">{name}</th><td>{version}</td></tr>");
    }
    section.push_str("</table></details>");
    section
}

#[cfg(test)]
mod tests {
    use muster_core::fleetd::software::Source;

    use super::*;

    #[test]
    fn names_and_versions_are_escaped() {
        let bad = Software { name: "<b>".into(), version: "\"1\"".into(), source: Source::Programs };
        let installed = Installed { software: vec![(bad.id(), bad)], ..Installed::default() };
        let section = section(&installed);
        assert!(section.contains("&lt;b&gt;") && section.contains("&quot;1&quot;") && section.contains("1 package"));
        assert_eq!(data(&installed)[0]["source"], "programs");
        assert_eq!(super::section(&Installed::default()), "");
    }
}
