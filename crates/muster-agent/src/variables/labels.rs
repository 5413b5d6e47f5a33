//! Labels and annotations, whose names may contain dots.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Maximum length of a value, in bytes. Longer ones are left out: they are annotations with whole documents, which would be
/// kept for each container.
const VALUE_MAX: usize = 1024;

/// Returns the labels under their own names, and under names with underscores in place of dots, as in events.
pub fn with_aliases(labels: BTreeMap<String, String>) -> Value {
    let mut all = dedotted(&labels);
    all.extend(
        labels.into_iter().filter(|(_, value)| value.len() <= VALUE_MAX).map(|(name, value)| (name, value.into())),
    );
    all.into()
}

/// Returns the labels for events: in documents of Elasticsearch, a name with dots would be a path.
pub fn dedotted(labels: &BTreeMap<String, String>) -> Map<String, Value> {
    let short = labels.iter().filter(|(_, value)| value.len() <= VALUE_MAX);
    short.map(|(name, value)| (name.replace('.', "_"), value.clone().into())).collect()
}
