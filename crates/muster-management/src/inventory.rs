//! Inventory of hosts besides their software, as the API shows it.

use muster_core::fleetd::inventory::{Certificate, Disk, User};
use muster_protocol::management::inventory::{HostCertificate, HostDisk, HostUser};

use super::convert::times;

/// Formats a disk.
pub fn disk(disk: Disk) -> HostDisk {
    let percent_free = disk.percent_free();
    let Disk { path, file_system, size, free, is_system, encrypted } = disk;
    HostDisk { path, file_system, size, free, percent_free, encrypted, is_system }
}

/// Formats a user.
pub fn user(user: User) -> HostUser {
    let User { uid, username, kind, group, shell } = user;
    HostUser { uid, username, kind, group, shell }
}

/// Formats a certificate.
pub fn certificate(certificate: Certificate) -> HostCertificate {
    let (not_before, not_after) = (times(certificate.not_before), times(certificate.not_after));
    HostCertificate {
        common_name: certificate.common_name,
        subject: certificate.subject,
        issuer: certificate.issuer,
        serial: certificate.serial,
        sha1: certificate.sha1,
        not_before,
        not_after,
        is_ca: certificate.is_ca,
        source: certificate.source,
        username: certificate.username,
        key_algorithm: certificate.key_algorithm,
        key_strength: certificate.key_strength,
        key_usage: certificate.key_usage,
        signing_algorithm: certificate.signing_algorithm,
    }
}
