//! The shutdown signal for background tasks and held polls.

use tokio::sync::watch;

/// Whether the fleet is shutting down. Once set, it stays set.
pub struct Shutdown(watch::Sender<bool>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Shutdown {
    /// Starts the shutdown.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Returns true once [`Shutdown::begin`] was called.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for [`Shutdown::begin`]; returns at once if it was called before.
    pub async fn wait(&self) {
        let mut begun = self.0.subscribe();
        // Fails only if the sender is dropped, and `self` owns it. A `watch` and not a `Notify`: a task that starts to
        // wait after `begin` must not wait forever.
        let _ = begun.wait_for(|begun| *begun).await;
    }
}
