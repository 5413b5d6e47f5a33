//! Keys of agents at the clusters of their outputs.

use super::session::{Connection, Row, params};
use muster_core::id::{AgentId, ClusterId, KeyId, PolicyId};
use muster_core::output_key::{
    ClusterFailure, IssuedKey, KeyCounts, KeyFailure, KeyState, OutputCluster, OutputKey, RetiredKey,
};
use muster_core::policy::bootstrap::{Fallback, Trial};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::row::{Columns, Result, all, any, count, first, run, send};
use super::words::Word;
use crate::port::{OutputKeyWrite, Precondition};
use crate::sql::output_keys as sql;

/// Applies a change of output keys.
pub(super) fn apply(connection: &Connection, write: &OutputKeyWrite) -> std::result::Result<(), Failure> {
    match write {
        OutputKeyWrite::PutCluster(cluster) => put_cluster(connection, cluster)?,
        OutputKeyWrite::ClusterFailure { id, failure } => cluster_failure(connection, id, failure.as_ref())?,
        OutputKeyWrite::Trial { id, trial } => cluster_trial(connection, id, trial)?,
        OutputKeyWrite::DeleteCluster { id } => drop(run(connection, sql::DELETE_CLUSTER, [id.as_str()])?),
        OutputKeyWrite::Put(key) => put(connection, key)?,
        OutputKeyWrite::Remove(key) => {
            let values = params![key.agent_id.as_str(), key.output, key.version];
            affected_or_changed(run(connection, sql::DELETE, values)?, key)?;
        }
        OutputKeyWrite::Settle(key) => settle(connection, key)?,
        OutputKeyWrite::Retire(key) => retire(connection, key)?,
        OutputKeyWrite::Invalidated { cluster, ids } => {
            for id in ids {
                run(connection, sql::DELETE_RETIRED, [cluster.as_str(), id.as_str()])?;
            }
        }
    }
    Ok(())
}

fn put_cluster(connection: &Connection, cluster: &OutputCluster) -> Result<()> {
    let next = cluster.trial.next.map(Timestamp::as_micros);
    let values = params![cluster.id.as_str(), cluster.output, cluster.sealed, next];
    run(connection, sql::PUT_CLUSTER, values).map(|_| ())
}

fn cluster_failure(connection: &Connection, id: &ClusterId, failure: Option<&ClusterFailure>) -> Result<()> {
    let values = params![
        failure.map(|failure| failure.kind.word()),
        failure.map(|failure| failure.reason.as_str()),
        failure.map(|failure| failure.since.as_micros()),
        failure.map(|failure| failure.retry_at.as_micros()),
        id.as_str(),
    ];
    run(connection, sql::CLUSTER_FAILURE, values).map(|_| ())
}

fn cluster_trial(connection: &Connection, id: &ClusterId, trial: &Trial) -> Result<()> {
    let fallback = trial.fallback.as_ref();
    let values = params![
        trial.next.map(Timestamp::as_micros),
        fallback.map(|fallback| fallback.reason.as_str()),
        fallback.map(|fallback| fallback.since.as_micros()),
        id.as_str(),
    ];
    run(connection, sql::CLUSTER_TRIAL, values).map(|_| ())
}

fn put(connection: &Connection, key: &OutputKey) -> std::result::Result<(), Failure> {
    // The version tells a new key from a changed one: an update compares it with the one before.
    let statement = if key.version == 1 { sql::INSERT } else { sql::UPDATE };
    affected_or_changed(run_with_key(connection, statement, key)?, key)
}

fn affected_or_changed(rows: usize, key: &OutputKey) -> std::result::Result<(), Failure> {
    if rows == 0 {
        let what = format!("the key of agent {} for the output {}", key.agent_id, key.output);
        return Err(Precondition::Changed(what).into());
    }
    Ok(())
}

fn run_with_key(connection: &Connection, statement: &'static str, key: &OutputKey) -> Result<usize> {
    let values = params![
        key.version,
        key.cluster.as_str(),
        key.state.word(),
        key.issued.as_ref().map(|issued| issued.id.as_str()),
        key.issued.as_ref().map(|issued| issued.sealed.as_slice()),
        key.permissions_hash,
        key.policy_id.as_str(),
        key.revision,
        key.is_withheld,
        key.since.as_micros(),
        key.failure.as_ref().map(|failure| failure.reason.as_str()),
        key.failure.as_ref().map(|failure| failure.retry_at.as_micros()),
        key.agent_id.as_str(),
        key.output,
    ];
    run(connection, statement, values)
}

// The cluster was called between the read of the key and this commit, which may have taken seconds.
fn settle(connection: &Connection, key: &OutputKey) -> Result<()> {
    if run_with_key(connection, sql::SETTLE, key)? > 0 {
        return Ok(());
    }
    // The agent may have been unenrolled while the cluster was called, and its key may have been added after that.
    let abandoned = all(connection, sql::DELETE_ABANDONED, [key.agent_id.as_str(), key.output.as_str()], read_deleted)?;
    retire_all(connection, &key.agent_id, abandoned, key.since)?;
    let Some(issued) = &key.issued else { return Ok(()) };
    let id = [key.cluster.as_str(), issued.id.as_str()];
    // The cluster has created a key that no row refers to. Only a retired key makes sure that it is invalidated.
    if !any(connection, sql::IN_USE, id)? && !any(connection, sql::RETIRED, id)? {
        retire_all(connection, &key.agent_id, vec![(key.cluster.clone(), Some(issued.id.clone()))], key.since)?;
    }
    Ok(())
}

fn read_deleted(row: &Row<'_>) -> Result<(ClusterId, Option<KeyId>)> {
    let mut c = Columns::of(row);
    Ok((c.id()?, c.id_option()?))
}

fn retire(connection: &Connection, key: &RetiredKey) -> Result<()> {
    let values = params![
        key.cluster.as_str(),
        key.id.as_str(),
        key.agent_id.as_str(),
        key.after.as_ref().map(|(policy, _)| policy.as_str()),
        key.after.as_ref().map(|(_, revision)| *revision),
        key.at.as_micros(),
    ];
    send(connection, sql::RETIRE, values)
}

fn retire_all(
    connection: &Connection,
    agent: &AgentId,
    deleted: Vec<(ClusterId, Option<KeyId>)>,
    at: Timestamp,
) -> Result<()> {
    for (cluster, id) in deleted {
        if let Some(id) = id {
            // Retired, not deleted: the key exists at the cluster, and must be invalidated there even after the agent
            // is gone.
            retire(connection, &RetiredKey { cluster, id, agent_id: agent.clone(), after: None, at })?;
        }
    }
    Ok(())
}

/// Retires all keys of an agent that leaves (EA108).
pub(super) fn retire_of_agent(connection: &Connection, agent: &AgentId, now: Timestamp) -> Result<()> {
    // The rows are deleted and returned in one statement: a key that another transaction stores meanwhile is either among
    // them, or finds no row to be stored in.
    let deleted = all(connection, sql::DELETE_OF_AGENT, [agent.as_str()], read_deleted)?;
    retire_all(connection, agent, deleted, now)?;
    send(connection, sql::RETIRED_DUE_OF_AGENT, [agent.as_str()])
}

fn read_key(row: &Row<'_>) -> Result<OutputKey> {
    let mut c = Columns::of(row);
    let (version, cluster, state) = (c.take()?, c.id()?, c.word()?);
    let (id, sealed): (Option<KeyId>, Option<Vec<u8>>) = (c.id_option()?, c.take()?);
    let (permissions_hash, policy_id, revision) = (c.take()?, c.id()?, c.take()?);
    let (is_withheld, since) = (c.flag()?, c.time()?);
    let (reason, retry_at): (Option<String>, Option<Timestamp>) = (c.take()?, c.time_option()?);
    Ok(OutputKey {
        agent_id: c.id()?,
        output: c.take()?,
        version,
        cluster,
        state,
        issued: id.zip(sealed).map(|(id, sealed)| IssuedKey { id, sealed }),
        permissions_hash,
        policy_id,
        revision,
        is_withheld,
        since,
        failure: reason.zip(retry_at).map(|(reason, retry_at)| KeyFailure { reason, retry_at }),
    })
}

fn read_retired(row: &Row<'_>) -> Result<RetiredKey> {
    let mut c = Columns::of(row);
    let (cluster, id, agent_id) = (c.id()?, c.id()?, c.id()?);
    let (policy, revision): (Option<PolicyId>, Option<i64>) = (c.id_option()?, c.take()?);
    Ok(RetiredKey { cluster, id, agent_id, after: policy.zip(revision), at: c.time()? })
}

fn read_cluster(row: &Row<'_>) -> Result<OutputCluster> {
    let mut c = Columns::of(row);
    let (id, output, sealed, kind) = (c.id()?, c.take()?, c.take()?, c.word_option()?);
    let (reason, since, retry_at): (Option<String>, Option<Timestamp>, Option<Timestamp>) =
        (c.take()?, c.time_option()?, c.time_option()?);
    // All four are written together. A failure without one of them is damage, and counts as none.
    let failure = match (kind, reason, since, retry_at) {
        (Some(kind), Some(reason), Some(since), Some(retry_at)) => {
            Some(ClusterFailure { kind, reason, since, retry_at })
        }
        _ => None,
    };
    let (next, reason, since): (_, Option<String>, Option<Timestamp>) = (c.time_option()?, c.take()?, c.time_option()?);
    let fallback = reason.zip(since).map(|(reason, since)| Fallback { reason, since });
    Ok(OutputCluster { id, output, sealed, failure, trial: Trial { next, fallback } })
}

/// Selects the keys of an agent, and its retired ones that wait for a confirmation.
pub(super) fn of_agent(connection: &Connection, agent: &AgentId) -> Result<(Vec<OutputKey>, Vec<RetiredKey>)> {
    let keys = all(connection, sql::OF_AGENT, [agent.as_str()], read_key)?;
    Ok((keys, all(connection, sql::RETIRED_OF_AGENT, [agent.as_str()], read_retired)?))
}

/// Returns whether there are keys, retired ones included.
pub(super) fn are_any(connection: &Connection) -> Result<bool> {
    any(connection, sql::ANY, ())
}

/// Selects a cluster.
pub(super) fn cluster(connection: &Connection, id: &ClusterId) -> Result<Option<OutputCluster>> {
    first(connection, sql::CLUSTER, [id.as_str()], read_cluster)
}

/// Selects all clusters.
pub(super) fn clusters(connection: &Connection) -> Result<Vec<OutputCluster>> {
    all(connection, sql::CLUSTERS, (), read_cluster)
}

/// Selects clusters with pending work.
pub(super) fn clusters_due(connection: &Connection, now: Timestamp) -> Result<Vec<ClusterId>> {
    all(connection, sql::CLUSTERS_DUE, [now.as_micros()], |row| Columns::of(row).id())
}

/// Selects keys of a cluster in a state.
pub(super) fn due(
    connection: &Connection,
    cluster: &ClusterId,
    state: KeyState,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<OutputKey>> {
    all(connection, sql::DUE, params![cluster.as_str(), state.word(), now.as_micros(), limit], read_key)
}

/// Selects retired keys of a cluster that are due.
pub(super) fn retired_due(connection: &Connection, cluster: &ClusterId, limit: u32) -> Result<Vec<KeyId>> {
    all(connection, sql::RETIRED_DUE, params![cluster.as_str(), limit], |row| Columns::of(row).id())
}

/// Selects agents that wait for a key of a cluster.
pub(super) fn waiting(
    connection: &Connection,
    cluster: &ClusterId,
    after: Option<&AgentId>,
    limit: u32,
) -> Result<Vec<AgentId>> {
    let after = after.map_or("", AgentId::as_str);
    all(connection, sql::WAITING, params![cluster.as_str(), after, limit], |row| Columns::of(row).id())
}

/// Returns which of these keys are known.
pub(super) fn known(connection: &Connection, cluster: &ClusterId, ids: &[KeyId]) -> Result<Vec<KeyId>> {
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let key = [cluster.as_str(), id.as_str()];
        if any(connection, sql::IN_USE, key)? || any(connection, sql::RETIRED, key)? {
            found.push(id.clone());
        }
    }
    Ok(found)
}

/// Counts the keys of a cluster.
pub(super) fn counts(connection: &Connection, cluster: &ClusterId) -> Result<(KeyCounts, Option<String>)> {
    let counted = first(connection, sql::COUNTS, [cluster.as_str()], |row| {
        let mut c = Columns::of(row);
        let (issued, wanted, outdated, failed) = (c.count()?, c.count()?, c.count()?, c.count()?);
        Ok((KeyCounts { issued, wanted, outdated, failed, to_invalidate: 0 }, c.take()?))
    })?;
    let (counts, reason) = counted.unwrap_or_default();
    Ok((KeyCounts { to_invalidate: count(connection, sql::RETIRED_COUNT, [cluster.as_str()])?, ..counts }, reason))
}
