//! Snapshot of the file of a store while it is used.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::Connection;

use super::connection;
use crate::engine::error::OpenError;

/// Time between two reports of the progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Receives the bytes that are written, and those of the source.
type Report<'r> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'r;

/// Returns the size of the file with all changes that are still in the log.
pub(crate) fn bytes(path: &Path) -> Result<u64, OpenError> {
    pages(&connection::reader(path)?).map_err(OpenError::engine(format!("read the size of {}", path.display())))
}

fn pages(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let bytes = number("PRAGMA page_count")?.saturating_mul(number("PRAGMA page_size")?);
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Writes the state of the store to a new file, and syncs it. Other connections go on reading and writing. Returns `Break` if
/// `report` aborted it.
pub(crate) fn vacuum_into(path: &Path, to: &Path, report: &mut Report<'_>) -> Result<ControlFlow<()>, OpenError> {
    let doing = || format!("write a snapshot of {} to {}", path.display(), to.display());
    connection::create_private(to)?;
    let connection = connection::of_snapshots(path)?;
    let total = pages(&connection).map_err(OpenError::engine(doing()))?;
    // The only way to cancel VACUUM INTO from another thread.
    let interrupt = connection.get_interrupt_handle();
    let (sender, done) = mpsc::channel();
    let name = to.to_string_lossy().into_owned();
    let mut is_aborted = false;
    let written = std::thread::scope(|scope| {
        scope.spawn(move || {
            // The receiver is gone only after a panic.
            let _ = sender.send(connection.execute("VACUUM INTO ?1", [name]));
        });
        loop {
            match done.recv_timeout(REPORT_EVERY) {
                Ok(written) => return written.map(drop),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(rusqlite::Error::InvalidQuery),
            }
            // An estimate: the copy is smaller than its source, by the pages that are free.
            let bytes = std::fs::metadata(to).map_or(0, |file| file.len()).min(total);
            if report(bytes, total).is_break() {
                is_aborted = true;
                interrupt.interrupt();
            }
        }
    });
    match written {
        Err(_) if is_aborted => return Ok(ControlFlow::Break(())),
        written => written.map_err(OpenError::engine(doing()))?,
    }
    // The engine does not sync a file that it creates in this way.
    std::fs::File::open(to).and_then(|file| file.sync_all()).map_err(OpenError::io(doing()))?;
    Ok(report(total, total))
}
