//! Components on their way into their table: what readers see, what a crash leaves, what comes round.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use muster_core::agent::AgentDocuments;
use muster_core::id::AgentId;
use muster_core::testing::bare_agent;
use muster_core::time::Timestamp;

use crate::engine::store::{Durability, Options, SqlStore};
use crate::port::{AgentStore, AgentWrite, Precondition, Store, StoreError, Write};
use crate::sqlite::temporary::TemporaryDirectory;

fn open(directory: &Path) -> SqlStore {
    let options = Options { durability: Durability::Crash, ..Options::default() };
    SqlStore::open(&directory.join("muster.db"), &options).unwrap()
}

fn insert(id: &str) -> Write {
    let record = bare_agent(id, Timestamp::from_micros(1));
    Write::Agent(AgentWrite::Insert { record: Box::new(record), documents: documents(Some("{}"), Some("[]")) })
}

fn documents(local_metadata: Option<&str>, components: Option<&str>) -> AgentDocuments {
    AgentDocuments { local_metadata: local_metadata.map(Into::into), components: components.map(Into::into) }
}

fn report(id: &str, local_metadata: Option<&str>, components: Option<&str>) -> Write {
    Write::Agent(AgentWrite::Documents { id: AgentId::trusted(id), documents: documents(local_metadata, components) })
}

fn delete(id: &str) -> Write {
    Write::Agent(AgentWrite::Delete { id: AgentId::trusted(id), now: Timestamp::from_micros(0) })
}

async fn stored(store: &SqlStore, id: &str) -> Option<(String, String)> {
    let found = store.agent_documents(&AgentId::trusted(id)).await.unwrap()?;
    Some((found.local_metadata?.to_string(), found.components?.to_string()))
}

/// What the disk holds now, opened as after a power cut.
fn after_a_crash(directory: &Path) -> (SqlStore, TemporaryDirectory) {
    let copy = TemporaryDirectory::new().unwrap();
    for name in ["muster.db", "muster.db-wal"] {
        std::fs::copy(directory.join(name), copy.path().join(name)).unwrap();
    }
    (open(copy.path()), copy)
}

/// Each step changes one of a few agents in one of the ways that there are; the ring comes round twice.
#[tokio::test]
async fn the_newest_components_are_seen_whatever_happens_to_them() {
    let directory = TemporaryDirectory::new().unwrap();
    let store = Arc::new(open(directory.path()));
    let mut expected: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut random = 1_u64;
    for step in 0..2600 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let id = format!("agent-{}", (random >> 40) % 7);
        let id = if step % 500 == 3 { "seldom".to_owned() } else { id };
        let small = format!("[{{\"id\":\"{step}\"}}]");
        let long = format!("[{{\"id\":\"{step}\",\"message\":\"{}\"}}]", "x".repeat(2000));
        let metadata = format!("{{\"step\":{step}}}");
        let Some(known) = expected.get_mut(&id) else {
            store.commit(vec![insert(&id)]).await.unwrap();
            expected.insert(id, ("{}".into(), "[]".into()));
            continue;
        };
        let writes = match (random >> 50) % 16 {
            0 => vec![report(&id, None, Some(&long))],
            1 => vec![report(&id, Some(&metadata), Some(&small))],
            2 => vec![report(&id, Some(&metadata), None)],
            3 => vec![report(&id, None, Some(&small)), delete(&id)],
            4 => vec![delete(&id), insert(&id)],
            5 => vec![delete(&id), insert(&id), report(&id, None, Some(&small))],
            6 => vec![report(&id, None, Some("[6]")), insert("agent-0"), insert("agent-0")],
            _ => vec![report(&id, None, Some(&small))],
        };
        match (random >> 50) % 16 {
            0 => known.1 = long,
            1 => *known = (metadata, small),
            2 => known.0 = metadata,
            3 => drop(expected.remove(&id)),
            4 => *known = ("{}".into(), "[]".into()),
            5 => *known = ("{}".into(), small),
            6 => {
                assert!(matches!(store.commit(writes).await, Err(StoreError::Conflict(Precondition::Exists(_)))));
                continue;
            }
            _ => known.1 = small,
        }
        store.commit(writes).await.unwrap();
        assert_eq!(stored(&store, &id).await.as_ref(), expected.get(&id), "step {step}");
        if step % 400 == 399 {
            let (crashed, copy) = after_a_crash(directory.path());
            for number in 0..7 {
                let id = format!("agent-{number}");
                assert_eq!(stored(&crashed, &id).await.as_ref(), expected.get(&id), "{id} after a crash at {step}");
            }
            assert_eq!(stored(&crashed, "seldom").await.as_ref(), expected.get("seldom"));
            let still: Vec<&String> = expected.keys().collect();
            for round in 0..40 {
                crashed.commit(vec![report(still[round % still.len()], None, Some("[40]"))]).await.unwrap();
            }
            drop(crashed);
            let again = open(copy.path());
            for id in still {
                assert_eq!(stored(&again, id).await.unwrap().1, "[40]", "{id} after a crash at {step} and a restart");
            }
        }
    }
    drop(store);
    let store = open(directory.path());
    for (id, documents) in &expected {
        assert_eq!(stored(&store, id).await.as_ref(), Some(documents), "{id} after a restart");
    }
}

#[tokio::test]
async fn many_that_report_at_once_share_pages() {
    let directory = TemporaryDirectory::new().unwrap();
    let store = Arc::new(open(directory.path()));
    let ids: Vec<String> = (0..600).map(|number| format!("agent-{number}")).collect();
    store.commit(ids.iter().map(|id| insert(id)).collect()).await.unwrap();
    for round in 0..12 {
        let components = format!("[{{\"id\":\"{round}\",\"message\":\"{}\"}}]", "m".repeat(700));
        let reports = ids.iter().map(|id| {
            let (store, write) = (store.clone(), report(id, None, Some(&components)));
            tokio::spawn(async move { store.commit(vec![write]).await })
        });
        for report in reports.collect::<Vec<_>>() {
            report.await.unwrap().unwrap();
        }
        for id in &ids {
            assert_eq!(stored(&store, id).await.unwrap().1, components);
        }
    }
}

#[tokio::test]
async fn components_of_an_agent_that_is_not_there_are_refused() {
    let directory = TemporaryDirectory::new().unwrap();
    let store = open(directory.path());
    let missing = |result| matches!(result, Err(StoreError::Conflict(Precondition::Missing(_))));
    assert!(missing(store.commit(vec![report("a", None, Some("[]"))]).await));
    store.commit(vec![insert("a"), report("a", None, Some("[1]"))]).await.unwrap();
    assert!(missing(store.commit(vec![delete("a"), report("a", None, Some("[2]"))]).await));
    assert_eq!(stored(&store, "a").await, Some(("{}".into(), "[1]".into())), "all or none");
    store.commit(vec![delete("a")]).await.unwrap();
    assert!(missing(store.commit(vec![report("a", None, Some("[3]"))]).await));
}
