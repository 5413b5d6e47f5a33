//! Policy files as people write them, from the file to what agents get or to the message about it.

use serde_json::{Value, json};

use crate::world::{fails, file, json, run};

/// What comes of a file.
#[derive(Clone, Debug)]
enum Outcome {
    /// Agents get these values at these JSON pointers.
    Given(Vec<(&'static str, Value)>),
    /// It is refused, at this place and with this part of a message.
    Refused(&'static str, &'static str),
}

use Outcome::{Given, Refused};

/// A configuration as it stands under `config:`, and what comes of it.
type Row = (&'static str, Outcome);

fn rows() -> Vec<Row> {
    vec![
        (
            "outputs.default.type: kafka\noutputs.default.hosts: [k:9092]\noutputs.default.ssl.verification_mode: none\n\
             agent.monitoring.enabled: false\nagent: {download.sourceURI: \"https://mirror.example/\"}",
            Given(vec![
                ("/outputs/default/ssl/verification_mode", json!("none")),
                ("/outputs/default/ssl.verification_mode", Value::Null),
                ("/agent/download/sourceURI", json!("https://mirror.example/")),
                ("/agent/monitoring/enabled", json!(false)),
            ]),
        ),
        (
            "outputs: {default: {type: kafka, hosts: [\"k:9092\"]}}\ninputs:\n  - type: system/metrics\n    data_stream.namespace: shop\n    streams:\n\
             \x20     - metricsets: [cpu]\n        data_stream.dataset: system.cpu\n        data_stream: {type: metrics}",
            Given(vec![
                ("/inputs/0/data_stream/namespace", json!("shop")),
                ("/inputs/0/streams/0/data_stream", json!({"dataset": "system.cpu", "type": "metrics"})),
            ]),
        ),
        (
            "exporters: {\"otlp/a\": {sending_queue.enabled: true}}\nservice: {pipelines: {logs: {exporters: [\"otlp/a\"]}}}",
            Given(vec![("/exporters/otlp~1a/sending_queue.enabled", json!(true))]),
        ),
        (
            "agent.monitoring: {traces: true}\nagent:\n  monitoring.traces: false",
            Refused("5:5: config.agent.monitoring.traces", "both a dotted and a nested key"),
        ),
        ("agent.limits: {go_max_procs: 02}", Refused("3:32: config.agent.limits.go_max_procs", "`02`")),
        (
            "inputs:\n  - {type: filestream, id: a, tags: [web, On, 0x10]}",
            Refused("4:45: config.inputs.0.tags.1", "\"On\""),
        ),
        (
            "outputs: {default: {type: kafka, hosts: [\"k:9092\"]}}\ninputs:\n  - {type: filestream, use_output: archive}",
            Refused("config.inputs.0.use_output", "archive"),
        ),
        (
            "inputs:\n  type: filestream\n  paths: [/var/log/syslog]",
            Refused("3:3: config.inputs", "must be a list, not an object"),
        ),
        (
            "inputs:\n  - type: filestream\n    condition: ${host.platform} in ['linux'",
            Refused("5:7: config.inputs.0.condition", "invalid condition"),
        ),
        (
            "outputs:\n  default:\n    type: kafka\n    hosts: [\"${env.BROKER|'k:9092'\"]",
            Refused("config.outputs.default.hosts.0", "is not closed"),
        ),
    ]
}

/// What is wrong with what came of a row; `None`: it is as it should be.
fn fault(number: usize, (config, outcome): Row) -> Option<String> {
    let name = format!("written {number}");
    let lines: String = config.lines().map(|line| format!("  {line}\n")).collect();
    let (_directory, path) = file("written.yml", &format!("name: {name}\nconfig:\n{lines}"));
    let apply = ["policy", "apply", "-f", &path];
    match outcome {
        Given(values) => {
            let ran = run(&apply);
            if ran.code != 0 {
                return Some(format!("{config}\nis refused: {}", ran.err));
            }
            let full = json(&["policy", "show", &name, "--full"]);
            let wrong = values.iter().find(|(at, value)| full.pointer(at).unwrap_or(&Value::Null) != value)?;
            Some(format!("{config}\n{} is not {}: {full}", wrong.0, wrong.1))
        }
        Refused(place, part) => {
            let ran = run(&apply);
            let right = ran.code == 2
                && ran.err.lines().any(|line| line.contains(&format!("{place}: ")) && line.contains(part));
            (!right).then(|| format!("{config}\n{}: {}{}", ran.code, ran.out, ran.err))
        }
    }
}

#[test]
fn ambiguous_policies_are_rejected_at_their_position() {
    let faults: Vec<_> = rows().into_iter().enumerate().filter_map(|(number, row)| fault(number, row)).collect();
    assert!(faults.is_empty(), "{} rows: {faults:#?}", faults.len());
}

#[test]
fn invalid_settings_are_reported_with_their_line() {
    let apply = |settings: &str| file("units.yml", &format!("name: units\nsettings:\n{settings}"));
    for (line, part) in [
        ("  inactivity_timeout: 1d12h\n", "write `129600`"),
        ("  unenroll_timeout: 15 min\n", "write `900`"),
        ("  unenroll_timeout: 60s\n", "write `60`"),
    ] {
        let (_directory, path) = apply(line);
        let told = fails(2, &["policy", "apply", "-f", &path]);
        assert!(told.contains(&format!("{path}:3:3: settings.")) && told.contains(part), "{told}");
    }
}
