//! The lease that a server holds on its database.
//!
//! Two servers over one database are not supported yet, and one that was thought dead may wake up. A server therefore renews a row of its
//! own, and every transaction checks that row when it commits and keeps it locked until then. Whoever takes the database over deletes the row first:
//! from then on, no transaction of the former server commits (the row's epoch serves as the fencing token).

use crate::engine::error::{EngineError, OpenError};
use crate::engine::session::{Next, Result, Session};

/// A server, as others see it in the database.
#[derive(Clone, Debug)]
pub struct Node {
    /// Identifies the server's data directory, so that a server that is started again takes over from itself at once.
    pub id: String,
    /// Name for people: the host's.
    pub name: String,
}

/// How long a server that does not renew its lease keeps others out, in seconds.
pub(super) const SECONDS: u32 = 15;

const RELEASE_EXPIRED: &str = "DELETE FROM nodes WHERE id = $1 OR expires_at < now()";
const HOLDER: &str = "SELECT name, CAST(started_at AS TEXT) FROM nodes LIMIT 1";
const TAKE: &str = "INSERT INTO nodes (id, name, epoch, expires_at) \
    VALUES ($1, $2, $3, now() + make_interval(secs => CAST($4 AS INTEGER)))";
const RENEW: &str = "UPDATE nodes SET expires_at = now() + make_interval(secs => CAST($1 AS INTEGER)) WHERE epoch = $2";
const RELEASE: &str = "DELETE FROM nodes WHERE epoch = $1";

/// Takes the lease inside a transaction that holds the lock of the schema. Returns the epoch, which is new each time.
pub(super) fn take(session: &dyn Session, node: &Node) -> std::result::Result<String, OpenError> {
    let failed = || OpenError::engine::<EngineError>("take the lease of the database");
    session.run(RELEASE_EXPIRED, &[(&node.id).into()]).map_err(failed())?;
    let mut holder = None;
    session
        .query(HOLDER, &[], &mut |row| {
            holder = Some((row.get::<String>(0)?, row.get::<String>(1)?));
            Ok(Next::Enough)
        })
        .map_err(failed())?;
    if let Some((name, since)) = holder {
        return Err(OpenError::InUse { name, since, seconds: SECONDS });
    }
    let epoch = format!("{:032x}", rand::random::<u128>());
    let values = [(&node.id).into(), (&node.name).into(), (&epoch).into(), SECONDS.into()];
    session.run(TAKE, &values).map_err(failed())?;
    Ok(epoch)
}

/// Renews the lease. `false` if another server has taken it.
pub(super) fn renew(session: &dyn Session, epoch: &str) -> Result<bool> {
    Ok(session.run(RENEW, &[SECONDS.into(), epoch.into()])? > 0)
}

/// Gives the lease back, so that another server can start at once.
pub(super) fn release(session: &dyn Session, epoch: &str) -> Result<()> {
    session.run(RELEASE, &[epoch.into()]).map(|_| ())
}
