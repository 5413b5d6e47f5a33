//! OpenTelemetry components and the pipelines that connect them.

use serde_json::{Map, Value};

use super::{ROOT, kind_of, list, object};
use crate::policy::problem::Problems;
use crate::secret_refs::join;

/// Checks that the settings of every component are an object or `null`.
pub(super) fn check_components(components: &Value, path: &str, problems: &mut Problems) {
    for (name, component) in object(components, path, problems).into_iter().flatten() {
        // The settings themselves are defined by the collector's components and not known here.
        object(component, &join(path, name), problems);
    }
}

/// Checks that pipelines refer to existing components. Connectors can be receivers and exporters.
pub(super) fn check_pipelines(config: &Map<String, Value>, problems: &mut Problems) {
    let Some(service) = config.get("service").and_then(Value::as_object) else { return };
    let path = join(ROOT, "service");
    if let Some(extensions) = service.get("extensions") {
        check_names(config, extensions, &["extensions"], &join(&path, "extensions"), problems);
    }
    let path = join(&path, "pipelines");
    let pipelines = service.get("pipelines").and_then(|pipelines| object(pipelines, &path, problems));
    for (name, pipeline) in pipelines.into_iter().flatten() {
        let path = join(&path, name);
        for (role, names) in object(pipeline, &path, problems).into_iter().flatten() {
            let path = join(&path, role);
            match role.as_str() {
                "receivers" => check_names(config, names, &["receivers", "connectors"], &path, problems),
                "exporters" => check_names(config, names, &["exporters", "connectors"], &path, problems),
                "processors" => check_names(config, names, &["processors"], &path, problems),
                unknown => {
                    let known = ["receivers", "processors", "exporters"];
                    problems.unknown(path.clone(), "pipeline section", unknown, &known);
                }
            }
        }
    }
}

fn check_names(config: &Map<String, Value>, names: &Value, sections: &[&str], path: &str, problems: &mut Problems) {
    // Sections are optional, so a missing one defines no components.
    let known: Vec<&str> = sections
        .iter()
        .filter_map(|section| config.get(*section)?.as_object())
        .flat_map(|components| components.keys().map(String::as_str))
        .collect();
    for (index, name) in list(names, path, problems).iter().enumerate() {
        let path = join(path, &index.to_string());
        match name.as_str() {
            Some(name) if known.contains(&name) => {}
            Some(name) => problems.unknown(path, "component", name, &known),
            None => problems.add(path, format!("must be a string, not {}", kind_of(name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pipelines_must_refer_to_existing_components() {
        let config = json!({
            "receivers": {"otlp": {}}, "exporters": {"debug": null}, "connectors": {"count": {}},
            "service": {"extensions": ["health"], "pipelines": {
                "logs": {"receivers": ["otpl", "count"], "exporters": ["debug", "count", 5], "sinks": []}}}
        });
        let mut problems = Problems::default();
        check_pipelines(config.as_object().unwrap(), &mut problems);
        let found: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        let expected = [
            "config.service.extensions.0: unknown component `health`; none is defined",
            "config.service.pipelines.logs.exporters.2: must be a string, not a number",
            "config.service.pipelines.logs.receivers.0: unknown component `otpl`; did you mean `otlp`?",
            "config.service.pipelines.logs.sinks: unknown pipeline section `sinks`; known: receivers, processors, exporters",
        ];
        assert_eq!(found, expected);
    }
}
