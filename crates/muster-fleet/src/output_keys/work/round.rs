//! One round with one cluster: a batch of each kind of work.

use std::collections::{BTreeMap, HashMap};

use muster_core::Error;
use muster_core::change::Change;
use muster_core::error_chain::SharedError;
use muster_core::id::{KeyId, PolicyId};
use muster_core::output_key::{
    IssuedKey, KeyFailure, KeyState, OutputKey, RetiredKey, Roles, has_former_roles, widened,
};
use muster_core::reported::shortened_to;
use muster_store::{OutputKeyWrite, Write};
use serde_json::Value;

use super::super::OutputKeys;
use super::super::issuer::{Connection, IssueError, NewKey};
use super::{Left, REASON_BYTES, Stop};
use crate::authority::System;

/// Maximum number of keys of each kind in a round.
const BATCH: u32 = 100;
/// Maximum keys that are created at the same time at one cluster. The other calls are few, with many keys each.
const CONCURRENT: usize = 8;
/// Pause before a request that a cluster rejected is repeated.
const REJECTED_PAUSE: std::time::Duration = std::time::Duration::from_secs(600);

/// Permissions by policy, revision and output, read once in a round.
type Permissions = HashMap<(PolicyId, i64, String), Option<Roles>>;

/// Keys with their new permissions, and their state after that.
struct Group {
    roles: Roles,
    keys: Vec<OutputKey>,
    state: KeyState,
}

impl OutputKeys {
    pub(super) async fn round(&self, connection: &Connection) -> Result<Left, Stop> {
        // Invalidation comes first: a key that must not work any more is more urgent than one that should.
        let invalidated = self.invalidate(connection).await?;
        let widened = self.widen(connection).await?;
        let created = self.create(connection).await?;
        let narrowed = self.narrow(connection).await?;
        // A full batch of any kind means that there may be more.
        let most = [invalidated, widened, created, narrowed].into_iter().max().unwrap_or(0);
        Ok(if most >= BATCH as usize { Left::More } else { Left::Nothing })
    }

    async fn invalidate(&self, connection: &Connection) -> Result<usize, Stop> {
        let cluster = &connection.cluster;
        let ids = self.store.everywhere(&System).retired_output_keys_due(cluster, BATCH).await?;
        if ids.is_empty() {
            return Ok(0);
        }
        // The cluster first, then the store: after a crash in between, the keys are invalidated again, which is
        // harmless.
        self.issuer.invalidate(connection, &ids).await?;
        let count = ids.len();
        let write = OutputKeyWrite::Invalidated { cluster: cluster.clone(), ids };
        self.store.commit(&System, vec![write.into()]).await?;
        tracing::debug!(%cluster, count, "invalidated output keys");
        Ok(count)
    }

    async fn due(&self, connection: &Connection, state: KeyState) -> Result<Vec<OutputKey>, Stop> {
        let (cluster, now) = (&connection.cluster, self.clock.now());
        Ok(self.store.everywhere(&System).output_keys_due(cluster, state, now, BATCH).await?)
    }

    /// Adds the new permissions to those that the keys have (EA106).
    async fn widen(&self, connection: &Connection) -> Result<usize, Stop> {
        let keys = self.due(connection, KeyState::Outdated).await?;
        if keys.is_empty() {
            return Ok(0);
        }
        let count = keys.len();
        // Only keys that exist at the cluster can be read there; the others are created.
        let ids: Vec<KeyId> = keys.iter().filter_map(|key| Some(key.issued.as_ref()?.id.clone())).collect();
        // Read before they are written: the cluster replaces permissions, and the agent still needs the former ones.
        let present: HashMap<KeyId, Roles> = self.issuer.roles(connection, &ids).await?.into_iter().collect();
        let (mut permissions, mut groups) = (Permissions::new(), BTreeMap::<String, Group>::new());
        for key in keys {
            let Some(new) = self.permissions(&mut permissions, &key).await? else { continue };
            let roles = key.issued.as_ref().and_then(|issued| present.get(&issued.id)).map(|now| widened(now, &new));
            // A key that the cluster does not know is replaced below, like those that vanish between the two calls.
            let roles = roles.unwrap_or(new);
            let state = if has_former_roles(&roles) { KeyState::Widened } else { KeyState::Live };
            // Keys with the same permissions are changed by one call, which is the usual case: all agents of a policy.
            let group = groups.entry(Value::Object(roles.clone()).to_string());
            group.or_insert_with(|| Group { roles, keys: Vec::new(), state }).keys.push(key);
        }
        for group in groups.into_values() {
            self.set_roles(connection, group).await?;
        }
        Ok(count)
    }

    /// Removes the permissions of former policies.
    async fn narrow(&self, connection: &Connection) -> Result<usize, Stop> {
        let keys = self.due(connection, KeyState::Confirmed).await?;
        let count = keys.len();
        let (mut permissions, mut groups) = (Permissions::new(), BTreeMap::<String, Group>::new());
        for key in keys {
            let Some(roles) = self.permissions(&mut permissions, &key).await? else { continue };
            // By hash: the agents of a policy have the same permissions, and one call changes all their keys.
            let group = groups.entry(key.permissions_hash.clone());
            group.or_insert_with(|| Group { roles, keys: Vec::new(), state: KeyState::Live }).keys.push(key);
        }
        for group in groups.into_values() {
            self.set_roles(connection, group).await?;
        }
        Ok(count)
    }

    async fn set_roles(&self, connection: &Connection, group: Group) -> Result<(), Stop> {
        let ids: Vec<KeyId> = group.keys.iter().filter_map(|key| Some(key.issued.as_ref()?.id.clone())).collect();
        let missing = match self.issuer.set_roles(connection, &ids, &group.roles).await {
            Ok(missing) => missing,
            Err(IssueError::Rejected(reason)) => {
                // A rejection concerns the content of this call. Other groups may still succeed.
                let rejected = group.keys.into_iter().map(|key| self.rejected(key, &reason));
                return self.settle(rejected.collect()).await;
            }
            Err(error) => return Err(error.into()),
        };
        let is_missing = |key: &OutputKey| key.issued.as_ref().is_some_and(|issued| missing.contains(&issued.id));
        let (gone, there): (Vec<OutputKey>, Vec<OutputKey>) = group.keys.into_iter().partition(is_missing);
        // Stored before the missing keys are replaced: the permissions at the cluster have changed already.
        self.settle(there.into_iter().map(|key| changed(key, group.state)).collect()).await?;
        self.replace(gone).await
    }

    /// Replaces keys that the cluster does not know, because someone has invalidated them.
    async fn replace(&self, gone: Vec<OutputKey>) -> Result<(), Stop> {
        for key in gone {
            tracing::warn!(agent = %key.agent_id, output = key.output, "the cluster does not know the agent's key; creating another");
            // The agent gets the new key with its policy. The former key is then invalidated and not just forgotten,
            // because a cluster may not find a new key before its next refresh.
            let retired = key.issued.as_ref().map(|issued| RetiredKey {
                cluster: key.cluster.clone(),
                id: issued.id.clone(),
                agent_id: key.agent_id.clone(),
                after: Some((key.policy_id.clone(), key.revision + 1)),
                at: self.clock.now(),
            });
            // Withheld until the new key exists: the former one does not work.
            let wanted = OutputKey { issued: None, is_withheld: true, ..changed(key, KeyState::Wanted) };
            let mut writes: Vec<Write> = vec![OutputKeyWrite::Settle(Box::new(wanted)).into()];
            writes.extend(retired.map(|key| OutputKeyWrite::Retire(key).into()));
            self.store.commit(&System, writes).await?;
        }
        Ok(())
    }

    /// Creates the wanted keys (EA101), several at a time.
    async fn create(&self, connection: &Connection) -> Result<usize, Stop> {
        let keys = self.due(connection, KeyState::Wanted).await?;
        if keys.is_empty() {
            return Ok(0);
        }
        let (count, fleet) = (keys.len(), self.fleet().await?);
        let mut permissions = Permissions::new();
        let mut wanted = Vec::new();
        for key in keys {
            if let Some(roles) = self.permissions(&mut permissions, &key).await? {
                wanted.push((key, roles));
            }
        }
        // In groups, because a cluster creates keys one at a time, and agents' data have priority.
        for group in wanted.chunks(CONCURRENT) {
            self.create_group(connection, &fleet, group).await?;
        }
        Ok(count)
    }

    /// Creates a few keys at the same time, and stores those that were created even if others failed.
    async fn create_group(
        &self,
        connection: &Connection,
        fleet: &str,
        group: &[(OutputKey, Roles)],
    ) -> Result<(), Stop> {
        let mut calls = tokio::task::JoinSet::new();
        for (place, (key, roles)) in group.iter().enumerate() {
            let new = NewKey {
                agent_id: key.agent_id.to_string(),
                output: key.output.clone(),
                fleet: fleet.to_owned(),
                roles: roles.clone(),
            };
            let (issuer, connection) = (std::sync::Arc::clone(&self.issuer), connection.clone());
            calls.spawn(async move { (place, issuer.create(&connection, &new).await) });
        }
        let (mut settled, mut stop) = (Vec::new(), None);
        while let Some(ended) = calls.join_next().await {
            let (place, created) =
                // A panic of a call is an error of this server, not of the cluster.
                ended.map_err(|error| Error::internal(SharedError::during("creating an output key", error)))?;
            let key = group[place].0.clone();
            match created {
                Ok(created) => {
                    let sealed = self.seal_key(&created.id, &created.secret)?;
                    let issued = Some(IssuedKey { id: created.id, sealed });
                    settled.push(OutputKey { issued, ..changed(key, KeyState::Live) });
                }
                Err(IssueError::Rejected(reason)) => settled.push(self.rejected(key, &reason)),
                // The last error stands for all; the keys concerned stay in the queue.
                Err(error) => stop = Some(error),
            }
        }
        // Before the error is returned: keys that were created would otherwise be unknown to the store.
        self.settle(settled).await?;
        stop.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Stores results, and wakes the agents. If an agent's keys were changed in the meantime, a key that was created
    /// for the former state is invalidated, and the new state is handled in the next round.
    async fn settle(&self, keys: Vec<OutputKey>) -> Result<(), Stop> {
        if keys.is_empty() {
            return Ok(());
        }
        let wake = |key: OutputKey| {
            let agent = key.agent_id.clone();
            [OutputKeyWrite::Settle(Box::new(key)).into(), Write::Changed(Change::Agent(agent))]
        };
        self.store.commit(&System, keys.into_iter().flat_map(wake).collect()).await?;
        Ok(())
    }

    fn rejected(&self, key: OutputKey, reason: &str) -> OutputKey {
        tracing::warn!(agent = %key.agent_id, output = key.output, reason, "the cluster rejected a key");
        let reason = shortened_to(reason, REASON_BYTES).into_owned();
        let failure = Some(KeyFailure { reason, retry_at: self.clock.now().plus(REJECTED_PAUSE) });
        OutputKey { version: key.version + 1, failure, ..key }
    }

    /// Returns the permissions that a key must have; `None` if its policy was deleted, which is stored as a failure of
    /// the key.
    async fn permissions(&self, known: &mut Permissions, key: &OutputKey) -> Result<Option<Roles>, Stop> {
        let place = (key.policy_id.clone(), key.revision, key.output.clone());
        // Policies are read once in a round, however many keys they have.
        if !known.contains_key(&place) {
            let revision = self.store.everywhere(&System).policy_revision(&key.policy_id, key.revision).await?;
            let roles =
                revision.and_then(|revision| revision.compiled["output_permissions"][&key.output].as_object().cloned());
            known.insert(place.clone(), roles);
        }
        let roles = known.get(&place).cloned().flatten();
        if roles.is_none() {
            self.settle(vec![self.rejected(key.clone(), "the policy revision of the key no longer exists")]).await?;
        }
        Ok(roles)
    }
}

fn changed(key: OutputKey, state: KeyState) -> OutputKey {
    OutputKey { version: key.version + 1, state, failure: None, ..key }
}
