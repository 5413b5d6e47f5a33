//! The fleet's own CA.

use muster_protocol::management::Item;
use muster_protocol::management::ca::CaCertificate;

use crate::{Client, Result};

impl Client {
    /// Returns the certificate of the fleet's own CA.
    pub async fn ca(&self) -> Result<CaCertificate> {
        Ok(self.v1_get::<Item<_>>(&["ca"], &()).await?.item)
    }
}
