//! What the service manager is told. Without one, nothing happens.

use muster_core::error_chain::chain;
use sd_notify::NotifyState;
use tokio::time::interval;
use tracing::warn;

/// The server accepts.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// The server stops.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

/// Tells the watchdog, if there is one, twice in its time that the runtime still turns.
pub(super) async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut beat = interval((limit / 2).max(std::time::Duration::from_millis(1)));
    loop {
        beat.tick().await;
        tell(NotifyState::Watchdog);
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(error = %chain(&error), "failed to notify the service manager");
    }
}
