//! Many jobs in one transaction: each whole or not at all, all of them on disk together.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::apply::{self, Done};
use super::audit::Chain;
use super::damage::Damage;
use super::error::{Cause, EngineError, Failure};
use super::recent::{Batch, Recent};
use super::session::{Connection, Uncommitted};
use crate::port::{StoreError, Write};
use muster_core::error_chain::chain;

/// A job's own code. It runs inside a savepoint.
pub(crate) type Task = Box<dyn Fn(&Connection) -> Result<Done, Failure> + Send>;

/// What a job does. It may be run again when the transaction around it was given up.
pub(crate) enum Work {
    /// A list of writes.
    Writes(Vec<Write>),
    /// Anything else that writes.
    Task(Task),
    /// Seals the other nodes' chains of the audit log.
    Seal,
}

/// Why a transaction was given up. Nothing of it was applied, unless its error says that this is not known.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The job of that index made it fail; without it, the others may go through.
    ByJob(usize, StoreError),
    /// Another transaction or a lost connection was in the way: it may succeed when it is tried again.
    ForNow(StoreError),
    /// It could not begin or commit.
    Whole(StoreError),
}

/// Each job's answer, and the newest row of the change log if there is a new one.
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
        chain.forget();
    }
    outcome
}

/// What jobs add to beside the rows that they write, until the commit.
pub(crate) struct Pending<'t> {
    pub(crate) recent: Batch<'t>,
    pub(crate) chain: &'t mut Chain,
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
    let mut pending = Pending { recent: recent.batch(), chain };
    for (index, work) in jobs.enumerate() {
        match isolated(connection, &mut pending, work) {
            Ok(done) => {
                outcome.newest_change = outcome.newest_change.max(done.newest_change);
                outcome.answers.push(Ok(done));
            }
            Err(Failure::Refused(precondition)) => outcome.answers.push(Err(StoreError::Conflict(precondition))),
            Err(Failure::Engine(error)) => {
                give_up(connection);
                if connection.may_retry(&error) {
                    return Err(Broken::ForNow(not_applied(error)));
                }
                if error.is_of_the_engine() {
                    return Err(Broken::Whole(not_applied(error)));
                }
                return Err(Broken::ByJob(index, not_applied(error)));
            }
        }
    }
    let pages = pending.recent.into_pages();
    recent.write(connection, &pages).map_err(|error| {
        give_up(connection);
        Broken::Whole(not_applied(error))
    })?;
    commit(connection)?;
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

/// Runs a job so that a refusal takes back all of it and nothing else, and a panic stays inside.
fn isolated(connection: &Connection, pending: &mut Pending<'_>, work: &Work) -> Result<Done, Failure> {
    let mark = (pending.recent.mark(), pending.chain.mark());
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
        // The whole transaction goes.
        Err(Failure::Engine(_)) => return result,
    }
    connection.release_mark()?;
    result
}
