//! Disks, the last boot and certificates on the page of a device, and in what Fleet Desktop reads. Not the users: the page shows nothing of
//! other people.

use std::fmt::Write as _;

use muster_core::fleetd::inventory::fleetdm::certificate_form;
use muster_core::fleetd::inventory::{Certificate, Disk, Inventory};
use muster_core::plural::counted;
use muster_core::time::Timestamp;
use serde_json::{Value, json};

use super::device::escaped;

/// Returns the certificates for programs, in FleetDM's form.
pub(super) fn certificates(inventory: &Inventory) -> Value {
    let all: Vec<Value> = inventory.certificates.items.iter().map(certificate_form).collect();
    json!({
        "count": all.len(),
        "certificates": all,
        "meta": {"has_next_results": false, "has_previous_results": false},
    })
}

/// Returns the time of the last boot; empty if it is unknown.
pub(super) fn booted(inventory: &Inventory) -> String {
    inventory.system.booted_at.map(Timestamp::to_rfc3339_seconds).unwrap_or_default()
}

/// Returns the disks as a text; empty if they are unknown.
pub(super) fn disks(inventory: &Inventory) -> String {
    inventory.system.disks.iter().map(disk).collect::<Vec<_>>().join("; ")
}

fn disk(disk: &Disk) -> String {
    const GB: u64 = 1_000_000_000;
    let encrypted = match disk.encrypted {
        Some(true) => ", encrypted",
        Some(false) => ", not encrypted",
        None => "",
    };
    format!("{}: {} of {} GB free ({} %){encrypted}", disk.path, disk.free / GB, disk.size / GB, disk.percent_free())
}

/// Returns the part of the page with the certificates; empty without any.
pub(super) fn section(inventory: &Inventory) -> String {
    let certificates = &inventory.certificates.items;
    if certificates.is_empty() {
        return String::new();
    }
    let count = counted(certificates.len() as u64, "certificate");
    let mut section = format!("<h2>Certificates</h2><details><summary>{count}</summary><table>");
    for certificate in certificates {
        let Certificate { common_name, subject, not_after, .. } = certificate;
        let name = escaped(if common_name.is_empty() { subject } else { common_name });
        let until = not_after.map_or_else(|| "–".to_owned(), |at| format!("until {}", at.to_rfc3339_seconds()));
        let _ = write!(section, "<tr><th scope=\"row\">{name}</th><td>{until}</td></tr>");
    }
    section.push_str("</table></details>");
    section
}

#[cfg(test)]
mod tests {
    use muster_core::fleetd::inventory::{Listing, System};
    use muster_core::testing::at;

    use super::*;

    #[test]
    fn disks_and_certificates_are_told_and_escaped() {
        let of = |path: &str, encrypted| Disk {
            path: path.into(),
            size: 500_000_000_000,
            free: 20_000_000_000,
            encrypted,
            ..Disk::default()
        };
        let bad = Certificate { common_name: "<b>".into(), not_after: Some(at(0)), ..Certificate::default() };
        let inventory = Inventory {
            system: System { booted_at: Some(at(60)), disks: vec![of("/", Some(true)), of("/data", None)] },
            certificates: Listing { items: vec![bad], is_cut: false },
            ..Inventory::default()
        };
        assert_eq!(disks(&inventory), "/: 20 of 500 GB free (4 %), encrypted; /data: 20 of 500 GB free (4 %)");
        assert_eq!(booted(&inventory), "2026-01-02T03:01:00Z");
        let section = section(&inventory);
        assert!(
            section.contains("&lt;b&gt;") && section.contains("until 2026-01-02") && section.contains("1 certificate")
        );
        assert_eq!(certificates(&inventory)["certificates"][0]["common_name"], "<b>");
        assert_eq!(
            (super::section(&Inventory::default()), booted(&Inventory::default())),
            <(String, String)>::default()
        );
    }
}
