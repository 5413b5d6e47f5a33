//! A file that a command writes (`--out`): complete, or not there.

use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use std::os::unix::fs::OpenOptionsExt as _;

use super::failure::Failed;

/// A new file, readable only by its owner. It gets its name when it is complete, and is removed if it never is.
pub struct OutFile {
    path: Utf8PathBuf,
    partial: Utf8PathBuf,
    file: Option<std::fs::File>,
}

impl OutFile {
    /// Creates the file beside its final name. Fails if a file of that name exists.
    pub fn create(path: &Utf8Path) -> Result<Self, Failed> {
        if path.symlink_metadata().is_ok() {
            return Err(Failed::new(format!("{path} already exists")).remedy("choose another name, or delete the file"));
        }
        let partial = Utf8PathBuf::from(format!("{path}.part"));
        // What an interrupted command left may have another owner or mode, and is never written to.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        let file = created.map_err(|error| Failed::new(format!("cannot write {partial}: {error}")))?;
        Ok(Self { path: path.to_owned(), partial, file: Some(file) })
    }

    /// Takes the file to write to.
    pub fn take(&mut self) -> Result<std::fs::File, Failed> {
        self.file.take().ok_or_else(|| Failed::new(format!("{} was already written", self.path)))
    }

    /// Syncs the complete file, and gives it its name.
    pub fn finish(self, file: &std::fs::File) -> Result<(), Failed> {
        let failed = |error| Failed::new(format!("cannot write {}: {error}", self.path));
        file.sync_all().map_err(failed)?;
        fs::rename(&self.partial, &self.path).map_err(failed)
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        // After `finish`, there is none.
        let _ = fs::remove_file(&self.partial);
    }
}
