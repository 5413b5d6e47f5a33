//! The address of a database: `postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=FILE`.
//!
//! The password comes from the address, from `PGPASSWORD`, or from a password file (`passfile=`, `PGPASSFILE`, `~/.pgpass`), in
//! this order, as libpq does it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::engine::error::{EngineError, OpenError};
use muster_core::error_chain::{SharedError, chain};

/// Timeout for connecting, for each address of the host.
const CONNECT: Duration = Duration::from_secs(10);
/// Maximum time until the database's host confirms what was sent.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Address of a database, with TLS settings and credentials.
#[derive(Clone)]
pub struct Address {
    config: Config,
    /// `None`: without TLS.
    tls: Option<Arc<ClientConfig>>,
    prepares: bool,
}

/// Omits the password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.config.get_hosts().iter().map(host_name).collect();
        write!(f, "{} on {}", self.config.get_dbname().unwrap_or("?"), hosts.join(", "))?;
        match self.config.get_ports() {
            [] => Ok(()),
            ports => write!(f, " port {}", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

fn host_name(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    }
}

impl FromStr for Address {
    type Err = OpenError;

    /// Parses an address, and reads its password file and trusted certificates. Errors name the parameter and the
    /// remedy.
    fn from_str(url: &str) -> Result<Self, OpenError> {
        // Ours first: the driver rejects parameters that it does not know.
        let (ours, rest) = Parameters::split(url);
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            // The driver's text names the parameter, and never the password.
            OpenError::Address(SharedError::during("expected postgres://USER@HOST:PORT/DATABASE", error))
        })?;
        // No defaults as in libpq (the user of the process, a local socket): a server must not end up in another
        // database by accident.
        if config.get_hosts().is_empty() || config.get_user().is_none() || config.get_dbname().is_none() {
            let what = "user, host and database are required: postgres://USER@HOST:PORT/DATABASE";
            return Err(address_error(what));
        }
        if config.get_password().is_none()
            && let Some(password) = find_password(&config, ours.passfile.as_deref())?
        {
            config.password(password);
        }
        let tls = ours.tls(&config)?;
        // Never `Prefer`, which would fall back to plain text if an attacker blocks TLS.
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        // A server behind a firewall that drops idle connections otherwise notices this only with the next statement.
        config.connect_timeout(CONNECT).keepalives_idle(Duration::from_secs(30));
        // Packets that vanish without a reset would otherwise be sent again for minutes.
        config.tcp_user_timeout(UNACKNOWLEDGED);
        if config.get_application_name().is_none() {
            config.application_name("muster");
        }
        Ok(Self { config, tls, prepares: ours.prepares()? })
    }
}

impl Address {
    /// Returns whether connections keep prepared statements and settings. A pooler in transaction mode assigns a
    /// different connection to each transaction.
    pub(super) fn prepares(&self) -> bool {
        self.prepares
    }

    /// Connects. A task of the current runtime drives the connection.
    pub(super) async fn connect(&self) -> Result<Client, EngineError> {
        Ok(match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                tokio::spawn(drive(connection));
                client
            }
            Some(tls) => {
                // Cloned for each connection, because the connector consumes it; the roots inside are shared.
                let connector = MakeRustlsConnect::new(ClientConfig::clone(tls));
                let (client, connection) = self.config.connect(connector).await?;
                tokio::spawn(drive(connection));
                client
            }
        })
    }
}

fn address_error(what: impl Into<SharedError>) -> OpenError {
    OpenError::Address(what.into())
}

/// Drives a connection until it ends, which the client notices by itself.
async fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(error = %chain(&error), "a connection to the database ended");
    }
}

/// Parameters of an address that the driver does not support.
#[derive(Default)]
struct Parameters {
    sslmode: Option<String>,
    sslrootcert: Option<PathBuf>,
    passfile: Option<PathBuf>,
    prepared: Option<String>,
}

impl Parameters {
    /// Removes them from an address.
    fn split(url: &str) -> (Self, String) {
        let (mut ours, mut theirs) = (Self::default(), Vec::new());
        let Some((head, query)) = url.split_once('?') else { return (ours, url.to_owned()) };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            match name {
                "sslmode" => ours.sslmode = Some(value),
                "sslrootcert" => ours.sslrootcert = Some(value.into()),
                "prepared" => ours.prepared = Some(value),
                "passfile" => ours.passfile = Some(value.into()),
                _ => theirs.push(pair),
            }
        }
        let rest = if theirs.is_empty() { head.to_owned() } else { format!("{head}?{}", theirs.join("&")) };
        (ours, rest)
    }

    fn prepares(&self) -> Result<bool, OpenError> {
        match self.prepared.as_deref() {
            // `named` is the default. `none` is for poolers, which assign another connection to each transaction.
            None | Some("named") => Ok(true),
            Some("none") => Ok(false),
            Some(other) => {
                Err(OpenError::Address(format!("prepared={other} is not supported: use named or none").into()))
            }
        }
    }

    /// Returns the TLS configuration, unless TLS is disabled or all hosts are local.
    fn tls(&self, config: &Config) -> Result<Option<Arc<ClientConfig>>, OpenError> {
        match self.sslmode.as_deref() {
            Some("disable") => Ok(None),
            // Traffic that never leaves the host needs no certificate, unless somebody asked for one.
            None if self.sslrootcert.is_none() && config.get_hosts().iter().all(is_local) => Ok(None),
            // In libpq, `require` encrypts without verifying the server. Here, it verifies as well.
            None | Some("require" | "verify-full") => trusting(self.sslrootcert.as_deref()).map(Some),
            Some(mode) => Err(address_error(format!(
                "sslmode={mode} is not supported: use verify-full (with sslrootcert=FILE for a CA of your own), or disable"
            ))),
        }
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

/// Creates a TLS configuration that trusts the certificates in a file, or those of the system.
fn trusting(file: Option<&Path>) -> Result<Arc<ClientConfig>, OpenError> {
    let unusable = |what: String| address_error(what);
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(format!("TLS: {error}")))?;
    // Without a file, the trust store of the system, for databases with a certificate of a public CA.
    let Some(file) = file else {
        let verifying = builder
            .with_platform_verifier()
            .map_err(|error| unusable(format!("cannot load the system's trust store: {error}")))?;
        return Ok(Arc::new(verifying.with_no_client_auth()));
    };
    let mut roots = RootCertStore::empty();
    let unreadable = |error: &dyn fmt::Display| unusable(format!("sslrootcert {}: {error}", file.display()));
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(unreadable(&"the file contains no certificate in PEM format"));
    }
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Returns the password from the environment or from a password file.
fn find_password(config: &Config, passfile: Option<&Path>) -> Result<Option<String>, OpenError> {
    if let Ok(password) = std::env::var("PGPASSWORD") {
        return Ok(Some(password));
    }
    // A file that was named must exist; the default one may be absent.
    let named = passfile.map(Path::to_owned).or_else(|| std::env::var_os("PGPASSFILE").map(PathBuf::from));
    let by_default = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".pgpass"));
    let is_named = named.is_some();
    let Some(file) = named.or_else(by_default) else { return Ok(None) };
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            refuse_readable_by_others(&file)?;
            Ok(password_in(&text, config))
        }
        Err(_) if !is_named => Ok(None),
        Err(error) => {
            let what = format!("the password file {}", file.display());
            Err(OpenError::Address(SharedError::during(what, error)))
        }
    }
}

#[cfg(unix)]
fn refuse_readable_by_others(file: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::PermissionsExt as _;
    // libpq ignores such a file with a warning. An error names the remedy.
    let mode = std::fs::metadata(file).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let file = file.display();
    Err(address_error(format!("the password file {file} is readable by other users; run chmod 600 {file}")))
}

#[cfg(not(unix))]
fn refuse_readable_by_others(_: &Path) -> Result<(), OpenError> {
    Ok(())
}

/// Returns the password of the first matching line `HOST:PORT:DATABASE:USER:PASSWORD`. `*` matches everything; `\`
/// escapes the next character.
fn password_in(text: &str, config: &Config) -> Option<String> {
    let hosts: Vec<String> = config.get_hosts().iter().map(host_name).collect();
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        // A malformed line is skipped.
        let [host, given_port, database, user, password] = fields.as_slice() else { return None };
        let fits = |field: &String, value: &str| field == "*" || field == value;
        let is_it = hosts.iter().any(|known| fits(host, known))
            && fits(given_port, &port)
            && fits(database, config.get_dbname().unwrap_or_default())
            && fits(user, config.get_user().unwrap_or_default());
        is_it.then(|| password.clone())
    })
}

fn fields(line: &str) -> Vec<String> {
    // A backslash escapes the next character, which may be a colon in a password.
    let (mut fields, mut is_plain) = (vec![String::new()], false);
    for character in line.chars() {
        match character {
            '\\' if !is_plain => is_plain = true,
            ':' if !is_plain => fields.push(String::new()),
            character => {
                is_plain = false;
                if let Some(field) = fields.last_mut() {
                    field.push(character);
                }
            }
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Address::from_str(url).unwrap_err().to_string()
    }

    #[test]
    fn an_address_that_lacks_a_part_says_which_are_needed() {
        for url in ["postgres://h/d", "postgres://u@/", "postgres://u@h", "mysql://u@h/d"] {
            assert!(refused(url).contains("postgres://USER@HOST:PORT/DATABASE"), "{}", refused(url));
        }
    }

    #[test]
    fn other_hosts_are_verified_unless_the_address_says_otherwise() {
        let tls = |url: &str| Address::from_str(url).unwrap().tls.is_some();
        assert!(tls("postgres://u:p@db.example/d"));
        assert!(tls("postgres://u:p@db.example/d?sslmode=require"));
        assert!(tls("postgres://u:p@127.0.0.1/d?sslmode=verify-full"));
        assert!(!tls("postgres://u:p@127.0.0.1/d"));
        assert!(!tls("postgres://u:p@db.example/d?sslmode=disable"));
        assert!(refused("postgres://u:p@db.example/d?sslmode=verify-ca").contains("use verify-full"));
        assert!(refused("postgres://u:p@h/d?sslrootcert=/nonexistent").contains("/nonexistent"));
    }

    #[test]
    fn statements_are_prepared_unless_the_address_says_otherwise() {
        let prepares = |url: &str| Address::from_str(url).unwrap().prepares();
        assert!(prepares("postgres://u:p@127.0.0.1/d"));
        assert!(prepares("postgres://u:p@127.0.0.1/d?prepared=named"));
        assert!(!prepares("postgres://u:p@127.0.0.1/d?prepared=none&sslmode=disable"));
        assert!(refused("postgres://u:p@127.0.0.1/d?prepared=maybe").contains("use named or none"));
    }

    #[test]
    fn messages_do_not_show_the_password() {
        let address = Address::from_str("postgres://u:hunter2@db.example:5433/fleet?sslmode=disable").unwrap();
        assert_eq!(address.to_string(), "fleet on db.example port 5433");
        assert!(!format!("{address:?}").contains("hunter2"));
        assert!(!refused("postgres://u:hunter2@h:port/d").contains("hunter2"));
    }

    #[test]
    fn a_password_file_is_read_as_libpq_reads_it() {
        let config: Config = "postgres://u@h:5433/d".parse().unwrap();
        assert_eq!(password_in("# no\nh:5432:*:*:wrong\n*:5433:d:u:a\\:b\\\\c\n", &config).as_deref(), Some("a:b\\c"));
        assert_eq!(password_in("h:5433:other:u:x\n", &config), None);
    }
}
