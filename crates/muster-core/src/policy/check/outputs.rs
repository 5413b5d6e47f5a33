//! Outputs and their permissions.

use serde_json::{Map, Value};

use super::{kind_of, lists, object, text, values, variables};
use crate::output::Output;
use crate::policy::bootstrap;
use crate::policy::expand::expand_object;
use crate::policy::problem::{Problem, Problems, nearest};
use crate::secret_refs::join;
use crate::yaml;

/// Maximum length of the name of an output object, bytes.
const MAX_NAME: usize = 255;

/// Supported output types (EA §6.1). `file` and `otlp` are for the `host/metrics` inputs of muster-agent: a file on the host,
/// and a receiver of OTLP/HTTP.
pub const OUTPUT_TYPES: [&str; 6] = ["elasticsearch", "remote_elasticsearch", "logstash", "kafka", FILE, OTLP];

/// Type of outputs that connect to nothing, and need no hosts.
const FILE: &str = "file";
/// Type of outputs that are receivers of OTLP/HTTP, whose addresses are URLs.
const OTLP: &str = "otlp";

/// Fields of an output object (MG §2.5). What else agents know belongs in `config_yaml`.
pub const OUTPUT_FIELDS: [&str; 45] = [
    "agent_keys",
    "allow_edit",
    "api_key",
    "auth_type",
    "bootstrap",
    "broker_timeout",
    "ca_sha256",
    "ca_trusted_fingerprint",
    "client_id",
    "compression",
    "compression_level",
    "config_yaml",
    "connection_type",
    "description",
    "hash",
    "headers",
    "hosts",
    "is_internal",
    "is_preconfigured",
    "key",
    "kibana_url",
    "partition",
    "password",
    "preset",
    "proxy_disable",
    "proxy_headers",
    "proxy_id",
    "proxy_url",
    "random",
    "required_acks",
    "round_robin",
    "sasl",
    "secrets",
    "service_token",
    "shipper",
    "ssl",
    "sync_integrations",
    "sync_uninstalled_integrations",
    "timeout",
    "topic",
    "topics",
    "type",
    "username",
    "version",
    "write_to_logs_streams",
];

/// Returns whether outputs of that type connect to Elasticsearch, and therefore have permissions.
pub fn is_elasticsearch(kind: &str) -> bool {
    matches!(kind, "elasticsearch" | "remote_elasticsearch")
}

pub(super) fn check_all(outputs: &Value, path: &str, problems: &mut Problems) {
    for (name, output) in object(outputs, path, problems).into_iter().flatten() {
        let path = join(path, name);
        if name.trim().is_empty() {
            problems.add(path.as_str(), "an output needs a name");
        }
        match output {
            Value::Object(output) => check_one(output, &path, problems),
            other => problems.add(path, format!("must be an object, not {}", kind_of(other))),
        }
    }
}

fn check_one(output: &Map<String, Value>, path: &str, problems: &mut Problems) {
    if !output.contains_key("type") {
        problems.advise(join(path, "type"), "is missing", format!("one of {}", OUTPUT_TYPES.join(", ")));
    }
    if let Some(kind) = text(output, "type", path, problems).filter(|kind| !OUTPUT_TYPES.contains(kind)) {
        problems.unknown(join(path, "type"), "output type", kind, &OUTPUT_TYPES);
    }
    lists::check_ssl(output, path, problems);
    if let Some(block) = output.get(bootstrap::SECTION) {
        check_bootstrap(block, output, &join(path, bootstrap::SECTION), problems);
    }
    values::check_unit(output, path, problems);
    match output.get("hosts") {
        // Agents resolve variables themselves: `${ES_HOSTS:https://es:9200}`.
        Some(Value::String(host)) if !host.trim().is_empty() => {}
        Some(Value::Array(hosts)) if !hosts.is_empty() => check_hosts(hosts, &join(path, "hosts"), problems),
        Some(_) => problems.add(join(path, "hosts"), "must be a list of one or more addresses"),
        None if output.get("type").and_then(Value::as_str) == Some(FILE) => {}
        None => problems.advise(join(path, "hosts"), "is missing", "set a list of one or more addresses"),
    }
}

/// Checks the settings with which the server completes and replaces those of an output (AG103).
fn check_bootstrap(block: &Value, output: &Map<String, Value>, path: &str, problems: &mut Problems) {
    let Some(block) = object(block, path, problems) else { return };
    if output.get("type").and_then(Value::as_str).is_some_and(|kind| !is_elasticsearch(kind)) {
        problems.advise(path, "only outputs that connect to Elasticsearch have it", "remove it");
    }
    let known = |name: &str| bootstrap::FIELDS.contains(&name) || matches!(name, "ssl" | "secrets");
    for name in block.keys().filter(|name| !known(name)) {
        problems.unknown(join(path, name), "field", name, &bootstrap::FIELDS);
    }
    let ssl = block.get("ssl").and_then(|ssl| object(ssl, &join(path, "ssl"), problems));
    for name in ssl.into_iter().flat_map(Map::keys).filter(|name| !bootstrap::SSL_FIELDS.contains(&name.as_str())) {
        problems.unknown(join(&join(path, "ssl"), name), "field", name, &bootstrap::SSL_FIELDS);
    }
    lists::check_ssl(block, path, problems);
    match block.get("hosts").and_then(Value::as_array) {
        Some(hosts) if !hosts.is_empty() => check_hosts(hosts, &join(path, "hosts"), problems),
        // The block must be usable without the output.
        _ => problems.add(join(path, "hosts"), "must be a list of one or more addresses"),
    }
}

/// Checks an output object of the management API (MG §2.5). Stricter than for a configuration, in which variables are
/// allowed.
pub fn check_record(output: &Output) -> Problems {
    let mut problems = Problems::default();
    let Value::Object(fields) = &output.fields else {
        problems.add("fields", "must be an object");
        return problems;
    };
    // The id becomes the name of a field in policies, where agents expand dots.
    if output.id.as_str().contains('.') {
        problems.advise("id", "must not contain a dot: agents would interpret it as a path", "use `-` or `_`");
    } else {
        expand_object([(output.id.as_str().to_owned(), Value::Null)].into_iter().collect(), "id", &mut problems);
    }
    let mut fields = expand_object(fields.clone(), "", &mut problems);
    for name in fields.keys().filter(|name| !OUTPUT_FIELDS.contains(&name.as_str())) {
        let near = nearest(name, &OUTPUT_FIELDS).map(|near| format!("did you mean `{near}`?"));
        let remedy = near.unwrap_or_else(|| "settings that only agents know belong in `config_yaml`".into());
        problems.advise(name.as_str(), "unknown field of an output", remedy);
    }
    // Stored apart from the other fields, but checked together with them as in a configuration.
    fields.insert("type".into(), output.kind.as_str().into());
    check_one(&fields, "", &mut problems);
    if output.name.trim().is_empty()
        || output.name.len() > MAX_NAME
        || output.name.chars().any(crate::reported::is_deceptive)
    {
        problems.add("name", format!("must have 1 to {MAX_NAME} bytes and no control characters"));
    }
    for (index, host) in fields.get("hosts").and_then(Value::as_array).into_iter().flatten().enumerate() {
        check_address(&output.kind, host.as_str().unwrap_or_default(), &format!("hosts.{index}"), &mut problems);
    }
    match fields.get("config_yaml").filter(|text| !text.is_null()) {
        Some(Value::String(text)) => match yaml::read(text) {
            // Empty, or only comments.
            Ok(document) if document.value.is_null() => {}
            Ok(document) => check_more(document, &mut problems),
            Err(mut found) => problems.0.append(&mut inside("config_yaml", &mut found)),
        },
        Some(other) => problems.add("config_yaml", format!("must be a string, not {}", kind_of(other))),
        None => {}
    }
    problems
}

/// Checks the fields that `config_yaml` adds to the output.
fn check_more(document: yaml::Document, problems: &mut Problems) {
    let Value::Object(more) = document.value else {
        return problems.add("config_yaml", "must be a mapping");
    };
    let mut found = Problems::default();
    let more = expand_object(more, "", &mut found);
    variables::check_rendered(&Value::Object(more.clone()), "", &mut found);
    lists::check_ssl(&more, "", &mut found);
    found.locate(&document.places);
    problems.0.append(&mut inside("config_yaml", &mut found));
}

/// Converts problems of YAML inside a field to problems of the field, with the inner position and path in the reason.
fn inside(field: &str, found: &mut Problems) -> Vec<Problem> {
    let within = |problem: Problem| {
        let place = problem.place.map(|place| format!("line {}, column {}: ", place.line, place.column));
        let path = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
        Problem::new(field, format!("{}{path}{}", place.unwrap_or_default(), problem.reason), problem.remedy)
    };
    found.0.drain(..).map(within).collect()
}

fn check_address(kind: &str, host: &str, path: &str, problems: &mut Problems) {
    let is_url = host.starts_with("http://") || host.starts_with("https://");
    // Without a scheme, agents assume plain HTTP.
    // Empty addresses were reported above.
    let takes_urls = is_elasticsearch(kind) || kind == OTLP;
    if takes_urls && !is_url && !host.is_empty() {
        problems.advise(path, "must be a URL", format!("such as `https://{host}`"));
    }
    if !takes_urls && host.contains("://") {
        problems.advise(path, "must be HOST:PORT", "omit the scheme");
    }
}

/// Checks that every host is a non-empty string.
pub(super) fn check_hosts(hosts: &[Value], path: &str, problems: &mut Problems) {
    for (index, host) in hosts.iter().enumerate() {
        if host.as_str().is_none_or(|host| host.trim().is_empty()) {
            problems.add(join(path, &index.to_string()), "must be an address");
        }
    }
}

pub(super) fn check_permissions(permissions: &Value, path: &str, problems: &mut Problems) {
    for (output, roles) in object(permissions, path, problems).into_iter().flatten() {
        let path = join(path, output);
        for (role, descriptor) in object(roles, &path, problems).into_iter().flatten() {
            object(descriptor, &join(&path, role), problems);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::id::OutputId;
    use crate::time::Timestamp;

    fn problems(outputs: &Value) -> Vec<String> {
        let mut problems = Problems::default();
        check_all(outputs, "config.outputs", &mut problems);
        problems.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ea105_unknown_types_are_rejected() {
        let hosts = json!(["h:1"]);
        for kind in OUTPUT_TYPES {
            assert!(problems(&json!({"o": {"type": kind, "hosts": hosts}})).is_empty(), "{kind}");
        }
        let found =
            problems(&json!({"o": {"type": "elasticsaerch", "hosts": hosts}, "p": {"type": "redis", "hosts": hosts}}));
        let near = "config.outputs.o.type: unknown output type `elasticsaerch`; did you mean `elasticsearch`?";
        assert_eq!(found[0], near);
        assert!(found[1].contains("known: elasticsearch, remote_elasticsearch, logstash, kafka, file, otlp"));
    }

    #[test]
    fn an_output_that_is_a_file_needs_no_hosts() {
        assert_eq!(problems(&json!({"o": {"type": "file"}})), Vec::<String>::new());
        let found = problems(&json!({"o": {"type": "file", "hosts": []}}));
        assert_eq!(found, ["config.outputs.o.hosts: must be a list of one or more addresses"]);
    }

    #[test]
    fn output_objects_are_checked_strictly() {
        let record = |kind: &str, fields: Value| Output {
            id: OutputId::trusted("o"),
            space: crate::id::SpaceId::default(),
            name: "o".into(),
            kind: kind.into(),
            is_default: false,
            is_default_monitoring: false,
            fields,
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        };
        let found = |output: &Output| check_record(output).0.iter().map(ToString::to_string).collect::<Vec<_>>();
        let elastic = record("elasticsearch", json!({"hosts": ["es:9200"], "config_yaml": "a: 1\na: 2\n"}));
        let expected = [
            "hosts.0: must be a URL; such as `https://es:9200`",
            "config_yaml: line 2, column 1: duplicate key `a`; remove one of them",
        ];
        assert_eq!(found(&elastic), expected);
        for (text, expected_prefix) in [
            ("# nothing but a comment\n", None),
            ("   ", None),
            (
                "ssl.enabled: true\nssl: {enabled: true}",
                Some("config_yaml: line 2, column 7: ssl.enabled: is set by both"),
            ),
            ("password: 0471", Some("config_yaml: line 1, column 11: password: agents read the number `0471`")),
            ("path: ${env.X", Some("config_yaml: line 1, column 1: path: the variable `${env.X` is not closed")),
        ] {
            let found = found(&record("elasticsearch", json!({"hosts": ["https://es:9200"], "config_yaml": text})));
            assert_eq!(found.len(), usize::from(expected_prefix.is_some()), "{text}: {found:?}");
            assert!(expected_prefix.is_none_or(|expected_prefix| found[0].starts_with(expected_prefix)), "{found:?}");
        }
        let receiver = |host: &str| found(&record("otlp", json!({"hosts": [host], "headers": {"Authorization": "x"}})));
        assert_eq!(receiver("https://collector:4318/otlp"), Vec::<String>::new());
        assert!(receiver("collector:4318")[0].starts_with("hosts.0: must be a URL"));
        let named = Output { id: OutputId::trusted("es.main"), ..record("kafka", json!({"hosts": ["k:1"]})) };
        assert_eq!(found(&named), ["id: must not contain a dot: agents would interpret it as a path; use `-` or `_`"]);
        let logstash = record("logstash", json!({"hosts": ["https://l:5044"], "config_yaml": "[]"}));
        assert_eq!(found(&logstash), ["hosts.0: must be HOST:PORT; omit the scheme", "config_yaml: must be a mapping"]);
    }

    #[test]
    fn bootstrap_settings_are_complete_and_have_known_fields() {
        let with = |kind: &str, block: Value| {
            problems(&json!({"o": {"type": kind, "hosts": ["https://es:9200"], "bootstrap": block}}))
        };
        let whole = json!({"hosts": ["https://es:9200"], "service_token": "t", "ssl": {"verification_mode": "none"}});
        assert_eq!(with("elasticsearch", whole.clone()), Vec::<String>::new());
        assert!(with("kafka", whole)[0].starts_with("config.outputs.o.bootstrap: only outputs that connect to"));
        let path = "config.outputs.o.bootstrap";
        let found = with("elasticsearch", json!({"host": "h", "service_token_path": "/t", "ssl": {"cert": "c"}}));
        assert_eq!(found[0], format!("{path}.host: unknown field `host`; did you mean `hosts`?"));
        assert!(found[1].starts_with(&format!("{path}.service_token_path: unknown field")), "{found:?}");
        assert!(found[2].starts_with(&format!("{path}.ssl.cert: unknown field `cert`")), "{found:?}");
        assert_eq!(found[3], format!("{path}.hosts: must be a list of one or more addresses"));
        assert!(with("elasticsearch", json!([]))[0].contains("must be an object"));
    }

    #[test]
    fn types_and_hosts_are_required() {
        let found =
            problems(&json!({"o": {"hosts": []}, "p": 1, "q": {"type": "kafka", "hosts": [1]}, "r": {"type": ""}}));
        let expected = [
            "config.outputs.o.type: is missing; one of elasticsearch, remote_elasticsearch, logstash, kafka, file, otlp",
            "config.outputs.o.hosts: must be a list of one or more addresses",
            "config.outputs.p: must be an object, not a number",
            "config.outputs.q.hosts.0: must be an address",
            "config.outputs.r.type: must not be empty",
            "config.outputs.r.hosts: is missing; set a list of one or more addresses",
        ];
        assert_eq!(found, expected);
    }
}
