//! Counts of agents that are alike in what decides about their eligibility.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_core::agent::{AgentDocuments, AgentRecord, Family};
use muster_core::eligibility::{Candidate, Operation, RECENT, SelfUpgrade};
use muster_core::id::{AgentId, PolicyId};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_core::version::AcceptedVersions;
use muster_store::query::AgentCondition::Ids;
use muster_store::query::AgentFilter;
use muster_store::{AgentWrite, Store, Write};

use super::sample::*;

/// How many agents each operation is possible for, and why not for the others.
type Verdicts = BTreeMap<String, u64>;

fn judge(verdicts: &mut Verdicts, candidate: &Candidate<'_>, agents: u64, now: Timestamp) {
    let accepted = AcceptedVersions { lowest: (7, 13), highest: (9, None), tested: (9, 5) };
    let version = format!("{}+build", candidate.agent_version);
    for operation in [
        Operation::Tags,
        Operation::Upgrade { version: &version, accepted: &accepted, force: false, skip_rate_limit: false },
        Operation::Rollback { version: "9.5.1" },
        Operation::Diagnostics,
        Operation::Other,
        Operation::Unenroll { force: false },
        Operation::Revoke { force: false },
    ] {
        let verdict = operation.check(candidate, now).map_or_else(|why| why.to_string(), |()| "eligible".to_owned());
        *verdicts.entry(format!("{operation:?}: {verdict}")).or_default() += agents;
    }
}

/// A fleet in which every rule of the survey decides about some agents (MG185).
fn mixed(now: Timestamp) -> Vec<(AgentRecord, Option<&'static str>)> {
    const YES: &str = r#"{"elastic": {"agent": {"upgradeable": true}}, "host": {"containerized": false}}"#;
    const CONTAINER: &str = r#"{"host":{"containerized":true},"elastic":{"agent":{"upgradeable":true}}}"#;
    let ago = |seconds| now.minus(Duration::from_secs(seconds));
    let agent = |id: &str, metadata, change: &dyn Fn(&mut AgentRecord)| {
        let mut record = bare_agent(id);
        (record.active, record.status, record.agent_version) = (true, Status::Online, "9.5.2".into());
        change(&mut record);
        (record, metadata)
    };
    let upgraded = |version: &'static str, seconds| {
        move |record: &mut AgentRecord| {
            record.agent_version = version.into();
            record.upgrade.upgraded_at = Some(ago(seconds));
        }
    };
    let started = |seconds| {
        move |record: &mut AgentRecord| {
            (record.status, record.upgrade.started_at) = (Status::Updating, Some(ago(seconds)));
        }
    };
    let offer = format!(
        r#"[{{"version":"9.5.1","valid_until":"{}"}}]"#,
        now.plus(Duration::from_secs(60)).to_rfc3339_seconds()
    );
    vec![
        agent("plain-1", Some(YES), &|_| {}),
        agent("plain-2", Some(YES), &|record| record.policy_id = Some(PolicyId::trusted("p"))),
        agent("none", None, &|_| {}),
        agent("package", Some(r#"{"elastic":{"agent":{"upgradeable":false}}}"#), &|_| {}),
        agent("malformed", Some("{"), &|_| {}),
        agent("container", Some(CONTAINER), &|_| {}),
        agent("gone", Some(YES), &|record| (record.active, record.status) = (false, Status::Unenrolled)),
        agent("leaving", Some(YES), &|record| record.unenrollment_started_at = Some(ago(1))),
        agent("away", Some(YES), &|record| record.status = Status::Inactive),
        agent("old-just-now", Some(YES), &upgraded("8.6.0", 60)),
        agent("old-before", Some(YES), &upgraded("8.6.0", 601)),
        agent("old-long-before-1", Some(YES), &upgraded("8.6.0", 90_000)),
        agent("old-long-before-2", Some(YES), &upgraded("8.6.0", 90_001)),
        agent("upgrading", Some(YES), &started(7_200)),
        agent("stuck", Some(YES), &started(7_201)),
        agent("stuck-for-long", Some(YES), &started(90_000)),
        agent("watching", Some(YES), &|record| record.upgrade.details = Some(r#"{"state":"UPG_WATCHING"}"#.into())),
        agent("offering", Some(YES), &|record| record.upgrade.rollbacks = Some(offer.as_str().into())),
        agent("too-new", Some(YES), &|record| record.agent_version = "10.0.0".into()),
        agent("osquery", None, &|record| record.family = Family::Osquery),
        agent("muster", Some(YES), &|record| (record.family, record.agent_version) = (Family::Muster, "0.1.0".into())),
    ]
}

pub async fn agents_that_are_alike_are_counted_as_their_records_say(store: &impl Store) {
    let now = at(0).plus(Duration::from_secs(1_000_000));
    let agents = mixed(now);
    let insert = |(record, metadata): &(AgentRecord, Option<&str>)| {
        let documents = AgentDocuments { local_metadata: metadata.map(Into::into), components: None };
        Write::Agent(AgentWrite::Insert { record: Box::new(record.clone()), documents })
    };
    commit(store, agents.iter().map(insert).collect()).await;
    let ids: Vec<AgentId> = agents.iter().map(|(record, _)| record.id.clone()).collect();
    let compare = async |filter: &AgentFilter, ids: &[AgentId]| {
        let (mut by_record, mut by_count) = (Verdicts::new(), Verdicts::new());
        for agent in store.agents_named(ids).await.unwrap() {
            let metadata = agent.documents.local_metadata.as_deref().unwrap_or_default();
            judge(&mut by_record, &Candidate::of(&agent.record, metadata), 1, now);
        }
        let counts = store.agents_by_eligibility(filter, now.minus(RECENT)).await.unwrap();
        for count in &counts {
            judge(&mut by_count, &count.candidate(), count.agents, now);
        }
        assert_eq!(by_count, by_record);
        counts.len()
    };
    // Three of no known ability are alike, and so are two upgrades of long ago.
    assert_eq!(compare(&AgentFilter::default(), &ids).await, ids.len() - 3);
    compare(&AgentFilter::all([Ids(ids[3..9].to_vec())]), &ids[3..9]).await;
    assert_eq!(compare(&AgentFilter::all([Ids(Vec::new())]), &[]).await, 0);

    // Metadata that arrives later counts, too.
    let moved = AgentDocuments { local_metadata: Some(r#"{"host":{"containerized":true}}"#.into()), components: None };
    commit(store, vec![Write::Agent(AgentWrite::Documents { id: ids[0].clone(), documents: moved })]).await;
    compare(&AgentFilter::default(), &ids).await;
    let of = AgentFilter::all([Ids(vec![ids[0].clone()])]);
    let counts = store.agents_by_eligibility(&of, now).await.unwrap();
    assert_eq!(counts.iter().map(|count| count.self_upgrade).collect::<Vec<_>>(), [SelfUpgrade::Container]);
}
