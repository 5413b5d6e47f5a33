//! Certificates and keys that a policy or an action gives as PEM, or as the path of a file.

use std::io::Read as _;

use camino::Utf8Path;
use muster_core::error_chain::chain;

use super::tls::check_authority;
use crate::regular_file;

/// Maximum size of a file.
const FILE_MAX: u64 = 1 << 20;

/// Returns the PEM text. The error is for people.
pub fn text(given: &str) -> Result<String, String> {
    if given.contains("-----BEGIN") {
        return Ok(given.to_owned());
    }
    let text = read(given).map_err(|error| format!("{given}: {error}"))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_MAX {
        return Err(format!("{given} is larger than {FILE_MAX} bytes"));
    }
    Ok(text)
}

fn read(path: &str) -> std::io::Result<String> {
    let file = regular_file::open(Utf8Path::new(path))?;
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Returns the certificates of an authority, after it was checked that they can be used. The error is for people.
pub fn authority(given: &str) -> Result<String, String> {
    let pem = text(given)?;
    check_authority(&pem).map_err(|error| chain(&error).to_string())?;
    Ok(pem)
}
