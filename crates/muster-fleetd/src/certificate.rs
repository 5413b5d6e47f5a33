//! Client certificates, which may be bound to hosts (FL148).

use muster_core::client_certificate::ClientCertificate;
use muster_core::credential::SecretHash;
use muster_core::hex::sha256;
use muster_listen::reply::Peer;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Returns the certificate of a connection, for comparison with the one that a host is bound to.
pub fn of(peer: &Peer) -> ClientCertificate {
    // The handshake has verified it.
    let hash = peer.certificate_hash(|der| names(der));
    hash.map_or(ClientCertificate::Missing, |hash| ClientCertificate::Named(SecretHash(hash)))
}

/// Returns a hash of the subject and the subject alternative names of a certificate; `None` if it is malformed.
pub fn names(der: &[u8]) -> Option<[u8; 32]> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject().as_raw();
    let mut extensions = certificate.extensions().iter();
    let others = extensions.find(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME);
    let others = others.map(|extension| extension.value).unwrap_or_default();
    // DER states the length of the subject, so that the two parts cannot be shifted.
    Some(sha256(&[subject, others].concat()))
}
