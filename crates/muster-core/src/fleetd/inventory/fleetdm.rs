//! The inventory in the form of FleetDM, which its REST API and the API of Fleet Desktop share (FL §3.1).

use serde_json::{Value, json};

use super::{Certificate, Disk, Inventory};
use crate::fleetd::numbers;
use crate::time::Timestamp;

/// Returns the disk with the operating system, and the last boot, as members of a host. FleetDM has zeros where it knows nothing.
pub fn system_form(inventory: &Inventory, now: Timestamp) -> Value {
    let disk = inventory.main_disk();
    let booted = inventory.system.booted_at;
    let uptime = booted.map_or(0, |booted| u64::try_from(now.since(booted).as_nanos()).unwrap_or(u64::MAX));
    json!({
        "gigs_disk_space_available": disk.map_or(0.0, |disk| gigabytes(disk.free)),
        "gigs_total_disk_space": disk.map_or(0.0, |disk| gigabytes(disk.size)),
        "percent_disk_space_available": disk.map_or(0, Disk::percent_free),
        "disk_encryption_enabled": disk.and_then(|disk| disk.encrypted),
        // Nanoseconds.
        "uptime": uptime,
        "last_restarted_at": booted.map(Timestamp::to_rfc3339_seconds),
    })
}

/// Returns a number of bytes in gigabytes with two decimals.
fn gigabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 10_000_000).unwrap_or(u32::MAX)) / 100.0
}

/// Returns a certificate as a JSON object.
pub fn certificate_form(certificate: &Certificate) -> Value {
    let time = |at: Option<Timestamp>| at.map(Timestamp::to_rfc3339_seconds);
    let subject = name(&certificate.subject, &certificate.common_name);
    json!({
        "id": numbers::of(&format!("{}\n{}", certificate.sha1, certificate.username)),
        "common_name": certificate.common_name,
        "not_valid_before": time(certificate.not_before),
        "not_valid_after": time(certificate.not_after),
        "certificate_authority": certificate.is_ca,
        "serial": certificate.serial,
        "key_algorithm": certificate.key_algorithm,
        "key_strength": certificate.key_strength.parse::<u64>().unwrap_or(0),
        "key_usage": certificate.key_usage,
        "signing_algorithm": certificate.signing_algorithm,
        "subject": subject,
        "issuer": name(&certificate.issuer, ""),
        "source": certificate.source,
        "username": certificate.username,
    })
}

/// Returns the parts of a distinguished name. osquery writes it as `/C=US/O=Example/CN=x` or `C=US, O=Example, CN=x`; on Windows, also
/// without the names of the parts, so that the common name comes from another column.
fn name(text: &str, common_name: &str) -> Value {
    let separator = if text.starts_with('/') { '/' } else { ',' };
    let (mut country, mut organization, mut unit, mut common) = ("", "", "", common_name);
    for (key, value) in text.split(separator).filter_map(|part| part.trim().split_once('=')) {
        match key.trim() {
            "C" => country = value.trim(),
            "O" => organization = value.trim(),
            "OU" => unit = value.trim(),
            "CN" => common = value.trim(),
            _ => {}
        }
    }
    json!({"country": country, "organization": organization, "organizational_unit": unit, "common_name": common})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleetd::inventory::System;
    use crate::testing::at;

    #[test]
    fn the_system_is_told_in_gigabytes_and_nanoseconds() {
        let disk = Disk { size: 500_107_862_016, free: 1_234_567_890, encrypted: Some(true), ..Disk::default() };
        let system = System { booted_at: Some(at(100)), disks: vec![disk] };
        let told = system_form(&Inventory { system, ..Inventory::default() }, at(160));
        assert_eq!((&told["gigs_total_disk_space"], &told["gigs_disk_space_available"]), (&json!(500.1), &json!(1.23)));
        assert_eq!((&told["uptime"], &told["disk_encryption_enabled"]), (&json!(60_000_000_000_u64), &json!(true)));
        assert_eq!(told["last_restarted_at"], "2026-01-02T03:01:40Z");
        let unknown = system_form(&Inventory::default(), at(0));
        assert_eq!((&unknown["uptime"], &unknown["disk_encryption_enabled"]), (&json!(0), &Value::Null));
    }

    #[test]
    fn names_are_split_in_each_notation() {
        let expected =
            json!({"country": "US", "organization": "Example", "organizational_unit": "IT", "common_name": "x"});
        for text in ["/C=US/O=Example/OU=IT/CN=x", "C=US, O=Example, OU=IT, CN=x", "CN=x,OU=IT,O=Example,C=US"] {
            assert_eq!(name(text, ""), expected, "{text}");
        }
        assert_eq!(name("US, Example, x", "x")["common_name"], "x");
        assert_eq!(name("", "")["country"], "");
    }

    #[test]
    fn ids_are_numbers_and_times_are_absent_if_they_are_unknown() {
        let one = Certificate { not_after: Some(at(0)), key_strength: "2048".into(), ..Certificate::default() };
        let form = certificate_form(&one);
        assert!(form["id"].as_u64().is_some_and(|id| id < 1 << 52));
        assert_eq!(
            (&form["not_valid_after"], &form["not_valid_before"]),
            (&json!("2026-01-02T03:00:00Z"), &Value::Null)
        );
        assert_eq!(form["key_strength"], 2048);
        let of_user = Certificate { username: "ada".into(), key_strength: "prime256v1".into(), ..one };
        let form_of_user = certificate_form(&of_user);
        assert!(form_of_user["id"] != form["id"] && form_of_user["key_strength"] == 0);
    }
}
