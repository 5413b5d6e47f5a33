//! Requests with an idempotency key.

use super::error::Failure;
use super::row::{Columns, Result, count, first, run};
use super::session::{Connection, Row, params};
use crate::port::{IdempotencyWrite, KeyedRequest, Precondition};
use crate::sql::idempotency as sql;

/// Applies a write.
pub(super) fn apply(c: &Connection, write: &IdempotencyWrite) -> std::result::Result<(), Failure> {
    match write {
        IdempotencyWrite::Begin { request, live_from, limit } => {
            let account = request.account.as_str();
            run(c, sql::FORGET_OLD_OF, params![account, live_from.as_micros()])?;
            // Servers that count at the same time may exceed the limit by one each.
            if count(c, sql::COUNT_OF, [account])? >= *limit {
                return Err(Precondition::TooMany("idempotency keys".into()).into());
            }
            let values = params![account, request.key, request.sealed.as_slice(), request.created_at.as_micros()];
            match run(c, sql::INSERT, values)? {
                0 => Err(Precondition::Exists(format!("the idempotency key {:?}", request.key)).into()),
                _ => Ok(()),
            }
        }
        IdempotencyWrite::Finish(request) => {
            let KeyedRequest { account, key, sealed, created_at } = request;
            let values = params![sealed.as_slice(), account.as_str(), key.as_str(), created_at.as_micros()];
            Ok(run(c, sql::FINISH, values).map(drop)?)
        }
        IdempotencyWrite::Forget { account, key, created_at } => {
            Ok(run(c, sql::FORGET, params![account.as_str(), key.as_str(), created_at.as_micros()]).map(drop)?)
        }
        IdempotencyWrite::Expire { before } => Ok(run(c, sql::EXPIRE, [before.as_micros()]).map(drop)?),
    }
}

fn read(row: &Row<'_>) -> Result<KeyedRequest> {
    let mut c = Columns::of(row);
    Ok(KeyedRequest { account: c.take()?, key: c.take()?, sealed: c.take()?, created_at: c.time()? })
}

/// Selects a request.
pub(super) fn one(c: &Connection, account: &str, key: &str) -> Result<Option<KeyedRequest>> {
    first(c, sql::ONE, [account, key], read)
}
