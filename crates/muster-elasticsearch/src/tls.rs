//! Trust in a cluster: given certificates, a CA with a given fingerprint, or the platform's roots.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use muster_fleet::output_keys::issuer::IssueError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::settings::Ssl;

/// What is verified of a cluster's certificate (`ssl.verification_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The chain and the name.
    Full,
    /// The chain.
    Certificate,
    /// Nothing.
    None,
}

fn unusable(reason: impl Into<String>) -> IssueError {
    IssueError::Unusable(reason.into())
}

/// Returns the TLS configuration of a client.
pub(crate) fn client_config(ssl: &Ssl) -> Result<ClientConfig, IssueError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(format!("TLS setup failed: {error}")))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Trust::new(ssl, provider)?));
    let (Some(certificate), Some(key)) = (&ssl.certificate, &ssl.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(certificate, "ssl.certificate")?;
    // The reason of a malformed key could contain parts of it.
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| unusable("`ssl.key` is not a private key"))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| unusable(format!("`ssl.certificate`: {error}")))
}

fn certificates(pem: &str, field: &str) -> Result<Vec<CertificateDer<'static>>, IssueError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| unusable(format!("`{field}`: malformed certificate: {error}")))?;
    if all.is_empty() { Err(unusable(format!("`{field}` contains no certificate"))) } else { Ok(all) }
}

/// A CA fingerprint: 64 hexadecimal digits, with or without colons.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u32>> = text.trim().chars().filter(|c| *c != ':').map(|c| c.to_digit(16)).collect();
    let bytes: Option<Vec<u8>> = digits?.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair.get(1)?).ok()).collect();
    bytes?.try_into().ok()
}

#[derive(Debug)]
struct Trust {
    mode: Mode,
    pin: Option<[u8; 32]>,
    /// Given certificates; `None` means the platform's.
    roots: Option<RootCertStore>,
    platform: Option<rustls_platform_verifier::Verifier>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    fn new(ssl: &Ssl, provider: Arc<CryptoProvider>) -> Result<Self, IssueError> {
        let mode = match ssl.verification_mode.as_deref() {
            None | Some("full" | "strict" | "") => Mode::Full,
            Some("certificate") => Mode::Certificate,
            Some("none") => Mode::None,
            Some(_) => return Err(unusable("`ssl.verification_mode` must be full, strict, certificate or none")),
        };
        let pin = ssl.ca_trusted_fingerprint.as_deref().filter(|text| !text.is_empty());
        let invalid = || unusable("`ca_trusted_fingerprint` is not a hexadecimal SHA-256");
        let pin = pin.map(|text| fingerprint(text).ok_or_else(invalid)).transpose()?;
        let mut roots = RootCertStore::empty();
        for pem in &ssl.certificate_authorities {
            for certificate in certificates(pem, "ssl.certificate_authorities")? {
                let added = roots.add(certificate);
                added.map_err(|error| unusable(format!("`ssl.certificate_authorities`: {error}")))?;
            }
        }
        let roots = Some(roots).filter(|roots| !roots.is_empty());
        let platform = match &roots {
            None => Some(
                rustls_platform_verifier::Verifier::new(Arc::clone(&provider))
                    .map_err(|error| unusable(format!("cannot load the system's trust store: {error}")))?,
            ),
            Some(_) => None,
        };
        Ok(Self { mode, pin, roots, platform, provider })
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pin.is_some_and(|pin| digest(&SHA256, certificate).as_ref() == pin)
    }

    /// Verifies a chain that ends in one of `roots`.
    fn verify_by(
        &self,
        roots: &RootCertStore,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(chain.0)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, chain.1, now, algorithms)?;
        self.verify_name(&parsed, name)
    }

    fn verify_name(
        &self,
        certificate: &ParsedCertificate<'_>,
        name: &ServerName<'_>,
    ) -> Result<ServerCertVerified, Error> {
        if self.mode == Mode::Full {
            verify_server_name(certificate, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.mode == Mode::None {
            return Ok(ServerCertVerified::assertion());
        }
        // A self-signed certificate that is trusted itself: there is no chain to verify.
        if self.is_pinned(end_entity) {
            return self.verify_name(&ParsedCertificate::try_from(end_entity)?, server_name);
        }
        if let Some(pinned) = intermediates.iter().find(|certificate| self.is_pinned(certificate)) {
            let mut root = RootCertStore::empty();
            root.add(pinned.clone().into_owned())?;
            return self.verify_by(&root, (end_entity, intermediates), server_name, now);
        }
        if let Some(roots) = &self.roots {
            return self.verify_by(roots, (end_entity, intermediates), server_name, now);
        }
        let Some(platform) = &self.platform else { return Err(CertificateError::UnknownIssuer.into()) };
        match platform.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is verified first.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.mode == Mode::Certificate => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
