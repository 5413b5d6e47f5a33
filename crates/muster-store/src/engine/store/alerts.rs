//! Reads of events and of receivers of alerts.

use async_trait::async_trait;
use muster_core::alert::{Progress, Receiver};
use muster_core::event::Event;
use muster_core::id::{AlertReceiverId, SpaceId};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::alerts;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::session::Connection;
use crate::port::{AlertStore, StoreError};

#[async_trait]
impl AlertStore for SqlStore {
    async fn newest_event(&self) -> Result<i64, StoreError> {
        self.points.read(alerts::newest_event).await
    }

    async fn events_after(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Event)>, StoreError> {
        self.lists.read(move |c| alerts::events_after(c, seq, limit)).await
    }

    async fn events_of(&self, kind: &str, id: &str, before: i64, limit: u32) -> Result<Vec<(i64, Event)>, StoreError> {
        let (kind, id) = (kind.to_owned(), id.to_owned());
        self.lists.read(move |c| alerts::events_of(c, &kind, &id, before, limit)).await
    }

    async fn events_in(&self, space: &SpaceId, limit: u32) -> Result<Vec<(i64, Event)>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| alerts::events_in(c, &space, limit)).await
    }

    async fn events_prune(&self, before: Timestamp, keep: i64, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: alerts::prune(c, before, keep, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }

    async fn alert_receiver(&self, space: &SpaceId, id: &AlertReceiverId) -> Result<Option<Receiver>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| alerts::one(c, &space, &id)).await
    }

    async fn alert_receivers(&self, space: &SpaceId) -> Result<Vec<Receiver>, StoreError> {
        let space = space.clone();
        self.points.read(move |c| alerts::of_space(c, &space)).await
    }

    async fn alert_work(&self) -> Result<Vec<(Receiver, Progress)>, StoreError> {
        self.points.read(alerts::work).await
    }

    async fn alert_progress(&self, id: &AlertReceiverId) -> Result<Option<Progress>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| alerts::progress(c, &id)).await
    }
}
