//! Gives each component a reconciler, and hands it its target.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::board::Board;
use super::reconciler::{Progress, Reconciler, Target};
use super::{
    ComponentState, Components, Diagnostics, Health, InputAction, Launcher, ProxiedAction, diagnostics, proxied,
};
use crate::model::{Component, Model};
use crate::protocol::line::Line;

/// Supervises components with one reconciler each.
#[derive(Clone)]
pub struct Supervisor(Arc<Shared>);

struct Shared {
    launcher: Launcher,
    board: Arc<Board>,
    // No task holds this lock while it waits, so that targets can be changed at any time.
    handles: Mutex<BTreeMap<String, Handle>>,
    left: Notify,
    signed_policy: Mutex<Option<Arc<Value>>>,
}

struct Handle {
    target: watch::Sender<(u64, Target)>,
    progress: Arc<Progress>,
    line: Arc<Mutex<Option<Arc<Line>>>>,
    task: JoinHandle<()>,
}

impl Handle {
    fn line(&self) -> Option<Arc<Line>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the target, unless it is the same: an unchanged component must not be disturbed.
    fn set(&self, target: Target) {
        self.target.send_if_modified(|current| {
            let changes = current.1 != target;
            if changes {
                *current = (current.0 + 1, target);
            }
            changes
        });
    }
}

impl Supervisor {
    /// Creates a supervisor without components.
    pub fn new(launcher: Launcher) -> Self {
        let (board, handles, left, signed_policy) = (Arc::default(), Mutex::default(), Notify::new(), Mutex::default());
        Self(Arc::new(Shared { launcher, board, handles, left, signed_policy }))
    }

    fn start(&self, component: Arc<Component>) -> Handle {
        // Reported before its task runs: a check-in that follows at once must not omit the component.
        self.0.board.put(ComponentState::uniform(&component, Health::Starting, "Starting"));
        let id = component.id.clone();
        let (sender, target) = watch::channel((1, Target::Run(component)));
        let progress = Arc::new(Progress::default());
        let (launcher, board) = (self.0.launcher.clone(), self.0.board.clone());
        let line = Arc::default();
        let reconciler = Reconciler { target, progress: progress.clone(), launcher, board, line: Arc::clone(&line) };
        Handle {
            target: sender,
            progress,
            line,
            task: tokio::spawn(Self::keep(Arc::downgrade(&self.0), id, reconciler)),
        }
    }

    /// Runs a reconciler until its component has left, or the supervisor has been dropped, which this task must not keep.
    async fn keep(shared: Weak<Shared>, id: String, mut reconciler: Reconciler) {
        loop {
            // Ends when the component has reached a state from which nothing follows without a new target.
            let end = reconciler.work().await;
            let Some(supervisor) = shared.upgrade().map(Self) else { return };
            if let Target::Remove(_) = end {
                supervisor.0.launcher.forget(&id);
            }
            if supervisor.dismiss(&id, &reconciler, &end) {
                return supervisor.left().await;
            }
        }
    }

    /// Concludes the departure of a component.
    async fn left(&self) {
        if self.is_idle() {
            self.0.launcher.idle(&|| self.is_idle()).await;
        }
        self.0.left.notify_waiters();
    }

    /// Removes the component unless it has got a new target. Targets are sent under the same lock, so that none is lost.
    fn dismiss(&self, id: &str, reconciler: &Reconciler, end: &Target) -> bool {
        let mut handles = self.lock();
        // Checked under the lock under which targets are sent: a target that arrived meanwhile is not lost.
        if reconciler.target.has_changed().unwrap_or(false) {
            return false;
        }
        handles.remove(id);
        if let Target::Remove(_) = end {
            self.0.board.remove(id);
        }
        true
    }

    fn is_idle(&self) -> bool {
        self.lock().is_empty()
    }

    /// Returns the connections of the running components.
    fn lines(&self) -> Vec<Arc<Line>> {
        self.lock().values().filter_map(Handle::line).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        self.0.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Components for Supervisor {
    fn want(&self, model: Model) {
        let signed_policy = self.0.signed_policy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut handles = self.lock();
        for (id, handle) in handles.iter() {
            if !model.iter().any(|component| component.id == *id) {
                handle.set(Target::Remove(signed_policy.clone()));
            }
        }
        for component in model {
            match handles.get(&component.id) {
                // A task that panicked is replaced by a new one.
                Some(handle) if !handle.task.is_finished() => handle.set(Target::Run(component)),
                _ => {
                    handles.insert(component.id.clone(), self.start(component));
                }
            }
        }
    }

    fn set_signed_policy(&self, signed: Option<Arc<Value>>) {
        *self.0.signed_policy.lock().unwrap_or_else(PoisonError::into_inner) = signed;
    }

    async fn updated(&self) {
        let wanted: Vec<_> =
            // The generations are read before the wait: targets that are set later are of another model.
            self.lock().values().map(|handle| (handle.progress.clone(), handle.target.borrow().0)).collect();
        for (progress, generation) in wanted {
            progress.reached(generation).await;
        }
    }

    fn states(&self) -> Vec<ComponentState> {
        self.0.board.states()
    }

    async fn changed(&self) {
        self.0.board.changed().await;
    }

    async fn settled(&self) {
        loop {
            let left = self.0.left.notified();
            tokio::pin!(left);
            // Registered before the look, so that a component that leaves in between is not missed.
            left.as_mut().enable();
            if !self.lock().values().any(|handle| handle.target.borrow().1.is_end()) {
                return;
            }
            left.await;
        }
    }

    async fn perform(&self, request: InputAction) -> Result<Value, String> {
        let unit = |line: Arc<Line>| {
            let unit = line.session(|session| session.input_of(&request.input_type))?;
            Some((line, unit))
        };
        let Some((line, unit)) = self.lines().into_iter().find_map(unit) else {
            return Err(format!("no running component takes actions for inputs of type {:?}", request.input_type));
        };
        line.act(&request, unit).await
    }

    fn proxies(&self, kind: &str) -> bool {
        self.lines().iter().any(|line| proxied::takes(line, kind))
    }

    async fn proxy(&self, action: ProxiedAction) -> Result<(), String> {
        let lines = self.lines().into_iter().filter(|line| proxied::takes(line, &action.kind)).collect();
        proxied::give(lines, &action).await
    }

    async fn diagnostics(&self) -> Vec<Diagnostics> {
        diagnostics::collect(self.lines()).await
    }

    async fn cleared(&self) {
        self.0.launcher.ready().await;
    }

    async fn halt(&self) {
        // All of them at once, so that the slowest one determines the time.
        for handle in self.lock().values() {
            handle.set(Target::Halt);
        }
        self.settled().await;
        self.0.launcher.idle(&|| self.is_idle()).await;
    }
}
