//! Results of the detail queries for the inventory.

use std::collections::BTreeMap;
use std::time::Duration;

use super::queries::{CERTIFICATES, DISK_ENCRYPTION, DISK_SPACE, QUERIES, UPTIME, USERS};
use super::{Certificate, Disk, Listing, MAX_CERTIFICATES, MAX_DISKS, MAX_LIST_BYTES, MAX_TEXT, MAX_USERS, User};
use crate::fleetd::rows;
use crate::raw_json;
use crate::reported::shortened_to;
use crate::time::Timestamp;

/// What a host reports; `None` for parts whose queries failed or did not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Time of the last boot.
    pub booted_at: Option<Timestamp>,
    /// Disks, without whether they are encrypted.
    pub disks: Option<Vec<Disk>>,
    /// Paths of the encrypted disks.
    pub encrypted: Option<Vec<String>>,
    /// Users.
    pub users: Option<Listing<User>>,
    /// Certificates.
    pub certificates: Option<Listing<Certificate>>,
}

/// Returns what a host reports in the results of a request, which are JSON objects by query name; `None` if it was not asked.
pub fn report(queries: &str, statuses: &str, now: Timestamp) -> Option<Report> {
    let names = QUERIES.map(|query| query.name);
    let [statuses, results] = [statuses, queries].map(|part| raw_json::members(part, names));
    if statuses.iter().chain(&results).all(Option::is_none) {
        return None;
    }
    // Each operating system answers one of the queries of a part.
    let rows = |wanted: &[&str]| {
        let succeeded = |at: &usize| rows::outcome(statuses[*at], results[*at]) == Some(0);
        let at = (0..names.len()).filter(|at| wanted.contains(&names[*at])).find(succeeded)?;
        Some(results[at].unwrap_or("[]"))
    };
    Some(Report {
        booted_at: rows(&[UPTIME]).and_then(|rows| booted_at(rows, now)),
        disks: rows(&DISK_SPACE).map(disks),
        encrypted: rows(&DISK_ENCRYPTION).map(paths),
        users: rows(&[USERS]).map(|rows| listing(rows, MAX_USERS, user)),
        certificates: rows(&CERTIFICATES).map(|rows| listing(rows, MAX_CERTIFICATES, certificate)),
    })
}

/// Reads the time of the last boot, by the clock of the server: that of a host may be wrong.
fn booted_at(rows: &str, now: Timestamp) -> Option<Timestamp> {
    let mut seconds = None;
    raw_json::each_element(rows, |row| {
        let [total] = texts(row, ["total_seconds"]);
        seconds = total.parse().ok().filter(|seconds| *seconds > 0);
        false
    });
    let booted = now.minus(Duration::from_secs(seconds?));
    Some(Timestamp::from_micros(booted.as_micros() / 1_000_000 * 1_000_000))
}

fn disks(rows: &str) -> Vec<Disk> {
    let mut disks = BTreeMap::new();
    raw_json::each_element(rows, |row| {
        let [path, file_system, size, free, is_system] =
            texts(row, ["path", "file_system", "size", "free", "is_system"]);
        let size = size.parse().unwrap_or(0);
        // Pseudo file systems have no size.
        if !path.is_empty() && size > 0 {
            // Negative if more is in use than users may.
            let free = free.parse().unwrap_or(0).min(size);
            let disk =
                Disk { path: path.clone(), file_system, size, free, is_system: is_system == "1", encrypted: None };
            disks.insert(path, disk);
        }
        disks.len() < MAX_DISKS
    });
    disks.into_values().collect()
}

fn paths(rows: &str) -> Vec<String> {
    let mut paths = Vec::new();
    raw_json::each_element(rows, |row| {
        let [path] = texts(row, ["path"]);
        paths.push(path);
        paths.len() < MAX_LIST_BYTES / MAX_TEXT
    });
    paths
}

/// Reads a list, sorted and without duplicates, up to its maximum length and size.
fn listing<T: Ord>(rows: &str, most: usize, read: impl Fn(&str) -> Option<T>) -> Listing<T> {
    let (mut items, mut is_cut, mut bytes) = (Vec::new(), false, 0);
    raw_json::each_element(rows, |row| {
        bytes += row.len();
        is_cut = items.len() == most || bytes > MAX_LIST_BYTES;
        items.extend(read(row).filter(|_| !is_cut));
        !is_cut
    });
    items.sort_unstable();
    items.dedup();
    Listing { items, is_cut }
}

fn user(row: &str) -> Option<User> {
    let [uid, username, kind, shell, group] = texts(row, ["uid", "username", "type", "shell", "groupname"]);
    let uid = uid.parse().ok()?;
    (!username.is_empty()).then_some(User { uid, username, kind, group, shell })
}

fn certificate(row: &str) -> Option<Certificate> {
    let [common_name, subject, issuer, serial, sha1, username] =
        texts(row, ["common_name", "subject", "issuer", "serial", "sha1", "username"]);
    let [not_before, not_after, ca] = texts(row, ["not_valid_before", "not_valid_after", "ca"]);
    let [key_algorithm, key_strength, key_usage, signing_algorithm] =
        texts(row, ["key_algorithm", "key_strength", "key_usage", "signing_algorithm"]);
    (!sha1.is_empty()).then(|| Certificate {
        sha1: sha1.to_ascii_lowercase(),
        source: if username.is_empty() { "system" } else { "user" }.into(),
        not_before: seconds(&not_before),
        not_after: seconds(&not_after),
        is_ca: ca == "1",
        common_name,
        username,
        subject,
        issuer,
        serial,
        key_algorithm,
        key_strength,
        key_usage,
        signing_algorithm,
    })
}

/// Reads a time in seconds since 1970.
fn seconds(text: &str) -> Option<Timestamp> {
    // Some versions of osquery write a fraction.
    let whole: i64 = text.split('.').next()?.parse().ok()?;
    whole.checked_mul(1_000_000).map(Timestamp::from_micros)
}

/// Returns columns of a row; empty if they are missing, or no strings.
fn texts<const N: usize>(row: &str, columns: [&str; N]) -> [String; N] {
    raw_json::members(row, columns).map(|raw| {
        let text = raw.and_then(raw_json::as_text).unwrap_or_default();
        shortened_to(text.trim(), MAX_TEXT).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::fleetd::inventory::{Inventory, Kind, MAX_DOCUMENT_BYTES};
    use crate::testing::at;

    fn reported(results: &[(&str, Value)]) -> Report {
        let queries: Value = results.iter().map(|(name, rows)| ((*name).to_owned(), rows.clone())).collect();
        let statuses: Value = results.iter().map(|(name, _)| ((*name).to_owned(), json!(0))).collect();
        report(&queries.to_string(), &statuses.to_string(), at(100_000)).unwrap()
    }

    #[test]
    fn disks_users_and_certificates_are_read_from_rows_of_strings() {
        let disks = json!([
            {"path": "/data", "file_system": "xfs", "size": "1000", "free": "-4", "is_system": "0"},
            {"path": "/", "file_system": "ext4", "size": "2000", "free": "3000", "is_system": "1"},
            {"path": "/proc", "size": "0"}, {"size": "5"}, 7,
        ]);
        let users = json!([{"uid": "1000", "username": "ada", "shell": "/bin/bash", "groupname": "staff"},
            {"uid": "0", "username": "root", "type": null}, {"uid": "x", "username": "y"}, {"uid": "5"}]);
        let ca = json!({"common_name": "Root", "sha1": "AB", "ca": "1", "not_valid_before": "10", "not_valid_after": "20.0"});
        let own = json!({"common_name": "Own", "sha1": "cd", "username": "ada", "not_valid_after": "soon"});
        let found = reported(&[
            (UPTIME, json!([{"total_seconds": "40000", "days": "0"}])),
            (DISK_SPACE[0], disks),
            (DISK_ENCRYPTION[1], json!([{"path": "/"}])),
            (USERS, users),
            (CERTIFICATES[1], json!([ca.clone(), own, ca, {"common_name": "no hash"}])),
        ]);
        assert_eq!(found.booted_at, Some(at(60_000)));
        let disk = |disk: &Disk| (disk.path.clone(), disk.size, disk.free, disk.is_system);
        let disks: Vec<_> = found.disks.unwrap().iter().map(disk).collect();
        assert_eq!(disks, [("/".into(), 2000, 2000, true), ("/data".into(), 1000, 0, false)]);
        assert_eq!(found.encrypted.unwrap(), ["/"]);
        let users: Vec<_> = found.users.unwrap().items.into_iter().map(|user| (user.uid, user.username)).collect();
        assert_eq!(users, [(0, "root".into()), (1000, "ada".into())]);
        let certificates = found.certificates.unwrap();
        let names: Vec<_> = certificates.items.iter().map(|one| (&*one.common_name, &*one.source, one.is_ca)).collect();
        assert_eq!(names, [("Own", "user", false), ("Root", "system", true)]);
        let root = &certificates.items[1];
        let since_1970 = |seconds: i64| Some(Timestamp::from_micros(seconds * 1_000_000));
        assert_eq!((&*root.sha1, root.not_before, root.not_after), ("ab", since_1970(10), since_1970(20)));
        assert_eq!((certificates.items[0].not_after, certificates.is_cut), (None, false));
    }

    #[test]
    fn queries_that_failed_or_did_not_run_report_nothing() {
        assert_eq!(report("{}", r#"{"fleet_detail_query_os_version": 0}"#, at(0)), None);
        let statuses = json!({USERS: 1, DISK_SPACE[0]: 1, DISK_SPACE[1]: "0"}).to_string();
        let found = report("{}", &statuses, at(0)).unwrap();
        assert_eq!(found, Report { disks: Some(Vec::new()), ..Report::default() });
        let none = reported(&[(UPTIME, json!([{"total_seconds": "0"}])), (USERS, json!(""))]);
        assert_eq!((none.booted_at, none.users), (None, Some(Listing::default())));
        let without_statuses = json!({USERS: [{"uid": "1", "username": "ada"}]}).to_string();
        assert_eq!(report(&without_statuses, "{}", at(0)).unwrap().users.unwrap().items.len(), 1);
    }

    #[test]
    fn lists_are_bounded_in_length_and_size() {
        let row = |number: usize| json!({"uid": number.to_string(), "username": "u"});
        let of = |rows: usize| reported(&[(USERS, (0..rows).map(row).collect())]).users.unwrap();
        assert_eq!((of(MAX_USERS).items.len(), of(MAX_USERS).is_cut), (MAX_USERS, false));
        assert_eq!((of(MAX_USERS + 1).items.len(), of(MAX_USERS + 1).is_cut), (MAX_USERS, true));
        let disk = |number: usize| json!({"path": format!("/{number}"), "size": "1"});
        let disks = reported(&[(DISK_SPACE[1], (0..MAX_DISKS + 9).map(disk).collect())]).disks.unwrap();
        assert_eq!(disks.len(), MAX_DISKS);
        let long = json!({"sha1": "a", "subject": "\u{1}".repeat(4_000)});
        let found = reported(&[(CERTIFICATES[0], vec![long; MAX_CERTIFICATES].into())]);
        assert!(found.certificates.as_ref().is_some_and(|listing| listing.is_cut && listing.items.len() == 1));
        let document = Inventory::default().updated(found).document(Kind::Certificates);
        assert!(document.len() < MAX_DOCUMENT_BYTES);
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(queries in ".*", statuses in ".*") {
            let _ = report(&queries, &statuses, at(0));
        }
    }
}
