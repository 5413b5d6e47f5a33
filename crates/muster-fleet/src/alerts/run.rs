//! The background work of alerts: reads events, decides what each receiver gets, sends it, and stores how far it is. One
//! server does it, by lease.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use muster_core::Error;
use muster_core::alert::{Around, Message, Next, Progress, Read, Receiver};
use muster_core::error_chain::{SharedError, chain};
use muster_core::id::{AlertReceiverId, SpaceId};
use muster_core::reported::shortened_to;
use muster_core::status::Status;
use muster_store::query::AgentFilter;
use muster_store::{AlertWrite, FencingToken, LeaseName, Precondition, StoreError, Write};
use tokio::task::JoinSet;

use super::Alerts;
use crate::authority::System;

/// Pause between two looks at the events.
const TICK: Duration = Duration::from_secs(1);
/// Events that are read at once.
const READ: u32 = 1_000;
/// Maximum decisions of a receiver before its record is read again.
const ROUND: usize = 100;
/// Maximum length of a failure's reason, bytes.
const REASON_BYTES: usize = 500;

/// Marks a receiver as busy until it is dropped, also if the task is aborted.
struct Busy {
    alerts: Arc<Alerts>,
    id: AlertReceiverId,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.alerts.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Alerts {
    /// Runs until shutdown. Messages that are being sent then are sent again after the next start.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.shutdown.wait() => return,
            }
            if let Err(error) = self.start(&mut running).await {
                tracing::warn!(error = %chain(&error), "failed to send alerts; retrying");
            }
            // Ended tasks are taken out, so that the set does not grow.
            while running.try_join_next().is_some() {}
        }
    }

    /// Sends what is due to all receivers, if this server holds the lease, and waits until it is done.
    pub async fn deliver(self: &Arc<Self>) -> Result<(), Error> {
        let mut running = JoinSet::new();
        self.start(&mut running).await?;
        while let Some(ended) = running.join_next().await {
            ended.map_err(|error| Error::internal(SharedError::during("sending alerts", error)))?;
        }
        Ok(())
    }

    async fn start(self: &Arc<Self>, running: &mut JoinSet<()>) -> Result<(), Error> {
        let work = self.store.everywhere(&System).alert_work().await?;
        // Usually there is no receiver, and the lease is not taken.
        if work.is_empty() {
            return Ok(());
        }
        // Taken, or renewed by the server that has it.
        let Some(token) = self.store.everywhere(&System).take_lease(LeaseName::Alerts).await? else { return Ok(()) };
        self.tell_of_servers(token).await?;
        for (receiver, progress) in work {
            let Some(busy) = self.occupy(&receiver.id) else { continue };
            let alerts = Arc::clone(self);
            running.spawn(async move {
                if let Err(error) = alerts.serve(&receiver, progress).await {
                    tracing::warn!(
                        receiver = receiver.name, error = %chain(&error), "failed to send alerts; retrying"
                    );
                }
                drop(busy);
            });
        }
        Ok(())
    }

    fn occupy(self: &Arc<Self>, id: &AlertReceiverId) -> Option<Busy> {
        let is_free = self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        is_free.then(|| Busy { alerts: Arc::clone(self), id: id.clone() })
    }

    /// Sends what is due to one receiver.
    async fn serve(&self, receiver: &Receiver, mut progress: Progress) -> Result<(), Error> {
        let events = self.store.everywhere(&System).events_after(progress.cursor, READ).await?;
        if events.is_empty() {
            return Ok(());
        }
        // A full read may lack later events, so the planner must not conclude that nothing follows.
        let read = Read { events: &events, is_full: events.len() >= READ as usize };
        let around = self.around(&receiver.space).await?;
        for _ in 0..ROUND {
            // For each message: a server that was asleep must not go on after another one has taken over.
            let token = self.store.everywhere(&System).take_lease(LeaseName::Alerts).await?;
            let Some(token) = token.filter(|_| !self.shutdown.has_begun()) else { return Ok(()) };
            let is_failed = match receiver.next(&progress, read, &around, self.clock.now()) {
                Next::Idle | Next::Wait(_) => return Ok(()),
                Next::Skip(skipped) => {
                    progress.skipped(&skipped, &events);
                    false
                }
                Next::Send(message) => self.attempt(receiver, &message, &mut progress, read).await?,
            };
            // Stored after each message: after a crash, at most one message is sent twice.
            if !self.keep(token, receiver, &progress).await? || is_failed {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends a message, and records the outcome. Returns whether it failed.
    async fn attempt(
        &self,
        receiver: &Receiver,
        message: &Message,
        progress: &mut Progress,
        read: Read<'_>,
    ) -> Result<bool, Error> {
        let outcome = self.send(receiver, message).await?;
        let now = self.clock.now();
        let Err(error) = outcome else {
            if progress.failure.is_some() {
                tracing::info!(receiver = receiver.name, "alerts can be sent again");
            }
            progress.delivered(message, read.events, now);
            return Ok(false);
        };
        let reason = shortened_to(&chain(&error).to_string(), REASON_BYTES).into_owned();
        // Logged once, and not for each attempt.
        if progress.failure.is_none() {
            tracing::warn!(receiver = receiver.name, reason, "cannot send alerts; retrying for a day");
        }
        progress.failed(reason, now);
        Ok(true)
    }

    /// Stores how far a receiver is. Returns false if another server has taken over, or the receiver was deleted.
    async fn keep(&self, token: FencingToken, receiver: &Receiver, progress: &Progress) -> Result<bool, Error> {
        let progress = AlertWrite::Progress { id: receiver.id.clone(), progress: Box::new(progress.clone()) };
        // Fenced: a server that has lost the lease must not overwrite the progress of the one that has it.
        match self.store.commit(&System, vec![Write::Fenced(token), progress.into()]).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict(Precondition::LeaseLost(_) | Precondition::Missing(_))) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn around(&self, space: &SpaceId) -> Result<Around, Error> {
        let now = self.clock.now();
        let lost = self.store.everywhere(&System).lost_nodes().await?;
        let counts = self.store.within(&System, space).agent_counts(&AgentFilter::default()).await?;
        // Agents that are not expected to connect do not count for "so many percent of the agents are offline".
        let is_expected = |status| !matches!(status, Status::Unenrolled | Status::Inactive);
        Ok(Around {
            lost: lost.into_iter().map(|node| (node.id, now.minus(node.since))).collect(),
            agents: counts.into_iter().filter(|(status, _)| is_expected(*status)).map(|(_, count)| count).sum(),
        })
    }
}
