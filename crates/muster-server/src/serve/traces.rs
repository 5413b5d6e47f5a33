//! Files that announce a running server. They are removed however it ends, unless it is killed.

use std::sync::Arc;

use tracing::warn;

use crate::data_dir::DataDir;
use muster_core::error_chain::chain;

/// Removes `listen.json` and `admin.sock` on drop. Holds the lock of the data directory until then, so that the files
/// can't be those of another server.
pub(super) struct Traces(Arc<DataDir>);

impl Traces {
    /// Creates the guard for the server that has locked `data`.
    pub fn new(data: &Arc<DataDir>) -> Self {
        Self(Arc::clone(data))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        for removed in [self.0.remove_listen(), self.0.remove_socket()] {
            if let Err(error) = removed {
                warn!(error = %chain(&error), "failed to remove a file of the stopped server");
            }
        }
    }
}
