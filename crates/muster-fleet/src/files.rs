//! The service of files: uploads from agents, files for agents, artifacts of policies. This module authorizes downloads
//! (EA §7.3) and streams a file's bytes.

use std::sync::Arc;

use bytes::Bytes;
use muster_core::Entropy;
use muster_core::Error;
use muster_core::agent::Family;
use muster_core::denial::Denial;
use muster_core::error_chain::chain;
use muster_core::file::{ChunkInfo, DeliverableFile};
use muster_core::id::FileId;
use muster_core::package;
use muster_core::time::Clock;
use muster_store::FileStore;
use tokio::sync::mpsc;

use super::authority::System;
use super::registry::AgentEntry;
use super::watched_store::WatchedStore;

/// Maximum bytes of one piece of the stream.
const PIECE: usize = 64 * 1024;

/// A byte range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset of the first byte.
    pub first: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Returns whether an agent may fetch a file: its own, or a package, which is for every muster-agent.
fn may_fetch(entry: &AgentEntry, file: &DeliverableFile) -> bool {
    let is_package = || file.agents.is_empty() && package::is_package_file(file.id.as_str());
    let is_muster = || entry.record().is_some_and(|record| record.family == Family::Muster);
    file.agents.contains(entry.id()) || (is_package() && is_muster())
}

/// A chunk, and the range of it to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// Number of the chunk.
    pub(super) number: i64,
    /// Offset of its first byte.
    pub(super) start: usize,
    /// Offset after its last byte.
    pub(super) end: usize,
}

/// Uploads, files for agents, and artifacts.
pub struct Files {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
}

impl Files {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { store, clock, entropy }
    }

    /// Returns the file with that id, if the agent may fetch it.
    pub async fn deliverable(&self, entry: &AgentEntry, id: &str) -> Result<DeliverableFile, Error> {
        let found = match FileId::parse(id) {
            Ok(id) => self.store.everywhere(entry).file(&id).await?,
            Err(_) => None,
        };
        found.filter(|file| may_fetch(entry, file)).ok_or_else(|| Denial::UnknownFile.into())
    }

    /// Streams a byte range in pieces. `guard` is dropped after the last piece was received or the reader is gone. If a
    /// read fails, the stream ends early, which the reader notices by the missing bytes.
    pub async fn read_file(
        &self,
        file: &DeliverableFile,
        piece: Piece,
        guard: impl Send + 'static,
    ) -> Result<mpsc::Receiver<Bytes>, Error> {
        // Authorized by `deliverable` or `download`, which return the file.
        let chunks = self.store.everywhere(&System).chunks(&file.id).await?;
        let stored: u64 = chunks.iter().map(|chunk| u64::try_from(chunk.length).unwrap_or(0)).sum();
        if stored != u64::try_from(file.size).unwrap_or(0) {
            return Err(Denial::FileGone.into());
        }
        // One piece of buffer: a slow reader must slow down the reads, not fill the memory.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(send(self.store.share_files(), file.id.clone(), slices(&chunks, piece), sender, guard));
        Ok(receiver)
    }
}

/// Reads slices one after the other, and sends their bytes until the receiver is gone.
pub(super) async fn send(
    store: Arc<dyn FileStore>,
    file: FileId,
    slices: impl IntoIterator<Item = Slice, IntoIter: Send> + Send,
    sender: mpsc::Sender<Bytes>,
    _guard: impl Send + 'static,
) {
    for Slice { number, start, end } in slices {
        let chunk = match store.chunk(&file, number).await {
            Ok(Some(bytes)) if bytes.len() >= end => bytes,
            Ok(_) => return tracing::error!(%file, number, "a chunk of a file is missing"),
            Err(error) => {
                return tracing::error!(%file, number, error = %chain(&error), "failed to read a chunk of a file");
            }
        };
        // Copied in pieces: a stalled reader then costs one chunk and a few pieces, instead of three chunks.
        for piece in chunk[start..end].chunks(PIECE) {
            if sender.send(Bytes::copy_from_slice(piece)).await.is_err() {
                return;
            }
        }
    }
}

/// Returns the chunk ranges that make up `piece`.
fn slices(chunks: &[ChunkInfo], piece: Piece) -> Vec<Slice> {
    let mut offset = 0u64;
    let mut wanted = Vec::new();
    for chunk in chunks {
        let length = u64::try_from(chunk.length).unwrap_or(0);
        let start = piece.first.clamp(offset, offset + length) - offset;
        let end = piece.first.saturating_add(piece.length).clamp(offset, offset + length) - offset;
        if start < end {
            // Both are at most the length of a chunk, so the casts can't truncate.
            wanted.push(Slice { number: chunk.number, start: start as usize, end: end as usize });
        }
        offset += length;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ea135_byte_range_maps_to_chunk_ranges() {
        let chunks: Vec<_> = [10, 10, 5]
            .into_iter()
            .zip(0..)
            .map(|(length, number)| ChunkInfo { number, length, sha256: [0; 32] })
            .collect();
        let cut = |first, length| {
            let slices = slices(&chunks, Piece { first, length });
            slices.into_iter().map(|slice| (slice.number, slice.start, slice.end)).collect::<Vec<_>>()
        };
        assert_eq!(cut(0, 25), [(0, 0, 10), (1, 0, 10), (2, 0, 5)]);
        assert_eq!(cut(9, 2), [(0, 9, 10), (1, 0, 1)]);
        assert_eq!(cut(10, 10), [(1, 0, 10)]);
        assert_eq!(cut(24, 1), [(2, 4, 5)]);
        assert_eq!(cut(25, 0), []);
    }
}
