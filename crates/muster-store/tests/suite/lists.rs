//! Lists of agents: filters, orders, pages, counts, tags.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muster_core::agent::{AgentDetails, AgentRecord, AuditReason, AuditReport, Family};
use muster_core::host::Host;
use muster_core::id::{AgentId, EnrollmentKeyId, HostId, PolicyId, SpaceId};
use muster_core::policy::PolicyRevision;
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_core::version::Version;
use muster_store::query::AgentCondition::{self, EnrollmentKeys, HasTags, Ids, Policies, Statuses, Tags};
use muster_store::query::{AgentFilter, AgentSort, HostRows, Identifier, Page};
use muster_store::search::Fact;
use muster_store::{AgentWrite, PolicyWrite, Store, Write};

use super::sample::*;

const ALL: Page = Page { offset: 0, limit: 1000 };

fn fleet() -> Vec<AgentRecord> {
    let make = |id: &str, n: i64, policy: Option<&str>, status, tags: &[&str]| {
        let mut record = bare_agent(id);
        record.enrolled_at = at(100 - n);
        record.last_checkin = (n % 2 == 0).then(|| at(n));
        record.hostname = format!("{}host-{n}", if n % 2 == 0 { "B" } else { "a" });
        record.agent_version = format!("9.{n}.0");
        record.policy_id = policy.map(PolicyId::trusted);
        record.status = status;
        record.tags = tags.iter().map(ToString::to_string).collect();
        record.enrollment_key_id = (n == 3).then(|| EnrollmentKeyId::trusted("ek"));
        record
    };
    vec![
        make("a1", 1, Some("p"), Status::Online, &["x", "Y"]),
        make("a2", 2, Some("p"), Status::Offline, &["x"]),
        make("a3", 3, Some("q"), Status::Online, &["b'; DROP TABLE agents; --"]),
        make("a4", 4, None, Status::Unenrolled, &[]),
        make("a5", 5, Some("q"), Status::Error, &["x", "ä", "B"]),
    ]
}

async fn with_fleet(store: &impl Store) {
    commit(store, fleet().iter().map(insert).collect()).await;
}

async fn listed(store: &impl Store, filter: &AgentFilter, sort: AgentSort, descending: bool) -> String {
    let page = store.agent_list(filter, sort, descending, ALL).await.unwrap();
    assert_eq!(page.total, page.items.len() as u64);
    let ids: Vec<_> = page.items.iter().map(|agent| agent.record.id.as_str()).collect();
    ids.join(" ")
}

/// Every read that takes a filter must agree on who matches.
async fn matches(store: &impl Store, filter: &AgentFilter, expected: &str) {
    let mut by_list: Vec<_> =
        listed(store, filter, AgentSort::EnrolledAt, true).await.split_whitespace().map(str::to_owned).collect();
    by_list.sort();
    assert_eq!(by_list.join(" "), expected, "{filter:?}");
    let by_ids = store.agent_ids(filter, None, 1000).await.unwrap();
    assert_eq!(by_ids.iter().map(AgentId::as_str).collect::<Vec<_>>().join(" "), expected, "{filter:?}");
    let counted: u64 = store.agent_counts(filter).await.unwrap().iter().map(|(_, number)| number).sum();
    assert_eq!(counted, by_ids.len() as u64, "{filter:?}");
}

pub async fn each_filter_holds_and_all_of_them_together(store: &impl Store) {
    with_fleet(store).await;
    let texts = |tags: &[&str]| tags.iter().map(ToString::to_string).collect::<Vec<_>>();
    let ids = |ids: &[&str]| Ids(ids.iter().map(|id| agent_id(id)).collect());
    let on = |ids: &[&str]| Policies(ids.iter().map(|id| PolicyId::trusted(*id)).collect());
    let tagged = |tags: &[&str]| Tags(texts(tags));
    let cases: [(Vec<AgentCondition>, &str); 16] = [
        (vec![], "a1 a2 a3 a4 a5"),
        (vec![ids(&["a5", "a1", "no\"body'"])], "a1 a5"),
        (vec![ids(&[])], ""),
        (vec![on(&["q"])], "a3 a5"),
        (vec![!on(&["q"])], "a1 a2 a4"),
        (vec![Statuses(vec![Status::Online, Status::Error])], "a1 a3 a5"),
        (vec![!Statuses(vec![Status::Unenrolled, Status::Error])], "a1 a2 a3"),
        (vec![tagged(&["x", "Y"])], "a1 a2 a5"),
        (vec![tagged(&["x"]), tagged(&["Y"])], "a1"),
        (vec![tagged(&["b'; DROP TABLE agents; --"])], "a3"),
        (vec![!tagged(&["x"])], "a3 a4"),
        (vec![HasTags], "a1 a2 a3 a5"),
        (vec![!HasTags], "a4"),
        (vec![EnrollmentKeys(vec![EnrollmentKeyId::trusted("ek")])], "a3"),
        (vec![!EnrollmentKeys(vec![EnrollmentKeyId::trusted("ek")])], "a1 a2 a4 a5"),
        (
            vec![
                ids(&["a1", "a2", "a5"]),
                on(&["p", "q"]),
                Statuses(vec![Status::Online, Status::Offline]),
                tagged(&["x"]),
                !tagged(&["Y"]),
            ],
            "a2",
        ),
    ];
    for (conditions, expected) in cases {
        matches(store, &AgentFilter::all(conditions), expected).await;
    }
}

pub async fn departures_and_pending_policies_are_found_by_time(store: &impl Store) {
    let revision = |number, created| {
        let revision = PolicyRevision { created_at: at(created), ..revision("p", number) };
        Write::Policy(PolicyWrite::InsertRevision(Box::new(revision)))
    };
    let mut newest = policy("p");
    newest.revision = 2;
    commit(store, vec![Write::Policy(PolicyWrite::Insert(Box::new(newest))), revision(1, 10), revision(2, 50)]).await;
    let agent = |id: &str, enrolled, change: &dyn Fn(&mut AgentRecord)| {
        let mut record = bare_agent(id);
        (record.enrolled_at, record.policy_id, record.active) = (at(enrolled), Some(PolicyId::trusted("p")), true);
        change(&mut record);
        insert(&record)
    };
    let left = AuditReport { reason: AuditReason::Uninstall, at: at(60) };
    let agents = vec![
        agent("behind", 20, &|record| record.policy_revision = 1),
        agent("current", 20, &|record| record.policy_revision = 2),
        agent("gone", 20, &|record| (record.active, record.audit) = (false, Some(left))),
        agent("new", 70, &|_| {}),
        agent("pinned", 20, &|record| (record.policy_revision, record.target_revision) = (1, Some(1))),
        agent("stuck", 20, &|record| (record.policy_revision, record.target_revision) = (2, Some(1))),
    ];
    commit(store, agents).await;
    let pending = |time| AgentFilter::all([AgentCondition::PolicyPendingSince(at(time))]);
    matches(store, &pending(60), "behind stuck").await;
    matches(store, &pending(40), "stuck").await;
    matches(store, &pending(80), "behind new stuck").await;
    matches(store, &AgentFilter::all([AgentCondition::LeftAfter(at(59))]), "gone").await;
    matches(store, &AgentFilter::all([AgentCondition::LeftAfter(at(60))]), "").await;
    matches(store, &AgentFilter::all([!AgentCondition::PolicyPendingSince(at(60))]), "current gone new pinned").await;
}

pub async fn agents_are_counted_by_operating_system(store: &impl Store) {
    let on = |id: &str, os: &str| {
        let mut record = bare_agent(id);
        record.os = os.into();
        insert(&record)
    };
    commit(store, vec![on("a", "windows\nwindows"), on("b", "debian"), on("c", "debian"), on("d", "")]).await;
    let counted = async |limit| store.agents_by_os(&AgentFilter::default(), limit).await.unwrap();
    let group = |os: &str, number| (os.to_owned(), number);
    assert_eq!(counted(10).await, [group("debian", 2), group("", 1), group("windows\nwindows", 1)]);
    assert_eq!(counted(1).await, [group("debian", 2)]);
}

pub async fn agents_are_counted_by_program(store: &impl Store) {
    let on = |id: &str, family, version: &str| AgentRecord { family, agent_version: version.into(), ..bare_agent(id) };
    let first = on("a", Family::Elastic, "9.5.2");
    let others = [on("b", Family::Elastic, "9.5.2"), on("c", Family::Orbit, "1.2"), on("d", Family::Elastic, "")];
    commit(store, others.iter().chain([&first]).map(insert).collect()).await;
    let counted = async || store.agents_by_program(&AgentFilter::default()).await.unwrap();
    let group = |family, version: &str, number| (family, version.to_owned(), number);
    let (orbit, unknown) = (group(Family::Orbit, "1.2", 1), group(Family::Elastic, "", 1));
    assert_eq!(counted().await, [group(Family::Elastic, "9.5.2", 2), unknown.clone(), orbit.clone()]);
    let stored = store.agent(&first.id).await.unwrap().unwrap();
    let upgraded = next(&stored, |record| record.agent_version = "1.2".into());
    commit(store, vec![update(&stored, &upgraded)]).await;
    let (old, new) = (group(Family::Elastic, "9.5.2", 1), group(Family::Elastic, "1.2", 1));
    assert_eq!(counted().await, [unknown, new, old, orbit]);
}

/// Within a space, conditions on systems are decided for the different systems; without one, for each agent.
pub async fn hosts_and_agents_are_found_by_their_system(store: &impl Store) {
    let systems = [
        ("a", "debian\ndebian\nDebian GNU/Linux\n12\nx86_64"),
        ("b", "debian\ndebian\nDebian GNU/Linux\n13\naarch64"),
        ("c", "windows\nwindows\nWindows 11\n10.0\nx86_64"),
        ("d", ""),
    ];
    for (id, os) in systems {
        let host = Host {
            id: HostId::trusted(format!("h-{id}")),
            space: SpaceId::default(),
            machine_id: None,
            hostname: id.into(),
            created_at: at(0),
            system_id: None,
        };
        let record =
            AgentRecord { os: os.into(), host_id: Some(host.id.clone()), hostname: id.into(), ..bare_agent(id) };
        commit(store, vec![Write::Agent(AgentWrite::PutHost(host)), insert(&record)]).await;
    }
    let os = |fact, value: &str, is_prefix| AgentCondition::Os(fact, value.into(), is_prefix);
    for (condition, found) in [
        (os(Fact::Platform, "Debian", false), "ab"),
        (os(Fact::Name, "debian", false), ""),
        (os(Fact::Name, "debian", true), "ab"),
        (os(Fact::Architecture, "x86_64", false), "ac"),
        (os(Fact::Platform, "", false), "d"),
        (!os(Fact::Platform, "windows", false), "abd"),
        (!AgentCondition::Any(vec![os(Fact::Platform, "", false), os(Fact::Platform, "windows", false)]), "ab"),
    ] {
        for space in [None, Some(SpaceId::default())] {
            let filter = AgentFilter { space, conditions: vec![condition.clone()], ..AgentFilter::default() };
            let page = Page { offset: 0, limit: 10 };
            let agents = store.agent_list(&filter, AgentSort::Hostname, false, page).await.unwrap();
            let ids: String = agents.items.iter().map(|one| one.record.id.to_string()).collect();
            let hosts = store.host_list(&filter, &HostRows::Page(page)).await.unwrap();
            let names: String = hosts.items.iter().map(|host| host.hostname.as_str()).collect();
            assert_eq!((ids.as_str(), names.as_str()), (found, found), "{filter:?}");
            assert_eq!((agents.total, hosts.total), (found.len() as u64, found.len() as u64), "{filter:?}");
        }
    }
}

pub async fn a_filter_of_very_many_ids_works(store: &impl Store) {
    with_fleet(store).await;
    let ids = (0..50_000).map(|n| agent_id(&format!("a{n}"))).collect();
    matches(store, &AgentFilter::all([Ids(ids)]), "a1 a2 a3 a4 a5").await;
}

pub async fn mg149_agents_unseen_for_long_are_found(store: &impl Store) {
    with_fleet(store).await;
    let unseen = |n| AgentFilter::all([AgentCondition::UnseenSince(at(n))]);
    matches(store, &unseen(2), "").await;
    matches(store, &unseen(3), "a2").await;
    // Those never seen enrolled at 95, 97 and 99.
    matches(store, &unseen(98), "a2 a3 a4 a5").await;
    let seen_after = |n| AgentFilter::all([AgentCondition::SeenAfter(at(n))]);
    matches(store, &seen_after(98), "a1").await;
    matches(store, &seen_after(99), "").await;
}

pub async fn agents_with_another_inactivity_timeout_are_found(store: &impl Store) {
    for (id, timeout) in [("never", None), ("short", Some(60)), ("long", Some(3600))] {
        let mut record = bare_agent(id);
        record.inactivity_timeout = timeout.map(Duration::from_secs);
        commit(store, vec![insert(&record)]).await;
    }
    let without =
        |timeout: Option<u64>| AgentFilter::all([!AgentCondition::InactivityTimeout(timeout.map(Duration::from_secs))]);
    matches(store, &without(None), "long short").await;
    matches(store, &without(Some(60)), "long never").await;
    matches(store, &without(Some(61)), "long never short").await;
}

pub async fn texts_that_many_agents_contain_are_counted(store: &impl Store) {
    let agents = (0..1_010).map(|n| AgentRecord {
        hostname: format!("{}-{n}", if n < 1_005 { "web" } else { "db" }),
        status: if n < 3 { Status::Unenrolled } else { Status::Online },
        ..bare_agent(&format!("a{n}"))
    });
    commit(store, agents.map(|agent| insert(&agent)).collect()).await;
    let space = Some(SpaceId::default());
    for text in [AgentCondition::Text("h=web".into()), AgentCondition::HostnameLike("WEB-*".into())] {
        let shown = AgentFilter {
            space: space.clone(),
            conditions: vec![!Statuses(vec![Status::Unenrolled]), text],
            ..AgentFilter::default()
        };
        let page = Page { offset: 0, limit: 5 };
        let found = store.agent_list(&shown, AgentSort::EnrolledAt, false, page).await.unwrap();
        assert_eq!((found.items.len(), found.total), (5, 1_002));
        let others = AgentFilter { conditions: vec![!AgentCondition::All(shown.conditions.clone())], ..shown };
        assert_eq!(store.agent_list(&others, AgentSort::EnrolledAt, false, page).await.unwrap().total, 8);
    }
}

pub async fn each_order_and_its_reverse(store: &impl Store) {
    with_fleet(store).await;
    let orders = [
        (AgentSort::EnrolledAt, "a5 a4 a3 a2 a1"),
        (AgentSort::LastCheckin, "a1 a3 a5 a2 a4"),
        (AgentSort::Hostname, "a1 a3 a5 a2 a4"),
        (AgentSort::Status, "a5 a2 a1 a3 a4"),
        (AgentSort::Policy, "a4 a1 a2 a3 a5"),
        (AgentSort::Version, "a1 a2 a3 a4 a5"),
    ];
    for (sort, expected) in orders {
        assert_eq!(listed(store, &AgentFilter::default(), sort, false).await, expected, "{sort:?}");
        let reversed: Vec<_> = expected.split(' ').rev().collect();
        assert_eq!(listed(store, &AgentFilter::default(), sort, true).await, reversed.join(" "), "{sort:?}");
        // The list by check-in has an index of its own, if it is one of a space.
        let space = AgentFilter { space: Some(SpaceId::default()), ..AgentFilter::default() };
        assert_eq!(listed(store, &space, sort, false).await, expected, "{sort:?}");
    }
}

pub async fn the_list_by_check_in_follows_each_change_of_an_agent(store: &impl Store) {
    let space = AgentFilter { space: Some(SpaceId::default()), ..AgentFilter::default() };
    let failed = AgentFilter { conditions: vec![Statuses(vec![Status::Error])], ..space.clone() };
    let order = async |filter: &AgentFilter| listed(store, filter, AgentSort::LastCheckin, false).await;
    let agents = ["a", "b", "c"].map(bare_agent);
    commit(store, agents.iter().map(insert).collect()).await;
    assert_eq!(order(&space).await, "a b c");
    let seen = |id: &str, minute: i64| (agent_id(id), Timestamp::from_micros(minute * 60_000_000 + 7));
    commit(store, vec![AgentWrite::Seen { seen: vec![seen("a", 20), seen("b", 10)] }.into()]).await;
    assert_eq!(order(&space).await, "c b a");
    commit(store, vec![AgentWrite::Seen { seen: vec![seen("a", 5)] }.into()]).await;
    assert_eq!(order(&space).await, "c b a");
    let before = Arc::new(store.agent(&agent_id("c")).await.unwrap().unwrap());
    let after = Arc::new(AgentRecord {
        version: before.version + 1,
        last_checkin: Some(seen("c", 15).1),
        status: Status::Error,
        ..(*before).clone()
    });
    commit(store, vec![AgentWrite::Update { before, after }.into()]).await;
    assert_eq!(order(&space).await, "b c a");
    assert_eq!(order(&failed).await, "c");
    commit(store, vec![AgentWrite::Delete { id: agent_id("b"), now: at(1) }.into()]).await;
    assert_eq!(order(&space).await, "c a");
}

pub async fn pages_cover_the_list_and_tell_the_total(store: &impl Store) {
    with_fleet(store).await;
    let mut seen = Vec::new();
    for offset in [0, 2, 4, 6] {
        let page = Page { offset, limit: 2 };
        let listed = store.agent_list(&AgentFilter::default(), AgentSort::Version, false, page).await.unwrap();
        assert_eq!(listed.total, 5);
        seen.extend(listed.items.into_iter().map(|agent| agent.record.id.to_string()));
    }
    assert_eq!(seen, ["a1", "a2", "a3", "a4", "a5"]);
}

pub async fn cursors_show_each_agent_once_in_every_order(store: &impl Store) {
    with_fleet(store).await;
    let filter = AgentFilter::default();
    let sorts = [
        AgentSort::EnrolledAt,
        AgentSort::LastCheckin,
        AgentSort::Hostname,
        AgentSort::Status,
        AgentSort::Policy,
        AgentSort::Version,
    ];
    for (sort, descending) in sorts.into_iter().flat_map(|sort| [(sort, false), (sort, true)]) {
        let expected = listed(store, &filter, sort, descending).await;
        let first = Page { offset: 0, limit: 1 };
        let mut seen = store.agent_list(&filter, sort, descending, first).await.unwrap().items;
        loop {
            let cursor = sort.cursor(&seen.last().unwrap().record);
            let more = store.agents_after(&filter, sort, descending, &cursor, 2).await.unwrap().items;
            if more.is_empty() {
                break;
            }
            seen.extend(more);
        }
        let ids: Vec<_> = seen.iter().map(|agent| agent.record.id.as_str()).collect();
        assert_eq!(ids.join(" "), expected, "{sort:?} {descending}");
    }
}

pub async fn host_names_and_times_of_enrollment_are_filtered_by(store: &impl Store) {
    with_fleet(store).await;
    let all = store.agent_list(&AgentFilter::default(), AgentSort::EnrolledAt, false, ALL).await.unwrap().items;
    let (name, at) = (all[1].record.hostname.to_uppercase(), all[1].record.enrolled_at);
    let named = |names: Vec<String>| AgentFilter::all([AgentCondition::Hostnames(names)]);
    let same: Vec<_> = all.iter().filter(|agent| agent.record.hostname.to_uppercase() == name).collect();
    let expected: Vec<_> = same.iter().map(|agent| agent.record.id.as_str()).collect();
    matches(store, &named(vec![name, "none".into()]), &expected.join(" ")).await;
    matches(store, &named(Vec::new()), "").await;
    matches(store, &AgentFilter::all([AgentCondition::EnrolledBy(at)]), "a4 a5").await;
}

pub async fn agents_are_filtered_by_what_they_reported(store: &impl Store) {
    let silent = bare_agent("silent");
    let heard = AgentRecord { last_checkin: Some(at(1)), ..bare_agent("heard") };
    let failing = |id: &str, reasons: &[&str]| {
        let mut record = AgentRecord { last_checkin: Some(at(1)), ..bare_agent(id) };
        record.health.unhealthy_reason = reasons.iter().map(|reason| (*reason).to_owned()).collect();
        record
    };
    let agents = [silent, heard, failing("input", &["input"]), failing("output", &["input", "output"])];
    commit(store, agents.iter().map(insert).collect()).await;
    let found = async |condition| {
        let filter = AgentFilter::all([condition]);
        let found = store.agent_list(&filter, AgentSort::EnrolledAt, false, ALL).await.unwrap().items;
        let mut ids: Vec<_> = found.iter().map(|agent| agent.record.id.to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(found(AgentCondition::HasCheckedIn).await, ["heard", "input", "output"]);
    assert_eq!(found(AgentCondition::HasFailingOutput).await, ["output"]);
}

pub async fn lists_carry_metadata_but_not_components(store: &impl Store) {
    with_fleet(store).await;
    let listed = store.agent_list(&AgentFilter::default(), AgentSort::Version, false, ALL).await.unwrap();
    for (agent, expected) in listed.items.iter().zip(fleet()) {
        assert_eq!(agent.record, expected);
        assert_eq!(agent.documents.local_metadata.as_deref(), Some(r#"{"host":{"hostname":"h"}}"#));
        assert_eq!(agent.documents.components, None);
    }
}

pub async fn ids_come_in_slices_that_meet(store: &impl Store) {
    with_fleet(store).await;
    let mut all = Vec::new();
    loop {
        let slice = store.agent_ids(&AgentFilter::default(), all.last(), 2).await.unwrap();
        if slice.is_empty() {
            break;
        }
        all.extend(slice);
    }
    assert_eq!(all, ["a1", "a2", "a3", "a4", "a5"].map(agent_id));
}

pub async fn statuses_are_counted(store: &impl Store) {
    with_fleet(store).await;
    let counts: BTreeMap<_, _> = store.agent_counts(&AgentFilter::default()).await.unwrap().into_iter().collect();
    let expected = [(Status::Online, 2), (Status::Offline, 1), (Status::Unenrolled, 1), (Status::Error, 1)];
    assert_eq!(counts, BTreeMap::from(expected));
}

pub async fn tags_in_use_are_sorted_ignoring_case(store: &impl Store) {
    with_fleet(store).await;
    let tags = store.agent_tags(&AgentFilter::default()).await.unwrap();
    assert_eq!(tags, ["B", "b'; DROP TABLE agents; --", "x", "Y", "ä"]);
    let filter = AgentFilter::all([Statuses(vec![Status::Online])]);
    assert_eq!(store.agent_tags(&filter).await.unwrap(), ["b'; DROP TABLE agents; --", "x", "Y"]);
}

pub async fn changed_tags_are_filtered_by_at_once(store: &impl Store) {
    let first = next(&bare_agent("a"), |a| a.tags = vec!["old".into(), "kept".into()]);
    let second = next(&first, |a| a.tags = vec!["kept".into(), "new".into()]);
    commit(store, vec![insert(&first)]).await;
    commit(store, vec![update(&first, &second)]).await;
    assert_eq!(store.agent_tags(&AgentFilter::default()).await.unwrap(), ["kept", "new"]);
    let old = AgentFilter::all([Tags(vec!["old".into()])]);
    assert_eq!(store.agent_ids(&old, None, 10).await.unwrap(), []);
    commit(store, vec![Write::Agent(AgentWrite::Delete { id: first.id, now: at(1) })]).await;
    assert_eq!(store.agent_tags(&AgentFilter::default()).await.unwrap(), Vec::<String>::new());
}

pub async fn named_agents_come_in_the_order_of_their_names(store: &impl Store) {
    with_fleet(store).await;
    let named = ["a4", "nobody", "a1", "a5"].map(agent_id);
    let found = store.agents_named(&named).await.unwrap();
    assert_eq!(found.iter().map(|agent| agent.record.id.as_str()).collect::<Vec<_>>(), ["a4", "a1", "a5"]);
    assert_eq!(found[1].record, fleet()[0]);
    let mut versions = store.agent_versions(&named).await.unwrap();
    versions.sort();
    let expected: Vec<_> = [0, 3, 4].map(|place: usize| (fleet()[place].id.clone(), fleet()[place].version)).into();
    assert_eq!(versions, expected);
    assert_eq!(store.agents_named(&[]).await.unwrap().len() + store.agent_versions(&[]).await.unwrap().len(), 0);
}

pub async fn agents_are_found_by_text_facts_and_version(store: &impl Store) {
    let facts = [
        ("a", "Web-1", "8.9.0", "linux\ndebian\nUbuntu\n24.04\nx86_64"),
        ("b", "web_2", "8.19.0", "linux\nredhat\nRocky Linux\n9.4\naarch64"),
        ("c", "db%1", "9.5.2", "windows\nwindows\nWindows Server 2022\n10.0\nx86_64"),
    ];
    for (id, host, version, os) in facts {
        let mut record = bare_agent(id);
        (record.hostname, record.agent_version, record.os) = (host.into(), version.into(), os.into());
        if id == "a" {
            record.hardware = "4c4c-1\ns-1".into();
        }
        commit(store, vec![insert(&record)]).await;
        assert_eq!(store.agent(&record.id).await.unwrap().unwrap().hardware, record.hardware);
    }
    let before = store.agent(&agent_id("c")).await.unwrap().unwrap();
    let tagged = next(&before, |record| {
        (record.tags, record.hardware) = (vec!["Finance".into()], "\ns-3".into());
    });
    commit(store, vec![update(&before, &tagged)]).await;
    let find = async |condition: AgentCondition| {
        let ids = store.agent_ids(&AgentFilter::all([condition]), None, 10).await.unwrap();
        ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>().join("")
    };
    let key = |text: &str| Version::parse(text).unwrap().sort_key();
    for (condition, found) in [
        (AgentCondition::HostnameLike("WEB*".into()), "ab"),
        (AgentCondition::HostnameLike("*_2".into()), "b"),
        (AgentCondition::HostnameLike("db%*".into()), "c"),
        (AgentCondition::HostnameLike("web".into()), ""),
        (AgentCondition::HostnamePart("EB".into()), "ab"),
        (AgentCondition::HostnamePart("b%1".into()), "c"),
        (AgentCondition::HostnamePart("*".into()), ""),
        (AgentCondition::Hardware(Identifier::Serial, vec![" S-1 ".into(), "none".into()]), "a"),
        (AgentCondition::Hardware(Identifier::Uuid, vec!["4C4C-1".into()]), "a"),
        (AgentCondition::Hardware(Identifier::Uuid, vec!["s-1".into(), String::new()]), ""),
        (AgentCondition::HasHardware(Identifier::Serial), "ac"),
        (!AgentCondition::HasHardware(Identifier::Uuid), "bc"),
        (!AgentCondition::Hardware(Identifier::Serial, vec!["s-1".into()]), "bc"),
        (AgentCondition::Text("C4C-1".into()), "a"),
        (AgentCondition::Text("s-3".into()), "c"),
        (AgentCondition::Text("rocky".into()), "b"),
        (AgentCondition::Text("FINANCE".into()), "c"),
        (AgentCondition::Text("%".into()), "c"),
        (AgentCondition::Text("server*2022".into()), "c"),
        (AgentCondition::Text("8.1".into()), "b"),
        (AgentCondition::Os(Fact::Platform, "Linux".into(), false), "ab"),
        (AgentCondition::Os(Fact::Platform, "lin".into(), false), ""),
        (AgentCondition::Os(Fact::Name, "win".into(), true), "c"),
        (AgentCondition::Os(Fact::Architecture, "x86_64".into(), false), "ac"),
        (AgentCondition::VersionIn(key("8.10.0"), key("9.5.2")), "b"),
        (AgentCondition::VersionIn(1, i64::MAX), "abc"),
        (!AgentCondition::Text("web".into()), "c"),
        (AgentCondition::UpgradeState("UPG_FAILED".into()), ""),
        (AgentCondition::HasUpgradeDetails, ""),
    ] {
        assert_eq!(find(condition.clone()).await, found, "{condition:?}");
    }
}

pub async fn mg25_versions_are_sorted_by_their_numbers(store: &impl Store) {
    for (id, version) in [("a", "8.19.0"), ("b", "8.9.0"), ("c", "10.0.0"), ("d", "9.5.2-SNAPSHOT")] {
        commit(store, vec![insert(&AgentRecord { agent_version: version.into(), ..bare_agent(id) })]).await;
    }
    let page = Page { offset: 0, limit: 3 };
    let listed = store.agent_list(&AgentFilter::default(), AgentSort::Version, false, page).await.unwrap();
    let ids = |items: &[AgentDetails]| items.iter().map(|one| one.record.id.to_string()).collect::<String>();
    assert_eq!(ids(&listed.items), "bad");
    let cursor = AgentSort::Version.cursor(&listed.items[1].record);
    let rest = store.agents_after(&AgentFilter::default(), AgentSort::Version, false, &cursor, 10).await.unwrap();
    assert_eq!(ids(&rest.items), "dc");
}
