//! `overrides`: fields that are merged over the compiled policy before it is signed.

use serde_json::{Map, Value};

use super::Draft;
use super::agent::merge;
use crate::policy::check;
use crate::policy::expand::expand;
use crate::policy::inline_secrets;
use crate::policy::render::WIRE_KEYS;
use crate::secret_refs::{self, join};

/// Fields that overrides must not change: those that the server sets, and those that are signed.
const FORBIDDEN: [&str; 7] =
    ["id", "revision", "inputs", "signed", "secret_paths", "agent.protection", "agent.features"];

impl Draft<'_> {
    /// Merges `overrides` into the policy.
    pub(super) fn merge_overrides(&mut self, policy: &mut Map<String, Value>) {
        let Some(overrides) = self.field("overrides").cloned() else { return };
        let Value::Object(overrides) = overrides else {
            self.problems.add("overrides", format!("must be an object, not {}", check::kind_of(&overrides)));
            return;
        };
        let overrides = expand(&overrides, "overrides", &mut self.problems);
        for key in overrides.keys().filter(|key| !WIRE_KEYS.contains(&key.as_str())) {
            self.problems.unknown(join("overrides", key), "key", key, &WIRE_KEYS);
        }
        for path in FORBIDDEN.iter().filter(|path| find(&overrides, path).is_some()) {
            self.problems.advise(join("overrides", path), "cannot be overridden", "change the policy itself");
        }
        // Names are replaced by ids before overrides are merged, so a reference would reach agents as text.
        if Value::Object(overrides.clone()).to_string().contains(secret_refs::OPEN) {
            self.problems.advise("overrides", "secrets are not supported here", "use them in `config`");
        }
        // They are stored and shown as they are.
        for path in inline_secrets::paths(&Value::Object(overrides.clone())) {
            let path = join("overrides", &path);
            self.problems.advise(path, "must not contain secrets", "set it in `config`, where it is encrypted");
        }
        // Merged even if there are problems, because the result is discarded then.
        merge(policy, overrides);
    }
}

fn find<'a>(fields: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut steps = path.split('.');
    let first = fields.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.get(step))
}
