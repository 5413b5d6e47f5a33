//! How a server becomes a node of a shared database, and remains one.
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

/// A server, as others see it in the database.
#[derive(Clone, Debug)]
pub struct Node {
    /// Identifies the server's data directory.
    pub id: NodeId,
    /// Name for people: the host's.
    pub name: String,
    /// Where the data directory is: the host, the path, the file's own number. A server that starts in the same place takes over from
    /// itself at once. In another place the data directory is a copy, and a second node with its id is refused.
    pub place: String,
}

/// How long a node that does not renew its lease is taken to be alive, in seconds.
pub(super) const SECONDS: u32 = 15;

/// What a node has in its row beside its lease, so that it can be registered again as it was.
#[derive(Clone, Debug, Default)]
pub(super) struct Described {
    name: String,
    version: String,
    addresses: String,
    is_draining: i64,
}

/// Removes nodes whose leases have expired, and notes that they were lost. Waits for a transaction of theirs that is about to commit.
const REMOVE_EXPIRED: &str = concat!(
    "WITH gone AS (DELETE FROM nodes WHERE expires_at <= ",
    now!(),
    " RETURNING id, name) INSERT INTO lost_nodes (id, name, lost_at) SELECT id, name, ",
    now!(),
    " FROM gone ON CONFLICT (id) DO UPDATE SET name = excluded.name, lost_at = excluded.lost_at"
);
/// Removes the row that this node left behind when it crashed.
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
const NAMESAKE: &str = "SELECT id FROM nodes WHERE name = $1 AND id <> $2";
/// Not if the lease has expired: whoever else looks meanwhile may have decided by it already.
const RENEW: &str = concat!(
    "UPDATE nodes SET handled = $1, expires_at = ",
    now!(),
    " + CAST($2 AS BIGINT) * 1000000 WHERE epoch = $3 AND expires_at > ",
    now!(),
    " RETURNING name, version, addresses, is_draining"
);
const RELEASE: &str = "DELETE FROM nodes WHERE epoch = $1";

const EXCLUDES: &str = "SELECT max(number) FROM schema_migrations WHERE oldest > $1 HAVING max(number) IS NOT NULL";

/// Why a node can't be registered.
pub(super) enum Refusal {
    /// Another server is registered under its id.
    Displaced(Other),
    /// A newer program has migrated the database, so that this one can't use it any more.
    Outdated {
        /// The migration.
        number: i64,
    },
}

impl Refusal {
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
pub(super) type Registered = std::result::Result<NodeEpoch, Refusal>;

fn new_epoch() -> NodeEpoch {
    NodeEpoch(format!("{:032x}", rand::random::<u128>()).into())
}

/// Registers a server that starts, inside a transaction. A row that it left behind in the same place is replaced.
pub(super) fn start(session: &dyn Session, node: &Node, newest: i64) -> Result<Registered> {
    session.run(REMOVE_OWN, &[node.id.as_str().into(), (&node.place).into()])?;
    session.run(FORGET_LOST, &[])?;
    let described = Described {
        name: node.name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        addresses: "[]".into(),
        is_draining: 0,
    };
    let registered = register(session, node, &described, newest)?;
    if registered.is_ok() {
        warn_of_namesake(session, node)?;
    }
    Ok(registered)
}

/// Registers a node, or registers it again after it lost its lease, inside a transaction. Never takes over from a server that is alive.
pub(super) fn register(session: &dyn Session, node: &Node, described: &Described, handled: i64) -> Result<Registered> {
    // A migration in progress decides by the nodes that are there, and this by the migrations.
    session.query(LOCK, &[], &mut |_| Ok(Next::Enough))?;
    let mut outdated = None;
    session.query(EXCLUDES, &[newest(MIGRATIONS).into()], &mut |row| {
        outdated = Some(Refusal::Outdated { number: row.get(0)? });
        Ok(Next::Enough)
    })?;
    if let Some(outdated) = outdated {
        return Ok(Err(outdated));
    }
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
    if session.run(INSERT, &values)? > 0 {
        return Ok(Ok(epoch));
    }
    let mut other = Other { name: "?".into(), place: "?".into(), since: "?".into() };
    session.query(HOLDER, &[node.id.as_str().into()], &mut |row| {
        other = Other { name: row.get(0)?, place: row.get(1)?, since: row.get(2)? };
        Ok(Next::Enough)
    })?;
    Ok(Err(Refusal::Displaced(other)))
}

fn warn_of_namesake(session: &dyn Session, node: &Node) -> Result<()> {
    session.query(NAMESAKE, &[(&node.name).into(), node.id.as_str().into()], &mut |row| {
        let other: String = row.get(0)?;
        tracing::warn!(name = node.name, this = %node.id, other, "another node has the same name; use their ids");
        Ok(Next::Enough)
    })
}

/// Removes nodes whose leases have expired.
pub(super) fn remove_expired(session: &dyn Session) -> Result<usize> {
    session.run(REMOVE_EXPIRED, &[])
}

/// Renews the lease, and returns what the row says beside it. `None` if the lease is lost.
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

/// Gives the lease back: this node is not lost, but has left.
pub(super) fn release(session: &dyn Session, epoch: &NodeEpoch) -> Result<()> {
    session.run(RELEASE, &[epoch.as_str().into()]).map(|_| ())
}

/// The error of a start that could not register.
pub(super) fn failed() -> impl FnOnce(EngineError) -> OpenError {
    OpenError::engine("register with the database")
}
