//! The connection of one component: its session, its streams, and its pending actions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost_types::Timestamp;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::MESSAGE_MAX;
use super::certificates::Credentials;
use super::chunk::split;
use super::messages::{
    ActionLevel, ActionRequest, ActionResponse, ActionStatus, ActionType, CheckinExpected, CheckinObserved,
    DiagnosticFile, Supports, UnitType,
};
use super::session::{Session, wire_type};
use crate::components::{ComponentState, InputAction};
use crate::model::{Component, Unit};
use crate::state::ERROR_MAX;

/// Number of messages that wait for a component that does not read. Further ones are dropped: everything that they
/// contain is sent again with the next check-in.
const WAITING_MAX: usize = 4;
/// Maximum number of actions that a component works on.
const ACTIONS_MAX: usize = 64;

/// A check-in for the component, in one or several messages.
pub(super) type Parts = Vec<CheckinExpected>;

/// Why a stream is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AlreadyOpen;

/// The connection of one component. It lasts as long as the component is part of the model.
pub struct Line {
    /// Its credentials.
    pub credentials: Credentials,
    session: Mutex<Session>,
    check_ins: Mutex<Option<mpsc::Sender<Parts>>>,
    actions: Mutex<Option<mpsc::Sender<ActionRequest>>>,
    pending: Mutex<HashMap<String, oneshot::Sender<ActionResponse>>>,
    chunks: AtomicBool,
    stamp: AtomicI64,
    requests: AtomicU64,
    changed: Notify,
    takes_actions: Notify,
}

impl Line {
    /// Creates the connection of a component that is not running.
    pub fn new(credentials: Credentials, session: Session) -> Self {
        Self {
            credentials,
            session: Mutex::new(session),
            check_ins: Mutex::default(),
            actions: Mutex::default(),
            pending: Mutex::default(),
            chunks: AtomicBool::new(false),
            stamp: AtomicI64::new(1),
            requests: AtomicU64::new(1),
            changed: Notify::new(),
            takes_actions: Notify::new(),
        }
    }

    /// Gives access to the session.
    pub fn session<T>(&self, of: impl FnOnce(&mut Session) -> T) -> T {
        of(&mut lock(&self.session))
    }

    /// Returns the state to report.
    pub fn report(&self) -> ComponentState {
        lock(&self.session).report()
    }

    /// Returns when a check-in has arrived since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes a changed component, and tells the connected one.
    pub fn update(&self, component: Arc<Component>) {
        let message = self.session(|session| session.update(component));
        self.send(message);
        self.changed.notify_one();
    }

    /// Runs an action for a unit, and returns its result. The error is for people.
    pub async fn act(&self, action: &InputAction, unit_id: String) -> Result<Value, String> {
        let request = ActionRequest {
            id: self.request_id(),
            name: action.input_type.clone(),
            params: action.params.to_string().into_bytes(),
            unit_id,
            unit_type: UnitType::Input.into(),
            kind: ActionType::Custom.into(),
            level: ActionLevel::All.into(),
        };
        let response = self.perform(request, action.timeout).await?;
        let result: Value = serde_json::from_slice(&response.result).unwrap_or_default();
        if response.status == i32::from(ActionStatus::Success) { Ok(result) } else { Err(reason(&result)) }
    }

    /// Requests the diagnostics of a unit, or of the component itself. The error is for people.
    pub async fn diagnose(&self, unit: Option<&Unit>, timeout: Duration) -> Result<Vec<DiagnosticFile>, String> {
        let level = if unit.is_some() { ActionLevel::Unit } else { ActionLevel::Component };
        let request = ActionRequest {
            id: self.request_id(),
            name: String::new(),
            // A profile of the processor would take the component half a minute.
            params: br#"{"additional_metrics":null}"#.to_vec(),
            unit_id: unit.map(|unit| unit.id.clone()).unwrap_or_default(),
            unit_type: unit.map_or(UnitType::Input, |unit| wire_type(unit.direction)).into(),
            kind: ActionType::Diagnostics.into(),
            level: level.into(),
        };
        let response = self.perform(request, timeout).await?;
        if response.status == i32::from(ActionStatus::Success) {
            return Ok(response.diagnostic);
        }
        Err(reason(&serde_json::from_slice(&response.result).unwrap_or_default()))
    }

    fn request_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.credentials.server_name)
    }

    /// Sends a request, and waits for its response.
    async fn perform(&self, request: ActionRequest, timeout: Duration) -> Result<ActionResponse, String> {
        let (id, (respond, response)) = (request.id.clone(), oneshot::channel());
        {
            let mut pending = lock(&self.pending);
            if pending.len() >= ACTIONS_MAX {
                return Err("the component is processing too many actions".into());
            }
            pending.insert(id.clone(), respond);
        }
        let exchange = async {
            // A component that was just started has not opened the stream yet.
            let sender = self.sender().await;
            if sender.try_send(request).is_err() {
                lock(&self.pending).remove(&id);
            }
            response.await
        };
        let outcome = tokio::time::timeout(timeout, exchange).await;
        lock(&self.pending).remove(&id);
        match outcome {
            Ok(Ok(response)) => Ok(response),
            // The other end was dropped: it is not connected, or no longer.
            Ok(Err(_)) => Err("the component is not connected".into()),
            Err(_) => Err(format!("the component did not respond within {} s", timeout.as_secs())),
        }
    }

    /// Waits until the component takes actions.
    async fn sender(&self) -> mpsc::Sender<ActionRequest> {
        loop {
            let opened = self.takes_actions.notified();
            tokio::pin!(opened);
            // Registered before the look, so that a stream that opens in between is not missed.
            opened.as_mut().enable();
            if let Some(sender) = lock(&self.actions).clone() {
                return sender;
            }
            opened.await;
        }
    }

    pub(super) fn open_check_ins(&self) -> Result<Opened<Parts>, AlreadyOpen> {
        open(&self.check_ins, WAITING_MAX)
    }

    pub(super) fn open_actions(&self) -> Result<Opened<ActionRequest>, AlreadyOpen> {
        let requests = open(&self.actions, ACTIONS_MAX)?;
        self.takes_actions.notify_waiters();
        Ok(requests)
    }

    pub(super) fn close_check_ins(&self, own: &mpsc::Sender<Parts>) {
        close(&self.check_ins, own);
    }

    pub(super) fn close_actions(&self, own: &mpsc::Sender<ActionRequest>) {
        // Whoever waits for a response learns at once that there will be none.
        if close(&self.actions, own) {
            lock(&self.pending).clear();
        }
    }

    pub(super) fn observed(&self, message: CheckinObserved) {
        if message.supports.contains(&Supports::CheckinChunking.into()) {
            self.chunks.store(true, Ordering::Relaxed);
        }
        let answer = self.session(|session| session.check_in(message, Instant::now()));
        self.send(answer);
        self.changed.notify_one();
    }

    pub(super) fn answered(&self, response: ActionResponse) {
        if let Some(respond) = lock(&self.pending).remove(&response.id) {
            // The caller may have given up.
            let _ = respond.send(response);
        }
    }

    fn send(&self, message: Option<CheckinExpected>) {
        let (Some(message), Some(sender)) = (message, lock(&self.check_ins).clone()) else { return };
        let max = if self.chunks.load(Ordering::Relaxed) { MESSAGE_MAX } else { usize::MAX };
        let stamp = Timestamp { seconds: self.stamp.fetch_add(1, Ordering::Relaxed), nanos: 0 };
        match split(message, max, stamp) {
            Ok(parts) => drop(sender.try_send(parts)),
            Err(error) => tracing::error!(%error, "failed to configure a component"),
        }
    }
}

/// Both ends of the messages to a stream. The reader of the stream keeps the sender, to close exactly this stream.
pub(super) type Opened<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

fn open<T>(slot: &Mutex<Option<mpsc::Sender<T>>>, capacity: usize) -> Result<Opened<T>, AlreadyOpen> {
    let mut slot = lock(slot);
    if slot.as_ref().is_some_and(|sender| !sender.is_closed()) {
        return Err(AlreadyOpen);
    }
    let (sender, receiver) = mpsc::channel(capacity);
    *slot = Some(sender.clone());
    Ok((sender, receiver))
}

/// Empties the slot unless a newer stream is in it, which a restarted component may have opened already.
fn close<T>(slot: &Mutex<Option<mpsc::Sender<T>>>, own: &mpsc::Sender<T>) -> bool {
    lock(slot).take_if(|current| current.same_channel(own)).is_some()
}

/// Returns why an action failed. Components explain it in this field (AG §5.5).
fn reason(result: &Value) -> String {
    let reason = result["error"].as_str().unwrap_or("the component did not give a reason");
    reason.chars().take(ERROR_MAX).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_ends_late_does_not_close_its_successor() {
        let slot = Mutex::new(None);
        let (first, receiver) = open::<u8>(&slot, 1).unwrap();
        assert_eq!(open::<u8>(&slot, 1).map(|_| ()), Err(AlreadyOpen));
        // The connection of a killed component is gone, and its reader has not noticed yet.
        drop(receiver);
        let (second, _receiver) = open::<u8>(&slot, 1).unwrap();
        assert!(!close(&slot, &first) && lock(&slot).is_some());
        assert!(close(&slot, &second) && lock(&slot).is_none());
    }
}
