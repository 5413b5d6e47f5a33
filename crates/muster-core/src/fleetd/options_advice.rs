//! Warnings about fleetd options: what osqueryd takes, but hardly anybody means.

use serde_json::{Map, Value};

use crate::policy::problem::{Problems, is_typo};

/// Options of osquery that people set. Others are not wrong: osquery has several hundred, and gets more.
const OPTIONS: [&str; 93] = [
    "audit_allow_config",
    "audit_allow_fim_events",
    "audit_allow_process_events",
    "audit_allow_sockets",
    "audit_allow_user_events",
    "audit_persist",
    "aws_access_key_id",
    "aws_firehose_stream",
    "aws_kinesis_stream",
    "aws_region",
    "aws_secret_access_key",
    "bpf_buffer_storage_size",
    "bpf_perf_event_array_exp",
    "carver_block_size",
    "carver_compression",
    "carver_continue_endpoint",
    "carver_disable_function",
    "carver_expiry",
    "carver_start_endpoint",
    "config_accelerated_refresh",
    "config_enable_backup",
    "config_plugin",
    "config_refresh",
    "config_tls_endpoint",
    "config_tls_etag",
    "config_tls_max_attempts",
    "config_tls_refresh",
    "decorations_top_level",
    "disable_audit",
    "disable_caching",
    "disable_carver",
    "disable_decorators",
    "disable_distributed",
    "disable_enrollment",
    "disable_events",
    "disable_extensions",
    "disable_logging",
    "disable_reenrollment",
    "disable_tables",
    "disable_watchdog",
    "distributed_denylist_duration",
    "distributed_interval",
    "distributed_plugin",
    "distributed_tls_max_attempts",
    "distributed_tls_read_endpoint",
    "distributed_tls_write_endpoint",
    "docker_socket",
    "enable_bpf_events",
    "enable_file_events",
    "enable_foreign",
    "enable_keyboard_events",
    "enable_mouse_events",
    "enable_numeric_monitoring",
    "enable_powershell_events_subscriber",
    "enable_syslog",
    "enable_windows_events_publisher",
    "enable_windows_events_subscriber",
    "enroll_tls_endpoint",
    "events_enforce_denylist",
    "events_expiry",
    "events_max",
    "events_optimize",
    "extensions_interval",
    "extensions_require",
    "extensions_timeout",
    "host_identifier",
    "logger_event_type",
    "logger_min_status",
    "logger_min_stderr",
    "logger_numerics",
    "logger_path",
    "logger_plugin",
    "logger_snapshot_event_type",
    "logger_tls_backoff_max",
    "logger_tls_compress",
    "logger_tls_endpoint",
    "logger_tls_max_lines",
    "logger_tls_max_linesize",
    "logger_tls_period",
    "pack_delimiter",
    "pack_refresh_interval",
    "read_max",
    "schedule_default_interval",
    "schedule_epoch",
    "schedule_max_drift",
    "schedule_reload",
    "schedule_splay_percent",
    "schedule_timeout",
    "table_delay",
    "verbose",
    "watchdog_level",
    "watchdog_memory_limit",
    "watchdog_utilization_limit",
];

/// Adds the warnings about a document without problems.
pub(super) fn advise(document: &Value, problems: &mut Problems) {
    let overrides = document.pointer("/overrides/platforms").and_then(Value::as_object);
    let of_platforms = overrides.into_iter().flatten().map(|(name, own)| (format!("overrides.platforms.{name}"), own));
    let common = document.get("config").map(|config| ("config".to_owned(), config));
    for (path, config) in common.into_iter().chain(of_platforms) {
        // `null` is an empty configuration, or none of its own: nothing was set that could be meant otherwise.
        let Some(config) = config.as_object() else { continue };
        let path = format!("{path}.options");
        let options = config.get("options").and_then(Value::as_object);
        if !options.is_some_and(|options| options.contains_key("pack_delimiter")) {
            let reason = "without `pack_delimiter`, osquery names the results of packs pack_NAME_QUERY";
            problems.advise(path.as_str(), reason, "add `pack_delimiter: /` for pack/NAME/QUERY");
        }
        options.into_iter().for_each(|options| advise_options(&path, options, problems));
    }
    if let Some(flags) = document.get("command_line_flags").and_then(Value::as_object) {
        advise_options("command_line_flags", flags, problems);
    }
}

fn advise_options(path: &str, options: &Map<String, Value>, problems: &mut Problems) {
    for (name, value) in options {
        let near = OPTIONS.into_iter().filter(|_| !OPTIONS.contains(&name.as_str())).find(|known| is_typo(name, known));
        if let Some(near) = near {
            let reason = format!("osquery has no option `{name}` that this server knows");
            problems.advise(format!("{path}.{name}"), reason, format!("did you mean `{near}`?"));
        }
        let plugins = value.as_str().filter(|_| name == "logger_plugin");
        if plugins.is_some_and(|plugins| plugins.split(',').all(|plugin| plugin.trim() != "tls")) {
            problems.advise(format!("{path}.{name}"), "hosts will send no logs to this server", "add `tls`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::{DEFAULT, Options};

    fn warnings(text: &str) -> Vec<String> {
        Options::parse(text).unwrap().advice().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_hardly_anybody_means_is_a_warning_with_its_position() {
        let text = "config:\n  options:\n    pack_delimiter: /\n    distributed_intervall: 10\n    logger_plugin: filesystem\n";
        let found = Options::parse(text).unwrap().advice();
        let places: Vec<_> = found.0.iter().map(|problem| problem.place.unwrap().line).collect();
        assert_eq!(places, [4, 5]);
        assert!(found.0[0].remedy.contains("`distributed_interval`"), "{found}");
        assert!(found.0[1].reason.contains("no logs"), "{found}");
        assert_eq!(warnings("config: {options: {logger_plugin: 'filesystem,tls'}}").len(), 1, "pack_delimiter");
        let overridden = warnings("overrides: {platforms: {windows: {schedule: {}}, darwin: null}}");
        assert!(overridden.len() == 1 && overridden[0].starts_with("overrides.platforms.windows.options: "));
        assert_eq!(warnings("command_line_flags: {verbos: true}").len(), 1);
    }

    #[test]
    fn options_that_this_server_does_not_know_are_no_warnings() {
        for text in [DEFAULT, "config: null", "{}", "config: {options: {pack_delimiter: /, a: 1, watchdog_delay: 60}}"]
        {
            assert_eq!(warnings(text), Vec::<String>::new(), "{text}");
        }
    }
}
