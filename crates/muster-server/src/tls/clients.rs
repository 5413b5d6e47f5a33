//! Certificates of clients: the CAs that issue them, and which of them are revoked.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::TlsError;
use super::file::{read_client_cas, read_revocations};
use super::validity::Warning;
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
        let cas = config.client_ca.as_deref().map(read_client_cas).transpose()?.unwrap_or_default();
        let revocations = config.client_crl.as_deref().map(read_revocations).transpose()?.unwrap_or_default();
        Ok(Self { cas, revocations })
    }

    /// Returns warnings about certificates that no client can chain to, and lists that revoke nothing.
    pub fn warnings(&self) -> Vec<Warning> {
        let cas: Vec<_> = self.cas.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
        let leaf = |certificate: &&X509Certificate<'_>| !certificate.is_ca();
        let leaves = cas.iter().filter(leaf).map(|certificate| {
            let subject = certificate.subject();
            format!("tls.client_ca contains the certificate of {subject}, which is not a CA: use the certificate of the CA that issues client certificates")
        });
        let lists = self.revocations.iter().filter_map(|der| Some(CertificateRevocationList::from_der(der).ok()?.1));
        let is_known = |issuer: &[u8]| cas.iter().any(|ca| ca.subject().as_raw() == issuer);
        let others = lists.filter(|list| !is_known(list.issuer().as_raw())).map(|list| {
            let issuer = list.issuer();
            format!("tls.client_crl contains a list of {issuer}, which is not in tls.client_ca: it revokes nothing, unless clients present that CA's certificate")
        });
        leaves.chain(others).map(|text| Warning { text, keeps_agents_out: false }).collect()
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
        verifier
            .build()
            .map(Some)
            .map_err(|error| TlsError::Pem { file: format!("{path} (tls.client_ca)"), source: error.into() })
    }
}
