//! Checks of fleetd options: what osqueryd would ignore or misunderstand is rejected with its position.

use serde_json::{Map, Value};

use super::log_lines::MAX_LINES;
use super::platform::Platform;
use super::{desktop, orbit_config};
use crate::policy::check::kind_of;
use crate::policy::problem::Problems;

/// Top-level members of a document.
const KEYS: [&str; 6] = ["config", "overrides", "command_line_flags", "extensions", "update_channels", "fleet_desktop"];
/// A member of FleetDM's agent options that has no effect here.
const OF_SCRIPTS: &str = "script_execution_timeout";
/// Top-level members of an osquery configuration.
const CONFIG: [&str; 13] = [
    "options",
    "schedule",
    "packs",
    "decorators",
    "file_paths",
    "file_paths_query",
    "file_accesses",
    "exclude_paths",
    "yara",
    "views",
    "events",
    "auto_table_construction",
    "prometheus_targets",
];
/// Members of a scheduled query.
const QUERY: [&str; 11] = [
    "query",
    "interval",
    "platform",
    "version",
    "removed",
    "snapshot",
    "shard",
    "denylist",
    "startup_priority",
    "description",
    "value",
];
/// Members of a pack.
const PACK: [&str; 6] = ["queries", "platform", "version", "shard", "discovery", "oncall"];

/// Options with which a host finds the server and proves who it is: those of its package, for each host.
const OF_PACKAGE: [&str; 11] = [
    "database_path",
    "enroll_secret_env",
    "enroll_secret_path",
    "flagfile",
    "host_identifier",
    "proxy_hostname",
    "specified_identifier",
    "tls_client_cert",
    "tls_client_key",
    "tls_hostname",
    "tls_server_certs",
];

/// Maximum interval of a scheduled query, seconds: osqueryd ignores queries with a longer one.
const MAX_INTERVAL: i64 = 7 * 86_400;
/// Maximum nesting of a configuration: osqueryd rejects more than 32 levels.
const MAX_DEPTH: usize = 30;

/// Adds the problems of a document.
pub(super) fn check(document: &Value, problems: &mut Problems) {
    let fields = match document {
        Value::Object(fields) => fields,
        Value::Null => return problems.advise("", "the document is empty", "write `config: {}` for no configuration"),
        other => return must_be("an object", "", other, problems),
    };
    for key in fields.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        match key.as_str() {
            OF_SCRIPTS => problems.add(OF_SCRIPTS, format!("`{OF_SCRIPTS}` is not supported yet")),
            known if CONFIG.contains(&known) => {
                problems.advise(known, format!("`{known}` at the top"), "indent it below `config:`");
            }
            unknown => problems.unknown(unknown, "field", unknown, &KEYS),
        }
    }
    if let Some(config) = fields.get("config") {
        check_config("config", config, problems);
    }
    if let Some(overrides) = fields.get("overrides") {
        check_overrides(overrides, problems);
    }
    orbit_config::check(fields, problems);
    desktop::check(fields, problems);
}

fn check_overrides(overrides: &Value, problems: &mut Problems) {
    for (key, platforms) in object("overrides", overrides, problems) {
        if key != "platforms" {
            problems.unknown(format!("overrides.{key}"), "field", key, &["platforms"]);
            continue;
        }
        for (name, config) in object("overrides.platforms", platforms, problems) {
            let path = format!("overrides.platforms.{name}");
            match Platform::parse(name) {
                Some(_) => check_config(&path, config, problems),
                None => problems.unknown(path, "platform", name, &Platform::NAMES),
            }
        }
    }
}

fn check_config(path: &str, config: &Value, problems: &mut Problems) {
    if depth(config) > MAX_DEPTH {
        problems.add(path, format!("more than {MAX_DEPTH} levels of nesting, which osqueryd rejects"));
    }
    for (key, value) in object(path, config, problems) {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "options" => check_options(&path, value, problems),
            "schedule" => check_queries(&path, value, problems),
            "packs" => check_packs(&path, value, problems),
            "decorators" => check_decorators(&path, value, problems),
            // A response with one of these is a failed request to osqueryd, or makes it discard its key (FL §1.2).
            "error" | "node_invalid" | "etag" => {
                problems.add(path, "osqueryd would interpret it as part of the protocol");
            }
            known if CONFIG.contains(&known) => {}
            unknown => problems.unknown(path, "section", unknown, &CONFIG),
        }
    }
}

/// Checks options of osquery, in its configuration or for its command line.
pub(super) fn check_options(path: &str, options: &Value, problems: &mut Problems) {
    for (name, value) in object(path, options, problems) {
        let path = format!("{path}.{name}");
        if value.is_object() || value.is_array() || value.is_null() {
            must_be("a string, a number or a boolean", path, value, problems);
        } else if let Some(reason) = cut_off(name, value) {
            problems.add(path, reason);
        }
    }
}

/// A day, seconds.
const DAY: u64 = 86_400;
/// Tables without which osqueryd cannot enroll (FL §1.3).
const NEEDED: [&str; 3] = ["os_version", "osquery_info", "system_info"];

/// Returns why an option would cut hosts off from the server, where no later change could reach them; `None` for other options.
fn cut_off(name: &str, value: &Value) -> Option<String> {
    let text = value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_lowercase());
    let is_on = matches!(text.as_str(), "true" | "1");
    let is_within = |from: u64, to: u64| text.parse().is_ok_and(|number| (from..=to).contains(&number));
    let only =
        |wanted: &str| (text != wanted).then(|| format!("must be `{wanted}`: hosts would no longer reach this server"));
    let endpoint = |end: &str| {
        (!text.ends_with(end))
            .then(|| format!("must end with `{end}`: this server has no other path for these requests"))
    };
    match name {
        "disable_distributed" | "disable_enrollment" | "disable_reenrollment" if is_on => {
            Some("hosts would no longer answer queries, or not enroll again".to_owned())
        }
        "config_plugin" | "distributed_plugin" => only("tls"),
        "config_refresh" | "config_tls_refresh" if !is_within(1, DAY) => {
            Some("must be 1 to 86400 seconds: hosts would not get corrections otherwise".to_owned())
        }
        "distributed_interval" if !is_within(1, DAY) => {
            Some("must be 1 to 86400 seconds: hosts would not answer queries otherwise".to_owned())
        }
        "config_tls_max_attempts" | "distributed_tls_max_attempts" if !is_within(1, 1_000) => {
            Some("must be 1 to 1000: hosts would send no requests otherwise".to_owned())
        }
        "logger_tls_max_lines" if !is_within(1, MAX_LINES as u64) => {
            Some(format!("must be 1 to {MAX_LINES}: this server rejects longer requests"))
        }
        "disable_tables" if text.split(',').any(|table| NEEDED.contains(&table.trim())) => {
            Some(format!("must not contain the tables by which hosts are recognized: {}", NEEDED.join(", ")))
        }
        "enroll_tls_endpoint" => endpoint("/osquery/enroll"),
        "config_tls_endpoint" => endpoint("/osquery/config"),
        "distributed_tls_read_endpoint" => endpoint("/osquery/distributed/read"),
        "distributed_tls_write_endpoint" => endpoint("/osquery/distributed/write"),
        "logger_tls_endpoint" => endpoint("/osquery/log"),
        known if OF_PACKAGE.contains(&known) => {
            Some("is part of a host's package: another value would cut the host off from this server".to_owned())
        }
        _ => None,
    }
}

fn check_packs(path: &str, packs: &Value, problems: &mut Problems) {
    for (name, pack) in object(path, packs, problems) {
        check_pack(&format!("{path}.{name}"), pack, problems);
    }
}

/// Checks a pack; its path is empty if it is a document of its own.
pub(super) fn check_pack(path: &str, pack: &Value, problems: &mut Problems) {
    if depth(pack) > MAX_DEPTH {
        problems.add(path, format!("more than {MAX_DEPTH} levels of nesting, which osqueryd rejects"));
    }
    for (key, value) in object(path, pack, problems) {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match key.as_str() {
            "queries" => check_queries(&path, value, problems),
            "discovery" => check_list_of_sql(&path, value, problems),
            known if PACK.contains(&known) => check_member(&path, known, value, problems),
            unknown => problems.unknown(path, "field", unknown, &PACK),
        }
    }
}

fn check_queries(path: &str, queries: &Value, problems: &mut Problems) {
    for (name, query) in object(path, queries, problems) {
        if name.trim().is_empty() {
            problems.add(path, "a query must have a name");
        }
        let path = format!("{path}.{name}");
        let fields = object(&path, query, problems);
        for (key, value) in fields {
            let path = format!("{path}.{key}");
            if QUERY.contains(&key.as_str()) {
                check_member(&path, key, value, problems);
            } else {
                problems.unknown(path, "field", key, &QUERY);
            }
        }
        for required in
            ["query", "interval"].into_iter().filter(|name| query.is_object() && !fields.contains_key(*name))
        {
            problems.add(path.as_str(), format!("`{required}` is missing"));
        }
    }
}

/// Checks a member of a scheduled query or a pack.
fn check_member(path: &str, name: &str, value: &Value, problems: &mut Problems) {
    match name {
        "query" if value.as_str().is_none_or(|sql| sql.trim().is_empty()) => {
            problems.add(path, "must be SQL");
        }
        "interval" if !value.as_i64().is_some_and(|seconds| (1..=MAX_INTERVAL).contains(&seconds)) => {
            problems.add(path, format!("must be a number of seconds from 1 to {MAX_INTERVAL}"));
        }
        "shard" if !value.as_i64().is_some_and(|percent| (0..=100).contains(&percent)) => {
            problems.add(path, "must be a percentage from 0 to 100");
        }
        "removed" | "snapshot" | "denylist" if !value.is_boolean() => must_be("a boolean", path, value, problems),
        "startup_priority" if !value.is_u64() => must_be("a positive number", path, value, problems),
        "platform" | "version" | "description" | "value" | "oncall" if !value.is_string() => {
            must_be("a string", path, value, problems);
        }
        _ => {}
    }
}

fn check_decorators(path: &str, decorators: &Value, problems: &mut Problems) {
    for (when, value) in object(path, decorators, problems) {
        let path = format!("{path}.{when}");
        match when.as_str() {
            "load" | "always" => check_list_of_sql(&path, value, problems),
            "interval" => {
                for (seconds, list) in object(&path, value, problems) {
                    check_list_of_sql(&format!("{path}.{seconds}"), list, problems);
                }
            }
            unknown => problems.unknown(path, "time", unknown, &["load", "always", "interval"]),
        }
    }
}

fn check_list_of_sql(path: &str, list: &Value, problems: &mut Problems) {
    let Some(items) = list.as_array() else { return must_be("a list of SQL statements", path, list, problems) };
    for (at, item) in items.iter().enumerate() {
        check_member(&format!("{path}.{at}"), "query", item, problems);
    }
}

/// Returns the members of an object; none of `null`, which stands for an absent one.
pub(super) fn object<'a>(path: &str, value: &'a Value, problems: &mut Problems) -> &'a Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    match value {
        Value::Object(members) => members,
        Value::Null => &NONE,
        other => {
            must_be("an object", path, other, problems);
            &NONE
        }
    }
}

pub(super) fn must_be(wanted: &str, path: impl Into<String>, found: &Value, problems: &mut Problems) {
    problems.add(path, format!("must be {wanted}, not {}", kind_of(found)));
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(document: &Value) -> Vec<String> {
        let mut problems = Problems::default();
        check(document, &mut problems);
        problems.0.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn fl16_schedules_packs_and_platforms_of_queries_are_valid() {
        let query = json!({"query": "SELECT 1", "interval": 60, "platform": "windows", "snapshot": true, "shard": 10});
        let document = json!({"config": {
            "options": {"logger_tls_period": 10, "pack_delimiter": "/"},
            "schedule": {"one": query},
            "packs": {"Global": {"queries": {"two": query}, "discovery": ["SELECT 1"], "shard": 50}},
            "decorators": {"load": ["SELECT 1"], "interval": {"3600": ["SELECT 2"]}},
            "file_paths": {"etc": ["/etc/%%"]},
        }, "overrides": {"platforms": {"linux": {}, "darwin": null}}});
        assert_eq!(paths(&document), Vec::<String>::new());
    }

    #[test]
    fn options_that_would_cut_hosts_off_are_rejected() {
        let option = |name: &str, value: Value| json!({"config": {"options": {name: value}}});
        for (name, value) in [
            ("tls_hostname", json!("other.example")),
            ("enroll_secret_path", json!("/tmp/secret")),
            ("disable_distributed", json!("TRUE")),
            ("disable_enrollment", json!(1)),
            ("distributed_plugin", json!("filesystem")),
            ("config_plugin", json!("filesystem")),
            ("config_refresh", json!(0)),
            ("config_tls_refresh", json!(999_999_999)),
            ("distributed_interval", json!("0")),
            ("distributed_tls_max_attempts", json!(0)),
            ("logger_tls_max_lines", json!(100_000)),
            ("disable_tables", json!("users, system_info")),
            ("config_tls_endpoint", json!("/other")),
            ("logger_tls_endpoint", json!("/api/other")),
        ] {
            assert_eq!(paths(&option(name, value)), [format!("config.options.{name}")]);
        }
        // FleetDM's default options.
        let usual = json!({"config": {"options": {
            "disable_distributed": false, "distributed_plugin": "tls", "distributed_interval": 10, "logger_plugin": "tls",
            "logger_tls_endpoint": "/api/osquery/log", "logger_tls_period": 10, "config_refresh": 60,
        }}});
        assert_eq!(paths(&usual), Vec::<String>::new());
    }

    #[test]
    fn what_osqueryd_would_misunderstand_is_rejected() {
        let mut deep = json!(1);
        (0..40).for_each(|_| deep = json!([deep]));
        for (document, path) in [
            (json!(null), ""),
            (json!([]), ""),
            (json!({"conf": {}}), "conf"),
            (json!({"schedule": {}}), "schedule"),
            (json!({"update_channels": {"osquery": "stable"}}), "update_channels.osquery"),
            (json!({"config": {"error": "x"}}), "config.error"),
            (json!({"config": {"etag": "x"}}), "config.etag"),
            (json!({"config": {"node_invalid": true}}), "config.node_invalid"),
            (json!({"config": {"scedule": {}}}), "config.scedule"),
            (json!({"config": {"options": {"a": []}}}), "config.options.a"),
            (json!({"config": {"yara": deep}}), "config"),
            (json!({"config": {"schedule": {"q": {"query": " ", "interval": 1}}}}), "config.schedule.q.query"),
            (json!({"config": {"schedule": {"q": {"query": "x", "interval": 0}}}}), "config.schedule.q.interval"),
            (json!({"config": {"schedule": {"q": {"query": "x"}}}}), "config.schedule.q"),
            (json!({"config": {"packs": {"p": {"queries": {"q": 1}}}}}), "config.packs.p.queries.q"),
            (json!({"config": {"packs": {"p": {"shard": 101}}}}), "config.packs.p.shard"),
            (json!({"config": {"decorators": {"load": "x"}}}), "config.decorators.load"),
            (json!({"overrides": {"platforms": {"linus": {}}}}), "overrides.platforms.linus"),
            (json!({"overrides": {"platforms": {"linux": {"error": 1}}}}), "overrides.platforms.linux.error"),
            (json!({"overrides": {"spaces": {}}}), "overrides.spaces"),
        ] {
            assert_eq!(paths(&document), [path], "{document}");
        }
    }
}
