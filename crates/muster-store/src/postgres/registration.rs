//! Registration of a server as a node of a shared database.
//!
//! A node renews a row of its own, and every transaction of it checks the row's epoch when it commits and keeps the row
//! locked until then. Whoever finds the lease of a node expired deletes the row: from then on, no transaction of that epoch
//! commits. Times are judged by the database's clock only.

use muster_core::id::NodeId;

use super::migrate::LOCK;
use crate::engine::error::{EngineError, OpenError};
use crate::engine::migration::{MIGRATIONS, newest};
use crate::engine::session::{Next, Result, Row, Session};
use crate::port::NodeEpoch;
use crate::sql::now;

/// A server, as recorded in the database.
#[derive(Clone, Debug)]
pub struct Node {
    /// Id of the server's data directory.
    pub id: NodeId,
    /// Display name: that of the host.
    pub name: String,
    /// Location of the data directory: host, path and inode number. A server that restarts in the same location
    /// replaces its own registration at once. In another location, the data directory is a copy, and a second node with
    /// the same id is rejected.
    pub place: String,
}

/// Duration of a lease, in seconds.
pub(super) const SECONDS: u32 = 15;

/// Columns of a node's row other than the lease, so that it can be registered again unchanged.
#[derive(Clone, Debug, Default)]
pub(super) struct Described {
    name: String,
    version: String,
    addresses: String,
    is_draining: i64,
}

/// Deletes nodes whose leases have expired, and records them as lost. Waits for their transactions that are about to
/// commit.
const REMOVE_EXPIRED: &str = concat!(
    "WITH gone AS (DELETE FROM nodes WHERE expires_at <= ",
    now!(),
    " RETURNING id, name) INSERT INTO lost_nodes (id, name, lost_at) SELECT id, name, ",
    now!(),
    " FROM gone ON CONFLICT (id) DO UPDATE SET name = excluded.name, lost_at = excluded.lost_at"
);
/// Deletes the row that this node left when it crashed.
const REMOVE_OWN: &str = concat!(
    "WITH gone AS (DELETE FROM nodes WHERE id = $1 AND place = $2 RETURNING id, name) \
     INSERT INTO lost_nodes (id, name, lost_at) SELECT id, name, ",
    now!(),
    " FROM gone ON CONFLICT (id) DO UPDATE SET name = excluded.name, lost_at = excluded.lost_at"
);
const FORGET_LOST: &str = concat!("DELETE FROM lost_nodes WHERE lost_at < ", now!(), " - 86400000000");
const INSERT: &str = concat!(
    "INSERT INTO nodes \
     (id, epoch, name, place, version, schema_known, addresses, is_draining, handled, started_at, expires_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, ",
    now!(),
    ", ",
    now!(),
    " + CAST($10 AS BIGINT) * 1000000) ON CONFLICT (id) DO NOTHING"
);
const HOLDER: &str = "SELECT name, place, \
    CAST(date_trunc('second', to_timestamp(started_at / 1000000)) AS TEXT) FROM nodes WHERE id = $1";
/// Not if the lease has expired, since another node may already have acted on that.
const RENEW: &str = concat!(
    "UPDATE nodes SET handled = $1, expires_at = ",
    now!(),
    " + CAST($2 AS BIGINT) * 1000000 WHERE epoch = $3 AND expires_at > ",
    now!(),
    " RETURNING name, version, addresses, is_draining"
);
const RELEASE: &str = "DELETE FROM nodes WHERE epoch = $1";

const EXCLUDES: &str = "SELECT max(number) FROM schema_migrations WHERE oldest > $1 HAVING max(number) IS NOT NULL";

/// Reason why a node can't be registered.
pub(super) enum NotRegistered {
    /// Another server is registered under its id.
    Displaced(Other),
    /// A newer program has migrated the database, so that this one can't use it any more.
    Outdated {
        /// The migration.
        number: i64,
    },
}

impl NotRegistered {
    pub(super) fn into_error(self) -> OpenError {
        match self {
            Self::Displaced(Other { name, place, since }) => OpenError::InUse { name, place, since, seconds: SECONDS },
            Self::Outdated { number } => OpenError::Newer { found: number, known: newest(MIGRATIONS) },
        }
    }
}

/// Another server that is registered under the id of this one.
pub(super) struct Other {
    name: String,
    place: String,
    since: String,
}

/// The epoch of a registration.
pub(super) type Registered = std::result::Result<NodeEpoch, NotRegistered>;

fn new_epoch() -> NodeEpoch {
    // Random, because no other registration, of this or any other server, may ever have the same epoch.
    NodeEpoch(format!("{:032x}", rand::random::<u128>()).into())
}

/// Registers a server that starts, within a transaction. Replaces a row that it left in the same location.
pub(super) fn start(session: &dyn Session, node: &Node, newest: i64) -> Result<Registered> {
    // The place decides. A crashed server continues at once; a copy of its data directory elsewhere is rejected
    // below.
    session.run(REMOVE_OWN, &[node.id.as_str().into(), (&node.place).into()])?;
    session.run(FORGET_LOST, &[])?;
    let described = Described {
        name: node.name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        addresses: "[]".into(),
        is_draining: 0,
    };
    register(session, node, &described, newest)
}

/// Registers a node, also again after it lost its lease, within a transaction. Never replaces a running server.
pub(super) fn register(session: &dyn Session, node: &Node, described: &Described, handled: i64) -> Result<Registered> {
    // A migration depends on the registered nodes, and a registration on the migrations, so both take the same lock.
    session.query(LOCK, &[], &mut |_| Ok(Next::Enough))?;
    let mut outdated = None;
    session.query(EXCLUDES, &[newest(MIGRATIONS).into()], &mut |row| {
        outdated = Some(NotRegistered::Outdated { number: row.get(0)? });
        Ok(Next::Enough)
    })?;
    if let Some(outdated) = outdated {
        return Ok(Err(outdated));
    }
    // Before the insert: an expired row of this node would conflict with it.
    session.run(REMOVE_EXPIRED, &[])?;
    let epoch = new_epoch();
    let values = [
        node.id.as_str().into(),
        epoch.as_str().into(),
        (&described.name).into(),
        (&node.place).into(),
        (&described.version).into(),
        newest(MIGRATIONS).into(),
        (&described.addresses).into(),
        described.is_draining.into(),
        handled.into(),
        SECONDS.into(),
    ];
    // `ON CONFLICT DO NOTHING` instead of an error, which would abort the transaction that must still read the
    // holder.
    if session.run(INSERT, &values)? > 0 {
        return Ok(Ok(epoch));
    }
    // Placeholders, in case the other server leaves between the two statements.
    let mut other = Other { name: "?".into(), place: "?".into(), since: "?".into() };
    session.query(HOLDER, &[node.id.as_str().into()], &mut |row| {
        other = Other { name: row.get(0)?, place: row.get(1)?, since: row.get(2)? };
        Ok(Next::Enough)
    })?;
    Ok(Err(NotRegistered::Displaced(other)))
}

/// Deletes nodes whose leases have expired.
pub(super) fn remove_expired(session: &dyn Session) -> Result<usize> {
    session.run(REMOVE_EXPIRED, &[])
}

/// Renews the lease, and returns the other columns of the row; `None` if the lease is lost.
pub(super) fn renew(session: &dyn Session, epoch: &NodeEpoch, handled: i64) -> Result<Option<Described>> {
    let mut described = None;
    session.query(RENEW, &[handled.into(), SECONDS.into(), epoch.as_str().into()], &mut |row: &Row<'_>| {
        described = Some(Described {
            name: row.get(0)?,
            version: row.get(1)?,
            addresses: row.get(2)?,
            is_draining: row.get(3)?,
        });
        Ok(Next::Enough)
    })?;
    Ok(described)
}

/// Releases the lease: this node has left and is not lost.
pub(super) fn release(session: &dyn Session, epoch: &NodeEpoch) -> Result<()> {
    session.run(RELEASE, &[epoch.as_str().into()]).map(|_| ())
}

/// Creates the error of a start that could not register.
pub(super) fn failed() -> impl FnOnce(EngineError) -> OpenError {
    OpenError::engine("register with the database")
}
