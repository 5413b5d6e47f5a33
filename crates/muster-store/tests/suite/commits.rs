//! Commits: all or none, side by side, the change log and the audit log.

use std::collections::HashMap;
use std::time::Duration;

use futures_like::join_all;
use muster_core::audit::{AuditEvent, ChainCheck};
use muster_core::change::Change;
use muster_core::id::{NetworkObjectId, OutputId, PolicyId};
use muster_core::network_object::NetworkObjectKind;
use muster_store::testing::tamper;
use muster_store::{AuditStore as _, Committed, OutputWrite, Precondition, SqlStore, Store, Write};

use super::sample::*;

/// An audit event.
pub fn audit(n: i64) -> Write {
    Write::Audit(AuditEvent {
        at: at(n),
        actor: "system".into(),
        action: "agent.enroll".into(),
        subject: format!("agent:{n}"),
        detail: serde_json::json!({"n": n}),
        address: None,
        reason: None,
        space: None,
    })
}

fn changed(name: &str) -> Write {
    Write::Changed(Change::Setting(name.into()))
}

/// Checks every line of every chain against the one before; how many there are.
pub async fn verify_audit(store: &impl Store) -> usize {
    let lines = store.audit_events(0, u32::MAX).await.unwrap();
    assert!(lines.is_sorted_by(|a, b| a.0 < b.0), "numbers ascend");
    let mut links = 0;
    for chain in store.audit_chains().await.unwrap() {
        let mut check = ChainCheck::new(&chain);
        for link in store.audit_links(&chain, 0, u32::MAX).await.unwrap() {
            check.next(link.position, &link.event, &link.hash).unwrap();
            assert!(serde_json::from_str::<AuditEvent>(&link.event).is_ok(), "{}", link.event);
            assert_eq!(store.audit_hash(&chain, link.position).await.unwrap(), Some(link.hash));
            links += 1;
        }
    }
    assert_eq!(lines.len(), links);
    links
}

pub async fn nothing_to_write_is_no_error(store: &impl Store) {
    assert_eq!(store.commit(Vec::new()).await.unwrap(), Committed::default());
}

pub async fn a_commit_is_whole_or_not_there(store: &impl Store) {
    let writes = |last: Write| {
        vec![
            setting("a", "1"),
            insert(&full_agent("agent")),
            create(&action("x"), &["agent"]),
            audit(1),
            changed("a"),
            last,
        ]
    };
    let missing = refused(store, writes(Write::Output(OutputWrite::Delete { id: OutputId::trusted("none") }))).await;
    assert!(matches!(missing, Precondition::Missing(_)), "{missing:?}");
    assert_eq!(store.setting("a").await.unwrap(), None);
    assert_eq!(store.agent(&agent_id("agent")).await.unwrap(), None);
    assert_eq!(store.agent_tags(&Default::default()).await.unwrap(), Vec::<String>::new());
    assert_eq!(store.action(&action_id("x")).await.unwrap(), None);
    assert_eq!(store.audit_events(0, 10).await.unwrap(), []);
    assert_eq!(store.changes_since(0, 10).await.unwrap(), []);
    commit(store, writes(audit(2))).await;
    assert!(store.agent(&agent_id("agent")).await.unwrap().is_some());
    assert_eq!(verify_audit(store).await, 2);
}

pub async fn what_was_answered_is_read_at_once(store: &impl Store) {
    for n in 0..50 {
        let value = n.to_string();
        commit(store, vec![setting("a", &value)]).await;
        assert_eq!(store.setting("a").await.unwrap(), Some(value));
    }
}

/// Commits that arrive together are likely to share a transaction: a refused one must not spoil the others, and
/// numbers and chains must come out whole.
pub async fn commits_side_by_side_do_not_spoil_each_other(store: &impl Store) {
    commit(store, vec![insert(&bare_agent("taken"))]).await;
    let jobs = (0..200).map(|n| {
        let id = if n % 3 == 0 { "taken".to_owned() } else { format!("a{n}") };
        store.commit(vec![audit(n), changed(&id), insert(&bare_agent(&id)), create(&action(&format!("x{n}")), &[&id])])
    });
    let results = join_all(jobs).await;
    let changes: HashMap<i64, Option<Change>> = store.changes_since(0, 1000).await.unwrap().into_iter().collect();
    let mut seqs = Vec::new();
    for (n, result) in results.into_iter().enumerate() {
        assert_eq!(result.is_ok(), n % 3 != 0, "{n}: {result:?}");
        let committed = result.unwrap_or_default();
        if let Some(change) = committed.last_change {
            assert_eq!(changes[&change], Some(Change::Setting(format!("a{n}"))), "its own change");
        }
        assert_eq!(committed.last_change.is_some(), n % 3 != 0);
        seqs.extend(committed.action_seqs);
    }
    let (count, ids) = (seqs.len(), store.agent_ids(&Default::default(), None, 1000).await.unwrap());
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), count, "every action has a number of its own");
    assert_eq!(ids.len(), count + 1);
    assert_eq!(verify_audit(store).await, count);
    assert_eq!(store.changes_since(0, 1000).await.unwrap().len(), count);
}

pub async fn the_change_log_keeps_order_and_subjects(store: &impl Store) {
    let changes = [
        Change::Agent(agent_id("a")),
        Change::Action(action_id("x")),
        Change::Policy(PolicyId::trusted("p")),
        Change::EnrollmentKey(muster_core::id::EnrollmentKeyId::trusted("k")),
        Change::Output(OutputId::trusted("o")),
        Change::NetworkObject(NetworkObjectKind::Proxy, NetworkObjectId::trusted("n")),
        Change::Setting("s".into()),
    ];
    commit(store, changes[..2].iter().cloned().map(Write::Changed).collect()).await;
    let committed = commit(store, changes[2..].iter().cloned().map(Write::Changed).collect()).await;
    let rows = store.changes_since(0, 100).await.unwrap();
    assert_eq!(committed.last_change, Some(rows[6].0));
    assert_eq!(rows.iter().map(|(_, change)| change.clone().unwrap()).collect::<Vec<_>>(), changes);
    assert!(rows.is_sorted_by(|a, b| a.0 < b.0));
    let rest = store.changes_since(rows[1].0, 2).await.unwrap();
    assert_eq!(rest, rows[2..4]);
    assert_eq!(store.changes_since(rows[6].0, 10).await.unwrap(), []);
}

pub async fn the_change_log_wakes_after_the_commit(store: &impl Store) {
    let mut changes = store.changes();
    assert_eq!(*changes.borrow_and_update(), 0);
    commit(store, vec![setting("a", "1")]).await;
    assert!(!changes.has_changed().unwrap(), "a commit that changes nothing for others wakes nobody");
    commit(store, vec![setting("a", "2"), changed("a")]).await;
    tokio::time::timeout(Duration::from_secs(5), changes.changed()).await.unwrap().unwrap();
    let newest = *changes.borrow_and_update();
    assert_eq!(store.changes_since(0, 10).await.unwrap().last().unwrap().0, newest);
    assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("2"), "what woke is there to be read");
}

pub async fn the_change_log_loses_its_oldest_rows_but_never_its_newest(store: &impl Store) {
    let left =
        async || -> Vec<i64> { store.changes_since(0, 100).await.unwrap().into_iter().map(|(seq, _)| seq).collect() };
    assert_eq!(store.changes_prune(i64::MAX, 10).await.unwrap(), 0, "nothing to remove");
    for n in 0..6 {
        commit(store, vec![changed(&n.to_string())]).await;
    }
    let all = left().await;
    assert_eq!(store.changes_prune(all[3], 2).await.unwrap(), 2);
    assert_eq!(left().await, all[2..]);
    assert_eq!(store.changes_prune(all[3], 100).await.unwrap(), 2);
    assert_eq!(left().await, all[4..]);
    assert_eq!(store.changes_prune(i64::MAX, 100).await.unwrap(), 1);
    assert_eq!(left().await, all[5..], "the newest stays");
    commit(store, vec![changed("next")]).await;
    assert_eq!(left().await, [all[5], all[5] + 1]);
}

pub async fn the_audit_chain_verifies_over_many_commits(store: &impl Store) {
    for n in 0..20 {
        commit(store, vec![audit(n), audit(n + 100)]).await;
    }
    assert_eq!(verify_audit(store).await, 40);
    let lines = store.audit_events(0, 40).await.unwrap();
    assert_eq!(store.audit_events(lines[9].0, 5).await.unwrap(), lines[10..15]);
    let mut newest_first = lines.clone();
    newest_first.reverse();
    assert_eq!(store.audit_events_before(i64::MAX, 40).await.unwrap(), newest_first);
    assert_eq!(store.audit_events_before(lines[9].0, 5).await.unwrap(), newest_first[31..36]);
    assert!(lines[0].1.contains("agent:0"), "{}", lines[0].1);
}

pub async fn events_about_an_object_are_found_newest_first(store: &impl Store) {
    for n in 0..6 {
        commit(store, vec![audit(n % 2), audit(7)]).await;
    }
    let all = store.audit_events_before(i64::MAX, 40).await.unwrap();
    let about =
        |n: i64| -> Vec<_> { all.iter().filter(|line| line.1.contains(&format!("\"agent:{n}\""))).cloned().collect() };
    assert_eq!((about(0).len(), about(7).len()), (3, 6));
    for n in [0, 1, 7, 8] {
        assert_eq!(store.audit_events_of(&format!("agent:{n}"), i64::MAX, 40).await.unwrap(), about(n));
    }
    let second = about(7)[1].0;
    assert_eq!(store.audit_events_of("agent:7", second, 3).await.unwrap(), about(7)[2..5]);
}

pub async fn mg164_the_audit_log_is_append_only_in_the_store_itself(store: &SqlStore) {
    commit(store, vec![audit(1), audit(2), changed("a")]).await;
    let before = store.audit_events(0, 10).await.unwrap();
    let attempts = [
        "UPDATE audit_events SET event = '{}'",
        "UPDATE audit_events SET position = position + 1 WHERE position = 2",
        "DELETE FROM audit_events",
        "DELETE FROM audit_events WHERE position = 2",
        "INSERT INTO audit_events (chain, position, event, hash) SELECT chain, position, '{}', hash FROM audit_events \
         WHERE position = 1 ON CONFLICT (chain, position) DO UPDATE SET event = '{}'",
    ];
    for attempt in attempts {
        let refused = tamper(store, attempt).await.expect_err(attempt).to_string();
        assert!(refused.contains("append-only"), "{attempt}: {refused}");
    }
    tamper(store, "UPDATE changes SET subject = 'b'").await.expect("other tables can be changed");
    assert_eq!(store.audit_events(0, 10).await.unwrap(), before);
    commit(store, vec![audit(3)]).await;
    assert_eq!(verify_audit(store).await, 3);
}

/// Polls several futures together, as a caller with many connections would.
mod futures_like {
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::task::Poll;

    pub async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
        let mut futures: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
        let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
        poll_fn(|context| {
            for (future, output) in futures.iter_mut().zip(&mut outputs) {
                if output.is_none()
                    && let Poll::Ready(value) = future.as_mut().poll(context)
                {
                    *output = Some(value);
                }
            }
            if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        outputs.into_iter().flatten().collect()
    }
}
