//! TLS of the listeners, with the fleet's own CA or a configured certificate. It can be replaced without interrupting
//! connections.

pub mod authority;
mod clients;
mod current;
pub(crate) mod file;
pub mod host;
mod reload;
pub mod validity;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use muster_core::error_chain::SharedError;
use muster_core::time::Clock;
use muster_listen::tls::ServerTls;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::version;
use tokio::sync::watch;

use self::authority::Authority;
use self::clients::Clients;
use self::file::{check_chain, read_certificates, read_key};
use self::validity::{Role, Validity, Warning, uncovered, wrong_purpose};
use crate::config::TlsConfig;
use crate::data_dir::{DataDir, DataDirError};

pub use self::current::CurrentClients;
pub use self::reload::watch;

/// Reason why TLS can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read. The text names it.
    #[error("{0}")]
    Io(#[source] std::io::Error),
    /// An error of the data directory.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// A file has the wrong content.
    #[error("{file}: {source}")]
    Pem {
        /// The file.
        file: String,
        /// Cause.
        source: SharedError,
    },
    /// A certificate could not be created.
    #[error("cannot create a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// Certificate, key and CA do not match.
    #[error("cannot use the certificate: {0}")]
    Unusable(#[from] rustls::Error),
    /// The time is outside the range of the calendar.
    #[error("the clock is set to a time that certificates cannot represent")]
    Clock,
}

impl TlsError {
    fn pem(file: impl Into<String>, reason: pem::Error) -> Self {
        let file = file.into();
        match reason {
            // The library prints the bytes of the marker.
            pem::Error::MissingSectionEnd { end_marker } => {
                let marker = String::from_utf8_lossy(&end_marker);
                let reason =
                    format!("the file is cut off: the line -----END {marker}----- is missing\nhint: copy it again");
                Self::Pem { file, source: SharedError::from(reason) }
            }
            reason => Self::Pem { file, source: reason.into() },
        }
    }

    fn file(file: &Utf8Path, reason: impl Into<SharedError>) -> Self {
        Self::Pem { file: file.to_string(), source: reason.into() }
    }
}

/// TLS of all listeners. Its certificates are replaced as a whole; existing connections keep theirs.
pub struct Tls {
    live: Arc<ServerTls>,
    current_clients: Arc<CurrentClients>,
    described: Mutex<Arc<Described>>,
    config: TlsConfig,
    /// The fleet's own CA; `None` if a certificate is configured.
    authority: Option<Authority>,
    /// The fleet's URLs, which any of its servers may change.
    external_urls: watch::Receiver<Vec<String>>,
    data: Arc<DataDir>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the configured certificate, or has `authority` issue one if none is configured.
    pub fn open(
        config: TlsConfig,
        authority: Option<Authority>,
        external_urls: watch::Receiver<Vec<String>>,
        data: Arc<DataDir>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, TlsError> {
        let names = host::certificate_names(&external_urls.borrow());
        if let Some(authority) = &authority {
            authority.show(&data)?;
            authority.ensure_server(&data, &names, clock.now())?;
        }
        let (first, described) = server_config(&config, &data, None)?;
        let current_clients = Arc::new(CurrentClients::new(described.verifier.clone()));
        let (live, described) = (ServerTls::new(first), Mutex::new(Arc::new(described)));
        let tls = Arc::new(Self { live, current_clients, described, config, authority, external_urls, data, clock });
        tls.warn();
        Ok(tls)
    }

    /// Verifies the CA certificates of clients and the revocation lists without using them, so that a start that they stop
    /// changes nothing in the store.
    pub fn verify_clients(config: &TlsConfig) -> Result<(), TlsError> {
        Clients::read(config)?.verifier(config, &provider()).map(|_| ())
    }

    fn described(&self) -> Arc<Described> {
        Arc::clone(&self.described.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the validity of all certificates in use.
    pub fn validities(&self) -> Vec<Validity> {
        let described = self.described();
        let role = |place: usize| if place == 0 { Role::Server } else { Role::Chain };
        let chain = described.chain.iter().enumerate().filter_map(|(place, der)| Validity::of(role(place), der));
        let mut validities: Vec<Validity> = match &self.authority {
            // The chain consists of the certificate and the CA.
            Some(authority) => chain.take(1).chain(Validity::of(Role::Ca, authority.certificate())).collect(),
            None => chain.collect(),
        };
        validities.extend(described.clients.cas.iter().filter_map(|der| Validity::of(Role::ClientCa, der)));
        validities
    }

    /// Returns the seconds until the first certificate of each kind expires; negative after that.
    pub fn seconds_left(&self) -> Vec<(&'static str, i64)> {
        let now = self.clock.now();
        let mut left: Vec<(&'static str, i64)> = Vec::new();
        for validity in self.validities() {
            let (name, seconds) = (validity.role.as_str(), validity.seconds_left(now));
            match left.iter_mut().find(|(known, _)| *known == name) {
                // A metric has one value per kind, and the first to expire is the one that matters.
                Some((_, least)) => *least = seconds.min(*least),
                None => left.push((name, seconds)),
            }
        }
        left
    }

    /// Returns the current warnings about the certificates in use.
    pub fn warnings(&self) -> Vec<Warning> {
        let now = self.clock.now();
        let described = self.described();
        let mut warnings: Vec<Warning> =
            self.validities().iter().filter_map(|validity| validity.warning(now)).collect();
        if let Some(leaf) = described.chain.first() {
            warnings.extend(wrong_purpose(leaf));
            warnings.extend(uncovered(leaf, &self.external_urls.borrow()));
        }
        warnings.extend(described.clients.warnings());
        warnings.extend(described.odd.iter().map(|text| Warning { text: text.clone(), keeps_agents_out: false }));
        warnings
    }

    /// Logs [`Self::warnings`].
    fn warn(&self) {
        for Warning { text, .. } in self.warnings() {
            tracing::warn!(problem = text, "certificates need attention");
        }
    }

    /// Returns the TLS configuration for new connections.
    pub fn live(&self) -> &Arc<ServerTls> {
        &self.live
    }

    /// Returns what the client certificates of open connections are verified with.
    pub fn current_clients(&self) -> &Arc<CurrentClients> {
        &self.current_clients
    }

    /// Returns the fleet's own CA; `None` if a certificate is configured.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Returns the path of the CA's certificate; `None` if a certificate is configured.
    pub fn ca_path(&self) -> Option<Utf8PathBuf> {
        self.authority.as_ref().map(|_| self.data.join("ca.crt"))
    }

    /// Issues a new certificate if the current one expires soon or does not cover a name. Returns whether it did. Does
    /// nothing for a configured certificate.
    pub fn renew(&self) -> Result<bool, TlsError> {
        let Some(authority) = &self.authority else { return Ok(false) };
        let names: BTreeSet<String> = host::certificate_names(&self.external_urls.borrow());
        let renewed = authority.ensure_server(&self.data, &names, self.clock.now())?;
        if renewed {
            self.reload()?;
        }
        Ok(renewed)
    }

    /// Reads the files again. If they can't be used, the current certificates stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let (next, described) = server_config(&self.config, &self.data, Some(&self.described()))?;
        // Only after the new configuration is complete: an error above leaves the old one in use.
        self.live.replace(next);
        if described.clients != self.described().clients {
            self.current_clients.replace(described.verifier.clone());
        }
        *self.described.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(described);
        self.warn();
        Ok(())
    }

    /// Returns the files whose changes require [`Self::reload`].
    fn files(&self) -> Vec<Utf8PathBuf> {
        let (cert, key) = files(&self.config, &self.data);
        let TlsConfig { client_ca, client_crl, .. } = &self.config;
        [Some(cert), Some(key), client_ca.clone(), client_crl.clone()].into_iter().flatten().collect()
    }
}

fn files(config: &TlsConfig, data: &DataDir) -> (Utf8PathBuf, Utf8PathBuf) {
    config.custom.clone().unwrap_or_else(|| (data.join("server.crt"), data.join("server.key")))
}

/// The certificates in use.
struct Described {
    chain: Vec<CertificateDer<'static>>,
    clients: Clients,
    /// Made of `clients`.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    tickets: Arc<dyn ProducesTickets>,
    /// Warnings about the order of the chain.
    odd: Vec<String>,
}

/// Creates the TLS configuration: TLS 1.2 and 1.3, HTTP/1.1 only, with tickets instead of a session store, so that no
/// memory is used for clients that have disconnected. `last` is what it replaces.
fn server_config(
    config: &TlsConfig,
    data: &DataDir,
    last: Option<&Described>,
) -> Result<(ServerConfig, Described), TlsError> {
    let (cert_path, key_path) = files(config, data);
    let chain = read_certificates(&cert_path)?;
    let key = read_key(&key_path, config.key_passphrase.as_deref())?;
    let provider = provider();
    let odd = check_chain(&provider, (&cert_path, &key_path), &chain, &key)?;
    let clients = Clients::read(config)?;
    let verifier = clients.verifier(config, &provider)?;
    let builder =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&version::TLS13, &version::TLS12])?;
    let builder = match verifier.clone() {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let tickets = match last.filter(|last| last.clients == clients) {
        // The same ticket keys as before the reload, so that clients can resume their sessions.
        Some(last) => Arc::clone(&last.tickets),
        // A resumed session is not verified again. With its ticket, a client could use a certificate that was revoked.
        None => rustls::crypto::aws_lc_rs::Ticketer::new()?,
    };
    let described = Described { chain: chain.clone(), clients, verifier, tickets: Arc::clone(&tickets), odd };
    let mut server = builder.with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.ticketer = tickets;
    server.send_tls13_tickets = 1;
    Ok((server, described))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
