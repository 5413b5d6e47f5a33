//! Signals that stop or reload the daemon.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::coordinator::Command;
use crate::exit::{self, Failure};

/// The handlers. They are installed before the daemon does anything, so that a signal during an enrollment or a start
/// neither kills the process nor is lost (AG174).
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Installs the handlers.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new(exit::FAILED, format!("signals: {error}")));
        // Habits of other programs, such as rotating logs, must not end the agent. The handler stays without its receiver.
        for ignored in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
            drop(listen(ignored)?);
        }
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal to stop. There is nothing to reload before the daemon runs.
    pub(super) async fn stop(&mut self) {
        while !matches!(self.next().await, Command::Stop) {}
    }

    /// Sends a command to the daemon for each signal.
    pub(super) fn forward(mut self, commands: mpsc::Sender<Command>) {
        tokio::spawn(async move { while commands.send(self.next().await).await.is_ok() {} });
    }

    async fn next(&mut self) -> Command {
        tokio::select! {
            _ = self.terminate.recv() => Command::Stop,
            _ = self.interrupt.recv() => Command::Stop,
            _ = self.hangup.recv() => Command::Reload,
        }
    }
}
