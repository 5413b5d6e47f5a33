//! A connection to PostgreSQL as a session.
//!
//! A session drives its connection on a runtime of its own, in the thread that uses it. Statements without a result (`BEGIN`,
//! savepoints) are sent together with the next one, so that they cost no round trip. Neither do the changes of jobs that run
//! ahead: they are sent with the next query, or at the end of the transaction, and their results are compared with the usual ones
//! before the commit is sent.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Statement};

use super::address::Address;
use super::dialect;
use super::leases::lease_lost;
use super::statement::{Deferred, Prepared, send};
use crate::engine::error::{Cause, EngineError, OpenError};
use crate::engine::membership::Membership;
use crate::engine::session::{Leases, Next, Pace, Result, Row, Rule, Session, Uncommitted, Usual, Value};
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
/// Maximum number of changes that wait to be sent.
const DEFERRED: usize = 4096;
/// Maximum size of the values of changes that wait to be sent, bytes.
const DEFERRED_BYTES: usize = 4 * 1024 * 1024;
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
    unsent: RefCell<Unsent>,
    /// The job whose changes are deferred.
    ahead: Cell<Option<usize>>,
    suspect: Cell<Option<usize>>,
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

/// What is sent before the next statement.
#[derive(Default)]
struct Unsent {
    /// Statements without a result, which come first.
    leads: Vec<&'static str>,
    changes: Vec<Deferred>,
    /// Size of the values of the changes.
    bytes: usize,
}

struct Link {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl PostgresSession {
    /// Connects.
    pub(super) fn open(address: Arc<Address>) -> std::result::Result<Self, OpenError> {
        // A runtime of the calling thread: a statement then costs no switch to another thread.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OpenError::io("start the runtime of a database connection"))?;
        let session = Self {
            runtime,
            address,
            link: RefCell::new(None),
            unsent: RefCell::default(),
            ahead: Cell::default(),
            suspect: Cell::default(),
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
        // Counts as a lost connection, which is replaced before the next transaction.
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
        self.end();
        committed
    }

    /// Runs a batch of statements, each without values.
    pub(super) fn batch(&self, text: &str) -> Result<()> {
        self.connect()?;
        let link = self.link.borrow();
        let client = &link.as_ref().ok_or_else(gone)?.client;
        self.wait(async { Ok(client.batch_execute(text).await?) })
    }

    /// Forgets everything about the transaction, which has ended.
    fn end(&self) -> Transaction {
        self.unsent.take();
        self.ahead.set(None);
        self.held.borrow_mut().clear();
        self.transaction.replace(Transaction::None)
    }

    /// Runs `work` with a prepared statement, after the statements that wait to be sent before it.
    ///
    /// If the connection was lost and nothing had been done on it, connects again, once.
    fn with<T>(
        &self,
        text: &str,
        work: &impl AsyncFn(&Client, &Prepared) -> std::result::Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        // Taken out before the attempt: if it fails, they must not be sent a second time by another statement.
        let unsent = self.unsent.take();
        let first = self.attempt(text, &unsent, work);
        let lost = matches!(&first, Err(error) if *error.cause() == Cause::Connection);
        // Deferred changes were prepared on the lost connection.
        // Once a statement ran in the transaction, a new connection would continue without it.
        let answer = if lost && self.transaction.get() != Transaction::Used && unsent.changes.is_empty() {
            *self.link.borrow_mut() = None;
            self.attempt(text, &unsent, work)
        } else {
            first
        };
        self.used(answer)
    }

    /// Notes that something was run in the transaction, and abandons the connection if it was lost.
    fn used<T>(&self, answer: Result<T>) -> Result<T> {
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
        unsent: &Unsent,
        work: &impl AsyncFn(&Client, &Prepared) -> std::result::Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        // Only where nothing depends on the old connection; deferred changes were prepared on it.
        if self.transaction.get() != Transaction::Used && unsent.changes.is_empty() {
            self.connect()?;
        }
        let statement = self.statement(text)?;
        let link = self.link.borrow();
        let client = &link.as_ref().ok_or_else(gone)?.client;
        self.exchange(client, unsent, work(client, &statement))
    }

    /// Sends everything before the first reply is read, and waits for all replies.
    fn exchange<T>(
        &self,
        client: &Client,
        unsent: &Unsent,
        work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        let leads = unsent.leads.join(";");
        let lead = async { if leads.is_empty() { Ok(()) } else { client.batch_execute(&leads).await } };
        // Joined, not one after another: all are written before the first reply is awaited, which is one round trip.
        self.wait(async {
            let (led, changed, done) = tokio::join!(lead, send(client, &unsent.changes), work);
            // In the order of sending: after the first failure, the server rejects all others, and only that one
            // tells the reason.
            led?;
            for (change, rows) in unsent.changes.iter().zip(changed) {
                // The job whose result was unusual, which need not be the one that is running now.
                change.check(rows).inspect_err(|_| self.suspect.set(Some(change.job)))?;
            }
            Ok(done?)
        })
    }

    /// Keeps a change to be sent with the next statement.
    fn defer(&self, text: &str, values: &[Value<'_>], usual: Usual, job: usize) -> Result<()> {
        let is_first = self.unsent.borrow().changes.is_empty();
        if is_first && self.transaction.get() != Transaction::Used {
            self.connect()?;
        }
        let change = Deferred::new(self.statement(text)?, values, usual, job)?;
        let mut unsent = self.unsent.borrow_mut();
        unsent.bytes += change.len();
        unsent.changes.push(change);
        // Limits the memory of a transaction with many changes.
        let is_enough = unsent.changes.len() >= DEFERRED || unsent.bytes >= DEFERRED_BYTES;
        drop(unsent);
        if is_enough { self.settle() } else { Ok(()) }
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
        // Costs a round trip, but only once for each statement and connection.
        let statement = self.wait(async { Ok(client.prepare(&dialect::statement(text)).await?) })?;
        // All at once: which of them are still in use is not known, and the fixed ones return with their next use.
        if link.statements.len() >= PREPARED {
            link.statements.clear();
        }
        link.statements.insert(text.to_owned(), statement.clone());
        Ok(Prepared::Named(statement))
    }

    fn begin_with(&self, statement: &'static str) -> Result<()> {
        // A transaction that an error left open would otherwise contain the next one.
        self.roll_back()?;
        self.suspect.set(None);
        self.lead(statement);
        if !self.address.prepares() {
            self.lead(LOCAL_SETTINGS);
        }
        self.transaction.set(Transaction::Fresh);
        Ok(())
    }

    fn lead(&self, statement: &'static str) {
        self.unsent.borrow_mut().leads.push(statement);
    }

    /// Takes a lock, unless this transaction has it.
    fn take(&self, rule: Rule, statement: &'static str) -> Result<()> {
        let lock = (rule, statement);
        // Kept per transaction: several jobs need the same lock, and each would wait for a round trip.
        if self.held.borrow().contains(&lock) {
            return Ok(());
        }
        let name = match rule {
            Rule::References => "references",
            Rule::Uploads => "uploads",
            Rule::Identity => "identity",
            Rule::Spaces => "spaces",
            Rule::Certificates => "certificates",
            Rule::Software => "software",
            Rule::Runs => "runs",
        };
        // Usually affected, so in a job that runs ahead the lock costs no round trip either.
        self.run_usually(statement, &[name.into()], Usual::Affected)?;
        self.held.borrow_mut().push(lock);
        Ok(())
    }

    /// Determines whether a transaction was committed whose reply was lost. Waits for a transaction that is still in
    /// progress.
    fn resolve(&self, id: &str, lost: EngineError) -> std::result::Result<(), Uncommitted> {
        // The database may be restarting or failing over: the pauses add up to about eight seconds.
        for pause in RESOLVE {
            std::thread::sleep(pause);
            // Never on a connection whose state is unknown.
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

/// Marks a transaction as committed if the lease is still valid. The row of the node stays locked until the commit, so
/// that a node that declares the lease ended waits for it. Without the lease, the id is NULL, which the table rejects,
/// and the transaction fails.
const MARK_COMMIT: &str = "INSERT INTO commits (id) VALUES \
    (CASE WHEN EXISTS (SELECT 1 FROM nodes WHERE epoch = $2 FOR SHARE) THEN CAST($1 AS TEXT) END)";
/// For lists. Indexes are in memory, or on a disk without heads: by default, a page of an index counts as much as four pages of
/// the table, so that the whole table is read instead of a much smaller index. A plan for all values would not know how many agents
/// have a status or a tag.
const OF_LISTS: &str = "SET LOCAL random_page_cost = 1.1; SET LOCAL plan_cache_mode = force_custom_plan";
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

    fn run_usually(&self, statement: &str, values: &[Value<'_>], usual: Usual) -> Result<usize> {
        match self.ahead.get() {
            Some(job) => self.defer(statement, values, usual, job).map(|()| usual.rows()),
            None => self.run(statement, values),
        }
    }

    fn query(
        &self,
        statement: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<Next>,
    ) -> Result<()> {
        // All rows are read first: a callback may run another statement on the same connection.
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
        self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        // Sent along with BEGIN, so that it costs nothing.
        self.lead(OF_LISTS);
        Ok(())
    }

    fn set_pace(&self, pace: Pace) -> Result<Pace> {
        match pace {
            Pace::Ahead(job) => self.ahead.set(Some(job)),
            Pace::StepByStep => {
                self.ahead.set(None);
                // The savepoint that follows must come after the changes of the jobs before it.
                self.settle()?;
            }
        }
        Ok(pace)
    }

    fn settle(&self) -> Result<()> {
        let unsent = self.unsent.take();
        if unsent.changes.is_empty() {
            // They wait for a statement.
            self.unsent.replace(unsent);
            return Ok(());
        }
        let link = self.link.borrow();
        let client = link.as_ref().map(|link| &link.client).ok_or_else(gone);
        let settled = client.and_then(|client| self.exchange(client, &unsent, async { Ok(()) }));
        drop(link);
        self.used(settled)
    }

    fn suspect(&self) -> Option<usize> {
        self.suspect.get()
    }

    fn mark(&self) -> Result<()> {
        self.lead("SAVEPOINT job");
        Ok(())
    }

    /// Sent at once: after a failed statement, the server accepts no other one before the rollback.
    fn back_to_mark(&self) -> Result<()> {
        // The server releases the locks that were taken since the savepoint.
        self.held.borrow_mut().clear();
        // Statements of the failed job that were not sent yet must not be sent any more.
        self.unsent.take();
        self.batch("ROLLBACK TO SAVEPOINT job")
    }

    fn is_statement_atomic(&self) -> bool {
        false
    }

    fn release_mark(&self) -> Result<()> {
        self.lead("RELEASE SAVEPOINT job");
        Ok(())
    }

    fn commit(&self) -> std::result::Result<(), Uncommitted> {
        let refused = |error: EngineError, session: &Self| Uncommitted {
            may_retry: session.may_retry(&error),
            error: error.not_applied(),
        };
        // The results that were assumed are verified before the commit is sent, never after.
        self.settle().map_err(|error| refused(error, self))?;
        if self.transaction.get() == Transaction::Fresh {
            // Nothing was run in it.
            self.end();
            return Ok(());
        }
        let id = format!("{:032x}", rand::random::<u128>());
        // Without a lease, another node may already have taken over: the commit is not even tried.
        let epoch = self.epoch().map_err(|error| Uncommitted::finally(error.not_applied()))?;
        let values = [(&id).into(), epoch.as_str().into()];
        let committed = self.with(MARK_COMMIT, &async |client, statement| {
            // Together, so that a commit costs one round trip.
            let (marked, committed) = tokio::join!(statement.execute(client, &values), client.batch_execute("COMMIT"));
            // In a failed transaction, the mark fails too, and COMMIT rolls back.
            marked.and(committed)
        });
        self.end();
        match committed {
            Ok(()) => Ok(()),
            // The reply was lost, not necessarily the commit: only the row with the id can tell.
            Err(error) if *error.cause() == Cause::Connection => self.resolve(&id, error),
            Err(error) if *error.cause() == Cause::Fenced => {
                // The follower registers again.
                if let Some(membership) = &self.membership {
                    membership.lost(&epoch);
                }
                Err(Uncommitted::finally(lease_lost().not_applied()))
            }
            Err(error) => Err(refused(error, self)),
        }
    }

    fn roll_back(&self) -> Result<()> {
        // A transaction in which nothing ran exists only here.
        if self.end() != Transaction::Used || self.link.borrow().is_none() {
            return Ok(());
        }
        let rolled_back = self.batch("ROLLBACK");
        if rolled_back.is_err() {
            // When the connection is closed, the server rolls back the transaction.
            *self.link.borrow_mut() = None;
        }
        // Never an error: the transaction has ended in any case, and the session stays usable.
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
