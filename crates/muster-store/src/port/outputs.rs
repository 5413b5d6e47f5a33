//! Outputs.

use async_trait::async_trait;
use muster_core::id::OutputId;
use muster_core::output::Output;

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

/// Reads of outputs.
#[async_trait]
pub trait OutputStore: Send + Sync + 'static {
    /// Selects an output.
    async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError>;
    /// All outputs, by name.
    async fn outputs(&self) -> Result<Vec<Output>, StoreError>;
}
