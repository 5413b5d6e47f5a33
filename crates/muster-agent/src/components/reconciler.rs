//! Brings one component to its target, and keeps it there. Each reconciler is a task of its own and waits only for its
//! own component.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

use super::board::Board;
use super::{Health, Launcher, Reporter, Runtime};
use crate::model::Component;

/// What a component should do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// Run like this.
    Run(Arc<Component>),
    /// Stop, and leave nothing behind.
    Remove,
    /// Stop until the agent starts again.
    Halt,
}

impl Target {
    /// Returns whether the component should not run.
    pub(super) fn is_end(&self) -> bool {
        !matches!(self, Self::Run(_))
    }
}

/// Counts the targets that a reconciler was given, to find out whether it has taken up the last one.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// `u64::MAX` while the component is being stopped: its next target waits for that, but nobody else may.
    seen: AtomicU64,
    bell: Notify,
}

impl Progress {
    fn reach(&self, generation: u64) {
        self.seen.store(generation, Ordering::Release);
        self.bell.notify_waiters();
    }

    /// Returns when the target with this number was taken up.
    pub(super) async fn reached(&self, generation: u64) {
        loop {
            let bell = self.bell.notified();
            tokio::pin!(bell);
            // Registered before the look, so that progress in between is not missed.
            bell.as_mut().enable();
            if self.seen.load(Ordering::Acquire) >= generation {
                return;
            }
            bell.await;
        }
    }
}

/// The task of one component.
pub(super) struct Reconciler {
    /// The target, with its number.
    pub target: watch::Receiver<(u64, Target)>,
    pub progress: Arc<Progress>,
    pub launcher: Launcher,
    pub board: Arc<Board>,
}

/// A component that was started. One that cannot run has no runtime, and is only reported.
struct Running(Option<Box<dyn Runtime>>);

impl Reconciler {
    /// Works until the component has stopped and should not run. Returns the target that it ended with. A newer target
    /// may have arrived in the meantime.
    pub(super) async fn work(&mut self) -> Target {
        let mut running: Option<Running> = None;
        loop {
            let (generation, target) = self.target.borrow_and_update().clone();
            let fits = match (&mut running, &target) {
                (Some(current), Target::Run(component)) => current.update(component),
                _ => false,
            };
            match (running.take(), &target) {
                (current, _) if fits => running = current,
                // The target is read again afterwards, because stopping may take long.
                (Some(current), _) => {
                    self.progress.reach(u64::MAX);
                    current.stop().await;
                    continue;
                }
                (None, Target::Run(component)) => running = Some(self.start(component)),
                (None, _) => {
                    self.progress.reach(generation);
                    return target;
                }
            }
            self.progress.reach(generation);
            // A dropped sender means that the supervisor has ended, and with it everything that it ran.
            if self.target.changed().await.is_err() {
                return Target::Halt;
            }
        }
    }

    fn start(&self, component: &Arc<Component>) -> Running {
        let reporter = Reporter::new(self.board.clone(), component.clone());
        match &component.work {
            // Reported as failed instead of omitted, so that the author of the policy learns why it does not run.
            Err(reason) => {
                reporter.set(Health::Failed, reason);
                Running(None)
            }
            Ok(_) => Running(Some(self.launcher.launch(component, reporter))),
        }
    }
}

impl Running {
    fn update(&mut self, component: &Component) -> bool {
        self.0.as_mut().is_some_and(|runtime| component.work.is_ok() && runtime.update(component))
    }

    async fn stop(self) {
        if let Some(mut runtime) = self.0 {
            runtime.stop().await;
        }
    }
}
