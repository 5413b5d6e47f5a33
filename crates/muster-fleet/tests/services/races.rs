//! Two servers over one store that change the same thing: what one decides must hold when the other commits first.
//!
//! Each test runs the other server's change between the first server's reads and its commit.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use muster_core::authorization::{Actor, OpContext, PoliciesRead};
use muster_core::id::SpaceId;
use muster_core::policy::Policy;
use muster_fleet::FleetSettings;
use muster_fleet::host_checks::CheckDraft;
use muster_fleet::labels::LabelDraft;
use muster_fleet::outputs::OutputDraft;
use muster_fleet::packs::PackDraft;
use muster_fleet::policies::PolicyDraft;
use muster_fleet::policies::apply::Application;
use muster_fleet::testing::{TestFleet, steady};
use muster_fleet::upload_limits::UploadLimits;
use muster_fleet::uploads::NewUpload;
use muster_fleet::urls::OwnUrls;
use muster_store::query::{AgentFilter, Page};
use muster_store::testing::{Gate, Gated, fresh};
use muster_store::{Store, StoreError, Write};
use serde_json::{Value, json};

type Change = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a change of the other server before this server's next commit.
#[derive(Default)]
struct Overtake(Mutex<Option<Change>>);

impl Gate for Overtake {
    fn commit(&self, _writes: &[Write]) -> Result<(), StoreError> {
        let change = self.0.lock().expect("no test panics with the lock").take();
        if let Some(change) = change {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(change));
        }
        Ok(())
    }
}

/// The server under test, and the one that overtakes it.
struct Two {
    gated: Arc<Gated<Overtake>>,
    one: TestFleet,
    other: Arc<TestFleet>,
}

impl Two {
    fn new() -> Self {
        Self::with(steady(), steady())
    }

    fn with(one: FleetSettings, other: FleetSettings) -> Self {
        let store: Arc<dyn Store> = Arc::new(fresh());
        let gated = Arc::new(Gated::new(Arc::clone(&store), Overtake::default()));
        let one = TestFleet::over(gated.clone(), one);
        let other = Arc::new(one.beside_over(store, other));
        Self { gated, one, other }
    }

    /// Before the next commit of the first server.
    fn meanwhile<F: Future<Output = ()> + Send + 'static>(&self, change: impl FnOnce(Arc<TestFleet>) -> F) {
        let change = change(Arc::clone(&self.other));
        *self.gated.gate().0.lock().expect("no test panics with the lock") = Some(Box::pin(change));
    }

    async fn policies(&self) -> Vec<Policy> {
        let page = Page { offset: 0, limit: 100 };
        self.other.store().policies(Some(&SpaceId::default()), page).await.expect("readable").items
    }

    /// The newest compiled revision of the policy with this name.
    async fn compiled(&self, name: &str) -> Value {
        let policies = self.other.fleet.policies();
        let policy = policies.find_by_name::<PoliciesRead>(&root(), name).await.expect("there");
        policies.revision(&policy, policy.revision).await.expect("stored").compiled
    }
}

fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

fn named(name: &str) -> PolicyDraft {
    PolicyDraft { name: Some(name.into()), ..PolicyDraft::default() }
}

async fn create(fleet: &TestFleet, draft: PolicyDraft) {
    fleet.fleet.policies().create(&root().grant().expect("all rights"), draft).await.expect("it compiles");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_policy_stays_the_default_when_two_servers_create_one() {
    let two = Two::new();
    let default = |name: &str| PolicyDraft { is_default: Some(true), ..named(name) };
    two.meanwhile(async move |other| create(&other, default("theirs")).await);
    create(&two.one, default("ours")).await;
    let defaults: Vec<String> =
        two.policies().await.into_iter().filter(|policy| policy.is_default).map(|policy| policy.name).collect();
    assert_eq!(defaults, ["ours"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_file_applied_on_two_servers_creates_one_policy() {
    let two = Two::new();
    let apply = async |fleet: &TestFleet| {
        let file = Application { text: "name: web\nconfig: {}\n".into(), ..Application::default() };
        fleet.fleet.policies().apply(&root(), file).await.expect("it applies")
    };
    two.meanwhile(async move |other| drop(apply(&other).await));
    let applied = apply(&two.one).await;
    assert_eq!(applied.previous_revision, Some(1), "it found the other server's policy");
    assert_eq!(two.policies().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_is_compiled_with_the_outputs_that_another_server_commits_first() {
    let two = Two::new();
    two.meanwhile(async move |other| {
        let output = OutputDraft {
            name: Some("es".into()),
            kind: Some("elasticsearch".into()),
            is_default: Some(true),
            fields: [("hosts".to_owned(), json!(["https://es:9200"]))].into_iter().collect(),
            ..OutputDraft::default()
        };
        other.fleet.outputs().create(&root().grant().expect("all rights"), output).await.expect("it fits");
    });
    create(&two.one, named("web")).await;
    assert_eq!(two.compiled("web").await["outputs"]["default"]["hosts"], json!(["https://es:9200"]));
}

fn configured(url: &str) -> FleetSettings {
    FleetSettings { urls: OwnUrls { configured: vec![url.into()], derived: None }, ..steady() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_is_compiled_with_the_url_that_another_server_sets_first() {
    let two = Two::with(configured("https://old:8220"), configured("https://new:8220"));
    two.one.fleet.urls().settle().await.expect("stored");
    two.meanwhile(async move |other| {
        other.fleet.urls().settle().await.expect("stored");
        assert_eq!(other.fleet.policies().revise_outdated().await.expect("compiled"), 0, "there is no policy yet");
    });
    create(&two.one, named("web")).await;
    assert_eq!(two.compiled("web").await["fleet"]["hosts"], json!(["https://new:8220"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_at_once_with_a_new_url_revise_each_policy_once() {
    let two = Two::with(configured("https://new:8220"), configured("https://new:8220"));
    create(&two.one, named("web")).await;
    let start = async |fleet: &TestFleet| {
        fleet.fleet.urls().settle().await.expect("stored");
        fleet.fleet.policies().revise_outdated().await.expect("compiled");
    };
    // The first policy was compiled with the URL of this start; an older one of the fleet was another.
    let before = two.one.beside_over(two.gated.clone(), configured("https://old:8220"));
    start(&before).await;
    assert_eq!(two.policies().await[0].revision, 2);
    two.meanwhile(async move |other| start(&other).await);
    start(&two.one).await;
    assert_eq!(two.policies().await[0].revision, 3);
    assert_eq!(two.compiled("web").await["fleet"]["hosts"], json!(["https://new:8220"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ea46_agent_that_enrolls_with_one_id_on_two_servers_is_one_agent() {
    let two = Two::new();
    two.other.revised_policy("p", |_| {}).await;
    let key = two.other.add_key(Some("p"), |key| key.max_uses = Some(2)).await;
    let body = json!({"type": "PERMANENT", "id": "fixed", "replace_token": "open"});
    let (theirs, their_key) = (body.clone(), key.clone());
    two.meanwhile(async move |other| drop(other.enroll(&their_key, &theirs).await.expect("admitted")));
    let enrolled = two.one.enroll(&key, &body).await.expect("it replaces itself");
    let ids = two.other.store().agent_ids(&AgentFilter::default(), None, 10).await.expect("readable");
    assert_eq!(ids.len(), 1);
    two.other.entry(&enrolled).await.expect("the key of the last enrollment works on either server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_place_for_an_upload_is_given_once() {
    let two = Two::new();
    two.other.revised_policy("p", |_| {}).await;
    let key = two.other.add_key(Some("p"), |_| {}).await;
    let agent = two.other.enroll(&key, &json!({"type": "PERMANENT"})).await.expect("admitted");
    let limits = UploadLimits { max_open_per_agent: 1, min_free_bytes: 0, ..UploadLimits::default() };
    let begin = move |fleet: Arc<TestFleet>, agent: Arc<_>, action: &'static str| async move {
        let (source, name, mime_type) = (Some("agent"), Some("a.zip"), Some("application/zip"));
        let new = NewUpload { action_id: Some(action), source, name, mime_type, size: Some(1) };
        fleet.fleet.files().begin_upload(&agent, &new, &limits).await
    };
    let entry = two.other.entry(&agent).await.expect("authenticated");
    let there = Arc::clone(&entry);
    two.meanwhile(async move |other| drop(begin(other, there, "a").await.expect("it is the first")));
    let one = Arc::new(two.one);
    let refused = begin(one, entry, "b").await.expect_err("the other server gave the only place");
    assert!(refused.denial.is_some(), "{refused}");
}

fn check_of(label: &str) -> CheckDraft {
    CheckDraft {
        name: Some("c".into()),
        query: Some("SELECT 1".into()),
        labels: Some(vec![label.into()]),
        ..CheckDraft::default()
    }
}

fn pack_of(label: &str) -> PackDraft {
    PackDraft { name: "p".into(), labels: vec![label.into()], document: "queries: {}".into(), ..PackDraft::default() }
}

async fn label(fleet: &TestFleet, name: &str) -> String {
    let draft = LabelDraft { name: Some(name.into()), ..LabelDraft::default() };
    let made = fleet.fleet.labels().create(&root().grant().expect("all rights"), draft, &[]).await;
    made.expect("it is new").label.id.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn label_that_another_server_uses_first_is_not_deleted_or_renamed() {
    let two = Two::new();
    let (grant, labels) = (root().grant().expect("all rights"), two.one.fleet.labels());
    let id = label(&two.one, "lab").await;
    two.meanwhile(async move |other| {
        let grant = root().grant().expect("all rights");
        drop(other.fleet.host_checks().create(&grant, check_of("lab")).await.expect("the label is there"));
    });
    assert_eq!(labels.delete(&grant, &id).await.expect_err("it is used").code, "label_changed");
    assert_eq!(labels.delete(&grant, &id).await.expect_err("it is used").code, "label_in_use");

    let id = label(&two.one, "web").await;
    two.meanwhile(async move |other| drop(other.fleet.packs().save(&root(), pack_of("web")).await.expect("there")));
    let renamed = || LabelDraft { name: Some("www".into()), ..LabelDraft::default() };
    assert_eq!(labels.update(&grant, &id, renamed(), None).await.expect_err("it is used").code, "label_changed");
    assert_eq!(labels.update(&grant, &id, renamed(), None).await.expect_err("it is used").code, "label_in_use");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn label_that_another_server_deletes_or_renames_first_gets_no_users() {
    let two = Two::new();
    let fleet = &two.one.fleet;
    let id = label(&two.one, "lab").await;
    two.meanwhile(async move |other| {
        let grant = root().grant().expect("all rights");
        other.fleet.labels().delete(&grant, &id).await.expect("nothing uses it");
    });
    let refused = fleet.host_checks().create(&root().grant().expect("all rights"), check_of("Lab")).await;
    assert_eq!(refused.expect_err("it is gone").code, "label_changed");

    let id = label(&two.one, "web").await;
    two.meanwhile(async move |other| {
        let draft = LabelDraft { name: Some("www".into()), ..LabelDraft::default() };
        let grant = root().grant().expect("all rights");
        drop(other.fleet.labels().update(&grant, &id, draft, None).await.expect("nothing uses it"));
    });
    assert_eq!(fleet.packs().save(&root(), pack_of("web")).await.expect_err("it is gone").code, "label_changed");
    assert!(fleet.packs().list(&root().grant().expect("all rights")).await.expect("readable").is_empty());
}
