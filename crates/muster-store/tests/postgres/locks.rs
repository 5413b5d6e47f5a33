//! Locks that keep rules which span several rows, among several nodes. In each test, a commit waits at its end while another
//! node commits what is allowed only before or after it.

use std::sync::Arc;

use muster_core::agent::AgentRecord;
use muster_core::authorization::{BindingScope, BuiltIn};
use muster_core::credential::{CredentialKind, LiveCredential, LiveCredentials, SecretHash};
use muster_core::file::Upload;
use muster_core::fleetd::labels::Label;
use muster_core::id::{BindingId, LabelId, PolicyId, SpaceId, UserId};
use muster_core::identity::{Binding, Subject, User};
use muster_core::network_object::{NetworkObject, NetworkObjectKind};
use muster_core::output::Output;
use muster_core::testing::network_object;
use muster_store::testing::Cluster;
use muster_store::{
    AgentStore as _, AgentWrite, Committed, FileWrite, IdentityWrite, LabelWrite, LeaseName, LeaseStore as _,
    NetworkObjectStore as _, NetworkObjectWrite, OutputStore as _, OutputWrite, PolicyWrite, Precondition,
    SettingStore as _, SettingWrite, SqlStore, Store as _, StoreError, UploadLimit, UploadQuota, Write,
};

use super::several_nodes::{eventually, kill, open, schema, sql};
use super::suite::identity::{live, space};
use super::suite::sample::{action_id, agent_id, at, bare_agent, credential, insert, output, policy, upload};
use super::{blocking, put};

type Outcome = Result<Committed, StoreError>;

/// Makes a commit with the setting `held` wait between its last statement and its end, until [`release`].
async fn hold_commit(schema: &str) {
    sql(format!(
        "CREATE FUNCTION {schema}.hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM pg_advisory_xact_lock(hashtext('{schema}')); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON {schema}.settings DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW WHEN (NEW.name = 'held') EXECUTE FUNCTION {schema}.hold()"
    ))
    .await;
    hold(schema, &format!("SELECT pg_advisory_xact_lock(hashtext('{schema}'))")).await;
}

/// Takes a lock in a session of its own, until [`release`].
async fn hold(schema: &str, lock: &str) {
    let text = format!("BEGIN; {lock}; SELECT pg_sleep(60), 'holds {schema}'; ROLLBACK");
    // Its session is terminated, which is an error.
    tokio::spawn(blocking(move || Cluster::shared().psql(&text)));
    let asleep =
        format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%holds {schema}%'");
    eventually("the lock", async || sql(asleep.clone()).await == "1").await;
}

async fn release(schema: &str) {
    sql(format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE wait_event = 'PgSleep' AND query LIKE '%holds {schema}%'"
    ))
    .await;
}

/// Waits until so many statements of the schema's nodes that match a condition wait for a lock. Renewals of leases wait, too.
async fn waiting(schema: &str, count: &str, condition: &str, or: impl Fn() -> bool) {
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE wait_event_type = 'Lock' AND application_name = '{schema}' AND {condition}"
    );
    eventually("a statement that waits", async || or() || sql(waits.clone()).await == count).await;
}

/// A commit that waits at its end.
const IS_HELD: &str = "wait_event = 'advisory'";

fn spawn(store: &Arc<SqlStore>, writes: Vec<Write>) -> tokio::task::JoinHandle<Outcome> {
    let store = Arc::clone(store);
    tokio::spawn(async move { store.commit(writes).await })
}

/// Commits `first`, and before it ends, `second` on another node. Returns the second outcome, and the first node.
async fn overlapping(before: Vec<Write>, first: Vec<Write>, second: Vec<Write>) -> (Outcome, Arc<SqlStore>) {
    let schema = schema().await;
    let (slow, fast) = (Arc::new(open(&schema).await), Arc::new(open(&schema).await));
    slow.commit([before, put("before")].concat()).await.unwrap();
    hold_commit(&schema).await;
    let held = SettingWrite::Put { name: "held".into(), value: String::new() };
    let first = spawn(&slow, [first, vec![held.into()]].concat());
    waiting(&schema, "1", IS_HELD, || false).await;
    let second = spawn(&fast, second);
    waiting(&schema, "1", "query LIKE '%FROM locks%'", || second.is_finished()).await;
    release(&schema).await;
    first.await.unwrap().unwrap();
    (second.await.unwrap(), slow)
}

/// Fails when agents are inserted without the lock of the rule `References`. (Each test of a rule was tried with a `take` that does nothing.)
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_not_deleted_while_an_agent_enrolls_in_it() {
    let mut agent = bare_agent("a");
    agent.policy_id = Some(PolicyId::trusted("p"));
    let made = vec![PolicyWrite::Insert(Box::new(policy("p"))).into()];
    let delete = vec![PolicyWrite::Delete { id: PolicyId::trusted("p") }.into()];
    let (deleted, _) = overlapping(made, vec![insert(&agent)], delete).await;
    assert!(matches!(deleted, Err(StoreError::Conflict(Precondition::Changed(_)))), "{deleted:?}");
}

/// Fails when agents are inserted without the lock of the rule `References`.
#[tokio::test(flavor = "multi_thread")]
async fn a_space_is_not_deleted_while_an_agent_enrolls_in_it() {
    let mut agent = bare_agent("a");
    agent.space = SpaceId::trusted("red");
    let made = vec![IdentityWrite::InsertSpace(Box::new(space("red"))).into()];
    let delete = vec![IdentityWrite::DeleteSpace { id: SpaceId::trusted("red") }.into()];
    let (deleted, _) = overlapping(made, vec![insert(&agent)], delete).await;
    assert!(matches!(deleted, Err(StoreError::Conflict(Precondition::InUse(_)))), "{deleted:?}");
}

/// Fails when agents change their space, or the condition is checked, without the lock of the rule `Spaces`.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_not_deleted_by_the_space_that_it_is_leaving() {
    let before = bare_agent("a");
    let mut after = before.clone();
    (after.space, after.version) = (SpaceId::trusted("red"), before.version + 1);
    let moves = AgentWrite::Update { before: Arc::new(before.clone()), after: Arc::new(after) };
    let delete = vec![
        AgentWrite::InSpace { ids: vec![before.id.clone()], space: before.space.clone() }.into(),
        AgentWrite::Delete { id: before.id.clone(), now: at(9) }.into(),
    ];
    let (deleted, store) = overlapping(vec![insert(&before)], vec![moves.into()], delete).await;
    assert!(matches!(deleted, Err(StoreError::Conflict(Precondition::LeftSpace(_)))), "{deleted:?}");
    assert!(store.agent(&before.id).await.unwrap().is_some());
}

/// Fails when certificates are compared without the lock of the rule `Certificates`: neither program exists when the other enrolls.
#[tokio::test(flavor = "multi_thread")]
async fn fl148_two_programs_of_a_host_are_not_bound_to_different_certificates() {
    let enrolls = |id: &str, other: &str, byte: u8| {
        let certificate = Some(SecretHash([byte; 32]));
        let credential = LiveCredential { certificate, ..credential(id, CredentialKind::NodeKey, 1) };
        let agent = AgentRecord { credentials: LiveCredentials::one(credential), ..bare_agent(id) };
        vec![AgentWrite::BoundAlike { id: agent_id(other), certificate }.into(), insert(&agent)]
    };
    let (second, store) = overlapping(Vec::new(), enrolls("a", "b", 1), enrolls("b", "a", 2)).await;
    assert!(matches!(second, Err(StoreError::Conflict(Precondition::Changed(_)))), "{second:?}");
    assert!(store.agent(&agent_id("b")).await.unwrap().is_none());
}

/// Fails when outputs are put without the lock of the rule `References`: both are then the default.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_do_not_leave_two_default_outputs() {
    let default = |id: &str| vec![OutputWrite::Put(Box::new(Output { is_default: true, ..output(id) })).into()];
    let (second, store) = overlapping(Vec::new(), default("a"), default("b")).await;
    second.unwrap();
    let outputs = store.outputs(&SpaceId::default()).await.unwrap();
    let defaults: Vec<_> = outputs.iter().filter(|output| output.is_default).map(|output| output.id.as_str()).collect();
    assert_eq!(defaults, ["b"]);
}

/// Fails when network objects are put without the lock of the rule `References`: both are then the default.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_do_not_leave_two_default_network_objects() {
    let default = |id: &str| {
        let object = NetworkObject { is_default: true, ..network_object(NetworkObjectKind::ServerHost, id) };
        vec![NetworkObjectWrite::Put(Box::new(object)).into()]
    };
    let (second, store) = overlapping(Vec::new(), default("a"), default("b")).await;
    second.unwrap();
    let objects = store.network_objects(&SpaceId::default()).await.unwrap();
    let defaults: Vec<_> = objects.iter().filter(|object| object.is_default).map(|object| object.id.as_str()).collect();
    assert_eq!(defaults, ["b"]);
}

/// Fails when the existence of labels, or that a setting is unchanged, is checked without the lock of the rule `References`.
#[tokio::test(flavor = "multi_thread")]
async fn a_label_is_not_deleted_while_it_gets_used() {
    let label = Label {
        id: LabelId::trusted("l"),
        space: SpaceId::default(),
        version: 1,
        name: "Lab".into(),
        description: String::new(),
        query: None,
        platforms: Vec::new(),
        created_at: at(1),
    };
    let made = || vec![LabelWrite::Insert(Box::new(label.clone())).into()];
    let delete = || -> Vec<Write> {
        let unchanged = SettingWrite::Unchanged { name: "users".into(), value: None };
        vec![unchanged.into(), LabelWrite::Delete { id: label.id.clone() }.into()]
    };
    let using = || -> Vec<Write> {
        let exist = LabelWrite::Exist { space: SpaceId::default(), names: vec!["lab".into()] };
        vec![exist.into(), SettingWrite::Swap { name: "users".into(), before: None, value: "lab".into() }.into()]
    };
    let (deleted, _) = overlapping(made(), using(), delete()).await;
    assert!(matches!(deleted, Err(StoreError::Conflict(Precondition::Changed(_)))), "{deleted:?}");
    let (used, store) = overlapping(made(), delete(), using()).await;
    assert!(matches!(used, Err(StoreError::Conflict(Precondition::Missing(_)))), "{used:?}");
    assert_eq!(store.setting("users").await.unwrap(), None);
}

/// Fails when uploads are counted without the lock of the rule `Uploads`.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_do_not_admit_more_uploads_than_an_agent_may_have() {
    let quota = UploadQuota { bytes: 9, open_since: at(5), max_open: 1, max_records: 10, max_bytes: 100 };
    let begin = |name: &str| {
        let fits = FileWrite::UploadFits { agent: agent_id("a"), action: action_id(name), quota }.into();
        let upload = Upload { started_at: at(10), ..upload(name, name, "a") };
        vec![fits, FileWrite::InsertUpload(Box::new(upload)).into()]
    };
    let (second, _) = overlapping(Vec::new(), begin("x"), begin("y")).await;
    assert!(matches!(second, Err(StoreError::Conflict(Precondition::OverLimit(UploadLimit::Open)))), "{second:?}");
}

/// Fails when administrators are counted without the lock of the rule `Identity`.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_do_not_remove_the_last_two_administrators() {
    let user = |id: &str| -> Write { IdentityWrite::InsertUser(Box::new(User { ..live(id) })).into() };
    let bind = |id: &str, user: &str| -> Write {
        let binding = Binding {
            id: BindingId::trusted(id),
            subject: Subject::User(UserId::trusted(user)),
            role: BuiltIn::Administrator.id(),
            scope: BindingScope::System,
            created_at: at(1),
            created_by: "system".into(),
        };
        IdentityWrite::InsertBinding(Box::new(binding)).into()
    };
    let unbind = |id: &str| -> Vec<Write> {
        vec![
            IdentityWrite::DeleteBinding { id: BindingId::trusted(id) }.into(),
            IdentityWrite::KeepsAdministrator.into(),
        ]
    };
    let made = vec![user("a"), user("b"), bind("b1", "a"), bind("b2", "b")];
    let (second, _) = overlapping(made, unbind("b1"), unbind("b2")).await;
    assert!(matches!(second, Err(StoreError::Conflict(Precondition::LastAdministrator))), "{second:?}");
}

/// Fails when `MARK_COMMIT` does not lock the node's row: the node is then lost before its commit is visible. (Tried without `FOR SHARE`.)
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_not_lost_while_one_of_its_commits_ends() {
    let schema = schema().await;
    let (slow, witness) = (Arc::new(open(&schema).await), open(&schema).await);
    hold_commit(&schema).await;
    let committing = spawn(&slow, put("held"));
    waiting(&schema, "1", IS_HELD, || false).await;
    let losing = tokio::spawn({
        let (schema, slow) = (schema.clone(), Arc::clone(&slow));
        async move { kill(&schema, &slow).await }
    });
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM {schema}.nodes%'"
    );
    eventually("the node is lost, or that waits", async || losing.is_finished() || sql(waits.clone()).await == "1")
        .await;
    assert!(
        !losing.is_finished() || witness.setting("held").await.unwrap().is_some(),
        "the node is lost, and its commit becomes visible later"
    );
    release(&schema).await;
    losing.await.unwrap();
    assert!(witness.setting("held").await.unwrap().is_some());
    committing.await.unwrap().unwrap();
}

/// Fails when `TAKE` does not look for a holder itself: both nodes find the lease free, and the second takes it from the first. (Tried
/// without `NOT EXISTS`.)
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_find_a_lease_free_do_not_both_take_it() {
    let schema = schema().await;
    let (first, second) = (Arc::new(open(&schema).await), Arc::new(open(&schema).await));
    let lease = LeaseName::Statuses;
    hold(&schema, &format!("SELECT 1 FROM {schema}.leases FOR UPDATE")).await;
    let take = |store: &Arc<SqlStore>| {
        let store = Arc::clone(store);
        tokio::spawn(async move { store.take_lease(lease).await.unwrap() })
    };
    let takes = [take(&first), take(&second)];
    waiting(&schema, "2", "query LIKE 'UPDATE leases%'", || false).await;
    release(&schema).await;
    let mut taken = Vec::new();
    for take in takes {
        taken.extend(take.await.unwrap());
    }
    assert_eq!(taken.len(), 1, "{taken:?}");
}
