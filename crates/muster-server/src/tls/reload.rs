//! Looks after certificates while the server runs: changed files, SIGHUP, expiry, changed external URLs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use camino::Utf8PathBuf;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Tls;
use muster_core::error_chain::chain;

const LOOK: Duration = Duration::from_secs(5);
const RENEW: Duration = Duration::from_secs(3600);
/// Between two reminders of certificates that need attention.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// Modification times of files; `None` for one that can't be looked at.
type Stamps = Vec<Option<SystemTime>>;

/// Reloads on SIGHUP and when a file changed, renews the own certificate before it expires and when a URL of the fleet
/// has another host; ends with `shutdown`.
///
/// The signal is taken before this returns: until then it would end the process.
pub fn watch(tls: Arc<Tls>, shutdown: CancellationToken) -> impl Future<Output = ()> + Send {
    let hangup = signal(SignalKind::hangup())
        .inspect_err(|error| warn!(error = %chain(error), "failed to install the handler of SIGHUP"))
        .ok();
    follow(tls, shutdown, hangup)
}

async fn follow(tls: Arc<Tls>, shutdown: CancellationToken, mut hangup: Option<Signal>) {
    let mut look = interval(LOOK);
    let mut seen = stamps(&tls.files());
    let (mut renewed, mut reminded) = (Instant::now(), Instant::now());
    let mut urls = tls.external_urls.clone();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = hung_up(&mut hangup) => reload(&tls, "SIGHUP"),
            // Agents are told the new URL at once: the certificate must cover its host.
            () = changed(&mut urls) => {
                renew(&tls);
                seen = stamps(&tls.files());
            }
            _ = look.tick() => {
                let now = stamps(&tls.files());
                if now != seen {
                    reload(&tls, "a changed file");
                }
                seen = now;
                if renewed.elapsed() >= RENEW {
                    renewed = Instant::now();
                    renew(&tls);
                    seen = stamps(&tls.files());
                }
                if reminded.elapsed() >= REMIND {
                    reminded = Instant::now();
                    tls.warn();
                }
            }
        }
    }
}

async fn changed(urls: &mut watch::Receiver<Vec<String>>) {
    if urls.changed().await.is_err() {
        // The fleet is gone; nothing changes any more.
        std::future::pending::<()>().await;
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn reload(tls: &Tls, why: &str) {
    match tls.reload() {
        Ok(()) => info!(why, "certificates reloaded"),
        Err(error) => warn!(why, error = %chain(&error), "failed to reload certificates; keeping the current ones"),
    }
}

fn renew(tls: &Tls) {
    match tls.renew() {
        Ok(true) => info!("the server's certificate was renewed"),
        Ok(false) => {}
        Err(error) => warn!(error = %chain(&error), "failed to renew the server's certificate"),
    }
}

fn stamps(files: &[Utf8PathBuf]) -> Stamps {
    let stamp = |file: &Utf8PathBuf| fs_err::metadata(file).and_then(|data| data.modified()).ok();
    files.iter().map(stamp).collect()
}
