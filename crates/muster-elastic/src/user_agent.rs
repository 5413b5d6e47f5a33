//! Which agents are let in, by the version in their `User-Agent` (EA §1.7).

use muster_core::version::{AcceptedVersions, Version};

/// What every agent's header begins with, in lower case.
const PREFIX: &str = "elastic agent ";
/// More of a header than this is never a version.
const MAX_HEADER_BYTES: usize = 256;

/// A version that is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedVersion {
    /// Without a leading `v` and without a suffix: `9.6.0` (EA33).
    pub version: String,
    /// Its minor is above what this server was tested with.
    pub newer_than_tested: bool,
}

/// Why an agent is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedVersion {
    /// No `Elastic Agent <version>`.
    #[error("user-agent is invalid")]
    Invalid,
    /// A version that this server does not serve.
    #[error("version is not supported")]
    Unsupported,
}

/// Checks a `User-Agent` header; an absent one is as good as an empty one (D19).
pub fn check(accepted: &AcceptedVersions, header: &str) -> Result<AcceptedVersion, RefusedVersion> {
    let version = read(header).ok_or(RefusedVersion::Invalid)?;
    if !accepted.admits(version) {
        return Err(RefusedVersion::Unsupported);
    }
    let newer_than_tested = accepted.is_newer_than_tested(version);
    Ok(AcceptedVersion { version: version.to_string(), newer_than_tested })
}

fn read(header: &str) -> Option<Version> {
    let prefix = header.get(..PREFIX.len())?;
    if header.len() > MAX_HEADER_BYTES || !prefix.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    Version::parse(&header[PREFIX.len()..])
}

#[cfg(test)]
mod tests;
