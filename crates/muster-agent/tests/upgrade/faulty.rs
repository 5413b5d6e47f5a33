//! A disk that dies: at one of its changes, nothing, half of it, or all of it happens, and nothing works afterwards.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use camino::Utf8Path;
use muster_agent::homes::HomeName;
use muster_agent::paths::Layout;
use muster_agent::upgrade::disk::{Disk, HostDisk};

/// How much of the last change happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Nothing,
    Half,
    All,
}

/// The disk of this host, until the change with this number.
pub struct Faulty {
    changes: AtomicUsize,
    dies_at: usize,
    part: Part,
}

impl Faulty {
    pub fn new(dies_at: usize, part: Part) -> Self {
        Self { changes: AtomicUsize::new(0), dies_at, part }
    }

    /// Number of changes so far.
    pub fn changes(&self) -> usize {
        self.changes.load(Ordering::Relaxed)
    }

    pub fn is_dead(&self) -> bool {
        self.changes() > self.dies_at
    }

    fn change(&self, whole: impl FnOnce() -> io::Result<()>, half: impl FnOnce()) -> io::Result<()> {
        let number = self.changes.fetch_add(1, Ordering::Relaxed);
        if number < self.dies_at {
            return whole();
        }
        match (number == self.dies_at, self.part) {
            (true, Part::Half) => half(),
            (true, Part::All) => whole()?,
            _ => {}
        }
        Err(io::Error::other("the power is gone"))
    }
}

impl Disk for Faulty {
    fn read(&self, path: &Utf8Path) -> io::Result<Option<Vec<u8>>> {
        HostDisk.read(path)
    }

    fn list(&self, path: &Utf8Path) -> io::Result<Vec<String>> {
        HostDisk.list(path)
    }

    fn active(&self, layout: &Layout) -> io::Result<Option<HomeName>> {
        HostDisk.active(layout)
    }

    fn installed(&self, layout: &Layout) -> io::Result<Vec<HomeName>> {
        HostDisk.installed(layout)
    }

    fn replace(&self, path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
        let half = || fs_err::write(path.with_extension("new"), &bytes[..bytes.len() / 2]).unwrap();
        self.change(|| HostDisk.replace(path, bytes), half)
    }

    fn remove(&self, path: &Utf8Path) -> io::Result<()> {
        self.change(|| HostDisk.remove(path), || {})
    }

    fn remove_dir(&self, path: &Utf8Path) -> io::Result<()> {
        let half = || {
            // The first file that is found.
            let first = path.read_dir_utf8().ok().and_then(|mut entries| entries.find_map(Result::ok));
            if let Some(first) = first {
                let _ = fs_err::remove_file(first.path());
            }
        };
        self.change(|| HostDisk.remove_dir(path), half)
    }

    fn create_dir(&self, path: &Utf8Path) -> io::Result<()> {
        self.change(|| HostDisk.create_dir(path), || {})
    }

    fn append(&self, path: &Utf8Path, length: u64, bytes: &[u8]) -> io::Result<()> {
        // What is written last may be garbage after a loss of power.
        let garbage = vec![0; bytes.len()];
        self.change(|| HostDisk.append(path, length, bytes), || HostDisk.append(path, length, &garbage).unwrap())
    }

    fn create(&self, path: &Utf8Path, mode: u32, content: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let half = || HostDisk.create(path, mode, &mut &bytes[..bytes.len() / 2]).unwrap();
        self.change(|| HostDisk.create(path, mode, &mut &bytes[..]), half)
    }

    fn rename(&self, from: &Utf8Path, to: &Utf8Path) -> io::Result<()> {
        self.change(|| HostDisk.rename(from, to), || {})
    }

    fn activate(&self, layout: &Layout, name: &HomeName) -> io::Result<()> {
        let half = || {
            let link = layout.link().with_extension("new");
            let _ = fs_err::remove_file(&link);
            std::os::unix::fs::symlink("nowhere", link).unwrap();
        };
        self.change(|| HostDisk.activate(layout, name), half)
    }

    fn free(&self, path: &Utf8Path) -> io::Result<u64> {
        HostDisk.free(path)
    }
}

/// A disk that is almost full, and must not be changed.
pub struct Small;

impl Disk for Small {
    fn read(&self, path: &Utf8Path) -> io::Result<Option<Vec<u8>>> {
        HostDisk.read(path)
    }

    fn list(&self, path: &Utf8Path) -> io::Result<Vec<String>> {
        HostDisk.list(path)
    }

    fn active(&self, layout: &Layout) -> io::Result<Option<HomeName>> {
        HostDisk.active(layout)
    }

    fn installed(&self, layout: &Layout) -> io::Result<Vec<HomeName>> {
        HostDisk.installed(layout)
    }

    fn replace(&self, path: &Utf8Path, _: &[u8]) -> io::Result<()> {
        panic!("{path} is changed")
    }

    fn remove(&self, path: &Utf8Path) -> io::Result<()> {
        panic!("{path} is changed")
    }

    fn remove_dir(&self, path: &Utf8Path) -> io::Result<()> {
        panic!("{path} is changed")
    }

    fn create_dir(&self, path: &Utf8Path) -> io::Result<()> {
        panic!("{path} is changed")
    }

    fn append(&self, path: &Utf8Path, _: u64, _: &[u8]) -> io::Result<()> {
        panic!("{path} is changed")
    }

    fn create(&self, path: &Utf8Path, _: u32, _: &mut dyn Read) -> io::Result<()> {
        panic!("{path} is changed")
    }

    fn rename(&self, from: &Utf8Path, _: &Utf8Path) -> io::Result<()> {
        panic!("{from} is changed")
    }

    fn activate(&self, _: &Layout, name: &HomeName) -> io::Result<()> {
        panic!("{name} is activated")
    }

    fn free(&self, _: &Utf8Path) -> io::Result<u64> {
        Ok(1000)
    }
}
