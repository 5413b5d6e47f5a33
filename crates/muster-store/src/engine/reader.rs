//! A reader thread with its own connection and a bounded queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use super::session::{Connection, Session};
use tokio::sync::{mpsc, oneshot};

use super::damage::Damage;
use super::error::{EngineError, OpenError};
use super::queue::{closed, full};
use crate::port::StoreError;

type Task = Box<dyn FnOnce(&Connection) + Send>;

/// Handle of a reader thread.
pub(crate) struct Reader {
    queue: Option<mpsc::Sender<Task>>,
    thread: Option<JoinHandle<()>>,
    damage: Damage,
}

impl Reader {
    /// Starts the thread.
    pub(crate) fn start(
        name: &str,
        connection: Box<dyn Session>,
        waiting: usize,
        damage: Damage,
    ) -> Result<Self, OpenError> {
        let (queue, tasks) = mpsc::channel(waiting);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || serve(connection.as_ref(), tasks))
            .map_err(OpenError::io("start a reading thread of the store"))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), damage })
    }

    /// Runs a read whose statements all see the same snapshot.
    pub(crate) async fn snapshot<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read(|connection| {
            connection.begin_snapshot()?;
            let answer = read(connection);
            // Nothing was written, so rolling back is as good as committing.
            connection.roll_back()?;
            answer
        })
        .await
    }

    /// Runs a read of a single statement.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let damage = self.damage.clone();
        // Errors are converted on this thread, so that damage is recorded even if the caller has stopped waiting.
        let task = move |connection: &Connection| {
            let read = read(connection).map_err(|error| {
                damage.note(&error);
                error.not_applied()
            });
            // The caller may have stopped waiting.
            let _ = reply.send(read);
        };
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        // Never waits: an overloaded store must reject requests, which agents then retry, instead of collecting them.
        queue.try_send(Box::new(task)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => full(),
            mpsc::error::TrySendError::Closed(_) => closed(),
        })?;
        let unanswered = |_| StoreError::unavailable("a read of the store panicked");
        answer.await.map_err(unanswered)?
    }
}

fn serve(connection: &Connection, mut tasks: mpsc::Receiver<Task>) {
    while let Some(task) = tasks.blocking_recv() {
        // Unwind safety: a read leaves only statements behind, which are reset on their next use, and its snapshot.
        if catch_unwind(AssertUnwindSafe(|| task(connection))).is_err() {
            tracing::error!("a read of the store panicked");
            // In an open snapshot, all later reads of this thread would see an old state. Fails if there is none.
            let _ = connection.roll_back();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // The thread catches panics of reads. There is no caller to report any other panic to.
            let _ = thread.join();
        }
    }
}
