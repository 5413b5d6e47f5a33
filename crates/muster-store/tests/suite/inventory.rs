//! Inventory of hosts besides their software.

use muster_core::agent::AgentRecord;
use muster_core::fleetd::inventory::Kind;
use muster_core::id::SpaceId;
use muster_store::{AgentWrite, InventoryWrite, Store, Write};

use super::sample::*;

fn put(agent: &str, kind: Kind, document: &[u8]) -> Write {
    InventoryWrite { agent: agent_id(agent), kind, document: document.to_vec() }.into()
}

async fn found(store: &impl Store, agents: &[&str], kinds: &[Kind]) -> Vec<(String, Kind, Vec<u8>)> {
    let agents: Vec<_> = agents.iter().map(|agent| agent_id(agent)).collect();
    let found = store.host_inventory(&agents, kinds).await.unwrap();
    found.into_iter().map(|one| (one.agent.to_string(), one.kind, one.document)).collect()
}

pub async fn documents_are_put_replaced_and_found_by_agent_and_kind(store: &impl Store) {
    commit(store, vec![insert(&bare_agent("a")), insert(&bare_agent("b"))]).await;
    let writes = vec![
        put("a", Kind::System, b"1"),
        put("a", Kind::Users, b"2"),
        put("b", Kind::System, b"3"),
        put("b", Kind::Certificates, &[0, 255]),
    ];
    commit(store, writes).await;
    commit(store, vec![put("a", Kind::System, b"4")]).await;
    let row = |agent: &str, kind, document: &[u8]| (agent.to_owned(), kind, document.to_vec());
    assert_eq!(
        found(store, &["b", "a", "none"], &[Kind::System]).await,
        [row("a", Kind::System, b"4"), row("b", Kind::System, b"3")]
    );
    let all = [row("b", Kind::Certificates, &[0, 255]), row("b", Kind::System, b"3")];
    assert_eq!(found(store, &["b"], &Kind::ALL).await, all);
    assert!(found(store, &["b"], &[]).await.is_empty() && found(store, &[], &Kind::ALL).await.is_empty());
}

pub async fn documents_end_with_their_agent_and_its_stay_in_the_space(store: &impl Store) {
    let before = bare_agent("a");
    commit(store, vec![insert(&before), insert(&bare_agent("b"))]).await;
    commit(store, vec![put("a", Kind::Users, b"1"), put("b", Kind::Users, b"2")]).await;
    let after = AgentRecord { space: SpaceId::trusted("red"), version: before.version + 1, ..before.clone() };
    commit(store, vec![Write::Agent(AgentWrite::Update { before: before.into(), after: after.into() })]).await;
    assert!(found(store, &["a"], &Kind::ALL).await.is_empty(), "people of the new space must not read it");
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: agent_id("b"), now: at(5) })]).await;
    assert!(found(store, &["b"], &Kind::ALL).await.is_empty());
}
