//! Client of Elasticsearch's security API, through which agents get keys of their own (EA §6).
//!
//! [`SecurityApi`] implements the fleet's port [`KeyIssuer`]. Every call has a deadline, and every response a maximum size.
//! It connects only to addresses that [`muster_fleet::outgoing`] permits.
//! Nothing that a cluster sends reaches a log or an administrator unshortened, and no credential ever does.

mod call;
mod requests;
mod settings;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use muster_core::documents::{Digest, text_digest};
use muster_core::id::{ClusterId, KeyId};
use muster_core::output_key::Roles;
use muster_fleet::outgoing::LocalTargets;
use muster_fleet::output_keys::issuer::{Connection, CreatedKey, IssueError, KeyIssuer, KeyPage, ListPosition, NewKey};

use self::call::Cluster;
use self::settings::Settings;

/// Maximum clients that are kept, each with its idle connections.
const MOST_CLIENTS: usize = 64;

/// Maximum time of a call to one node, from connecting to the last byte of the response.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The security APIs of all clusters, with a client for each.
pub struct SecurityApi {
    clients: Mutex<HashMap<ClusterId, (Digest, Arc<Cluster>)>>,
    local: LocalTargets,
    timeout: Duration,
}

impl SecurityApi {
    /// Creates it without connections.
    pub fn new(local: LocalTargets) -> Self {
        Self { clients: Mutex::default(), local, timeout: TIMEOUT }
    }

    /// Sets the maximum time of a call.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Returns the client of a cluster. It is built again when the settings have changed.
    fn cluster(&self, connection: &Connection) -> Result<Arc<Cluster>, IssueError> {
        let digest = text_digest(&connection.settings);
        let known = |clients: &HashMap<ClusterId, (Digest, Arc<Cluster>)>| {
            let (with, client) = clients.get(&connection.cluster)?;
            (*with == digest).then(|| Arc::clone(client))
        };
        if let Some(client) = known(&self.clients.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(client);
        }
        // Outside the lock: reading the platform's certificates takes a moment.
        let client = Arc::new(Cluster::new(&Settings::read(&connection.settings)?, self.local, self.timeout)?);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MOST_CLIENTS {
            // They are built again when they are needed, which costs a handshake.
            clients.clear();
        }
        clients.insert(connection.cluster.clone(), (digest, Arc::clone(&client)));
        Ok(client)
    }
}

#[async_trait]
impl KeyIssuer for SecurityApi {
    fn refuses(&self, host: &str) -> Option<String> {
        call::refuses(self.local, host)
    }

    async fn test(&self, connection: &Connection) -> Result<String, IssueError> {
        let answer = self.cluster(connection)?.call(Method::GET, "", None).await?;
        requests::supported_version(&answer)
    }

    async fn create(&self, connection: &Connection, key: &NewKey) -> Result<CreatedKey, IssueError> {
        let body = requests::create(key);
        // Not refreshed: a key works at once without it, and thousands of refreshes are what slows a cluster down.
        let answer =
            self.cluster(connection)?.call(Method::POST, "_security/api_key?refresh=false", Some(&body)).await?;
        requests::created(&answer)
    }

    async fn roles(&self, connection: &Connection, ids: &[KeyId]) -> Result<Vec<(KeyId, Roles)>, IssueError> {
        let body = requests::by_ids(ids);
        let answer = self.cluster(connection)?.call(Method::POST, "_security/_query/api_key", Some(&body)).await?;
        requests::roles(&answer)
    }

    async fn set_roles(&self, connection: &Connection, ids: &[KeyId], roles: &Roles) -> Result<Vec<KeyId>, IssueError> {
        let body = requests::update(ids, roles);
        let answer =
            self.cluster(connection)?.call(Method::POST, "_security/api_key/_bulk_update", Some(&body)).await?;
        requests::missing(&answer)
    }

    async fn invalidate(&self, connection: &Connection, ids: &[KeyId]) -> Result<(), IssueError> {
        let body = requests::invalidate(ids);
        let answer = self.cluster(connection)?.call(Method::DELETE, "_security/api_key", Some(&body)).await;
        requests::invalidated(answer)
    }

    async fn list(
        &self,
        connection: &Connection,
        fleet: &str,
        after: Option<&ListPosition>,
    ) -> Result<KeyPage, IssueError> {
        let body = requests::list(fleet, after)?;
        let answer = self.cluster(connection)?.call(Method::POST, "_security/_query/api_key", Some(&body)).await?;
        requests::page(&answer)
    }
}
