//! File descriptors in reserve, to accept a few connections when the process has reached its limit of open files.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;

/// Open files whose only purpose is to be closed when a descriptor is needed.
#[derive(Debug)]
pub(super) struct Reserve {
    size: usize,
    files: Mutex<Vec<File>>,
}

/// A descriptor that was taken from the reserve. Dropping it refills the reserve.
#[derive(Debug)]
pub(super) struct Lent(Arc<Reserve>);

impl Reserve {
    /// Creates a reserve of `size` files.
    pub fn new(size: usize) -> Arc<Self> {
        let reserve = Arc::new(Self { size, files: Mutex::default() });
        reserve.refill();
        reserve
    }

    /// Closes a file, so that the caller can open another one. Returns `None` when the reserve is empty.
    pub fn lend(self: &Arc<Self>) -> Option<Lent> {
        // Between this close and the caller's open, another thread may take the descriptor. The caller then fails and
        // tries again with the next one; a lock around both would have to cover every open of the process.
        let file = self.files.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        drop(file);
        Some(Lent(Arc::clone(self)))
    }

    /// Opens the missing files, as far as the limit allows.
    fn refill(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        while files.len() < self.size {
            match File::open("/dev/null") {
                Ok(file) => files.push(file),
                // Still at the limit. The next returned descriptor tries again.
                Err(_) => return,
            }
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.refill();
    }
}

/// Returns whether an operation failed at the limit of open files, the process's or the system's.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}
