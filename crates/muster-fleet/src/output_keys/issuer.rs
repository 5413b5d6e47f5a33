//! The port through which the services reach a cluster: it creates, changes, invalidates and lists keys.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use muster_core::id::{ClusterId, KeyId};
use muster_core::output_key::{FailureKind, Roles};
use zeroize::Zeroizing;

/// Connection to a cluster.
#[derive(Clone)]
pub struct Connection {
    /// The cluster.
    pub cluster: ClusterId,
    /// Fields of the output that concern the connection, as JSON: `hosts`, `protocol`, `path`, `headers`, `ssl`, `proxy_url`,
    /// `proxy_headers`, `proxy_disable`, and the credential: `service_token`, or `username` and `password`. Wiped on drop.
    pub settings: Zeroizing<String>,
}

impl fmt::Debug for Connection {
    /// Omits the settings, which contain the credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.cluster)
    }
}

/// A key to create.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Agent that gets it.
    pub agent_id: String,
    /// Name of the output in the agent's policy.
    pub output: String,
    /// This installation, by which its keys are found again.
    pub fleet: String,
    /// Permissions.
    pub roles: Roles,
}

/// A key that was created.
pub struct CreatedKey {
    /// Its id.
    pub id: KeyId,
    /// Its secret. Wiped on drop.
    pub secret: Zeroizing<String>,
}

impl fmt::Debug for CreatedKey {
    /// Omits the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CreatedKey({})", self.id)
    }
}

/// Error of a request to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The credential is rejected, or lacks a privilege.
    #[error("{0}")]
    Refused(String),
    /// The cluster is overloaded, and limits the rate of requests.
    #[error("{reason}")]
    Overloaded {
        /// Reason.
        reason: String,
        /// Time after which it may be called again, if the response contains one.
        retry_after: Option<Duration>,
    },
    /// It does not respond, or not as Elasticsearch does.
    #[error("{0}")]
    Unavailable(String),
    /// The output's settings can't be used to reach it.
    #[error("{0}")]
    Unusable(String),
    /// Its version is not supported.
    #[error("{0}")]
    Incompatible(String),
    /// It rejects this request. Others may succeed.
    #[error("{0}")]
    Rejected(String),
}

impl IssueError {
    /// Returns the kind of failure of the whole cluster; `None` if only this request failed.
    pub fn cluster_failure(&self) -> Option<FailureKind> {
        match self {
            Self::Refused(_) => Some(FailureKind::Refused),
            Self::Overloaded { .. } => Some(FailureKind::Overloaded),
            Self::Unavailable(_) => Some(FailureKind::Unavailable),
            Self::Unusable(_) | Self::Incompatible(_) => Some(FailureKind::Unusable),
            Self::Rejected(_) => None,
        }
    }
}

/// Position in a list of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPosition(pub String);

/// A page of a list of keys, and the position of the next one; `None` on the last.
pub type KeyPage = (Vec<KeyId>, Option<ListPosition>);

/// Calls clusters. Implementations limit the time of a call and the size of a response.
#[async_trait]
pub trait KeyIssuer: Send + Sync + 'static {
    /// Returns why this server does not connect to a host of an output, if its URL tells that.
    fn refuses(&self, _host: &str) -> Option<String> {
        None
    }

    /// Checks that the cluster responds, accepts the credential and has a supported version, which is returned.
    async fn test(&self, connection: &Connection) -> Result<String, IssueError>;
    /// Creates a key without expiration.
    async fn create(&self, connection: &Connection, key: &NewKey) -> Result<CreatedKey, IssueError>;
    /// Returns the permissions of those keys that are valid.
    async fn roles(&self, connection: &Connection, ids: &[KeyId]) -> Result<Vec<(KeyId, Roles)>, IssueError>;
    /// Sets the permissions of keys. Returns those that are not (or no longer) valid.
    async fn set_roles(&self, connection: &Connection, ids: &[KeyId], roles: &Roles) -> Result<Vec<KeyId>, IssueError>;
    /// Invalidates keys; unknown ones are ignored.
    async fn invalidate(&self, connection: &Connection, ids: &[KeyId]) -> Result<(), IssueError>;
    /// Lists the valid keys that were created for this installation.
    async fn list(
        &self,
        connection: &Connection,
        fleet: &str,
        after: Option<&ListPosition>,
    ) -> Result<KeyPage, IssueError>;
}

/// An issuer without clusters.
#[derive(Debug, Default)]
pub struct NoIssuer;

impl NoIssuer {
    fn error() -> IssueError {
        IssueError::Unusable("this server does not connect to clusters".to_owned())
    }
}

#[async_trait]
impl KeyIssuer for NoIssuer {
    async fn test(&self, _connection: &Connection) -> Result<String, IssueError> {
        Err(Self::error())
    }

    async fn create(&self, _connection: &Connection, _key: &NewKey) -> Result<CreatedKey, IssueError> {
        Err(Self::error())
    }

    async fn roles(&self, _connection: &Connection, _ids: &[KeyId]) -> Result<Vec<(KeyId, Roles)>, IssueError> {
        Err(Self::error())
    }

    async fn set_roles(
        &self,
        _connection: &Connection,
        _ids: &[KeyId],
        _roles: &Roles,
    ) -> Result<Vec<KeyId>, IssueError> {
        Err(Self::error())
    }

    async fn invalidate(&self, _connection: &Connection, _ids: &[KeyId]) -> Result<(), IssueError> {
        Err(Self::error())
    }

    async fn list(
        &self,
        _connection: &Connection,
        _fleet: &str,
        _after: Option<&ListPosition>,
    ) -> Result<KeyPage, IssueError> {
        Err(Self::error())
    }
}
