//! Leases of work among several nodes. Each is a row with the epoch of its holder, and is valid as long as the
//! registration of that epoch.

use crate::engine::error::{Cause, EngineError};
use crate::engine::session::{Holder, Leases, Next, Result, Session as _};
use crate::engine::words::Word as _;
use crate::port::{FencingToken, LeaseName};
use crate::sql::now;

use super::session::PostgresSession;

const HOLDER: &str = concat!(
    "SELECT coalesce(leases.epoch, ''), number FROM leases JOIN nodes ON nodes.epoch = leases.epoch \
     WHERE leases.name = $1 AND expires_at > ",
    now!()
);
/// Waits for a fenced transaction of the previous holder that is about to commit.
const TAKE: &str = concat!(
    "UPDATE leases SET epoch = $1, number = number + 1 WHERE name = $2 AND NOT EXISTS \
     (SELECT 1 FROM nodes WHERE nodes.epoch = leases.epoch AND expires_at > ",
    now!(),
    ") RETURNING number"
);
/// Locks the row, so that no other server can take the lease before the end of the transaction.
const HOLDS: &str = "SELECT 1 FROM leases WHERE name = $1 AND epoch = $2 AND number = $3 FOR SHARE";
const RELEASE: &str = "UPDATE leases SET epoch = NULL WHERE name = $1 AND epoch = $2 AND number = $3";

impl Leases for PostgresSession {
    fn holder(&self, lease: LeaseName) -> Result<Holder> {
        let epoch = self.epoch()?;
        let mut holder = Holder::Nobody;
        self.query(HOLDER, &[lease.word().into()], &mut |row| {
            let held_by: String = row.get(0)?;
            // The epoch identifies a registration, not a node: after it was lost, this node counts as another one.
            holder = if held_by == epoch.as_str() { Holder::ThisNode(row.get(1)?) } else { Holder::AnotherNode };
            Ok(Next::Enough)
        })?;
        Ok(holder)
    }

    fn take(&self, lease: LeaseName) -> Result<Option<i64>> {
        let epoch = self.epoch()?;
        let mut number = None;
        // A single statement, so that of several servers that find the lease free only one gets a number.
        self.query(TAKE, &[epoch.as_str().into(), lease.word().into()], &mut |row| {
            number = Some(row.get(0)?);
            Ok(Next::Enough)
        })?;
        Ok(number)
    }

    fn holds(&self, token: &FencingToken) -> Result<bool> {
        let epoch = self.epoch()?;
        let mut holds = false;
        let values = [token.lease.word().into(), epoch.as_str().into(), token.number.into()];
        self.query(HOLDS, &values, &mut |_| {
            holds = true;
            Ok(Next::Enough)
        })?;
        Ok(holds)
    }

    fn release(&self, token: &FencingToken) -> Result<()> {
        let epoch = self.epoch()?;
        let values = [token.lease.word().into(), epoch.as_str().into(), token.number.into()];
        self.run(RELEASE, &values).map(|_| ())
    }
}

/// Creates the error for an operation that requires a lease that this node has lost.
pub(super) fn lease_lost() -> EngineError {
    EngineError::new(Cause::Fenced, "this node lost its lease in the database; registering again")
}
