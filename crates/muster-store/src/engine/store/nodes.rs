//! Reads of nodes, and the leases of work.

use async_trait::async_trait;
use tokio::sync::watch;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::nodes;
use crate::engine::session::{Connection, Holder};
use crate::port::{FencingToken, LeaseName, LeaseStore, LostNode, NodeRecord, NodeStanding, NodeStore, StoreError};

#[async_trait]
impl NodeStore for SqlStore {
    async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        let mut nodes = self.points.read(nodes::live).await?;
        let this = self.membership.standing().node;
        // The row contains the number as of the last renewal.
        nodes.iter_mut().filter(|node| node.id == this).for_each(|node| node.handled = self.feed.handled());
        Ok(nodes)
    }

    async fn lost_nodes(&self) -> Result<Vec<LostNode>, StoreError> {
        self.points.read(nodes::lost).await
    }

    fn this_node(&self) -> watch::Receiver<NodeStanding> {
        self.membership.subscribe()
    }
}

#[async_trait]
impl LeaseStore for SqlStore {
    async fn take_lease(&self, lease: LeaseName) -> Result<Option<FencingToken>, StoreError> {
        // A read first: most calls find that nothing has changed, and a commit for each would be expensive.
        let look = move |c: &Connection| c.leases().map_or(Ok(Holder::ThisNode(0)), |leases| leases.holder(lease));
        match self.points.read(look).await? {
            Holder::ThisNode(number) => Ok(Some(FencingToken { lease, number })),
            Holder::AnotherNode => Ok(None),
            Holder::Nobody => {
                let take = move |c: &Connection| -> Result<Done, Failure> {
                    let number = c.leases().map_or(Ok(Some(0)), |leases| leases.take(lease))?;
                    Ok(Done { token: number.map(|number| FencingToken { lease, number }), ..Done::default() })
                };
                Ok(self.writer.task(take).await?.token)
            }
        }
    }

    async fn release_lease(&self, token: FencingToken) -> Result<(), StoreError> {
        let release = move |c: &Connection| -> Result<Done, Failure> {
            c.leases().map_or(Ok(()), |leases| leases.release(&token))?;
            Ok(Done::default())
        };
        self.writer.task(release).await.map(drop)
    }
}
