//! Requests with an idempotency key.

use super::statements;

statements! {
    /// Deletes the forgotten requests of an account.
    FORGET_OLD_OF = "DELETE FROM idempotency_keys WHERE account = $1 AND created_at < $2";
    /// Counts the requests of an account.
    COUNT_OF = "SELECT count(*) FROM idempotency_keys WHERE account = $1";
    /// Inserts a request, unless its key is taken.
    INSERT = "INSERT INTO idempotency_keys (account, request_key, sealed, created_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT DO NOTHING";
    /// Replaces what is known of a request.
    FINISH = "UPDATE idempotency_keys SET sealed = $1 WHERE account = $2 AND request_key = $3 AND created_at = $4";
    /// Deletes a request.
    FORGET = "DELETE FROM idempotency_keys WHERE account = $1 AND request_key = $2 AND created_at = $3";
    /// Deletes the requests from before a time.
    EXPIRE = "DELETE FROM idempotency_keys WHERE created_at < $1";
    /// Selects a request.
    ONE = "SELECT account, request_key, sealed, created_at FROM idempotency_keys \
        WHERE account = $1 AND request_key = $2";
}
