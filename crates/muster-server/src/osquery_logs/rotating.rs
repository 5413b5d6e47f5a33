//! A file that is renamed when it is large: `name`, then `name.1`, `name.2` and so on, the oldest of which is replaced.

use std::io::{self, Write as _};
use std::path::PathBuf;

use fs_err::os::unix::fs::OpenOptionsExt as _;
use fs_err::{File, OpenOptions};

use super::Rotation;

/// The file.
pub(super) struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    size: u64,
}

impl RotatingFile {
    /// Opens the file to append to it.
    pub(super) fn open(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        let file = create(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, rotation, file, size })
    }

    /// Appends whole lines, after rotating the file if it would become too large. After an error, the file is as before.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let added = lines.len() as u64;
        if self.size > 0 && self.size + added > self.rotation.max_bytes {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(lines) {
            // Half a line would be taken for a part of the next one. If this fails too, so will the next write.
            let _ = self.file.set_len(self.size);
            return Err(error);
        }
        self.size += added;
        Ok(())
    }

    /// Waits until everything is on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Lines of the same batch may be in it.
        self.sync()?;
        for number in (1..self.rotation.keep).rev() {
            match fs_err::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match self.rotation.keep {
            0 => fs_err::remove_file(&self.path)?,
            _ => fs_err::rename(&self.path, self.numbered(1))?,
        }
        (self.file, self.size) = (create(&self.path)?, 0);
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Opens or creates the file. What hosts report is not for every user of this host.
fn create(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_rotated_by_size_and_the_oldest_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let rotation = Rotation { max_bytes: 4, keep: 2 };
        let mut file = RotatingFile::open(path.clone(), rotation).unwrap();
        for line in ["a\n", "b\n", "c\n", "longer\n", "d\n"] {
            file.append(line.as_bytes()).unwrap();
        }
        file.sync().unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!([read("log"), read("log.1"), read("log.2")], ["d\n", "longer\n", "c\n"]);
        let mut names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        drop(file);
        let mut file = RotatingFile::open(path, rotation).unwrap();
        file.append(b"e\n").unwrap();
        assert_eq!(read("log"), "d\ne\n", "continued after a restart");
    }

    #[test]
    fn without_rotated_files_the_file_starts_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = RotatingFile::open(path.clone(), Rotation { max_bytes: 1, keep: 0 }).unwrap();
        file.append(b"a\n").unwrap();
        file.append(b"b\n").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "b\n");
    }
}
