//! Certificates of clients: the CAs that issue them, and which of them are revoked.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::TlsError;
use super::file::{read_certificates, read_revocations};
use crate::config::TlsConfig;

/// What the certificates of clients are verified with.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Clients {
    /// The CAs. Empty if client certificates are not configured.
    pub cas: Vec<CertificateDer<'static>>,
    revocations: Vec<CertificateRevocationListDer<'static>>,
}

impl Clients {
    /// Reads the configured files.
    pub fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        let cas = config.client_ca.as_deref().map(read_certificates).transpose()?.unwrap_or_default();
        let revocations = config.client_crl.as_deref().map(read_revocations).transpose()?.unwrap_or_default();
        Ok(Self { cas, revocations })
    }

    /// Returns the verifier of the handshake; `None` without a CA.
    ///
    /// It accepts clients without a certificate also where one is required: only a request shows whether it is for a path
    /// that needs one.
    pub fn verifier(
        &self,
        config: &TlsConfig,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let Some(path) = &config.client_ca else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in &self.cas {
            roots.add(certificate.clone())?;
        }
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .with_crls(self.revocations.iter().cloned())
            .allow_unauthenticated();
        if !self.revocations.is_empty() {
            // Only certificates of hosts are revoked here; a CA is removed from `tls.client_ca`.
            verifier = verifier.only_check_end_entity_revocation();
        }
        verifier.build().map(Some).map_err(|error| TlsError::file(path, error))
    }
}
