//! Verification of client certificates on connections that are open while the CAs or revocation lists change.

use std::sync::{Arc, Mutex, PoisonError};

use muster_listen::reply::Peer;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

/// The verifier that new connections get.
pub struct CurrentClients {
    verifier: Mutex<Option<Arc<dyn ClientCertVerifier>>>,
    /// Number of changes.
    generation: watch::Sender<u64>,
}

impl CurrentClients {
    /// Creates a holder of the first verifier; `None` without client certificates.
    pub(super) fn new(verifier: Option<Arc<dyn ClientCertVerifier>>) -> Self {
        Self { verifier: Mutex::new(verifier), generation: watch::Sender::new(0) }
    }

    /// Replaces the verifier.
    pub(super) fn replace(&self, verifier: Option<Arc<dyn ClientCertVerifier>>) {
        *self.verifier.lock().unwrap_or_else(PoisonError::into_inner) = verifier;
        // Afterwards: whoever learns of the change finds the new verifier.
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Returns whether the certificate that a client presented in the handshake is still valid. Verifies it once for each change.
    pub fn admit(&self, peer: &Peer) -> bool {
        let Some([leaf, others @ ..]) = peer.certificates.as_deref() else { return true };
        let generation = *self.generation.borrow();
        if peer.certificate_generation() == generation {
            return true;
        }
        let verifier = self.verifier.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Without a verifier, no client would be asked for a certificate any more.
        let is_valid =
            verifier.is_some_and(|verifier| verifier.verify_client_cert(leaf, others, UnixTime::now()).is_ok());
        if is_valid {
            peer.set_certificate_generation(generation);
        }
        is_valid
    }

    /// Waits until the certificate of a client is no longer valid.
    pub async fn invalidated(&self, peer: &Peer) {
        let mut changes = self.generation.subscribe();
        while self.admit(peer) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
