//! Sections `agent` (the agent's own settings) and `fleet` (its connection to the server).

use serde_json::Value;

use super::{list, object, values};
use crate::policy::check::outputs::check_hosts;
use crate::policy::problem::Problems;
use crate::secret_refs::join;

/// Keys under `agent` that only the server sets.
const OURS: [&str; 2] = ["id", "protection"];
/// Keys under `agent` that must be objects if present.
const OBJECTS: [&str; 7] = ["monitoring", "download", "features", "logging", "limits", "internal", "process"];
/// Keys under `fleet` (EA §4.8 and the client's state of EA §10.3).
const FLEET_KEYS: [&str; 7] = ["hosts", "proxy_url", "proxy_headers", "proxy_disable", "ssl", "secrets", "timeout"];

/// Keys under `fleet` of an agent's own configuration file, which people copy by mistake: its identity and its
/// connection.
const LOCAL_KEYS: [&str; 7] = ["enabled", "access_api_key", "agent", "host", "protocol", "path", "server"];

pub(super) fn check_agent(agent: &Value, path: &str, problems: &mut Problems) {
    for (key, value) in object(agent, path, problems).into_iter().flatten() {
        let path = join(path, key);
        if OURS.contains(&key.as_str()) {
            problems.advise(path, "the server sets this itself", "remove it");
        } else if OBJECTS.contains(&key.as_str()) {
            object(value, &path, problems);
        }
    }
    values::check_settings(agent, path, problems);
}

pub(super) fn check_fleet(fleet: &Value, path: &str, problems: &mut Problems) {
    for (key, value) in object(fleet, path, problems).into_iter().flatten() {
        let path = join(path, key);
        match key.as_str() {
            "hosts" => {
                let hosts = list(value, &path, problems);
                check_hosts(hosts, &path, problems);
                // Agents can't connect to an address without a scheme, and would not get the corrected policy either.
                check_urls(hosts, &path, problems);
            }
            "proxy_disable" => values::check_boolean(value, &path, problems),
            known if FLEET_KEYS.contains(&known) => {}
            local if LOCAL_KEYS.contains(&local) => {
                problems.advise(path, "agents set this when they enroll", "remove it");
            }
            unknown => problems.unknown(path.clone(), "key", unknown, &FLEET_KEYS),
        }
    }
}

fn check_urls(hosts: &[Value], path: &str, problems: &mut Problems) {
    let is_url = |host: &str| host.starts_with("https://") || host.starts_with("http://");
    for (index, host) in hosts.iter().enumerate().filter(|(_, host)| host.as_str().is_some_and(|host| !is_url(host))) {
        let remedy = format!("such as `https://{}`", host.as_str().unwrap_or_default());
        problems.advise(join(path, &index.to_string()), "must be a URL", remedy);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(check: fn(&Value, &str, &mut Problems), value: &Value) -> Vec<String> {
        let mut problems = Problems::default();
        check(value, "p", &mut problems);
        problems.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn protection_and_id_are_rejected() {
        let found = problems(check_agent, &json!({"id": "x", "protection": {}, "monitoring": true, "headers": null}));
        let expected = [
            "p.id: the server sets this itself; remove it",
            "p.monitoring: must be an object, not a boolean; write its settings on the following lines, indented",
            "p.protection: the server sets this itself; remove it",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn fleet_hosts_must_be_urls() {
        let found = problems(check_fleet, &json!({"hosts": ["fleet:8220", ""], "hosst": "x", "enabled": true}));
        assert!(found.contains(&"p.hosts.0: must be a URL; such as `https://fleet:8220`".to_owned()));
        assert!(found.contains(&"p.hosts.1: must be an address".to_owned()));
        assert!(found.contains(&"p.hosst: unknown key `hosst`; did you mean `hosts`?".to_owned()));
        assert_eq!(problems(check_fleet, &json!({"proxy_disable": true})), Vec::<String>::new());
        let found_other = problems(check_fleet, &json!({"proxy_disable": "yes"}));
        assert!(found_other[0].starts_with("p.proxy_disable: must be a boolean"), "{found_other:?}");
        assert!(found.contains(&"p.enabled: agents set this when they enroll; remove it".to_owned()));
    }
}
