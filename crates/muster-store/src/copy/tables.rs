//! The tables of a store: those that are copied, in an order in which no row refers to a later one, and those that are not.

use rusqlite::Connection;

use crate::engine::error::OpenError;
use crate::engine::migration::MIGRATIONS;
use crate::sql::copy::Layout;

/// Tables that are copied. A table comes after those that it refers to.
const COPIED: &[&str] = &[
    "settings",
    "secrets",
    "hosts",
    "agents",
    "credentials",
    "agent_documents",
    "agent_tags",
    "host_check_results",
    "host_check_changes",
    "host_check_days",
    "query_failures",
    "labels",
    "label_hosts",
    "label_errors",
    "carves",
    "disk_keys",
    "software",
    "host_software",
    "host_inventory",
    "space_software",
    "software_postings",
    "agent_checkins",
    "agent_texts",
    "agent_counts",
    "enrollment_keys",
    "policies",
    "policy_revisions",
    "actions",
    "action_targets",
    "unfinished_effects",
    "rollouts",
    "rollout_agents",
    "live_queries",
    "live_query_targets",
    "live_query_results",
    "script_runs",
    "script_run_hosts",
    "saved_scripts",
    "installers",
    "install_runs",
    "install_run_hosts",
    "outputs",
    "network_objects",
    "uninstall_tokens",
    "output_clusters",
    "output_keys",
    "retired_output_keys",
    "uploads",
    "files",
    "file_agents",
    "chunks",
    "removed_files",
    "artifacts",
    "spaces",
    "users",
    "roles",
    "bindings",
    "api_tokens",
    "sessions",
    "setup_links",
    "idempotency_keys",
    "oidc_providers",
    "completed_log_ins",
    "device_log_ins",
    "saved_views",
    "agent_history",
    "events",
    "alert_receivers",
    "alert_progress",
    "audit_events",
    "changes",
];

/// Tables that are not copied, with the reason.
#[cfg(test)]
const NOT_COPIED: &[(&str, &str)] = &[
    ("recent_components", "moved to agent_documents before the copy"),
    ("nodes", "registrations of running servers"),
    ("lost_nodes", "servers that crashed during the last day"),
    ("leases", "leases of running servers"),
    ("copy_progress", "describes the copy itself"),
];

/// Returns the layouts of the tables that are copied, as the migrations define them.
pub(super) fn layouts() -> Result<Vec<Layout>, OpenError> {
    let read = || -> rusqlite::Result<Vec<Layout>> {
        let schema = schema()?;
        COPIED.iter().map(|name| layout(&schema, name)).collect()
    };
    read().map_err(OpenError::engine("read the layout of the tables"))
}

/// An empty store of this program in memory. Both engines have the same columns.
fn schema() -> rusqlite::Result<Connection> {
    let schema = Connection::open_in_memory()?;
    MIGRATIONS.iter().try_for_each(|migration| schema.execute_batch(migration.text))?;
    Ok(schema)
}

fn layout(schema: &Connection, name: &'static str) -> rusqlite::Result<Layout> {
    let mut statement = schema.prepare("SELECT name, type, pk FROM pragma_table_info($1) ORDER BY cid")?;
    let columns = statement.query_map([name], |row| {
        // Integers have no length. All other columns are texts or bytes.
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)? != "INTEGER", row.get::<_, i64>(2)?))
    })?;
    let columns = columns.collect::<rusqlite::Result<Vec<_>>>()?;
    // `pk` is the place in the key, from 1, and 0 for other columns.
    let mut key: Vec<usize> = (0..columns.len()).filter(|at| columns[*at].2 > 0).collect();
    key.sort_by_key(|at| columns[*at].2);
    Ok(Layout { name, columns: columns.into_iter().map(|(name, has_length, _)| (name, has_length)).collect(), key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(statement: &str, parameters: impl rusqlite::Params) -> Vec<String> {
        let schema = schema().unwrap();
        let mut statement = schema.prepare(statement).unwrap();
        let rows = statement.query_map(parameters, |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn every_table_of_the_schema_is_copied_or_has_a_reason_why_not() {
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
        let mut expected = names(tables, []);
        let mut listed: Vec<_> = NOT_COPIED.iter().map(|(name, _)| *name).chain(COPIED.iter().copied()).collect();
        expected.sort();
        listed.sort_unstable();
        assert_eq!(listed, expected, "add a new table to COPIED, or to NOT_COPIED with the reason");
        assert!(NOT_COPIED.iter().all(|(_, reason)| !reason.is_empty()));
    }

    #[test]
    fn a_table_comes_after_those_that_it_refers_to() {
        for (at, table) in COPIED.iter().enumerate() {
            let parents = names("SELECT \"table\" FROM pragma_foreign_key_list($1)", [table]);
            for parent in parents {
                assert!(COPIED[..at].contains(&parent.as_str()), "{table} refers to {parent}");
            }
        }
    }

    #[test]
    fn keys_have_no_null_and_no_bytes() {
        for table in layouts().unwrap() {
            assert!(!table.key.is_empty(), "{} has no primary key", table.name);
            let query = "SELECT name FROM pragma_table_info($1) \
                WHERE pk > 0 AND (type NOT IN ('TEXT', 'INTEGER') OR (type = 'TEXT' AND \"notnull\" = 0))";
            assert!(names(query, [table.name]).is_empty(), "{}", table.name);
        }
    }
}
