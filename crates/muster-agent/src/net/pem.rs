//! Certificates and keys that a policy or an action gives as PEM, or as the path of a file.

use std::io::Read as _;

use muster_core::error_chain::chain;

use super::tls::check_authority;

/// Maximum size of a file.
const FILE_MAX: u64 = 1 << 20;

/// Returns the PEM text. The error is for people.
pub fn text(given: &str) -> Result<String, String> {
    if given.contains("-----BEGIN") {
        return Ok(given.to_owned());
    }
    let mut text = String::new();
    let read = fs_err::File::open(given).and_then(|file| file.take(FILE_MAX + 1).read_to_string(&mut text));
    let length = read.map_err(|error| chain(&error).to_string())?;
    if u64::try_from(length).unwrap_or(u64::MAX) > FILE_MAX {
        return Err(format!("{given} is larger than {FILE_MAX} bytes"));
    }
    Ok(text)
}

/// Returns the certificates of an authority, after it was checked that they can be used. The error is for people.
pub fn authority(given: &str) -> Result<String, String> {
    let pem = text(given)?;
    check_authority(&pem).map_err(|error| chain(&error).to_string())?;
    Ok(pem)
}
