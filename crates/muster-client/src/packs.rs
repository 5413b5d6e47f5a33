//! Packs of scheduled queries.

use muster_protocol::management::pack::{Pack, SavePack};
use muster_protocol::management::{Empty, Item, Items};

use crate::transport::DRY_RUN;
use crate::{Client, Result};

const PACKS: &str = "packs";

impl Client {
    /// Returns the packs of the space and those of all spaces, by name.
    pub async fn packs(&self) -> Result<Vec<Pack>> {
        Ok(self.get::<Items<_>>(&[PACKS]).await?.items)
    }

    /// Saves a pack under its name.
    pub async fn save_pack(&self, pack: &SavePack) -> Result<Pack> {
        Ok(self.post::<Item<_>>(&[PACKS], pack).await?.item)
    }

    /// Validates a pack, and returns what [`Self::save_pack`] would save.
    pub async fn try_save_pack(&self, pack: &SavePack) -> Result<Pack> {
        Ok(self.try_post::<Item<_>>(&[PACKS], pack).await?.item)
    }

    /// Deletes a pack, or only validates that.
    pub async fn delete_pack(&self, id: &str, dry_run: bool) -> Result<()> {
        let query: &[(&str, &str)] = if dry_run { &DRY_RUN } else { &[] };
        self.delete::<Empty>(&[PACKS, id], &query).await.map(drop)
    }
}
