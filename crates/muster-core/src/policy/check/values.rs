//! Values that agents parse as a boolean, an integer, a duration or a log level. Agents reject the whole policy if they
//! can't parse one of them (AG §4.2).

use serde_json::{Map, Value};

use super::kind_of;
use crate::policy::problem::Problems;
use crate::secret_refs::join;

/// Log levels of the agent itself.
const AGENT_LEVELS: [&str; 5] = ["debug", "info", "warning", "error", "critical"];
/// Log levels of an input or an output.
const UNIT_LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "warning", "error"];

/// Type that agents parse a value as.
///
/// Agents convert some values of other types, such as the string `"true"` to a boolean, but not in all places, and the
/// server reads the same settings. Values of another type are therefore rejected even where agents would convert them.
#[derive(Clone, Copy)]
enum Read {
    Boolean,
    /// Not negative.
    Integer,
    /// 0 to 65535.
    Port,
    /// Go duration (`90s`, `1h30m`) or a number of seconds.
    Duration,
    /// Go duration. Agents read it as a string, and pass it on to programs that require a unit.
    DurationWithUnit,
    Level,
}

/// Settings under `agent` whose type agents enforce; `*` matches any name.
const SETTINGS: [(&str, Read); 34] = [
    ("download.retry_sleep_init_duration", Read::Duration),
    ("download.timeout", Read::Duration),
    ("features.*.enabled", Read::Boolean),
    ("limits.go_max_procs", Read::Integer),
    ("logging.files.interval", Read::Duration),
    ("logging.files.keepfiles", Read::Integer),
    ("logging.files.rotateeverybytes", Read::Integer),
    ("logging.files.rotateonstartup", Read::Boolean),
    ("logging.level", Read::Level),
    ("logging.metrics.enabled", Read::Boolean),
    ("logging.metrics.period", Read::Duration),
    ("logging.to_files", Read::Boolean),
    ("logging.to_stderr", Read::Boolean),
    ("monitoring.apm.tls.skip_verify", Read::Boolean),
    ("monitoring.diagnostics.limit.burst", Read::Integer),
    ("monitoring.diagnostics.limit.interval", Read::Duration),
    ("monitoring.diagnostics.uploader.init_duration", Read::Duration),
    ("monitoring.diagnostics.uploader.max_duration", Read::Duration),
    ("monitoring.diagnostics.uploader.max_retries", Read::Integer),
    ("monitoring.enabled", Read::Boolean),
    ("monitoring.failure_threshold", Read::Integer),
    ("monitoring.http.buffer.enabled", Read::Boolean),
    ("monitoring.http.enabled", Read::Boolean),
    ("monitoring.http.port", Read::Port),
    ("monitoring.logs", Read::Boolean),
    ("monitoring.metrics", Read::Boolean),
    ("monitoring.metrics_period", Read::DurationWithUnit),
    ("monitoring.pprof.enabled", Read::Boolean),
    ("monitoring.traces", Read::Boolean),
    ("process.spawn_timeout", Read::Duration),
    ("process.stop_timeout", Read::Duration),
    ("upgrade.rollback.window", Read::Duration),
    ("upgrade.watcher.error_check.interval", Read::Duration),
    ("upgrade.watcher.grace_period", Read::Duration),
];

/// Checks the values under `agent`.
pub(super) fn check_settings(agent: &Value, path: &str, problems: &mut Problems) {
    // Each setting is looked up, not each field: unknown settings under `agent` are none of the server's business.
    for (setting, read) in SETTINGS {
        let names: Vec<&str> = setting.split('.').collect();
        check_setting(agent, &names, read, path, problems);
    }
}

/// Checks a value that agents read as a boolean.
pub(super) fn check_boolean(value: &Value, path: &str, problems: &mut Problems) {
    check_value(value, Read::Boolean, path, problems);
}

/// Checks the value of one setting, given by its path under `agent`; `path` is that of the value, for messages.
pub(super) fn check_one(setting: &[&str], value: &Value, path: &str, problems: &mut Problems) {
    let setting = setting.join(".");
    for (_, read) in SETTINGS.iter().filter(|(name, _)| *name == setting) {
        check_value(value, *read, path, problems);
    }
}

fn check_setting(value: &Value, names: &[&str], read: Read, path: &str, problems: &mut Problems) {
    let Some((name, rest)) = names.split_first() else { return check_value(value, read, path, problems) };
    let fields = value.as_object().into_iter().flatten();
    // `*` stands for names that users choose, such as those of features.
    for (key, value) in fields.filter(|(key, _)| *name == "*" || key == name) {
        check_setting(value, rest, read, &join(path, key), problems);
    }
}

fn check_value(value: &Value, read: Read, path: &str, problems: &mut Problems) {
    let text = match value {
        // Agents resolve variables themselves, and treat `null` as absent.
        Value::Null => return,
        // A variable is replaced on the host, so its type is unknown here.
        Value::String(text) if text.contains("${") => return,
        Value::String(text) => Some(text.trim()),
        _ => None,
    };
    let mut refuse = |wanted: &str, remedy: String| {
        problems.advise(path, format!("must be {wanted}, not {}", shown(value)), remedy);
    };
    match read {
        Read::Boolean if value.is_boolean() => {}
        Read::Boolean => refuse("a boolean", boolean_remedy(value)),
        // Not negative and without a fraction. Agents parse `1.0` as a float and reject it.
        Read::Integer if value.is_u64() => {}
        Read::Integer => refuse("an integer that is not negative", integer_remedy(text)),
        Read::Port if value.as_u64().is_some_and(|port| port <= u16::MAX.into()) => {}
        Read::Port => refuse("a port from 0 to 65535", integer_remedy(text)),
        Read::Duration | Read::DurationWithUnit if text.is_some_and(is_duration) => {}
        Read::Duration if value.as_f64().is_some_and(|seconds| seconds >= 0.0) => {}
        Read::Duration | Read::DurationWithUnit => refuse("a duration", duration_remedy(value)),
        Read::Level => match text {
            Some(word) if AGENT_LEVELS.contains(&word.to_lowercase().as_str()) => {}
            Some(word) => problems.unknown(path, "level", word, &AGENT_LEVELS),
            None => refuse("a string", format!("one of: {}", AGENT_LEVELS.join(", "))),
        },
    }
}

/// Returns a value of a wrong type for messages: short values themselves, others by their type.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() <= 40 => format!("the string `{text}`"),
        Value::Number(number) => format!("the number `{number}`"),
        Value::Bool(boolean) => format!("the boolean `{boolean}`"),
        other => kind_of(other).to_owned(),
    }
}

/// Returns how to write a boolean. Words that agents would read as one are named, so that the remedy can be copied.
fn boolean_remedy(value: &Value) -> String {
    match value.as_str().map(str::trim) {
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => "write `true`, without quotes".to_owned(),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => "write `false`, without quotes".to_owned(),
        _ => "write `true` or `false`, without quotes".to_owned(),
    }
}

fn integer_remedy(text: Option<&str>) -> String {
    match text.and_then(|text| text.parse::<u64>().ok()) {
        Some(number) => format!("write `{number}`, without quotes"),
        None => "write digits only, without quotes".to_owned(),
    }
}

fn duration_remedy(value: &Value) -> String {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    match number.filter(|seconds| *seconds >= 0.0) {
        Some(seconds) => format!("add a unit, such as `{seconds}s`"),
        None => "such as `90s` or `1h30m`".to_owned(),
    }
}

/// Checks the common fields of inputs and outputs. Here, unlike under `agent`, agents do not accept a string for
/// `enabled`.
pub(super) fn check_unit(unit: &Map<String, Value>, path: &str, problems: &mut Problems) {
    // As above: what a variable becomes is decided on the host.
    let resolved = |value: &&Value| value.as_str().is_none_or(|text| !text.contains("${"));
    if let Some(enabled) = unit.get("enabled").filter(resolved).filter(|enabled| !enabled.is_boolean()) {
        let reason = format!("must be a boolean, not {}", kind_of(enabled));
        problems.advise(join(path, "enabled"), reason, "write `true` or `false`, without quotes");
    }
    match unit.get("log_level").filter(resolved) {
        Some(Value::String(word)) if UNIT_LEVELS.contains(&word.trim().to_lowercase().as_str()) => {}
        Some(Value::String(word)) => problems.unknown(join(path, "log_level"), "level", word, &UNIT_LEVELS),
        Some(other) => problems.add(join(path, "log_level"), format!("must be a string, not {}", kind_of(other))),
        None => {}
    }
}

/// Returns whether the text is a Go duration: `90s`, `1h30m`, `1.5h`, `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    // The only duration without a unit.
    if rest == "0" {
        return true;
    }
    let mut units = 0;
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        if rest[..number].parse::<f64>().is_err() {
            return false;
        }
        rest = &rest[number..];
        // Longer units first, so that `ms` is not parsed as `m`.
        let Some(unit) = ["ns", "us", "µs", "ms", "s", "m", "h"].into_iter().find(|unit| rest.starts_with(unit))
        else {
            return false;
        };
        rest = &rest[unit.len()..];
        units += 1;
    }
    units > 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(agent: &Value) -> Vec<String> {
        let mut problems = Problems::default();
        check_settings(agent, "agent", &mut problems);
        problems.0.iter().map(ToString::to_string).collect()
    }

    fn unit(unit: &Value) -> Vec<String> {
        let mut problems = Problems::default();
        check_unit(unit.as_object().unwrap(), "u", &mut problems);
        problems.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_of_other_types_are_rejected_with_the_way_to_write_them() {
        let found = settings(&json!({
            "download": {"timeout": "soon"},
            "features": {"fqdn": {"enabled": "perhaps"}, "x": {"enabled": 1}},
            "limits": {"go_max_procs": "many"},
            "logging": {"level": "nonsense", "to_files": "False",
                        "files": {"keepfiles": 2.5, "rotateeverybytes": "1048576", "interval": "30"}},
            "monitoring": {"enabled": "true", "failure_threshold": -1, "metrics_period": 60,
                           "http": {"port": "many", "enabled": []}, "diagnostics": {"limit": {"interval": false}}}}));
        let expected = [
            "agent.download.timeout: must be a duration, not the string `soon`; such as `90s` or `1h30m`",
            "agent.features.fqdn.enabled: must be a boolean, not the string `perhaps`; write `true` or `false`, without quotes",
            "agent.features.x.enabled: must be a boolean, not the number `1`; write `true` or `false`, without quotes",
            "agent.limits.go_max_procs: must be an integer that is not negative, not the string `many`; write digits only, without quotes",
            "agent.logging.files.interval: must be a duration, not the string `30`; add a unit, such as `30s`",
            "agent.logging.files.keepfiles: must be an integer that is not negative, not the number `2.5`; write digits only, without quotes",
            "agent.logging.files.rotateeverybytes: must be an integer that is not negative, not the string `1048576`; write `1048576`, without quotes",
            "agent.logging.level: unknown level `nonsense`; known: debug, info, warning, error, critical",
            "agent.logging.to_files: must be a boolean, not the string `False`; write `false`, without quotes",
            "agent.monitoring.diagnostics.limit.interval: must be a duration, not the boolean `false`; such as `90s` or `1h30m`",
            "agent.monitoring.enabled: must be a boolean, not the string `true`; write `true`, without quotes",
            "agent.monitoring.failure_threshold: must be an integer that is not negative, not the number `-1`; write digits only, without quotes",
            "agent.monitoring.http.enabled: must be a boolean, not a list; write `true` or `false`, without quotes",
            "agent.monitoring.http.port: must be a port from 0 to 65535, not the string `many`; write digits only, without quotes",
            "agent.monitoring.metrics_period: must be a duration, not the number `60`; add a unit, such as `60s`",
        ];
        assert_eq!(found, expected);
        let level =
            "agent.logging.level: must be a string, not the number `1`; one of: debug, info, warning, error, critical";
        assert_eq!(settings(&json!({"logging": {"level": 1}})), [level]);
    }

    /// Each of these was tried with agents of 8.18.8 and 9.5.2, which rejected the policy.
    #[test]
    fn values_of_units_that_agents_reject_are_rejected() {
        let expected = [
            "u.enabled: must be a boolean, not a string; write `true` or `false`, without quotes",
            "u.log_level: unknown level `shout`; known: trace, debug, info, warn, warning, error",
        ];
        assert_eq!(unit(&json!({"enabled": "true", "log_level": "shout"})), expected);
        assert_eq!(unit(&json!({"log_level": 1})), ["u.log_level: must be a string, not a number"]);
    }

    #[test]
    fn values_that_agents_accept_are_accepted() {
        let taken = json!({
            "download": {"timeout": 120, "retry_sleep_init_duration": "1h30m"}, "features": {"fqdn": {"enabled": true}},
            "limits": {"go_max_procs": 4}, "logging": {"level": "WARNING", "to_files": false, "to_stderr": null},
            "monitoring": {"enabled": "${env.MONITOR}", "http": {"enabled": true, "port": 6791}, "logs": true}});
        assert_eq!(settings(&taken), Vec::<String>::new());
        for free in [json!(null), json!(1), json!({"monitoring": 1, "features": {"x": null}})] {
            assert_eq!(settings(&free), Vec::<String>::new(), "others tell of it");
        }
        assert_eq!(unit(&json!({"enabled": false, "log_level": " Trace "})), Vec::<String>::new());
        assert_eq!(unit(&json!({"enabled": "${env.X}", "log_level": "${env.LEVEL}"})), Vec::<String>::new());
    }

    #[test]
    fn durations_follow_go() {
        for text in ["90s", "1h30m", "1.5h", "0", "-3ms", "2µs", "+1m"] {
            assert!(is_duration(text), "{text}");
        }
        for text in ["", "90", "1d", "s", "1.2.3s", "1h 30m", "-", "."] {
            assert!(!is_duration(text), "{text}");
        }
    }
}
