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

/// Strings that the agents' configuration library parses as a boolean.
const BOOLEANS: [&str; 12] = ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];

/// Type that agents parse a value as.
#[derive(Clone, Copy)]
enum Read {
    Boolean,
    Integer,
    /// Go duration (`90s`, `1h30m`) or a number of seconds.
    Duration,
    Level,
}

// Only settings whose invalid values were seen to make agents reject a policy.
/// Settings under `agent`; `*` matches any name.
const SETTINGS: [(&str, Read); 13] = [
    ("download.retry_sleep_init_duration", Read::Duration),
    ("download.timeout", Read::Duration),
    ("features.*.enabled", Read::Boolean),
    ("limits.go_max_procs", Read::Integer),
    ("logging.level", Read::Level),
    ("logging.to_files", Read::Boolean),
    ("logging.to_stderr", Read::Boolean),
    ("monitoring.enabled", Read::Boolean),
    ("monitoring.http.enabled", Read::Boolean),
    ("monitoring.http.port", Read::Integer),
    ("monitoring.logs", Read::Boolean),
    ("monitoring.metrics", Read::Boolean),
    ("monitoring.traces", Read::Boolean),
];

/// Checks the values under `agent`.
pub(super) fn check_settings(agent: &Value, path: &str, problems: &mut Problems) {
    for (setting, read) in SETTINGS {
        let names: Vec<&str> = setting.split('.').collect();
        check_setting(agent, &names, read, path, problems);
    }
}

fn check_setting(value: &Value, names: &[&str], read: Read, path: &str, problems: &mut Problems) {
    let Some((name, rest)) = names.split_first() else { return check_value(value, read, path, problems) };
    let fields = value.as_object().into_iter().flatten();
    for (key, value) in fields.filter(|(key, _)| *name == "*" || key == name) {
        check_setting(value, rest, read, &join(path, key), problems);
    }
}

fn check_value(value: &Value, read: Read, path: &str, problems: &mut Problems) {
    let text = match value {
        // Agents resolve variables themselves, and treat `null` as absent.
        Value::Null => return,
        Value::String(text) if text.contains("${") => return,
        Value::String(text) => Some(text.trim()),
        _ => None,
    };
    match read {
        Read::Boolean if value.is_boolean() || text.is_some_and(|text| BOOLEANS.contains(&text)) => {}
        Read::Boolean => problems.advise(path, "must be a boolean", "write `true` or `false`"),
        Read::Integer if value.is_i64() || text.is_some_and(|text| text.parse::<i64>().is_ok()) => {}
        Read::Integer => problems.add(path, "must be an integer"),
        Read::Duration if value.is_number() || text.is_some_and(is_duration) => {}
        Read::Duration => problems.advise(path, "must be a duration", "such as `90s` or `1h30m`"),
        Read::Level => match text {
            Some(word) if AGENT_LEVELS.contains(&word.to_lowercase().as_str()) => {}
            Some(word) => problems.unknown(path, "level", word, &AGENT_LEVELS),
            None => problems.add(path, format!("must be a string, not {}", kind_of(value))),
        },
    }
}

/// Checks the common fields of inputs and outputs. Here, unlike under `agent`, agents do not accept a string for
/// `enabled`.
pub(super) fn check_unit(unit: &Map<String, Value>, path: &str, problems: &mut Problems) {
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

    /// Each of these was tried with agents of 8.18.8 and 9.5.2, which rejected the policy.
    #[test]
    fn values_that_agents_reject_are_rejected() {
        let found = settings(&json!({
            "download": {"timeout": "soon"}, "features": {"fqdn": {"enabled": "perhaps"}},
            "limits": {"go_max_procs": "many"}, "logging": {"level": "nonsense"},
            "monitoring": {"http": {"port": "many"}}}));
        let expected = [
            "agent.download.timeout: must be a duration; such as `90s` or `1h30m`",
            "agent.features.fqdn.enabled: must be a boolean; write `true` or `false`",
            "agent.limits.go_max_procs: must be an integer",
            "agent.logging.level: unknown level `nonsense`; known: debug, info, warning, error, critical",
            "agent.monitoring.http.port: must be an integer",
        ];
        assert_eq!(found, expected);
        let expected = [
            "u.enabled: must be a boolean, not a text; write `true` or `false`, without quotes",
            "u.log_level: unknown level `shout`; known: trace, debug, info, warn, warning, error",
        ];
        assert_eq!(unit(&json!({"enabled": "true", "log_level": "shout"})), expected);
        assert_eq!(unit(&json!({"log_level": 1})), ["u.log_level: must be a string, not a number"]);
        assert_eq!(
            settings(&json!({"logging": {"level": 1}})),
            ["agent.logging.level: must be a string, not a number"]
        );
    }

    #[test]
    fn values_that_agents_accept_are_accepted() {
        let taken = json!({
            "download": {"timeout": 120, "retry_sleep_init_duration": "1h30m"}, "features": {"fqdn": {"enabled": "true"}},
            "limits": {"go_max_procs": "4"}, "logging": {"level": "WARNING", "to_files": false, "to_stderr": null},
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
