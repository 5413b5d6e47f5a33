//! What the agents of a host report about it, truncated for display.

use muster_core::raw_json;
use muster_core::reported::shortened_to;
use muster_fleet::host_views::HostView;

/// Maximum length of a fact, bytes.
const LONGEST: usize = 300;
/// Maximum number of addresses.
const ADDRESSES: usize = 32;

/// The facts: their names, and where they are in the metadata.
const FACTS: [(&str, &[&str]); 16] = [
    ("Computer name", &["host", "name"]),
    ("Distribution or platform", &["os", "platform"]),
    ("Build", &["os", "build"]),
    ("Kernel", &["os", "kernel"]),
    ("Architecture", &["host", "architecture"]),
    ("Vendor", &["hardware", "vendor"]),
    ("Model", &["hardware", "model"]),
    ("Serial number", &["hardware", "serial"]),
    ("Processor", &["hardware", "cpu"]),
    ("Memory", MEMORY),
    ("Addresses", ADDRESS),
    ("Hardware addresses", &["host", "mac"]),
    ("osquery", &["osquery", "version"]),
    ("Instance of osquery", &["osquery", "instance_id"]),
    ("orbit", &["orbit", "version"]),
    ("Fleet Desktop", &["orbit", "desktop_version"]),
];
const MEMORY: &[&str] = &["hardware", "memory"];
const ADDRESS: &[&str] = &["host", "ip"];

/// Cuts a text that a host chose.
pub fn cut(text: &str) -> String {
    shortened_to(text, LONGEST).into_owned()
}

/// Returns the facts that are known. Agents of different families report different ones; of two, the newest report counts.
pub fn facts(view: &HostView) -> Vec<(&'static str, String)> {
    let mut reports: Vec<_> = view
        .agents
        .iter()
        .filter_map(|agent| Some((agent.last_checkin, agent.details.documents.local_metadata.as_deref()?)))
        .collect();
    reports.sort_by_key(|(seen, _)| std::cmp::Reverse(*seen));
    let known = |(name, path): &(&'static str, &[&str])| {
        let found = reports.iter().find_map(|(_, report)| fact(report, path))?;
        Some((*name, if *path == MEMORY { memory(&found) } else { found }))
    };
    let duplicates = view.duplicates().join(", ");
    let duplicates = Some(("Duplicate identifier", duplicates)).filter(|(_, hosts)| !hosts.is_empty());
    FACTS.iter().filter_map(known).chain(duplicates).collect()
}

/// Returns a string of the metadata, or a list of strings as one text.
fn fact(report: &str, path: &[&str]) -> Option<String> {
    let raw = raw_json::at(report, path)?;
    let text = match raw_json::as_text(raw) {
        Some(text) => text.into_owned(),
        None => {
            let mut all = Vec::new();
            raw_json::each_element(raw, |one| {
                all.extend(raw_json::as_text(one).map(|text| cut(&text)));
                all.len() < ADDRESSES
            });
            all.join(", ")
        }
    };
    Some(shortened_to(&text, LONGEST * 4).into_owned()).filter(|text| !text.trim().is_empty())
}

/// Formats a number of bytes. Other text is returned unchanged.
fn memory(bytes: &str) -> String {
    const GIB: u64 = 1 << 30;
    match bytes.parse::<u64>() {
        Ok(bytes) => format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB),
        Err(_) => cut(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_any_type_are_bounded() {
        let report = r#"{"host":{"ip":["10.0.0.1","::2",7],"name":5,"mac":"ab"},"hardware":{"memory":"17179869184"}}"#;
        assert_eq!(fact(report, ADDRESS).as_deref(), Some("10.0.0.1, ::2"));
        assert_eq!(fact(report, &["host", "mac"]).as_deref(), Some("ab"));
        assert_eq!((fact(report, &["host", "name"]), fact(report, &["os", "x"])), (None, None));
        assert_eq!((memory("17179869184").as_str(), memory("much").as_str()), ("16.0 GiB", "much"));
        let many = format!("{{\"host\":{{\"ip\":[{}]}}}}", vec![format!("\"{}\"", "x".repeat(9_000)); 99].join(","));
        assert!(fact(&many, ADDRESS).unwrap().len() < 2_000);
    }
}
