//! Trust in receivers: given CAs, or those of the system.

use muster_core::error_chain::chain;
use std::sync::Arc;

use muster_fleet::alerts::sender::SendError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Returns the certificates of a PEM text.
fn certificates(field: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, SendError> {
    let unusable = |reason: String| SendError::Unusable { field, reason };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| unusable(format!("malformed certificate: {error}")))?;
    if all.is_empty() { Err(unusable("contains no certificate".to_owned())) } else { Ok(all) }
}

/// Rejects a text that contains no CA certificates.
pub(crate) fn check(field: &'static str, ca: Option<&str>) -> Result<(), SendError> {
    ca.map_or(Ok(()), |pem| roots(field, pem).map(drop))
}

fn roots(field: &'static str, pem: &str) -> Result<RootCertStore, SendError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(field, pem)? {
        let added = roots.add(certificate);
        added.map_err(|error| SendError::Unusable { field, reason: chain(&error).to_string() })?;
    }
    Ok(roots)
}

/// Returns the TLS configuration for a receiver.
pub(crate) fn client_config(field: &'static str, ca: Option<&str>) -> Result<ClientConfig, SendError> {
    let failed = |error: rustls::Error| SendError::Failed(format!("TLS setup failed: {error}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    Ok(match ca {
        Some(pem) => builder.with_root_certificates(roots(field, pem)?).with_no_client_auth(),
        None => {
            // The method is called dangerous because of what other verifiers could accept.
            let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(failed)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    })
}
