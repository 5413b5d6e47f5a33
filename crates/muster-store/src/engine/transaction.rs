//! Transactions that contain many jobs. Each job is applied as a whole or not at all, and all of them are on disk at
//! the same time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::agent_counts::Tally;
use super::alerts::Events;
use super::apply::{self, Done};
use super::audit::Chain;
use super::damage::Damage;
use super::error::{Cause, EngineError, Failure};
use super::log::Changes;
use super::recent::{Batch, Recent};
use super::session::{Connection, Pace, Uncommitted};
use crate::port::{ActionWrite, AgentWrite, HostRunWrite, LiveQueryWrite, Precondition, StoreError, Write};
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
    /// Changes the counts of this live query.
    LiveQuery(&'w str),
    /// Changes the counts of this run on hosts.
    HostRun(&'w str),
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
                    // The first agent decides; most jobs change only one.
                    Some(agent) if place == Place::Other => place = Place::Agent(agent),
                    Some(_) => {}
                    None => return Place::Other,
                },
                // Each answer locks the row of its live query, so answers of one live query stay together, behind the
                // agents.
                Write::LiveQuery(LiveQueryWrite::Answer { query, .. }) => return Place::LiveQuery(query.as_str()),
                Write::ScriptRun(HostRunWrite::Result { run, .. })
                | Write::InstallRun(HostRunWrite::Result { run, .. }) => {
                    return Place::HostRun(run.as_str());
                }
                Write::Action(ActionWrite::Result { .. } | ActionWrite::EndTarget { .. })
                | Write::Fenced(_)
                | Write::Changed(_)
                | Write::Deleted(..)
                | Write::Event(_)
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
        | AgentWrite::Reinstalled { id, .. }
        | AgentWrite::BeginLife { id, .. } => Some(id.as_str()),
        AgentWrite::Seen { seen } => seen.first().map(|(id, _)| id.as_str()),
        AgentWrite::Insert { .. }
        | AgentWrite::InSpace { .. }
        | AgentWrite::BoundAlike { .. }
        | AgentWrite::PutHost(_)
        | AgentWrite::SetSystem { .. }
        | AgentWrite::Delete { .. }
        | AgentWrite::CredentialsUsed { .. } => None,
    }
}

/// Reason why a transaction failed. Nothing was applied, unless its error says that this is unknown.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The job with this index caused the failure. The others may succeed without it.
    ByJob(usize, StoreError),
    /// A change of the job with this index, which ran ahead, had an unusual result. The transaction may succeed if this job
    /// runs step by step.
    ByHaste(usize),
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

/// The jobs of a transaction, with their paces.
pub(crate) struct Jobs<'w> {
    pub(crate) work: Vec<&'w Work>,
    /// Jobs that run step by step, on an engine that can run ahead.
    pub(crate) careful: &'w Careful,
}

/// The jobs that run step by step.
#[derive(Debug, Default)]
pub(crate) struct Careful {
    jobs: Vec<usize>,
}

/// Number of jobs that are retried step by step before all are: each attempt runs the whole transaction again.
const HASTY: usize = 3;

impl Careful {
    /// Adds a job.
    pub(crate) fn add(&mut self, job: usize) {
        self.jobs.push(job);
    }

    fn pace(&self, job: usize) -> Pace {
        if self.jobs.len() > HASTY || self.jobs.contains(&job) { Pace::StepByStep } else { Pace::Ahead(job) }
    }
}

/// Runs all jobs in one transaction and commits it.
pub(crate) fn attempt(
    connection: &Connection,
    recent: &mut Recent,
    chain: &mut Chain,
    damage: &Damage,
    jobs: &Jobs<'_>,
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
    pub(crate) changes: Changes,
    pub(crate) events: Events,
    pub(crate) tally: Tally,
}

fn run(
    connection: &Connection,
    recent: &mut Recent,
    chain: &mut Chain,
    damage: &Damage,
    jobs: &Jobs<'_>,
) -> Result<Outcome, Broken> {
    // Also fails if the disk is full or the connection is lost, which no job can be blamed for.
    connection.begin().map_err(|error| Broken::Whole(not_applied(damage, error)))?;
    let mut outcome = Outcome::default();
    let mut pending = Pending {
        recent: recent.batch(),
        chain,
        changes: Changes::default(),
        events: Events::default(),
        tally: Tally::default(),
    };
    // For each job that has changes, the number of changes up to its last one.
    let mut changes_until = vec![None; jobs.work.len()];
    for (index, work) in jobs.work.iter().enumerate() {
        let before = pending.changes.mark();
        match isolated(connection, &mut pending, jobs.careful.pace(index), work) {
            Ok(done) => {
                let after = pending.changes.mark();
                changes_until[index] = (after > before).then_some(after);
                outcome.answers.push(Ok(done));
            }
            Err(Stopped::Refused(precondition)) => outcome.answers.push(Err(StoreError::Conflict(precondition))),
            Err(Stopped::Hasty) => {
                give_up(connection);
                return Err(Broken::ByHaste(index));
            }
            Err(Stopped::Engine(error)) => return Err(broken(connection, damage, Some(index), error)),
        }
    }
    let Pending { recent: batch, changes, events, tally, .. } = pending;
    let (pages, changed) = (batch.into_pages(), changes.mark());
    // The change log comes last. On PostgreSQL, its counter stays locked until the commit, and the other servers wait
    // for it.
    let last = recent
        .write(connection, &pages)
        .and_then(|()| tally.write(connection))
        .and_then(|()| events.append(connection))
        .and_then(|()| changes.append(connection));
    outcome.newest_change = last.map_err(|error| broken(connection, damage, None, error))?;
    for (answer, until) in outcome.answers.iter_mut().zip(changes_until) {
        if let (Ok(done), Some(until)) = (answer, until) {
            done.committed.last_change =
                outcome.newest_change.map(|newest| newest - i64::try_from(changed - until).unwrap_or(0));
        }
    }
    commit(connection)?;
    // Only after the commit: readers would otherwise see components that are not on disk.
    recent.written(pages);
    Ok(outcome)
}

fn not_applied(damage: &Damage, error: EngineError) -> StoreError {
    damage.note(&error);
    error.not_applied()
}

/// Rolls back after an error, and returns whose it is.
fn broken(connection: &Connection, damage: &Damage, job: Option<usize>, error: EngineError) -> Broken {
    let suspect = connection.suspect();
    give_up(connection);
    // Before the question of whose fault it is: the victim of a deadlock has done nothing wrong.
    if connection.may_retry(&error) {
        return Broken::ForNow(not_applied(damage, error));
    }
    // The cause is not a single job, so leaving one out would not help.
    if error.is_of_the_engine() {
        return Broken::Whole(not_applied(damage, error));
    }
    // The engine's error belongs to an earlier job than the one that was running when it arrived.
    match (suspect, job) {
        (Some(suspect), _) => Broken::ByHaste(suspect),
        (None, Some(job)) => Broken::ByJob(job, not_applied(damage, error)),
        (None, None) => Broken::Whole(not_applied(damage, error)),
    }
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

/// Reason why a job of a transaction was not applied.
enum Stopped {
    /// Its precondition failed, and it was rolled back.
    Refused(Precondition),
    /// The same, but it ran ahead, so that only the whole transaction can be rolled back.
    Hasty,
    /// The whole transaction must be rolled back.
    Engine(EngineError),
}

/// Runs a job in isolation: if its precondition fails, exactly this job is rolled back, and a panic does not leave this
/// function.
fn isolated(connection: &Connection, pending: &mut Pending<'_>, pace: Pace, work: &Work) -> Result<Done, Stopped> {
    // A savepoint covers only rows. What a job leaves in memory is taken back by hand, to these marks.
    let mark = (pending.recent.mark(), pending.chain.mark(), pending.changes.mark(), pending.events.mark());
    let counted = pending.tally.mark();
    let is_ahead = connection.set_pace(pace).map_err(Stopped::Engine)? != Pace::StepByStep;
    let guarded = AssertUnwindSafe(|| match work {
        // A savepoint is two more statements. The most frequent jobs consist of one statement, which is atomic
        // anyway.
        Work::Writes(writes) if connection.is_statement_atomic() && apply::is_one_statement(writes) => {
            apply::writes(connection, pending, writes)
        }
        // A job that runs ahead has no savepoint: its changes may not even be sent when it ends.
        work if is_ahead => run_work(connection, pending, work),
        work => in_savepoint(connection, || run_work(connection, pending, work)),
    });
    // Unwind safety: whatever the job left behind in the connection is rolled back with the transaction.
    let result = catch_unwind(guarded).unwrap_or_else(|_| {
        tracing::error!("a write job panicked and was not applied");
        Err(Failure::Engine(EngineError::new(Cause::Panic, "a job panicked")))
    });
    result.map_err(|failure| {
        pending.recent.back_to(mark.0);
        pending.chain.back_to(mark.1);
        pending.changes.back_to(mark.2);
        pending.events.back_to(mark.3);
        pending.tally.back_to(counted);
        match failure {
            // The refusal is based on a guessed result; only a run step by step can tell whether it is right.
            Failure::Refused(_) if is_ahead => Stopped::Hasty,
            Failure::Refused(precondition) => Stopped::Refused(precondition),
            Failure::Engine(error) => Stopped::Engine(error),
        }
    })
}

fn run_work(connection: &Connection, pending: &mut Pending<'_>, work: &Work) -> Result<Done, Failure> {
    match work {
        Work::Writes(writes) => apply::writes(connection, pending, writes),
        Work::Task(task) => task(connection),
        Work::Seal => Ok(pending.chain.seal(connection).map(|()| Done::default())?),
    }
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
    // Also after a rollback to it: the engine keeps the savepoint until it is released.
    connection.release_mark()?;
    result
}
