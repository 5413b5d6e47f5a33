//! Transactions that contain many jobs. Each job is applied as a whole or not at all, and all of them are on disk at
//! the same time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::apply::{self, Done};
use super::audit::Chain;
use super::damage::Damage;
use super::error::{Cause, EngineError, Failure};
use super::log;
use super::recent::{Batch, Recent};
use super::session::{Connection, Uncommitted};
use crate::port::{ActionWrite, AgentWrite, StoreError, Write};
use muster_core::change::Change;
use muster_core::error_chain::chain;

/// A job's own code. It runs inside a savepoint.
pub(crate) type Task = Box<dyn Fn(&Connection) -> Result<Done, Failure> + Send>;

/// The work of a job. It can run again if its transaction was rolled back.
pub(crate) enum Work {
    /// A list of writes.
    Writes(Vec<Write>),
    /// Anything else that writes.
    Task(Task),
    /// Seals the other nodes' chains of the audit log.
    Seal,
}

/// Place of a job in a transaction of several: first those that change agents only, by agent, then those that lock rows for many
/// agents, like an enrollment key. If the nodes took these locks in different orders, their transactions would wait for each other.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place<'w> {
    /// Changes rows of this agent, at least.
    Agent(&'w str),
    /// Locks something else.
    Other,
}

impl Work {
    pub(crate) fn place(&self) -> Place<'_> {
        let Self::Writes(writes) = self else { return Place::Other };
        let mut place = Place::Other;
        for write in writes {
            match write {
                Write::Agent(write) => match agent_of(write) {
                    Some(agent) if place == Place::Other => place = Place::Agent(agent),
                    Some(_) => {}
                    None => return Place::Other,
                },
                Write::Action(ActionWrite::Result { .. } | ActionWrite::EndTarget { .. })
                | Write::Fenced(_)
                | Write::Changed(_)
                | Write::Audit(_) => {}
                _ => return Place::Other,
            }
        }
        place
    }
}

/// Returns the first agent whose rows a write changes; `None` if it locks other rows too.
fn agent_of(write: &AgentWrite) -> Option<&str> {
    match write {
        AgentWrite::Update { before, .. } => Some(before.id.as_str()),
        AgentWrite::Unchanged { id, .. }
        | AgentWrite::Documents { id, .. }
        | AgentWrite::EndActions { id, .. }
        | AgentWrite::BeginLife { id, .. } => Some(id.as_str()),
        AgentWrite::Seen { seen } => seen.first().map(|(id, _)| id.as_str()),
        AgentWrite::Insert { .. }
        | AgentWrite::PutHost(_)
        | AgentWrite::Delete { .. }
        | AgentWrite::CredentialsUsed { .. } => None,
    }
}

/// Reason why a transaction failed. Nothing was applied, unless its error says that this is unknown.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The job with this index caused the failure. The others may succeed without it.
    ByJob(usize, StoreError),
    /// A conflict with another transaction, or a lost connection. A retry may succeed.
    ForNow(StoreError),
    /// The transaction could not begin or commit.
    Whole(StoreError),
}

/// The results of all jobs, and the newest row of the change log if there is a new one.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) answers: Vec<Result<Done, StoreError>>,
    pub(crate) newest_change: Option<i64>,
}

/// Runs all jobs in one transaction and commits it.
pub(crate) fn attempt<'w>(
    connection: &Connection,
    recent: &mut Recent,
    chain: &mut Chain,
    damage: &Damage,
    jobs: impl Iterator<Item = &'w Work>,
) -> Result<Outcome, Broken> {
    let outcome = run(connection, recent, chain, damage, jobs);
    if outcome.is_err() {
        // The hashes in memory may be those of events that were not committed.
        chain.forget();
    }
    outcome
}

/// Changes of jobs other than rows, which take effect with the commit.
pub(crate) struct Pending<'t> {
    pub(crate) recent: Batch<'t>,
    pub(crate) chain: &'t mut Chain,
    /// Written last: their numbers come from a row that stays locked until the commit, and a transaction that waits for a row of
    /// another node's transaction must not hold a lock that this one waits for.
    pub(crate) changes: Vec<Change>,
}

fn run<'w>(
    connection: &Connection,
    recent: &mut Recent,
    chain: &mut Chain,
    damage: &Damage,
    jobs: impl Iterator<Item = &'w Work>,
) -> Result<Outcome, Broken> {
    let not_applied = |error: EngineError| {
        damage.note(&error);
        error.not_applied()
    };
    connection.begin().map_err(|error| Broken::Whole(not_applied(error)))?;
    let mut outcome = Outcome::default();
    let mut pending = Pending { recent: recent.batch(), chain, changes: Vec::new() };
    for (index, work) in jobs.enumerate() {
        match isolated(connection, &mut pending, work) {
            Ok(done) => {
                outcome.answers.push(Ok(done));
            }
            Err(Failure::Refused(precondition)) => outcome.answers.push(Err(StoreError::Conflict(precondition))),
            Err(Failure::Engine(error)) => {
                give_up(connection);
                if connection.may_retry(&error) {
                    return Err(Broken::ForNow(not_applied(error)));
                }
                // The cause is not a single job, so leaving one out would not help.
                if error.is_of_the_engine() {
                    return Err(Broken::Whole(not_applied(error)));
                }
                return Err(Broken::ByJob(index, not_applied(error)));
            }
        }
    }
    let broken = |error: EngineError| {
        give_up(connection);
        if connection.may_retry(&error) {
            Broken::ForNow(not_applied(error))
        } else {
            Broken::Whole(not_applied(error))
        }
    };
    let pages = pending.recent.into_pages();
    recent.write(connection, &pages).map_err(broken)?;
    for change in &pending.changes {
        outcome.newest_change = Some(log::append_change(connection, change).map_err(broken)?);
    }
    commit(connection)?;
    // Only after the commit: readers would otherwise see components that are not on disk.
    recent.written(pages);
    Ok(outcome)
}

fn commit(connection: &Connection) -> Result<(), Broken> {
    connection.commit().map_err(|Uncommitted { error, may_retry }| {
        give_up(connection);
        if may_retry { Broken::ForNow(error) } else { Broken::Whole(error) }
    })
}

/// Rolls back, unless the engine has done so by itself.
fn give_up(connection: &Connection) {
    if let Err(error) = connection.roll_back() {
        tracing::error!(error = %chain(&error), "failed to roll back a transaction; retrying before the next one");
    }
}

/// Runs a job in isolation: if its precondition fails, exactly this job is rolled back, and a panic does not leave this
/// function.
fn isolated(connection: &Connection, pending: &mut Pending<'_>, work: &Work) -> Result<Done, Failure> {
    let mark = (pending.recent.mark(), pending.chain.mark(), pending.changes.len());
    let guarded = AssertUnwindSafe(|| match work {
        Work::Writes(writes) if connection.is_statement_atomic() && apply::is_one_statement(writes) => {
            apply::writes(connection, pending, writes)
        }
        Work::Writes(writes) => in_savepoint(connection, || apply::writes(connection, pending, writes)),
        Work::Task(task) => in_savepoint(connection, || task(connection)),
        Work::Seal => in_savepoint(connection, || Ok(pending.chain.seal(connection).map(|()| Done::default())?)),
    });
    // Unwind safety: whatever the job left behind in the connection is rolled back with the transaction.
    let result = catch_unwind(guarded).unwrap_or_else(|_| {
        tracing::error!("a write job panicked and was not applied");
        Err(Failure::Engine(EngineError::new(Cause::Panic, "a job panicked")))
    });
    if result.is_err() {
        pending.recent.back_to(mark.0);
        pending.chain.back_to(mark.1);
        pending.changes.truncate(mark.2);
    }
    result
}

fn in_savepoint(connection: &Connection, job: impl FnOnce() -> Result<Done, Failure>) -> Result<Done, Failure> {
    connection.mark()?;
    let result = job();
    match &result {
        Ok(_) => {}
        Err(Failure::Refused(_)) => {
            connection.back_to_mark()?;
        }
        // The whole transaction is rolled back.
        Err(Failure::Engine(_)) => return result,
    }
    connection.release_mark()?;
    result
}
