//! fleetd options.

use muster_protocol::management::Item;
use muster_protocol::management::fleetd_options::{ChangedFleetdOptions, FleetdOptions, SaveFleetdOptions};

use crate::transport::DRY_RUN;
use crate::{Client, Result};

const OPTIONS: &str = "fleetd_options";

impl Client {
    /// Returns the osquery configuration of the hosts of the space.
    pub async fn fleetd_options(&self) -> Result<FleetdOptions> {
        Ok(self.get::<Item<_>>(&[OPTIONS]).await?.item)
    }

    /// Replaces the osquery configuration.
    pub async fn update_fleetd_options(&self, options: &SaveFleetdOptions) -> Result<ChangedFleetdOptions> {
        Ok(self.put::<Item<_>>(&[OPTIONS], options).await?.item)
    }

    /// Returns what [`Self::update_fleetd_options`] would change.
    pub async fn try_update_fleetd_options(&self, options: &SaveFleetdOptions) -> Result<ChangedFleetdOptions> {
        Ok(self.try_put::<Item<_>>(&[OPTIONS], options).await?.item)
    }

    /// Returns to the default osquery configuration.
    pub async fn reset_fleetd_options(&self) -> Result<ChangedFleetdOptions> {
        Ok(self.delete::<Item<_>>(&[OPTIONS], &()).await?.item)
    }

    /// Returns what [`Self::reset_fleetd_options`] would change.
    pub async fn try_reset_fleetd_options(&self) -> Result<ChangedFleetdOptions> {
        Ok(self.delete::<Item<_>>(&[OPTIONS], &DRY_RUN).await?.item)
    }
}
