//! Fleet Server hosts, proxies and download sources.

use muster_core::id::{NetworkObjectId, SpaceId};
use muster_core::network_object::{NetworkObject, NetworkObjectKind};

use super::reads::reads;
use super::{StoreError, Write};

/// A change of network objects.
#[derive(Clone, Debug)]
pub enum NetworkObjectWrite {
    /// Inserts or updates an object. `is_default` clears the flag of others of its kind in the same commit. Fails with
    /// `NameTaken`.
    Put(Box<NetworkObject>),
    /// Deletes an object. Fails with `Missing`.
    Delete {
        /// Its kind.
        kind: NetworkObjectKind,
        /// The object.
        id: NetworkObjectId,
    },
}

impl From<NetworkObjectWrite> for Write {
    fn from(write: NetworkObjectWrite) -> Self {
        Self::NetworkObject(write)
    }
}

reads! {
    /// Reads of network objects.
    pub trait NetworkObjectStore {
        /// Selects an object.
        async fn network_object(&self, kind: NetworkObjectKind, id: &NetworkObjectId) -> Result<Option<NetworkObject>, StoreError>;
        /// Selects all objects of a space, by kind and name.
        async fn network_objects(&self, space: &SpaceId) -> Result<Vec<NetworkObject>, StoreError>;
    }
}
