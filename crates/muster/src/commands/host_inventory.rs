//! Disks, users and certificates in `muster host show`.

use muster_core::plural::counted;
use muster_protocol::management::host::Host;
use muster_protocol::management::inventory::{HostCertificate, HostDisk, HostUser};

use super::listing::{Column, column, or_dash};

/// Columns of disks.
pub const DISKS: &[Column<HostDisk>] = &[
    column("DISK", |disk| disk.path.clone()),
    column("TYPE", |disk| or_dash(Some(&disk.file_system))),
    column("SIZE", |disk| gib(disk.size)),
    column("FREE", |disk| format!("{} ({} %)", gib(disk.free), disk.percent_free)),
    column("ENCRYPTED", |disk| match disk.encrypted {
        Some(true) => "yes".into(),
        Some(false) => "no".into(),
        None => "-".into(),
    }),
];

/// Columns of users.
pub const USERS: &[Column<HostUser>] = &[
    column("USER", |user| user.username.clone()),
    column("UID", |user| user.uid.to_string()),
    column("TYPE", |user| or_dash(Some(&user.kind))),
    column("GROUP", |user| or_dash(Some(&user.group))),
    column("SHELL", |user| or_dash(Some(&user.shell))),
];

/// Columns of certificates.
pub const CERTIFICATES: &[Column<HostCertificate>] = &[
    column("CERTIFICATE", |certificate| or_dash(Some(&certificate.common_name))),
    column("ISSUER", |certificate| or_dash(Some(&certificate.issuer))),
    column("NOT AFTER", |certificate| or_dash(certificate.not_after.as_deref())),
    column("CA", |certificate| if certificate.is_ca { "yes" } else { "no" }.into()),
    column("SOURCE", |certificate| match certificate.username.as_str() {
        "" => certificate.source.clone(),
        username => format!("{} {username}", certificate.source),
    }),
    column("SHA-1", |certificate| certificate.sha1.clone()),
];

/// Formats the number of users of a host.
pub fn users(host: &Host) -> String {
    number(host.users.len(), "user", host.has_more_users)
}

/// Formats the number of certificates on a host.
pub fn certificates(host: &Host) -> String {
    number(host.certificates.len(), "certificate", host.has_more_certificates)
}

fn number(known: usize, noun: &str, has_more: bool) -> String {
    let known = counted(known as u64, noun);
    if has_more { format!("{known}, more are not stored") } else { known }
}

/// Formats a number of bytes.
pub fn gib(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB)
}
