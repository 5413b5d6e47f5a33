//! Reserved file descriptors, with which a few connections can be accepted when the process has reached its limit on
//! open files.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;

/// Open files that are closed when a descriptor is needed.
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

    /// Closes a file, so that the caller can open another one. Returns `None` if the reserve is empty.
    pub fn lend(self: &Arc<Self>) -> Option<Lent> {
        // Another thread may use the descriptor before the caller opens its own. The caller then fails and retries with
        // the next one. To prevent this, a lock would have to cover every open in the process.
        let file = self.files.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        drop(file);
        Some(Lent(Arc::clone(self)))
    }

    /// Opens the missing files, if the limit allows it.
    fn refill(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        while files.len() < self.size {
            match File::open("/dev/null") {
                Ok(file) => files.push(file),
                // The process is still at the limit. This is retried when the next descriptor is returned.
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

/// Returns whether an operation failed because of the limit on open files, of the process or of the system.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}
