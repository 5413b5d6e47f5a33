//! Requests with an idempotency key.

use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// A request that was sent with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedRequest {
    /// The caller, as in the audit log.
    pub account: String,
    /// The key.
    pub key: String,
    /// Fingerprint of the request, and its response if there is one: ciphertext with nonce and key id.
    pub sealed: Vec<u8>,
    /// When it was first sent.
    pub created_at: Timestamp,
}

/// A change of requests with an idempotency key.
#[derive(Clone, Debug)]
pub enum IdempotencyWrite {
    /// Inserts a request. Fails with `Exists` if the account has used the key since `live_from`, and with `TooMany` if it
    /// has used `limit` keys since.
    Begin {
        /// The request.
        request: KeyedRequest,
        /// Older requests are forgotten.
        live_from: Timestamp,
        /// Maximum number of requests of an account.
        limit: u64,
    },
    /// Replaces `sealed` of a request. Has no effect if the request is forgotten.
    Finish(KeyedRequest),
    /// Deletes a request, if it still exists.
    Forget {
        /// The caller.
        account: String,
        /// The key.
        key: String,
        /// When it was first sent.
        created_at: Timestamp,
    },
    /// Deletes all requests that were first sent before a time.
    Expire {
        /// The time.
        before: Timestamp,
    },
}

impl From<IdempotencyWrite> for Write {
    fn from(write: IdempotencyWrite) -> Self {
        Self::Idempotency(write)
    }
}

reads! {
    /// Reads of requests with an idempotency key.
    pub trait IdempotencyStore {
        /// Selects the request of an account with this key.
        async fn keyed_request(&self, account: &str, key: &str) -> Result<Option<KeyedRequest>, StoreError>;
    }
}
