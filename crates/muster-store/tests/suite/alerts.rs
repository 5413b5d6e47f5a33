//! Events, and the receivers of alerts.

use muster_core::alert::{Digest, Filter, Progress, Receiver, Target};
use muster_core::event::{Event, EventKind, Subject};
use muster_core::id::{AlertReceiverId, SpaceId};
use muster_core::time::Timestamp;
use muster_store::{AlertWrite, LeaseName, MOST_RECEIVERS, Precondition, Store, Write};
use serde_json::json;

use super::sample::{commit, refused};

fn event(agent: &str, micros: i64) -> Write {
    of(Some(SpaceId::default()), agent, micros)
}

fn of(space: Option<SpaceId>, agent: &str, micros: i64) -> Write {
    Write::Event(Box::new(Event {
        at: Timestamp::from_micros(micros),
        kind: EventKind::AgentOffline,
        space,
        subject: Subject {
            kind: "agent".into(),
            id: agent.into(),
            name: "h\u{0}ost \"x\"".into(),
            ..Subject::default()
        },
        before: Some("online".into()),
        after: None,
        detail: json!({"tags": ["a", "ä"]}),
    }))
}

fn receiver(id: &str, name: &str) -> Receiver {
    Receiver {
        id: AlertReceiverId::trusted(id),
        space: SpaceId::default(),
        name: name.into(),
        target: Target::Syslog { host: "log".into(), port: 6514, tls: true, ca: None },
        filter: Filter { events: vec![EventKind::AgentOffline], ..Filter::default() },
        digest: Digest::default(),
        is_enabled: true,
        muted_until: None,
        version: 1,
        created_at: Timestamp::from_micros(5),
        created_by: "local:root".into(),
        updated_at: Timestamp::from_micros(5),
    }
}

fn insert(receiver: &Receiver) -> Write {
    AlertWrite::Insert { receiver: Box::new(receiver.clone()), after: 7 }.into()
}

async fn agents(store: &impl Store, after: i64) -> Vec<String> {
    store.events_after(after, 100).await.unwrap().into_iter().map(|(_, event)| event.subject.id).collect()
}

pub async fn events_come_back_in_the_order_of_their_commits(store: &impl Store) {
    commit(store, vec![event("a", 1), event("b", 2)]).await;
    commit(store, vec![insert(&receiver("r", "one"))]).await;
    let fails = vec![event("lost", 3), AlertWrite::Delete { id: AlertReceiverId::trusted("none") }.into()];
    assert!(matches!(refused(store, fails).await, Precondition::Missing(_)), "and its event with it");
    commit(store, vec![event("c", 3)]).await;
    assert_eq!(agents(store, 0).await, ["a", "b", "c"]);
    let read = store.events_after(0, 2).await.unwrap();
    assert_eq!((read.len(), &read[0].1.detail), (2, &json!({"tags": ["a", "ä"]})));
    assert_eq!(agents(store, read[1].0).await, ["c"]);
    assert_eq!(store.newest_event().await.unwrap(), store.events_after(read[1].0, 1).await.unwrap()[0].0);
}

pub async fn events_are_found_by_subject_and_by_space_newest_first(store: &impl Store) {
    commit(store, vec![event("a", 1), event("b", 2), event("a", 3), of(None, "c", 4)]).await;
    commit(store, vec![of(Some(SpaceId::trusted("other")), "a", 5)]).await;
    let times = |found: Vec<(i64, Event)>| found.into_iter().map(|(_, event)| event.at.as_micros()).collect::<Vec<_>>();
    let all = store.events_of("agent", "a", i64::MAX, 10).await.unwrap();
    let before = store.events_of("agent", "a", all[1].0, 10).await.unwrap();
    assert_eq!((times(all), times(before)), (vec![5, 3, 1], vec![1]));
    assert_eq!(times(store.events_of("agent", "a", i64::MAX, 1).await.unwrap()), [5]);
    assert!(store.events_of("policy", "a", i64::MAX, 10).await.unwrap().is_empty());
    let newest = async |limit| times(store.events_in(&SpaceId::default(), limit).await.unwrap());
    assert_eq!((newest(10).await, newest(2).await), (vec![4, 3, 2, 1], vec![4, 3]));
}

pub async fn old_events_are_pruned_but_never_the_newest(store: &impl Store) {
    commit(store, vec![insert(&receiver("r", "one"))]).await;
    for n in 1..=6 {
        commit(store, vec![event(&format!("a{n}"), n)]).await;
    }
    let prune = async |before, keep| store.events_prune(Timestamp::from_micros(before), keep, 2).await.unwrap();
    assert_eq!((prune(4, 100).await, prune(4, 100).await, prune(4, 100).await), (2, 1, 0));
    assert_eq!(agents(store, 0).await, ["a4", "a5", "a6"]);
    assert_eq!((prune(0, 2).await, prune(100, 100).await), (1, 1));
    assert_eq!((agents(store, 0).await, store.newest_event().await.unwrap() > 0), (vec!["a6".to_owned()], true));
}

pub async fn a_receiver_comes_back_and_changes_by_version(store: &impl Store) {
    let mut written = receiver("r", "one");
    commit(store, vec![insert(&written)]).await;
    assert_eq!(store.alert_receiver(&written.space, &written.id).await.unwrap().as_ref(), Some(&written));
    assert_eq!(store.alert_receiver(&SpaceId::trusted("other"), &written.id).await.unwrap(), None);
    assert_eq!(store.alert_progress(&written.id).await.unwrap(), Some(Progress::from(7)));
    assert_eq!(refused(store, vec![insert(&receiver("s", "one"))]).await, Precondition::NameTaken("one".into()));
    written.version = 2;
    written.muted_until = Some(Timestamp::from_micros(9));
    let update = || vec![AlertWrite::Update(Box::new(written.clone())).into()];
    commit(store, update()).await;
    assert!(matches!(refused(store, update()).await, Precondition::Changed(_)), "not twice");
    assert_eq!(store.alert_receivers(&written.space).await.unwrap(), [written.clone()]);
    commit(store, vec![AlertWrite::Delete { id: written.id.clone() }.into()]).await;
    assert_eq!(store.alert_progress(&written.id).await.unwrap(), None);
}

pub async fn progress_is_stored_with_the_fence_of_its_sender(store: &impl Store) {
    let written = receiver("r", "one");
    commit(store, vec![insert(&written)]).await;
    let token = store.take_lease(LeaseName::Alerts).await.unwrap().unwrap();
    let mut progress = Progress::from(7);
    progress.done.extend([9, 12]);
    progress.failed("connection refused".into(), Timestamp::from_micros(4));
    let put = |id: &AlertReceiverId| AlertWrite::Progress { id: id.clone(), progress: Box::new(progress.clone()) };
    commit(store, vec![Write::Fenced(token), put(&written.id).into()]).await;
    assert_eq!(store.alert_work().await.unwrap(), [(written, progress.clone())]);
    let of_nobody = vec![put(&AlertReceiverId::trusted("gone")).into()];
    assert!(matches!(refused(store, of_nobody).await, Precondition::Missing(_)));
}

pub async fn a_space_has_a_limited_number_of_receivers(store: &impl Store) {
    for n in 0..MOST_RECEIVERS {
        commit(store, vec![insert(&receiver(&format!("r{n}"), &format!("n{n}")))]).await;
    }
    let one_more = vec![insert(&receiver("last", "last"))];
    assert_eq!(refused(store, one_more).await, Precondition::TooManyReceivers(MOST_RECEIVERS));
}
