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
use crate::engine::session::{Cells, Leases, Next, Result, Row, Rule, Session, Value};
use crate::port::{NodeEpoch, NodeStanding, StoreError};
use muster_core::error_chain::chain;

/// Prepared statements that a connection keeps: more than there are fixed ones. Composed ones beyond it are prepared anew.
const PREPARED: usize = 512;
/// How long a statement may take before its connection is given up: longer than the server's own limit.
const STATEMENT: Duration = Duration::from_secs(45);
/// What the server is told for each connection: limits for statements, for waiting for a row, and for a transaction whose
/// server stopped in the middle of it, so that it does not hold its locks for ever.
const SETTINGS: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = '5s'; SET synchronous_commit = on";
/// Waits between attempts to learn the outcome of a commit whose answer was lost.
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
    /// Statements without a result that wait for the next one.
    leads: RefCell<Vec<&'static str>>,
    transaction: Cell<Transaction>,
    /// The node that this session belongs to. `None`: it commits only unfenced.
    membership: Option<Arc<Membership>>,
    /// Locks of the transaction, by the statement that took them.
    held: RefCell<Vec<(Rule, &'static str)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transaction {
    None,
    /// Begun, and nothing was run in it yet.
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

    /// Connects, unless there is a connection that works.
    fn connect(&self) -> Result<()> {
        if self.link.borrow().as_ref().is_some_and(|link| !link.client.is_closed()) {
            return Ok(());
        }
        *self.link.borrow_mut() = None;
        let address = Arc::clone(&self.address);
        let client = self.wait(async move {
            let client = address.connect().await?;
            client.batch_execute(SETTINGS).await?;
            Ok(client)
        })?;
        *self.link.borrow_mut() = Some(Link { client, statements: HashMap::new() });
        Ok(())
    }

    /// Waits for the server, but not for ever.
    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| EngineError::new(Cause::Connection, format!("no answer within {} s", STATEMENT.as_secs()));
        self.runtime.block_on(async { tokio::time::timeout(STATEMENT, work).await.map_err(late)? })
    }

    /// A session of a node: from now on, transactions commit only as long as the node holds its lease.
    pub(super) fn of(self, membership: Arc<Membership>) -> Self {
        Self { membership: Some(membership), ..self }
    }

    /// The node's epoch. An error if its lease is lost.
    pub(super) fn epoch(&self) -> Result<NodeEpoch> {
        self.membership.as_ref().and_then(|membership| membership.epoch()).ok_or_else(lease_lost)
    }

    /// Commits a transaction of the schema or of the registration itself.
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

    /// Runs `work` with a prepared statement, after what waits to be sent before it.
    ///
    /// When the connection turns out to be lost and nothing had been done on it, it is made anew, once.
    fn with<T>(
        &self,
        text: &str,
        work: &impl AsyncFn(&Client, &Statement) -> std::result::Result<T, tokio_postgres::Error>,
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
        work: &impl AsyncFn(&Client, &Statement) -> std::result::Result<T, tokio_postgres::Error>,
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
            // Both are sent before the first answer is read.
            let (led, done) = tokio::join!(client.batch_execute(&leads), work(client, &statement));
            led?;
            Ok(done?)
        })
    }

    /// A prepared statement. Preparing needs no transaction, so it may come before what leads.
    fn statement(&self, text: &str) -> Result<Statement> {
        let mut link = self.link.borrow_mut();
        let link = link.as_mut().ok_or_else(gone)?;
        if let Some(statement) = link.statements.get(text) {
            return Ok(statement.clone());
        }
        let client = &link.client;
        let statement = self.wait(async { Ok(client.prepare(&dialect::statement(text)).await?) })?;
        if link.statements.len() >= PREPARED {
            link.statements.clear();
        }
        link.statements.insert(text.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Takes a lock, unless this transaction took it before.
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

    /// Learns whether a transaction was committed whose answer was lost. A transaction that is still going on is waited for.
    fn resolve(&self, id: &str, lost: EngineError) -> std::result::Result<(), StoreError> {
        for pause in RESOLVE {
            std::thread::sleep(pause);
            *self.link.borrow_mut() = None;
            // Whoever inserts the id first decides: the lost transaction, or this statement, after which it can't commit any more.
            match self.with(INSERT_COMMIT, &async |client, statement| client.execute(statement, &[&id]).await) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(StoreError::unavailable(lost)),
                Err(error) => tracing::warn!(error = %chain(&error), "the outcome of a commit is not known yet"),
            }
        }
        Err(StoreError::Unknown { source: lost.into() })
    }
}

/// Marks a transaction as committed, if the lease still stands: the row stays locked until the commit, so that whoever takes the
/// lease waits for it. Without the lease the id is NULL, which the table refuses, and the transaction fails.
const MARK_COMMIT: &str = "INSERT INTO commits (id) VALUES \
    (CASE WHEN EXISTS (SELECT 1 FROM nodes WHERE epoch = $2 FOR SHARE) THEN CAST($1 AS TEXT) END)";
/// Decides a commit whose answer was lost.
const INSERT_COMMIT: &str = "INSERT INTO commits (id) VALUES ($1) ON CONFLICT DO NOTHING";

fn gone() -> EngineError {
    EngineError::new(Cause::Connection, "the connection to the database is lost")
}

impl Session for PostgresSession {
    fn run(&self, statement: &str, values: &[Value<'_>]) -> Result<usize> {
        let bound: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let rows = self.with(statement, &async |client, statement| client.execute(statement, &bound).await)?;
        Ok(usize::try_from(rows).unwrap_or(usize::MAX))
    }

    fn query(
        &self,
        statement: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<Next>,
    ) -> Result<()> {
        let bound: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        let rows = self.with(statement, &async |client, statement| client.query(statement, &bound).await)?;
        for row in &rows {
            if let Next::Enough = each(&Row::of(row))? {
                break;
            }
        }
        Ok(())
    }

    fn begin(&self) -> Result<()> {
        self.roll_back()?;
        self.leads.borrow_mut().push("BEGIN");
        self.transaction.set(Transaction::Fresh);
        Ok(())
    }

    fn begin_snapshot(&self) -> Result<()> {
        self.roll_back()?;
        self.leads.borrow_mut().push("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        self.transaction.set(Transaction::Fresh);
        Ok(())
    }

    fn mark(&self) -> Result<()> {
        self.leads.borrow_mut().push("SAVEPOINT job");
        Ok(())
    }

    /// At once: until then, the server takes no other statement if one of the job has failed.
    fn back_to_mark(&self) -> Result<()> {
        // Locks that were taken since are let go.
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

    fn commit(&self) -> std::result::Result<(), StoreError> {
        if self.transaction.get() == Transaction::Fresh {
            // Nothing was run in it.
            self.leads.borrow_mut().clear();
            self.transaction.set(Transaction::None);
            return Ok(());
        }
        let id = format!("{:032x}", rand::random::<u128>());
        let epoch = self.epoch().map_err(EngineError::not_applied)?;
        let committed = self.with(MARK_COMMIT, &async |client, statement| {
            let bound: [&(dyn ToSql + Sync); 2] = [&id, &epoch.as_str()];
            let (marked, committed) = tokio::join!(client.execute(statement, &bound), client.batch_execute("COMMIT"));
            // Of a transaction that had failed the mark fails too, and COMMIT rolls back.
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
                Err(lease_lost().not_applied())
            }
            Err(error) => Err(error.not_applied()),
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
            // With the connection, the server drops the transaction.
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
            // Where only literals stand beside a placeholder, the server takes it for a smaller integer.
            Self::Integer(number) if *type_ == Type::INT4 => i32::try_from(*number)?.to_sql(type_, out),
            Self::Integer(number) if *type_ == Type::INT8 => number.to_sql(type_, out),
            // PostgreSQL's text can't hold NUL, which a host may well put into a name. Ids and keys never have one, so that
            // no look-up finds what it should not.
            Self::Text(text) if <&str as ToSql>::accepts(type_) => match text.contains('\0') {
                false => text.as_ref().to_sql(type_, out),
                true => text.replace('\0', "\u{fffd}").as_str().to_sql(type_, out),
            },
            Self::Bytes(bytes) if *type_ == Type::BYTEA => bytes.to_sql(type_, out),
            other => Err(format!("a column of type {type_} can't take {other:?}").into()),
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
