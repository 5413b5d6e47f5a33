//! Composed statements.

use muster_core::status::Status;
use muster_core::time::Timestamp;

use super::*;
use crate::query::{ActionCursor, ActionFilter, ActionScope, AgentSort};
use crate::sql::placeholders;

fn full() -> AgentFilter {
    AgentFilter {
        space: Some(SpaceId::trusted("s")),
        written: None,
        conditions: vec![
            AgentCondition::Ids(vec![AgentId::trusted("a"), AgentId::trusted("b\"'")]),
            AgentCondition::IdsBetween(AgentId::trusted("a"), AgentId::trusted("z")),
            AgentCondition::Any(vec![
                AgentCondition::Ids(vec![AgentId::trusted("c")]),
                AgentCondition::Not(Box::new(AgentCondition::All(vec![
                    AgentCondition::Policies(vec![PolicyId::trusted("q")]),
                    AgentCondition::Hostnames(vec!["Host".into()]),
                    AgentCondition::HasPolicy,
                    AgentCondition::TakesRevision(8),
                    AgentCondition::Statuses(vec![Status::Error]),
                    AgentCondition::Tags(vec!["u".into()]),
                    AgentCondition::HasTags,
                    AgentCondition::EnrollmentKeys(vec![EnrollmentKeyId::trusted("l")]),
                    AgentCondition::HasEnrollmentKey,
                    AgentCondition::HasDuplicateHosts,
                    AgentCondition::LeftAfter(Timestamp::from_micros(7)),
                    AgentCondition::PolicyPendingSince(Timestamp::from_micros(8)),
                    AgentCondition::Families(vec![muster_core::agent::Family::Orbit]),
                    AgentCondition::Hosts(vec![HostId::trusted("h")]),
                    AgentCondition::HasHost,
                    AgentCondition::UnseenSince(Timestamp::from_micros(5)),
                    AgentCondition::SeenAfter(Timestamp::from_micros(4)),
                    AgentCondition::EnrolledBy(Timestamp::from_micros(3)),
                    AgentCondition::HasCheckedIn,
                    AgentCondition::HasFailingOutput,
                    AgentCondition::InactivityTimeout(Some(Duration::from_secs(6))),
                ]))),
            ]),
        ],
    }
}

#[test]
fn composed_statements_bind_in_ascending_order() {
    let page = Page { offset: 3, limit: 7 };
    let scope = ActionScope {
        agents: AgentCondition::Any(vec![AgentCondition::Tags(vec!["t".into()])]),
        policies: vec![PolicyId::trusted("p")],
    };
    let actions = ActionFilter {
        space: Some(SpaceId::trusted("s")),
        before: Some(Timestamp::from_micros(9)),
        since: Some(Timestamp::from_micros(1)),
        agent_id: Some(AgentId::trusted("a")),
        without_cancels: true,
        with_policy_changes: true,
        after: Some(ActionCursor { at: Timestamp::from_micros(7), seq: 6, revision: ("p".into(), 5) }),
        within: Some(scope.clone()),
    };
    let counted = AgentFilter {
        space: Some(SpaceId::trusted("s")),
        conditions: vec![
            AgentCondition::Policies(vec![PolicyId::trusted("p")]),
            AgentCondition::Any(vec![
                AgentCondition::Tags(vec!["t".into()]),
                AgentCondition::Statuses(vec![Status::Error]),
            ]),
        ],
        ..AgentFilter::default()
    };
    let searched = AgentFilter {
        space: Some(SpaceId::trusted("s")),
        conditions: vec![AgentCondition::HostnameLike("web*".into())],
        ..AgentFilter::default()
    };
    let on_system =
        AgentFilter { conditions: vec![AgentCondition::Systems(vec!["debian".into()])], ..searched.clone() };
    let shown = AgentFilter {
        conditions: vec![!AgentCondition::Statuses(vec![Status::Error]), AgentCondition::Text("web".into())],
        ..searched.clone()
    };
    let statements = [
        agent_page(&full(), AgentSort::Status, true, page),
        agent_page_by_checkin(&counted, true, page).unwrap(),
        agent_total(&full()),
        agent_total(&counted),
        agent_total(&shown),
        agent_counts(&counted),
        agent_tags(&AgentFilter {
            space: Some(SpaceId::trusted("s")),
            conditions: Vec::new(),
            ..AgentFilter::default()
        }),
        agent_probe(&searched, 5).unwrap().1,
        agent_ids(&full(), Some("a"), 5),
        agent_versions(&[AgentId::trusted("a")]),
        agent_counts(&full()),
        agent_tags(&full()),
        agents_by_version(&full()),
        agents_by_program(&full()),
        systems(&full(), 5).unwrap(),
        host_total(&full()),
        host_total(&searched),
        agent_probe(&on_system, 5).unwrap().1,
        agents_by_os(&full(), 5),
        action_page(&actions, page),
        action_total(&actions),
        key_page(&actions, page),
        key_total(&actions),
        counts_within(3, &scope),
    ];
    for statement in statements {
        let expected: Vec<usize> = (1..=statement.values.len()).collect();
        assert_eq!(placeholders(&statement.text), expected, "{}", statement.text);
        assert!(!statement.text.contains("$?"), "{}", statement.text);
    }
}

#[test]
fn host_names_that_begin_alike_are_a_range() {
    let range = |pattern: &str| range_of(&AgentCondition::HostnameLike(pattern.into()));
    let of = |from: &str, to: &str| Some((from.to_owned(), to.to_owned()));
    assert_eq!(range("Web-1*"), of("web-1", "web-2"));
    assert_eq!(range("web*x*"), of("web", "wec"));
    assert_eq!(range("a\u{d7ff}*"), of("a\u{d7ff}", "a\u{e000}"), "there is no character between");
    assert_eq!(range("a\u{10ffff}*"), of("a\u{10ffff}", "b"));
    assert_eq!(range("*web"), None);
    assert_eq!(range("\u{10ffff}*"), None);
}

#[test]
fn values_never_become_text_of_the_statement() {
    let statement = agent_total(&full());
    assert!(!statement.text.contains("b\"'"), "{}", statement.text);
    assert_eq!(statement.values[1], Bound::List(vec!["a".into(), "b\"'".into()]));
}
