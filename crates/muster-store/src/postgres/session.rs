//! A connection to PostgreSQL as a session.
//!
//! A session drives its connection on a runtime of its own, in the thread that uses it. Statements without a result (`BEGIN`,
//! savepoints) are sent together with the next one, so that they cost no round trip.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type};
use tokio_postgres::{Client, Statement};

use super::address::Address;
use super::dialect;
use super::leases::lease_lost;
use crate::engine::error::{Cause, EngineError, OpenError};
use crate::engine::membership::Membership;
use crate::engine::session::{Cells, Leases, Next, Result, Row, Rule, Session, Uncommitted, Value};
use crate::port::{NodeEpoch, NodeStanding, StoreError};
use muster_core::error_chain::chain;

/// Maximum number of prepared statements per connection: more than there are fixed ones. Beyond it, composed statements
/// are prepared again.
const PREPARED: usize = 512;
/// Timeout after which a connection is abandoned. Longer than the statement timeout of the server.
const STATEMENT: Duration = Duration::from_secs(45);
/// Settings of each connection: timeouts for statements, for locks, and for idle transactions, so that a server that
/// stops in the middle of one does not hold its locks for ever.
const SETTINGS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = '5s'; SET synchronous_commit = on";
/// The same for each transaction, for poolers that assign a different connection to each.
const LOCAL_SETTINGS: &str = "SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '10s'; \
    SET LOCAL idle_in_transaction_session_timeout = '5s'; SET LOCAL synchronous_commit = on";
/// Pauses between attempts to determine the outcome of a commit whose reply was lost.
const RESOLVE: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// A session with PostgreSQL.
pub(super) struct PostgresSession {
    runtime: Runtime,
    address: Arc<Address>,
    link: RefCell<Option<Link>>,
    /// Statements without a result, which are sent with the next one.
    leads: RefCell<Vec<&'static str>>,
    transaction: Cell<Transaction>,
    /// The node that this session belongs to; `None` for a session that commits only unfenced transactions.
    membership: Option<Arc<Membership>>,
    /// Locks of the transaction, with the statements that took them.
    held: RefCell<Vec<(Rule, &'static str)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transaction {
    None,
    /// Begun, but no statement was run in it.
    Fresh,
    Used,
}

struct Link {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl PostgresSession {
    /// Connects.
    pub(super) fn open(address: Arc<Address>) -> std::result::Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OpenError::io("start the runtime of a database connection"))?;
        let session = Self {
            runtime,
            address,
            link: RefCell::new(None),
            leads: RefCell::default(),
            transaction: Cell::new(Transaction::None),
            membership: None,
            held: RefCell::default(),
        };
        session.connect().map_err(OpenError::engine::<EngineError>(format!("connect to {}", session.address)))?;
        Ok(session)
    }

    /// Connects, unless there is a working connection.
    fn connect(&self) -> Result<()> {
        if self.link.borrow().as_ref().is_some_and(|link| !link.client.is_closed()) {
            return Ok(());
        }
        *self.link.borrow_mut() = None;
        let address = Arc::clone(&self.address);
        let client = self.wait(async move {
            let client = address.connect().await?;
            if address.prepares() {
                client.batch_execute(SETTINGS).await?;
            }
            Ok(client)
        })?;
        *self.link.borrow_mut() = Some(Link { client, statements: HashMap::new() });
        Ok(())
    }

    /// Waits for the server, with a timeout.
    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| EngineError::new(Cause::Connection, format!("no response within {} s", STATEMENT.as_secs()));
        self.runtime.block_on(async { tokio::time::timeout(STATEMENT, work).await.map_err(late)? })
    }

    /// Makes this the session of a node. From now on, transactions commit only while the node holds its lease.
    pub(super) fn of(self, membership: Arc<Membership>) -> Self {
        Self { membership: Some(membership), ..self }
    }

    /// Returns the node's epoch; an error if its lease is lost.
    pub(super) fn epoch(&self) -> Result<NodeEpoch> {
        self.membership.as_ref().and_then(|membership| membership.epoch()).ok_or_else(lease_lost)
    }

    /// Commits a transaction of a migration or a registration, which does not depend on a lease.
    pub(super) fn commit_unfenced(&self) -> Result<()> {
        let committed = self.batch("COMMIT");
        self.leads.borrow_mut().clear();
        self.held.borrow_mut().clear();
        self.transaction.set(Transaction::None);
        committed
    }

    /// Runs a batch of statements, each without values.
    pub(super) fn batch(&self, text: &str) -> Result<()> {
        self.connect()?;
        let link = self.link.borrow();
        let client = &link.as_ref().ok_or_else(gone)?.client;
        self.wait(async { Ok(client.batch_execute(text).await?) })
    }

    /// Runs `work` with a prepared statement, after the statements that wait to be sent before it.
    ///
    /// If the connection was lost and nothing had been done on it, connects again, once.
    fn with<T>(
        &self,
        text: &str,
        work: &impl AsyncFn(&Client, &Prepared) -> std::result::Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        let leads: Vec<&'static str> = self.leads.take();
        let first = self.attempt(text, &leads, work);
        let lost = matches!(&first, Err(error) if *error.cause() == Cause::Connection);
        let answer = if lost && self.transaction.get() != Transaction::Used {
            *self.link.borrow_mut() = None;
            self.attempt(text, &leads, work)
        } else {
            first
        };
        if self.transaction.get() == Transaction::Fresh {
            self.transaction.set(Transaction::Used);
        }
        if matches!(&answer, Err(error) if *error.cause() == Cause::Connection) {
            *self.link.borrow_mut() = None;
        }
        answer
    }

    fn attempt<T>(
        &self,
        text: &str,
        leads: &[&'static str],
        work: &impl AsyncFn(&Client, &Prepared) -> std::result::Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        if self.transaction.get() != Transaction::Used {
            self.connect()?;
        }
        let statement = self.statement(text)?;
        let link = self.link.borrow();
        let client = &link.as_ref().ok_or_else(gone)?.client;
        let leads = leads.join(";");
        self.wait(async {
            if leads.is_empty() {
                return Ok(work(client, &statement).await?);
            }
            // Both are sent before the first reply is read.
            let (led, done) = tokio::join!(client.batch_execute(&leads), work(client, &statement));
            led?;
            Ok(done?)
        })
    }

    /// Returns a prepared statement. Preparing requires no transaction, so it can precede the waiting statements.
    fn statement(&self, text: &str) -> Result<Prepared> {
        if !self.address.prepares() {
            return Ok(Prepared::Unnamed(dialect::statement(text).into_owned()));
        }
        let mut link = self.link.borrow_mut();
        let link = link.as_mut().ok_or_else(gone)?;
        if let Some(statement) = link.statements.get(text) {
            return Ok(Prepared::Named(statement.clone()));
        }
        let client = &link.client;
        let statement = self.wait(async { Ok(client.prepare(&dialect::statement(text)).await?) })?;
        if link.statements.len() >= PREPARED {
            link.statements.clear();
        }
        link.statements.insert(text.to_owned(), statement.clone());
        Ok(Prepared::Named(statement))
    }

    fn begin_with(&self, statement: &'static str) -> Result<()> {
        self.roll_back()?;
        self.leads.borrow_mut().push(statement);
        if !self.address.prepares() {
            self.leads.borrow_mut().push(LOCAL_SETTINGS);
        }
        self.transaction.set(Transaction::Fresh);
        Ok(())
    }

    /// Takes a lock, unless this transaction has it.
    fn take(&self, rule: Rule, statement: &'static str) -> Result<()> {
        let lock = (rule, statement);
        if self.held.borrow().contains(&lock) {
            return Ok(());
        }
        let name = match rule {
            Rule::References => "references",
            Rule::Uploads => "uploads",
        };
        self.run(statement, &[name.into()])?;
        self.held.borrow_mut().push(lock);
        Ok(())
    }

    /// Determines whether a transaction was committed whose reply was lost. Waits for a transaction that is still in
    /// progress.
    fn resolve(&self, id: &str, lost: EngineError) -> std::result::Result<(), Uncommitted> {
        for pause in RESOLVE {
            std::thread::sleep(pause);
            *self.link.borrow_mut() = None;
            // The id is unique: if the lost transaction inserted it, it was committed. If this statement inserts it
            // first, the transaction can no longer commit.
            match self.run(INSERT_COMMIT, &[id.into()]) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(Uncommitted { error: StoreError::unavailable(lost), may_retry: true }),
                Err(error) => tracing::warn!(error = %chain(&error), "the outcome of a commit is not known yet"),
            }
        }
        Err(Uncommitted::finally(StoreError::Unknown { source: lost.into() }))
    }
}

/// A statement in the form in which it is sent.
enum Prepared {
    /// Prepared on this connection.
    Named(Statement),
    /// Sent as text each time, with the types of its values, so that no additional round trip is needed.
    Unnamed(String),
}

impl Prepared {
    async fn execute(&self, client: &Client, values: &[Value<'_>]) -> std::result::Result<u64, tokio_postgres::Error> {
        match self {
            Self::Named(statement) => client.execute(statement, &bound(values)).await,
            Self::Unnamed(text) => client.execute_typed(text, &typed(values)).await,
        }
    }

    async fn query(
        &self,
        client: &Client,
        values: &[Value<'_>],
    ) -> std::result::Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        match self {
            Self::Named(statement) => client.query(statement, &bound(values)).await,
            Self::Unnamed(text) => client.query_typed(text, &typed(values)).await,
        }
    }
}

fn bound<'v>(values: &'v [Value<'_>]) -> Vec<&'v (dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn typed<'v>(values: &'v [Value<'_>]) -> Vec<(&'v (dyn ToSql + Sync), Type)> {
    let kind = |value: &Value<'_>| match value {
        // The server infers the type, as for a literal.
        Value::Null => Type::UNKNOWN,
        Value::Integer(_) => Type::INT8,
        Value::Text(_) => Type::TEXT,
        Value::Bytes(_) => Type::BYTEA,
    };
    values.iter().map(|value| (value as &(dyn ToSql + Sync), kind(value))).collect()
}

/// Marks a transaction as committed if the lease is still valid. The row of the node stays locked until the commit, so
/// that a node that declares the lease ended waits for it. Without the lease, the id is NULL, which the table rejects,
/// and the transaction fails.
const MARK_COMMIT: &str = "INSERT INTO commits (id) VALUES \
    (CASE WHEN EXISTS (SELECT 1 FROM nodes WHERE epoch = $2 FOR SHARE) THEN CAST($1 AS TEXT) END)";
/// Decides the outcome of a commit whose reply was lost.
const INSERT_COMMIT: &str = "INSERT INTO commits (id) VALUES ($1) ON CONFLICT DO NOTHING";

fn gone() -> EngineError {
    EngineError::new(Cause::Connection, "the connection to the database is lost")
}

impl Session for PostgresSession {
    fn run(&self, statement: &str, values: &[Value<'_>]) -> Result<usize> {
        let rows = self.with(statement, &async |client, statement| statement.execute(client, values).await)?;
        Ok(usize::try_from(rows).unwrap_or(usize::MAX))
    }

    fn query(
        &self,
        statement: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<Next>,
    ) -> Result<()> {
        let rows = self.with(statement, &async |client, statement| statement.query(client, values).await)?;
        for row in &rows {
            if let Next::Enough = each(&Row::of(row))? {
                break;
            }
        }
        Ok(())
    }

    fn begin(&self) -> Result<()> {
        self.begin_with("BEGIN")
    }

    fn begin_snapshot(&self) -> Result<()> {
        self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    }

    fn mark(&self) -> Result<()> {
        self.leads.borrow_mut().push("SAVEPOINT job");
        Ok(())
    }

    /// Sent at once: after a failed statement, the server accepts no other one before the rollback.
    fn back_to_mark(&self) -> Result<()> {
        // The server releases the locks that were taken since the savepoint.
        self.held.borrow_mut().clear();
        self.leads.borrow_mut().clear();
        self.batch("ROLLBACK TO SAVEPOINT job")
    }

    fn is_statement_atomic(&self) -> bool {
        false
    }

    fn release_mark(&self) -> Result<()> {
        self.leads.borrow_mut().push("RELEASE SAVEPOINT job");
        Ok(())
    }

    fn commit(&self) -> std::result::Result<(), Uncommitted> {
        if self.transaction.get() == Transaction::Fresh {
            // Nothing was run in it.
            self.leads.borrow_mut().clear();
            self.transaction.set(Transaction::None);
            return Ok(());
        }
        let id = format!("{:032x}", rand::random::<u128>());
        let epoch = self.epoch().map_err(|error| Uncommitted::finally(error.not_applied()))?;
        let values = [(&id).into(), epoch.as_str().into()];
        let committed = self.with(MARK_COMMIT, &async |client, statement| {
            let (marked, committed) = tokio::join!(statement.execute(client, &values), client.batch_execute("COMMIT"));
            // In a failed transaction, the mark fails too, and COMMIT rolls back.
            marked.and(committed)
        });
        self.held.borrow_mut().clear();
        self.transaction.set(Transaction::None);
        match committed {
            Ok(()) => Ok(()),
            Err(error) if *error.cause() == Cause::Connection => self.resolve(&id, error),
            Err(error) if *error.cause() == Cause::Fenced => {
                // The follower registers again.
                if let Some(membership) = &self.membership {
                    membership.lost(&epoch);
                }
                Err(Uncommitted::finally(lease_lost().not_applied()))
            }
            Err(error) => Err(Uncommitted { may_retry: *error.cause() == Cause::Busy, error: error.not_applied() }),
        }
    }

    fn roll_back(&self) -> Result<()> {
        self.leads.borrow_mut().clear();
        self.held.borrow_mut().clear();
        if self.transaction.replace(Transaction::None) != Transaction::Used || self.link.borrow().is_none() {
            return Ok(());
        }
        let rolled_back = self.batch("ROLLBACK");
        if rolled_back.is_err() {
            // When the connection is closed, the server rolls back the transaction.
            *self.link.borrow_mut() = None;
        }
        Ok(())
    }

    fn lock(&self, rule: Rule) -> Result<()> {
        self.take(rule, "SELECT 1 FROM locks WHERE name = $1 FOR UPDATE")
    }

    fn lock_shared(&self, rule: Rule) -> Result<()> {
        self.take(rule, "SELECT 1 FROM locks WHERE name = $1 FOR SHARE")
    }

    fn standing(&self) -> NodeStanding {
        self.membership.as_ref().map_or_else(NodeStanding::alone, |membership| membership.standing())
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }

    fn may_retry(&self, error: &EngineError) -> bool {
        matches!(error.cause(), Cause::Busy | Cause::Connection)
    }

    #[cfg(test)]
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        type_: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            // If a placeholder is combined with literals only, the server infers a smaller integer type.
            Self::Integer(number) if *type_ == Type::INT4 => i32::try_from(*number)?.to_sql(type_, out),
            Self::Integer(number) if *type_ == Type::INT8 => number.to_sql(type_, out),
            // PostgreSQL strings can't contain NUL, which a host can put into a name. Ids and keys never contain one,
            // so that no look-up matches a wrong row.
            Self::Text(text) if <&str as ToSql>::accepts(type_) => match text.contains('\0') {
                false => text.as_ref().to_sql(type_, out),
                true => text.replace('\0', "\u{fffd}").as_str().to_sql(type_, out),
            },
            Self::Bytes(bytes) if *type_ == Type::BYTEA => bytes.to_sql(type_, out),
            other => Err(format!("cannot convert {other:?} to a column of type {type_}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        type_: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.to_sql(type_, out)
    }
}

impl Cells for tokio_postgres::Row {
    fn value(&self, column: usize) -> Result<Value<'_>> {
        let Some(found) = self.columns().get(column) else {
            return Err(EngineError::row(format!("there is no column {column}")));
        };
        let value = match *found.type_() {
            Type::INT8 => self.try_get::<_, Option<i64>>(column)?.map(Value::Integer),
            Type::INT4 => self.try_get::<_, Option<i32>>(column)?.map(|number| Value::Integer(number.into())),
            Type::BYTEA => self.try_get::<_, Option<&[u8]>>(column)?.map(Value::Bytes),
            _ => self.try_get::<_, Option<&str>>(column)?.map(|text| Value::Text(Cow::Borrowed(text))),
        };
        Ok(value.unwrap_or(Value::Null))
    }

    fn name(&self, column: usize) -> String {
        self.columns().get(column).map_or("?", tokio_postgres::Column::name).to_owned()
    }
}
