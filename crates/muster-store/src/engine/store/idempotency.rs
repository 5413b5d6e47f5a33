//! Reads of requests with an idempotency key.

use async_trait::async_trait;

use super::SqlStore;
use crate::engine::idempotency;
use crate::port::{IdempotencyStore, KeyedRequest, StoreError};

#[async_trait]
impl IdempotencyStore for SqlStore {
    async fn keyed_request(&self, account: &str, key: &str) -> Result<Option<KeyedRequest>, StoreError> {
        let (account, key) = (account.to_owned(), key.to_owned());
        self.points.read(move |c| idempotency::one(c, &account, &key)).await
    }
}
