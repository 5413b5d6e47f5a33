//! The events of a commit, which become part of it.
//!
//! Every commit of the services passes here ([`WatchedStore::commit`](super::watched_store::WatchedStore::commit)), so that no
//! transition is forgotten, whoever makes it. Only the revocation of a key is told of by its service, because the write does
//! not contain the key.

use muster_core::event::{self, Event, EventKind};
use muster_store::{AgentWrite, EnrollmentKeyWrite, PolicyWrite, RolloutWrite, Write};

/// Returns the writes of the events that `writes` cause.
pub(crate) fn events_of(writes: &[Write]) -> Vec<Write> {
    // The usual case, a changed check-in, allocates nothing.
    let events = writes.iter().flat_map(|write| told(write, writes));
    events.map(|event| Write::Event(Box::new(event))).collect()
}

fn told(write: &Write, all: &[Write]) -> Vec<Event> {
    match write {
        Write::Agent(AgentWrite::Insert { record, .. }) => vec![event::of_enrollment(None, record)],
        Write::Agent(AgentWrite::Update { before, after }) if uses_key(all) => {
            event::left_space(before, after).into_iter().chain([event::of_enrollment(Some(before), after)]).collect()
        }
        Write::Agent(AgentWrite::Update { before, after }) => event::of_change(before, after),
        Write::EnrollmentKey(EnrollmentKeyWrite::Insert(key)) if !key.hidden => vec![event::of_new_key(key)],
        Write::Policy(PolicyWrite::Insert(policy)) => vec![event::of_policy(policy, EventKind::PolicyCreated)],
        Write::Policy(PolicyWrite::Update { before_revision, policy, .. }) if policy.revision > *before_revision => {
            vec![event::of_policy(policy, EventKind::PolicyUpdated)]
        }
        Write::Rollout(RolloutWrite::Update(rollout)) => event::of_rollout(rollout).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Returns whether the commit is an enrollment.
fn uses_key(writes: &[Write]) -> bool {
    writes.iter().any(|write| {
        matches!(write, Write::EnrollmentKey(EnrollmentKeyWrite::Use { .. } | EnrollmentKeyWrite::UseOneTime { .. }))
    })
}
