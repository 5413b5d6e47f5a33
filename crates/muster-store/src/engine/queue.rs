//! The writer's queue, limited in jobs and in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{host_runs, installers};
use crate::port::{
    ActionWrite, AgentWrite, FileWrite, LiveQueryWrite, PolicyWrite, ScriptWrite, SoftwareWrite, StoreError, Write,
};

/// Budget of bytes that may wait.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

/// Bytes taken from a budget, returned on drop.
#[derive(Debug)]
pub(crate) struct Share {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: Arc::default(), limit }
    }

    /// Takes `bytes`. A single job may exceed the budget, otherwise it could never be written.
    pub(crate) fn take(&self, bytes: usize) -> Result<Share, StoreError> {
        // Added before it is compared, so that concurrent callers can't exceed the limit together. Dropping the share
        // returns it.
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let share = Share { used: self.used.clone(), bytes };
        if before > 0 && before.saturating_add(bytes) > self.limit {
            return Err(full());
        }
        Ok(share)
    }
}

impl Share {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Error if a queue is full.
pub(crate) fn full() -> StoreError {
    StoreError::crowded()
}

/// Error if the store is closed.
pub(crate) fn closed() -> StoreError {
    StoreError::unavailable("the store is closed")
}

// An estimate is enough: the budget exists to bound memory, not to account for it.
/// Estimates the size of a list of writes in bytes.
pub(crate) fn weight(writes: &[Write]) -> usize {
    writes.iter().map(|write| size_of::<Write>() + payload(write)).sum()
}

fn payload(write: &Write) -> usize {
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
    match write {
        Write::File(FileWrite::PutChunk { data, .. }) => data.len(),
        Write::File(FileWrite::PutArtifact { body, .. }) => body.len(),
        Write::Agent(AgentWrite::Documents { documents, .. }) => {
            text(&documents.local_metadata) + text(&documents.components)
        }
        Write::Agent(AgentWrite::Insert { documents, .. }) => {
            text(&documents.local_metadata) + text(&documents.components) + 1024
        }
        Write::Agent(AgentWrite::Update { .. }) => 1024,
        Write::Agent(AgentWrite::Seen { seen }) => seen.len() * 64,
        Write::Agent(AgentWrite::CredentialsUsed { used }) => used.len() * 64,
        Write::Action(ActionWrite::Insert { action, targets }) => text(&action.data) + targets.len() * 64,
        Write::Action(ActionWrite::Result { result, .. }) => text(&result.fields),
        Write::Policy(PolicyWrite::Insert(_))
        | Write::Policy(PolicyWrite::Update { .. })
        | Write::Policy(PolicyWrite::InsertRevision(_)) => 64 * 1024,
        Write::LiveQuery(LiveQueryWrite::Insert { query, targets }) => query.sql.len() + targets.len() * 64,
        Write::LiveQuery(LiveQueryWrite::Answer { result, .. }) => result.answer.rows.len() + 512,
        Write::Script(ScriptWrite::Save(script)) => script.script.len() + 512,
        Write::Installer(write) => installers::weight(write),
        Write::ScriptRun(write) => host_runs::weight(write),
        Write::InstallRun(write) => host_runs::weight(write),
        Write::Software(SoftwareWrite::List { list, new, .. }) => list.len() + new.len() * 128,
        Write::Inventory(write) => write.document.len() + 128,
        Write::Event(_) => 1024,
        _ => 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_refuses_what_exceeds_it_and_takes_back_what_ends() {
        let budget = Budget::new(100);
        let first = budget.take(60).unwrap();
        assert!(matches!(budget.take(60), Err(StoreError::Unavailable { .. })));
        let second = budget.take(40).unwrap();
        assert_eq!(second.bytes(), 40);
        drop((first, second));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0, "refused shares are given back too");
    }

    #[test]
    fn one_job_alone_may_exceed_the_budget() {
        let budget = Budget::new(100);
        let large = budget.take(1000).unwrap();
        assert!(budget.take(1).is_err());
        drop(large);
        assert!(budget.take(1).is_ok());
    }
}
