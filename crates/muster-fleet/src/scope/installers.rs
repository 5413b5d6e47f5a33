//! Installers within a space.

use muster_core::id::InstallerId;
use muster_core::installer::Installer;
use muster_store::StoreError;

use super::Scoped;

/// Installers.
impl Scoped<'_> {
    /// Returns an installer with its scripts.
    pub async fn installer(&self, id: &InstallerId) -> Result<Option<Installer>, StoreError> {
        self.store.installer_in(self.space, id).await
    }

    /// Returns the installers without their conditions and scripts, by name.
    pub async fn installers(&self) -> Result<Vec<Installer>, StoreError> {
        self.store.installers(self.space).await
    }
}
