//! Reads of labels.

use async_trait::async_trait;
use muster_core::fleetd::labels::Label;
use muster_core::id::{HostId, LabelId, SpaceId};

use super::SqlStore;
use crate::engine::labels;
use crate::port::{LabelStore, StoreError};

#[async_trait]
impl LabelStore for SqlStore {
    async fn labels(&self, space: &SpaceId) -> Result<Vec<Label>, StoreError> {
        let space = space.clone();
        self.points.read(move |c| labels::of_space(c, &space)).await
    }

    async fn label_counts(&self, space: &SpaceId) -> Result<Vec<(LabelId, u64)>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| labels::counts(c, &space)).await
    }

    async fn hosts_with_label(&self, label: &LabelId, hosts: &[HostId]) -> Result<Vec<HostId>, StoreError> {
        let (label, hosts) = (label.clone(), hosts.to_vec());
        self.lists.read(move |c| labels::with_label(c, &label, &hosts)).await
    }

    async fn label_error_counts(&self, space: &SpaceId) -> Result<Vec<(LabelId, u64, String)>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| labels::error_counts(c, &space)).await
    }

    async fn label_errors_of_host(&self, host: &HostId) -> Result<Vec<(LabelId, String)>, StoreError> {
        let host = host.clone();
        self.points.read(move |c| labels::errors_of_host(c, &host)).await
    }

    async fn labels_of_host(&self, host: &HostId) -> Result<Vec<LabelId>, StoreError> {
        let host = host.clone();
        self.points.read(move |c| labels::of_host(c, &host)).await
    }
}
