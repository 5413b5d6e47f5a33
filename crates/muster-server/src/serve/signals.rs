//! Signals that end the process: SIGTERM and SIGINT.

use muster_core::error_chain::chain;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

/// Receiver of both signals.
pub(super) struct Stop {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Stop {
    /// Starts receiving. From now on, the signals no longer end the process.
    pub fn new() -> Self {
        Self { terminate: take(SignalKind::terminate()), interrupt: take(SignalKind::interrupt()) }
    }

    /// Waits for the next signal and returns its name.
    pub async fn wait(&mut self) -> &'static str {
        tokio::select! {
            () = next(&mut self.terminate) => "SIGTERM",
            () = next(&mut self.interrupt) => "SIGINT",
        }
    }
}

fn take(kind: SignalKind) -> Option<Signal> {
    signal(kind).inspect_err(|error| warn!(error = %chain(error), "failed to install a signal handler")).ok()
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        // Without a handler, the signal ends the process.
        None => std::future::pending().await,
    }
}
