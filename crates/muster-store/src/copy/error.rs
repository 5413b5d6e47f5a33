//! Errors of a copy.

use super::Place;
use crate::engine::error::{EngineError, OpenError};

/// Why a store was not copied. The source is unchanged in any case.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The source is missing or has no fleet.
    #[error("{0} contains no fleet")]
    NoFleet(String),
    /// The source and the target are the same.
    #[error("the source and the target are the same: {0}")]
    Same(String),
    /// Servers use a store.
    #[error(
        "{place} is in use by: {nodes}; stop these servers first (the lease of a crashed server expires after 15 s)"
    )]
    InUse {
        /// Where the store is.
        place: String,
        /// Names of the servers.
        nodes: String,
    },
    /// The target has rows and is not the copy of this source that an earlier run began.
    #[error("{place} is not empty: {found}; choose an empty target, or delete its contents")]
    NotEmpty {
        /// Where the target is.
        place: String,
        /// What it contains.
        found: String,
    },
    /// The source was changed since the copy was begun.
    #[error("{0} has changed since the copy began: stop its servers, delete the target, and copy again")]
    Changed(String),
    /// A row can't be read.
    #[error("{place}, table {table}, row {key}: {source}")]
    Row {
        /// Where the store is.
        place: String,
        /// The table.
        table: &'static str,
        /// The key of the row.
        key: String,
        /// What is wrong with it.
        source: EngineError,
    },
    /// A row is not the same on both sides.
    #[error("the copy differs from its source in table {table}, row {key}: {found}; delete the target, and copy again")]
    Differs {
        /// The table.
        table: &'static str,
        /// The key of the row.
        key: String,
        /// The difference.
        found: &'static str,
    },
    /// The copy was stopped on request.
    #[error("interrupted while copying table {table}; to resume, run the command again")]
    Stopped {
        /// The table.
        table: &'static str,
    },
    /// The snapshot was aborted on request.
    #[error("aborted")]
    Aborted,
    /// The file contains another fleet than the one that is expected.
    #[error("{place} contains the fleet {found}, not {expected}")]
    OtherFleet {
        /// Where the store is.
        place: String,
        /// The id of its fleet.
        found: String,
        /// The id of the expected one.
        expected: String,
    },
    /// An engine failed.
    #[error("{place}: {doing}: {source}")]
    Engine {
        /// Where the store is.
        place: String,
        /// What was being done.
        doing: String,
        /// The engine's error.
        source: EngineError,
    },
}

/// The error of an engine while doing something.
pub(super) fn engine(place: &Place, doing: impl Into<String>) -> impl FnOnce(EngineError) -> CopyError {
    let (place, doing) = (place.to_string(), doing.into());
    move |source| CopyError::Engine { place, doing, source }
}
