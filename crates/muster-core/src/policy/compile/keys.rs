//! Outputs at which the server creates a key for each agent (EA §6).

use serde_json::{Map, Value};

use super::outputs::{Outputs, add_record};
use super::{Draft, ROOT};
use crate::policy::issuers::{self, AGENT_KEYS, TOKEN};
use crate::policy::render::EXPORTER;
use crate::secret_refs::join;

/// Credentials for all agents, which the key of each agent replaces.
const SHARED: [&str; 3] = ["api_key", "username", "password"];

const NO_CREDENTIAL: &str = "the output has no credential with which the server can create keys for agents";
/// An API key is no credential for that, because Elasticsearch gives keys that it creates no privileges.
const GIVE_CREDENTIAL: &str = "set `service_token`, or `username` and `password`; `api_key` cannot create keys";

fn path_of(output: &str, field: &str) -> String {
    join(&join(&join(ROOT, "outputs"), output), field)
}

impl Draft<'_> {
    /// Adds the output objects that exporters of OpenTelemetry collectors refer to as `elasticsearch/ID` (EA103).
    pub(super) fn export(&mut self, outputs: &mut Outputs) {
        let exporters = self.config.get("exporters").and_then(Value::as_object).into_iter().flatten();
        let named: Vec<&str> = exporters.filter_map(|(name, _)| name.strip_prefix(EXPORTER)).collect();
        for name in named {
            let record = self.sources.shared.outputs.iter().find(|output| output.id.as_str() == name);
            // Any other output would be of no use to the exporter: it has an address of its own.
            let creates_keys = |fields: &Value| fields.as_object().is_some_and(issuers::creates_keys);
            if let Some(record) = record.filter(|record| !outputs.contains_key(name) && creates_keys(&record.fields)) {
                add_record(outputs, record, self.sources.shared);
            }
        }
    }

    /// Returns the connections to the clusters at which keys are created, by the name of the output. Removes
    /// credentials that such an output has for all agents.
    pub(super) fn issuers(&mut self, outputs: &mut Outputs) -> Map<String, Value> {
        let mut found = Map::new();
        for (name, output) in outputs {
            let Some(source) = output.source.as_ref() else { continue };
            let (policy, previous) = (&self.sources.policy.id, self.sources.previous);
            let Some(entry) = issuers::entry(policy, name, output.record.as_ref(), source, previous) else {
                if source.get(AGENT_KEYS) == Some(&Value::Bool(true)) {
                    self.problems.advise(path_of(name, AGENT_KEYS), NO_CREDENTIAL, GIVE_CREDENTIAL);
                }
                continue;
            };
            found.insert(name.clone(), entry);
            let used = issuers::credential(source).unwrap_or_default();
            let mut removed: Vec<&str> = SHARED.into_iter().filter(|key| output.entry.remove(*key).is_some()).collect();
            if let Some(Value::Object(mirror)) = output.entry.get_mut("secrets") {
                removed.extend(SHARED.into_iter().filter(|key| mirror.remove(*key).is_some()));
            }
            // The credential that creates the keys has to be there. Any other one has no effect, which its author may
            // not expect.
            if let Some(key) = removed.into_iter().find(|key| !used.contains(key)) {
                let reason = format!(
                    "is not delivered: each agent gets a key of its own, created with `{}`",
                    used.join("` and `")
                );
                let keeps =
                    if used.contains(&TOKEN) { format!("remove it, or `{TOKEN}`") } else { "remove it".to_owned() };
                self.warnings.advise(path_of(name, key), reason, keeps);
            }
        }
        found
    }
}
