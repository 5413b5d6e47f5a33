//! SQL statements in a dialect that both engines accept, one module per resource.
//!
//! Placeholders are `$1`, `$2` …, and must first appear in ascending order: SQLite numbers `$N` by first appearance, so that a
//! statement that starts with `$2` would silently bind the wrong values. A test checks every statement.
//! Differences between engines are in [`dialect`] only.

pub(crate) mod actions;
pub(crate) mod agent_counts;
pub(crate) mod agents;
pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod carves;
pub(crate) mod copy;
pub(crate) mod dialect;
pub(crate) mod disk_keys;
pub(crate) mod enrollment_keys;
pub(crate) mod files;
pub(crate) mod filter;
pub(crate) mod host_checks;
pub(crate) mod host_runs;
pub(crate) mod idempotency;
pub(crate) mod identity;
pub(crate) mod installers;
pub(crate) mod inventory;
pub(crate) mod labels;
pub(crate) mod live_queries;
pub(crate) mod log;
pub(crate) mod log_ins;
pub(crate) mod network_objects;
pub(crate) mod nodes;
pub(crate) mod output_keys;
pub(crate) mod policies;
pub(crate) mod query_failures;
pub(crate) mod rollouts;
pub(crate) mod scripts;
pub(crate) mod settings;
pub(crate) mod software;
pub(crate) mod uninstall_tokens;

/// The time by the clock of the engine, in microseconds since 1970. PostgreSQL: `extract(epoch FROM clock_timestamp())`.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}
pub(crate) use now;

/// Ends a query whose rows stay locked until the end of the transaction. PostgreSQL: `FOR UPDATE`. A transaction of SQLite that writes
/// is alone.
macro_rules! locked {
    () => {
        "/* locked */"
    };
}
pub(crate) use locked;

/// Declares statements as constants, and lists them for tests.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)+) => {
        $($(#[$doc])* pub(crate) const $name: &str = $text;)+

        /// All statements of this module, by name.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),+];
    };
}
use statements;

/// Returns every fixed statement.
#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        actions::ALL,
        agent_counts::ALL,
        agents::ALL,
        alerts::ALL,
        audit::ALL,
        carves::ALL,
        copy::ALL,
        disk_keys::ALL,
        enrollment_keys::ALL,
        files::ALL,
        host_checks::ALL,
        idempotency::ALL,
        identity::ALL,
        labels::ALL,
        live_queries::ALL,
        log_ins::ALL,
        log::ALL,
        network_objects::ALL,
        nodes::ALL,
        output_keys::ALL,
        policies::ALL,
        query_failures::ALL,
        rollouts::ALL,
        installers::ALL,
        inventory::ALL,
        scripts::ALL,
        settings::ALL,
        software::ALL,
        uninstall_tokens::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
    .chain(host_runs::all())
}

/// Returns the placeholders in the order of their first appearance.
#[cfg(test)]
pub(crate) fn placeholders(text: &str) -> Vec<usize> {
    let mut seen = Vec::new();
    // `$[0]` is a path in a JSON document.
    for rest in text.split('$').skip(1).filter(|rest| !rest.starts_with('[')) {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let number = digits.parse().expect("a number stands behind every $");
        if !seen.contains(&number) {
            seen.push(number);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_first_appear_in_ascending_order() {
        for (name, text) in all() {
            let seen = placeholders(text);
            let expected: Vec<usize> = (1..=seen.len()).collect();
            assert_eq!(seen, expected, "{name}: {text}");
            assert!(!text.contains('?'), "{name} has a placeholder that PostgreSQL does not know");
        }
    }

    #[test]
    fn the_trap_itself_would_be_noticed() {
        assert_eq!(placeholders("UPDATE t SET a = $2 WHERE id = $1"), [2, 1]);
    }
}
