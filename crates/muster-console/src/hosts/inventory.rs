//! Disks, users and certificates on the page of a host.

use muster_core::fleetd::inventory::{Certificate, Disk, Inventory, User};
use muster_core::time::Timestamp;

use super::facts::cut;
use crate::text::{Moment, size};

/// Number of users and of certificates on the page of a host.
const FEW: usize = 50;

/// Disks, users and certificates of a host, as far as its page shows them.
pub struct InventoryRows {
    /// The last boot.
    pub booted: Option<Moment>,
    /// Disks.
    pub disks: Vec<DiskRow>,
    /// The first users.
    pub users: Vec<UserRow>,
    /// The first certificates.
    pub certificates: Vec<CertificateRow>,
    /// Whether there are more users.
    pub has_more_users: bool,
    /// Whether there are more certificates.
    pub has_more_certificates: bool,
}

/// A disk.
pub struct DiskRow {
    pub path: String,
    pub file_system: String,
    pub size: String,
    pub free: String,
    /// Whether it is encrypted, as a state of a badge.
    pub encrypted: Option<(&'static str, &'static str, &'static str)>,
}

/// A user.
pub struct UserRow {
    pub name: String,
    pub uid: i64,
    pub group: String,
    pub shell: String,
}

/// A certificate.
pub struct CertificateRow {
    pub name: String,
    pub issuer: String,
    pub until: Option<Moment>,
    pub has_expired: bool,
    /// Whose it is: of the system, or of a user.
    pub of: String,
    pub is_ca: bool,
}

impl InventoryRows {
    /// Returns what the page shows.
    pub fn of(inventory: &Inventory, now: Timestamp) -> Self {
        let Inventory { system, users, certificates } = inventory;
        Self {
            booted: Moment::of(system.booted_at, now),
            disks: system.disks.iter().map(disk).collect(),
            users: users.items.iter().take(FEW).map(user).collect(),
            certificates: certificates.items.iter().take(FEW).map(|one| certificate(one, now)).collect(),
            has_more_users: users.is_cut || users.items.len() > FEW,
            has_more_certificates: certificates.is_cut || certificates.items.len() > FEW,
        }
    }
}

fn disk(disk: &Disk) -> DiskRow {
    DiskRow {
        path: cut(&disk.path),
        file_system: cut(&disk.file_system),
        size: size(disk.size),
        free: format!("{} ({} %)", size(disk.free), disk.percent_free()),
        encrypted: disk.encrypted.map(|encrypted| match encrypted {
            true => ("good", "●", "encrypted"),
            false => ("quiet", "○", "not encrypted"),
        }),
    }
}

fn user(user: &User) -> UserRow {
    UserRow { name: cut(&user.username), uid: user.uid, group: cut(&user.group), shell: cut(&user.shell) }
}

fn certificate(one: &Certificate, now: Timestamp) -> CertificateRow {
    CertificateRow {
        name: cut(if one.common_name.is_empty() { &one.subject } else { &one.common_name }),
        issuer: cut(&one.issuer),
        until: Moment::of(one.not_after, now),
        has_expired: one.not_after.is_some_and(|at| at < now),
        of: if one.username.is_empty() { "system".to_owned() } else { cut(&one.username) },
        is_ca: one.is_ca,
    }
}
