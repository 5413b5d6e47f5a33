//! Variables of the host that a policy refers to: `${host.name}`, `${env.HOME}` (AG §4.2).
//!
//! Context providers have one set of values. A dynamic provider has many sets, and an input is rendered once for each of
//! them.

mod api;
pub mod background;
pub mod board;
pub mod condition;
mod docker;
pub mod evaluate;
mod kubernetes;
mod labels;
mod lingering;
pub mod providers;
pub mod render;
pub mod settings;
pub mod template;
pub mod used;

use async_trait::async_trait;
use serde_json::{Map, Value};
use used::Used;

use crate::state::enrollment::Secret;

/// Provider of a name without a provider: `${HOME}` is `${env.HOME}`.
pub const DEFAULT_PROVIDER: &str = "env";

/// One set of values of a dynamic provider.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DynamicSet {
    /// Id, which is added to the ids of inputs: `local_dynamic-0`.
    pub id: String,
    /// Name of the provider.
    pub provider: String,
    /// Its values.
    pub values: Value,
    /// Processors that an input with these values gets, so that its events name their container.
    pub processors: Vec<Value>,
}

/// The values of all providers at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VariableSets {
    /// Values of the context providers, by the name of the provider.
    pub context: Map<String, Value>,
    /// Sets of the dynamic providers.
    pub dynamic: Vec<DynamicSet>,
}

/// The values that one rendering sees.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    context: &'a Map<String, Value>,
    dynamic: Option<&'a DynamicSet>,
}

impl VariableSets {
    /// Returns the scope without a dynamic provider.
    pub fn context(&self) -> Scope<'_> {
        Scope { context: &self.context, dynamic: None }
    }

    /// Returns all scopes, that without a dynamic provider first.
    pub fn scopes(&self) -> impl Iterator<Item = Scope<'_>> {
        let dynamic = self.dynamic.iter().map(|set| Scope { context: &self.context, dynamic: Some(set) });
        std::iter::once(self.context()).chain(dynamic)
    }
}

impl<'a> Scope<'a> {
    /// Returns the id of the dynamic set, if there is one.
    pub fn id(self) -> Option<&'a str> {
        self.dynamic.map(|set| set.id.as_str())
    }

    /// Returns the processors of the dynamic set.
    pub fn processors(self) -> &'a [Value] {
        self.dynamic.map(|set| set.processors.as_slice()).unwrap_or_default()
    }

    /// Returns the value of `provider.key`. Keys of nested objects are separated by dots; a key may contain dots itself.
    pub fn get(self, name: &str) -> Option<&'a Value> {
        let (provider, rest) = name.split_once('.').unwrap_or((DEFAULT_PROVIDER, name));
        let values = match self.dynamic.filter(|set| set.provider == provider) {
            Some(set) => &set.values,
            None => self.context.get(provider)?,
        };
        find(values, rest)
    }
}

/// Finds a dotted path. The longest key wins, because labels of containers have dots in their names.
fn find<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    let fields = values.as_object()?;
    if let Some(found) = fields.get(path) {
        return Some(found);
    }
    let ends = path.rmatch_indices('.').map(|(at, _)| at);
    ends.filter_map(|at| find(fields.get(&path[..at])?, &path[at + 1..])).next()
}

/// A source of variables, which tests replace.
#[async_trait]
pub trait Variables: Send + Sync {
    /// Returns the current values.
    fn sets(&self) -> VariableSets;
    /// Returns when the values or faults have changed since the last call.
    async fn changed(&self);
    /// Finds the values of these variables from now on, and no longer those of others. Providers that need no work have all
    /// of their values anyway.
    fn observe(&self, _used: &Used) {}
    /// Returns whether the values of observed variables are known, or known to be missing.
    fn is_ready(&self) -> bool {
        true
    }
    /// Waits for the values of observed variables, or until it is known that they are not available; a limited time.
    async fn ready(&self) {}
    /// Stops finding values, and releases what that required, such as the lease of a leader; for a limited time.
    async fn stop(&self) {}
    /// Returns why values of observed variables are missing or outdated.
    fn faults(&self) -> Vec<String> {
        Vec::new()
    }
    /// Returns the values that must not leave the host.
    fn secrets(&self) -> Vec<Secret> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dynamic_set_hides_the_context_provider_of_the_same_name() {
        let sets = VariableSets {
            context: json!({"env": {"A": "a"}, "host": {"os": {"name": "x"}, "a.b": 1}}).as_object().unwrap().clone(),
            dynamic: vec![DynamicSet {
                id: "env-0".into(),
                provider: "env".into(),
                values: json!({"A": "b"}),
                ..DynamicSet::default()
            }],
        };
        let texts: Vec<_> = sets.scopes().map(|scope| scope.get("A").unwrap().clone()).collect();
        assert_eq!(texts, [json!("a"), json!("b")]);
        let scope = sets.context();
        assert_eq!(scope.get("host.os.name"), Some(&json!("x")));
        assert_eq!(scope.get("host.a.b"), Some(&json!(1)));
        assert_eq!((scope.get("host.os.none"), scope.get("none.a"), scope.get("host.os.name.x")), (None, None, None));
    }
}
