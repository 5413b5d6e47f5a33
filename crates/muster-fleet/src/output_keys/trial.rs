//! Which settings of a cluster the server uses: those of the output, or its bootstrap settings while those do not work
//! (AG103, AG104).

use muster_core::Error;
use muster_core::error_chain::chain;
use muster_core::event;
use muster_core::id::{OutputId, PolicyId, SpaceId};
use muster_core::output_key::OutputCluster;
use muster_core::policy::bootstrap::{self, Settings, Trial, Verdict};
use muster_core::reported::shortened_to;
use muster_core::seal::Place;
use muster_store::{OutputKeyWrite, Write};
use zeroize::Zeroizing;

use super::OutputKeys;
use super::issuer::{Connection, IssueError};
use super::work::REASON_BYTES;
use crate::authority::System;

/// How a cluster is reached now.
pub(super) struct InUse {
    pub(super) connection: Connection,
    /// Whether other settings were in use before.
    pub(super) is_changed: bool,
}

impl OutputKeys {
    /// Returns the settings with which a cluster is reached. Those of the output are tested if that is due.
    pub(super) async fn in_use(&self, cluster: &mut OutputCluster) -> Result<InUse, Error> {
        let settings = self.settings(cluster)?;
        // Without bootstrap settings there is no alternative, so a test could change nothing.
        let is_due = settings.of_bootstrap.is_some() && cluster.trial.is_due(self.clock.now());
        let is_changed = is_due && self.test(cluster, &settings).await?;
        Ok(InUse { connection: chosen(cluster, settings), is_changed })
    }

    /// Returns the settings of a cluster for a request that tests nothing.
    pub(super) fn connection(&self, cluster: &OutputCluster) -> Result<Connection, Error> {
        Ok(chosen(cluster, self.settings(cluster)?))
    }

    /// Tests the settings of the output. Returns whether other settings are in use than before.
    async fn test(&self, cluster: &mut OutputCluster, settings: &Settings) -> Result<bool, Error> {
        let tested = self.issuer.test(&connection(cluster, settings.of_output.clone())).await;
        let after = cluster.trial.after(verdict(tested), self.clock.now());
        // Another reason for the same fallback is stored, but it is neither an event nor a log line.
        let is_changed = after.fallback.is_some() != cluster.trial.fallback.is_some();
        let mut writes = vec![trial_write(cluster, &after)];
        if is_changed {
            writes.push(self.event(cluster, &after).await?);
            match &after.fallback {
                Some(fallback) => tracing::warn!(
                    output = cluster.output,
                    reason = fallback.reason,
                    "cannot use the settings of the output; using its bootstrap settings"
                ),
                None => tracing::info!(output = cluster.output, "using the settings of the output again"),
            }
        }
        self.store.commit(&System, writes).await?;
        // Only after the commit: if it fails, the test is repeated and the event is not lost.
        cluster.trial = after;
        Ok(is_changed)
    }

    /// Returns the write after a request with the settings in use has failed; `None` for an output without bootstrap settings.
    pub(super) fn doubt(&self, cluster: &OutputCluster, error: &IssueError) -> Result<Option<Write>, Error> {
        // An overloaded cluster is the right one.
        if matches!(error, IssueError::Overloaded { .. }) || self.settings(cluster)?.of_bootstrap.is_none() {
            return Ok(None);
        }
        Ok(Some(trial_write(cluster, &cluster.trial.doubted(self.clock.now()))))
    }

    async fn event(&self, cluster: &OutputCluster, trial: &Trial) -> Result<Write, Error> {
        let (space, name) = self.named(&cluster.output).await?;
        let event = event::of_output(&cluster.output, space, &name, trial.fallback.as_ref(), self.clock.now());
        Ok(Write::Event(Box::new(event)))
    }

    /// Returns the space and the name of an output: of the object, or of the policy that defines it.
    async fn named(&self, output: &str) -> Result<(Option<SpaceId>, String), Error> {
        let store = self.store.everywhere(&System);
        let found = match output.split_once(':') {
            // The outputs of a policy have ids of the form POLICY:NAME; those of objects contain no colon.
            Some((policy, _)) => {
                let policy = store.policy(&PolicyId::trusted(policy)).await?;
                policy.map(|policy| (policy.space, policy.name))
            }
            None => store.output(&OutputId::trusted(output)).await?.map(|output| (output.space, output.name)),
        };
        let (space, name) = found.map_or((None, String::new()), |(space, name)| (Some(space), name));
        Ok((space, name))
    }

    fn settings(&self, cluster: &OutputCluster) -> Result<Settings, Error> {
        let stored = self.open(Place::output_cluster(&cluster.id), &cluster.sealed)?;
        Ok(bootstrap::settings(&stored))
    }
}

fn chosen(cluster: &OutputCluster, settings: Settings) -> Connection {
    let Settings { of_output, of_bootstrap } = settings;
    // Without a block, those of the output are used, whatever the last test has found.
    let of_bootstrap = of_bootstrap.filter(|_| cluster.trial.fallback.is_some());
    connection(cluster, of_bootstrap.unwrap_or(of_output))
}

fn connection(cluster: &OutputCluster, settings: Zeroizing<String>) -> Connection {
    Connection { cluster: cluster.id.clone(), settings }
}

fn trial_write(cluster: &OutputCluster, trial: &Trial) -> Write {
    OutputKeyWrite::Trial { id: cluster.id.clone(), trial: trial.clone() }.into()
}

fn verdict(tested: Result<String, IssueError>) -> Verdict {
    let reason = |error: &IssueError| shortened_to(&chain(error).to_string(), REASON_BYTES).into_owned();
    match tested {
        // It responds; the requests that follow wait as long as it asks for.
        Ok(_) | Err(IssueError::Overloaded { .. }) => Verdict::Works,
        // Repeating the test would not help: only an upgrade of the cluster or another output does.
        Err(error @ IssueError::Incompatible(_)) => Verdict::Incompatible(reason(&error)),
        Err(error) => Verdict::Fails(reason(&error)),
    }
}
