//! The memory of a server that waits.

use std::convert::Infallible;
use std::sync::Weak;
use std::time::Duration;

use muster_core::error_chain::chain;
use muster_store::SqlStore;
use tokio::time::sleep;
use tracing::debug;

/// Time after the start in which most servers have settled.
const SETTLED: Duration = Duration::from_secs(10);
/// Time after which memory is given back again: since then, work may have used other parts of the program.
const AGAIN: Duration = Duration::from_secs(60 * 60);

/// Gives back the program code that is mapped and no longer used, and what the store has cached, again and again. Most of it is needed
/// only at the start, and is three quarters of the memory of a server without agents. What is used again costs a page fault for each
/// 64 KiB of code, and a read of each page of the database from the kernel's cache.
pub(super) async fn give_back(store: Weak<SqlStore>) -> Infallible {
    let mut pause = SETTLED;
    loop {
        sleep(pause).await;
        if let Some(store) = store.upgrade()
            && let Err(error) = store.release_memory().await
        {
            debug!(error = %chain(&error), "the cache of the store stays in memory");
        }
        // After the store, whose last statements use code as well.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(muster_platform::memory::release_program_pages).await {
            debug!(error = %chain(&error), "unused program code stays in memory");
        }
        pause = AGAIN;
    }
}
