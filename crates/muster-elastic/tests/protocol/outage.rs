//! A store that can be switched off: every call then fails with "not applied".

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use muster_store::testing::{Gate, Gated};
use muster_store::{Store, StoreError, Write};

/// A store with switches.
pub type Outage = Gated<Switches>;

/// A store that is on.
pub fn switched(inner: Arc<dyn Store>) -> Outage {
    Gated::new(inner, Switches::default())
}

/// The calls that the store refuses.
#[derive(Default)]
pub struct Switches {
    off: AtomicBool,
    read_only: AtomicBool,
}

impl Switches {
    pub fn set(&self, off: bool) {
        self.off.store(off, Ordering::SeqCst);
    }

    /// Refuses only writes, as on a full disk.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::SeqCst);
    }
}

fn full() -> StoreError {
    StoreError::unavailable("disk full: /secret/path")
}

impl Gate for Switches {
    fn read(&self) -> Result<(), StoreError> {
        if self.off.load(Ordering::SeqCst) { Err(full()) } else { Ok(()) }
    }

    fn commit(&self, _writes: &[Write]) -> Result<(), StoreError> {
        if self.read_only.load(Ordering::SeqCst) { Err(full()) } else { self.read() }
    }
}
