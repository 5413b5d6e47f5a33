//! The file of a backup: a tar archive with a manifest, which has the checksum of each file that follows.

use muster_core::error_chain::chain;
use std::io::{Read, Seek as _, Write};

use aws_lc_rs::digest::{Context, SHA256};
use camino::{Utf8Path, Utf8PathBuf};
use muster_core::shell;
use serde::{Deserialize, Serialize};

use crate::commands::failure::Failed;

/// Name and version of the format.
pub const FORMAT: &str = "muster backup 1";
/// Name of the first file.
pub const MANIFEST: &str = "manifest.json";
/// Size of the units of a tar archive.
const BLOCK: u64 = 512;
/// Maximum length of a manifest in bytes.
const MAX_MANIFEST: u64 = 1 << 20;
/// Maximum length of a file that is read into memory.
const MAX_SMALL: u64 = 64 * 1024;
/// Bytes per read.
const PIECE: usize = 64 * 1024;

/// What the archive contains.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// The id of the fleet.
    pub fleet: String,
    /// When the backup was created (RFC 3339).
    pub created_at: String,
    /// Version of the server that created it.
    pub version: String,
    /// The files that follow, in their order.
    pub files: Vec<Packed>,
}

/// A file in the archive.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Packed {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
}

/// Computes the checksum of a file.
pub struct Digest(Context);

impl Digest {
    /// Starts with an empty file.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the checksum in hex.
    pub fn hex(self) -> String {
        muster_core::hex::encode(self.0.finish().as_ref())
    }
}

impl Packed {
    /// Describes a file in memory.
    pub fn of(name: &str, bytes: &[u8]) -> Self {
        let mut digest = Digest::new();
        digest.add(bytes);
        Self { name: name.to_owned(), size: bytes.len() as u64, sha256: digest.hex() }
    }
}

/// Returns the header of a file.
pub fn header(name: &str, size: u64) -> std::io::Result<[u8; 512]> {
    // GNU's format, because that of POSIX has no sizes above 8 GiB.
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Returns the zeros that follow the content of a file.
pub fn padding(size: u64) -> Vec<u8> {
    vec![0; usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0)]
}

/// Returns the end of the archive.
pub fn end() -> [u8; 1024] {
    // Two blocks of zeros.
    [0; 1024]
}

/// An archive on disk.
pub struct Archive {
    path: Utf8PathBuf,
    file: std::fs::File,
    /// Its manifest.
    pub manifest: Manifest,
}

/// Receives the number of bytes of each read.
pub type Watch<'w> = dyn FnMut(u64) + 'w;

impl Archive {
    /// Opens an archive and verifies all checksums.
    pub fn open(path: &Utf8Path, watch: &mut Watch<'_>) -> Result<Self, Failed> {
        let file = std::fs::File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Failed::not_found(format!("{path} does not exist")),
            _ => Failed::new(format!("cannot read {path}: {error}")),
        })?;
        let manifest = manifest(&file).map_err(|reason| Failed::new(format!("{path} is not a backup: {reason}")))?;
        let archive = Self { path: path.to_owned(), file, manifest };
        // All of them, before anything of the archive is used.
        for packed in archive.manifest.files.clone() {
            archive.read(&packed, &mut std::io::sink(), watch)?;
        }
        Ok(archive)
    }

    /// Whether the archive has a file.
    pub fn find(&self, name: &str) -> Option<Packed> {
        self.manifest.files.iter().find(|packed| packed.name == name).cloned()
    }

    /// Reads a small file.
    pub fn small(&self, packed: &Packed) -> Result<Vec<u8>, Failed> {
        if packed.size > MAX_SMALL {
            return Err(self.damaged(&packed.name, "is too long"));
        }
        let mut bytes = Vec::new();
        self.read(packed, &mut bytes, &mut |_| ())?;
        Ok(bytes)
    }

    /// Writes the content of a file to `to`, and verifies its checksum.
    pub fn read(&self, packed: &Packed, to: &mut dyn Write, watch: &mut Watch<'_>) -> Result<(), Failed> {
        let failed = |error: std::io::Error| Failed::new(format!("{}: {}: {error}", self.path, packed.name));
        let mut file = &self.file;
        file.rewind().map_err(failed)?;
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries().map_err(failed)? {
            let mut entry = entry.map_err(failed)?;
            // The first file of this name counts, here as well as when it is restored.
            if entry.path_bytes().as_ref() != packed.name.as_bytes() {
                continue;
            }
            let (mut digest, mut size, mut piece) = (Digest::new(), 0, vec![0; PIECE]);
            loop {
                let read = entry.read(&mut piece).map_err(failed)?;
                if read == 0 {
                    break;
                }
                digest.add(&piece[..read]);
                to.write_all(&piece[..read]).map_err(failed)?;
                size += read as u64;
                watch(read as u64);
            }
            return match size == packed.size && digest.hex() == packed.sha256 {
                true => Ok(()),
                false => Err(self.damaged(&packed.name, "differs from its checksum")),
            };
        }
        Err(self.damaged(&packed.name, "is missing"))
    }

    fn damaged(&self, name: &str, what: &str) -> Failed {
        Failed::new(format!("{}: {name} {what}: the backup is damaged", self.path))
            .remedy(format!("use another backup; tar tf {} lists its files", shell::argument(self.path.as_str())))
    }
}

fn manifest(file: &std::fs::File) -> Result<Manifest, String> {
    let mut archive = tar::Archive::new(file);
    let mut entries = archive.entries().map_err(|error| chain(&error).to_string())?;
    // The message of the library quotes the file.
    let first = entries.next().ok_or("it is empty")?.map_err(|_| "it is not a tar archive")?;
    if first.path_bytes().as_ref() != MANIFEST.as_bytes() {
        return Err(format!("it does not begin with {MANIFEST}"));
    }
    let manifest: Manifest =
        serde_json::from_reader(first.take(MAX_MANIFEST)).map_err(|error| format!("{MANIFEST}: {error}"))?;
    match manifest.format == FORMAT {
        true => Ok(manifest),
        false => Err(format!("the format is {:?}; this program reads {FORMAT:?}", manifest.format)),
    }
}
