//! Files kept in reserve, so that a few connections can be taken when no more files can be opened.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;

/// Files that are open for nothing but to be closed in need.
#[derive(Debug)]
pub(super) struct Reserve {
    most: usize,
    files: Mutex<Vec<File>>,
}

/// A file of the reserve that was closed; when dropped, another is opened in its place.
#[derive(Debug)]
pub(super) struct Lent(Arc<Reserve>);

impl Reserve {
    /// A reserve of so many files.
    pub fn new(most: usize) -> Arc<Self> {
        let reserve = Arc::new(Self { most, files: Mutex::default() });
        reserve.refill();
        reserve
    }

    /// Closes a file, for something that is needed more.
    pub fn lend(self: &Arc<Self>) -> Option<Lent> {
        let file = self.files.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        drop(file);
        Some(Lent(Arc::clone(self)))
    }

    /// Opens what is missing, as far as files are to be had.
    fn refill(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        while files.len() < self.most {
            match File::open("/dev/null") {
                Ok(file) => files.push(file),
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

/// Whether an operation failed because no more files can be opened.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}
