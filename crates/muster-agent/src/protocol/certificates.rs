//! Credentials of a component: a secret, and certificates for mutual TLS (AG §5.1).
//!
//! They exist in memory only. Each component has a certificate authority of its own, so that the certificate of one
//! component is rejected at the endpoint of another one.

use std::sync::Arc;

use muster_core::Entropy;
use muster_core::entropy::random_uuid;
use muster_core::error_chain::SharedError;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::MESSAGE_MAX;
use super::messages::{AgentInfo, Service, StartUpInfo, Supports};

/// The credentials of one component, for as long as the agent runs (AG163).
#[derive(Clone)]
pub struct Credentials {
    /// Secret of the component.
    pub token: String,
    /// Name of the endpoint in TLS.
    pub server_name: String,
    /// Configuration of the endpoint.
    pub tls: Arc<ServerConfig>,
    authority: String,
    certificate: String,
    key: String,
}

impl Credentials {
    /// Creates credentials.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, SharedError> {
        let (token, server_name) = (random_uuid(entropy), random_uuid(entropy).replace('-', ""));
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // The names must differ: a certificate with the name of its issuer counts as self-signed.
        params.distinguished_name.push(DnType::CommonName, format!("Components of muster-agent, {server_name}"));
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut params = CertificateParams::new(vec![server_name.clone()])?;
        params.distinguished_name.push(DnType::CommonName, server_name.clone());
        // Both sides use the same certificate.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], private)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let (authority, certificate, key) = (authority.pem(), certificate.pem(), key.serialize_pem());
        Ok(Self { token, server_name, tls: Arc::new(tls), authority, certificate, key })
    }

    /// Returns the message that the component reads from its standard input.
    pub fn start_up(&self, address: &str, agent: AgentInfo) -> StartUpInfo {
        StartUpInfo {
            addr: address.to_owned(),
            server_name: self.server_name.clone(),
            token: self.token.clone(),
            ca_cert: self.authority.clone().into_bytes(),
            peer_cert: self.certificate.clone().into_bytes(),
            peer_key: self.key.clone().into_bytes(),
            services: vec![Service::CheckinV2.into()],
            supports: vec![Supports::CheckinChunking.into()],
            max_message_size: u32::try_from(MESSAGE_MAX).unwrap_or(u32::MAX),
            agent_info: Some(agent),
        }
    }
}
