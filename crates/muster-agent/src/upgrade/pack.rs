//! Makes packages. `cargo xtask release` and tests use it; the agent itself never does.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use muster_core::error_chain::chain;

use super::package::{Manifest, Package, ReleaseKey, describe, stem};
use crate::paths::PROGRAM;

/// Name of the file in a package that contains its version.
pub const VERSION_FILE: &str = "package.version";

/// Private half of a release key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

impl std::fmt::Debug for SigningKey {
    /// Omits the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Generates a key.
    pub fn generate() -> Result<Self, String> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| "cannot generate a release key".to_owned())?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// Loads a key from PKCS#8.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|error| format!("invalid release key: {error}"))?;
        Ok(Self { pair, pkcs8: pkcs8.to_vec() })
    }

    /// Returns the key as PKCS#8.
    pub fn to_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Returns the public half in base64.
    pub fn public_text(&self) -> String {
        STANDARD.encode(self.pair.public_key().as_ref())
    }

    /// Returns the public half.
    pub fn public(&self) -> Result<ReleaseKey, String> {
        ReleaseKey::parse(&self.public_text()).map_err(|error| chain(&error).to_string())
    }

    /// Returns the signed manifest of a package.
    pub fn manifest(&self, package: &Package) -> Result<Vec<u8>, String> {
        let bytes = serde_json::to_vec(package).map_err(|error| chain(&error).to_string())?;
        let signature = STANDARD.encode(self.pair.sign(&bytes).as_ref());
        let manifest = Manifest { package: STANDARD.encode(&bytes), signatures: vec![signature] };
        serde_json::to_vec_pretty(&manifest).map_err(|error| chain(&error).to_string())
    }
}

/// A package: the contents of its two files.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The archive.
    pub archive: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

/// Makes a package of a program and other files, which are named relative to the versioned home.
pub fn pack(version: &str, program: &[u8], others: &[(&str, &[u8])], key: &SigningKey) -> Result<Packed, String> {
    pack_at(Compression::best(), version, program, others, key)
}

/// Makes a package with another compression.
pub fn pack_at(
    compression: Compression,
    version: &str,
    program: &[u8],
    others: &[(&str, &[u8])],
    key: &SigningKey,
) -> Result<Packed, String> {
    let version_line = format!("{version}\n");
    let mut files = vec![(PROGRAM, program, 0o755), (VERSION_FILE, version_line.as_bytes(), 0o644)];
    files.extend(others.iter().map(|(name, content)| (*name, *content, 0o644)));
    let archive = archive(compression, &stem(version), &files).map_err(|error| chain(&error).to_string())?;
    let unpacked = files.iter().map(|(_, content, _)| u64::try_from(content.len()).unwrap_or(u64::MAX)).sum();
    let manifest = key.manifest(&describe(version, &archive, unpacked))?;
    Ok(Packed { archive, manifest })
}

fn archive(compression: Compression, top: &str, files: &[(&str, &[u8], u32)]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), compression));
    for (name, content, mode) in files {
        let mut header = tar::Header::new_gnu();
        // Owner and time stay 0, so that the same files give the same archive.
        header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
        header.set_mode(*mode);
        builder.append_data(&mut header, format!("{top}/{name}"), *content)?;
    }
    builder.into_inner()?.finish()
}
