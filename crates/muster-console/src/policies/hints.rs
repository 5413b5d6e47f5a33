//! What the editor lists of the format of policy files. `docs/policies.md` has the rest.

/// A part of the format.
pub struct Hints {
    /// Heading.
    pub title: &'static str,
    /// Keys, and what they are.
    pub keys: &'static [(&'static str, &'static str)],
}

/// The format.
pub static HINTS: [Hints; 4] = [
    Hints {
        title: "Top level",
        keys: &[
            ("name", "required; another name renames the policy"),
            ("description", "text"),
            ("namespace", "data namespace: lower case, without hyphens or spaces"),
            ("tags", "list of tags"),
            ("settings", "settings of the server; a missing one is reset to its default"),
            ("config", "the configuration of a standalone Elastic Agent"),
        ],
    },
    Hints {
        title: "settings",
        keys: &[
            ("is_managed", "true: changes need force"),
            ("is_default", "true: for agents that enroll without a policy"),
            ("is_protected", "true: uninstalling an agent needs its uninstall token"),
            ("inactivity_timeout", "seconds without a check-in until an agent becomes inactive; 0: never"),
            ("unenroll_timeout", "seconds without a check-in until an inactive agent is unenrolled; null: never"),
            ("duplicate_hosts", "warn or reenroll: what happens to clones of a host"),
            ("monitoring_enabled", "list of logs, metrics, traces: what agents send about themselves"),
            ("keep_monitoring_alive", "true: the monitoring server runs without an output, too"),
            ("monitoring_pprof_enabled", "true: profiling of the agent"),
            ("monitoring_http", "object: the agent's monitoring server"),
            ("monitoring_diagnostics", "object: limits of diagnostics"),
            ("data_output_id", "id of the output for data"),
            ("monitoring_output_id", "id of the output for monitoring"),
            ("fleet_server_host_id", "id of the servers that agents check in with"),
            ("download_source_id", "id of the download source"),
            ("agent_features", "list of {name, enabled}, such as fqdn"),
            ("advanced_settings", "object: limits and logging of the agent"),
            ("global_data_tags", "list of {name, value}, added to all data"),
            ("overrides", "object, merged into what agents get"),
            ("required_versions", "list of {version, percentage}: automatic upgrades"),
        ],
    },
    Hints {
        title: "config",
        keys: &[
            ("outputs", "by name: type, hosts, credentials"),
            ("output_permissions", "privileges of the API keys for outputs"),
            ("inputs", "list of {id, type, use_output, streams …}"),
            ("agent", "logging, monitoring, limits, download"),
            ("fleet", "hosts and TLS for check-ins"),
            ("receivers", "OpenTelemetry Collector"),
            ("processors", "OpenTelemetry Collector"),
            ("exporters", "OpenTelemetry Collector"),
            ("extensions", "OpenTelemetry Collector"),
            ("connectors", "OpenTelemetry Collector"),
            ("service", "OpenTelemetry Collector: pipelines"),
        ],
    },
    Hints {
        title: "config.outputs.NAME.type",
        keys: &[
            ("elasticsearch", "hosts; api_key, service_token, or username and password"),
            ("remote_elasticsearch", "the same, for another cluster"),
            ("logstash", "hosts, ssl"),
            ("kafka", "hosts, topic, sasl"),
            ("file", "a file on the host, for inputs of the type host/metrics of muster-agent"),
            ("otlp", "hosts, headers, ssl: a receiver of OTLP/HTTP, for the same inputs"),
        ],
    },
];

#[cfg(test)]
mod tests {
    use muster_core::policy::check::{CONFIG_KEYS, OUTPUT_TYPES};
    use muster_core::policy::file::setting_names;

    use super::*;

    #[test]
    fn the_hints_contain_every_key_that_files_may_have() {
        let keys = |number: usize| HINTS[number].keys.iter().map(|(key, _)| *key).collect::<Vec<_>>();
        assert_eq!(keys(1), setting_names().collect::<Vec<_>>());
        assert_eq!(keys(2), CONFIG_KEYS);
        assert!(OUTPUT_TYPES.iter().all(|kind| keys(3).contains(kind)), "{OUTPUT_TYPES:?}");
    }
}
