//! The detail queries for the inventory.

use crate::fleetd::details::{ALWAYS, DetailQuery, has_table};

/// Name of the query for the time since the last boot.
pub(super) const UPTIME: &str = "fleet_detail_query_uptime";
/// Names of the queries for sizes and free space of disks.
pub(super) const DISK_SPACE: [&str; 2] =
    ["fleet_detail_query_disk_space_unix", "fleet_detail_query_disk_space_windows"];
/// Names of the queries for paths of encrypted disks.
pub(super) const DISK_ENCRYPTION: [&str; 3] = [
    "fleet_detail_query_disk_encryption_darwin",
    "fleet_detail_query_disk_encryption_linux",
    "fleet_detail_query_disk_encryption_windows",
];
/// Name of the query for users.
pub(super) const USERS: &str = "fleet_detail_query_users";
/// Names of the queries for certificates.
pub(super) const CERTIFICATES: [&str; 3] = [
    "fleet_detail_query_certificates_darwin",
    "fleet_detail_query_certificates_linux",
    "fleet_detail_query_certificates_windows",
];

/// A discovery that finds a table, on operating systems that meet a condition.
macro_rules! has_table_on {
    ($table:literal, $condition:literal) => {
        concat!(
            "SELECT 1 FROM osquery_registry AS r, os_version AS o WHERE r.active = true AND r.registry = 'table' \
             AND r.name = '",
            $table,
            "' AND o.platform ",
            $condition
        )
    };
}

/// A query for certificates, of which one more than the maximum is asked, so that a list that is cut is noticed.
macro_rules! certificates {
    ($source:literal, $from:literal) => {
        concat!(
            "SELECT common_name, subject, issuer, serial, not_valid_before, not_valid_after, sha1, ca, key_algorithm, \
             key_strength, key_usage, signing_algorithm, ",
            $source,
            " FROM certificates ",
            $from,
            " ORDER BY sha1 LIMIT 501;"
        )
    };
}

/// The detail queries for the inventory.
pub const QUERIES: [DetailQuery; 10] = [
    DetailQuery { name: UPTIME, sql: "SELECT total_seconds FROM uptime LIMIT 1;", discovery: ALWAYS },
    DetailQuery {
        name: DISK_SPACE[0],
        // Of several mounts of a device, the nearest to the root: bind mounts of containers repeat it. The volumes of macOS below
        // /System are parts of the root. A root on ZFS or in a container is not below /dev.
        sql: "SELECT path, type AS file_system, blocks * blocks_size AS size, blocks_available * blocks_size AS free, \
              path = '/' AS is_system, MIN(LENGTH(path)) AS depth FROM mounts WHERE path = '/' OR (device LIKE '/dev/%' \
              AND device NOT LIKE '/dev/loop%' AND path NOT LIKE '/System/%') GROUP BY device ORDER BY path LIMIT 64;",
        discovery: has_table!("mounts"),
    },
    DetailQuery {
        name: DISK_SPACE[1],
        sql: "SELECT device_id AS path, file_system, size, free_space AS free, boot_partition AS is_system \
              FROM logical_drives WHERE size > 0 AND free_space >= 0 ORDER BY device_id LIMIT 64;",
        discovery: has_table!("logical_drives"),
    },
    DetailQuery {
        name: DISK_ENCRYPTION[0],
        // Disks of recent Macs are always encrypted, but unlocked without a password unless FileVault is on.
        sql: "SELECT '/' AS path FROM disk_encryption WHERE filevault_status = 'on' UNION SELECT m.path FROM mounts AS m \
              JOIN disk_encryption AS d ON d.name = m.device WHERE d.encrypted = 1 AND m.path LIKE '/Volumes/%';",
        discovery: has_table_on!("disk_encryption", "= 'darwin'"),
    },
    DetailQuery {
        name: DISK_ENCRYPTION[1],
        // The alias is the name of the device to which links of LVM lead.
        sql: "SELECT DISTINCT m.path FROM mounts AS m JOIN disk_encryption AS d ON d.name = m.device_alias \
              WHERE d.encrypted = 1;",
        discovery: has_table_on!("disk_encryption", "<> 'darwin'"),
    },
    DetailQuery {
        name: DISK_ENCRYPTION[2],
        sql: "SELECT drive_letter AS path FROM bitlocker_info WHERE protection_status = 1;",
        discovery: has_table!("bitlocker_info"),
    },
    DetailQuery {
        name: USERS,
        // Only those that can log in. Services have shells that end at once, or are special on Windows.
        sql: "SELECT u.uid, u.username, u.type, u.shell, g.groupname FROM users AS u LEFT JOIN groups AS g ON g.gid = u.gid \
              WHERE COALESCE(u.type, '') <> 'special' AND u.shell NOT LIKE '%/nologin' AND u.shell NOT LIKE '%/false' \
              AND u.shell NOT LIKE '%/sync' AND u.shell NOT LIKE '%/halt' AND u.shell NOT LIKE '%/shutdown' \
              ORDER BY u.uid, u.username LIMIT 501;",
        discovery: has_table!("users"),
    },
    DetailQuery {
        name: CERTIFICATES[0],
        // Not the certificate authorities that are part of macOS.
        sql: certificates!(
            "CASE WHEN path LIKE '/Users/%' THEN substr(path, 8, instr(substr(path, 8), '/') - 1) ELSE '' END AS username",
            "WHERE path = '/Library/Keychains/System.keychain' OR path LIKE '/Users/%/Library/Keychains/login.keychain-db'"
        ),
        discovery: has_table_on!("certificates", "= 'darwin'"),
    },
    DetailQuery {
        name: CERTIFICATES[1],
        sql: certificates!("'' AS username", ""),
        discovery: has_table_on!("certificates", "NOT IN ('darwin', 'windows')"),
    },
    DetailQuery {
        name: CERTIFICATES[2],
        sql: certificates!(
            "CASE username WHEN 'SYSTEM' THEN '' ELSE username END AS username",
            "WHERE store = 'Personal'"
        ),
        discovery: has_table_on!("certificates", "= 'windows'"),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fleetd::details::PREFIX;
    use crate::fleetd::inventory::{MAX_CERTIFICATES, MAX_USERS};

    #[test]
    fn fl24_every_query_of_the_inventory_has_a_name_of_its_own_sql_and_a_discovery() {
        let names: BTreeSet<_> = QUERIES.iter().map(|query| query.name).collect();
        assert_eq!(names.len(), QUERIES.len());
        for query in QUERIES {
            assert!(query.name.starts_with(PREFIX) && query.sql.starts_with("SELECT ") && query.sql.ends_with(';'));
            assert!(query.discovery.starts_with("SELECT 1"), "{}", query.discovery);
        }
        let sql = |name: &str| QUERIES.iter().find(|query| query.name == name).unwrap().sql;
        assert!(sql(USERS).ends_with(&format!("LIMIT {};", MAX_USERS + 1)), "a list that is cut is noticed");
        let limit = format!("LIMIT {};", MAX_CERTIFICATES + 1);
        assert!(CERTIFICATES.iter().all(|name| sql(name).ends_with(&limit)));
    }
}
