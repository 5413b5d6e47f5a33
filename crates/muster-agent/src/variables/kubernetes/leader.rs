//! The provider `kubernetes_leaderelection`: whether this agent is the leader of its cluster. The agents of a cluster elect
//! a leader with a lease, as all clients of Kubernetes do.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use muster_core::time::Clock as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::Cluster;
use super::objects::Meta;
use crate::clock::SystemClock;
use crate::variables::api::{ApiError, encoded};
use crate::variables::board::Board;
use crate::variables::settings::LeaderElection;

/// Name of the provider.
pub const PROVIDER: &str = "kubernetes_leaderelection";
/// Delay before another try if there is no cluster.
const AGAIN: Duration = Duration::from_secs(10);
/// Maximum time for the release of the lease.
const RELEASE: Duration = Duration::from_secs(3);
/// Maximum time to wait for the response to a renewal that is in progress when the agent is stopped.
const IN_PROGRESS: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<u64>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lease {
    metadata: Meta,
    spec: Spec,
}

/// What to do about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It is ours: renew it.
    Renew,
    /// Nobody has it, or its holder has not renewed it in time: become the leader.
    Take,
    /// Another agent has it.
    Wait,
}

/// Decides about a lease that has been unchanged for this time. Clocks of hosts differ, so that the times in the lease are
/// only compared with each other.
fn decide(spec: &Spec, own: &str, unchanged: Duration, own_duration: Duration) -> Next {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    // The duration of the holder counts, which may have other settings than this agent.
    let lasts = spec.lease_duration_seconds.map_or(own_duration, Duration::from_secs);
    if holder == own {
        Next::Renew
    } else if holder.is_empty() || unchanged >= lasts {
        Next::Take
    } else {
        Next::Wait
    }
}

/// Takes part in the election until the sender of `stopped` is dropped. Then releases the lease, if this agent is the leader.
/// If the task is aborted instead, the lease ends by itself.
pub async fn run(settings: LeaderElection, agent_id: String, board: Arc<Board>, mut stopped: oneshot::Receiver<()>) {
    // As other agents name themselves, so that people find the leader.
    let name = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty()).unwrap_or(agent_id);
    let own = format!("elastic-agent-leader-{name}");
    loop {
        match Cluster::find(settings.kube_config.as_deref()) {
            Ok(None) => board.set_context(PROVIDER, json!({"leader": false})),
            Ok(Some(cluster)) => {
                let mut candidate = Candidate::new(&cluster, &settings, &own);
                if candidate.run(&board, &mut stopped).await == Ended::Stopped {
                    return;
                }
            }
            Err(reason) => board.set_fault(PROVIDER, Some(reason)),
        }
        tokio::select! {
            _ = &mut stopped => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Why a candidate does not take part any more.
#[derive(PartialEq, Eq)]
enum Ended {
    /// It was stopped, and has released the lease.
    Stopped,
    /// The cluster cannot be used.
    Unusable,
}

struct Candidate<'a> {
    cluster: &'a Cluster,
    settings: &'a LeaderElection,
    own: &'a str,
    /// Path of the leases, and of this one.
    leases: String,
    lease: String,
    /// The lease that was seen last, and when it was seen first.
    seen: Spec,
    since: Instant,
    /// The lease as this agent has written it last, while it is the leader.
    held: Option<Lease>,
}

impl<'a> Candidate<'a> {
    fn new(cluster: &'a Cluster, settings: &'a LeaderElection, own: &'a str) -> Self {
        let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", cluster.namespace());
        let lease = format!("{leases}/{}", encoded(&settings.leader_lease));
        Self { cluster, settings, own, leases, lease, seen: Spec::default(), since: Instant::now(), held: None }
    }

    /// Takes part until the cluster cannot be used any more, or until it is stopped. Then publishes nothing more, and releases the lease.
    async fn run(&mut self, board: &Board, stopped: &mut oneshot::Receiver<()>) -> Ended {
        let mut renewed: Option<Instant> = None;
        loop {
            let begun = Instant::now();
            // Measured from the last renewal: an agent whose requests hang is not the leader for longer than this.
            let deadline = renewed.unwrap_or(begun) + self.settings.leader_renewdeadline;
            let Some(round) = self.round_until(deadline, stopped).await else {
                self.release().await;
                return Ended::Stopped;
            };
            let fault = match round {
                Ok(Ok(leads)) => {
                    // From the request on: the lease may have been renewed at its beginning.
                    renewed = leads.then_some(begun);
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the lease cannot be renewed in time".into()),
            };
            // Given up before the lease ends for others, so that there are never two leaders.
            renewed = renewed.filter(|at| at.elapsed() < self.settings.leader_renewdeadline);
            board.set_context(PROVIDER, json!({"leader": renewed.is_some()}));
            let failed = fault.is_some();
            board.set_fault(PROVIDER, fault);
            // Credentials and address are read again from their files; while this agent leads, the deadline above
            // decides.
            if failed && renewed.is_none() {
                return Ended::Unusable;
            }
            tokio::select! {
                biased;
                _ = &mut *stopped => {
                    self.release().await;
                    return Ended::Stopped;
                }
                () = tokio::time::sleep_until(self.next_round(renewed)) => {}
            }
        }
    }

    /// Returns when to look at the lease again: at the latest when the leader must give up.
    fn next_round(&self, renewed: Option<Instant>) -> Instant {
        let next = Instant::now() + self.settings.leader_retryperiod;
        renewed.map_or(next, |at| next.min(at + self.settings.leader_renewdeadline))
    }

    /// Runs a round until a time. `None` if the candidate is stopped meanwhile: a renewal in progress is awaited, because only its response
    /// contains the version of the lease that can be released.
    async fn round_until(
        &mut self,
        deadline: Instant,
        stopped: &mut oneshot::Receiver<()>,
    ) -> Option<Result<Result<bool, ApiError>, Elapsed>> {
        let mut round = std::pin::pin!(tokio::time::timeout_at(deadline, self.round()));
        tokio::select! {
            biased;
            _ = stopped => {
                let _ = tokio::time::timeout(IN_PROGRESS, round).await;
                None
            }
            round = &mut round => Some(round),
        }
    }

    /// Looks at the lease, and renews or takes it. Returns whether this agent is the leader.
    async fn round(&mut self) -> Result<bool, ApiError> {
        let found = match self.cluster.get::<Lease>(&self.lease).await {
            Err(error) if error.is(StatusCode::NOT_FOUND) => None,
            other => Some(other?),
        };
        let Some(Lease { metadata, spec }) = found else {
            let lease = self.written(&Spec::default(), None);
            self.held = self.write(Method::POST, &self.leases, lease).await?;
            return Ok(self.held.is_some());
        };
        // Measured on this host's clock, from the moment at which the change was seen.
        if spec != self.seen {
            (self.seen, self.since) = (spec.clone(), Instant::now());
        }
        match decide(&spec, self.own, self.since.elapsed(), self.settings.leader_leaseduration) {
            Next::Wait => self.held = None,
            Next::Renew | Next::Take => {
                let lease = self.written(&spec, Some(&metadata));
                self.held = self.write(Method::PUT, &self.lease, lease).await?;
            }
        }
        Ok(self.held.is_some())
    }

    /// Releases the lease, so that another agent need not wait until it ends.
    async fn release(&self) {
        let Some(Lease { metadata, spec }) = &self.held else { return };
        let mut lease = self.written(spec, Some(metadata));
        // As other clients release a lease: without a holder, and with the shortest valid duration.
        lease["spec"]["holderIdentity"] = "".into();
        lease["spec"]["leaseDurationSeconds"] = 1.into();
        let outcome = tokio::time::timeout(RELEASE, self.write(Method::PUT, &self.lease, lease)).await;
        match outcome {
            // A conflict: it has another holder, or this agent takes part anew and has renewed it.
            Ok(Ok(released)) => tracing::info!(released = released.is_some(), "no longer the leader"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease of the leader is not released, and ends by itself"),
            Err(_) => tracing::warn!("the lease of the leader is not released in time, and ends by itself"),
        }
    }

    /// Writes the lease, and returns it as it is stored. If somebody else was faster, that is no error.
    async fn write(&self, method: Method, path: &str, lease: Value) -> Result<Option<Lease>, ApiError> {
        match self.cluster.send(method, path, Some(lease)).await {
            Err(error) if error.is(StatusCode::CONFLICT) => Ok(None),
            other => other.map(Some),
        }
    }

    fn written(&self, former: &Spec, meta: Option<&Meta>) -> Value {
        // Times of leases have microseconds.
        let now = SystemClock.now().to_rfc3339_millis().replace('Z', "000Z");
        let is_own = former.holder_identity.as_deref() == Some(self.own);
        let transitions = former.lease_transitions.unwrap_or(0) + u64::from(meta.is_some() && !is_own);
        let acquired = former.acquire_time.clone().filter(|_| is_own).unwrap_or_else(|| now.clone());
        let mut metadata = json!({"name": self.settings.leader_lease, "namespace": self.cluster.namespace()});
        // The server rejects the change if somebody else has changed the lease since.
        if let Some(meta) = meta {
            metadata["resourceVersion"] = meta.resource_version.clone().into();
        }
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {
            "holderIdentity": self.own, "leaseDurationSeconds": self.settings.leader_leaseduration.as_secs(),
            "acquireTime": acquired, "renewTime": now, "leaseTransitions": transitions}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_by_its_holder_and_taken_only_if_it_was_not_renewed() {
        let lease = |holder: Option<&str>, seconds| Spec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(seconds),
            ..Spec::default()
        };
        let second = Duration::from_secs(1);
        for (lease, unchanged, expected) in [
            (lease(Some("me"), 15), 100, Next::Renew),
            (lease(Some("other"), 15), 14, Next::Wait),
            (lease(Some("other"), 15), 15, Next::Take),
            (lease(Some("other"), 60), 15, Next::Wait),
            (lease(Some(""), 15), 0, Next::Take),
            (lease(None, 15), 0, Next::Take),
        ] {
            assert_eq!(decide(&lease, "me", second * unchanged, second * 15), expected, "{lease:?} {unchanged}");
        }
    }
}
