//! Labels and their hosts.

use muster_core::agent::AgentRecord;
use muster_core::fleetd::labels::{Label, MAX_LABELS};
use muster_core::host::Host;
use muster_core::id::{HostId, LabelId, SpaceId};
use muster_store::query::{AgentCondition, AgentFilter};
use muster_store::{AgentWrite, LabelWrite, Precondition, Store, Write};

use super::sample::*;

fn label(id: &str, space: &SpaceId) -> Label {
    Label {
        id: LabelId::trusted(id),
        space: space.clone(),
        version: 1,
        name: format!("Label {id}"),
        description: "what for".into(),
        query: Some("SELECT 1".into()),
        platforms: vec!["linux".into()],
        created_at: at(1),
    }
}

fn put(label: Label) -> Write {
    LabelWrite::Insert(Box::new(label)).into()
}

fn ids(labels: &[&str]) -> Vec<LabelId> {
    labels.iter().map(|id| LabelId::trusted(*id)).collect()
}

fn hosts(hosts: &[&str]) -> Vec<HostId> {
    hosts.iter().map(|id| HostId::trusted(*id)).collect()
}

fn add(labels: &[&str], on: &[&str]) -> Write {
    LabelWrite::Add { labels: ids(labels), hosts: hosts(on) }.into()
}

/// Inserts an agent with a host of its own.
fn on_host(agent: &str, space: &SpaceId) -> Vec<Write> {
    let id = HostId::trusted(format!("h-{agent}"));
    let host = Host {
        id: id.clone(),
        space: space.clone(),
        machine_id: None,
        hostname: agent.into(),
        created_at: at(0),
        system_id: None,
    };
    let record = AgentRecord { space: space.clone(), host_id: Some(id), ..bare_agent(agent) };
    vec![Write::Agent(AgentWrite::PutHost(host)), insert(&record)]
}

async fn fleet(store: &impl Store) -> SpaceId {
    let (space, red) = (SpaceId::default(), SpaceId::trusted("red"));
    let mut writes = vec![put(label("b", &space)), put(label("a", &space)), put(label("c", &red))];
    for (agent, space) in [("x", &space), ("y", &space), ("z", &red)] {
        writes.extend(on_host(agent, space));
    }
    commit(store, writes).await;
    space
}

pub async fn labels_come_back_by_name_and_change_by_version(store: &impl Store) {
    let space = fleet(store).await;
    assert_eq!(store.labels(&space).await.unwrap(), [label("a", &space), label("b", &space)]);
    let manual = Label { version: 2, name: "Ä".into(), query: None, platforms: Vec::new(), ..label("a", &space) };
    commit(store, vec![LabelWrite::Update(Box::new(manual.clone())).into()]).await;
    assert_eq!(store.labels(&space).await.unwrap(), [label("b", &space), manual.clone()]);
    let stale = refused(store, vec![LabelWrite::Update(Box::new(manual)).into()]).await;
    assert!(matches!(stale, Precondition::Changed(_)), "{stale:?}");
    let taken = Label { version: 2, name: "ä".into(), ..label("b", &space) };
    assert!(matches!(
        refused(store, vec![LabelWrite::Update(Box::new(taken.clone())).into()]).await,
        Precondition::NameTaken(_)
    ));
    let new = Label { id: LabelId::trusted("n"), ..taken };
    assert!(matches!(refused(store, vec![LabelWrite::Insert(Box::new(new)).into()]).await, Precondition::NameTaken(_)));
    commit(store, vec![LabelWrite::Delete { id: LabelId::trusted("a") }.into()]).await;
    assert_eq!(store.labels(&space).await.unwrap().len(), 1);
    let gone = refused(store, vec![LabelWrite::Delete { id: LabelId::trusted("a") }.into()]).await;
    assert!(matches!(gone, Precondition::Missing(_)), "{gone:?}");
}

pub async fn hosts_have_labels_of_their_space(store: &impl Store) {
    let space = fleet(store).await;
    commit(store, vec![add(&["a", "b", "c", "none"], &["h-x", "h-y", "h-z", "h-none"]), add(&["a"], &["h-x"])]).await;
    assert_eq!(store.labels_of_host(&HostId::trusted("h-x")).await.unwrap(), ids(&["a", "b"]));
    assert_eq!(store.labels_of_host(&HostId::trusted("h-z")).await.unwrap(), ids(&["c"]), "of its own space");
    let remove = LabelWrite::Remove { labels: ids(&["b"]), hosts: hosts(&["h-x", "h-none"]) };
    commit(store, vec![remove.into()]).await;
    commit(store, vec![add(&["b"], &["h-x"]), LabelWrite::Clear { id: LabelId::trusted("b") }.into()]).await;
    assert_eq!(store.labels_of_host(&HostId::trusted("h-y")).await.unwrap(), ids(&["a"]));
    commit(store, vec![add(&["b"], &["h-y"])]).await;
    let mut counts = store.label_counts(&space).await.unwrap();
    counts.sort();
    assert_eq!(counts, [(LabelId::trusted("a"), 2), (LabelId::trusted("b"), 1)]);
    let with = store.hosts_with_label(&LabelId::trusted("b"), &hosts(&["h-x", "h-y", "h-z"])).await.unwrap();
    assert_eq!(with, hosts(&["h-y"]));
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: agent_id("y"), now: at(2) })]).await;
    assert_eq!(store.label_counts(&space).await.unwrap(), [(LabelId::trusted("a"), 1)], "gone with the host");
}

pub async fn errors_of_labels_are_counted_until_their_queries_run(store: &impl Store) {
    let space = fleet(store).await;
    let failed = |host: &str, label: &str, error: &str, seconds| -> Write {
        let errors = vec![(LabelId::trusted(label), error.to_owned())];
        LabelWrite::Failed { host: HostId::trusted(host), errors, at: at(seconds) }.into()
    };
    commit(store, vec![failed("h-x", "a", "one", 5), failed("h-y", "a", "two", 4), failed("h-z", "a", "foreign", 9)])
        .await;
    commit(store, vec![failed("h-y", "b", "first", 5)]).await;
    commit(store, vec![failed("h-y", "b", "second", 6), failed("h-y", "nothing", "x", 6)]).await;
    let [a, b] = ["a", "b"].map(LabelId::trusted);
    let counts = async || store.label_error_counts(&space).await.unwrap();
    let mut found = counts().await;
    found.sort_unstable();
    assert_eq!(found, [(a.clone(), 2, "one".to_owned()), (b.clone(), 1, "second".to_owned())]);
    let host = HostId::trusted("h-y");
    let of_host = [(a.clone(), "two".to_owned()), (b.clone(), "second".to_owned())];
    assert_eq!(store.label_errors_of_host(&host).await.unwrap(), of_host);
    commit(store, vec![LabelWrite::Ran { host, labels: vec![b] }.into()]).await;
    assert_eq!(counts().await, [(a, 2, "one".to_owned())]);
    commit(store, vec![LabelWrite::Update(Box::new(Label { version: 2, ..label("a", &space) })).into()]).await;
    assert_eq!(counts().await, [], "they were those of the former query");
}

pub async fn agents_are_found_by_the_labels_of_their_hosts(store: &impl Store) {
    let space = fleet(store).await;
    commit(store, vec![add(&["a"], &["h-x"]), add(&["b"], &["h-y"]), insert(&bare_agent("lone"))]).await;
    let found = async |condition: AgentCondition| {
        let filter = AgentFilter { space: Some(space.clone()), conditions: vec![condition], ..AgentFilter::default() };
        let ids = store.agent_ids(&filter, None, 10).await.unwrap();
        ids.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let named = |names: &[&str]| AgentCondition::Labels(names.iter().map(ToString::to_string).collect());
    assert_eq!(found(named(&["LABEL A"])).await, ["x"]);
    assert_eq!(found(named(&["label a", "label b", "label c"])).await, ["x", "y"]);
    assert_eq!(found(!named(&["label a"])).await, ["lone", "y"]);
    assert_eq!(found(AgentCondition::HasLabels).await, ["x", "y"]);
    assert_eq!(found(!AgentCondition::HasLabels).await, ["lone"]);
}

pub async fn a_space_has_a_limited_number_of_labels(store: &impl Store) {
    let space = SpaceId::default();
    let many = (0..MAX_LABELS).map(|number| put(label(&format!("l{number}"), &space))).collect();
    commit(store, many).await;
    let refused = refused(store, vec![LabelWrite::Insert(Box::new(label("more", &space))).into()]).await;
    assert!(matches!(refused, Precondition::TooMany(_)), "{refused:?}");
    commit(store, vec![put(label("elsewhere", &SpaceId::trusted("red")))]).await;
}

pub async fn labels_that_are_named_exist(store: &impl Store) {
    let space = fleet(store).await;
    let exist = |space: &SpaceId, names: &[&str]| {
        let names = names.iter().map(ToString::to_string).collect();
        vec![LabelWrite::Exist { space: space.clone(), names }.into(), setting("user", "1")]
    };
    commit(store, exist(&space, &["LABEL a", "Label b"])).await;
    for (space, names) in [(&space, ["Label a", "Label c"]), (&SpaceId::trusted("red"), ["Label c", "Label a"])] {
        let refused = refused(store, exist(space, &names)).await;
        assert!(matches!(refused, Precondition::Missing(_)), "{refused:?}");
    }
}
