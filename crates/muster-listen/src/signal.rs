//! Tells the task of a connection to close it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// A request to close a connection. It is never withdrawn.
#[derive(Debug, Default)]
pub(super) struct CloseSignal {
    is_set: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl CloseSignal {
    /// Tells the connection to close.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    /// Returns whether the connection must close.
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// Ready if the connection must close. Otherwise, the task is woken when it must.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        // Checked after the waker is stored, so that a signal in between wakes this task.
        if self.is_set() { Poll::Ready(()) } else { Poll::Pending }
    }
}
