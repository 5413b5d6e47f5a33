use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use muster_core::authorization::{Actor, Grant, OpContext, PoliciesRead, Privilege};
use muster_core::credential::ApiKey;
use muster_core::id::{OutputId, PolicyId, SecretId, SpaceId};
use muster_core::output::Output;
use muster_core::output_key::AgentKeys;
use muster_core::policy::Policy;
use muster_core::policy::problem::Problems;
use muster_core::seal::{Place, Sealer};
use muster_core::signing::Signer;
use muster_core::time::{Clock, Timestamp};
use muster_core::{Error, ErrorKind};
use muster_store::query::Page;
use muster_store::{SecretWrite, Store, Write};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::apply::Application;
use super::{Expected, PolicyDraft, SavedPolicy, all_in, version_token};
use crate::authority::{Authorized, System};
use crate::fleet_keys::ensure_signing_key;
use crate::force::Force;
use crate::outputs::OutputDraft;
use crate::policy_cache::PolicyCache;
use crate::system::SystemEntropy;
use crate::urls::OwnUrls;
use crate::{Fleet, FleetParts, FleetSettings};

/// A clock that advances by a second with each call.
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1_000_000, Ordering::Relaxed))
    }
}

fn fleet_at(store: Arc<dyn Store>, sealer: Arc<Sealer>, signer: Arc<Signer>, url: &str) -> Arc<Fleet> {
    Fleet::new(FleetParts {
        store,
        clock: Arc::new(Ticking(AtomicI64::new(1_767_322_800_000_000))),
        entropy: Arc::new(SystemEntropy::default()),
        sealer,
        signer,
        issuer: Arc::new(crate::output_keys::issuer::NoIssuer),
        openid: Arc::new(crate::identity::openid::NoProviders),
        alert_sender: Arc::new(crate::alerts::sender::NoSender),
        prober: Arc::new(crate::connection_tests::NoProber),
        settings: FleetSettings {
            urls: OwnUrls { configured: vec![url.into()], derived: None },
            ..FleetSettings::default()
        },
    })
}

fn fleet() -> Arc<Fleet> {
    let store: Arc<dyn Store> = Arc::new(muster_store::testing::fresh());
    let sealer = Arc::new(Sealer::new(&[7; 32]).unwrap());
    fleet_at(store, sealer, Arc::new(Signer::generate().unwrap().0), "https://fleet:8220")
}

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

fn grant<P: Privilege>() -> Grant<P> {
    root().grant().unwrap()
}

async fn find<P: Privilege>(fleet: &Fleet, id: impl ToString) -> Result<Authorized<Policy, P>, Error> {
    fleet.policies().find(&root(), &id.to_string()).await
}

async fn delete(fleet: &Fleet, id: &str) -> Result<Policy, Error> {
    fleet.policies().delete(&find(fleet, id).await?, Force::No).await
}

async fn roll_back(fleet: &Fleet, id: &str, revision: i64) -> Result<SavedPolicy, Error> {
    fleet.policies().roll_back(&find(fleet, id).await?, revision, Force::No, &Expected::default(), None).await
}

async fn update_output(fleet: &Fleet, id: &str, draft: OutputDraft) -> Result<Output, Error> {
    fleet.outputs().update(&fleet.outputs().find(&root(), id).await?, draft).await
}

async fn delete_output(fleet: &Fleet, id: &str) -> Result<Output, Error> {
    fleet.outputs().delete(&fleet.outputs().find(&root(), id).await?).await
}

fn draft(name: &str, config: Value) -> PolicyDraft {
    PolicyDraft { name: Some(name.into()), config: Some(config), ..PolicyDraft::default() }
}

fn with_secret(mut draft: PolicyDraft, name: &str, value: Option<&str>) -> PolicyDraft {
    draft.secrets.insert(name.into(), value.map(|value| Zeroizing::new(value.to_owned())));
    draft
}

async fn create(fleet: &Fleet, name: &str, config: Value) -> SavedPolicy {
    fleet.policies().create(&grant(), draft(name, config)).await.unwrap()
}

async fn update(fleet: &Fleet, policy: &Policy, draft: PolicyDraft) -> Result<SavedPolicy, Error> {
    fleet.policies().update(&find(fleet, &policy.id).await?, draft).await
}

/// The policy that an agent would get now.
async fn sent(fleet: &Fleet, id: &PolicyId) -> Value {
    let rendered = fleet.inner().policy_cache.refresh(id).await.unwrap().unwrap();
    let reply: Value = serde_json::from_slice(&rendered.plain("agent-1", &AgentKeys::default()).concat()).unwrap();
    reply["actions"][0]["data"]["policy"].clone()
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other}"),
    }
}

fn output(name: &str, more: Value) -> OutputDraft {
    OutputDraft {
        id: Some(name.into()),
        name: Some(name.into()),
        kind: Some("elasticsearch".into()),
        fields: fields(more),
        ..OutputDraft::default()
    }
}

fn hosts() -> Value {
    json!({"hosts": ["https://es:9200"]})
}

#[tokio::test]
async fn new_policy_has_a_revision_and_a_retrievable_key() {
    let fleet = fleet();
    let saved = create(&fleet, " web ", json!({"inputs": [{"type": "process", "command": "/bin/true"}]})).await;
    assert_eq!((saved.policy.name.as_str(), saved.policy.revision, saved.changed), ("web", 1, true));
    let policy = sent(&fleet, &saved.policy.id).await;
    assert_eq!((&policy["id"], &policy["revision"]), (&json!(saved.policy.id), &json!(1)));
    assert_eq!(policy["fleet"]["hosts"], json!(["https://fleet:8220"]));

    let key = saved.enrollment_key.unwrap();
    let stored = fleet.store().enrollment_key(&key.id).await.unwrap().unwrap();
    assert_eq!((stored.name.as_str(), stored.policy_id.as_ref()), (saved.policy.name.as_str(), Some(&saved.policy.id)));
    let token = fleet.inner().sealer.open(Place::enrollment_token(&key.id), &stored.sealed_token.unwrap()).unwrap();
    assert!(ApiKey::parse(std::str::from_utf8(&token).unwrap()).unwrap().matches(&stored.hash));
}

#[tokio::test]
async fn invalid_names_ids_and_configurations_are_rejected() {
    let fleet = fleet();
    create(&fleet, "web", json!({})).await;
    let taken = fleet.policies().create(&grant(), draft("web", json!({}))).await.unwrap_err();
    assert_eq!((taken.kind, taken.code), (ErrorKind::Conflict, "policy_name_taken"));
    for id in ["a:b", "a/b", ""] {
        let bad = PolicyDraft { id: Some(id.into()), ..draft("x", json!({})) };
        assert_eq!(fleet.policies().create(&grant(), bad).await.unwrap_err().field.as_deref(), Some("id"), "{id}");
    }
    let bad = fleet.policies().create(&grant(), draft("x", json!({"input": []}))).await.unwrap_err();
    assert_eq!((bad.kind, bad.field.as_deref()), (ErrorKind::Invalid, Some("config.input")));
    let blank = fleet.policies().create(&grant(), PolicyDraft::default()).await.unwrap_err();
    assert_eq!(blank.field.as_deref(), Some("name"));
    assert_eq!(fleet.policies().list(&grant(), Page { offset: 0, limit: 9 }).await.unwrap().total, 1);
    let missing = find::<PoliciesRead>(&fleet, "no/../id").await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn update_without_a_difference_creates_no_revision() {
    let fleet = fleet();
    let config = json!({"inputs": [{"type": "process", "command": "/x", "password": "$co.elastic.secret{PW}"}]});
    let first = with_secret(draft("web", config.clone()), "PW", Some("hunter2"));
    let saved = fleet.policies().create(&grant(), first.clone()).await.unwrap();
    let again = update(&fleet, &saved.policy, first).await.unwrap();
    assert!(!again.changed);
    assert_eq!(again.policy, saved.policy);
    let more = PolicyDraft { description: Some("text".into()), ..PolicyDraft::default() };
    let changed = update(&fleet, &saved.policy, more).await.unwrap();
    assert_eq!((changed.policy.revision, changed.policy.config == config), (2, true));
    // The input has not changed, so agents get its old revision.
    assert_eq!(sent(&fleet, &saved.policy.id).await["inputs"][0]["revision"], 1);
}

#[tokio::test]
async fn ea97_ea99_secrets_are_sealed_delivered_and_replaced() {
    let fleet = fleet();
    let config = json!({"inputs": [{"type": "process", "command": "/x", "password": "<$co.elastic.secret{PW}>"}]});
    let refused = fleet.policies().create(&grant(), draft("web", config.clone())).await.unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("config.inputs.0.password"));
    let saved = fleet.policies().create(&grant(), with_secret(draft("web", config), "PW", Some("one"))).await.unwrap();
    let id = &saved.policy.id;
    let policy = sent(&fleet, id).await;
    assert_eq!(
        (&policy["inputs"][0]["password"], &policy["secret_paths"]),
        (&json!("<one>"), &json!(["inputs.0.password"]))
    );
    let stored = format!("{:?}", fleet.store().policy_newest_revision(id).await.unwrap());
    assert!(!stored.contains("one") && !format!("{:?}", saved.policy).contains("<one>"));

    let replaced = update(&fleet, &saved.policy, with_secret(PolicyDraft::default(), "PW", Some("two"))).await.unwrap();
    assert_eq!(replaced.policy.revision, 2);
    assert_eq!(sent(&fleet, id).await["inputs"][0]["password"], "<two>");
    let removed = update(&fleet, &saved.policy, with_secret(PolicyDraft::default(), "PW", None)).await.unwrap_err();
    assert_eq!(removed.code, "policy_invalid");
    let named = with_secret(PolicyDraft::default(), "a b}", Some("x"));
    assert_eq!(update(&fleet, &saved.policy, named).await.unwrap_err().field.as_deref(), Some("secrets"));
}

#[tokio::test]
async fn stale_versions_are_rejected_and_managed_policies_need_force() {
    let fleet = fleet();
    let saved = create(&fleet, "web", json!({})).await;
    let token = version_token(&saved.policy);
    let change = |text: &str| PolicyDraft {
        description: Some(text.into()),
        expected: Expected { version: Some(token.clone()), ..Expected::default() },
        ..PolicyDraft::default()
    };
    update(&fleet, &saved.policy, change("one")).await.unwrap();
    assert_eq!(update(&fleet, &saved.policy, change("two")).await.unwrap_err().code, "policy_changed");

    let managed = PolicyDraft { is_managed: Some(true), ..PolicyDraft::default() };
    let managed = update(&fleet, &saved.policy, managed).await.unwrap();
    assert_eq!(managed.policy.revision, 2, "agents get nothing else");
    let plain = PolicyDraft { description: Some("three".into()), ..PolicyDraft::default() };
    assert_eq!(update(&fleet, &saved.policy, plain.clone()).await.unwrap_err().code, "managed_policy");
    assert!(update(&fleet, &saved.policy, PolicyDraft { force: Force::Yes, ..plain }).await.unwrap().changed);
    assert_eq!(delete(&fleet, saved.policy.id.as_str()).await.unwrap_err().code, "managed_policy");
}

#[tokio::test]
async fn rollback_creates_a_new_revision_with_the_old_content() {
    let fleet = fleet();
    let config = json!({"inputs": [{"type": "process", "command": "/x", "password": "$co.elastic.secret{PW}"}]});
    let first = fleet.policies().create(&grant(), with_secret(draft("web", config), "PW", Some("one"))).await.unwrap();
    let id = first.policy.id.as_str();
    let second = with_secret(draft("renamed", json!({"inputs": []})), "PW", None);
    update(&fleet, &first.policy, second).await.unwrap();
    let back = roll_back(&fleet, id, 1).await.unwrap();
    assert_eq!((back.policy.revision, back.policy.name.as_str()), (3, "renamed"));
    assert_eq!(sent(&fleet, &first.policy.id).await["inputs"][0]["password"], "one");
    let numbers: Vec<i64> = fleet
        .policies()
        .revisions(&find(&fleet, id).await.unwrap())
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.0)
        .collect();
    assert_eq!(numbers, [3, 2, 1]);
    let paths: Vec<String> = fleet
        .policies()
        .diff(&find(&fleet, id).await.unwrap(), 1, 2)
        .await
        .unwrap()
        .into_iter()
        .map(|found| found.path)
        .collect();
    assert_eq!(paths, ["/config/inputs/0", "/name", "/secrets/PW"]);
    assert_eq!(roll_back(&fleet, id, 9).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn m10_secrets_in_the_configuration_are_sealed_and_applying_them_again_changes_nothing() {
    let fleet = fleet();
    let text = |password: &str| {
        format!(
            "name: web\nconfig:\n  outputs:\n    default:\n      type: elasticsearch\n      hosts: [https://es]\n      \
             username: u\n      password: {password}\n  inputs:\n    - type: httpjson\n      token: {password}\n"
        )
    };
    let apply = async |password: &str| {
        let application = Application { text: text(password), ..Application::default() };
        fleet.policies().apply(&root(), application).await.unwrap()
    };
    let first = apply("hunter2").await.saved.policy;
    assert_eq!(first.config["outputs"]["default"]["password"], "$co.elastic.secret{inline.outputs.default.password}");
    let names: Vec<&str> = first.secrets.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["inline.inputs.0.token", "inline.outputs.default.password"]);
    let policy = sent(&fleet, &first.id).await;
    assert_eq!(
        (&policy["outputs"]["default"]["password"], &policy["inputs"][0]["token"]),
        (&json!("hunter2"), &json!("hunter2"))
    );
    assert_eq!(policy["secret_paths"], json!(["inputs.0.token", "outputs.default.password"]));
    let revision = fleet.store().policy_revision(&first.id, 1).await.unwrap().unwrap();
    for stored in [revision.compiled.to_string(), revision.source.to_string(), first.config.to_string()] {
        assert!(!stored.contains("hunter2"), "{stored}");
    }

    let again = apply("hunter2").await;
    assert!(!again.saved.changed && again.changes.is_empty() && again.secrets.is_empty());
    let replaced = apply("other").await;
    assert_eq!((replaced.saved.policy.revision, replaced.secrets.len(), replaced.changes.len()), (2, 2, 0));
    assert_eq!(sent(&fleet, &first.id).await["outputs"]["default"]["password"], "other");
    // What was read can be sent back, and what is gone from the configuration is gone from the secrets.
    let mut config = replaced.saved.policy.config.clone();
    assert!(
        !update(&fleet, &replaced.saved.policy, PolicyDraft { config: Some(config.clone()), ..PolicyDraft::default() })
            .await
            .unwrap()
            .changed
    );
    config["inputs"] = json!([]);
    let less = update(&fleet, &replaced.saved.policy, PolicyDraft { config: Some(config), ..PolicyDraft::default() })
        .await
        .unwrap();
    assert_eq!(less.policy.secrets.len(), 1);
}

#[tokio::test]
async fn m10_secrets_in_overrides_are_rejected() {
    let fleet = fleet();
    let mut with = draft("web", json!({}));
    with.fields.insert("overrides".into(), json!({"outputs": {"default": {"password": "hunter2"}}}));
    let error = fleet.policies().create(&grant(), with).await.unwrap_err();
    assert!(
        error.message.contains("overrides.outputs.default.password") && !error.message.contains("hunter2"),
        "{error:?}"
    );
}

#[tokio::test]
async fn copied_policy_has_its_own_secrets() {
    let fleet = fleet();
    let config = json!({"inputs": [{"type": "process", "command": "/x", "password": "$co.elastic.secret{PW}"}]});
    let from =
        fleet.policies().create(&grant(), with_secret(draft("web", config), "PW", Some("one"))).await.unwrap().policy;
    let copy =
        fleet.policies().copy(&find(&fleet, from.id.as_str()).await.unwrap(), "copy", None, None).await.unwrap().policy;
    assert_ne!(copy.id, from.id);
    assert_ne!(copy.secrets, from.secrets);
    delete(&fleet, from.id.as_str()).await.unwrap();
    assert_eq!(sent(&fleet, &copy.id).await["inputs"][0]["password"], "one");
}

#[tokio::test]
async fn deleting_a_policy_deletes_its_revisions_keys_and_secrets() {
    let fleet = fleet();
    let saved =
        fleet.policies().create(&grant(), with_secret(draft("web", json!({})), "PW", Some("one"))).await.unwrap();
    update(&fleet, &saved.policy, with_secret(PolicyDraft::default(), "PW", Some("two"))).await.unwrap();
    let now = find::<PoliciesRead>(&fleet, saved.policy.id.as_str()).await.unwrap();
    let ids: Vec<SecretId> = [&saved.policy, &now].iter().map(|policy| policy.secrets[0].1.clone()).collect();
    assert_eq!(fleet.store().secrets(&ids).await.unwrap().len(), 2);
    fleet.inner().policy_cache.newest(&saved.policy.id).await.unwrap().unwrap();

    delete(&fleet, saved.policy.id.as_str()).await.unwrap();
    assert!(fleet.store().secrets(&ids).await.unwrap().is_empty());
    assert!(fleet.store().enrollment_key(&saved.enrollment_key.unwrap().id).await.unwrap().is_none());
    assert!(fleet.inner().policy_cache.refresh(&saved.policy.id).await.unwrap().is_none());
    assert!(fleet.inner().policy_cache.cached(&saved.policy.id, 1).is_none());
}

#[tokio::test]
async fn at_most_one_policy_is_the_default() {
    let fleet = fleet();
    let first = fleet.policies().ensure_default().await.unwrap().unwrap();
    assert!(first.policy.is_default && first.enrollment_key.is_some());
    assert!(fleet.policies().ensure_default().await.unwrap().is_none());
    let second = PolicyDraft { is_default: Some(true), ..draft("other", json!({})) };
    let second = fleet.policies().create(&grant(), second).await.unwrap();
    let marked = |policies: Vec<Policy>| -> Vec<PolicyId> {
        policies.into_iter().filter(|policy| policy.is_default).map(|policy| policy.id).collect()
    };
    assert_eq!(
        marked(all_in(fleet.store.within(&System, &SpaceId::default())).await.unwrap()),
        std::slice::from_ref(&second.policy.id)
    );
    for id in [&first.policy.id, &second.policy.id] {
        delete(&fleet, id.as_str()).await.unwrap();
    }
    assert!(fleet.policies().ensure_default().await.unwrap().is_none(), "who deletes it does not get it again");
}

#[tokio::test]
async fn changed_output_revises_only_the_policies_that_use_it() {
    let fleet = fleet();
    let own = json!({"outputs": {"default": {"type": "kafka", "hosts": ["k:1"]}}, "inputs": [{"type": "a"}]});
    let default = create(&fleet, "default", json!({})).await.policy;
    let own = create(&fleet, "own", own).await.policy;
    let second = PolicyDraft { fields: fields(json!({"data_output_id": "two"})), ..draft("second", json!({})) };
    assert_eq!(
        fleet.policies().create(&grant(), second.clone()).await.unwrap_err().field.as_deref(),
        Some("data_output_id")
    );

    fleet.outputs().create(&grant(), output("two", hosts())).await.unwrap();
    let second = fleet.policies().create(&grant(), second).await.unwrap().policy;
    let one = OutputDraft { is_default: Some(true), ..output("one", hosts()) };
    fleet.outputs().create(&grant(), one).await.unwrap();
    let revisions = async || {
        let mut found = Vec::new();
        for id in [&default.id, &own.id, &second.id] {
            found.push(find::<PoliciesRead>(&fleet, id.as_str()).await.unwrap().revision);
        }
        found
    };
    assert_eq!(revisions().await, [2, 1, 1]);
    assert_eq!(sent(&fleet, &default.id).await["outputs"]["default"]["hosts"], json!(["https://es:9200"]));

    let renamed = OutputDraft { name: Some("renamed".into()), ..OutputDraft::default() };
    update_output(&fleet, "one", renamed).await.unwrap();
    assert_eq!(revisions().await, [2, 1, 1], "agents get nothing else");
    let moved = OutputDraft { fields: fields(json!({"hosts": ["https://new:9200"]})), ..OutputDraft::default() };
    update_output(&fleet, "two", moved).await.unwrap();
    assert_eq!(revisions().await, [2, 1, 2]);
    let mark = OutputDraft { is_default: Some(true), ..OutputDraft::default() };
    update_output(&fleet, "two", mark).await.unwrap();
    assert_eq!(revisions().await, [3, 1, 2]);
    let held: Vec<OutputId> = fleet
        .outputs()
        .list(&grant())
        .await
        .unwrap()
        .into_iter()
        .filter(|output| output.is_default)
        .map(|o| o.id)
        .collect();
    assert_eq!(held, [OutputId::trusted("two")]);

    assert_eq!(delete_output(&fleet, "two").await.unwrap_err().code, "output_is_default");
    delete_output(&fleet, "one").await.unwrap();
    assert_eq!(fleet.outputs().find::<PoliciesRead>(&root(), "one").await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn output_health_compiles_each_revision_once() {
    let fleet = fleet();
    fleet.outputs().create(&grant(), output("two", hosts())).await.unwrap();
    let web = create(&fleet, "web", json!({"inputs": [{"type": "a", "use_output": "two"}]})).await.policy;
    create(&fleet, "other", json!({})).await;
    let ask = async || fleet.outputs().health(&grant(), "two").await.unwrap().message;
    for _ in 0..3 {
        assert!(ask().await.contains("no agent"));
    }
    assert_eq!(fleet.policies().output_uses.insertions(), 2, "two policies");
    update(&fleet, &web, draft("web", json!({"inputs": [{"type": "process", "command": "/x"}]}))).await.unwrap();
    assert!(ask().await.contains("no policy"));
    assert_eq!(fleet.policies().output_uses.insertions(), 3, "one new revision");
    let renamed = OutputDraft { name: Some("renamed".into()), ..OutputDraft::default() };
    update_output(&fleet, "two", renamed).await.unwrap();
    ask().await;
    assert_eq!(fleet.policies().output_uses.insertions(), 5, "other outputs: all anew");
}

#[tokio::test]
async fn output_in_use_is_not_deleted() {
    let fleet = fleet();
    fleet.outputs().create(&grant(), output("two", hosts())).await.unwrap();
    create(&fleet, "web", json!({"inputs": [{"type": "a", "use_output": "two"}]})).await;
    let refused = delete_output(&fleet, "two").await.unwrap_err();
    assert_eq!((refused.code, refused.message.contains("\"web\"")), ("output_in_use", true));
}

#[tokio::test]
async fn output_secrets_are_ids_in_the_api_and_values_for_agents() {
    let fleet = fleet();
    let given = json!({"hosts": ["https://es:9200"], "ssl": {"key": "KEY"}, "secrets": {"password": "pw"}});
    let draft = OutputDraft { is_default: Some(true), ..output("one", given) };
    let made = fleet.outputs().create(&grant(), draft.clone()).await.unwrap();
    assert!(!made.fields.to_string().contains("KEY") && made.fields.get("ssl").is_none());
    let id = made.fields["secrets"]["ssl"]["key"]["id"].as_str().unwrap().to_owned();
    let policy = create(&fleet, "web", json!({})).await.policy;
    let entry = sent(&fleet, &policy.id).await["outputs"]["default"].clone();
    assert_eq!((&entry["ssl"]["key"], &entry["password"]), (&json!("KEY"), &json!("pw")));

    let same = OutputDraft { fields: draft.fields, ..OutputDraft::default() };
    assert_eq!(update_output(&fleet, "one", same).await.unwrap(), made);
    let kept = json!({"secrets": {"ssl": {"key": {"id": id}}, "password": null}});
    let kept = OutputDraft { fields: fields(kept), ..OutputDraft::default() };
    let kept = update_output(&fleet, "one", kept).await.unwrap();
    assert_eq!(kept.fields["secrets"], json!({"ssl": {"key": {"id": id}}}));
    assert!(sent(&fleet, &policy.id).await["outputs"]["default"].get("password").is_none());

    for (given, field) in [
        (json!({"secrets": {"ssl": {"key": {"id": "stolen"}}}}), "secrets.ssl.key"),
        (json!({"secrets": {"pasword": "x"}}), "secrets.pasword"),
        (json!({"hosts": ["es:9200"]}), "hosts.0"),
    ] {
        let draft = OutputDraft { fields: fields(given), ..OutputDraft::default() };
        let refused = update_output(&fleet, "one", draft).await.unwrap_err();
        assert_eq!((refused.kind, refused.field.as_deref()), (ErrorKind::Invalid, Some(field)));
    }
}

#[tokio::test]
async fn changed_url_revises_policies_once_at_startup() {
    let store: Arc<dyn Store> = Arc::new(muster_store::testing::fresh());
    let sealer = Arc::new(Sealer::new(&[7; 32]).unwrap());
    let signer = ensure_signing_key(&*store, &sealer, &SystemEntropy::default()).await.unwrap();
    let before = fleet_at(store.clone(), sealer.clone(), signer.clone(), "https://old:8220");
    let policy = create(&before, "web", json!({})).await.policy;
    assert_eq!(before.policies().revise_outdated().await.unwrap(), 0);
    let after = fleet_at(store, sealer, signer, "https://new:8220");
    assert_eq!(after.policies().revise_outdated().await.unwrap(), 1);
    assert_eq!(after.policies().revise_outdated().await.unwrap(), 0);
    let sent = sent(&after, &policy.id).await;
    assert_eq!((&sent["fleet"]["hosts"], &sent["revision"]), (&json!(["https://new:8220"]), &json!(2)));
}

#[tokio::test]
async fn ea99_concurrent_requests_render_a_revision_once() {
    let fleet = fleet();
    let policy = create(&fleet, "web", json!({})).await.policy;
    assert!(fleet.inner().policy_cache.cached(&policy.id, 1).is_none());
    let asks = (0..50).map(|_| {
        let (fleet, id) = (fleet.clone(), policy.id.clone());
        tokio::spawn(async move { fleet.inner().policy_cache.newest(&id).await.unwrap().unwrap() })
    });
    let mut answers = Vec::new();
    for ask in asks.collect::<Vec<_>>() {
        answers.push(ask.await.unwrap());
    }
    assert!(answers.iter().all(|answer| Arc::ptr_eq(answer, &answers[0])));
    let same = fleet.inner().policy_cache.refresh(&policy.id).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&same, &answers[0]), "the same revision is not rendered again");

    for text in ["two", "three"] {
        let change = PolicyDraft { description: Some(text.into()), ..PolicyDraft::default() };
        update(&fleet, &policy, change).await.unwrap();
    }
    assert_eq!(fleet.inner().policy_cache.newest(&policy.id).await.unwrap().unwrap().revision, 1, "until it is told");
    assert_eq!(fleet.inner().policy_cache.refresh(&policy.id).await.unwrap().unwrap().revision, 3);
    assert_eq!(fleet.inner().policy_cache.cached(&policy.id, 3).unwrap().revision, 3);
    assert!(fleet.inner().policy_cache.cached(&policy.id, 1).is_none(), "nobody follows it any more");
    assert_eq!(fleet.inner().policy_cache.get(&policy.id, 2).await.unwrap().unwrap().revision, 2);
    assert_eq!(fleet.inner().policy_cache.newest_revision(&policy.id).await.unwrap(), Some(3));
    assert!(
        fleet.inner().policy_cache.get(&policy.id, 9).await.unwrap().is_none()
            && fleet.inner().policy_cache.cached(&policy.id, 9).is_none()
    );
}

#[tokio::test]
async fn cache_evicts_the_least_recently_used_revision() {
    let fleet = fleet();
    let cache = PolicyCache::bounded(Arc::clone(&fleet.inner().store), fleet.inner().sealer.clone(), 2, usize::MAX);
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(create(&fleet, name, json!({})).await.policy.id);
    }
    cache.newest(&ids[0]).await.unwrap().unwrap();
    cache.newest(&ids[1]).await.unwrap().unwrap();
    cache.cached(&ids[0], 1).unwrap();
    cache.newest(&ids[2]).await.unwrap().unwrap();
    assert!(cache.cached(&ids[1], 1).is_none());
    assert!(cache.cached(&ids[0], 1).is_some() && cache.cached(&ids[2], 1).is_some());
    let tight = PolicyCache::bounded(Arc::clone(&fleet.inner().store), fleet.inner().sealer.clone(), 100, 1);
    tight.newest(&ids[0]).await.unwrap().unwrap();
    tight.newest(&ids[1]).await.unwrap().unwrap();
    assert!(tight.cached(&ids[0], 1).is_none() && tight.cached(&ids[1], 1).is_some());
    assert!(tight.newest(&PolicyId::trusted("nobody")).await.unwrap().is_none());
}

#[tokio::test]
async fn policy_with_a_missing_secret_is_an_error() {
    let fleet = fleet();
    let config = json!({"inputs": [{"type": "process", "command": "/x", "password": "$co.elastic.secret{PW}"}]});
    let saved = fleet.policies().create(&grant(), with_secret(draft("web", config), "PW", Some("one"))).await.unwrap();
    let id = saved.policy.secrets[0].1.clone();
    fleet.store().commit(vec![Write::Secret(SecretWrite::Delete { id })]).await.unwrap();
    let error = fleet.inner().policy_cache.newest(&saved.policy.id).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(error.source.unwrap().to_string().contains("do not exist"));
}

fn apply(text: &str) -> Application {
    Application { text: text.into(), ..Application::default() }
}

#[tokio::test]
async fn applying_a_file_creates_or_updates_the_policy_and_returns_the_differences() {
    let fleet = fleet();
    let text = "name: web\nsettings: {unenroll_timeout: 60}\nconfig: {inputs: [{id: a, type: process, command: /x}]}\n";
    let dry = fleet.policies().apply(&root().trying(true), apply(text)).await.unwrap();
    assert_eq!((dry.previous_revision, dry.saved.changed), (None, true));
    assert!(
        fleet.policies().named(&grant(), &[], &["web".into()]).await.unwrap().0.is_empty(),
        "a dry run changes nothing"
    );
    let made = fleet.policies().apply(&root(), apply(text)).await.unwrap();
    assert_eq!((made.previous_revision, made.saved.policy.revision), (None, 1));
    let again = fleet.policies().apply(&root(), apply(text)).await.unwrap();
    assert_eq!((again.saved.changed, again.changes.len()), (false, 0));

    let other = text.replace("60", "null").replace("id: a", "id: b");
    let secret = || BTreeMap::from([("KEY".to_owned(), Some(Zeroizing::new("x".to_owned())))]);
    let changed = fleet.policies().apply(&root(), Application { secrets: secret(), ..apply(&other) }).await.unwrap();
    let paths: Vec<&str> = changed.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["/config/inputs/a", "/config/inputs/b", "/unenroll_timeout"]);
    assert_eq!((changed.previous_revision, changed.secrets), (Some(1), vec!["KEY".to_owned()]));
    assert_eq!((changed.saved.policy.revision, changed.saved.policy.unenroll_timeout), (2, None));
    let same = fleet.policies().apply(&root(), Application { secrets: secret(), ..apply(&other) }).await.unwrap();
    assert!(same.secrets.is_empty() && !same.saved.changed, "the value is the same");
}

#[tokio::test]
async fn concurrent_applies_with_the_same_expected_version_conflict() {
    let fleet = fleet();
    let expecting = |text: &str, revision| Application {
        expected: Expected { revision: Some(revision), version: None },
        ..apply(text)
    };
    fleet.policies().apply(&root(), expecting("name: web\n", 0)).await.unwrap();
    let late = fleet.policies().apply(&root(), expecting("name: web\ndescription: late\n", 0)).await.unwrap_err();
    assert_eq!((late.kind, late.code), (ErrorKind::Conflict, "policy_changed"));
    fleet.policies().apply(&root(), expecting("name: web\ndescription: one\n", 1)).await.unwrap();
    let late = fleet.policies().apply(&root(), expecting("name: web\ndescription: two\n", 1)).await.unwrap_err();
    assert!(late.message.contains("expected 1, found 2"), "{}", late.message);
}

#[tokio::test]
async fn problems_and_warnings_of_a_file_have_positions() {
    let fleet = fleet();
    let bad = "name: web\nsettings:\n  data_output_id: none\nconfig:\n  inputs: [{type: a, password: '$co.elastic.secret{PW}'}]\n";
    let error = fleet.policies().apply(&root(), apply(bad)).await.unwrap_err();
    let placed = |problems: &Problems| -> Vec<String> {
        problems
            .0
            .iter()
            .map(|it| format!("{} {}", it.place.map(|at| at.to_string()).unwrap_or_default(), it.path))
            .collect()
    };
    assert_eq!(placed(error.problems.as_deref().unwrap()), ["5:22 config.inputs.0.password"]);
    let bad = bad.replace("password: '$co.elastic.secret{PW}'", "x: 1");
    let error = fleet.policies().apply(&root(), apply(&bad)).await.unwrap_err();
    let found = placed(error.problems.as_deref().unwrap());
    assert!(found.contains(&"3:3 settings.data_output_id".to_owned()), "{found:?}");
    assert!(error.message.starts_with(&found[0][4..]), "{}", error.message);
    let warned =
        fleet.policies().apply(&root(), apply("name: web\nconfig:\n  agent.monitoring.logs: true\n")).await.unwrap();
    assert_eq!(placed(&warned.saved.warnings), ["3:3 config.agent.monitoring"]);
    let secrets = BTreeMap::from([("PW".to_owned(), Some(Zeroizing::new("a${b".to_owned())))]);
    let warned = fleet.policies().apply(&root(), Application { secrets, ..apply("name: web\n") }).await.unwrap();
    let told = &warned.saved.warnings.0;
    assert!(told.iter().any(|warning| warning.path == "secrets.PW" && !warning.reason.contains("a${b")), "{told:?}");
}

#[tokio::test]
async fn policies_are_looked_up_by_ids_and_names() {
    let fleet = fleet();
    let one = create(&fleet, "one", json!({})).await.policy;
    create(&fleet, "two", json!({})).await;
    let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let (found, missing) = fleet
        .policies()
        .named(&grant(), &texts(&[one.id.as_str(), "no/id"]), &texts(&["two", "one", "three"]))
        .await
        .unwrap();
    let names: Vec<&str> = found.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!((names, missing), (vec!["one", "two"], texts(&["no/id", "three"])));
    let many = vec!["x".to_owned(); 1001];
    assert_eq!(fleet.policies().named(&grant(), &[], &many).await.unwrap_err().field.as_deref(), Some("ids"));
}

/// Administrators override settings of an output in YAML, including passwords.
#[tokio::test]
async fn secrets_in_output_yaml_are_sealed_and_delivered() {
    let fleet = fleet();
    let text =
        "# of the team\nbulk_max_size: 50\npassword: hunter2-plain\nproxy_headers:\n  Authorization: Basic-plain\n";
    let with_yaml = |text: &str| {
        let mut more = fields(hosts());
        more.insert("config_yaml".into(), text.into());
        output("two", Value::Object(more))
    };
    let made = fleet.outputs().create(&grant(), with_yaml(text)).await.unwrap();
    let saved = create(&fleet, "web", json!({"inputs": [{"type": "a", "use_output": "two"}]})).await;
    let sent_output = async || sent(&fleet, &saved.policy.id).await["outputs"]["two"].clone();
    let got = sent_output().await;
    assert_eq!((&got["password"], &got["bulk_max_size"]), (&json!("hunter2-plain"), &json!(50)));
    assert_eq!(got["proxy_headers"]["Authorization"], "Basic-plain");

    let shown = made.fields["config_yaml"].as_str().unwrap().to_owned();
    assert!(shown.starts_with("# of the team\nbulk_max_size: 50\npassword: \"$co.elastic.secret{"), "{shown}");
    let revision = fleet.store().policy_newest_revision(&saved.policy.id).await.unwrap().unwrap();
    for stored in [made.fields.to_string(), revision.compiled.to_string()] {
        assert!(!stored.contains("-plain"), "{stored}");
    }

    // The displayed YAML can be sent back, and equal secrets are no change.
    for same in [shown.as_str(), text] {
        let again = OutputDraft { id: None, ..with_yaml(same) };
        let again = update_output(&fleet, "two", again).await.unwrap();
        assert_eq!(again.fields, made.fields);
    }
    // A replaced and a removed value: secrets without a reference are deleted.
    let changed = OutputDraft { id: None, ..with_yaml(&text.replace("hunter2", "hunter3")) };
    let changed = update_output(&fleet, "two", changed).await.unwrap();
    assert_eq!(sent_output().await["password"], "hunter3-plain");
    let cleared = OutputDraft { fields: fields(json!({"config_yaml": null})), ..OutputDraft::default() };
    update_output(&fleet, "two", cleared).await.unwrap();
    let ids: Vec<_> = [&made, &changed].iter().flat_map(|output| crate::inline_seals::ids(&output.fields)).collect();
    assert_eq!(ids.len(), 4);
    assert!(fleet.store().secrets(&ids).await.unwrap().is_empty());

    // The secret of another output can't be used by its id.
    let stolen = OutputDraft { id: Some("thief".into()), name: Some("thief".into()), ..with_yaml(&shown) };
    let refused = fleet.outputs().create(&grant(), stolen).await.unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("config_yaml"));
}
