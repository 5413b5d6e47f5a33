//! Trust in the server: specified certificates, a pinned fingerprint, or the platform's trust store.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::state::enrollment::Trust;
use muster_core::error_chain::SharedError;
use muster_core::hex::sha256;

/// Why the TLS configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A PEM file contains a malformed certificate, or none.
    #[error("malformed certificate: {0}")]
    BadCertificate(#[source] SharedError),
    /// No specified certificate matches a specified fingerprint.
    #[error("no certificate in --certificate-authorities has a fingerprint from --ca-sha256")]
    OtherFingerprint,
    /// A fingerprint has an unknown format.
    #[error("invalid SHA-256 fingerprint {0:?}: expected 64 hex digits, or base64")]
    BadFingerprint(String),
    /// The agent's private key cannot be parsed.
    // Without the parser's reason, which could quote it.
    #[error("malformed private key of the agent's certificate")]
    BadKey,
    /// rustls or the platform returned an error.
    #[error("TLS setup failed: {0}")]
    Setup(#[source] SharedError),
}

/// Returns the TLS configuration for `trust`.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TrustError::Setup(error.into()))?;
    let verifier = Verifier::new(trust, provider)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &trust.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let key = PrivateKeyDer::from_pem_slice(client.key.expose().as_bytes()).map_err(|_| TrustError::BadKey)?;
            let chain = certificates(std::slice::from_ref(&client.certificate))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| TrustError::Setup(error.into()))?
        }
    };
    // Four sessions are enough for the servers of a fleet. Each session uses memory as long as the agent runs.
    config.resumption = rustls::client::Resumption::in_memory_sessions(4);
    Ok(Arc::new(config))
}

/// Returns the certificates in `pems`. If there are pins, returns only those that match one.
fn trusted(pems: &[String], pins: &[[u8; 32]]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let mut all = certificates(pems)?;
    // If both options are specified, a certificate must satisfy both.
    all.retain(|certificate| pins.is_empty() || has_pin(certificate, pins));
    if all.is_empty() { Err(TrustError::OtherFingerprint) } else { Ok(all) }
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|error| TrustError::BadCertificate(error.into()))?;
    }
    Ok(roots)
}

/// Checks that a PEM file contains certificates, and that each of them can be a root.
pub fn check_authority(pem: &str) -> Result<(), TrustError> {
    roots(&trusted(&[pem.to_owned()], &[])?).map(drop)
}

fn certificates(pems: &[String]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let mut all = Vec::new();
    for pem in pems {
        let before = all.len();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            all.push(certificate.map_err(|error| TrustError::BadCertificate(error.into()))?);
        }
        if all.len() == before {
            return Err(TrustError::BadCertificate("the file contains no certificate".into()));
        }
    }
    Ok(all)
}

/// Parses a fingerprint: 64 hex digits, with or without colons, or 32 bytes in base64.
pub fn fingerprint(text: &str) -> Result<[u8; 32], TrustError> {
    let bad = || TrustError::BadFingerprint(text.chars().take(100).collect());
    // openssl prints colons between bytes, and other tools add the algorithm as a prefix.
    let plain: String = text.trim().trim_start_matches("sha256:").chars().filter(|c| *c != ':').collect();
    // Elastic Agent expects base64 in this option.
    let bytes = if plain.len() == 64 { decode_hex(&plain) } else { STANDARD.decode(&plain).ok() };
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(bad)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|c| c.to_digit(16)).collect::<Option<Vec<_>>>()?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

/// Returns whether the SHA-256 of the certificate, or of its public key, is among the pins.
fn has_pin(certificate: &CertificateDer<'_>, pins: &[[u8; 32]]) -> bool {
    // A pin of the key stays valid when the certificate is renewed with the same key.
    let mut digests = vec![sha256(certificate)];
    digests.extend(public_key(certificate).map(|key| sha256(&key)));
    pins.iter().any(|pin| digests.contains(pin))
}

/// Returns the SubjectPublicKeyInfo of a certificate, including the DER header that webpki removes.
fn public_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let mut store = RootCertStore::empty();
    store.add(certificate.clone().into_owned()).ok()?;
    let content = store.roots.first()?.subject_public_key_info.to_vec();
    // DER encodes a SEQUENCE as a tag and a length, which is a single byte or is preceded by its own length.
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut der = vec![0x30];
    if content.len() >= 0x80 {
        der.push(0x80 | u8::try_from(significant.len()).ok()?);
    }
    der.extend(significant);
    der.extend(content);
    Some(der)
}

/// Accepts trusted certificates themselves, and chains that end in one, for the expected name.
///
/// A self-signed server certificate is its own CA. `openssl req -x509` marks it as a CA, and webpki therefore rejects
/// it as a server certificate. It was specified as trusted, however, and the handshake proves that the server has its
/// key.
#[derive(Debug)]
struct Verifier {
    trusted: Trusted,
    /// Name that the certificate must have instead of that of the URL.
    name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

/// Certificates that are trusted.
#[derive(Debug)]
enum Trusted {
    /// These, which the agent has.
    Given { certificates: Vec<CertificateDer<'static>>, chains: Arc<WebPkiServerVerifier> },
    /// Those with these fingerprints, which the server has to send.
    Pinned(Vec<[u8; 32]>),
    /// Those of the platform.
    Platform(rustls_platform_verifier::Verifier),
}

impl Trusted {
    fn by(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self, TrustError> {
        let pins = trust.ca_sha256.iter().map(|text| fingerprint(text)).collect::<Result<Vec<_>, _>>()?;
        if !trust.certificate_authorities.is_empty() {
            let certificates = trusted(&trust.certificate_authorities, &pins)?;
            let roots = Arc::new(roots(&certificates)?);
            let chains = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
            let chains = chains.map_err(|error| TrustError::Setup(error.into()))?;
            return Ok(Self::Given { certificates, chains });
        }
        // Without specified certificates, the pinned certificate must be in the server's chain.
        if !pins.is_empty() {
            return Ok(Self::Pinned(pins));
        }
        let platform = rustls_platform_verifier::Verifier::new(provider.clone());
        Ok(Self::Platform(platform.map_err(|error| TrustError::Setup(error.into()))?))
    }
}

/// Checks the remaining properties of a certificate that is itself trusted: its dates and its names.
fn verify_trusted_itself(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<ServerCertVerified, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let mut itself = RootCertStore::empty();
    itself.add(certificate.clone().into_owned())?;
    // webpki checks dates first. All other errors are ignored, because neither the issuer nor the intended usage
    // matters.
    let algorithms = provider.signature_verification_algorithms.all;
    if let Err(Error::InvalidCertificate(
        error @ (CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. }
        | CertificateError::BadEncoding),
    )) = verify_server_cert_signed_by_trust_anchor(&parsed, &itself, &[], now, algorithms)
    {
        return Err(error.into());
    }
    rustls::client::verify_server_name(&parsed, name)?;
    Ok(ServerCertVerified::assertion())
}

impl Verifier {
    fn new(trust: &Trust, provider: Arc<CryptoProvider>) -> Result<Self, TrustError> {
        let name = trust.server_name.clone().map(ServerName::try_from).transpose();
        let name = name.map_err(|error| TrustError::Setup(error.into()))?;
        Ok(Self { trusted: Trusted::by(trust, &provider)?, name, provider })
    }

    fn trusts(&self, certificate: &CertificateDer<'_>) -> bool {
        match &self.trusted {
            // Byte for byte the same.
            Trusted::Given { certificates, .. } => certificates.contains(certificate),
            Trusted::Pinned(pins) => has_pin(certificate, pins),
            Trusted::Platform(_) => false,
        }
    }

    /// Verifies a chain that contains a pinned certificate and ends in it.
    fn verify_pinned(
        &self,
        pins: &[[u8; 32]],
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let anchor = intermediates.iter().find(|certificate| has_pin(certificate, pins)).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        // Only the pinned certificate is trusted, and no other certificate in the chain.
        roots.add(anchor.clone().into_owned())?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms)?;
        rustls::client::verify_server_name(&parsed, server_name)?;
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let server_name = self.name.as_ref().unwrap_or(server_name);
        if self.trusts(end_entity) {
            return verify_trusted_itself(end_entity, server_name, now, &self.provider);
        }
        match &self.trusted {
            Trusted::Given { chains, .. } => {
                chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            Trusted::Pinned(pins) => self.verify_pinned(pins, end_entity, intermediates, server_name, now),
            Trusted::Platform(platform) => {
                platform.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Verifies a self-signed certificate for `localhost` as that of `fleet.example`.
    fn verify(trust: impl Fn(&rcgen::Certificate) -> Trust) -> Result<ServerCertVerified, Error> {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Verifier::new(&trust(&certificate), provider).unwrap();
        let url_host = ServerName::try_from("fleet.example").unwrap();
        verifier.verify_server_cert(certificate.der(), &[], &url_host, &[], UnixTime::now())
    }

    #[test]
    fn an_expected_name_replaces_the_host_of_the_url() {
        for name in [None, Some("other.example"), Some("localhost")] {
            let server_name = name.map(str::to_owned);
            let given = verify(|certificate| Trust {
                certificate_authorities: vec![certificate.pem()],
                server_name: server_name.clone(),
                ..Trust::default()
            });
            let pinned = verify(|certificate| Trust {
                ca_sha256: vec![muster_core::hex::encode(&sha256(certificate.der()))],
                server_name: server_name.clone(),
                ..Trust::default()
            });
            let valid = name == Some("localhost");
            assert_eq!((given.is_ok(), pinned.is_ok()), (valid, valid), "{name:?}: {given:?}, {pinned:?}");
        }
    }
}
