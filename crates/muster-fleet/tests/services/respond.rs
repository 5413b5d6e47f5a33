//! The response to the compromise of an agent.

use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::authorization::{Actor, AgentsForceUnenroll, AgentsReassign, OpContext};
use muster_core::compromise::ExposureKind;
use muster_core::id::AgentId;
use muster_core::testing::online_agent;
use muster_fleet::force::Force;
use muster_fleet::policies::PolicyDraft;
use muster_fleet::respond::ResponseRequest;
use muster_fleet::selection::Selected;
use muster_fleet::testing::TestFleet;
use zeroize::Zeroizing;

#[tokio::test]
async fn a_response_lists_the_secrets_of_all_policies_that_the_agent_has_run() {
    let test = TestFleet::default();
    let root = OpContext::administrator(Actor::Local { uid: 0 });
    let mut enrolled_with = None;
    for name in ["web", "roll", "db", "other"] {
        let input = serde_json::json!({"type": "process", "command": "/x", "password": "$co.elastic.secret{KEY}"});
        let mut draft = PolicyDraft { id: Some(name.into()), name: Some(name.into()), ..PolicyDraft::default() };
        draft.config = Some(serde_json::json!({"inputs": [input]}));
        draft.secrets.insert("KEY".into(), Some(Zeroizing::new("hidden".into())));
        let made = test.fleet.policies().create(&root.grant().expect("all rights"), draft).await.expect("it is made");
        enrolled_with = enrolled_with.or(made.enrollment_key.map(|key| key.id));
    }
    let record = AgentRecord { enrollment_key_id: enrolled_with, ..online_agent("a", Some("web"), test.now()) };
    test.add_agent(record, AgentDocuments { local_metadata: None, components: None }).await;
    for policy in ["db", "roll"] {
        let one = Selected::One(AgentId::trusted("a"));
        let selection = test.fleet.agents().select::<AgentsReassign>(&root, &one).await.expect("it is there");
        test.fleet.actions().reassign(&selection, Some(policy), None, Force::No).await.expect("it is reassigned");
    }
    let agent = test.fleet.agents().find::<AgentsForceUnenroll>(&root, "a").await.expect("it is there");
    let response =
        test.fleet.responses().respond(&root, &agent, &ResponseRequest::default()).await.expect("it is done");
    let secrets = response.exposures.iter().filter(|one| one.kind == ExposureKind::PolicySecret);
    let mut names: Vec<&str> = secrets.map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["db/KEY", "roll/KEY", "web/KEY"]);
}
