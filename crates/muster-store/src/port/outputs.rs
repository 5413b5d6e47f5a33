//! Outputs.

use muster_core::id::{OutputId, SpaceId};
use muster_core::output::Output;

use super::reads::reads;
use super::{StoreError, Write};

/// A change of outputs.
#[derive(Clone, Debug)]
pub enum OutputWrite {
    /// Inserts or updates an output. `is_default` clears the flag of others in the same commit. Fails with `NameTaken`.
    Put(Box<Output>),
    /// Deletes an output. Fails with `Missing`.
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

reads! {
    /// Reads of outputs.
    pub trait OutputStore {
        /// Selects an output.
        async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError>;
        /// Selects an output of the space.
        async fn output_in(&self, space: &SpaceId, id: &OutputId) -> Result<Option<Output>, StoreError>;
        /// Selects all outputs of a space, by name.
        async fn outputs(&self, space: &SpaceId) -> Result<Vec<Output>, StoreError>;
    }
}
