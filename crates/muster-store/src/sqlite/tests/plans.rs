//! The statements that run often, or over the whole fleet, read an index.

use muster_core::id::{AgentId, EnrollmentKeyId, HostId, PolicyId, SpaceId};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use rusqlite::Connection;

use crate::engine::migration::MIGRATIONS;
use crate::query::{
    ActionFilter, AgentCondition, AgentCursor, AgentFilter, AgentSort, HostRows, Identifier, Page, SortValue,
};
use crate::search::Fact;
use crate::sql::{
    actions, agent_counts, agents, alerts, audit, carves, disk_keys, enrollment_keys, files, filter, host_runs,
    idempotency, installers, inventory, live_queries, log, output_keys, policies, query_failures, scripts, software,
};
use crate::sqlite::migrate::migrate;

const PAGE: Page = Page { offset: 0, limit: 20 };

fn schema() -> Connection {
    let mut connection = Connection::open_in_memory().unwrap();
    migrate(&mut connection, MIGRATIONS).unwrap();
    connection
}

fn plan(connection: &Connection, text: &str) -> Vec<String> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
    statement.raw_query().mapped(|row| row.get("detail")).map(Result::unwrap).collect()
}

/// Neither a scan of a whole table nor a sort.
fn check(connection: &Connection, text: &str) {
    for step in plan(connection, text) {
        let scans = step.starts_with("SCAN") && !step.contains("INDEX") && !step.contains("json_each");
        assert!(!scans && !step.contains("TEMP B-TREE"), "{step}\n{text}");
    }
}

#[test]
fn reads_of_a_check_in_search_an_index() {
    let connection = schema();
    let statements = [
        agents::BY_ID,
        agents::BY_CREDENTIAL,
        agents::BY_ENROLLMENT_ID,
        agents::DOCUMENTS,
        agents::CREDENTIALS,
        agents::COUNT_IN_SPACE,
        agents::HOST,
        agents::HOST_BY_MACHINE,
        agents::GROUP,
        agents::DUE,
        agent_counts::PER_POLICY,
        agent_counts::HISTORY,
        alerts::EVENTS_OF,
        audit::OF_SUBJECT,
        agents::ACTIVE_ON_POLICY,
        actions::BY_ID,
        actions::DUE,
        actions::TARGET,
        actions::TARGETS,
        actions::COUNTS,
        actions::END_OPEN,
        actions::END_TARGET,
        actions::CLOSE_ACKNOWLEDGED,
        actions::CLOSE_LIFE,
        actions::CLEAR_FIELDS,
        enrollment_keys::BY_KEY_ID,
        enrollment_keys::EXPIRED_BEFORE,
        enrollment_keys::LIST,
        enrollment_keys::LIST_AFTER,
        enrollment_keys::ONE_TIME,
        enrollment_keys::COUNT_ONE_TIME,
        policies::BY_NAME,
        policies::HEAD,
        policies::DEFAULT_HEAD,
        policies::NEWEST_REVISION,
        carves::OF_SESSION,
        carves::TAKE_BLOCK,
        carves::STORED,
        carves::EXPIRED,
        disk_keys::ESCROW_DUE,
        inventory::OF_AGENTS,
        inventory::DELETE_OF,
        query_failures::OF_AGENTS,
        query_failures::COUNTS,
        query_failures::PRUNE,
        disk_keys::LEAVE,
        disk_keys::ONE,
        live_queries::LEAVE,
        scripts::CHANGE_SAVED,
        installers::NEEDED,
        installers::UNFINISHED,
        host_runs::SCRIPTS.begin,
        host_runs::SCRIPTS.open,
        host_runs::SCRIPTS.take_result,
        host_runs::SCRIPTS.due,
        host_runs::SCRIPTS.gone,
        host_runs::SCRIPTS.hosts,
        host_runs::SCRIPTS.host,
        host_runs::INSTALLS.begin,
        host_runs::INSTALLS.open,
        host_runs::INSTALLS.take_result,
        host_runs::INSTALLS.due,
        host_runs::INSTALLS.gone,
        host_runs::INSTALLS.hosts,
        host_runs::INSTALLS.host,
        files::UPLOAD_FOR,
        files::UPLOADS_BEGUN_BEFORE,
        files::DELETE_CLOSED_UPLOAD,
        files::REMOVE_CLOSED_LATER,
        files::CHUNKS,
        files::REMOVE_THOSE_OF_AGENT_LATER,
        files::DELETE_FILE_AGENT,
        idempotency::FORGET_OLD_OF,
        idempotency::COUNT_OF,
        idempotency::FINISH,
        idempotency::FORGET,
        idempotency::EXPIRE,
        idempotency::ONE,
        log::CHANGES,
        log::CHANGE_ROWS,
        log::NEWEST_CHANGE,
        log::PRUNE,
        output_keys::OF_AGENT,
        output_keys::RETIRED_OF_AGENT,
        output_keys::CLUSTER,
        output_keys::DUE,
        output_keys::RETIRED_DUE,
        output_keys::IN_USE,
        output_keys::SETTLE,
        output_keys::DELETE_OF_AGENT,
        output_keys::RETIRED_DUE_OF_AGENT,
    ];
    for text in statements {
        check(&connection, text);
    }
}

#[test]
fn hosts_of_software_are_found_by_their_numbers() {
    let connection = schema();
    check(&connection, software::HOSTS);
    assert!(plan(&connection, software::HOSTS)[0].contains("host_software_by_number"), "not all agents of the space");
}

#[test]
fn writes_to_an_agent_search_its_row() {
    let connection = schema();
    for text in [
        agents::UPDATE_PLAIN,
        agents::UPDATE_STATUS,
        agents::UPDATE_ALL,
        agents::SEEN,
        agents::SEEN_MINUTE,
        agents::UPDATE_CHECKIN,
        agents::UPDATE_DOCUMENTS,
    ] {
        assert!(plan(&connection, text)[0].starts_with("SEARCH"), "{text}");
    }
}

#[test]
fn lists_and_counts_over_the_fleet_read_an_index() {
    let cursor = AgentCursor { value: SortValue::Number(1), id: AgentId::trusted("a") };
    let connection = schema();
    let all = AgentFilter { space: Some(SpaceId::default()), ..AgentFilter::default() };
    let conditions = vec![
        !AgentCondition::Statuses(vec![Status::Unenrolled]),
        AgentCondition::Policies(vec![PolicyId::trusted("p")]),
        AgentCondition::Tags(vec!["web".into()]),
    ];
    let hidden = AgentFilter { conditions, ..all.clone() };
    let actions = || ActionFilter { space: Some(SpaceId::default()), ..ActionFilter::default() };
    for statement in [
        filter::agent_page(&all, AgentSort::EnrolledAt, false, PAGE),
        filter::agent_page(&all, AgentSort::EnrolledAt, true, PAGE),
        filter::agents_after(&all, AgentSort::EnrolledAt, true, &cursor, PAGE),
        filter::agent_page_by_checkin(&all, false, PAGE).unwrap(),
        filter::agent_page_by_checkin(&hidden, true, PAGE).unwrap(),
        filter::agent_total(&all),
        filter::agent_ids(&all, Some("a"), 100),
        filter::agent_tags(&all),
        filter::action_page(&actions(), PAGE),
        filter::action_page(&ActionFilter { agent_id: Some(AgentId::trusted("a")), ..actions() }, PAGE),
    ] {
        let newest_first = statement.text.contains("ORDER BY a.seq DESC");
        if newest_first {
            assert!(!plan(&connection, &statement.text).iter().any(|step| step.contains("TEMP B-TREE")));
        } else {
            check(&connection, &statement.text);
        }
        if statement.text.contains("agent_checkins") {
            let steps = plan(&connection, &statement.text);
            assert!(
                steps.iter().any(|step| step.contains("COVERING INDEX agent_checkins_by_time (space=?)")),
                "{steps:?}"
            );
        }
    }
}

#[test]
fn host_names_and_cloned_hosts_are_found_by_their_own_index() {
    let connection = schema();
    let of = |condition| AgentFilter {
        space: Some(SpaceId::default()),
        conditions: vec![condition],
        ..AgentFilter::default()
    };
    for (condition, index) in [
        (AgentCondition::Hostnames(vec!["Web-1".into()]), "agents_by_hostname"),
        (AgentCondition::Hardware(Identifier::Serial, vec!["S".into()]), "agents_by_serial"),
        (AgentCondition::Hardware(Identifier::Uuid, vec!["U".into()]), "agents_by_hardware_uuid"),
        (AgentCondition::HasDuplicateHosts, "agents_by_duplicate_hosts"),
        (AgentCondition::Hosts(vec![HostId::trusted("h")]), "agents_by_host"),
    ] {
        let steps = plan(&connection, &filter::agent_total(&of(condition)).text);
        assert!(steps.iter().any(|step| step.starts_with("SEARCH agents") && step.contains(index)), "{steps:?}");
    }
    // Whatever a host is called by, each alternative reads its index.
    let called = AgentCondition::Any(vec![
        AgentCondition::Hostnames(vec!["S".into()]),
        AgentCondition::Hardware(Identifier::Serial, vec!["S".into()]),
        AgentCondition::Any(vec![AgentCondition::Hardware(Identifier::Uuid, vec!["S".into()])]),
    ]);
    let osquery = AgentCondition::Families(vec![muster_core::agent::Family::Osquery]);
    let wanted = AgentFilter { conditions: vec![osquery, called], ..of(AgentCondition::HasHost) };
    for statement in [
        filter::agent_ids(&wanted, None, 10),
        filter::agent_page(&wanted, AgentSort::LastCheckin, true, PAGE),
        filter::agent_page(&wanted, AgentSort::EnrolledAt, true, PAGE),
        filter::agent_total(&wanted),
        filter::host_page(&wanted, &HostRows::Page(PAGE)),
        filter::host_total(&wanted),
    ] {
        let steps = plan(&connection, &statement.text);
        for index in ["agents_by_hostname", "agents_by_serial", "agents_by_hardware_uuid"] {
            assert!(steps.iter().any(|step| step.starts_with("SEARCH c ") && step.contains(index)), "{steps:?}");
        }
        // Agents and hosts are looked up by their ids.
        let scanned = |step: &String| {
            let outer = step.starts_with("SEARCH agents ") || step.starts_with("SEARCH hosts ");
            step.starts_with("SCAN agents") || step.starts_with("SCAN hosts") || (outer && !step.contains("id=?"))
        };
        assert!(!steps.iter().any(scanned), "{steps:?}");
    }
    let changed = plan(&connection, agents::UPDATE_PLAIN);
    assert!(!agents::UPDATE_PLAIN.contains("hostname"), "a check-in must not touch the index: {changed:?}");
}

#[test]
fn each_filter_searches_an_index() {
    let connection = schema();
    for condition in [
        AgentCondition::Ids(vec![AgentId::trusted("a")]),
        AgentCondition::Policies(vec![PolicyId::trusted("p")]),
        AgentCondition::Statuses(vec![Status::Online]),
        AgentCondition::EnrollmentKeys(vec![EnrollmentKeyId::trusted("k")]),
    ] {
        let wanted =
            AgentFilter { space: Some(SpaceId::default()), conditions: vec![condition], ..AgentFilter::default() };
        let steps = plan(&connection, &filter::agent_total(&wanted).text);
        // The table of agents, or that of their numbers.
        assert!(steps.iter().any(|step| step.starts_with("SEARCH agent")), "{steps:?}");
    }
}

#[test]
fn numbers_of_agents_are_summed_and_not_counted() {
    let connection = schema();
    let all = AgentFilter { space: Some(SpaceId::default()), ..AgentFilter::default() };
    let tagged = AgentFilter { conditions: vec![AgentCondition::Tags(vec!["web".into()])], ..all.clone() };
    for statement in [
        filter::agent_counts(&all),
        filter::agent_counts(&tagged),
        filter::agent_total(&tagged),
        filter::agent_tags(&all),
    ] {
        let steps = plan(&connection, &statement.text);
        assert!(
            steps.iter().any(|step| step.starts_with("SEARCH agent_counts USING PRIMARY KEY (space=?")),
            "{steps:?}"
        );
    }
}

#[test]
fn what_the_overview_counts_is_read_from_an_index_of_it() {
    let connection = schema();
    let shown = |condition| AgentFilter {
        space: Some(SpaceId::default()),
        conditions: vec![!AgentCondition::Statuses(vec![Status::Unenrolled]), condition],
        ..AgentFilter::default()
    };
    let any = || AgentCondition::All(Vec::new());
    let system = || shown(AgentCondition::Systems(vec!["debian".into()]));
    for (statement, index) in [
        (filter::agents_by_program(&shown(any())), "COVERING INDEX agents_by_system (space=?"),
        (filter::agents_by_os(&shown(any()), 10), "COVERING INDEX agents_by_system (space=?"),
        (filter::agent_total(&system()), "COVERING INDEX agents_by_system (space=?"),
        (filter::agent_counts(&system()), "COVERING INDEX agents_by_system (space=?"),
        (filter::agent_probe(&system(), 10).unwrap().1, "INDEX agents_by_system (space=? AND os=?)"),
        (filter::systems(&system(), 10).unwrap(), "COVERING INDEX agents_by_system (space=? AND os>?)"),
        (filter::host_total(&system()), "COVERING INDEX agents_by_host (host_id>?)"),
        (filter::host_total(&shown(any())), "COVERING INDEX agents_by_host (host_id>?)"),
        (filter::host_page(&system(), &HostRows::Page(PAGE)), "COVERING INDEX agents_by_host (host_id=? AND space=?)"),
        (filter::agent_counts(&shown(AgentCondition::HasDuplicateHosts)), "INDEX agents_by_duplicate_hosts (space=?"),
        (
            filter::agent_counts(&shown(AgentCondition::LeftAfter(Timestamp::from_micros(1)))),
            "INDEX agents_by_departure (space=? AND audit_at>?)",
        ),
        (
            filter::agent_counts(&shown(AgentCondition::UpgradeState("UPG_FAILED".into()))),
            "INDEX agents_by_upgrade (space=?",
        ),
    ] {
        let steps = plan(&connection, &statement.text);
        assert!(steps.iter().any(|step| step.contains(index)), "{index}: {steps:?}");
    }
    for changed in [agents::UPDATE_PLAIN, agents::SEEN] {
        assert!(!changed.contains("program") && !changed.contains(" os"), "a check-in must not touch the index");
    }
}

#[test]
fn a_range_of_ids_is_read_from_the_index_of_ids() {
    let connection = schema();
    let range = AgentCondition::IdsBetween(AgentId::trusted("a"), AgentId::trusted("b"));
    let many = AgentCondition::Any(vec![range.clone(); 100]);
    let osquery = AgentCondition::Families(vec![muster_core::agent::Family::Osquery]);
    let wanted = [range, many].map(|ids| AgentFilter {
        space: Some(SpaceId::default()),
        conditions: vec![ids, osquery.clone()],
        ..AgentFilter::default()
    });
    let statements =
        |wanted| [filter::agent_page(wanted, AgentSort::LastCheckin, true, PAGE), filter::agent_total(wanted)];
    for statement in wanted.iter().flat_map(statements) {
        let steps = plan(&connection, &statement.text);
        // By the id alone, or in the space.
        let by_id = |step: &String| step.starts_with("SEARCH agents ") && step.contains("id=?)");
        assert!(steps.iter().any(by_id), "{steps:?}");
        assert!(steps.iter().any(|step| step.contains("(id>? AND id<?)")), "{steps:?}");
    }
}

#[test]
fn parts_of_texts_are_searched_in_a_table_of_their_own() {
    let connection = schema();
    for (condition, expected) in [
        (AgentCondition::Text("web".into()), "PRIMARY KEY (space=?)"),
        (AgentCondition::Os(Fact::Name, "ubuntu".into(), true), "PRIMARY KEY (space=?)"),
        (AgentCondition::HostnameLike("Web-*".into()), "INDEX agents_by_hostname (space=? AND <expr>>? AND <expr><?)"),
    ] {
        let hidden = !AgentCondition::Statuses(vec![Status::Unenrolled]);
        let wanted = AgentFilter {
            space: Some(SpaceId::default()),
            conditions: vec![hidden, condition],
            ..AgentFilter::default()
        };
        let (at, probe) = filter::agent_probe(&wanted, 10).unwrap();
        assert_eq!(at, 1);
        let total = filter::agent_total(&wanted);
        for statement in [&probe, &total] {
            let steps = plan(&connection, &statement.text);
            assert!(steps.iter().any(|step| step.starts_with("SEARCH agents") && step.contains(expected)), "{steps:?}");
        }
        // Those to subtract are found by their status, or in the same range of host names.
        let steps = plan(&connection, &total.text);
        let by_status = steps.iter().any(|step| step.contains("agents_by_status (space=? AND status=?)"));
        assert!(by_status || expected.contains("agents_by_hostname"), "{steps:?}");
    }
}

#[test]
fn agents_that_are_selected_by_ids_are_looked_up_in_every_order() {
    let connection = schema();
    let hidden = !AgentCondition::Statuses(vec![Status::Unenrolled]);
    let ids = AgentCondition::Ids(vec![AgentId::trusted("a")]);
    let wanted =
        AgentFilter { space: Some(SpaceId::default()), conditions: vec![hidden, ids], ..AgentFilter::default() };
    for sort in [AgentSort::EnrolledAt, AgentSort::Hostname, AgentSort::Status, AgentSort::Version] {
        let steps = plan(&connection, &filter::agent_page(&wanted, sort, true, PAGE).text);
        assert!(steps.iter().any(|step| step.starts_with("SEARCH agents") && step.contains("id=?")), "{steps:?}");
    }
}
