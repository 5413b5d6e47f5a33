//! A daemon that is enrolling. It answers monitoring, which would otherwise kill it during a slow enrollment (AG34).

use tokio::sync::mpsc;

use super::standby::snapshot;
use crate::control::server::{self, Control};
use crate::coordinator::Command;
use crate::coordinator::watch::Watchers;
use crate::exit::{self, Failure};
use crate::paths::Layout;

/// Message of the status.
const ENROLLING: &str = "Enrolling";

/// Enrolls while the control socket answers. The caller holds the lock of the daemon.
pub(super) async fn answering<T>(
    layout: &Layout,
    enroll: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let listener = server::bind(&layout.socket())
        .map_err(|error| Failure::new(exit::FAILED, format!("{}: {error}", layout.socket())))?;
    let (commands, mut received) = mpsc::channel(16);
    let control = Control::start(listener, commands);
    let enrolled = tokio::select! {
        enrolled = enroll => enrolled,
        () = answer(&mut received) => Err(Failure::new(exit::FAILED, "the control socket was closed")),
    };
    let _ = std::fs::remove_file(layout.socket());
    drop(received);
    control.finish().await;
    enrolled
}

/// Answers commands. All but the status need an enrollment, and get no answer.
async fn answer(received: &mut mpsc::Receiver<Command>) {
    let mut watchers = Watchers::default();
    while let Some(command) = received.recv().await {
        let now = || snapshot(ENROLLING, Vec::new());
        match command {
            Command::Status(reply) => drop(reply.send(now())),
            Command::Watch(states) => {
                watchers.add(states);
                watchers.tell(now);
            }
            Command::Unenroll(reply) | Command::Upgrade(_, reply) => {
                drop(reply.send(Some("the agent is being enrolled".into())));
            }
            _ => {}
        }
    }
}
