//! An installed agent on a real disk, and packages for it.

use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use muster_agent::clock::SystemClock;
use muster_agent::entropy::Seeded;
use muster_agent::homes::{self, HomeName};
use muster_agent::paths::{Layout, PROGRAM};
use muster_agent::upgrade::Progress;
use muster_agent::upgrade::disk::{Disk, HostDisk};
use muster_agent::upgrade::pack::{Packed, SigningKey, pack};
use muster_agent::upgrade::package::{archive_name, manifest_name};
use muster_agent::upgrade::prepare::Preparation;
use muster_agent::upgrade::source::Source;
use tokio::time::Instant;

/// Version before the upgrade, and after it.
pub const OLD: &str = "0.1.0";
pub const NEW: &str = "0.2.0";

/// An installed agent of version [`OLD`], and a directory with packages.
pub struct Host {
    _directory: tempfile::TempDir,
    pub layout: Layout,
    pub packages: Utf8PathBuf,
    pub key: SigningKey,
}

impl Host {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(directory.path()).unwrap();
        let (layout, packages) = (Layout::new(base.join("agent")), base.join("packages"));
        fs_err::create_dir(&packages).unwrap();
        fs_err::create_dir_all(layout.homes()).unwrap();
        let host = Self { _directory: directory, layout, packages, key: SigningKey::generate().unwrap() };
        let home = host.layout.home(&name(OLD));
        fs_err::create_dir(home.path()).unwrap();
        fs_err::write(home.program(), program(OLD)).unwrap();
        homes::activate(&host.layout, &name(OLD)).unwrap();
        host
    }

    /// Puts a package into the directory.
    pub fn offer(&self, version: &str) -> Packed {
        let components = [("components/log.spec.yml", &b"version: 2\n"[..])];
        let packed = pack(version, &program(version), &components, &self.key).unwrap();
        self.put(version, &packed);
        packed
    }

    pub fn put(&self, version: &str, packed: &Packed) {
        fs_err::write(self.packages.join(archive_name(version)), &packed.archive).unwrap();
        fs_err::write(self.packages.join(manifest_name(version)), &packed.manifest).unwrap();
    }

    pub fn preparation(&self, source: Source, disk: Arc<dyn Disk>) -> Preparation {
        Preparation {
            layout: self.layout.clone(),
            disk,
            sources: vec![source],
            keys: vec![self.key.public().unwrap()],
            deadline: Instant::now() + Duration::from_secs(600),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(Seeded::new(1)),
            progress: Progress::default(),
        }
    }

    pub fn directory(&self) -> Source {
        Source::Directory(self.packages.clone())
    }

    pub fn installed(&self) -> Vec<String> {
        let mut names: Vec<String> = homes::installed(&self.layout).unwrap().iter().map(HomeName::to_string).collect();
        names.sort();
        names
    }

    /// Whether nothing of an unfinished upgrade is left.
    pub fn is_clean(&self) -> bool {
        let names = HostDisk.list(&self.layout.homes()).unwrap();
        let left = [self.layout.downloads(), self.layout.upgrade()];
        names.iter().all(|name| name.parse::<HomeName>().is_ok()) && left.iter().all(|path| !path.try_exists().unwrap())
    }
}

/// The program of a version: long enough for several parts.
pub fn program(version: &str) -> Vec<u8> {
    version.bytes().cycle().take(200_000).collect()
}

pub fn name(version: &str) -> HomeName {
    HomeName::new(version, &muster_core::hex::sha256(&program(version))).unwrap()
}

/// Checks that a home is complete.
pub fn assert_complete(layout: &Layout, name: &HomeName) {
    let home = layout.home(name);
    assert_eq!(fs_err::read(home.path().join(PROGRAM)).unwrap(), program(name.version()), "{name}");
    if name.version() == NEW {
        assert!(home.components().join("log.spec.yml").try_exists().unwrap(), "{name}");
    }
}
