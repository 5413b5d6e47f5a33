//! The writer thread: takes jobs, runs all that wait in one transaction, and replies once they are on disk.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::session::{Connection, Session};
use muster_core::error_chain::chain;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::apply::Done;
use super::audit::Chain;
use super::damage::Damage;
use super::error::OpenError;
use super::feed::Feed;
use super::queue::{Budget, Share, closed, full, weight};
use super::recent::Recent;
use super::transaction::{Broken, Careful, Jobs, Work, attempt};
use crate::port::{StoreError, Write};

/// Maximum number of jobs in a transaction.
const BATCH_JOBS: usize = 512;
/// Approximate maximum size of a transaction, bytes.
const BATCH_BYTES: usize = 16 * 1024 * 1024;
/// Time that a transaction waits for more jobs while several callers are active, so that they share the cost of a
/// commit. A single caller does not wait.
const GATHER: Duration = Duration::from_millis(1);
/// Number of jobs that can break a transaction before the remaining jobs fail too.
const BREAKERS: usize = 3;

/// Pauses before the retries of a transaction that conflicted with another one.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_millis(1000),
];

type Answer = Result<Done, StoreError>;

struct Job {
    work: Work,
    reply: oneshot::Sender<Answer>,
    share: Share,
}

impl Job {
    /// Returns the job's share of the budget, then replies. A caller that got its reply can submit another job.
    fn answer(self, answer: Answer) {
        drop((self.work, self.share));
        // The caller may have stopped waiting.
        let _ = self.reply.send(answer);
    }
}

enum Message {
    Job(Job),
    /// Accept no more jobs, finish the waiting ones, and reply.
    Close(oneshot::Sender<()>),
}

/// Handle of the writer thread. Dropping it finishes the waiting jobs.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Message>>,
    thread: Option<JoinHandle<()>>,
    budget: Budget,
}

impl Writer {
    /// Starts the thread. After each commit with changes, the newest one is published to `feed`.
    pub(crate) fn start(
        connection: Box<dyn Session>,
        jobs: usize,
        bytes: usize,
        feed: Arc<Feed>,
        recent: Recent,
        damage: Damage,
    ) -> Result<Self, OpenError> {
        let (sender, queue) = mpsc::channel(jobs);
        let callers = Handle::try_current().ok();
        let thread = Thread {
            connection,
            queue,
            feed,
            recent,
            damage,
            callers,
            chain: Chain::default(),
            crowded: false,
            closing: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || thread.run())
            .map_err(OpenError::io("start the store's writing thread"))?;
        Ok(Self { queue: Some(sender), thread: Some(thread), budget: Budget::new(bytes) })
    }

    /// Commits all writes or none.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Answer {
        let bytes = weight(&writes);
        self.submit(Work::Writes(writes), bytes).await
    }

    /// Runs another kind of job. A caller that stops waiting does not stop the job.
    pub(crate) async fn task(
        &self,
        task: impl Fn(&Connection) -> Result<Done, super::error::Failure> + Send + 'static,
    ) -> Answer {
        self.submit(Work::Task(Box::new(task)), 0).await
    }

    /// Seals the audit log.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) async fn seal(&self) -> Answer {
        self.submit(Work::Seal, 0).await
    }

    async fn submit(&self, work: Work, bytes: usize) -> Answer {
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        // Before the queue: a job that finds the queue full returns its share when the error drops it.
        let share = self.budget.take(bytes)?;
        let (reply, answer) = oneshot::channel();
        queue.try_send(Message::Job(Job { work, reply, share })).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => full(),
            mpsc::error::TrySendError::Closed(_) => closed(),
        })?;
        // The thread may have ended after the commit and before the reply, so "not applied" would be a guess.
        let unanswered = |_| StoreError::Unknown { source: "the store's writing thread ended".into() };
        answer.await.map_err(unanswered)?
    }

    /// Returns a handle with which another thread can request a seal of the audit log; `None` if the writer is closed.
    pub(crate) fn sealing(&self) -> Option<Sealing> {
        Some(Sealing(self.queue.as_ref()?.downgrade(), self.budget.clone()))
    }

    /// Accepts no more jobs, and waits until the accepted ones are on disk.
    pub(crate) async fn close(&self) {
        let Some(queue) = &self.queue else { return };
        let (closed, done) = oneshot::channel();
        // Through the queue, so that every job that was accepted before it is committed first.
        if queue.send(Message::Close(closed)).await.is_ok() {
            // An error means that the thread has ended: it is closed.
            let _ = done.await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Ends the loop of the thread once the waiting jobs are done: `blocking_recv` returns `None`.
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // The thread catches panics of jobs. There is no caller to report any other panic to.
            let _ = thread.join();
        }
    }
}

/// Requests seals of the audit log from the writer of a store, as long as the store is open.
pub(crate) struct Sealing(mpsc::WeakSender<Message>, Budget);

impl Sealing {
    /// Requests a seal of the other nodes' chains. The request is dropped if the writer is busy; the next seal then
    /// covers more.
    pub(crate) fn seal(&self) {
        let (Some(queue), Ok(share)) = (self.0.upgrade(), self.1.take(0)) else { return };
        let (reply, _) = oneshot::channel();
        // Fails if the queue is full or closed, which does no harm.
        let _ = queue.try_send(Message::Job(Job { work: Work::Seal, reply, share }));
    }
}

/// Jobs for one transaction.
#[derive(Default)]
struct Gathered {
    jobs: Vec<Job>,
    bytes: usize,
}

impl Gathered {
    fn is_enough(&self) -> bool {
        self.jobs.len() >= BATCH_JOBS || self.bytes >= BATCH_BYTES
    }
}

struct Thread {
    connection: Box<dyn Session>,
    queue: mpsc::Receiver<Message>,
    feed: Arc<Feed>,
    recent: Recent,
    damage: Damage,
    chain: Chain,
    /// Runtime of the callers, if it is known.
    callers: Option<Handle>,
    /// Whether the last transaction had more than one job.
    crowded: bool,
    closing: Vec<oneshot::Sender<()>>,
}

impl Thread {
    fn run(mut self) {
        while let Some(message) = self.queue.blocking_recv() {
            let jobs = self.gather(message);
            self.commit(jobs);
        }
        self.finish();
    }

    /// Collects the first job and the ones that wait, up to the limits of a transaction.
    fn gather(&mut self, first: Message) -> Vec<Job> {
        let mut gathered = Gathered::default();
        self.take(&mut gathered, Some(first));
        if (self.crowded || gathered.jobs.len() > 1) && !gathered.is_enough() {
            // Sleeping, not waiting for a number of jobs: the callers that will submit some are not known.
            std::thread::sleep(GATHER);
            // One look is enough: `take` continues with whatever arrived during the pause.
            let next = self.queue.try_recv().ok();
            self.take(&mut gathered, next);
        }
        self.crowded = gathered.jobs.len() > 1;
        gathered.jobs
    }

    /// Takes a message and the ones that wait.
    fn take(&mut self, gathered: &mut Gathered, mut message: Option<Message>) {
        while let Some(next) = message {
            match next {
                Message::Job(job) => {
                    gathered.bytes += job.share.bytes();
                    gathered.jobs.push(job);
                }
                Message::Close(done) => {
                    // What is already in the queue is still received, so no accepted job is lost.
                    self.queue.close();
                    self.closing.push(done);
                }
            }
            message = if gathered.is_enough() { None } else { self.queue.try_recv().ok() };
        }
    }

    /// Commits jobs together. If one breaks the transaction, it gets an error, and the others are retried without it.
    fn commit(&mut self, mut jobs: Vec<Job>) {
        // Stable, so that the commits of one agent stay in the order in which they came.
        jobs.sort_by(|one, other| one.work.place().cmp(&other.work.place()));
        let (mut breakers, mut pauses, mut careful) = (0, PAUSES.iter(), Careful::default());
        // Limited, since each attempt runs all jobs again while other callers wait.
        while breakers < BREAKERS {
            if jobs.is_empty() {
                return;
            }
            let work = Jobs { work: jobs.iter().map(|job| &job.work).collect(), careful: &careful };
            match attempt(self.connection.as_ref(), &mut self.recent, &mut self.chain, &self.damage, &work) {
                Ok(outcome) => {
                    // Before the replies: a caller that continues must find its own change announced.
                    self.publish(outcome.newest_change);
                    return self.answer(jobs, outcome.answers);
                }
                Err(Broken::ByJob(index, error)) => {
                    tracing::warn!(error = %chain(&error), "a write job failed");
                    breakers += 1;
                    jobs.remove(index).answer(Err(error));
                    // The indexes have changed. Jobs that must run step by step are found again.
                    careful = Careful::default();
                }
                // Bounded without a counter: after a few such jobs, all run step by step, and none can be hasty any
                // more.
                Err(Broken::ByHaste(index)) => careful.add(index),
                Err(Broken::ForNow(error)) => match pauses.next() {
                    Some(pause) => {
                        tracing::debug!(error = %chain(&error), "retrying a transaction");
                        std::thread::sleep(*pause);
                    }
                    None => {
                        tracing::warn!(error = %chain(&error), jobs = jobs.len(), "a transaction failed repeatedly");
                        return answer_all(jobs, &error);
                    }
                },
                Err(Broken::Whole(error)) => {
                    tracing::warn!(error = %chain(&error), jobs = jobs.len(), "failed to commit a transaction");
                    return answer_all(jobs, &error);
                }
            }
        }
        answer_all(jobs, &StoreError::unavailable("the store is failing; nothing was applied"));
    }

    /// Sends the replies. Many of them are passed to the callers' runtime at once and sent there, because waking a task
    /// from another thread costs far more than from its own runtime. If that runtime has ended, so have the callers.
    fn answer(&self, jobs: Vec<Job>, answers: Vec<Answer>) {
        let tell = move || jobs.into_iter().zip(answers).for_each(|(job, answer)| job.answer(answer));
        match &self.callers {
            // A single job is answered here: its caller waits for nothing else, and spawning a task costs more than
            // it saves.
            Some(callers) if self.crowded => drop(callers.spawn(async move { tell() })),
            _ => tell(),
        }
    }

    fn publish(&self, newest_change: Option<i64>) {
        if let Some(seq) = newest_change {
            self.feed.publish(seq);
        }
    }

    /// Moves everything to its final place in the file, so that the next start has nothing to recover.
    fn finish(self) {
        // Before the checkpoint, which then moves these rows into the file as well.
        if let Err(error) = self.recent.settle(self.connection.as_ref()) {
            tracing::warn!(error = %chain(&error), "failed to move component documents to their table; retrying at the next start");
        }
        if let Err(error) = self.connection.finish() {
            tracing::warn!(error = %chain(&error), "failed to close the database cleanly; its write-ahead log is kept until the next start");
        }
        drop(self.connection);
        for closing in self.closing {
            // The caller may have stopped waiting.
            let _ = closing.send(());
        }
    }
}

fn answer_all(jobs: Vec<Job>, error: &StoreError) {
    for job in jobs {
        job.answer(Err(error.clone()));
    }
}
