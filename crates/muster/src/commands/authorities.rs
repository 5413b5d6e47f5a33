//! CA certificate files.

use camino::Utf8Path;
use muster_core::pem::no_certificate;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::failure::Failed;

const REMEDY: &str =
    "pass the PEM file of the CA; on the host of a server with its own CA: muster ca export --out ca.crt";

/// Reads a PEM file and checks that it contains valid certificates and nothing else.
pub fn read(file: &Utf8Path) -> Result<Vec<u8>, Failed> {
    let wrong = |reason: &str| Failed::usage(format!("--ca: {file}: {reason}")).remedy(REMEDY);
    let bytes = std::fs::read(file).map_err(|error| wrong(&format!("cannot read the file: {error}")))?;
    if let Some(reason) = no_certificate(&bytes) {
        return Err(wrong(&reason));
    }
    let mut roots = RootCertStore::empty();
    for (place, certificate) in CertificateDer::pem_slice_iter(&bytes).enumerate() {
        let damaged = |error: &dyn std::fmt::Display| wrong(&format!("certificate {} is corrupt: {error}", place + 1));
        roots.add(certificate.map_err(|error| damaged(&error))?).map_err(|error| damaged(&error))?;
    }
    Ok(bytes)
}
