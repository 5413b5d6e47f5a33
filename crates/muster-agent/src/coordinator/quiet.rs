//! The memory of work that is done.

use std::time::Duration;

use tokio::time::Instant;

use super::{Coordinator, Event, Poll};

/// Time without work after which memory is given back.
pub const QUIET: Duration = Duration::from_secs(10);

/// The memory of the process.
pub trait Memory: Send + Sync {
    /// Gives back what the work since the last call has used, and an idle agent does not use.
    fn release(&self);
}

impl Coordinator {
    /// Gives memory back some time after the start, after the first check-in, and after work. Idle check-ins do not count, so
    /// that what they use stays in memory.
    pub(super) fn watch_for_quiet(&mut self, event: &Event) {
        let now = Instant::now();
        match event {
            Event::Worked(_) | Event::BackgroundDone(_) | Event::Upgraded(Some(_)) | Event::Joined(..) => {
                self.release_at = Some(now + QUIET);
            }
            Event::Polled(Poll::Answered(_)) if self.last_check_in.is_none() => self.release_at = Some(now + QUIET),
            _ if self.release_at.is_some_and(|at| at <= now) => {
                self.release_at = None;
                self.deps.memory.release();
            }
            _ => {}
        }
    }
}
