//! TLS configuration of a test: given CAs or those of the system, and a client certificate.

use std::sync::Arc;

use muster_core::connection_test::{Cause, Ssl};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::fault::Fault;

fn unusable(reason: String) -> Fault {
    Fault::of(Cause::Settings, reason)
}

/// `own_ca` is trusted besides the CAs of the system.
pub(crate) fn client_config(ssl: &Ssl, own_ca: Option<&str>) -> Result<Arc<ClientConfig>, Fault> {
    let failed = |error: rustls::Error| unusable(format!("TLS setup failed: {error}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
    let mut roots = RootCertStore::empty();
    for pem in &ssl.authorities {
        for certificate in certificates(pem, "the CA certificates")? {
            roots.add(certificate).map_err(|error| unusable(format!("the CA certificates: {error}")))?;
        }
    }
    let builder = if roots.is_empty() {
        let own = own_ca.map_or_else(|| Ok(Vec::new()), |pem| certificates(pem, "the CA of the fleet"))?;
        let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(own, provider).map_err(failed)?;
        // The method is called dangerous because of what other verifiers could accept.
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    } else {
        builder.with_root_certificates(roots)
    };
    let (Some(certificate), Some(key)) = (&ssl.certificate, &ssl.key) else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let chain = certificates(certificate, "the client certificate")?;
    // The reason of a malformed key could contain parts of it.
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| unusable("the key of the client certificate is not a PEM private key".to_owned()))?;
    let config = builder.with_client_auth_cert(chain, key);
    config.map(Arc::new).map_err(|error| unusable(format!("the client certificate: {error}")))
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        // Agents also accept paths of files of their own hosts, which this server cannot read.
        Ok(all) if all.is_empty() => {
            Err(unusable(format!("{what}: contains no certificate in PEM; a path is one of the agents' hosts")))
        }
        Ok(all) => Ok(all),
        Err(error) => Err(unusable(format!("{what}: malformed certificate: {error}"))),
    }
}
