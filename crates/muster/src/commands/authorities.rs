//! Files with certificates of authorities, as people give them: what is wrong with one is told with its name.

use camino::Utf8Path;
use muster_core::pem::no_certificate;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::failure::Failed;

const REMEDY: &str = "give the PEM file of the authority; for a server with a CA of its own: ca.crt in its data folder";

/// Reads the file, and makes sure that it holds certificates and nothing that is none.
pub fn read(file: &Utf8Path) -> Result<Vec<u8>, Failed> {
    let wrong = |reason: &str| Failed::usage(format!("--ca: {file}: {reason}")).remedy(REMEDY);
    let bytes = std::fs::read(file).map_err(|error| wrong(&format!("can't read it: {error}")))?;
    if let Some(reason) = no_certificate(&bytes) {
        return Err(wrong(&reason));
    }
    let mut roots = RootCertStore::empty();
    for (place, certificate) in CertificateDer::pem_slice_iter(&bytes).enumerate() {
        let damaged = |error: &dyn std::fmt::Display| wrong(&format!("certificate {} is damaged: {error}", place + 1));
        roots.add(certificate.map_err(|error| damaged(&error))?).map_err(|error| damaged(&error))?;
    }
    Ok(bytes)
}
