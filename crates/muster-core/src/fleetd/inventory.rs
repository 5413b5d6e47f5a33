//! Inventory of hosts besides their software: disks and the last boot, users, certificates (FL §1.7).
//!
//! osquery reports it with the details. Each [`Kind`] is one document of a host, which is written only when it changes. Values that change
//! all the time, the uptime and the free space, are therefore kept until they have changed noticeably ([`Inventory::updated`]).

pub mod fleetdm;
mod queries;
mod report;

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::queries::QUERIES;
pub use self::report::{Report, report};
use crate::time::Timestamp;

/// Maximum number of disks of a host that are kept.
pub const MAX_DISKS: usize = 64;
/// Maximum number of users of a host that are kept.
pub const MAX_USERS: usize = 500;
/// Maximum number of certificates of a host that are kept.
pub const MAX_CERTIFICATES: usize = 500;
/// Maximum size of a list as it is reported, bytes.
pub const MAX_LIST_BYTES: usize = 512 * 1024;
/// Maximum length of a text, bytes.
pub const MAX_TEXT: usize = 512;
/// Maximum size of a stored document, bytes: the names of the fields and escapes are added to what is reported.
pub const MAX_DOCUMENT_BYTES: usize = 4 * MAX_LIST_BYTES;

/// Difference up to which two times are the same boot: a report is sent when all of its queries have run.
const SAME_BOOT: Duration = Duration::from_secs(300);
/// Part of the free space by which it must have changed: 2 %.
const NOTICEABLE: u64 = 50;

/// A part of the inventory, which is stored as one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Disks and the last boot.
    System,
    /// Users.
    Users,
    /// Certificates.
    Certificates,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::System, Self::Users, Self::Certificates];

    /// Returns its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Users => "users",
            Self::Certificates => "certificates",
        }
    }

    /// Parses a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Disks and the last boot of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct System {
    /// Time of the last boot.
    pub booted_at: Option<Timestamp>,
    /// Disks by path.
    pub disks: Vec<Disk>,
}

/// A mounted file system, or a drive of Windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Disk {
    /// Where it is mounted, or its letter: `/`, `C:`.
    pub path: String,
    /// Type of the file system.
    pub file_system: String,
    /// Size, bytes.
    pub size: u64,
    /// Free space for users, bytes, which may have changed by 2 % since.
    pub free: u64,
    /// Whether the operating system is on it.
    pub is_system: bool,
    /// Whether it is encrypted; `None` if unknown.
    pub encrypted: Option<bool>,
}

impl Disk {
    /// Returns the free space, percent, rounded down.
    pub fn percent_free(&self) -> u64 {
        u64::try_from(u128::from(self.free) * 100 / u128::from(self.size.max(1))).unwrap_or(100)
    }
}

/// A user of a host that can log in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(default)]
pub struct User {
    /// Number.
    pub uid: i64,
    /// Name.
    pub username: String,
    /// Type on Windows, such as `local` or `roaming`; empty elsewhere.
    pub kind: String,
    /// Name of the primary group.
    pub group: String,
    /// Login shell.
    pub shell: String,
}

/// A certificate on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(default)]
pub struct Certificate {
    /// Common name of the subject.
    pub common_name: String,
    /// SHA-1 of the certificate in hexadecimal digits.
    pub sha1: String,
    /// User in whose keychain or store it is; empty if it is one of the system.
    pub username: String,
    /// `system` or `user`.
    pub source: String,
    /// Subject, as the operating system writes it.
    pub subject: String,
    /// Issuer, as the operating system writes it.
    pub issuer: String,
    /// Serial number.
    pub serial: String,
    /// Time from which it is valid.
    pub not_before: Option<Timestamp>,
    /// Time until which it is valid.
    pub not_after: Option<Timestamp>,
    /// Whether it is one of a certificate authority.
    pub is_ca: bool,
    /// Algorithm of its key.
    pub key_algorithm: String,
    /// Size of its key in bits, or the name of the curve.
    pub key_strength: String,
    /// What its key may be used for.
    pub key_usage: String,
    /// Algorithm of the signature.
    pub signing_algorithm: String,
}

/// A list with a maximum length.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Listing<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether the host has more.
    pub is_cut: bool,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self { items: Vec::new(), is_cut: false }
    }
}

/// The inventory of a host, as it is stored. What was never reported is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Disks and the last boot.
    pub system: System,
    /// Users by number.
    pub users: Listing<User>,
    /// Certificates by name.
    pub certificates: Listing<Certificate>,
}

impl Inventory {
    /// Returns a kind as the JSON document that is stored.
    pub fn document(&self, kind: Kind) -> String {
        match kind {
            Kind::System => json(&self.system),
            Kind::Users => json(&self.users),
            Kind::Certificates => json(&self.certificates),
        }
    }

    /// Reads a stored document. A damaged one counts as never reported: the next report replaces it.
    pub fn read(&mut self, kind: Kind, document: &str) {
        match kind {
            Kind::System => self.system = parsed(document),
            Kind::Users => self.users = parsed(document),
            Kind::Certificates => self.certificates = parsed(document),
        }
    }

    /// Returns the inventory after a report. Parts that were not reported stay, and so do values that did not change noticeably.
    #[must_use]
    pub fn updated(&self, report: Report) -> Self {
        Self {
            system: System {
                booted_at: boot(self.system.booted_at, report.booted_at),
                disks: disks(&self.system.disks, report.disks, report.encrypted.as_deref()),
            },
            users: report.users.unwrap_or_else(|| self.users.clone()),
            certificates: report.certificates.unwrap_or_else(|| self.certificates.clone()),
        }
    }

    /// Returns the kinds that differ from another inventory.
    pub fn changes(&self, other: &Self) -> Vec<Kind> {
        let differs = |kind: &Kind| match kind {
            Kind::System => self.system != other.system,
            Kind::Users => self.users != other.users,
            Kind::Certificates => self.certificates != other.certificates,
        };
        Kind::ALL.into_iter().filter(differs).collect()
    }

    /// Returns the disk with the operating system; without one, the first disk.
    pub fn main_disk(&self) -> Option<&Disk> {
        let disks = &self.system.disks;
        disks.iter().find(|disk| disk.is_system).or_else(|| disks.first())
    }
}

/// Returns the time of the last boot: the known one, if it is the same boot.
fn boot(known: Option<Timestamp>, reported: Option<Timestamp>) -> Option<Timestamp> {
    let Some(reported) = reported else { return known };
    let is_same = |known: &Timestamp| reported.since(*known).max(known.since(reported)) <= SAME_BOOT;
    known.filter(is_same).or(Some(reported))
}

/// Returns the disks after a report. `encrypted` are the paths of the encrypted ones, if that was reported.
fn disks(known: &[Disk], reported: Option<Vec<Disk>>, encrypted: Option<&[String]>) -> Vec<Disk> {
    let mut disks = reported.unwrap_or_else(|| known.to_vec());
    for disk in &mut disks {
        let before = known.iter().find(|known| known.path == disk.path);
        if let Some(before) = before.filter(|before| before.size == disk.size)
            && disk.free.abs_diff(before.free) <= before.free / NOTICEABLE
        {
            disk.free = before.free;
        }
        disk.encrypted = match encrypted {
            Some(paths) => Some(paths.contains(&disk.path)),
            None => before.and_then(|before| before.encrypted),
        };
    }
    disks
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn parsed<T: DeserializeOwned + Default>(document: &str) -> T {
    serde_json::from_str(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn disk(path: &str, free: u64) -> Disk {
        Disk { path: path.into(), size: 1_000_000, free, is_system: path == "/", ..Disk::default() }
    }

    fn with_disks(disks: Vec<Disk>) -> Report {
        Report { disks: Some(disks), ..Report::default() }
    }

    #[test]
    fn values_that_hardly_changed_are_kept() {
        let report = |booted, free| Report { booted_at: Some(at(booted)), ..with_disks(vec![disk("/", free)]) };
        let first = Inventory::default().updated(report(1_000, 500_000));
        assert_eq!(first.updated(report(1_300, 490_000)), first, "2 % and five minutes");
        assert_eq!(first.updated(report(700, 510_000)), first);
        assert_eq!(first.updated(report(1_301, 500_000)).system.booted_at, Some(at(1_301)), "another boot");
        assert_eq!(first.updated(report(1_000, 489_999)).system.disks[0].free, 489_999);
        let full = Inventory::default().updated(report(0, 0));
        assert_eq!(full.updated(report(0, 1)).changes(&full), [Kind::System]);
        let grown = Disk { size: 2_000_000, ..disk("/", 500_001) };
        assert_eq!(first.updated(with_disks(vec![grown])).system.disks[0].free, 500_001, "it is another one");
    }

    #[test]
    fn what_was_not_reported_stays() {
        let encrypted = Some(vec!["/".to_owned()]);
        let users = Listing { items: vec![User::default()], is_cut: false };
        let report = Report {
            booted_at: Some(at(1)),
            encrypted,
            users: Some(users),
            ..with_disks(vec![disk("/", 5), disk("/data", 5)])
        };
        let first = Inventory::default().updated(report);
        assert_eq!(first.system.disks.iter().map(|disk| disk.encrypted).collect::<Vec<_>>(), [Some(true), Some(false)]);
        assert_eq!(first.updated(Report::default()), first);
        let again = first.updated(with_disks(vec![disk("/", 5), disk("/new", 5)]));
        let encrypted: Vec<_> = again.system.disks.iter().map(|disk| disk.encrypted).collect();
        assert_eq!((encrypted, again.users), (vec![Some(true), None], first.users));
    }

    #[test]
    fn the_disk_of_the_system_is_the_main_one() {
        let of = |disks: &[Disk]| {
            let found = Inventory::default().updated(with_disks(disks.to_vec()));
            found.main_disk().map(|disk| disk.path.clone())
        };
        assert_eq!(of(&[disk("/data", 1), disk("/", 1)]).as_deref(), Some("/"));
        assert_eq!((of(&[disk("D:", 1)]).as_deref(), of(&[])), (Some("D:"), None));
        assert_eq!((disk("/", 999_999).percent_free(), Disk::default().percent_free()), (99, 0));
    }

    #[test]
    fn documents_are_read_back_and_damaged_ones_are_empty() {
        let certificate = Certificate { common_name: "ü".into(), not_after: Some(at(9)), ..Certificate::default() };
        let inventory = Inventory {
            system: System { booted_at: Some(at(3)), disks: vec![disk("/", 1)] },
            users: Listing { items: vec![User { uid: -2, ..User::default() }], is_cut: true },
            certificates: Listing { items: vec![certificate], is_cut: false },
        };
        let mut read = Inventory::default();
        Kind::ALL.into_iter().for_each(|kind| read.read(kind, &inventory.document(kind)));
        assert_eq!(read, inventory);
        Kind::ALL.into_iter().for_each(|kind| read.read(kind, "{"));
        assert_eq!((read, Kind::parse("disks")), (Inventory::default(), None));
        assert!(Kind::ALL.into_iter().all(|kind| Kind::parse(kind.as_str()) == Some(kind)));
    }
}
