//! Packages: an archive, and a manifest that describes it and is signed with a release key.
//!
//! The manifest covers the name, the version, the platform and the SHA-512 of the archive, so that whoever controls a
//! mirror can neither change a package nor offer one version under the name of another.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use muster_core::error_chain::SharedError;
use serde::{Deserialize, Serialize};

use crate::paths::PROGRAM;
use muster_core::hex;

/// Format of the manifest.
const FORMAT: u32 = 1;
/// Maximum size of a manifest, bytes.
pub const MANIFEST_MAX: usize = 64 << 10;
/// Maximum size of an archive, bytes.
pub const ARCHIVE_MAX: u64 = 100 << 20;
/// Maximum size of the unpacked files, bytes.
pub const UNPACKED_MAX: u64 = 400 << 20;
/// Maximum number of signatures that are tried.
const SIGNATURES_MAX: usize = 8;

/// The signed part of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// 1.
    pub format: u32,
    /// `muster-agent`.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Operating system: `linux`.
    pub os: String,
    /// Processor: `x86_64`.
    pub arch: String,
    /// Size of the archive, bytes.
    pub size: u64,
    /// SHA-512 of the archive, lower-case hex.
    pub sha512: String,
    /// Total size of the files in the archive, bytes.
    pub unpacked_size: u64,
}

/// A manifest: the signed part as base64, so that exactly its bytes are verified, and signatures of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Base64 of the JSON of a [`Package`].
    pub package: String,
    /// Ed25519 signatures in base64. One by a trusted key is sufficient; during a change of keys, there are two.
    pub signatures: Vec<String>,
}

/// Why a manifest is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// It is malformed.
    #[error("malformed manifest: {0}")]
    Malformed(#[source] SharedError),
    /// The agent has no key to verify it with.
    #[error("this agent has no release key; set upgrade.keys in agent.yml")]
    NoKey,
    /// No signature is by a trusted key.
    #[error("the manifest is not signed with a trusted release key")]
    Signature,
    /// It describes something else.
    #[error("the manifest is for another {0}")]
    Other(&'static str),
    /// A size exceeds its limit.
    #[error("the package is larger than the maximum of {0} bytes")]
    TooLarge(u64),
}

/// Returns the common part of the names of the files of a package for this platform.
pub fn stem(version: &str) -> String {
    format!("{PROGRAM}-{version}-{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Returns the name of the archive.
pub fn archive_name(version: &str) -> String {
    format!("{}.tar.gz", stem(version))
}

/// Returns the name of the manifest.
pub fn manifest_name(version: &str) -> String {
    format!("{}.manifest.json", stem(version))
}

/// Verifies a manifest with any of `keys`, and that it describes `version` for this platform.
pub fn verify(manifest: &[u8], version: &str, keys: &[ReleaseKey]) -> Result<Package, BadManifest> {
    let malformed = |error: SharedError| BadManifest::Malformed(error);
    let manifest: Manifest = serde_json::from_slice(manifest).map_err(|error| malformed(error.into()))?;
    let signed = STANDARD.decode(&manifest.package).map_err(|error| malformed(error.into()))?;
    if keys.is_empty() {
        return Err(BadManifest::NoKey);
    }
    let signatures: Vec<Vec<u8>> =
        manifest.signatures.iter().take(SIGNATURES_MAX).filter_map(|text| STANDARD.decode(text).ok()).collect();
    let is_signed = keys.iter().any(|key| signatures.iter().any(|signature| key.has_signed(&signed, signature)));
    // Before the content is interpreted: nothing in it can be trusted yet.
    if !is_signed {
        return Err(BadManifest::Signature);
    }
    let package: Package = serde_json::from_slice(&signed).map_err(|error| malformed(error.into()))?;
    check(&package, version)?;
    Ok(package)
}

fn check(package: &Package, version: &str) -> Result<(), BadManifest> {
    if package.format != FORMAT {
        return Err(BadManifest::Other("format"));
    }
    if package.name != PROGRAM {
        return Err(BadManifest::Other("program"));
    }
    if package.version != version {
        return Err(BadManifest::Other("version"));
    }
    if (package.os.as_str(), package.arch.as_str()) != (std::env::consts::OS, std::env::consts::ARCH) {
        return Err(BadManifest::Other("platform"));
    }
    for (size, limit) in [(package.size, ARCHIVE_MAX), (package.unpacked_size, UNPACKED_MAX)] {
        if size > limit {
            return Err(BadManifest::TooLarge(limit));
        }
    }
    Ok(())
}

/// Returns a description of an archive of this version for this platform.
pub fn describe(version: &str, archive: &[u8], unpacked_size: u64) -> Package {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, archive);
    Package {
        format: FORMAT,
        name: PROGRAM.to_owned(),
        version: version.to_owned(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        size: u64::try_from(archive.len()).unwrap_or(u64::MAX),
        sha512: hex::encode(digest.as_ref()),
        unpacked_size,
    }
}

/// Public half of a release key: an Ed25519 key in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseKey(Vec<u8>);

/// A malformed release key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid release key {0:?}: expected an Ed25519 public key, 32 bytes in base64")]
pub struct BadKey(String);

impl ReleaseKey {
    /// Parses a key.
    pub fn parse(text: &str) -> Result<Self, BadKey> {
        let bytes = STANDARD.decode(text.trim()).ok().filter(|bytes| bytes.len() == 32);
        bytes.map(Self).ok_or_else(|| BadKey(text.chars().take(100).collect()))
    }

    /// Returns the keys that this program was built with. They are separated by commas.
    pub fn built_in() -> Vec<Self> {
        let text = option_env!("MUSTER_RELEASE_KEYS").unwrap_or_default();
        // A malformed key is left out. Without any, every manifest is rejected.
        text.split(',').filter_map(|key| Self::parse(key).ok()).collect()
    }

    fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(bytes, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::pack::SigningKey;

    fn signed(change: impl FnOnce(&mut Package), key: &SigningKey) -> Vec<u8> {
        let mut package = describe("0.2.0", b"archive", 7);
        change(&mut package);
        key.manifest(&package).unwrap()
    }

    #[test]
    fn ag121_only_a_manifest_of_a_trusted_key_for_this_version_and_platform_is_accepted() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let keys = [other.public().unwrap(), key.public().unwrap()];
        let good = signed(|_| {}, &key);
        assert_eq!(verify(&good, "0.2.0", &keys).unwrap().size, 7);
        assert_eq!(verify(&good, "0.2.0", &[]), Err(BadManifest::NoKey));
        assert_eq!(verify(&good, "0.2.0", &keys[..1]), Err(BadManifest::Signature));
        assert_eq!(verify(&good, "0.3.0", &keys), Err(BadManifest::Other("version")), "not under another name");
        let foreign = signed(|package| package.arch = "s390".into(), &key);
        assert_eq!(verify(&foreign, "0.2.0", &keys), Err(BadManifest::Other("platform")));
        let bomb = signed(|package| package.unpacked_size = UNPACKED_MAX + 1, &key);
        assert_eq!(verify(&bomb, "0.2.0", &keys), Err(BadManifest::TooLarge(UNPACKED_MAX)));
        let mut changed: Manifest = serde_json::from_slice(&good).unwrap();
        changed.package = STANDARD.encode(serde_json::to_vec(&describe("0.2.0", b"evil", 7)).unwrap());
        let changed = serde_json::to_vec(&changed).unwrap();
        assert_eq!(verify(&changed, "0.2.0", &keys), Err(BadManifest::Signature));
        assert!(matches!(verify(b"<html>", "0.2.0", &keys), Err(BadManifest::Malformed(_))));
    }

    #[test]
    fn a_release_key_has_32_bytes() {
        assert!(ReleaseKey::parse(&STANDARD.encode([1; 32])).is_ok());
        for bad in ["", "AAAA", "not base64!"] {
            assert!(ReleaseKey::parse(bad).is_err(), "{bad}");
        }
    }
}
