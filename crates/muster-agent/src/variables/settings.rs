//! Settings of the providers: `providers` in `agent.yml`.

use std::time::Duration;

use camino::Utf8PathBuf;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::duration;

/// `providers` of the settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderSettings {
    /// `local`.
    pub local: Local,
    /// `local_dynamic`.
    pub local_dynamic: LocalDynamic,
    /// `docker`.
    pub docker: Docker,
    /// `kubernetes`.
    pub kubernetes: Kubernetes,
    /// `kubernetes_secrets`.
    pub kubernetes_secrets: KubernetesSecrets,
    /// `kubernetes_leaderelection`.
    pub kubernetes_leaderelection: LeaderElection,
}

/// Variables with fixed values: `${local.NAME}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Local {
    /// Values by name.
    pub vars: Map<String, Value>,
}

/// Variables with several sets of fixed values. An input that uses them exists once for each set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalDynamic {
    /// The sets.
    pub items: Vec<Local>,
}

/// Variables of the containers of this host.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Docker {
    /// Whether policies may use them.
    pub enabled: bool,
    /// `unix://PATH`, or `http://` or `tcp://` with a loopback address.
    pub host: String,
    /// Time for which the variables of a container stay after it has ended.
    #[serde(deserialize_with = "duration::deserialize")]
    pub cleanup_timeout: Duration,
}

/// Variables of the pods of a node, or of a cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kubernetes {
    /// Whether policies may use them.
    pub enabled: bool,
    /// Configuration of the client; the default is the service account of the agent's pod.
    pub kube_config: Option<Utf8PathBuf>,
    /// Whose pods are found.
    pub scope: Scope,
    /// Name of the node; `${NAME}` is a variable of the environment.
    pub node: Option<String>,
    /// Namespace of the pods; the default is every namespace.
    pub namespace: Option<String>,
    /// Time for which the variables of a pod stay after it was deleted.
    #[serde(deserialize_with = "duration::deserialize")]
    pub cleanup_timeout: Duration,
}

/// `kubernetes.scope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The pods of one node.
    #[default]
    Node,
    /// All pods.
    Cluster,
}

impl Scope {
    /// Returns the name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Cluster => "cluster",
        }
    }
}

/// Values of secrets: `${kubernetes_secrets.NAMESPACE.NAME.KEY}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesSecrets {
    /// Whether policies may use them.
    pub enabled: bool,
    /// Configuration of the client; the default is the service account of the agent's pod.
    pub kube_config: Option<Utf8PathBuf>,
    /// Time after which the secrets are read again.
    #[serde(deserialize_with = "duration::deserialize")]
    pub refresh_interval: Duration,
}

/// Whether this agent is the leader of its cluster: `${kubernetes_leaderelection.leader}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaderElection {
    /// Whether policies may use it.
    pub enabled: bool,
    /// Configuration of the client; the default is the service account of the agent's pod.
    pub kube_config: Option<Utf8PathBuf>,
    /// Name of the lease. Agents with the same lease elect one leader.
    pub leader_lease: String,
    /// Time after which a leader that does not renew its lease is replaced.
    #[serde(deserialize_with = "duration::deserialize")]
    pub leader_leaseduration: Duration,
    /// Time after which a leader that cannot renew its lease gives up.
    #[serde(deserialize_with = "duration::deserialize")]
    pub leader_renewdeadline: Duration,
    /// Interval at which the lease is renewed or looked at.
    #[serde(deserialize_with = "duration::deserialize")]
    pub leader_retryperiod: Duration,
}

impl LeaderElection {
    /// Checks that a leader gives up before another agent takes its place, and that it has tried to renew its lease before.
    pub fn check(&self) -> Result<(), String> {
        // A lease has whole seconds.
        let lasts = Duration::from_secs(self.leader_leaseduration.as_secs());
        if lasts > self.leader_renewdeadline && self.leader_renewdeadline > self.leader_retryperiod {
            return Ok(());
        }
        Err("providers.kubernetes_leaderelection: leader_leaseduration (rounded down to seconds) must be longer than \
             leader_renewdeadline, and that must be longer than leader_retryperiod"
            .into())
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self { enabled: true, host: "unix:///var/run/docker.sock".into(), cleanup_timeout: Duration::from_secs(60) }
    }
}

impl Default for Kubernetes {
    fn default() -> Self {
        let cleanup_timeout = Duration::from_secs(60);
        Self { enabled: true, kube_config: None, scope: Scope::Node, node: None, namespace: None, cleanup_timeout }
    }
}

impl Default for KubernetesSecrets {
    fn default() -> Self {
        Self { enabled: true, kube_config: None, refresh_interval: Duration::from_secs(60) }
    }
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self {
            enabled: true,
            kube_config: None,
            leader_lease: "elastic-agent-cluster-leader".into(),
            leader_leaseduration: Duration::from_secs(15),
            leader_renewdeadline: Duration::from_secs(10),
            leader_retryperiod: Duration::from_secs(2),
        }
    }
}
