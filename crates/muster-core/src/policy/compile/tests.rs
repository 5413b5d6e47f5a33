use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;
use zeroize::Zeroizing;

use super::*;
use crate::action::Signed;
use crate::output::Output;
use crate::output_key::AgentKeys;
use crate::policy::PolicyRevision;
use crate::policy::RenderedPolicy;
use crate::secret_refs::Secrets;
use crate::signing::verify;
use crate::testing::{self, at, output_of};

fn policy(config: Value, fields: Value) -> Policy {
    Policy {
        name: "Policy".into(),
        namespace: "prod".into(),
        revision: 4,
        config,
        secrets: vec![("PW".into(), SecretId::trusted("sec-1")), ("KEY".into(), SecretId::trusted("sec-2"))],
        fields,
        ..testing::policy("pol-1", at(0))
    }
}

fn es(id: &str, is_default: bool) -> Output {
    output_of(id, "elasticsearch", is_default, json!({"hosts": ["https://es:9200"], "preset": "balanced"}))
}

/// Compiles a policy with these fields and configuration.
pub(super) fn compile_with(config: Value, fields: Value, shared: &Shared) -> Result<Compiled, CompileError> {
    compile_policy(&policy(config, fields), shared)
}

fn try_compile(policy: &Policy, outputs: &[Output]) -> Result<Compiled, CompileError> {
    compile_policy(policy, &Shared { outputs: outputs.to_vec(), network: Vec::new() })
}

fn compile_policy(policy: &Policy, shared: &Shared) -> Result<Compiled, CompileError> {
    let (signer, _) = Signer::generate().unwrap();
    let external_urls = ["https://fleet:8220".to_owned()];
    let sources = Sources {
        policy,
        shared,
        external_urls: &external_urls,
        uninstall_token_hash: "aGFzaA==",
        previous: None,
        signer: &signer,
    };
    compile(&sources)
}

fn compiled(config: Value, fields: Value, outputs: &[Output]) -> Compiled {
    try_compile(&policy(config, fields), outputs).unwrap()
}

fn problems(config: Value, fields: Value, outputs: &[Output]) -> Vec<String> {
    match try_compile(&policy(config, fields), outputs) {
        Err(CompileError::Problems(problems)) => problems.0.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ea96_ea146_an_empty_policy_compiles_and_has_the_servers_urls() {
    let mut compiled = compiled(json!(null), json!({}), &[]).policy;
    let signing_key = compiled["agent"]["protection"]["signing_key"].take();
    assert!(signing_key.is_string());
    compiled.as_object_mut().unwrap().remove("signed");
    let expected = json!({
        "id": "pol-1", "revision": 4, "outputs": {}, "output_permissions": {}, "inputs": [],
        "agent": {
            "monitoring": {"enabled": false, "logs": false, "metrics": false, "traces": false}, "features": {},
            "protection": {"enabled": false, "uninstall_token_hash": "aGFzaA==", "signing_key": null}
        },
        "fleet": {"hosts": ["https://fleet:8220"]}
    });
    assert_eq!(compiled, expected);
}

#[test]
fn ea94_inputs_are_completed() {
    let config = json!({"inputs": [
        {"type": "filestream", "streams": [{"data_stream": {"dataset": "nginx", "type": "logs"}}]},
        {"type": "filestream", "id": "filestream-1", "data_stream": {"namespace": "own"}, "revision": 2},
        {"type": "process", "command": "/bin/true"}
    ]});
    let compiled = compiled(config, json!({}), &[es("o1", true)]);
    let expected = json!([
        {"type": "filestream", "id": "filestream-2", "revision": 4, "use_output": "default",
         "data_stream": {"namespace": "prod"}, "streams": [{"data_stream": {"dataset": "nginx", "type": "logs"}}]},
        {"type": "filestream", "id": "filestream-1", "revision": 2, "use_output": "default", "data_stream": {"namespace": "own"}},
        {"type": "process", "id": "process-1", "revision": 4, "command": "/bin/true"}
    ]);
    assert_eq!(compiled.policy["inputs"], expected);
    assert_eq!(compiled.outputs, [OutputId::trusted("o1")]);
    let roles = &compiled.policy["output_permissions"]["default"];
    assert_eq!(roles["_elastic_agent_checks"], json!({"cluster": ["monitor"]}));
    assert_eq!(roles["filestream-2"]["indices"][0]["names"], json!(["logs-nginx-prod"]));
    assert!(roles.get("process-1").is_none() && roles.get("_elastic_agent_monitoring").is_none());
}

#[test]
fn ea105_only_elasticsearch_outputs_have_permissions_and_credentials_are_unchanged() {
    let config = json!({
        "outputs": {
            "default": {"type": "elasticsearch", "hosts": ["h"], "api_key": "id:key"},
            "k": {"type": "kafka", "hosts": ["k:9092"], "password": "pw", "partition": {"hash": {"random": true}}},
            "l": {"type": "logstash", "hosts": ["l:5044"], "ssl": {"key": "K"}}
        },
        "output_permissions": {"default": {"mine": {"cluster": ["monitor"]}}}
    });
    let compiled = compiled(config.clone(), json!({}), &[es("unused", true)]);
    assert_eq!(compiled.policy["outputs"], config["outputs"]);
    assert_eq!(compiled.policy["output_permissions"], config["output_permissions"]);
    assert!(compiled.outputs.is_empty());
    let found = problems(json!({"outputs": config["outputs"], "output_permissions": {"k": {}}}), json!({}), &[]);
    assert_eq!(found, ["config.output_permissions.k: unknown Elasticsearch output `k`; known: default"]);
}

#[test]
fn ea98_ea104_remote_outputs_become_elasticsearch_without_the_service_token() {
    let fields = json!({
        "hosts": ["https://remote:9200"], "service_token": "t", "kibana_api_key": "k", "proxy_id": null,
        "ca_trusted_fingerprint": "AB", "ssl": {"verification_mode": "full"}, "config_yaml": "bulk_max_size: 5\nhosts: [x]\n",
        "secrets": {"service_token": {"id": "s"}, "ssl": {"key": {"id": "sec-9"}}}
    });
    let compiled = compiled(json!(null), json!({}), &[output_of("r", "remote_elasticsearch", true, fields)]);
    let expected = json!({"default": {
        "type": "elasticsearch", "hosts": ["https://remote:9200"], "bulk_max_size": 5,
        "ssl": {"verification_mode": "full", "ca_trusted_fingerprint": "AB"}, "secrets": {"ssl": {"key": {"id": "sec-9"}}}
    }});
    assert_eq!(compiled.policy["outputs"], expected);
    assert!(compiled.policy["output_permissions"]["default"].is_object());
}

#[test]
fn outputs_are_resolved_by_field_id_and_name() {
    let kafka = output_of(
        "k1",
        "kafka",
        false,
        json!({"hosts": ["k:1"], "partition": "hash", "hash": {"random": true}, "random": {}}),
    );
    let outputs = [es("o1", true), es("o2", false), kafka];
    let config =
        json!({"inputs": [{"type": "a", "use_output": "Output k1"}, {"type": "b", "use_output": "o2"}, {"type": "c"}]});
    let compiled = compiled(config, json!({"data_output_id": "o2"}), &outputs);
    let used: Vec<&Value> =
        compiled.policy["inputs"].as_array().unwrap().iter().map(|input| &input["use_output"]).collect();
    assert_eq!(used, ["k1", "default", "default"]);
    assert_eq!(compiled.policy["outputs"]["k1"]["partition"], json!({"hash": {"random": true}}));
    assert_eq!(compiled.outputs, [OutputId::trusted("o2"), OutputId::trusted("k1")]);
}

#[test]
fn unknown_outputs_are_rejected_with_their_path() {
    let outputs = [es("o1", true)];
    let found = problems(json!({"inputs": [{"type": "a", "use_output": "o2"}]}), json!({}), &outputs);
    assert_eq!(found, ["config.inputs.0.use_output: unknown output `o2`; known: default, Output o1"]);
    let found = problems(json!(null), json!({"data_output_id": "nope-nope"}), &outputs);
    assert_eq!(found, ["data_output_id: unknown output `nope-nope`; known: o1"]);
    let own = json!({"outputs": {"logs": {"type": "kafka", "hosts": ["h"]}}, "inputs": [{"type": "a"}]});
    assert_eq!(problems(own, json!({}), &[]), ["config.inputs.0.use_output: unknown output `default`; known: logs"]);
}

#[test]
fn monitoring_that_is_enabled_in_the_configuration_collects_what_agents_collect_by_default() {
    let outputs = json!({"default": {"type": "elasticsearch", "hosts": ["https://es:9200"]}});
    let monitoring = |monitoring: Value| {
        let config = json!({"outputs": outputs, "agent": {"monitoring": monitoring}});
        compiled(config, json!({}), &[]).policy["agent"]["monitoring"].clone()
    };
    let all = monitoring(json!({"enabled": true}));
    assert_eq!((&all["logs"], &all["metrics"], &all["traces"]), (&json!(true), &json!(true), &json!(false)));
    assert_eq!(all["use_output"], "default");
    let some = monitoring(json!({"enabled": true, "logs": false}));
    assert_eq!((&some["logs"], &some["metrics"]), (&json!(false), &json!(true)));
    let none = monitoring(json!({"enabled": false}));
    assert_eq!((&none["enabled"], &none["logs"]), (&json!(false), &json!(false)));
}

#[test]
fn secrets_in_sections_without_references_are_warned_of() {
    let config = json!({"agent": {"monitoring": {"http": {"password": "p", "port": 6791}}}});
    let warnings = compiled(config, json!({}), &[es("o1", true)]).warnings.0;
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert!(
        told.len() == 1 && told[0].starts_with("config.agent.monitoring.http.password: contains a secret"),
        "{told:?}"
    );
}

#[test]
fn monitoring_uses_its_own_output_and_is_disabled_without_one() {
    let fields = json!({"monitoring_enabled": ["logs", "metrics"], "monitoring_output_id": "o2"});
    let made = compiled(json!(null), fields.clone(), &[es("o1", true), es("o2", false)]);
    let monitoring = &made.policy["agent"]["monitoring"];
    assert_eq!((&monitoring["enabled"], &monitoring["use_output"]), (&json!(true), &json!("o2")));
    let names = &made.policy["output_permissions"]["o2"]["_elastic_agent_monitoring"]["indices"][0]["names"];
    assert_eq!(names, &json!(["logs-elastic_agent*-prod", "metrics-elastic_agent*-prod"]));
    let made = compiled(json!(null), json!({"monitoring_enabled": ["logs"]}), &[]);
    assert_eq!(made.policy["agent"]["monitoring"]["enabled"], false);
    let warned: Vec<&str> = made.warnings.0.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(warned, ["config.agent.monitoring"], "agents accept a policy without outputs");
    let process = compiled(json!({"inputs": [{"type": "process", "command": "/bin/true"}]}), json!({}), &[]);
    assert_eq!(process.warnings, Problems::default(), "muster-agent needs no output");
}

#[test]
fn an_enabled_input_without_an_output_is_rejected() {
    let remedy = "define `outputs.default`, or mark an output object as the default";
    for input in [json!({"type": "a"}), json!({"type": "a", "use_output": "default", "enabled": true})] {
        let found = problems(json!({"inputs": [input]}), json!({}), &[es("o1", false)]);
        assert_eq!(found, [format!("config.inputs.0: there is no output for its data; {remedy}")]);
    }
    compiled(json!({"inputs": [{"type": "a", "enabled": false}]}), json!({}), &[]);
}

#[test]
fn dotted_keys_override_compiled_defaults() {
    let config = json!({
        "agent.monitoring.enabled": true, "agent.monitoring.logs": true, "agent.features.fqdn.enabled": true,
        "inputs": [{"type": "a", "data_stream.namespace": "shop", "streams": [{"data_stream.dataset": "d"}]}]
    });
    let fields = json!({
        "overrides": {"agent.limits.go_max_procs": 3}, "advanced_settings": {"agent_internal": {"x.y": 1}},
        "monitoring_http": {"buffer.enabled": true}
    });
    let made = compiled(
        config,
        fields,
        &[output_of(
            "o1",
            "elasticsearch",
            true,
            json!({
                "hosts": ["https://es"], "ssl": {"enabled": true}, "config_yaml": "ssl.verification_mode: none"
            }),
        )],
    )
    .policy;
    let input = &made["inputs"][0];
    assert_eq!(input["data_stream"], json!({"namespace": "shop"}));
    assert_eq!(input["streams"], json!([{"data_stream": {"dataset": "d"}}]));
    let agent = &made["agent"];
    assert_eq!((&agent["monitoring"]["enabled"], &agent["monitoring"]["logs"]), (&json!(true), &json!(true)));
    assert_eq!(agent["monitoring"]["http"], json!({"buffer": {"enabled": true}}));
    assert_eq!(agent["features"], json!({"fqdn": {"enabled": true}}));
    assert_eq!((&agent["limits"], &agent["internal"]), (&json!({"go_max_procs": 3}), &json!({"x": {"y": 1}})));
    assert_eq!(made["outputs"]["default"]["ssl"], json!({"enabled": true, "verification_mode": "none"}));
    let text = made.to_string();
    assert!(!text.contains("data_stream.") && !text.contains("monitoring."), "{text}");
}

#[test]
fn the_agent_section_merges_fields_and_configuration() {
    let fields = json!({
        "agent_features": [{"name": "fqdn", "enabled": true}], "is_protected": true, "monitoring_http": {"enabled": true},
        "advanced_settings": {"agent_logging_level": "info", "agent_limits_go_max_procs": 2, "agent_internal": null},
        "global_data_tags": [{"name": "env", "value": "prod"}], "overrides": {"agent": {"limits": {"go_max_procs": 3}}}
    });
    let config = json!({
        "agent": {"logging": {"level": "debug"}, "features": {"x": {"enabled": false}}, "download": {"sourceURI": "https://d/"}},
        "inputs": [{"type": "filestream", "id": "a"}, {"type": "endpoint", "id": "b"}]
    });
    let made = compiled(config, fields, &[es("o1", true)]).policy;
    let agent = &made["agent"];
    assert_eq!(agent["features"], json!({"fqdn": {"enabled": true}, "x": {"enabled": false}}));
    assert_eq!(agent["logging"]["level"], "debug");
    assert_eq!(agent["limits"]["go_max_procs"], 3);
    assert_eq!(agent["monitoring"]["enabled"], true);
    assert_eq!(agent["protection"]["enabled"], true);
    assert_eq!(made["inputs"][0]["processors"], json!([{"add_fields": {"target": "", "fields": {"env": "prod"}}}]));
    assert!(made["inputs"][1].get("processors").is_none());
}

#[test]
fn overrides_cannot_change_signed_fields() {
    let overrides = json!({"agent": {"protection": {"enabled": false}}, "inputs": [], "fleat": {}, "signed": {}});
    let found = problems(json!(null), json!({"overrides": overrides}), &[]);
    let expected = [
        "overrides.fleat: unknown key `fleat`; did you mean `fleet`?",
        "overrides.inputs: cannot be overridden; change the policy itself",
        "overrides.signed: cannot be overridden; change the policy itself",
        "overrides.agent.protection: cannot be overridden; change the policy itself",
    ];
    assert_eq!(found, expected);
}

#[test]
fn ea80_the_signature_covers_id_features_protection_and_inputs() {
    let config = json!({"inputs": [
        {"type": "process", "id": "p", "name": "n", "command": "/bin/true"},
        {"type": "process", "id": "q", "command": "/bin/false", "args": ["-x", ""], "secrets": {"env": {"C": {"id": "KEY"}}},
         "env": {"A": "b", "B": "x$co.elastic.secret{PW}", "C": ""}},
        {"type": "filestream", "id": "r", "command": "unsigned"}
    ]});
    let made = compiled(config, json!({"agent_features": [{"name": "f", "enabled": true}]}), &[es("o1", true)]).policy;
    let signed = Signed {
        data: made["signed"]["data"].as_str().unwrap().into(),
        signature: made["signed"]["signature"].as_str().unwrap().into(),
    };
    let key = made["agent"]["protection"]["signing_key"].as_str().unwrap();
    let payload: Value = serde_json::from_slice(&verify(key, &signed).unwrap()).unwrap();
    let expected = json!({
        "id": "pol-1", "agent": {"features": made["agent"]["features"], "protection": made["agent"]["protection"]},
        "inputs": [
            {"id": "p", "name": "n", "revision": 4, "type": "process", "command": "/bin/true", "args": null, "env": {}},
            {"id": "q", "name": null, "revision": 4, "type": "process", "command": "/bin/false", "args": ["-x", ""],
             "env": {"A": "b", "B": null, "C": null}},
            {"id": "r", "name": null, "revision": 4, "type": "filestream"}
        ]
    });
    assert_eq!(payload, expected);
    assert!(STANDARD.decode(key).unwrap().len() > 80);
}

#[test]
fn ea97_secret_names_become_ids_and_unknown_names_are_rejected() {
    let config = json!({"inputs": [{"type": "a", "password": "x$co.elastic.secret{PW}"}],
        "outputs": {"default": {"type": "kafka", "hosts": ["h"], "secrets": {"ssl": {"key": {"id": "KEY"}}}}}});
    let made = compiled(config, json!({}), &[]).policy;
    assert_eq!(made["inputs"][0]["password"], "x$co.elastic.secret{sec-1}");
    assert_eq!(made["outputs"]["default"]["secrets"]["ssl"]["key"]["id"], "sec-2");
    let found = problems(json!({"fleet": {"ssl": {"key": "$co.elastic.secret{PWD}"}}}), json!({}), &[]);
    let expected = [
        "config.fleet.ssl.key: the policy has no secret `PWD`; set its value with `--secret NAME=…` or in the field `secrets`, or correct the name",
    ];
    assert_eq!(found, expected);
}

#[test]
fn unchanged_inputs_keep_their_revisions() {
    let config = json!({"inputs": [{"type": "a", "n": 1}, {"type": "b", "n": 1}]});
    let shared = Shared { outputs: vec![es("o1", true)], network: Vec::new() };
    let first = compiled(config, json!({}), &shared.outputs).policy;
    let mut changed = policy(json!({"inputs": [{"type": "a", "n": 1}, {"type": "b", "n": 2}]}), json!({}));
    changed.revision = 5;
    let (signer, _) = Signer::generate().unwrap();
    let sources = Sources {
        policy: &changed,
        shared: &shared,
        external_urls: &[],
        uninstall_token_hash: "",
        previous: Some(&first),
        signer: &signer,
    };
    let second = compile(&sources).unwrap().policy;
    assert_eq!((&second["inputs"][0]["revision"], &second["inputs"][1]["revision"]), (&json!(4), &json!(5)));
    assert!(is_same(&first, &first) && !is_same(&first, &second));
}

#[test]
fn a_policy_signed_without_process_commands_differs() {
    let config = json!({"inputs": [{"type": "process", "id": "p", "command": "/bin/true"}]});
    let made = compiled(config, json!({}), &[]).policy;
    let mut older = made.clone();
    let payload = json!({
        "id": "pol-1", "agent": {"features": {}, "protection": made["agent"]["protection"]},
        "inputs": [{"id": "p", "name": null, "revision": 4, "type": "process"}]
    });
    older["signed"]["data"] = STANDARD.encode(payload.to_string()).into();
    assert!(!is_same(&older, &made));
    let mut signed_anew = made.clone();
    signed_anew["signed"]["signature"] = "other".into();
    assert!(is_same(&signed_anew, &made));
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("$co.elastic.secret{PW}".to_owned()),
        Just("a$co.elastic.secret{KEY}b$co.elastic.secret{PW}".to_owned()),
        "[a-z]{0,6}"
    ]
}

fn any_settings() -> impl Strategy<Value = BTreeMap<String, Value>> {
    let leaf = any_text().prop_map(Value::String);
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map("[a-e]", inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("x[a-e]", value, 0..4)
}

proptest! {
    #[test]
    fn ea97_ea98_secrets_reach_agents_and_never_the_compiled_policy(
        settings in any_settings(), by_path in any::<bool>()
    ) {
        let mut input: Map<String, Value> = settings.into_iter().collect();
        input.insert("type".into(), "any".into());
        let mut kafka = json!({"type": "kafka", "hosts": ["h"]});
        if by_path {
            kafka["secrets"] = json!({"ssl": {"key": {"id": "KEY"}}});
        }
        let config = json!({"inputs": [input], "outputs": {"default": kafka}});
        let source = policy(config, json!({}));
        let before = source.clone();
        let made = try_compile(&source, &[]).unwrap().policy;
        prop_assert_eq!(&source, &before);
        let text = made.to_string();
        prop_assert!(!text.contains("VALUE"));
        let named = text.contains("secret{PW") || text.contains("secret{KEY");
        prop_assert!(!named);

        let revision = PolicyRevision { compiled: made.clone(), ..testing::revision("pol-1", 4, at(0)) };
        let secrets: Secrets = [("sec-1", "VALUE-1"), ("sec-2", "VALUE-2")]
            .map(|(id, value)| (SecretId::trusted(id), Zeroizing::new(value.to_owned()))).into();
        let rendered = RenderedPolicy::new(&revision, &secrets).unwrap();
        prop_assert_eq!(&revision.compiled, &made, "rendering works on a copy");
        let reply: Value = serde_json::from_slice(&rendered.plain("a", &AgentKeys::default()).concat()).unwrap();
        let sent = &reply["actions"][0]["data"]["policy"];
        prop_assert!(!sent.to_string().contains("co.elastic.secret"));
        prop_assert!(!sent.to_string().contains(r#""secrets""#));
        let used = text.matches("sec-").count() > 0;
        prop_assert_eq!(sent["secret_paths"].is_array(), used);
        prop_assert_eq!(sent.to_string().contains("VALUE-"), used);
    }
}

/// An output that creates a key for each agent.
fn issuing(id: &str, is_default: bool) -> Output {
    let fields = json!({
        "hosts": ["https://es:9200"], "ca_trusted_fingerprint": "ab", "proxy_url": "http://proxy",
        "secrets": {"service_token": {"id": "sec-9"}, "ssl": {"key": {"id": "sec-8"}}}
    });
    output_of(id, "remote_elasticsearch", is_default, fields)
}

#[test]
fn ea101_an_output_with_a_service_token_creates_keys_at_its_cluster() {
    let config = json!({"inputs": [{"type": "filestream"}, {"type": "filestream", "use_output": "o2"}]});
    let compiled = compiled(config, json!({}), &[issuing("o1", true), es("o2", false)]).policy;
    let issuers = compiled["issuers"].as_object().unwrap();
    assert_eq!(issuers.keys().collect::<Vec<_>>(), ["default"], "the other one has no credential to create keys with");
    let expected = json!({
        "hosts": ["https://es:9200"], "proxy_url": "http://proxy", "ssl": {"ca_trusted_fingerprint": "ab"},
        "secrets": {"service_token": {"id": "sec-9"}, "ssl": {"key": {"id": "sec-8"}}}
    });
    assert_eq!((&issuers["default"]["connection"], &issuers["default"]["output"]), (&expected, &json!("o1")));
    let needs = issuers::needs(&compiled);
    assert_eq!((needs.len(), needs[0].output.as_str()), (1, "default"));
    let secrets: Secrets = [("sec-9", "token"), ("sec-8", "key")]
        .map(|(id, value)| (SecretId::trusted(id), Zeroizing::new(value.to_owned())))
        .into();
    let found = issuers::issuers(&compiled, &secrets).remove(0);
    let connection: Value = serde_json::from_str(&found.connection).unwrap();
    assert_eq!(connection["service_token"], "token");
    assert_eq!(connection["ssl"], json!({"ca_trusted_fingerprint": "ab", "key": "key"}));
    assert_eq!(secret_refs::ids(&compiled).len(), 2, "they are opened with those of the policy");
}

#[test]
fn ea101_a_credential_for_all_agents_gives_way_to_keys_with_a_warning() {
    let config = json!({"outputs": {"default": {
        "type": "elasticsearch", "hosts": ["https://es:9200"], "api_key": "id:shared", "username": "u",
        "service_token": "$co.elastic.secret{PW}", "secrets": {"password": {"id": "KEY"}}
    }}});
    let compiled = compiled(config, json!({}), &[]);
    let output = &compiled.policy["outputs"]["default"];
    assert!(["api_key", "username", "service_token"].iter().all(|field| output.get(field).is_none()), "{output}");
    assert_eq!(output["secrets"], json!({}));
    assert_eq!(compiled.warnings.0[0].path, "config.outputs.default.api_key");
    assert_eq!(compiled.policy["issuers"]["default"]["output"], "pol-1:default");
}

#[test]
fn ea101_an_output_creates_keys_with_a_user_if_it_says_so() {
    let output = |more: Value| {
        let mut fields = json!({
            "type": "elasticsearch", "hosts": ["https://es:9200"], "username": "u", "password": "$co.elastic.secret{PW}"
        });
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"outputs": {"default": fields}})
    };
    let shared = compiled(output(json!({})), json!({}), &[]).policy;
    assert!(shared["issuers"].is_null(), "{shared}");
    assert_eq!(shared["outputs"]["default"]["username"], "u", "without the field, agents share the user");
    let own = compiled(output(json!({"agent_keys": true})), json!({}), &[]);
    let (delivered, connection) = (&own.policy["outputs"]["default"], &own.policy["issuers"]["default"]["connection"]);
    assert!(["username", "password", "agent_keys"].iter().all(|field| delivered.get(field).is_none()), "{delivered}");
    assert_eq!((&connection["username"], &connection["hosts"][0]), (&json!("u"), &json!("https://es:9200")));
    assert!(connection["password"].as_str().unwrap().starts_with("$co.elastic.secret{"), "{connection}");
    assert!(own.warnings.0.is_empty(), "{:?}", own.warnings);
    let off = json!({"agent_keys": false, "service_token": "$co.elastic.secret{PW}"});
    assert!(compiled(output(off), json!({}), &[]).policy["issuers"].is_null());
}

#[test]
fn ea101_an_output_without_a_credential_cannot_create_keys() {
    let config = |field: &str| {
        json!({"outputs": {"default": {
            "type": "elasticsearch", "hosts": ["https://es:9200"], "agent_keys": true, field: "$co.elastic.secret{KEY}"
        }}})
    };
    for field in ["api_key", "password"] {
        let found = problems(config(field), json!({}), &[]);
        assert!(found[0].starts_with("config.outputs.default.agent_keys: "), "{found:?}");
        assert!(found[0].contains("`api_key` cannot create keys"), "{found:?}");
    }
}

#[test]
fn ea101_a_cluster_is_the_same_while_one_of_its_hosts_stays() {
    let with = |hosts: Value, previous: Option<&Value>| {
        let mut output = issuing("o1", true);
        output.fields["hosts"] = hosts;
        let policy = policy(json!({"inputs": [{"type": "filestream"}]}), json!({}));
        let (signer, _) = Signer::generate().unwrap();
        let sources = Sources {
            policy: &policy,
            shared: &Shared { outputs: vec![output], network: Vec::new() },
            external_urls: &[],
            uninstall_token_hash: "aGFzaA==",
            previous,
            signer: &signer,
        };
        compile(&sources).unwrap().policy
    };
    let cluster = |policy: &Value| policy["issuers"]["default"]["cluster"].clone();
    let one = with(json!(["https://a:1"]), None);
    let two = with(json!(["https://b:1", "https://a:1/"]), Some(&one));
    let three = with(json!(["https://b:1"]), Some(&two));
    assert_eq!((cluster(&one), cluster(&two)), (cluster(&two), cluster(&three)));
    assert_ne!(cluster(&with(json!(["https://c:1"]), Some(&three))), cluster(&three));
}

#[test]
fn ea106_a_policy_remembers_that_its_agents_may_have_keys() {
    let with = compiled(json!({"inputs": [{"type": "filestream"}]}), json!({}), &[issuing("o1", true)]).policy;
    let (signer, _) = Signer::generate().unwrap();
    let policy = policy(json!({}), json!({}));
    let sources = Sources {
        policy: &policy,
        shared: &Shared::default(),
        external_urls: &[],
        uninstall_token_hash: "aGFzaA==",
        previous: Some(&with),
        signer: &signer,
    };
    let without = compile(&sources).unwrap().policy;
    assert!(issuers::has_issued(&without) && issuers::needs(&without).is_empty());
    let next = compile(&Sources { previous: Some(&without), ..sources }).unwrap().policy;
    assert!(issuers::has_issued(&next) && is_same(&without, &next));
}

#[test]
fn ea103_an_exporter_can_use_an_output_object_by_its_id() {
    let config = json!({"receivers": {"otlp": null}, "exporters": {"elasticsearch/far": null, "elasticsearch/es": null},
        "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["elasticsearch/far"]}}}});
    let compiled = compiled(config, json!({}), &[issuing("far", false), es("es", false)]);
    assert_eq!(compiled.outputs, [OutputId::trusted("far")], "the other one has an address of its own, and no key");
    let names = &compiled.policy["output_permissions"]["far"]["_opentelemetry_collector"]["indices"][0]["names"];
    assert_eq!(*names, json!(["logs-*", "traces-*"]));
}

#[test]
fn ea101_inputs_get_the_permissions_that_they_need_and_patterns_only_if_nothing_is_known() {
    let config = json!({"inputs": [
        {"type": "winlog", "id": "a"},
        {"type": "system/metrics", "id": "b", "streams": [{"data_stream": {"dataset": "system.cpu"}}, {}]},
        {"type": "custom", "id": "c", "data_stream": {"dataset": "mine", "namespace": "ns"}},
        {"type": "custom", "id": "d"}
    ]});
    let compiled = compiled(config, json!({}), &[es("o1", true)]).policy;
    let names = |id: &str| compiled["output_permissions"]["default"][id]["indices"][0]["names"].clone();
    assert_eq!(names("a"), json!(["logs-*-prod"]));
    assert_eq!(names("b"), json!(["metrics-*-prod", "metrics-system.cpu-prod"]));
    assert_eq!(names("c"), json!(["logs-mine-ns", "metrics-mine-ns"]));
    assert_eq!(names("d"), json!(["logs-*-prod", "metrics-*-prod"]));
}
