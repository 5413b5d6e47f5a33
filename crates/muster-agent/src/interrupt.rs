//! Interruption of a command that undoes what it has done: Ctrl-C and SIGTERM count as a failed step.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{self, Failure};

/// Signals that interrupt a command.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Installs the handlers. From now on, these signals no longer end the process. A command that prompts does this afterwards.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new(exit::FAILED, format!("signals: {error}")));
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            // Kept for the steps that follow: a signal during one that cannot be interrupted is not lost.
            sender.send_replace(true);
        });
        Ok(Self(receiver))
    }

    /// Returns one that never happens, for a command that handles signals itself.
    pub fn never() -> Self {
        Self(watch::channel(false).1)
    }

    /// Returns the result of `step`, or a failure as soon as the command is interrupted.
    pub async fn unless<T>(&self, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut receiver = self.0.clone();
        tokio::select! {
            biased;
            // An error means that the sender is gone, and that no signal will come.
            Ok(_) = receiver.wait_for(|is_interrupted| *is_interrupted) => {
                Err(Failure::new(exit::FAILED, "interrupted"))
            }
            done = step => done,
        }
    }
}
