use camino::Utf8PathBuf;

use super::*;
use crate::model::capabilities::Capabilities;
use crate::model::metrics::Sink;
use crate::model::specification::Specification;
use crate::state::Enrollment;
use crate::variables::DynamicSet;

/// A catalog with the types `fake` (alias `old`) and `isolated`, whose program is `/bin/sh`.
fn catalog(rules: &str) -> Catalog {
    let text = format!(
        "version: 2\ninputs:\n- name: fake\n  aliases: [old]\n  platforms: &p [{platform}]\n  outputs: &o [elasticsearch]\n  \
         command: &c\n    args: [\"-x\", \"${{env.X|'y'}}\"]\n- name: isolated\n  platforms: *p\n  outputs: *o\n  command: *c\n  \
         isolate_units: true\n- name: elsewhere\n  platforms: [none/none]\n  outputs: *o\n  command: *c\n- name: prevented\n  \
         platforms: *p\n  outputs: *o\n  command: *c\n  runtime:\n    preventions:\n    - condition: ${{user.root}} == true\n      \
         message: not as root\n- name: service\n  platforms: *p\n  outputs: *o\n  service: {{cport: 1}}\n\
         - name: endpoint\n  platforms: *p\n  outputs: *o\n  service:\n    cport: 6788\n    csocket: .eaci.sock\n    operations:\n      \
         check: {{args: [verify], timeout: 60s}}\n      install: {{args: [install], timeout: 600s, non_fatal_exit_codes: [3]}}\n      \
         uninstall: {{args: [\"${{env.X|'uninstall'}}\"]}}\n",
        platform = platform()
    );
    let binary = Utf8PathBuf::from("/bin/sh");
    let inputs = Specification::parse(&text).unwrap().inputs;
    let installed = inputs.into_iter().map(|input| Installed { input, binary: binary.clone() }).collect();
    Catalog::of(installed, Capabilities::parse(rules).unwrap())
}

fn document(inputs: &Value) -> Document {
    let outputs = json!({
        "default": {"type": "elasticsearch", "hosts": ["${local.es|'http://es:9200'}"], "enabled": true},
        "kafka": {"type": "kafka"},
        "off": {"type": "elasticsearch", "enabled": false}
    });
    Document {
        inputs: inputs.as_array().unwrap().clone(),
        outputs: outputs.as_object().unwrap().clone(),
        revision: 7,
        headers: json!({"X-One": "1"}),
        ..Document::default()
    }
}

fn sets() -> VariableSets {
    let context = json!({"user": {"root": true}, "local": {"a": "x"}, "host": {"platform": "linux"}});
    VariableSets { context: context.as_object().unwrap().clone(), dynamic: Vec::new() }
}

fn built(inputs: &Value) -> Result<Built, Invalid> {
    built_with(inputs, &sets(), "capabilities: []")
}

fn built_with(inputs: &Value, variables: &VariableSets, rules: &str) -> Result<Built, Invalid> {
    let catalog = catalog(rules);
    build(&document(inputs), Surroundings { variables, catalog: &catalog, level: Level::Info, fleet: None })
}

fn shape(built: &Built) -> Vec<(String, Vec<String>)> {
    let units = |component: &Component| component.units.iter().map(|unit| unit.id.clone()).collect();
    built.model.iter().map(|component| (component.id.clone(), units(component))).collect()
}

#[test]
fn inputs_are_grouped_by_type_and_output() {
    let made = built(&json!([
        {"id": "a", "type": "fake"},
        {"id": "i", "type": "isolated"},
        {"id": "b", "type": "old", "log_level": "debug"},
        {"id": "p", "type": "process", "command": "x", "use_output": "none"},
        {"id": "off", "type": "fake", "enabled": false},
        {"id": "out", "type": "fake", "use_output": "off"}
    ]))
    .unwrap();
    let expected = [
        ("fake-default", vec!["fake-default", "fake-default-a", "fake-default-b"]),
        ("isolated-default-i", vec!["isolated-default-i", "isolated-default-i-unit"]),
        ("process-none-p", vec!["process-none-p", "process-none-p-unit"]),
    ];
    let expected = expected.map(|(id, units)| (id.to_owned(), units.into_iter().map(str::to_owned).collect()));
    assert_eq!(shape(&made), expected);
    let fake = &made.model[0];
    let Ok(Work::Command(spec)) = &fake.work else { panic!("{:?}", fake.work) };
    assert_eq!((spec.binary.as_str(), &spec.args[..]), ("/bin/sh", &["-x".to_owned(), "y".to_owned()][..]));
    assert_eq!(
        *fake.units[0].config,
        json!({"type": "elasticsearch", "hosts": ["http://es:9200"], "headers": {"X-One": "1"}})
    );
    assert_eq!(*fake.units[1].config, json!({"id": "a", "type": "fake", "policy": {"revision": 7}}));
    assert_eq!((fake.units[2].level, fake.units[2].config["type"].as_str()), (Level::Debug, Some("fake")));
}

#[test]
fn ag72_a_component_that_cannot_run_does_not_affect_the_others() {
    let made = built(&json!([
        {"id": "a", "type": "fake", "use_output": "kafka"},
        {"id": "b", "type": "unknown"},
        {"id": "c", "type": "elsewhere"},
        {"id": "d", "type": "prevented"},
        {"id": "e", "type": "service"},
        {"id": "f", "type": "fake"},
        {"id": "g", "type": "process"}
    ]))
    .unwrap();
    let reasons: Vec<_> = made.model.iter().map(|one| one.work.as_ref().err().cloned().unwrap_or_default()).collect();
    let words =
        ["\"kafka\"", "unsupported input type", "does not support", "not as root", "no operation check", "", "command"];
    assert_eq!(reasons.len(), words.len(), "{reasons:?}");
    for (reason, word) in reasons.iter().zip(words) {
        assert!(reason.contains(word) && (word.is_empty() || reason.starts_with("Failed: ")), "{reason:?} {word:?}");
        assert!(!word.is_empty() || reason.is_empty(), "{reason}");
    }
}

#[test]
fn a_service_exists_once_whatever_its_output_and_gets_the_signed_part_of_the_policy() {
    let catalog = catalog("capabilities: []");
    let signed = Some(Arc::new(json!({"data": "d", "signature": "s"})));
    let inputs = json!([{"id": "a", "type": "endpoint"}, {"id": "b", "type": "endpoint"}]);
    let document = Document { is_protected: true, signed, ..document(&inputs) };
    let made =
        build(&document, Surroundings { variables: &sets(), catalog: &catalog, level: Level::Info, fleet: None })
            .unwrap();
    let units = ["endpoint", "endpoint-a", "endpoint-b"].map(str::to_owned).to_vec();
    assert_eq!(shape(&made), [("endpoint".to_owned(), units)]);
    let component = &made.model[0];
    assert_eq!(component.units[1].config["signed"]["data"], "d");
    let Ok(Work::Service(spec)) = &component.work else { panic!("{component:?}") };
    let service = &spec.service;
    assert_eq!((spec.is_protected, service.socket.as_str(), service.checkin.as_secs()), (true, ".eaci.sock", 30));
    assert_eq!((service.check.args[0].as_str(), service.check.timeout.as_secs()), ("verify", 60));
    assert_eq!(
        (&service.install.non_fatal_exit_codes[..], service.uninstall.args[0].as_str()),
        (&[3][..], "uninstall")
    );
}

#[test]
fn ag74_an_unresolved_variable_drops_an_input_but_is_an_error_in_an_output() {
    let inputs = json!([
        {"id": "a", "type": "fake", "path": "${local.a}"},
        {"id": "b", "type": "fake", "path": "${local.missing}"},
        {"id": "c", "type": "fake", "condition": "${local.a} == 'y'"},
        {"id": "d", "type": "fake", "streams": [{"condition": "false"}]},
        {"id": "e", "type": "fake", "path": "${open"}
    ]);
    let made = built(&inputs).unwrap();
    assert_eq!(shape(&made)[0].1, ["fake-default", "fake-default-a", "fake-default-e"]);
    assert_eq!(made.model[0].units[1].config["path"], "x");
    assert_eq!(made.blocked, ["input b: no value for ${local.missing}"]);
    let pods = json!([{"id": "a", "type": "fake", "path": "${docker.container.id}"}]);
    assert_eq!(built(&pods).unwrap().blocked, Vec::<String>::new());
    // A malformed input fails by itself, and is not part of the component's configuration.
    assert!(made.model[0].units[2].fault.as_deref().unwrap().starts_with("Failed: path: "));
    let mut variables = sets();
    variables.context["local"] = json!({"a": "y", "missing": 5});
    let units = shape(&built_with(&inputs, &variables, "capabilities: []").unwrap())[0].1.clone();
    assert_eq!(units[1..], ["fake-default-a", "fake-default-b", "fake-default-c", "fake-default-e"]);
    let mut broken = document(&json!([]));
    broken.outputs["default"]["hosts"] = json!("${local.missing}");
    let (catalog, variables) = (Catalog::default(), sets());
    let around = Surroundings { variables: &variables, catalog: &catalog, level: Level::Info, fleet: None };
    let error = build(&broken, around).unwrap_err().to_string();
    assert_eq!(error, "outputs.default: no value for ${local.missing}");
    let unknown = built(&json!([{"id": "a", "type": "fake", "use_output": "nowhere"}])).unwrap_err();
    assert_eq!(unknown.to_string(), "inputs.0.use_output: there is no output \"nowhere\"");
}

#[test]
fn an_input_exists_once_for_each_dynamic_set_that_it_uses() {
    let set = |id: &str, value: &str| DynamicSet {
        id: format!("local_dynamic-{id}"),
        provider: "local_dynamic".into(),
        values: json!({"v": value}),
        processors: vec![json!({"add_fields": {"target": value}})],
    };
    let variables = VariableSets { dynamic: vec![set("0", "x"), set("1", "y"), set("2", "x")], ..sets() };
    let own = json!([{"drop_event": {}}]);
    let inputs = json!([{"id": "a", "type": "fake", "p": "${local_dynamic.v}", "processors": own},
        {"id": "b", "type": "fake"}]);
    let made = built_with(&inputs, &variables, "capabilities: []").unwrap();
    let units = &made.model[0].units;
    let ids: Vec<_> = units.iter().map(|unit| unit.id.as_str()).collect();
    let expected =
        ["fake-default", "fake-default-a-local_dynamic-0", "fake-default-a-local_dynamic-1", "fake-default-b"];
    assert_eq!(ids, expected);
    assert_eq!((&units[1].config["id"], &units[1].config["original_id"]), (&json!("a-local_dynamic-0"), &json!("a")));
    let processors = json!([{"add_fields": {"target": "x"}}, {"drop_event": {}}]);
    assert_eq!((&units[1].config["processors"], &units[3].config["processors"]), (&processors, &Value::Null));
}

#[test]
fn inputs_above_the_maximum_are_counted_and_those_of_containers_are_left_out_first() {
    let dynamic = (0..INPUTS_MAX).map(|number| DynamicSet {
        id: format!("local_dynamic-{number}"),
        provider: "local_dynamic".into(),
        values: json!({"v": number}),
        ..DynamicSet::default()
    });
    let variables = VariableSets { dynamic: dynamic.collect(), ..sets() };
    let inputs = json!([{"id": "a", "type": "fake", "p": "${local_dynamic.v}"}, {"id": "b", "type": "fake"}]);
    let made = built_with(&inputs, &variables, "capabilities: []").unwrap();
    let units = &shape(&made)[0].1;
    let (last, before) = (units.last().unwrap(), &units[units.len() - 2]);
    assert_eq!((made.left_out, units.len()), (1, INPUTS_MAX + 1), "and the output");
    assert_eq!((last.as_str(), before.as_str()), ("fake-default-b", "fake-default-a-local_dynamic-254"));
    let many: Vec<_> = (0..INPUTS_MAX + 2).map(|number| json!({"id": number.to_string(), "type": "fake"})).collect();
    let made = built(&json!(many)).unwrap();
    assert_eq!((made.left_out, shape(&made)[0].1.len()), (2, INPUTS_MAX + 1));
}

#[test]
fn local_rules_exclude_components_visibly() {
    let inputs = json!([{"id": "a", "type": "fake"}, {"id": "p", "type": "process", "command": "x"}]);
    let rules = "capabilities: [{rule: deny, input: fake}, {rule: deny, output: \"*\"}]";
    let made = built_with(&inputs, &sets(), rules).unwrap();
    assert_eq!(shape(&made).into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ["process-default-p"]);
    assert_eq!(made.blocked, ["fake-default: a local rule denies inputs of type fake"]);
    let rules = "capabilities: [{rule: deny, output: elastic*}]";
    assert_eq!(built_with(&inputs, &sets(), rules).unwrap().blocked.len(), 1);
}

#[test]
fn a_program_is_taken_as_written_and_its_type_never_rendered() {
    let made = built(&json!([
        {"id": "p", "type": "process", "command": "/bin/sh", "args": ["-c", "echo ${local.a}"]},
        {"id": "q", "type": "${local.type|'process'}", "command": "/bin/evil"}
    ]))
    .unwrap();
    let Ok(Work::Process(spec)) = &made.model[0].work else { panic!("{made:?}") };
    assert_eq!(spec.args, ["-c", "echo ${local.a}"]);
    assert!(made.model[1].work.is_err(), "a variable must not turn an unsigned input into a program");
}

#[test]
fn readings_of_the_host_need_no_output() {
    let made = built(&json!([
        {"id": "m", "type": "host/metrics", "use_output": "none", "period": "1m"},
        {"id": "n", "type": "host/metrics", "period": "${local.a}"}
    ]))
    .unwrap();
    assert_eq!(shape(&made)[0].0, "host/metrics-none-m");
    assert!(
        matches!(&made.model[0].work, Ok(Work::Metrics(spec)) if spec.sink == Sink::None && spec.period.as_secs() == 60)
    );
    assert!(made.model[1].work.as_ref().unwrap_err().contains("period"));
}

#[test]
fn only_inputs_with_a_connection_of_their_own_get_the_access_key() {
    let enrollment: Enrollment =
        serde_json::from_value(json!({"version": 1, "agent_id": "agent-1", "access_api_key": "CANARY",
        "servers": ["https://fleet:8220"], "trust": {"certificate_authorities": ["PEM"],
        "proxy": {"url": "http://p:1", "headers": [["X-A", "b"]]}}}))
        .unwrap();
    let fleet = FleetBlock::new(&enrollment, "debug", &json!("host-1")).unwrap();
    let standalone = Enrollment::without_server("agent-2".into());
    assert!(FleetBlock::new(&standalone, "debug", &json!("host-1")).is_none());
    assert!(!format!("{fleet:?}").contains("CANARY"));
    let catalog = catalog("capabilities: []");
    let inputs = json!([{"id": "a", "type": "endpoint", "fleet": {"hosts": ["https://other"]}}, {"id": "b", "type": "fake"},
        {"id": "c", "type": "process", "command": "x"}, {"id": "d", "type": "service"}]);
    let around = Surroundings { variables: &sets(), catalog: &catalog, level: Level::Info, fleet: Some(&fleet) };
    let made = build(&document(&inputs), around).unwrap();
    let expected = json!({"access_api_key": "CANARY", "hosts": ["https://fleet:8220"], "host": {"id": "host-1"},
        "agent": {"id": "agent-1", "logging": {"level": "debug"}}, "proxy_url": "http://p:1", "proxy_headers": {"X-A": "b"},
        "ssl": {"verification_mode": "full", "certificate_authorities": ["PEM"]}});
    assert_eq!(made.model[0].units[1].config["fleet"], expected);
    let others = made.model[1..].iter().flat_map(|component| &component.units);
    assert!(others.chain(&made.model[0].units[..1]).all(|unit| !unit.config.to_string().contains("CANARY")));
}
