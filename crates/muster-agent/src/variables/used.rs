//! The variables that a policy uses. Providers that cost something are asked only for these.

use std::collections::BTreeSet;

use serde_json::Value;

use super::template::Template;
use crate::model::Document;
use crate::model::process::PROCESS;

/// Names of variables, with their providers: `host.name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used(BTreeSet<String>);

impl Used {
    /// Returns the variables in the inputs and outputs of a policy.
    pub fn of(document: &Document) -> Self {
        let mut used = Self::default();
        // Programs run as written.
        document.inputs.iter().filter(|input| input["type"] != PROCESS).for_each(|input| used.add(input));
        document.outputs.values().for_each(|output| used.add(output));
        used
    }

    /// Returns the variables of both.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.extend(other.0.iter().cloned());
        self
    }

    /// Returns the names of a provider's variables, without the provider.
    pub fn of_provider<'a>(&'a self, provider: &'a str) -> impl Iterator<Item = &'a str> {
        let with_dot = move |name: &'a String| name.strip_prefix(provider)?.strip_prefix('.');
        self.0.iter().filter_map(with_dot)
    }

    fn add(&mut self, value: &Value) {
        match value {
            // Variables of conditions are written in the same way. What cannot be parsed is reported when it is rendered.
            Value::String(text) if text.contains("${") => {
                // All alternatives count, not only the first: which one has a value is known only later.
                if let Ok(template) = Template::parse(text) {
                    self.0.extend(template.names().map(str::to_owned));
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(fields) => fields.values().for_each(|field| self.add(field)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_found_in_texts_and_conditions_but_not_in_programs() {
        let document = Document {
            inputs: vec![
                json!({"type": "log", "streams": [{"condition": "${docker.container.name} == 'web' and ${x|local.y}"}]}),
                json!({"type": "process", "args": ["${kubernetes.pod.name}"]}),
            ],
            outputs: json!({"default": {"key": "${kubernetes_secrets.a.b.c}"}}).as_object().unwrap().clone(),
            ..Document::default()
        };
        let used = Used::of(&document);
        let names = |provider| used.of_provider(provider).collect::<Vec<_>>();
        assert_eq!(names("docker"), ["container.name"]);
        assert_eq!((names("env"), names("local")), (vec!["x"], vec!["y"]));
        assert_eq!(names("kubernetes_secrets"), ["a.b.c"]);
        assert!(names("kubernetes").is_empty(), "{used:?}");
    }
}
