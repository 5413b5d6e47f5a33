//! Downloads a package: in ranges, with retries, and with its hash computed on the way.

use muster_core::error_chain::chain;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA512};
use bytes::Bytes;
use camino::Utf8Path;
use muster_core::Entropy;
use muster_core::time::Clock;
use tokio::time::Instant;

use super::details::{Metadata, Stage};
use super::disk::Disk;
use super::package::Package;
use super::source::{FetchError, Source};
use super::{Failed, Progress};
use crate::backoff::Backoff;
use muster_core::hex;

/// Bytes per request.
const RANGE: u64 = 1 << 20;
/// Minimum of the first delay before a retry.
const BACKOFF_INIT: Duration = Duration::from_secs(5);
/// Maximum delay.
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// What a download needs besides its source.
#[derive(Clone)]
pub struct Downloader {
    /// Where packages are.
    pub source: Source,
    /// Writes the file.
    pub disk: Arc<dyn Disk>,
    /// Wall-clock time, for reports.
    pub clock: Arc<dyn Clock>,
    /// Randomness of delays.
    pub entropy: Arc<dyn Entropy>,
    /// When retries end.
    pub deadline: Instant,
    /// Where to report progress.
    pub progress: Progress,
}

fn failed(message: impl Into<String>) -> Failed {
    Failed::new(Stage::Downloading, message)
}

impl Downloader {
    /// Returns a small file as a whole.
    pub async fn fetch(&self, name: &str, limit: usize) -> Result<Bytes, Failed> {
        let length = u64::try_from(limit).unwrap_or(u64::MAX);
        // One byte more than allowed, so that a larger file is noticed.
        let bytes = self.range(name, 0, length.saturating_add(1)).await?;
        if bytes.len() > limit {
            return Err(failed(format!("{name} is larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Downloads the archive of a package to `path`, and verifies its hash. Continues an interrupted download.
    pub async fn archive(&self, name: &str, package: &Package, path: &Utf8Path) -> Result<(), Failed> {
        let outcome = match self.attempt(name, package, path).await {
            // The part that was on disk may be of another attempt, and is not worth more than one try.
            Err(Outcome::Resumed) => {
                self.disk.remove(path).map_err(|error| failed(chain(&error).to_string()))?;
                self.attempt(name, package, path).await
            }
            other => other,
        };
        outcome.map_err(|outcome| {
            // A file that is not what it should be must not be found by anyone (AG170).
            let _ = self.disk.remove(path);
            match outcome {
                Outcome::Failed(failed) => failed,
                Outcome::Resumed => failed(format!("{name} does not match its SHA-512")),
            }
        })
    }

    async fn attempt(&self, name: &str, package: &Package, path: &Utf8Path) -> Result<(), Outcome> {
        let mut hash = Context::new(&SHA512);
        let begin = existing(path, package.size, &mut hash);
        let (mut length, started) = (begin, Instant::now());
        while length < package.size {
            let bytes = self.range(name, length, RANGE.min(package.size - length)).await?;
            let left = usize::try_from(package.size - length).unwrap_or(usize::MAX);
            if bytes.is_empty() {
                return Err(failed(format!("{name} is shorter than its manifest says")).into());
            }
            // A source may send more than was asked for.
            let bytes = bytes.slice(..bytes.len().min(left));
            self.disk.append(path, length, &bytes).map_err(|error| failed(format!("{path}: {error}")))?;
            hash.update(&bytes);
            length += u64::try_from(bytes.len()).unwrap_or(0);
            self.report(package.size, length, length - begin, started);
        }
        if hex::encode(hash.finish().as_ref()) == package.sha512 {
            return Ok(());
        }
        Err(if begin > 0 { Outcome::Resumed } else { failed(format!("{name} does not match its SHA-512")).into() })
    }

    fn report(&self, size: u64, length: u64, received: u64, started: Instant) {
        let seconds = started.elapsed().as_secs_f64().max(0.001);
        let (part, rate) = (length as f64 / size.max(1) as f64, received as f64 / seconds);
        let metadata = Metadata { download_percent: Some(part), download_rate: Some(rate), ..Metadata::default() };
        self.progress.set(Stage::Downloading, metadata);
    }

    /// Reads a range; retries until the deadline.
    async fn range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes, Failed> {
        let mut backoff = Backoff::new(BACKOFF_INIT, BACKOFF_MAX);
        loop {
            let error = match self.source.read(name, offset, length).await {
                Ok(bytes) => return Ok(bytes),
                Err(FetchError::Final(error)) => return Err(failed(error)),
                Err(FetchError::Temporary(error)) => error,
            };
            let wait = backoff.next(&*self.entropy);
            if Instant::now() + wait > self.deadline {
                return Err(failed(error));
            }
            tracing::warn!(error, ?wait, "failed to download the package; retrying");
            let left = self.deadline.saturating_duration_since(Instant::now());
            let until = self.clock.now().plus(left).to_rfc3339_seconds();
            let metadata = Metadata { retry_error_msg: Some(error), retry_until: Some(until), ..Metadata::default() };
            self.progress.set(Stage::Downloading, metadata);
            tokio::time::sleep(wait).await;
        }
    }
}

enum Outcome {
    Failed(Failed),
    /// The hash of a download that was continued does not match.
    Resumed,
}

impl From<Failed> for Outcome {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// Returns how much of the file is on disk, and adds it to the hash. A file that cannot be used counts as empty.
fn existing(path: &Utf8Path, size: u64, hash: &mut Context) -> u64 {
    let mut context = Context::new(&SHA512);
    let mut read = || -> std::io::Result<u64> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        // Longer than it can be: it is another file.
        if length > size {
            return Ok(0);
        }
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(total);
            }
            context.update(&buffer[..count]);
            total += u64::try_from(count).unwrap_or(0);
        }
    };
    match read() {
        Ok(length) if length > 0 => {
            *hash = context;
            length
        }
        _ => 0,
    }
}
