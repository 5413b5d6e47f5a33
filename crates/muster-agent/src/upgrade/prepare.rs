//! Prepares the home of another version: manifest, free space, archive, files.

use std::io::Read;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use muster_core::Entropy;
use muster_core::time::Clock;
use tokio::time::Instant;

use super::details::{Metadata, Stage};
use super::disk::Disk;
use super::download::Downloader;
use super::package::{self, MANIFEST_MAX, Package, ReleaseKey};
use super::source::Source;
use super::switch::{STAGING, remove_staging};
use super::{Failed, Progress, unpack};
use crate::homes::HomeName;
use crate::paths::{Layout, PROGRAM};
use muster_core::hex;

/// Space that must stay free for the state of the agent, bytes.
const RESERVE: u64 = 16 << 20;

/// A preparation.
pub struct Preparation {
    /// Base path.
    pub layout: Layout,
    /// Changes the disk.
    pub disk: Arc<dyn Disk>,
    /// Places with packages. The first that has the manifest is used.
    pub sources: Vec<Source>,
    /// Keys that packages must be signed with.
    pub keys: Vec<ReleaseKey>,
    /// When retries end.
    pub deadline: Instant,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Randomness of delays.
    pub entropy: Arc<dyn Entropy>,
    /// Where to report progress.
    pub progress: Progress,
}

impl Preparation {
    /// Prepares the home of `version` and returns its name.
    pub async fn run(&self, version: &str) -> Result<HomeName, Failed> {
        self.progress.set(Stage::Downloading, Metadata::default());
        let (downloader, package) = self.manifest(version).await?;
        self.check_space(&package)?;
        let (name, downloads) = (package::archive_name(version), self.layout.downloads());
        self.disk.create_dir(&downloads).map_err(|error| failed(Stage::Downloading, error))?;
        let archive = downloads.join(&name);
        downloader.archive(&name, &package, &archive).await?;
        self.progress.set(Stage::Extracting, Metadata::default());
        let home = self.home(version, &package, archive).await;
        // A package that cannot be unpacked is not worth its space.
        let _ = self.disk.remove_dir(&downloads);
        home.map_err(|error| failed(Stage::Extracting, error))
    }

    async fn manifest(&self, version: &str) -> Result<(Downloader, Package), Failed> {
        let mut error = Failed::new(
            Stage::Downloading,
            "no download source: pass --source-uri, or set upgrade.source_uri in agent.yml",
        );
        for source in &self.sources {
            let downloader = self.downloader(source);
            match downloader.fetch(&package::manifest_name(version), MANIFEST_MAX).await {
                Ok(manifest) => {
                    let package = package::verify(&manifest, version, &self.keys)
                        .map_err(|error| failed(Stage::Downloading, error))?;
                    return Ok((downloader, package));
                }
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    fn downloader(&self, source: &Source) -> Downloader {
        Downloader {
            source: source.clone(),
            disk: self.disk.clone(),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            deadline: self.deadline,
            progress: self.progress.clone(),
        }
    }

    /// Checks the free space before the download (AG123).
    fn check_space(&self, package: &Package) -> Result<(), Failed> {
        let free = self.disk.free(self.layout.base()).map_err(|error| failed(Stage::Downloading, error))?;
        let needed = package.size + package.unpacked_size + RESERVE;
        if free >= needed {
            return Ok(());
        }
        let base = self.layout.base();
        let message = format!("not enough disk space in {base}: {needed} bytes are needed, {free} are free");
        Err(Failed::new(Stage::Downloading, message))
    }

    /// Unpacks the archive, outside of the loop of the agent, because it takes time.
    async fn home(&self, version: &str, package: &Package, archive: Utf8PathBuf) -> std::io::Result<HomeName> {
        let (disk, layout) = (self.disk.clone(), self.layout.clone());
        let (version, limit) = (version.to_owned(), package.unpacked_size);
        let work = move || unpack_home(&*disk, &layout, &version, &archive, limit);
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }
}

fn unpack_home(
    disk: &dyn Disk,
    layout: &Layout,
    version: &str,
    archive: &Utf8Path,
    limit: u64,
) -> std::io::Result<HomeName> {
    disk.create_dir(&layout.homes())?;
    remove_staging(disk, layout)?;
    let staging = layout.homes().join(STAGING);
    unpack::unpack(disk, archive, &staging, limit)?;
    let digest = digest(&staging.join(PROGRAM))?;
    let name = HomeName::new(version, &digest).map_err(std::io::Error::other)?;
    // A home under its name is complete, because only this rename creates it.
    if disk.installed(layout)?.contains(&name) {
        disk.remove_dir(&staging)?;
    } else {
        disk.rename(&staging, layout.home(&name).path())?;
    }
    Ok(name)
}

/// Returns the SHA-256 of a file.
fn digest(path: &Utf8Path) -> std::io::Result<[u8; 32]> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(package::UNPACKED_MAX).read_to_end(&mut bytes)?;
    Ok(hex::sha256(&bytes))
}

fn failed(stage: Stage, error: impl std::fmt::Display) -> Failed {
    Failed::new(stage, error.to_string())
}
