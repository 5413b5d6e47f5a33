//! Brings one component to its target, and keeps it there. Each reconciler is a task of its own and waits only for its
//! own component.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::board::Board;
use super::{Health, Launcher, Reporter, Runtime};
use crate::model::Component;
use crate::protocol::line::Line;

/// What a component should do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// Run like this.
    Run(Arc<Component>),
    /// Stop, and leave nothing behind. Contains the signed policy that omits the component.
    Remove(Option<Arc<Value>>),
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
    /// Where others find the connection for actions.
    pub line: Arc<Mutex<Option<Arc<Line>>>>,
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
                (Some(current), target) => {
                    self.progress.reach(u64::MAX);
                    *self.line() = None;
                    current.end(target).await;
                    continue;
                }
                (None, Target::Run(component)) => {
                    if !self.may_start(component).await {
                        continue;
                    }
                    running = Some(self.start(component));
                }
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

    /// Waits until components may start. Returns false if the target has changed in the meantime.
    async fn may_start(&mut self, component: &Arc<Component>) -> bool {
        let ready = self.launcher.ready();
        tokio::pin!(ready);
        if (&mut ready).now_or_never().is_some() {
            return true;
        }
        // Nobody else waits for this, as for a component that is being stopped.
        self.progress.reach(u64::MAX);
        let reporter = Reporter::new(self.board.clone(), component.clone());
        reporter.set(Health::Starting, "Starting: waiting until programs of an earlier agent have stopped");
        tokio::select! {
            () = &mut ready => true,
            // Without a supervisor, the next look at the target ends the task.
            changed = self.target.changed() => changed.is_err(),
        }
    }

    fn line(&self) -> MutexGuard<'_, Option<Arc<Line>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, component: &Arc<Component>) -> Running {
        let reporter = Reporter::new(self.board.clone(), component.clone());
        match &component.work {
            // Reported as failed instead of omitted, so that the author of the policy learns why it does not run.
            Err(reason) => {
                reporter.set(Health::Failed, reason);
                Running(None)
            }
            Ok(_) => {
                let runtime = self.launcher.launch(component, reporter);
                *self.line() = runtime.line();
                Running(Some(runtime))
            }
        }
    }
}

impl Running {
    fn update(&mut self, component: &Arc<Component>) -> bool {
        self.0.as_mut().is_some_and(|runtime| component.work.is_ok() && runtime.update(component))
    }

    async fn end(self, target: &Target) {
        match (self.0, target) {
            (Some(mut runtime), Target::Remove(signed_policy)) => runtime.remove(signed_policy.clone()).await,
            (Some(mut runtime), _) => runtime.stop().await,
            (None, _) => {}
        }
    }
}
