//! Uploads from agents: begin, chunks, completion (EA §7.2).
//!
//! All calls are idempotent (D6), because agents repeat a call if its response was lost.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use muster_core::Error;
use muster_core::denial::Denial;
use muster_core::entropy::random_uuid;
use muster_core::file::{CHUNK_BYTES, ChunkInfo, FileStatus, Upload};
use muster_core::hex;
use muster_core::id::{ActionId, FileId};
use muster_store::{FileWrite, Precondition, StoreError, Write};

use super::authority::System;
use super::files::Files;
use super::registry::AgentEntry;
use super::removed_files::remove_chunks;
use super::upload_limits::{LIFE, UploadLimits, over};

/// Valid sources. In Elastic's implementation, the source is part of storage names, so no other value is accepted (D8).
const SOURCES: [&str; 2] = ["agent", "endpoint"];

/// A received chunk.
#[derive(Debug)]
pub struct Chunk {
    /// Its number, from 0.
    pub number: i64,
    /// The hash in the request.
    pub sha256: [u8; 32],
    /// Its bytes.
    pub data: Bytes,
}

/// An upload that the agent may continue. Only the look-ups in this module construct one.
#[derive(Clone, Debug)]
pub struct OpenUpload(Upload);

impl OpenUpload {
    /// Rejects agents other than the one that started the upload.
    fn of(upload: Upload, entry: &AgentEntry) -> Result<Self, Error> {
        if upload.agent_id == *entry.id() {
            return Ok(Self(upload));
        }
        Err(Denial::ForeignKey.into())
    }

    /// Maximum bytes of the chunk with that number: a full chunk, or the rest of the declared size for the last one.
    pub fn chunk_room(&self, number: i64) -> u64 {
        let before = u64::try_from(number).unwrap_or(u64::MAX).saturating_mul(CHUNK_BYTES);
        u64::try_from(self.0.size).unwrap_or(0).saturating_sub(before).min(CHUNK_BYTES)
    }

    /// Returns the error for a chunk with more bytes than that.
    pub fn chunk_too_long(&self, number: i64) -> Error {
        let (room, size) = (self.chunk_room(number), self.0.size);
        let message = format!("chunk {number} exceeds the {room} bytes that remain of the declared size {size}");
        Denial::UploadTooLarge.because(message)
    }
}

/// A decoded request to start an upload. Missing fields are reported by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewUpload<'a> {
    /// The action that requested the upload.
    pub action_id: Option<&'a str>,
    /// `agent` or `endpoint`.
    pub source: Option<&'a str>,
    /// File name.
    pub name: Option<&'a str>,
    /// MIME type.
    pub mime_type: Option<&'a str>,
    /// Bytes.
    pub size: Option<i64>,
}

impl Files {
    /// Starts an upload within `limits`. A repeated request returns the id of the existing upload, unless that failed.
    pub async fn begin_upload(
        &self,
        entry: &AgentEntry,
        new: &NewUpload<'_>,
        limits: &UploadLimits,
    ) -> Result<FileId, Error> {
        let upload = self.new_upload(entry, new, limits.max_bytes)?;
        let begun = self.store.everywhere(entry).upload_for(&upload.action_id, entry.id()).await?;
        let expired = match begun {
            // It would be rejected by the next call, so a retry must not get its id.
            Some(begun) if begun.is_open() && upload.started_at.since(begun.started_at) > LIFE => Some(begun.id),
            Some(begun) if !begun.is_failed() => return same_upload(&begun, &upload),
            _ => None,
        };
        // Before the quota: a full disk concerns everybody.
        limits.check_room(self.store.free_bytes(), u64::try_from(upload.size).unwrap_or(0))?;
        // A failed, deleted or expired upload does not block the action: the agent may start a new one. An expired one
        // still counts as open, so it is closed in the same commit.
        let close = |id| Write::File(FileWrite::UploadStatus { id, status: FileStatus::Deleted, transit_hash: None });
        let mut writes: Vec<Write> = expired.map(close).into_iter().collect();
        // The quota covers all uploads of the agent. It is checked in the commit: otherwise two concurrent requests,
        // perhaps to different nodes, could both take the last place.
        writes.push(Write::File(FileWrite::UploadFits {
            agent: entry.id().clone(),
            action: upload.action_id.clone(),
            quota: limits.quota(&upload),
        }));
        writes.push(Write::File(FileWrite::InsertUpload(Box::new(upload.clone()))));
        match self.store.commit(entry, writes).await {
            Ok(_) => {
                // Those of the upload that this one replaces.
                remove_chunks(&self.store).await;
                Ok(upload.id)
            }
            Err(StoreError::Conflict(Precondition::OverLimit(limit))) => Err(over(limit)),
            // Two concurrent requests for the same upload: both get the id of the one that was inserted.
            Err(StoreError::Conflict(Precondition::Exists(_) | Precondition::Missing(_))) => {
                let begun = self.store.everywhere(entry).upload_for(&upload.action_id, entry.id()).await?;
                same_upload(&begun.ok_or_else(|| Error::internal("an upload exists and does not"))?, &upload)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn new_upload(&self, entry: &AgentEntry, new: &NewUpload<'_>, max_bytes: u64) -> Result<Upload, Error> {
        if max_bytes == 0 {
            return Err(Denial::UploadsDisabled.into());
        }
        let name = short("file.name", required("file.name", new.name)?, MAX_NAME)?;
        let mime_type = short("file.mime_type", required("file.mime_type", new.mime_type)?, MAX_TYPE)?;
        let action_id = required("action_id", new.action_id)?;
        let source = required("src", new.source)?;
        Ok(Upload {
            id: FileId::trusted(random_uuid(&*self.entropy)),
            action_id: ActionId::parse(action_id)
                .map_err(|bad| Denial::UploadField.because(format!("action_id: {bad}")))?,
            agent_id: entry.id().clone(),
            source: known_source(source)?.to_owned(),
            name: name.to_owned(),
            mime_type: mime_type.to_owned(),
            size: checked_size(new.size, max_bytes)?,
            status: FileStatus::AwaitingUpload,
            started_at: self.clock.now(),
            transit_hash: None,
        })
    }

    /// Returns the upload if it accepts the chunk with that number. The checks are made in the order of the reference:
    /// unknown, expired, stopped, chunk number, and then the agent.
    pub async fn upload_for_chunk(&self, entry: &AgentEntry, id: &str, number: i64) -> Result<OpenUpload, Error> {
        let upload = self.upload_within_life(id).await?;
        if upload.status != FileStatus::AwaitingUpload {
            return Err(Denial::UploadStopped.into());
        }
        if !(0..chunk_count(upload.size)).contains(&number) {
            return Err(Denial::ChunkNumber.into());
        }
        // After the state, as in the reference, although it tells a stranger that the upload exists.
        OpenUpload::of(upload, entry)
    }

    /// Stores a chunk after verifying its size and hash.
    pub async fn put_chunk(
        &self,
        by: &AgentEntry,
        upload: &OpenUpload,
        chunk: Chunk,
        limits: &UploadLimits,
    ) -> Result<(), Error> {
        let Chunk { number, sha256, data } = chunk;
        if data.len() as u64 > upload.chunk_room(number) {
            // The adapter has read no more than this; checked again for callers that read otherwise.
            return Err(upload.chunk_too_long(number));
        }
        limits.check_room(self.store.free_bytes(), data.len() as u64)?;
        let mut context = Context::new(&SHA256);
        // Verified before the write, so that corrupt data never reaches the disk.
        context.update(&data);
        if context.finish().as_ref() != sha256 {
            return Err(Denial::ChunkHash.into());
        }
        let file = upload.0.id.clone();
        // The upload may have ended while this chunk was received. A complete one must not change any more, and data
        // of a deleted one would never be removed.
        let is_open = FileWrite::UploadIsOpen { id: file.clone(), chunks: None };
        let put = FileWrite::PutChunk { file, number, sha256, data: data.into() };
        match self.store.commit(by, vec![is_open.into(), put.into()]).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict(_)) => Err(Denial::UploadStopped.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the upload, if it exists and has not expired.
    pub async fn upload_to_complete(&self, entry: &AgentEntry, id: &str) -> Result<OpenUpload, Error> {
        OpenUpload::of(self.upload_within_life(id).await?, entry)
    }

    async fn upload_within_life(&self, id: &str) -> Result<Upload, Error> {
        let found = match FileId::parse(id) {
            Ok(id) => self.store.everywhere(&System).upload(&id).await?,
            Err(_) => None,
        };
        let upload = found.ok_or(Denial::UnknownUpload)?;
        if self.clock.now().since(upload.started_at) > LIFE {
            return Err(Denial::UploadExpired.into());
        }
        Ok(upload)
    }

    /// Completes an upload, if all chunks are stored and the transit hash matches their hashes (EA132). Idempotent. An
    /// upload that does not match is closed, and its chunks are deleted.
    pub async fn complete_upload(&self, by: &AgentEntry, upload: &OpenUpload, transit_hash: &str) -> Result<(), Error> {
        let upload = &upload.0;
        if transit_hash.is_empty() {
            return Err(Denial::UploadHashMissing.into());
        }
        // Hexadecimal digits of either case; stored in lower case.
        let given = transit_hash.to_ascii_lowercase();
        // A repeated request, because the response to the first one was lost.
        if upload.status == FileStatus::Ready && upload.transit_hash.as_ref() == Some(&given) {
            return Ok(());
        }
        if upload.status != FileStatus::AwaitingUpload {
            return Err(Denial::UploadClosed.into());
        }
        let chunks = self.store.everywhere(&System).chunks(&upload.id).await?;
        // Left open: the missing chunks can still be sent.
        if !is_whole(&chunks, chunk_count(upload.size)) {
            return Err(Denial::ChunksMissing.into());
        }
        let fits = lengths_fit(&chunks) && transit_hash_of(&chunks) == given;
        // Closed, not left open (EA132): the transit hash does not tell which chunk is wrong, so the agent must start
        // again.
        let status = if fits { FileStatus::Ready } else { FileStatus::UploadError };
        let transit_hash = fits.then_some(given);
        // The decision holds for these chunks only: the commit conflicts if one was replaced since.
        let is_open = FileWrite::UploadIsOpen { id: upload.id.clone(), chunks: Some(chunks) };
        let end = FileWrite::UploadStatus { id: upload.id.clone(), status, transit_hash };
        match self.store.commit(by, vec![is_open.into(), end.into()]).await {
            Ok(_) => {}
            Err(StoreError::Conflict(_)) => {
                return Err(Denial::UploadClosed.because("the upload changed while it was being completed"));
            }
            Err(error) => return Err(error.into()),
        }
        if fits {
            return Ok(());
        }
        remove_chunks(&self.store).await;
        Err(Denial::UploadInvalid.into())
    }
}

/// Maximum length of a file name in bytes. Four times what file systems allow, so no real name is rejected.
const MAX_NAME: usize = 1024;
/// Maximum length of a MIME type in bytes.
const MAX_TYPE: usize = 255;

fn short<'a>(field: &str, value: &'a str, max: usize) -> Result<&'a str, Error> {
    if value.len() <= max {
        return Ok(value);
    }
    Err(Denial::UploadField.because(format!("{field} has {} bytes; the maximum is {max}", value.len())))
}

fn required<'a>(field: &str, value: Option<&'a str>) -> Result<&'a str, Error> {
    value
        .filter(|text| !text.trim().is_empty())
        .ok_or_else(|| Denial::UploadField.because(format!("{field} is required")))
}

fn known_source(source: &str) -> Result<&'static str, Error> {
    let found = SOURCES.into_iter().find(|known| *known == source);
    found.ok_or_else(|| Denial::UploadField.because("src must be agent or endpoint"))
}

fn checked_size(size: Option<i64>, max_bytes: u64) -> Result<i64, Error> {
    let size = size.ok_or(Denial::UploadSizeMissing)?;
    match u64::try_from(size) {
        Ok(0) | Err(_) => Err(Denial::UploadSizeInvalid.into()),
        Ok(bytes) if bytes > max_bytes => Err(Denial::UploadTooLarge.into()),
        Ok(_) => Ok(size),
    }
}

/// Returns the id of the existing upload, if it is open and for the same file.
fn same_upload(begun: &Upload, again: &Upload) -> Result<FileId, Error> {
    if !begun.is_open() {
        return Err(Denial::UploadClosed.into());
    }
    if begun.name == again.name && begun.size == again.size && begun.source == again.source {
        return Ok(begun.id.clone());
    }
    Err(Denial::UploadStopped.because("another upload was started for this action"))
}

fn chunk_count(size: i64) -> i64 {
    let count = u64::try_from(size).unwrap_or(0).div_ceil(CHUNK_BYTES);
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn is_whole(chunks: &[ChunkInfo], count: i64) -> bool {
    chunks.iter().map(|chunk| chunk.number).eq(0..count)
}

/// Returns true if all chunks are full, except that the last may be shorter but not empty.
fn lengths_fit(chunks: &[ChunkInfo]) -> bool {
    let full = i64::try_from(CHUNK_BYTES).unwrap_or(i64::MAX);
    // No chunk at all is no upload.
    let Some((last, others)) = chunks.split_last() else { return false };
    (1..=full).contains(&last.length) && others.iter().all(|chunk| chunk.length == full)
}

/// SHA-256 over the concatenated raw hashes of the chunks, in lower-case hex.
fn transit_hash_of(chunks: &[ChunkInfo]) -> String {
    let mut context = Context::new(&SHA256);
    for chunk in chunks {
        context.update(&chunk.sha256);
    }
    hex::encode(context.finish().as_ref())
}

/// Parses 64 hexadecimal digits of either case.
pub fn sha256_from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_chunks::<2>().0) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(0)? << 4 | digit(1)?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(number: i64, length: i64) -> ChunkInfo {
        ChunkInfo { number, length, sha256: [7; 32] }
    }

    #[test]
    fn chunk_count_follows_from_the_size() {
        let full = CHUNK_BYTES as i64;
        for (size, count) in [(1, 1), (full, 1), (full + 1, 2), (3 * full, 3), (0, 0), (-5, 0)] {
            assert_eq!(chunk_count(size), count, "{size}");
        }
    }

    #[test]
    fn ea132_transit_hash_covers_the_raw_chunk_hashes() {
        let expected = hex::encode(aws_lc_rs::digest::digest(&SHA256, &[7; 64]).as_ref());
        assert_eq!(transit_hash_of(&[chunk(0, 1), chunk(1, 1)]), expected);
    }

    #[test]
    fn gaps_and_short_middle_chunks_are_detected() {
        let full = CHUNK_BYTES as i64;
        assert!(is_whole(&[chunk(0, full), chunk(1, 1)], 2));
        assert!(!is_whole(&[chunk(0, full), chunk(2, 1)], 2) && !is_whole(&[chunk(0, full)], 2));
        assert!(lengths_fit(&[chunk(0, full), chunk(1, full)]));
        assert!(!lengths_fit(&[chunk(0, full - 1), chunk(1, 1)]) && !lengths_fit(&[chunk(0, 0)]) && !lengths_fit(&[]));
    }

    #[test]
    fn hashes_are_parsed_in_either_case_and_other_input_is_rejected() {
        let text = hex::encode(&(0..32).map(|byte| byte * 8 + 3).collect::<Vec<u8>>());
        let hash = sha256_from_hex(&text).unwrap();
        assert_eq!(hex::encode(&hash), text);
        assert_eq!(sha256_from_hex(&text.to_uppercase()), Some(hash));
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(sha256_from_hex(bad), None, "{bad}");
        }
    }
}
