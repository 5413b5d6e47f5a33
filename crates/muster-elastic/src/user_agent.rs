//! Checks the agent's version in `User-Agent` (EA §1.7).

use muster_core::version::{AcceptedVersions, Version};

/// Prefix of every agent's header, in lower case.
const PREFIX: &str = "elastic agent ";
/// Maximum bytes of the header.
const MAX_HEADER_BYTES: usize = 256;

/// An accepted version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedVersion {
    /// Without a leading `v` and without a suffix: `9.6.0` (EA33).
    pub version: String,
    /// Whether its minor version is higher than the newest one that this server was tested with.
    pub newer_than_tested: bool,
}

/// Why a version is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedVersion {
    /// The header is not `Elastic Agent <version>`.
    #[error("user-agent is invalid")]
    Invalid,
    /// The version is outside the accepted range.
    #[error("version is not supported")]
    Unsupported,
}

/// Checks a `User-Agent` header. An absent header is passed as an empty one (D19).
pub fn check(accepted: &AcceptedVersions, header: &str) -> Result<AcceptedVersion, RefusedVersion> {
    let version = read(header).ok_or(RefusedVersion::Invalid)?;
    if !accepted.admits(version) {
        return Err(RefusedVersion::Unsupported);
    }
    // Accepted but marked: operators see which agents run a version that was never tested with this server.
    let newer_than_tested = accepted.is_newer_than_tested(version);
    Ok(AcceptedVersion { version: version.to_string(), newer_than_tested })
}

fn read(header: &str) -> Option<Version> {
    // `get`, because the prefix's length may fall inside a UTF-8 character of another client's header.
    let prefix = header.get(..PREFIX.len())?;
    if header.len() > MAX_HEADER_BYTES || !prefix.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    Version::parse(&header[PREFIX.len()..])
}

#[cfg(test)]
mod tests;
