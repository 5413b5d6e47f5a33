//! Notifications to the service manager (systemd). Without one, they do nothing.

use muster_core::error_chain::chain;
use sd_notify::NotifyState;
use tokio::time::interval;
use tracing::warn;

/// Reports that the server is ready.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// Reports that the server is stopping.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

/// Notifies the watchdog, if it is enabled, twice per interval, as long as the runtime makes progress.
pub(super) async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    // An interval of zero would panic.
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
