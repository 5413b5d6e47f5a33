//! Section `agent`: monitoring, downloads, features, protection, logging.

use serde_json::{Map, Value, json};

use super::outputs::{DEFAULT, Outputs, add_record};
use super::{Draft, NO_OUTPUT, ROOT, take_object};

/// Fields of `advanced_settings` and their paths under `agent`.
pub(in crate::policy) const ADVANCED: [(&str, &[&str]); 11] = [
    ("agent_limits_go_max_procs", &["limits", "go_max_procs"]),
    ("agent_download_timeout", &["download", "timeout"]),
    ("agent_download_target_directory", &["download", "target_directory"]),
    ("agent_logging_level", &["logging", "level"]),
    ("agent_logging_to_files", &["logging", "to_files"]),
    ("agent_logging_files_rotateeverybytes", &["logging", "files", "rotateeverybytes"]),
    ("agent_logging_files_keepfiles", &["logging", "files", "keepfiles"]),
    ("agent_logging_files_interval", &["logging", "files", "interval"]),
    ("agent_logging_metrics_period", &["logging", "metrics", "period"]),
    ("agent_monitoring_runtime_experimental", &["monitoring", "_runtime_experimental"]),
    ("agent_internal", &["internal"]),
];

const SIGNALS: [&str; 3] = ["logs", "metrics", "traces"];

impl<'a> Draft<'a> {
    /// Returns the complete section. The configuration takes precedence over the fields of the policy, except for
    /// `protection`, which the server controls.
    pub(super) fn agent(&mut self, outputs: &mut Outputs) -> Map<String, Value> {
        let mut agent = Map::new();
        agent.insert("monitoring".into(), self.monitoring_fields().into());
        agent.insert("features".into(), self.features().into());
        let download = self.download();
        if !download.is_empty() {
            agent.insert("download".into(), download.into());
        }
        self.add_advanced(&mut agent);
        // The order decides the precedence: each step overrides the one before.
        merge(&mut agent, take_object(&mut self.config, "agent"));
        self.finish_monitoring(&mut agent, outputs);
        // Last, so that nothing can override it.
        agent.insert("protection".into(), self.protection());
        agent
    }

    /// Returns the monitoring settings from the fields of the management API.
    fn monitoring_fields(&mut self) -> Map<String, Value> {
        let enabled = self.field("monitoring_enabled").and_then(Value::as_array);
        // Without the field, `enabled: true` in the configuration means what it means to agents: logs and metrics.
        let is_asked_for = enabled.is_none()
            && self.config.get("agent").is_some_and(|agent| may_be_true(&agent["monitoring"]["enabled"]));
        let is_on = |signal: &str| match enabled {
            Some(list) => list.iter().any(|value| value.as_str() == Some(signal)),
            None => is_asked_for && signal != "traces",
        };
        let mut monitoring: Map<String, Value> =
            SIGNALS.iter().map(|signal| ((*signal).to_owned(), is_on(signal).into())).collect();
        let fields = [
            ("monitoring_http", "http"),
            ("monitoring_diagnostics", "diagnostics"),
            ("monitoring_pprof_enabled", "pprof"),
        ];
        for (field, key) in fields {
            let value = match self.object_field(field) {
                Some(object) => Some(Value::Object(object)),
                None => self.field(field).cloned(),
            };
            monitoring.extend(value.map(|value| (key.to_owned(), value)));
        }
        // A boolean in the management API, but an object for agents.
        if let Some(Value::Bool(pprof)) = monitoring.get("pprof") {
            let pprof = json!({"enabled": pprof});
            monitoring.insert("pprof".into(), pprof);
        }
        monitoring
    }

    /// Completes the monitoring settings: whether it is enabled, the data namespace, and the output.
    fn finish_monitoring(&mut self, agent: &mut Map<String, Value>, outputs: &mut Outputs) {
        let mut monitoring = take_object(agent, "monitoring");
        let is_true = |key: &str| monitoring.get(key).is_some_and(may_be_true);
        let has_http = monitoring.get("http").and_then(|http| http.get("enabled")) == Some(&Value::Bool(true));
        let keep_alive = self.field("keep_monitoring_alive") == Some(&Value::Bool(true));
        let collects =
            SIGNALS.iter().any(|signal| is_true(signal)) && monitoring.get("enabled") != Some(&Value::Bool(false));
        // An explicit `enabled` in the configuration wins, even if nothing is collected.
        monitoring.entry("enabled").or_insert_with(|| (collects || has_http || keep_alive).into());
        if collects {
            monitoring.entry("namespace").or_insert_with(|| self.namespace().into());
            self.route_monitoring(&mut monitoring, outputs);
        }
        agent.insert("monitoring".into(), monitoring.into());
    }

    fn route_monitoring(&mut self, monitoring: &mut Map<String, Value>, outputs: &mut Outputs) {
        let path = format!("{ROOT}.agent.monitoring.use_output");
        let name = if let Some(wanted) = monitoring.get("use_output").and_then(Value::as_str) {
            self.use_output(outputs, wanted, &path)
        } else if let Some(record) = self.monitoring_record(outputs) {
            add_record(outputs, record, self.sources.shared)
        } else if outputs.contains_key(DEFAULT) {
            DEFAULT.to_owned()
        } else {
            // Agents reject the whole policy if monitoring is enabled without an output.
            let reason = "monitoring is disabled: there is no output for its data";
            self.warnings.advise(format!("{ROOT}.agent.monitoring"), reason, NO_OUTPUT);
            monitoring.insert("enabled".into(), false.into());
            return;
        };
        monitoring.insert("use_output".into(), name.into());
    }

    /// Returns the output object for monitoring data. If the configuration defines the default output itself,
    /// monitoring data stays there, unless the policy sets another output.
    fn monitoring_record(&mut self, outputs: &Outputs) -> Option<&'a crate::output::Output> {
        let is_own = outputs.get(DEFAULT).is_some_and(|output| output.record.is_none());
        if is_own && self.field("monitoring_output_id").is_none() {
            return None;
        }
        self.record_for("monitoring_output_id", |output| output.is_default_monitoring)
    }

    /// Returns `agent_features` in the format of the compiled policy.
    fn features(&self) -> Map<String, Value> {
        let features = self.field("agent_features").and_then(Value::as_array).into_iter().flatten();
        let one = |feature: &Value| {
            let enabled = feature.get("enabled") == Some(&Value::Bool(true));
            Some((feature.get("name")?.as_str()?.to_owned(), json!({"enabled": enabled})))
        };
        features.filter_map(one).collect()
    }

    fn add_advanced(&mut self, agent: &mut Map<String, Value>) {
        let settings = self.object_field("advanced_settings");
        for (name, path) in ADVANCED {
            let value = settings.as_ref().and_then(|settings| settings.get(name)).filter(|value| !value.is_null());
            if let Some(value) = value {
                // Built from the inside out: `["limits", "go_max_procs"]` becomes `{"limits": {"go_max_procs": …}}`.
                let nested = path.iter().rev().fold(value.clone(), |inner, key| json!({*key: inner}));
                if let Value::Object(nested) = nested {
                    merge(agent, nested);
                }
            }
        }
    }

    fn protection(&self) -> Value {
        let enabled = self.field("is_protected") == Some(&Value::Bool(true));
        let mut protection = json!({
            "enabled": enabled,
            "uninstall_token_hash": self.sources.uninstall_token_hash,
            "signing_key": self.sources.signer.public_key()
        });
        // Only muster-agent knows the member. Elastic Agent ignores it, and unprotected agents have no use for it.
        if let Some(hash) = self.sources.policy.recovery_code_hash.as_ref().filter(|_| enabled) {
            protection["recovery_code_hash"] = hash.as_str().into();
        }
        protection
    }
}

/// Returns whether agents may read the value as `true`: they resolve variables themselves.
fn may_be_true(value: &Value) -> bool {
    value == &Value::Bool(true) || value.as_str().is_some_and(|text| text.contains("${"))
}

/// Merges `more` into `base`: objects are merged recursively, all other values are replaced.
pub(super) fn merge(base: &mut Map<String, Value>, more: Map<String, Value>) {
    for (key, value) in more {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}
