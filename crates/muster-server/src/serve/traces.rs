//! The files that tell others of a running server: gone with it, however it ends short of being killed.

use std::sync::Arc;

use tracing::warn;

use crate::data_dir::DataDir;
use muster_core::error_chain::chain;

/// Takes `listen.json` and `admin.sock` away when dropped. It keeps the folder's lock until then, so that they can't
/// be another server's.
pub(super) struct Traces(Arc<DataDir>);

impl Traces {
    /// Of the server that has locked `data`.
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
