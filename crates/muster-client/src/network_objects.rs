//! Fleet Server hosts, proxies and download sources.

use muster_protocol::management::network_object::{ConnectionTest, NetworkObject, NetworkRoute};
use muster_protocol::management::output::DeletedId;
use muster_protocol::management::{Item, Items};
use serde_json::{Map, Value};

use crate::{Client, Result};

impl Client {
    /// Returns all objects of a kind, sorted by name.
    pub async fn network_objects(&self, route: NetworkRoute) -> Result<Items<NetworkObject>> {
        self.get(&[route.segment()]).await
    }

    /// Creates an object; see MG §2.6–2.8 for the fields.
    pub async fn create_network_object(
        &self,
        route: NetworkRoute,
        object: &Map<String, Value>,
    ) -> Result<NetworkObject> {
        Ok(self.post::<Item<_>>(&[route.segment()], object).await?.item)
    }

    /// Updates an object.
    pub async fn update_network_object(
        &self,
        route: NetworkRoute,
        id: &str,
        object: &Map<String, Value>,
    ) -> Result<NetworkObject> {
        Ok(self.put::<Item<_>>(&[route.segment(), id], object).await?.item)
    }

    /// Has the server connect to what an object describes.
    pub async fn test_network_object(&self, route: NetworkRoute, id: &str) -> Result<ConnectionTest> {
        self.post(&[route.segment(), id, "_test"], &Map::new()).await
    }

    /// Deletes an object, unless it is the default.
    pub async fn delete_network_object(&self, route: NetworkRoute, id: &str) -> Result<DeletedId> {
        self.delete(&[route.segment(), id], &()).await
    }
}
