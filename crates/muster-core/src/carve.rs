//! Carves: archives of files that osqueryd uploads in blocks, because a query called `carve()` (FL §1.9).
//!
//! A host has at most one carve in progress, because osqueryd carves one after the other. Its blocks come in order. A block that is
//! refused ends the carve: osqueryd goes on with the next one, and would call an archive with a hole a success (FL165).

use std::time::Duration;

use crate::credential::SecretHash;
use crate::error::Error;
use crate::fleetd::live;
use crate::id::{AgentId, FileId, HostId, SpaceId};
use crate::time::Timestamp;

/// Maximum length of an archive that any configuration allows, bytes (FL38).
pub const MAX_SIZE: u64 = 8 << 30;
/// Maximum length of a block, bytes. orbit sends 2,000,000, older versions 8,000,000. Each is in memory while it is stored.
pub const MAX_BLOCK: u64 = 8 << 20;
/// Maximum length of the request with a block: base64, and room for the ids.
pub const MAX_BLOCK_BODY: usize = (MAX_BLOCK as usize).div_ceil(3) * 4 + 4096;
/// Maximum length of a session id and of a request id, bytes.
pub const MAX_ID: usize = 255;
/// Maximum time from the beginning of a carve to its last block, and time for which a complete archive is kept after it.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Time for which the record of a carve is kept after it began.
pub const RECORD_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Maximum number of records of a host; the oldest that ended are deleted.
pub const MAX_RECORDS: u64 = 100;
/// First bytes of an archive that osqueryd compressed.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What osqueryd announces when it begins a carve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Number of blocks.
    pub block_count: u64,
    /// Length of every block but the last, bytes.
    pub block_size: u64,
    /// Length of the archive, bytes.
    pub size: u64,
    /// osqueryd's id of the carve.
    pub carve_id: String,
    /// Name of the query that carved; empty for a scheduled one.
    pub request_id: String,
}

impl Announced {
    /// Validates the numbers and ids. An archive may have at most `max_bytes`.
    pub fn check(&self, max_bytes: u64) -> Result<(), Error> {
        let limit = max_bytes.min(MAX_SIZE);
        if self.size == 0 || self.size > limit {
            return Err(Error::invalid("carve_size", format!("must be from 1 to {limit} bytes")));
        }
        if self.block_size == 0 || self.block_size > MAX_BLOCK {
            return Err(Error::invalid("block_size", format!("must be from 1 to {MAX_BLOCK} bytes")));
        }
        if self.block_count != self.size.div_ceil(self.block_size) {
            return Err(Error::invalid("block_count", "does not fit carve_size and block_size"));
        }
        for (field, id) in [("carve_id", &self.carve_id), ("request_id", &self.request_id)] {
            if id.len() > MAX_ID || id.chars().any(char::is_control) {
                let reason = format!("must have at most {MAX_ID} bytes, without control characters");
                return Err(Error::invalid(field, reason));
            }
        }
        Ok(())
    }
}

/// State of a carve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarveState {
    /// Blocks are arriving.
    Receiving,
    /// The archive is complete.
    Complete,
    /// A block was refused, or the carve took too long. Its bytes are deleted.
    Failed,
    /// It was complete, and its bytes are deleted.
    Expired,
}

impl CarveState {
    const ALL: [Self; 4] = [Self::Receiving, Self::Complete, Self::Failed, Self::Expired];

    /// Returns the word for the API and the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    /// Parses a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// A carve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carve {
    /// Id, under which its blocks are stored too.
    pub id: FileId,
    /// The space of the host.
    pub space: SpaceId,
    /// The osquery agent that carves.
    pub agent: AgentId,
    /// Its host.
    pub host: Option<HostId>,
    /// Name of the host.
    pub hostname: String,
    /// What was announced.
    pub announced: Announced,
    /// Hash of the session id, which authenticates the blocks.
    pub session: SecretHash,
    /// Number of blocks that are stored.
    pub blocks: u64,
    /// Whether the archive is compressed with zstd, known from the first block.
    pub is_compressed: bool,
    /// State.
    pub state: CarveState,
    /// Why it failed.
    pub error: Option<String>,
    /// Time of the beginning.
    pub began_at: Timestamp,
    /// Time of the end.
    pub ended_at: Option<Timestamp>,
    /// Time at which its bytes are deleted, or at which it fails if it is not complete.
    pub expires_at: Timestamp,
}

/// What a block changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether it is the last one.
    pub is_last: bool,
    /// Whether the archive is compressed.
    pub is_compressed: bool,
}

impl Carve {
    /// Returns the id of the live query that carved, if it was one.
    pub fn query(&self) -> Option<&str> {
        self.announced.request_id.strip_prefix(live::PREFIX)
    }

    /// Returns the name for a file with the archive.
    pub fn file_name(&self) -> String {
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let host: String = self.hostname.chars().take(64).map(safe).collect();
        let extension = if self.is_compressed { "tar.zst" } else { "tar" };
        format!("carve-{host}-{}.{extension}", self.id)
    }

    /// Returns the number of bytes that are stored.
    pub fn received(&self) -> u64 {
        self.announced.size.min(self.blocks.saturating_mul(self.announced.block_size))
    }

    /// Returns the length that a block must have.
    pub fn length_of(&self, block: u64) -> u64 {
        let before = block.saturating_mul(self.announced.block_size);
        self.announced.size.saturating_sub(before).min(self.announced.block_size)
    }

    /// Decides whether a block is the next one, and has the length that was announced. The error is the reason for the list of
    /// carves.
    pub fn take(&self, block: u64, data: &[u8]) -> Result<Taken, String> {
        if self.state != CarveState::Receiving {
            return Err(match &self.error {
                Some(reason) => format!("the carve has ended: {reason}"),
                None => "the carve has ended".to_owned(),
            });
        }
        if block != self.blocks {
            return Err(format!("received block {block} instead of block {}", self.blocks));
        }
        let (length, expected) = (data.len() as u64, self.length_of(block));
        if length != expected {
            return Err(format!("block {block} has {length} bytes instead of the announced {expected}"));
        }
        let is_compressed = if block == 0 { data.starts_with(&ZSTD_MAGIC) } else { self.is_compressed };
        Ok(Taken { is_last: block + 1 == self.announced.block_count, is_compressed })
    }
}

/// Maximum number of paths of a carve that is requested, and length of each, bytes.
const MAX_PATHS: usize = 20;
const MAX_PATH: usize = 1024;

/// Returns the SQL of a query that makes osqueryd upload the files with some paths as one archive. `%` in a path matches any part of a name,
/// and `%%` at the end everything below a directory.
pub fn query_of(paths: &[String]) -> Result<String, Error> {
    if paths.is_empty() || paths.len() > MAX_PATHS {
        return Err(Error::invalid("paths", format!("name 1 to {MAX_PATHS} paths, one per line")));
    }
    if let Some(bad) = paths.iter().find(|path| path.len() > MAX_PATH || path.chars().any(char::is_control)) {
        let begin: String = bad.chars().take(40).collect();
        let reason = format!("{begin:?}: at most {MAX_PATH} bytes, without control characters");
        return Err(Error::invalid("paths", reason));
    }
    let condition = |path: &String| {
        let operator = if path.contains('%') { "LIKE" } else { "=" };
        format!("path {operator} '{}'", path.replace('\'', "''"))
    };
    let conditions: Vec<String> = paths.iter().map(condition).collect();
    Ok(format!("SELECT path, carve(path) FROM file WHERE {}", conditions.join(" OR ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn announced(block_count: u64, block_size: u64, size: u64) -> Announced {
        Announced { block_count, block_size, size, carve_id: "c".into(), request_id: format!("{}9", live::PREFIX) }
    }

    fn carve(announced: Announced) -> Carve {
        Carve {
            id: FileId::trusted("f"),
            space: SpaceId::default(),
            agent: AgentId::trusted("a"),
            host: None,
            hostname: "web 7/..".into(),
            announced,
            session: SecretHash::of(b"s"),
            blocks: 0,
            is_compressed: false,
            state: CarveState::Receiving,
            error: None,
            began_at: at(0),
            ended_at: None,
            expires_at: at(9),
        }
    }

    #[test]
    fn fl38_sizes_that_do_not_fit_are_rejected() {
        assert!(announced(3, 2_000_000, 5_120_000).check(MAX_SIZE).is_ok());
        assert!(announced(1, 8192, 1).check(MAX_SIZE).is_ok());
        let most = MAX_SIZE.div_ceil(MAX_BLOCK);
        assert!(announced(most, MAX_BLOCK, MAX_SIZE).check(u64::MAX).is_ok());
        for (bad, field) in [
            (announced(1, 8192, 0), "carve_size"),
            (announced(most + 1, MAX_BLOCK, MAX_SIZE + 1), "carve_size"),
            (announced(1, 0, 1), "block_size"),
            (announced(1, MAX_BLOCK + 1, 1), "block_size"),
            (announced(1, (256 << 20) + 1, 1), "block_size"),
            (announced(2, 8192, 8192), "block_count"),
            (announced(1, 8192, 8193), "block_count"),
            (announced(u64::MAX, 1, 5), "block_count"),
            (Announced { carve_id: "x".repeat(256), ..announced(1, 1, 1) }, "carve_id"),
            (Announced { request_id: "\0".into(), ..announced(1, 1, 1) }, "request_id"),
        ] {
            assert_eq!(bad.check(u64::MAX).unwrap_err().field.as_deref(), Some(field), "{bad:?}");
        }
        assert!(announced(1, 8192, 100).check(99).is_err(), "the configured limit counts too");
    }

    #[test]
    fn fl39_blocks_are_taken_in_order_with_their_announced_length() {
        let mut carve = carve(announced(3, 4, 9));
        let taken = |carve: &Carve, block, data: &[u8]| carve.take(block, data).map(|taken| taken.is_last);
        assert_eq!(taken(&carve, 0, b"abcd"), Ok(false));
        for (block, data) in [(1, b"abcd".as_slice()), (0, b"abc"), (0, b"abcde"), (0, b""), (u64::MAX, b"")] {
            assert!(carve.take(block, data).is_err(), "{block}");
        }
        carve.blocks = 2;
        assert_eq!(taken(&carve, 2, b"a"), Ok(true), "the last block may be short");
        assert!(carve.take(2, b"abcd").is_err(), "and has what is left");
        assert_eq!(carve.received(), 8);
        (carve.state, carve.error) = (CarveState::Failed, Some("x".into()));
        assert_eq!(carve.take(2, b"a"), Err("the carve has ended: x".into()));
    }

    #[test]
    fn fl40_a_compressed_archive_is_recognized() {
        let mut carve = carve(announced(2, 4, 8));
        carve.is_compressed = carve.take(0, &ZSTD_MAGIC).unwrap().is_compressed;
        assert!(carve.is_compressed && carve.file_name().ends_with(".tar.zst"));
        carve.blocks = 1;
        assert!(carve.take(1, b"abcd").unwrap().is_compressed);
        assert_eq!(carve.query(), Some("9"));
        carve.is_compressed = false;
        assert_eq!(carve.file_name(), "carve-web_7_..-f.tar");
    }

    #[test]
    fn states_are_read_back() {
        for state in CarveState::ALL {
            assert_eq!(CarveState::parse(state.as_str()), Some(state));
        }
        assert_eq!(CarveState::parse("x"), None);
    }

    #[test]
    fn a_carve_of_paths_is_one_query_without_injection() {
        let paths = |all: &[&str]| all.iter().map(|&path| path.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            query_of(&paths(&["/etc/hosts", "/var/log/it's/%"])).unwrap(),
            "SELECT path, carve(path) FROM file WHERE path = '/etc/hosts' OR path LIKE '/var/log/it''s/%'"
        );
        let long = "/".repeat(2000);
        for bad in [&[][..], &["a\0"], &[long.as_str()], &["/a"; 21]] {
            assert_eq!(query_of(&paths(bad)).unwrap_err().field.as_deref(), Some("paths"));
        }
    }
}
