//! How far the request of a connection is, and which deadline counts now.
//!
//! One value for each connection, shared by its stream, its service and its bodies, which note what happened; the
//! driver asks for the next deadline. A deadline counts from when its part began: a client can't push it away by
//! sending or reading a byte now and then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::gate::Pass;
use super::head_scan::{Framing, HeadScan};
use crate::config::Timeouts;
use crate::reply::Parked;

/// Part of a request that is being received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    /// Nothing came yet since the last reply.
    Idle,
    /// The head has begun.
    Head,
    /// The body is not all here.
    Body,
    /// All is here; the handler works, or the reply is on its way.
    Nothing,
}

/// A request that was parked, and what is needed to answer it.
pub(super) struct ParkedRequest {
    /// Resolves to the reply.
    pub slot: Parked,
    /// The place among running requests.
    pub pass: Pass,
    /// Whether another request may follow.
    pub keep_alive: bool,
}

/// A deadline, and what is late when it passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    /// When.
    pub at: Instant,
    /// What.
    pub late: Late,
}

/// What did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Late {
    /// The next request.
    Request,
    /// The end of a head.
    Head,
    /// The end of a body.
    Body,
    /// The client's reading.
    Reading,
}

#[derive(Debug)]
struct Writing {
    began: Instant,
    moved: Instant,
}

struct State {
    receiving: Receiving,
    head: HeadScan,
    since: Instant,
    /// Set while bytes wait for the client.
    writing: Option<Writing>,
    body_late: bool,
    parked: Option<ParkedRequest>,
}

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct Progress(Arc<Mutex<State>>);

impl Progress {
    /// Of a connection that was just opened: its first head is due.
    pub fn new() -> Self {
        let state = State {
            receiving: Receiving::Head,
            head: HeadScan::default(),
            since: Instant::now(),
            writing: None,
            body_late: false,
            parked: None,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way, so a poisoned state is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came.
    pub fn bytes_came(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.receiving == Receiving::Idle {
            state.receiving = Receiving::Head;
            state.since = Instant::now();
        }
        if state.receiving == Receiving::Head {
            state.head.look(bytes);
        }
    }

    /// A head is whole; answers how it states the length of its body.
    pub fn head_done(&self, body_follows: bool) -> Framing {
        let mut state = self.state();
        let framing = std::mem::take(&mut state.head).framing();
        state.receiving = if body_follows { Receiving::Body } else { Receiving::Nothing };
        state.since = Instant::now();
        state.body_late = false;
        framing
    }

    /// A body is whole, or nobody wants it any more.
    pub fn body_done(&self) {
        let mut state = self.state();
        if state.receiving == Receiving::Body {
            state.receiving = Receiving::Nothing;
        }
    }

    /// A reply was handed over whole.
    pub fn reply_done(&self) {
        let mut state = self.state();
        state.receiving = Receiving::Idle;
        state.since = Instant::now();
    }

    /// The client takes no more for now; `moved` says whether some bytes went.
    pub fn write_blocked(&self) {
        let now = Instant::now();
        self.state().writing.get_or_insert(Writing { began: now, moved: now });
    }

    /// Some bytes went.
    pub fn write_moved(&self) {
        if let Some(writing) = &mut self.state().writing {
            writing.moved = Instant::now();
        }
    }

    /// All bytes went.
    pub fn write_clean(&self) {
        self.state().writing = None;
    }

    /// Whether a body is to be given up, because its deadline passed.
    pub fn is_body_late(&self) -> bool {
        self.state().body_late
    }

    /// Tells the body's reader that it is late. `false` when it was told before.
    pub fn tell_body_late(&self) -> bool {
        !std::mem::replace(&mut self.state().body_late, true)
    }

    /// Whether the whole request is here.
    pub fn is_received(&self) -> bool {
        self.state().receiving == Receiving::Nothing
    }

    /// A handler wishes to be parked.
    pub fn park(&self, request: ParkedRequest) {
        self.state().parked = Some(request);
    }

    /// The parked request, once everything before it was sent.
    pub fn take_parked(&self) -> Option<ParkedRequest> {
        let mut state = self.state();
        if state.writing.is_some() { None } else { state.parked.take() }
    }

    /// The deadline that counts now.
    pub fn deadline(&self, timeouts: &Timeouts) -> Option<Deadline> {
        let state = self.state();
        let since = state.since;
        let receiving = match state.receiving {
            Receiving::Idle => Some(Deadline { at: since + timeouts.idle, late: Late::Request }),
            Receiving::Head => Some(Deadline { at: since + timeouts.read_header, late: Late::Head }),
            // One that was told it is late gets a moment to answer 408.
            Receiving::Body if state.body_late => Some(Deadline { at: since + timeouts.read * 2, late: Late::Body }),
            Receiving::Body => Some(Deadline { at: since + timeouts.read, late: Late::Body }),
            Receiving::Nothing => None,
        };
        let writing = state.writing.as_ref().map(|writing| {
            let at = (writing.began + timeouts.write).min(writing.moved + timeouts.write_stall);
            Deadline { at, late: Late::Reading }
        });
        [receiving, writing].into_iter().flatten().min_by_key(|deadline| deadline.at)
    }
}
