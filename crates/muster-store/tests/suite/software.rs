//! Software of hosts and its index.

use muster_core::agent::AgentRecord;
use muster_core::fleetd::software::{Software, SoftwareId, Source, packed};
use muster_core::id::SpaceId;
use muster_store::query::{Page, SoftwareHosts, SoftwareSearch};
use muster_store::{AgentWrite, SoftwareWrite, Store, Write};

use super::sample::*;

const PAGE: Page = Page { offset: 0, limit: 10 };

fn deb(name: &str, version: &str) -> Software {
    Software { name: name.into(), version: version.into(), source: Source::DebPackages }
}

fn ids(software: &[Software]) -> Vec<SoftwareId> {
    let mut ids: Vec<_> = software.iter().map(Software::id).collect();
    ids.sort();
    ids
}

fn list(agent: &str, software: &[Software], now: i64) -> Write {
    let list = packed(ids(software).into_iter());
    let new = software.to_vec();
    SoftwareWrite::List { agent: agent_id(agent), list, new, left_out: 0, now: at(now) }.into()
}

async fn index(store: &impl Store) {
    while store.software_is_pending().await.unwrap() {
        store.software_index(at(9)).await.unwrap();
    }
}

/// Returns names, versions and numbers of hosts.
async fn found(store: &impl Store, space: &SpaceId, name: &str) -> Vec<(String, String, u64)> {
    let search = SoftwareSearch { name: name.into(), source: None };
    let found = store.software_of_space(space, &search, None, PAGE).await.unwrap();
    assert_eq!(store.software_count(space, &search).await.unwrap(), found.len() as u64);
    found.into_iter().map(|found| (found.software.name, found.software.version, found.hosts)).collect()
}

fn row(name: &str, version: &str, hosts: u64) -> (String, String, u64) {
    (name.into(), version.into(), hosts)
}

pub async fn software_is_found_by_name_in_its_space_after_it_was_indexed(store: &impl Store) {
    let (here, red) = (SpaceId::default(), SpaceId::trusted("red"));
    let elsewhere = AgentRecord { space: red.clone(), ..bare_agent("c") };
    commit(store, vec![insert(&bare_agent("a")), insert(&bare_agent("b")), insert(&elsewhere)]).await;
    let (bash, vim, log4j) = (deb("bash", "5.1"), deb("Vim", "9"), deb("liblog4j_2", "2.17"));
    let writes = vec![
        list("a", &[bash.clone(), vim.clone(), log4j.clone()], 1),
        list("b", std::slice::from_ref(&bash), 2),
        list("c", std::slice::from_ref(&vim), 3),
    ];
    commit(store, writes).await;
    assert!(found(store, &here, "").await.is_empty(), "not indexed yet");
    index(store).await;
    assert_eq!(
        found(store, &here, "").await,
        [row("bash", "5.1", 2), row("liblog4j_2", "2.17", 1), row("Vim", "9", 1)]
    );
    assert_eq!(found(store, &here, "VIM").await, [row("Vim", "9", 1)]);
    assert_eq!(found(store, &here, "v*").await, [row("Vim", "9", 1)]);
    assert_eq!(found(store, &here, "*log4j_*").await, [row("liblog4j_2", "2.17", 1)]);
    assert!(found(store, &here, "lib").await.is_empty() && found(store, &here, "liblog4j%").await.is_empty());
    assert_eq!(found(store, &red, "").await, [row("Vim", "9", 1)]);
    let apps = SoftwareSearch { name: String::new(), source: Some(Source::Apps) };
    assert_eq!(store.software_count(&here, &apps).await.unwrap(), 0);
    let hosts = store.software_hosts(&here, bash.id(), None, PAGE).await.unwrap().hosts;
    assert_eq!(hosts.iter().map(|host| host.agent.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let second = store.software_hosts(&here, bash.id(), None, Page { offset: 1, limit: 1 }).await.unwrap();
    assert_eq!(second.hosts.iter().map(|host| host.agent.as_str()).collect::<Vec<_>>(), ["b"]);
    assert!(store.software_in(&red, bash.id()).await.unwrap().is_none());
    assert_eq!(store.software_in(&here, bash.id()).await.unwrap().map(|found| found.hosts), Some(2));
    let known = ids(&[bash.clone(), deb("new", "1")]);
    assert_eq!(store.software_known(&known).await.unwrap(), [bash.id()]);
    let named = store.software_by_id(&ids(&[vim.clone(), bash.clone()])).await.unwrap();
    assert_eq!(named, [(bash.id(), bash), (vim.id(), vim)], "by name");
}

pub async fn the_index_follows_changes_moves_and_deletions(store: &impl Store) {
    let (here, red) = (SpaceId::default(), SpaceId::trusted("red"));
    commit(store, vec![insert(&bare_agent("a")), insert(&bare_agent("b"))]).await;
    let (old, new, other) = (deb("bash", "5.1"), deb("bash", "5.2"), deb("vim", "9"));
    commit(store, vec![list("a", &[old.clone(), other.clone()], 1), list("b", std::slice::from_ref(&old), 1)]).await;
    index(store).await;
    // Twice before the index follows: it starts from what it has.
    commit(store, vec![list("a", std::slice::from_ref(&new), 2)]).await;
    commit(store, vec![list("a", &[new.clone(), other.clone()], 3)]).await;
    let stored = store.host_software(&agent_id("a")).await.unwrap().unwrap();
    assert_eq!((stored.list.len(), stored.changed_at), (14, at(3)));
    index(store).await;
    let by_version = |mut rows: Vec<(String, String, u64)>| {
        rows.sort();
        rows
    };
    let expected = [row("bash", "5.1", 1), row("bash", "5.2", 1), row("vim", "9", 1)];
    assert_eq!(by_version(found(store, &here, "").await), expected);
    let before = bare_agent("a");
    let after = AgentRecord { space: red.clone(), version: before.version + 1, ..before.clone() };
    commit(store, vec![Write::Agent(AgentWrite::Update { before: before.into(), after: after.into() })]).await;
    index(store).await;
    assert_eq!(found(store, &here, "").await, [row("bash", "5.1", 1)]);
    assert_eq!(found(store, &red, "").await, [row("bash", "5.2", 1), row("vim", "9", 1)]);
    for agent in ["a", "b"] {
        commit(store, vec![Write::Agent(AgentWrite::Delete { id: agent_id(agent), now: at(5) })]).await;
    }
    index(store).await;
    assert!(found(store, &here, "").await.is_empty() && found(store, &red, "").await.is_empty());
    assert!(store.host_software(&agent_id("a")).await.unwrap().is_none());
}

pub async fn software_that_no_host_has_is_forgotten_later(store: &impl Store) {
    commit(store, vec![insert(&bare_agent("a"))]).await;
    let (bash, vim) = (deb("bash", "5.1"), deb("vim", "9"));
    commit(store, vec![list("a", &[bash.clone(), vim.clone()], 1)]).await;
    index(store).await;
    commit(store, vec![list("a", std::slice::from_ref(&bash), 2)]).await;
    index(store).await;
    // Not known, so that it is stored again if a host reports it just before it would be forgotten.
    assert_eq!(store.software_known(&ids(&[bash.clone(), vim.clone()])).await.unwrap(), [bash.id()]);
    assert_eq!(store.software_prune(at(9), 10).await.unwrap(), 0, "since then");
    assert_eq!(store.software_prune(at(10), 10).await.unwrap(), 1);
    assert_eq!(store.software_by_id(&ids(&[bash.clone(), vim.clone()])).await.unwrap(), [(bash.id(), bash)]);
}

pub async fn the_index_has_many_hosts_in_chunks(store: &impl Store) {
    let (bash, rare) = (deb("bash", "5.1"), deb("rare", "1"));
    let name = |number: u32| format!("host-{number:04}");
    let agents: Vec<_> = (0..700).map(|number| insert(&bare_agent(&name(number)))).collect();
    commit(store, agents).await;
    let software =
        |number: u32| if number.is_multiple_of(7) { vec![bash.clone(), rare.clone()] } else { vec![bash.clone()] };
    commit(store, (0..700).map(|number| list(&name(number), &software(number), 1)).collect()).await;
    index(store).await;
    assert_eq!(found(store, &SpaceId::default(), "").await, [row("bash", "5.1", 700), row("rare", "1", 100)]);
    let page = Page { offset: 90, limit: 20 };
    let hosts = store.software_hosts(&SpaceId::default(), rare.id(), None, page).await.unwrap().hosts;
    assert_eq!((hosts.len(), hosts[0].agent.to_string()), (10, name(630)));
    // Behind the last host of a page, whatever was deleted meanwhile.
    let (mut after, mut all, page) = (None, Vec::new(), Page { offset: 0, limit: 33 });
    loop {
        let SoftwareHosts { hosts, next } =
            store.software_hosts(&SpaceId::default(), rare.id(), after, page).await.unwrap();
        all.extend(hosts.into_iter().map(|host| host.agent.to_string()));
        if all.len() == 66 {
            commit(store, vec![AgentWrite::Delete { id: agent_id(&name(7 * 70)), now: at(9) }.into()]).await;
        }
        after = next;
        if next.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..700).step_by(7).filter(|number| *number != 490).map(name).collect();
    assert_eq!(all, expected);
}

pub async fn the_software_of_a_space_is_read_by_cursor(store: &impl Store) {
    let names = ["Bash", "bash", "bash", "curl", "zsh"].iter().zip(["1", "1", "2", "1", "1"]);
    let all: Vec<Software> = names.map(|(name, version)| deb(name, version)).collect();
    commit(store, vec![insert(&bare_agent("a")), list("a", &all, 1)]).await;
    index(store).await;
    for (name, expected) in [("", 5), ("b*", 3), ("*s*", 4)] {
        let search = SoftwareSearch { name: name.into(), source: None };
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = Page { offset: 0, limit: 1 };
            let next = store.software_of_space(&SpaceId::default(), &search, after.as_ref(), page).await.unwrap().pop();
            let Some(next) = next else { break };
            found.push((next.software.name_key(), next.id));
            after = Some(next.software);
        }
        assert!(found.len() == expected && found.is_sorted(), "{name}: {found:?}");
    }
}
