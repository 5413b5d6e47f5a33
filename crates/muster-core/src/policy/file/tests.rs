use serde_json::json;

use super::*;
use crate::policy::check;
use crate::policy::expand::expand;

/// All problems of a file and its configuration, as `line:column: path: reason; remedy`.
fn problems(text: &str) -> Vec<String> {
    let mut problems = match read(text) {
        Ok((file, places)) => {
            let mut problems = Problems::default();
            if let Some(Value::Object(config)) = &file.config {
                let config = expand(config, check::ROOT, &mut problems);
                problems.0.extend(check::check(&Value::Object(config), &|_| true).0);
            }
            problems.locate(&places);
            problems
        }
        Err(problems) => problems,
    };
    problems.0.sort_by_key(|problem| problem.place.map(|place| (place.line, place.column)));
    let expected = |problem: &Problem| match problem.place {
        Some(place) => format!("{place}: {problem}"),
        None => problem.to_string(),
    };
    problems.0.iter().map(expected).collect()
}

/// The only problem of a file.
fn problem(text: &str) -> String {
    let mut found = problems(text);
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    found.remove(0)
}

fn config(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("  {line}\n")).collect();
    format!("name: web\nconfig:\n{lines}")
}

fn expanded(text: &str) -> Value {
    let (file, _) = read(&config(text)).unwrap();
    let mut problems = Problems::default();
    let expanded = expand(file.config.unwrap().as_object().unwrap(), check::ROOT, &mut problems);
    assert_eq!(problems.to_string(), "", "{text}");
    Value::Object(expanded)
}

#[test]
fn a_complete_file_is_parsed() {
    let text = "\
name: web
description: Servers of the shop
namespace: prod
tags: [shop, web]
settings:
  inactivity_timeout: 3600
  unenroll_timeout: null
  monitoring_enabled: [logs]
config:
  inputs:
    - type: filestream
      streams:
        - paths: ['/var/log/*.log']
";
    let (file, places) = read(text).unwrap();
    assert_eq!((file.name.as_str(), file.namespace.as_str(), file.tags.len()), ("web", "prod", 2));
    let settings = json!({"inactivity_timeout": 3600, "unenroll_timeout": null, "monitoring_enabled": ["logs"]});
    assert_eq!(Value::Object(file.settings), settings);
    assert_eq!(file.config.unwrap()["inputs"][0]["type"], "filestream");
    assert!(places.has("settings.inactivity_timeout"));
}

#[test]
fn absent_fields_have_defaults() {
    for text in ["name: web\n", "name: web\ndescription:\nnamespace: ~\ntags:\nsettings:\n", "name: web\ntags: []\n"] {
        let (file, _) = read(text).unwrap();
        let expected = PolicyFile { name: "web".into(), namespace: "default".into(), ..PolicyFile::default() };
        assert_eq!(file, expected, "{text}");
    }
}

#[test]
fn dotted_keys_are_expanded_like_agents_expand_them() {
    for (text, meaning) in [
        ("agent.logging.level: debug", json!({"agent": {"logging": {"level": "debug"}}})),
        ("agent:\n  logging.level: debug", json!({"agent": {"logging": {"level": "debug"}}})),
        (
            "agent.monitoring: {enabled: true}\nagent.monitoring.logs: true",
            json!({"agent": {"monitoring": {"enabled": true, "logs": true}}}),
        ),
        (
            "outputs.default:\n  type: kafka\n  ssl.verification_mode: none\n  ssl: {enabled: true}",
            json!({"outputs": {"default": {"type": "kafka", "ssl": {"verification_mode": "none", "enabled": true}}}}),
        ),
        (
            "inputs:\n  - type: x\n    data_stream.namespace: shop\n    data_stream.type: logs",
            json!({"inputs": [{"type": "x", "data_stream": {"namespace": "shop", "type": "logs"}}]}),
        ),
        (
            "inputs:\n  - type: x\n    streams:\n      - data_stream.dataset: system.cpu",
            json!({"inputs": [{"type": "x", "streams": [{"data_stream": {"dataset": "system.cpu"}}]}]}),
        ),
        (
            "inputs:\n  - processors:\n      - add_fields: {fields.env: prod, target: ''}",
            json!({"inputs": [{"processors": [{"add_fields": {"fields": {"env": "prod"}, "target": ""}}]}]}),
        ),
        (
            "inputs:\n  - processors:\n      - drop_event.when.equals.a.b: 1",
            json!({"inputs": [{"processors": [{"drop_event": {"when": {"equals": {"a": {"b": 1}}}}}]}]}),
        ),
        ("fleet.ssl.verification_mode: full", json!({"fleet": {"ssl": {"verification_mode": "full"}}})),
        ("'agent.features.fqdn.enabled': true", json!({"agent": {"features": {"fqdn": {"enabled": true}}}})),
        ("receivers: {otlp/1.2: {protocols.grpc: null}}", json!({"receivers": {"otlp/1.2": {"protocols.grpc": null}}})),
        (
            "service: {telemetry: {resource: {service.name: web}}}",
            json!({"service": {"telemetry": {"resource": {"service.name": "web"}}}}),
        ),
    ] {
        assert_eq!(expanded(text), meaning, "{text}");
    }
}

#[test]
fn conflicting_dotted_keys_are_reported_with_positions() {
    let twice = "is set by both a dotted and a nested key; keep one of them";
    for (text, place) in [
        ("agent: {logging: {level: info}}\nagent.logging.level: debug", "4:3: config.agent.logging.level"),
        ("agent.logging.level: debug\nagent: {logging: {level: info}}", "4:21: config.agent.logging.level"),
        ("agent:\n  logging: {level: info}\n  logging.level: info", "5:5: config.agent.logging.level"),
        ("agent.x: debug\nagent.x.level: debug", "4:3: config.agent.x.level"),
        ("agent.list: [a]\nagent: {list: [b]}", "4:11: config.agent.list"),
    ] {
        assert_eq!(problem(&config(text)), format!("{place}: {twice}"), "{text}");
    }
    let input = "inputs:\n  - type: x\n    data_stream.namespace: shop\n    data_stream: {namespace: shop2}";
    assert_eq!(problem(&config(input)), format!("6:21: config.inputs.0.data_stream.namespace: {twice}"));
    let output =
        "outputs:\n  default:\n    type: kafka\n    hosts: [h]\n    ssl.enabled: true\n    ssl:\n      enabled: false";
    assert_eq!(problem(&config(output)), format!("9:9: config.outputs.default.ssl.enabled: {twice}"));
}

#[test]
fn invalid_keys_are_reported_with_positions() {
    for (text, expected) in [
        ("agent: {'0': a}", "3:11: config.agent.0: agents interpret `0` in a key as a list index"),
        ("agent:\n  processors.0.a: 1", "4:5: config.agent.processors.0.a: agents interpret `0` in a key"),
        ("agent: {a..b: 1}", "3:11: config.agent.a..b: the key has an empty part"),
        ("agent.: 1", "3:3: config.agent.: the key has an empty part"),
        ("receivers.otlp: {}", "3:3: config.receivers.otlp: dotted keys are not supported in sections of the"),
    ] {
        let found = problems(&config(text));
        assert!(found[0].starts_with(expected), "{text}: {found:?}");
    }
}

#[test]
fn providers_are_rejected_in_every_notation() {
    for text in
        ["providers: {env: {enabled: false}}", "providers.kubernetes: {node: x}", "providers.docker.enabled: true"]
    {
        let expected = problem(&config(text));
        assert!(expected.starts_with("3:3: config.providers: agents read providers only from their own"), "{expected}");
    }
}

#[test]
fn ambiguous_scalars_are_rejected() {
    for (line, expected) in [
        (
            "mode: 0600",
            "3:9: config.mode: agents read the number `0600` as 384; quote it if it is a string: \"0600\"; else write `384`",
        ),
        ("password: 0471", "3:13: config.password: agents read the number `0471`"),
        ("version: 1.10", "3:12: config.version: agents read the number `1.10` as 1.1;"),
        (
            "id: 12345678901234567890",
            "agents cannot represent the number `12345678901234567890`; quote it if it is a string: \"12345678901234567890\"",
        ),
        ("id: 9007199254740993", "agents cannot represent"),
        (
            "enabled: yes",
            "3:12: config.enabled: agents read `yes` as the boolean true, but YAML 1.2 as a string; write `true`, or quote it: \"yes\"",
        ),
        ("enabled: off", "write `false`, or quote it: \"off\""),
        ("country: NO", "write `false`, or quote it: \"NO\""),
        ("size: 1_000", "else write `1000`"),
        ("mask: 0x1F", "else write `31`"),
        ("rate: 1e3", "else write `1000`"),
        ("rate: .5", "else write `0.5`"),
        ("limit: .inf", "agents cannot represent"),
        ("list: [1, 010]", "3:13: config.list.1: agents read the number `010`"),
        ("on: push", "3:3: config.on: a key must be a string, but agents read `on` as a boolean; quote it: \"on\""),
        ("80: http", "3:3: config.80: a key must be a string, but agents read `80` as a number"),
    ] {
        let found = problem(&config(line));
        assert!(found.contains(expected), "{line}: {found}");
    }
    assert!(problem("name: 0815\n").starts_with("1:7: name: agents read the number `0815`"));
    assert_eq!(
        problem("name: 5\n"),
        "1:7: name: must be a string, not a number; quote it: \"5\"".replace("1:7", "1:1")
    );
}

#[test]
fn null_settings_are_kept_as_null() {
    for setting in SETTINGS.map(|(name, _)| name) {
        for null in ["null", "~", ""] {
            let (file, _) = read(&format!("name: web\nsettings:\n  {setting}: {null}\n")).unwrap();
            assert_eq!(file.settings.get(setting), Some(&Value::Null), "{setting}: {null}");
        }
    }
}

#[test]
fn settings_of_the_wrong_type_are_rejected_with_a_remedy() {
    for (line, expected) in [
        (
            "unenroll_timeout: 1h",
            "3:3: settings.unenroll_timeout: must be a number of seconds, not the string `1h`; write `3600`",
        ),
        ("inactivity_timeout: 2 weeks", "not the string `2 weeks`; write `1209600`"),
        ("inactivity_timeout: 1h30m", "not the string `1h30m`; write `5400`"),
        ("inactivity_timeout: soon", "must be a number of seconds, not the string `soon`; such as `3600` for an hour"),
        ("inactivity_timeout: '60'", "must be a number of seconds, not the string `60`; write `60`, without quotes"),
        ("inactivity_timeout: -5", "must not be negative: -5; such as"),
        ("inactivity_timeout: 1.5", "must be a whole number of seconds, not 1.5"),
        ("inactivity_timeout: [60]", "must be a number of seconds, not a list"),
        (
            "is_protected: 'yes'",
            "settings.is_protected: must be a boolean, not a string; write `true` or `false`, without quotes",
        ),
        ("is_managed: 1", "must be a boolean, not a number"),
        (
            "unenroll_timeot: 5",
            "3:3: settings.unenroll_timeot: unknown setting `unenroll_timeot`; did you mean `unenroll_timeout`?",
        ),
        ("zzz: 5", "unknown setting `zzz`; known: is_managed, "),
    ] {
        let found = problem(&format!("name: web\nsettings:\n  {line}\n"));
        assert!(found.contains(expected), "{line}: {found}");
    }
}

#[test]
fn settings_in_the_wrong_place_are_rejected_with_the_right_one() {
    let found = problem("name: web\nsettings.unenroll_timeout: 5\n");
    let expected = "2:1: settings.unenroll_timeout: dotted keys are allowed only below `config`; write `settings: {unenroll_timeout: …}`";
    assert!(found.contains(expected), "{found}");
    let found = problem("name: web\nunenroll_timeout: 5\n");
    assert!(
        found.contains("2:1: unenroll_timeout: unknown field `unenroll_timeout`; move it below `settings:`"),
        "{found}"
    );
    let found = problem("name: web\nconfig: {}\nagent:\n  logging.level: debug\n");
    assert!(found.contains("3:1: agent: unknown field `agent`; move it below `config:`"), "{found}");
}

#[test]
fn empty_and_other_files_are_rejected_with_a_clear_message() {
    for (text, expected) in [
        ("", "the file is empty; a policy file has a `name` and a `config`"),
        ("# nothing\n", "the file is empty"),
        ("- a\n", "a policy file must be an object, not a list"),
        ("just words\n", "a policy file must be an object, not a"),
        ("name:\nconfig: {}\n", "1:1: name: is empty; add a name"),
        ("name: '  '\n", "1:1: name: is empty"),
        ("config: {}\n", "name: is missing; add a name"),
        ("name: web\nconfig:\n", "2:1: config: is empty; write `config: {}` for an empty configuration, or remove"),
        ("name: web\nconfig: []\n", "2:1: config: must be an object, not a list"),
        ("name: web\ntags: front\n", "2:1: tags: must be a list of strings, not a"),
        ("name: web\ntags: [a, 5]\n", "2:11: tags.1: must be a string, not a number; quote it: \"5\""),
        ("name: web\nsettings: []\n", "2:1: settings: must be an object, not a list"),
        ("name: web\nsetings: {}\n", "2:1: setings: unknown field `setings`; did you mean `settings`?"),
        (
            "outputs: {}\ninputs: []\n",
            "1:1: outputs: `outputs` at the top: this is an agent's configuration, not a policy file; start with `name: NAME`",
        ),
        ("# x\nagent.logging.level: info\ninputs: []\n", "2:1: agent.logging.level: `agent.logging.level` at the top"),
        ("name: web\ninputs: []\n", "2:1: inputs: `inputs` at the top: this is an agent's configuration"),
    ] {
        let found = problem(text);
        assert!(found.contains(expected), "{text}: {found}");
    }
}

#[test]
fn configurations_that_agents_reject_are_reported_with_positions() {
    let input = |lines: &str| {
        let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
        config(&format!("inputs:\n  - type: filestream\n{lines}"))
    };
    for (lines, expected) in [
        (
            "processors:\n  add_tags: {tags: [a]}",
            "5:7: config.inputs.0.processors: must be a list, not an object; put a hyphen",
        ),
        (
            "streams:\n  - processors:\n      add_tags: {tags: [a]}",
            "6:11: config.inputs.0.streams.0.processors: must be a list, not an object",
        ),
        (
            "processors:\n  - add_tags:\n    tags: [a]",
            "config.inputs.0.processors.0: must have one processor, not 2 (add_tags, tags)",
        ),
        ("processors: [add_tags]", "config.inputs.0.processors.0: must be an object, not a"),
        ("streams:\n  id: a", "5:7: config.inputs.0.streams: must be a list, not an object"),
        ("streams: a", "config.inputs.0.streams: must be a list, not a"),
        ("paths: {a: b}", "config.inputs.0.paths: must be a list, not an object"),
        (
            "streams:\n  - paths:\n      /var/log/*.log: null",
            "config.inputs.0.streams.0.paths: must be a list, not an object",
        ),
        ("parsers.ndjson.target: ''", "5:7: config.inputs.0.parsers: must be a list, not an object"),
        (
            "condition: env_input_enabled = 'true'",
            "5:7: config.inputs.0.condition: invalid condition: `=` is not an operator",
        ),
        (
            "condition: ${host.platform == 'linux'",
            "config.inputs.0.condition: invalid condition: the variable that begins at column 1",
        ),
        ("condition:", "config.inputs.0.condition: must be a string with a condition, not null"),
        ("condition: host.platform == 'linux'", "for a variable, write `${host.platform}`"),
        ("streams:\n  - condition: 'a and'", "config.inputs.0.streams.0.condition: invalid condition"),
        ("paths: ['${host.name']", "5:15: config.inputs.0.paths.0: the variable `${host.name` is not closed with `}`"),
        (
            "name: ${kubernetes.pod.ip:1234",
            "config.inputs.0.name: the variable `${kubernetes.pod.ip:1234` is not closed",
        ),
        ("name: ${a=b}", "unexpected character `=`"),
    ] {
        let found = problem(&input(lines));
        assert!(found.contains(expected), "{lines}: {found}");
    }
    let output = config("outputs:\n  default: {type: kafka, hosts: ['${H'], ssl: {certificate_authorities: {a: b}}}");
    assert_eq!(problems(&output).len(), 2);
    assert_eq!(problems(&config("agent.logging.level: ${LEVEL")).len(), 1);
    let process = config("inputs:\n  - {type: process, command: /bin/sh, args: ['-c', 'echo ${X%%y} ${']}");
    assert_eq!(problems(&process), Vec::<String>::new());
}

#[test]
fn the_file_of_a_policy_is_read_as_the_same_policy() {
    let policy = Policy {
        description: "Web servers".into(),
        namespace: "shop".into(),
        is_default: true,
        inactivity_timeout: 60,
        config: json!({"inputs": [{"id": "a", "enabled": "yes"}]}),
        fields: json!({"tags": ["linux"], "is_protected": true, "monitoring_enabled": ["logs"], "status": "active"}),
        ..crate::testing::policy("web", crate::testing::at(1))
    };
    let fields: Map<String, Value> =
        fields_of(&policy).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let (file, _) = read(&Value::Object(fields).to_string()).unwrap();
    assert_eq!(
        (file.name.as_str(), file.description.as_str(), file.namespace.as_str()),
        ("web", "Web servers", "shop")
    );
    assert_eq!((file.tags, file.config), (vec!["linux".to_owned()], Some(policy.config)));
    let expected = json!({
        "is_default": true, "inactivity_timeout": 60, "is_protected": true, "monitoring_enabled": ["logs"]
    });
    assert_eq!(Value::Object(file.settings), expected);
}

#[test]
fn a_completed_file_resets_what_it_does_not_contain() {
    let (mut file, _) = read("name: web\nsettings: {is_protected: true}\n").unwrap();
    file.complete();
    assert_eq!((file.settings.len(), &file.config), (setting_names().count(), &Some(json!({}))));
    assert_eq!((&file.settings["is_protected"], &file.settings["is_default"]), (&json!(true), &Value::Null));
}
