//! Outputs.

use async_trait::async_trait;
use muster_core::id::{OutputId, SpaceId};
use muster_core::output::Output;

use super::{StoreError, Write};

/// A change of outputs.
#[derive(Clone, Debug)]
pub enum OutputWrite {
    /// A new or changed output. `is_default` clears the flag of the others in the same commit. `NameTaken`.
    Put(Box<Output>),
    /// Removes an output. `Missing` when not there.
    Delete {
        /// The output.
        id: OutputId,
    },
}

impl From<OutputWrite> for Write {
    fn from(write: OutputWrite) -> Self {
        Self::Output(write)
    }
}

/// Reads of outputs.
#[async_trait]
pub trait OutputStore: Send + Sync + 'static {
    /// One output.
    async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError>;
    /// One output, if it is of the space.
    async fn output_in(&self, space: &SpaceId, id: &OutputId) -> Result<Option<Output>, StoreError>;
    /// All outputs of a space, by name.
    async fn outputs(&self, space: &SpaceId) -> Result<Vec<Output>, StoreError>;
}
