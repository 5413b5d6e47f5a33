//! The end of the fleet's work, as background tasks and held polls learn of it.

use tokio::sync::watch;

/// Whether the fleet is on its way down.
pub struct Stopping(watch::Sender<bool>);

impl Default for Stopping {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stopping {
    /// Begins the end.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Whether [`Stopping::begin`] was called.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for [`Stopping::begin`].
    pub async fn begun(&self) {
        let mut stopping = self.0.subscribe();
        // An error means that the sender is gone, which it can't be while `self` lives.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}
