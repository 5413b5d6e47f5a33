//! Agents: every field, every precondition, and what goes with a deleted one.

use muster_core::action::ActionResult;
use muster_core::agent::{AgentDocuments, AgentRecord, AgentType, AuditReason, AuditReport, Family};
use muster_core::credential::{CredentialKind, LiveCredential, SecretHash};
use muster_core::host::Host;
use muster_core::id::{AgentId, EnrollmentKeyId, FileId, HostId, KeyId, NodeId, PolicyId, SpaceId};
use muster_core::status::Status;
use muster_store::query::{AgentCondition, AgentFilter, HostCursor, HostRows, Page};
use muster_store::{AgentWrite, FileWrite, Precondition, Store, StoreError, Write};

use super::sample::*;

pub async fn a_record_comes_back_as_it_was_written(store: &impl Store) {
    for record in [bare_agent("bare"), full_agent("full")] {
        commit(store, vec![insert(&record)]).await;
        assert_eq!(store.agent(&record.id).await.unwrap(), Some(record));
    }
    assert_eq!(store.agent(&agent_id("nobody")).await.unwrap(), None);
}

pub async fn every_kind_status_and_reason_comes_back(store: &impl Store) {
    let kinds = [AgentType::Permanent, AgentType::Ephemeral, AgentType::Temporary];
    let reasons = [AuditReason::Uninstall, AuditReason::Orphaned, AuditReason::KeyRevoked, AuditReason::Migrated];
    for (n, status) in Status::ALL.into_iter().enumerate() {
        let mut record = bare_agent(&format!("a{n}"));
        record.status = status;
        record.kind = kinds[n % kinds.len()];
        record.audit = Some(AuditReport { reason: reasons[n % reasons.len()], at: at(1) });
        commit(store, vec![insert(&record)]).await;
        assert_eq!(store.agent(&record.id).await.unwrap(), Some(record));
    }
}

pub async fn an_id_is_taken_once(store: &impl Store) {
    let record = bare_agent("a");
    commit(store, vec![insert(&record)]).await;
    let again = refused(store, vec![insert(&full_agent("a"))]).await;
    assert!(matches!(again, Precondition::Exists(_)), "{again:?}");
    assert_eq!(store.agent(&record.id).await.unwrap(), Some(record));
}

pub async fn an_access_key_is_one_agents(store: &impl Store) {
    let (mut a, mut b) = (bare_agent("a"), bare_agent("b"));
    a.credentials = one_key("same");
    b.credentials = a.credentials.clone();
    commit(store, vec![insert(&a)]).await;
    let taken = refused(store, vec![insert(&b)]).await;
    assert!(matches!(taken, Precondition::Exists(_)), "{taken:?}");
    assert_eq!(store.agent(&b.id).await.unwrap(), None);
}

/// An engine may write fewer columns when less changed: each way must store all that did.
pub async fn an_update_stores_every_field_whichever_changed(store: &impl Store) {
    let mut stored = bare_agent("a");
    commit(store, vec![insert(&stored)]).await;
    let full = full_agent("a");
    let steps = [next(&stored, |a| a.agent_version = "only plain".into()), {
        let mut plain = full.clone();
        plain.version = 3;
        (plain.status, plain.status_deadline) = (stored.status, stored.status_deadline);
        (plain.active, plain.credentials) = (stored.active, stored.credentials.clone());
        (plain.enrollment_key_id, plain.enrollment_id) = (None, None);
        (plain.enrolled_at, plain.policy_id) = (stored.enrolled_at, None);
        (plain.hostname, plain.duplicate_hosts) = (stored.hostname.clone(), None);
        (plain.host_id, plain.former_id, plain.node) = (None, None, None);
        plain
    }];
    for after in steps {
        commit(store, vec![update(&stored, &after)]).await;
        assert_eq!(store.agent(&after.id).await.unwrap().as_ref(), Some(&after));
        stored = after;
    }
    let changes: [fn(&mut AgentRecord); 11] = [
        |a| a.status = Status::Offline,
        |a| a.status_deadline = Some(at(77)),
        |a| a.active = false,
        |a| a.credentials = one_key("k"),
        |a| a.former_id = Some(AgentId::trusted("once")),
        |a| a.node = Some(NodeId::trusted("n")),
        |a| a.enrollment_key_id = full_agent("x").enrollment_key_id,
        |a| a.enrollment_id = Some("e".into()),
        |a| a.enrolled_at = at(99),
        |a| a.policy_id = Some(PolicyId::trusted("p")),
        |a| *a = AgentRecord { version: a.version, ..bare_agent("a") },
    ];
    for change in changes {
        let after = next(&stored, change);
        commit(store, vec![update(&stored, &after)]).await;
        assert_eq!(store.agent(&after.id).await.unwrap().as_ref(), Some(&after));
        stored = after;
    }
}

pub async fn an_update_from_an_older_version_is_refused(store: &impl Store) {
    let first = bare_agent("a");
    let second = next(&first, |a| a.hostname = "second".into());
    commit(store, vec![insert(&first)]).await;
    commit(store, vec![update(&first, &second)]).await;
    let late = next(&first, |a| a.hostname = "late".into());
    let changed = refused(store, vec![update(&first, &late)]).await;
    assert!(matches!(changed, Precondition::Changed(_)), "{changed:?}");
    assert_eq!(store.agent(&first.id).await.unwrap(), Some(second));
}

pub async fn an_update_counts_its_version_up_by_one(store: &impl Store) {
    let first = bare_agent("a");
    commit(store, vec![insert(&first)]).await;
    for version in [0, 1, 3] {
        let mut after = first.clone();
        after.version = version;
        let changed = refused(store, vec![update(&first, &after)]).await;
        assert!(matches!(changed, Precondition::Changed(_)), "{version}: {changed:?}");
    }
}

pub async fn a_commit_that_needs_a_version_is_refused_after_a_change(store: &impl Store) {
    let first = bare_agent("a");
    let unchanged = |version| AgentWrite::Unchanged { id: first.id.clone(), version }.into();
    let with = |version, name: &str| vec![unchanged(version), setting(name, "1")];
    let nobody = refused(store, with(first.version, "early")).await;
    assert!(matches!(nobody, Precondition::Missing(_)), "{nobody:?}");
    commit(store, vec![insert(&first)]).await;
    commit(store, with(first.version, "now")).await;
    commit(store, vec![update(&first, &next(&first, |a| a.hostname = "second".into()))]).await;
    let changed = refused(store, with(first.version, "late")).await;
    assert!(matches!(changed, Precondition::Changed(_)), "{changed:?}");
    let alone = refused(store, vec![unchanged(first.version)]).await;
    assert!(matches!(alone, Precondition::Changed(_)), "{alone:?}");
    assert!(store.setting("now").await.unwrap().is_some() && store.setting("late").await.unwrap().is_none());
}

pub async fn a_commit_that_needs_agents_of_a_space_is_refused_after_one_has_left_it(store: &impl Store) {
    let (first, second) = (bare_agent("a"), bare_agent("b"));
    commit(store, vec![insert(&first), insert(&second)]).await;
    let with = |ids: &[&str], name: &str| {
        let ids = ids.iter().map(|id| agent_id(id)).collect();
        vec![AgentWrite::InSpace { ids, space: SpaceId::default() }.into(), setting(name, "1")]
    };
    commit(store, with(&["a", "b"], "now")).await;
    let unknown = refused(store, with(&["a", "nobody"], "late")).await;
    assert_eq!(unknown, Precondition::LeftSpace("one of 2 agents".into()));
    commit(store, vec![update(&first, &next(&first, |a| a.space = SpaceId::trusted("red")))]).await;
    assert_eq!(refused(store, with(&["a"], "late")).await, Precondition::LeftSpace("agent a".into()));
    assert!(matches!(refused(store, with(&["a", "b"], "late")).await, Precondition::LeftSpace(_)));
    commit(store, with(&["b"], "other")).await;
    assert!(store.setting("now").await.unwrap().is_some() && store.setting("late").await.unwrap().is_none());
}

pub async fn an_update_of_nobody_is_refused(store: &impl Store) {
    let first = bare_agent("a");
    let missing = refused(store, vec![update(&first, &next(&first, |_| ()))]).await;
    assert!(matches!(missing, Precondition::Missing(_)), "{missing:?}");
}

pub async fn one_of_two_concurrent_updates_wins(store: &impl Store) {
    let first = bare_agent("a");
    commit(store, vec![insert(&first)]).await;
    let left = next(&first, |a| a.hostname = "left".into());
    let right = next(&first, |a| a.tags = vec!["right".into()]);
    let (l, r) = tokio::join!(store.commit(vec![update(&first, &left)]), store.commit(vec![update(&first, &right)]),);
    assert!(l.is_ok() != r.is_ok(), "{l:?} {r:?}");
    let winner = if l.is_ok() { left } else { right };
    assert_eq!(store.agent(&first.id).await.unwrap(), Some(winner));
}

pub async fn ea41_a_replaced_access_key_finds_nobody(store: &impl Store) {
    let first = full_agent("a");
    commit(store, vec![insert(&first)]).await;
    let old = first.credentials.iter().next().unwrap().key_id.clone();
    assert_eq!(store.agent_by_credential(&old).await.unwrap().as_ref(), Some(&first));
    let second = next(&first, |a| a.credentials = one_key("new"));
    commit(store, vec![update(&first, &second)]).await;
    assert_eq!(store.agent_by_credential(&old).await.unwrap(), None);
    assert_eq!(store.agent_by_credential(&KeyId::trusted("new")).await.unwrap().as_ref(), Some(&second));
    let revoked = next(&second, |a| a.credentials.revoke_all());
    commit(store, vec![update(&second, &revoked)]).await;
    assert_eq!(store.agent_by_credential(&KeyId::trusted("new")).await.unwrap(), None);
    assert_eq!(store.agent_by_credential(&KeyId::trusted("NEW")).await.unwrap(), None, "case matters");
}

/// A credential that is bound to a certificate.
fn bound() -> LiveCredential {
    let certificate = Some(SecretHash([9; 32]));
    LiveCredential { certificate, ..credential("two", CredentialKind::NodeKey, 50) }
}

pub async fn fl148_a_commit_is_refused_if_the_agent_is_bound_to_another_certificate(store: &impl Store) {
    let alike = |byte: Option<u8>| {
        let certificate = byte.map(|byte| SecretHash([byte; 32]));
        AgentWrite::BoundAlike { id: agent_id("a"), certificate }.into()
    };
    commit(store, vec![alike(None), setting("nobody", "1")]).await;
    let unbound = next(&bare_agent("a"), |a| (a.version, a.credentials) = (1, one_key("one")));
    commit(store, vec![insert(&unbound)]).await;
    commit(store, vec![alike(Some(8)), alike(None)]).await;
    let bound = next(&unbound, |a| a.credentials.issue(bound()).unwrap());
    commit(store, vec![update(&unbound, &bound)]).await;
    commit(store, vec![alike(Some(9))]).await;
    for other in [Some(8), None] {
        let refused = refused(store, vec![alike(other), setting("late", "1")]).await;
        assert!(matches!(refused, Precondition::Changed(_)), "{refused:?}");
    }
    let revoked = next(&bound, |a| a.credentials.revoke_all());
    commit(store, vec![update(&bound, &revoked)]).await;
    commit(store, vec![alike(Some(8)), setting("now", "1")]).await;
    assert!(store.setting("now").await.unwrap().is_some() && store.setting("late").await.unwrap().is_none());
}

pub async fn several_credentials_live_at_once_and_stay_as_rows_after_their_end(store: &impl Store) {
    let first = next(&bare_agent("a"), |a| (a.version, a.credentials) = (1, one_key("one")));
    commit(store, vec![insert(&first)]).await;
    let second = next(&first, |a| a.credentials.issue(bound()).unwrap());
    commit(store, vec![update(&first, &second)]).await;
    for key in ["one", "two"] {
        assert_eq!(store.agent_by_credential(&KeyId::trusted(key)).await.unwrap().as_ref(), Some(&second));
    }
    assert_eq!(store.agent(&first.id).await.unwrap().as_ref(), Some(&second));
    let used = [("one", 40), ("two", 55), ("one", 30)].map(|(key, when)| (KeyId::trusted(key), at(when))).to_vec();
    commit(store, vec![Write::Agent(AgentWrite::CredentialsUsed { used })]).await;
    let third = next(&second, |a| {
        a.credentials.revoke(&KeyId::trusted("one"));
        a.updated_at = at(60);
    });
    commit(store, vec![update(&second, &third)]).await;
    assert_eq!(store.agent_by_credential(&KeyId::trusted("one")).await.unwrap(), None);
    assert_eq!(store.agent_by_credential(&KeyId::trusted("two")).await.unwrap().as_ref(), Some(&third));
    let found = store.agent_credentials(&first.id).await.unwrap();
    let of = |n: usize| (found[n].key_id.as_str(), found[n].kind, found[n].last_used_at, found[n].revoked_at);
    assert_eq!(of(0), ("two", CredentialKind::NodeKey, Some(at(55)), None));
    assert_eq!(of(1), ("one", CredentialKind::AccessKey, Some(at(40)), Some(at(60))));
    let again = next(&third, |a| a.credentials = one_key("one"));
    let taken = refused(store, vec![update(&third, &again)]).await;
    assert!(matches!(taken, Precondition::Exists(_)), "a public half is never used twice: {taken:?}");
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: first.id.clone(), now: at(70) })]).await;
    assert_eq!(store.agent_credentials(&first.id).await.unwrap(), []);
}

pub async fn a_host_is_its_machines_and_goes_with_its_last_agent(store: &impl Store) {
    let host = |id: &str, space: &str, machine: Option<&str>| Host {
        id: HostId::trusted(id),
        space: SpaceId::trusted(space),
        machine_id: machine.map(str::to_owned),
        hostname: "web-1".into(),
        created_at: at(1),
        system_id: None,
    };
    let shared = host("h-1", "default", Some("m"));
    let on = |agent: &str, host: &str| {
        let mut record = bare_agent(agent);
        record.host_id = Some(HostId::trusted(host));
        record
    };
    let (a, b) = (on("a", "h-1"), on("b", "h-1"));
    commit(store, vec![Write::Agent(AgentWrite::PutHost(shared.clone())), insert(&a), insert(&b)]).await;
    assert_eq!(store.host_by_machine(&SpaceId::trusted("default"), "m").await.unwrap().as_ref(), Some(&shared));
    assert_eq!(store.host_by_machine(&SpaceId::trusted("other"), "m").await.unwrap(), None);
    let taken = refused(store, vec![Write::Agent(AgentWrite::PutHost(host("h-2", "default", Some("m"))))]).await;
    assert!(matches!(taken, Precondition::Exists(_)), "{taken:?}");
    commit(
        store,
        vec![
            Write::Agent(AgentWrite::PutHost(host("h-3", "other", Some("m")))),
            Write::Agent(AgentWrite::PutHost(host("h-4", "default", None))),
        ],
    )
    .await;
    let moved = next(&a, |a| a.host_id = Some(HostId::trusted("h-4")));
    commit(store, vec![update(&a, &moved)]).await;
    assert!(store.host_by_machine(&SpaceId::trusted("default"), "m").await.unwrap().is_some(), "b is still on it");
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: b.id.clone(), now: at(70) })]).await;
    assert_eq!(store.host_by_machine(&SpaceId::trusted("default"), "m").await.unwrap(), None);
}

pub async fn hosts_of_matching_agents_are_listed_by_name(store: &impl Store) {
    let host = |id: &str, hostname: &str| Host {
        id: HostId::trusted(id),
        space: SpaceId::default(),
        machine_id: Some(id.to_owned()),
        hostname: hostname.to_owned(),
        created_at: at(1),
        system_id: None,
    };
    let on = |agent: &str, host: &str, family| {
        let mut record = bare_agent(agent);
        (record.host_id, record.family) = (Some(HostId::trusted(host)), family);
        record
    };
    for (id, name) in [("h-1", "web"), ("h-2", "DB"), ("h-3", "app")] {
        commit(store, vec![Write::Agent(AgentWrite::PutHost(host(id, name)))]).await;
    }
    let agents = [
        on("a", "h-1", Family::Orbit),
        on("b", "h-1", Family::Osquery),
        on("c", "h-2", Family::Osquery),
        on("d", "h-3", Family::Elastic),
    ];
    commit(store, agents.iter().map(insert).collect()).await;
    let listed = async |conditions: Vec<AgentCondition>, offset, limit| {
        let filter = AgentFilter { space: Some(SpaceId::default()), conditions, ..AgentFilter::default() };
        let found = store.host_list(&filter, &HostRows::Page(Page { offset, limit })).await.unwrap();
        let ids: Vec<String> = found.items.iter().map(|host| host.id.to_string()).collect();
        (ids.join(" "), found.total)
    };
    assert_eq!(listed(vec![], 0, 10).await, ("h-3 h-2 h-1".into(), 3));
    assert_eq!(listed(vec![], 1, 1).await, ("h-2".into(), 3));
    let osquery = AgentCondition::Families(vec![Family::Osquery]);
    assert_eq!(listed(vec![osquery], 0, 10).await, ("h-2 h-1".into(), 2));
    assert_eq!(listed(vec![AgentCondition::Hosts(vec![HostId::trusted("h-1")])], 0, 10).await, ("h-1".into(), 1));
    let between = |from, to| AgentCondition::IdsBetween(AgentId::trusted(from), AgentId::trusted(to));
    assert_eq!(listed(vec![between("b", "d")], 0, 10).await, ("h-2 h-1".into(), 2));
    assert_eq!(listed(vec![between("b0", "c")], 0, 10).await, (String::new(), 0));
    let ranges = AgentCondition::Any(vec![between("c", "d"), between("b", "c"), between("x", "y")]);
    assert_eq!(listed(vec![ranges], 0, 10).await, ("h-2 h-1".into(), 2));
    let elsewhere =
        AgentFilter { space: Some(SpaceId::trusted("other")), conditions: vec![], ..AgentFilter::default() };
    let page = HostRows::Page(Page { offset: 0, limit: 9 });
    assert_eq!(store.host_list(&elsewhere, &page).await.unwrap().total, 0);
}

pub async fn a_list_of_hosts_continues_behind_a_cursor(store: &impl Store) {
    let host = |id: &str, hostname: &str| Host {
        id: HostId::trusted(id),
        space: SpaceId::default(),
        machine_id: None,
        hostname: hostname.to_owned(),
        created_at: at(1),
        system_id: None,
    };
    for (id, name) in [("h-1", "Web"), ("h-2", "web"), ("h-3", "app"), ("h-4", "")] {
        let on = AgentRecord { host_id: Some(HostId::trusted(id)), ..bare_agent(&format!("a-{id}")) };
        commit(store, vec![Write::Agent(AgentWrite::PutHost(host(id, name))), insert(&on)]).await;
    }
    let filter = AgentFilter { space: Some(SpaceId::default()), conditions: vec![], ..AgentFilter::default() };
    let (mut rows, mut found) = (HostRows::Page(Page { offset: 0, limit: 1 }), Vec::new());
    // Names that differ only in case are told apart by the id.
    while let Some(host) = store.host_list(&filter, &rows).await.unwrap().items.pop() {
        found.push(host.id.to_string());
        rows = HostRows::After(HostCursor::behind(&host), 1);
    }
    assert_eq!(found, ["h-4", "h-3", "h-1", "h-2"]);
    let before = |name: &str, id: &str, limit: u32| {
        HostRows::Before(HostCursor { name: name.into(), id: HostId::trusted(id) }, limit)
    };
    for (rows, expected) in [
        (before("web", "h-2", 2), vec!["h-3", "h-1"]),
        (before("web", "h-2", 9), vec!["h-4", "h-3", "h-1"]),
        (before("", "h-4", 9), vec![]),
    ] {
        let hosts = store.host_list(&filter, &rows).await.unwrap().items;
        assert_eq!(hosts.iter().map(|host| host.id.as_str()).collect::<Vec<_>>(), expected, "{rows:?}");
    }
}

pub async fn one_agent_of_a_key_and_an_enrollment_id_waits_for_its_first_check_in(store: &impl Store) {
    let with_handle = |id: &str, key: &str, seen: bool| {
        let mut record = bare_agent(id);
        record.enrollment_id = Some("handle".into());
        record.enrollment_key_id = Some(EnrollmentKeyId::trusted(key));
        record.last_checkin = seen.then(|| at(5));
        record
    };
    let (first, by_other_key) = (with_handle("a", "k", false), with_handle("b", "other", false));
    let writes = vec![insert(&first), insert(&by_other_key), insert(&with_handle("seen", "k", true))];
    commit(store, writes).await;
    let find = async |handle, key| {
        let found = store.agent_by_enrollment_id(handle, &EnrollmentKeyId::trusted(key)).await.unwrap();
        found.map(|record| record.id)
    };
    assert_eq!(find("handle", "k").await, Some(agent_id("a")));
    assert_eq!(find("handle", "other").await, Some(agent_id("b")));
    assert_eq!((find("other", "k").await, find("handle", "none").await), (None, None));

    let second = with_handle("c", "k", false);
    let refused = store.commit(vec![insert(&second)]).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict(Precondition::Exists(_))), "{refused}");
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: first.id.clone(), now: at(1) }), insert(&second)]).await;
    assert_eq!(find("handle", "k").await, Some(agent_id("c")));
    let seen = next(&second, |record| record.last_checkin = Some(at(9)));
    commit(store, vec![update(&second, &seen)]).await;
    assert_eq!(find("handle", "k").await, None, "it has arrived");
    commit(store, vec![insert(&first)]).await;
}

pub async fn documents_that_are_not_named_stay(store: &impl Store) {
    let id = agent_id("a");
    commit(store, vec![insert(&bare_agent("a"))]).await;
    let mut expected = documents(r#"{"host":{"hostname":"h"}}"#, r#"[{"id":"c"}]"#);
    assert_eq!(store.agent_documents(&id).await.unwrap().as_ref(), Some(&expected));
    for changed in [
        AgentDocuments { local_metadata: Some("null".into()), components: None },
        AgentDocuments { local_metadata: None, components: Some("[]".into()) },
    ] {
        expected.local_metadata = changed.local_metadata.clone().or(expected.local_metadata);
        expected.components = changed.components.clone().or(expected.components);
        commit(store, vec![Write::Agent(AgentWrite::Documents { id: id.clone(), documents: changed })]).await;
        assert_eq!(store.agent_documents(&id).await.unwrap().as_ref(), Some(&expected));
    }
    let nobody = Write::Agent(AgentWrite::Documents { id: agent_id("nobody"), documents: documents("{}", "[]") });
    assert!(matches!(refused(store, vec![nobody]).await, Precondition::Missing(_)));
    assert_eq!(store.agent_documents(&agent_id("nobody")).await.unwrap(), None);
}

pub async fn check_in_times_only_grow(store: &impl Store) {
    let record = bare_agent("a");
    commit(store, vec![insert(&record), insert(&full_agent("b"))]).await;
    for (seen, expected) in [(at(50), at(50)), (at(40), at(50)), (at(60), at(60))] {
        let seen = vec![(agent_id("a"), seen), (agent_id("gone"), seen)];
        commit(store, vec![Write::Agent(AgentWrite::Seen { seen })]).await;
        let stored = store.agent(&record.id).await.unwrap().unwrap();
        assert_eq!(stored.last_checkin, Some(expected));
        assert_eq!(stored.version, 1, "no version change");
    }
    assert_eq!(store.agent(&agent_id("b")).await.unwrap(), Some(full_agent("b")), "others stay");
}

pub async fn a_deleted_agent_is_gone_everywhere(store: &impl Store) {
    let record = full_agent("a");
    let id = &record.id;
    commit(
        store,
        vec![
            insert(&record),
            insert(&bare_agent("b")),
            create(&action("x"), &["a", "b"]),
            answer(&result("x", "a", 1, None)),
            create(&action("open"), &["a"]),
            Write::File(FileWrite::InsertUpload(Box::new(upload("u", "x", "a")))),
            chunk("u", 0, b"bytes"),
            Write::File(FileWrite::InsertUpload(Box::new(upload("v", "x", "b")))),
            chunk("v", 0, b"other"),
            Write::File(FileWrite::InsertFile(Box::new(file("f", &["a", "b"])))),
        ],
    )
    .await;
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: id.clone(), now: at(7) })]).await;
    assert_eq!(store.agent(id).await.unwrap(), None);
    assert_eq!(store.agent_documents(id).await.unwrap(), None);
    assert_eq!(store.agent_by_credential(&record.credentials.iter().next().unwrap().key_id).await.unwrap(), None);
    assert_eq!(store.agent_tags(&Default::default()).await.unwrap(), Vec::<String>::new());
    let outcome = ActionResult { fields: None, ..result("x", "a", 1, None) };
    assert_eq!(store.action_results(&action_id("x"), false, 10).await.unwrap(), [outcome]);
    let ended = ActionResult { fields: None, ..result("open", "a", 7, Some("the agent was unenrolled")) };
    assert_eq!(store.action_results(&action_id("open"), true, 10).await.unwrap(), [ended]);
    assert_eq!(store.uploads(id).await.unwrap(), []);
    assert_eq!(store.chunk(&FileId::trusted("u"), 0).await.unwrap(), None);
    assert_eq!(store.file(&FileId::trusted("f")).await.unwrap().unwrap().agents, [agent_id("b")]);
    assert!(store.chunk(&FileId::trusted("v"), 0).await.unwrap().is_some(), "the other agent keeps its own");
    assert!(store.action_target(&action_id("x"), &agent_id("b")).await.unwrap().is_some());
    let again = refused(store, vec![Write::Agent(AgentWrite::Delete { id: id.clone(), now: at(8) })]).await;
    assert!(matches!(again, Precondition::Missing(_)), "{again:?}");
}

pub async fn d14_a_new_life_inherits_no_orders(store: &impl Store) {
    let answered = answer(&result("answered", "a", 1, None));
    commit(store, vec![create(&action("before"), &["a"]), create(&action("answered"), &["a"]), answered]).await;
    commit(store, vec![insert(&bare_agent("a"))]).await;
    assert_eq!(store.actions_due(&agent_id("a"), -1, at(0), 10).await.unwrap(), []);
}

pub async fn agents_are_due_in_the_order_of_their_deadlines(store: &impl Store) {
    for (id, deadline) in [("a", Some(30)), ("b", Some(10)), ("c", None), ("d", Some(20)), ("e", Some(31))] {
        let mut record = bare_agent(id);
        record.status_deadline = deadline.map(at);
        commit(store, vec![insert(&record)]).await;
    }
    let ids = |due: Vec<AgentRecord>| -> Vec<String> { due.into_iter().map(|agent| agent.id.to_string()).collect() };
    assert_eq!(ids(store.agents_due(at(30), 10).await.unwrap()), ["b", "d", "a"]);
    assert_eq!(ids(store.agents_due(at(30), 2).await.unwrap()), ["b", "d"]);
    assert_eq!(ids(store.agents_due(at(9), 10).await.unwrap()), Vec::<String>::new());
}
