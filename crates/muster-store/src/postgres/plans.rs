//! The statements of lists read an index, whatever was asked before: PostgreSQL decides by statistics, so that the table has rows.

use std::sync::Arc;

use muster_core::id::SpaceId;
use muster_core::status::Status;

use super::{Address, session::PostgresSession};
use crate::engine::session::{Next, Session as _, ToValue};
use crate::query::{AgentCondition, AgentFilter, AgentSort, Identifier, Page};
use crate::sql::filter::{self, Composed};
use crate::testing::Cluster;

/// Adds agents that are online, each second one with a tag, and one that is offline.
const FILL: &str = r"
INSERT INTO agents (id, version, family, kind, updated_at, policy_revision, action_position, tags, agent_version, newer_than_tested,
        health_status, health_message, unhealthy_reason, status_since, first_address, last_address, status, active, enrolled_at,
        space, hostname, os, hardware_uuid, serial, version_key, program, place, contact_interval)
    SELECT 'agent-' || n, 1, 'elastic', 'PERMANENT', n, 0, 0, '[]', '9.5.2', 0, 'online', '', '[]', n, '', '',
        CASE WHEN n = 7 THEN 'offline' ELSE 'online' END, 1, n, 'default', 'host-' || n, '', 'uuid-' || n, 'serial-' || n, 1, 'elastic', n, 0
    FROM generate_series(1, 20000) AS n;
INSERT INTO agent_texts (space, id, search) SELECT space, id, repeat('x', 200) || hostname FROM agents;
INSERT INTO agent_tags (agent_id, tag) SELECT id, 'west' FROM agents WHERE place % 2 = 0;
ANALYZE agents; ANALYZE agent_tags; ANALYZE agent_texts;
";

fn session() -> PostgresSession {
    let cluster = Cluster::shared();
    let schema = cluster.schema();
    drop(cluster.open(&schema));
    cluster.psql(&format!("SET search_path = {schema}; {FILL}")).unwrap();
    let session = PostgresSession::open(Arc::new(cluster.address(&schema).parse::<Address>().unwrap())).unwrap();
    session.begin_snapshot().unwrap();
    session
}

fn plan(session: &PostgresSession, statement: &Composed) -> String {
    let values: Vec<_> = statement.values.iter().map(ToValue::to_value).collect();
    let mut plan = String::new();
    let explained = session.query(&format!("EXPLAIN {}", statement.text), &values, &mut |row| {
        plan += &row.get::<String>(0)?;
        plan.push('\n');
        Ok(Next::Row)
    });
    explained.unwrap();
    plan
}

#[test]
fn pages_of_agents_are_read_from_an_index_by_how_frequent_a_value_is() {
    let session = session();
    let with = |conditions: Vec<AgentCondition>| AgentFilter {
        space: Some(SpaceId::default()),
        conditions,
        ..AgentFilter::default()
    };
    let page = Page { offset: 0, limit: 20 };
    let offline = || AgentCondition::Statuses(vec![Status::Offline]);
    let tagged = || AgentCondition::Tags(vec!["west".into()]);
    for (filter, sort, index) in [
        (with(vec![]), AgentSort::EnrolledAt, "agents_by_enrollment"),
        (with(vec![]), AgentSort::Hostname, "agents_by_hostname"),
        (with(vec![!offline(), tagged()]), AgentSort::EnrolledAt, "agents_by_enrollment"),
        // The few are looked up and sorted.
        (with(vec![offline()]), AgentSort::LastCheckin, "agents_by_status"),
        (with(vec![offline()]), AgentSort::EnrolledAt, "agents_by_status"),
        (
            with(vec![!offline(), AgentCondition::HostnameLike("host-19*".into())]),
            AgentSort::Hostname,
            "agents_by_hostname",
        ),
    ] {
        let plan = plan(&session, &filter::agent_page(&filter, sort, true, page));
        assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{filter:?} {sort:?}\n{plan}");
    }
    let serial = AgentCondition::Hardware(Identifier::Serial, vec!["serial-1777".into()]);
    let called = AgentCondition::Any(vec![AgentCondition::Hostnames(vec!["serial-1777".into()]), serial]);
    let plan_of_call = plan(&session, &filter::agent_page(&with(vec![called]), AgentSort::LastCheckin, true, page));
    assert!(plan_of_call.contains("agents_by_serial") && !plan_of_call.contains("Seq Scan"), "{plan_of_call}");
    let searched = with(vec![AgentCondition::Text("host-1777".into())]);
    let (_, probe) = filter::agent_probe(&searched, 1001).unwrap();
    let plan = plan(&session, &probe);
    assert!(plan.contains("agent_texts_by_part"), "{plan}");
}
