//! Options of a fleet server on this host, for `enroll` and `install`. All of them are validated before anything starts.

use muster_core::error_chain::chain;
use std::net::IpAddr;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::elasticsearch_options::ElasticsearchOptions;
use super::enroll_options::Options;
use crate::duration;
use crate::enroll::plan::Plan;
use crate::exit::{self, Failure};
use crate::install::removal;
use crate::interrupt::Interrupt;
use crate::local_server::bootstrap::{Bootstrap, DEFAULT_POLICY, Running};
use crate::local_server::elasticsearch::Elasticsearch;
use crate::local_server::{Certificate, LOCAL_SERVER_VERSION, LocalServer, program};
use crate::net::Server;
use crate::paths::Layout;

/// Options of a server on this host. Each of them implies `--fleet-server`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Fleet server on this host")]
pub struct ServerOptions {
    /// Also run a fleet server on this host, and enroll with it
    #[arg(long)]
    fleet_server: bool,
    /// Program of the server, which is copied [default: `muster` beside this program or in PATH]
    #[arg(long, value_name = "FILE")]
    fleet_server_program: Option<Utf8PathBuf>,
    /// Data directory of the server, which uninstall keeps [default: the base path with the suffix -server]
    #[arg(long, value_name = "DIR")]
    fleet_server_data_dir: Option<Utf8PathBuf>,
    /// URL of the server's PostgreSQL database, without a password [default: SQLite in the data directory]
    #[arg(long, value_name = "URL")]
    fleet_server_database: Option<String>,
    /// Policy of this agent, by id; created if it does not exist [default: fleet-server-policy]
    #[arg(long, value_name = "ID")]
    fleet_server_policy: Option<String>,
    /// Address of the listener for agents [default: 0.0.0.0, or 127.0.0.1 with plain HTTP]
    #[arg(long, value_name = "ADDRESS")]
    fleet_server_host: Option<IpAddr>,
    /// Port of the listener for agents [default: 8220]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    fleet_server_port: Option<u16>,
    /// Port of the listener for this agent, on loopback [default: 8221]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    fleet_server_local_port: Option<u16>,
    /// PEM file with the server's certificate and its chain [default: a certificate of the fleet's own CA]
    #[arg(long, value_name = "FILE", requires = "fleet_server_cert_key")]
    fleet_server_cert: Option<Utf8PathBuf>,
    /// PEM file with the private key of --fleet-server-cert
    #[arg(long, value_name = "FILE", requires = "fleet_server_cert")]
    fleet_server_cert_key: Option<Utf8PathBuf>,
    /// Absolute path of a file with the passphrase of --fleet-server-cert-key
    #[arg(long, value_name = "FILE", requires = "fleet_server_cert_key")]
    fleet_server_cert_key_passphrase: Option<Utf8PathBuf>,
    /// Whether agents of other hosts present a certificate; for optional and required, --certificate-authorities names the file
    /// of its CAs [default: none]
    #[arg(long, value_enum, value_name = "MODE")]
    fleet_server_client_auth: Option<ClientAuth>,
    /// Serve agents of this host only, over plain HTTP
    #[arg(long, conflicts_with_all = ["fleet_server_cert", "fleet_server_cert_key"])]
    fleet_server_insecure_http: bool,
    /// Configuration key of the server (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    fleet_server_set: Vec<String>,
    /// Maximum time for the server to start, and then for Elasticsearch to respond [default: 2m]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_limit)]
    fleet_server_timeout: Option<Duration>,
    #[command(flatten)]
    elasticsearch: ElasticsearchOptions,
}

/// Whether agents of other hosts present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ClientAuth {
    /// They need none, and none is verified
    None,
    /// A certificate that is presented is verified
    Optional,
    /// Requests without a certificate are rejected
    Required,
}

/// Where the agent enrolls.
pub enum Target {
    /// At a server that runs already.
    Remote(Box<Plan>),
    /// At a server that this command starts.
    Local(Box<Local>),
}

/// An enrollment at a server that this command starts.
pub struct Local {
    bootstrap: Bootstrap,
    /// The plan, without a token if none was passed.
    plan: Plan,
}

impl Target {
    /// Validates the options. `more_tags` are added to those of the command line.
    pub fn new(
        layout: &Layout,
        options: &Options,
        server: &ServerOptions,
        more_tags: &[String],
    ) -> Result<Self, Failure> {
        if !server.is_wanted() {
            return Ok(Self::Remote(Box::new(options.plan(more_tags)?)));
        }
        let urls = options.urls()?;
        let of_clients = server.client_settings(options.authority_files())?;
        let mut bootstrap = server.bootstrap(layout, &urls)?;
        let mut plan = options.local_plan(more_tags, &server.elasticsearch.servers()?)?;
        if !of_clients.is_empty() && bootstrap.server.certificate.is_none() {
            // They verify other agents; this one trusts the fleet's own CA.
            plan.trust.certificate_authorities.clear();
        }
        // Before those of --fleet-server-set, which decide.
        bootstrap.server.settings.splice(0..0, of_clients);
        bootstrap.elasticsearch = server.elasticsearch.read(&plan.trust, options.is_proxy_disabled())?;
        bootstrap.server.elasticsearch = bootstrap.elasticsearch.as_ref().map(Elasticsearch::hash);
        plan.servers = vec![bootstrap.server.local_url()];
        plan.local_server = true;
        // Allowed because the local URL leads to loopback.
        plan.trust.insecure = bootstrap.server.insecure_http;
        if bootstrap.server.certificate.is_some() {
            // The certificate is for the name that other agents use.
            plan.trust.server_name = urls.first().map(|server| server.host.clone());
        } else if !plan.trust.certificate_authorities.is_empty() || !plan.trust.ca_sha256.is_empty() {
            let message = "--certificate-authorities and --ca-sha256 are for a server with --fleet-server-cert";
            return Err(
                Failure::new(exit::USAGE, message).hint("without a certificate, the agent trusts the fleet's own CA")
            );
        }
        Ok(Self::Local(Box::new(Local { bootstrap, plan })))
    }

    /// Starts the server, if it is one of this host. Returns the plan, and the server that must be stopped.
    pub async fn begin(&self, layout: &Layout, interrupt: &Interrupt) -> Result<(Plan, Option<Running>), Failure> {
        match self {
            Self::Remote(plan) => Ok((Plan::clone(plan), None)),
            Self::Local(local) => {
                let running = local.bootstrap.start(layout, interrupt).await?;
                match interrupt.unless(local.complete()).await {
                    Ok(plan) => Ok((plan, Some(running))),
                    Err(failure) => {
                        running.abandon().await;
                        Err(failure)
                    }
                }
            }
        }
    }

    /// Returns what to tell the user about the server.
    pub fn describe(&self) -> Option<String> {
        let Self::Local(local) = self else { return None };
        let server = &local.bootstrap.server;
        let data = &server.data_dir;
        Some(format!(
            "The fleet server stores its data in {data}; to manage it: muster status --data-dir {data}\n\
             To enroll agents of other hosts: muster enrollment-key create --data-dir {data}"
        ))
    }
}

impl Local {
    /// Returns how the server runs.
    pub fn server(&self) -> &LocalServer {
        &self.bootstrap.server
    }

    /// Copies the server's program into the base path.
    pub fn install_program(&self, layout: &Layout) -> Result<(), Failure> {
        self.bootstrap.install_program(layout)
    }

    /// Completes the plan with what the running server provides.
    async fn complete(&self) -> Result<Plan, Failure> {
        let mut plan = self.plan.clone();
        let server = &self.bootstrap.server;
        if server.certificate.is_none() && !server.insecure_http {
            let path = server.own_ca();
            let pem =
                fs_err::read_to_string(&path).map_err(|error| Failure::new(exit::FAILED, chain(&error).to_string()))?;
            plan.trust.certificate_authorities = vec![pem];
        }
        self.bootstrap.provide_output().await?;
        if plan.token.expose().is_empty() {
            plan.token = self.bootstrap.token().await?;
        }
        Ok(plan)
    }
}

impl ServerOptions {
    /// Returns whether a server is to run on this host.
    pub fn is_wanted(&self) -> bool {
        self.fleet_server
            || self.fleet_server_program.is_some()
            || self.fleet_server_data_dir.is_some()
            || self.fleet_server_database.is_some()
            || self.fleet_server_policy.is_some()
            || self.fleet_server_host.is_some()
            || self.fleet_server_port.is_some()
            || self.fleet_server_local_port.is_some()
            || self.fleet_server_cert.is_some()
            || self.fleet_server_client_auth.is_some()
            || self.fleet_server_insecure_http
            || !self.fleet_server_set.is_empty()
            || self.fleet_server_timeout.is_some()
            || self.elasticsearch.is_given()
    }

    fn bootstrap(&self, layout: &Layout, urls: &[Server]) -> Result<Bootstrap, Failure> {
        let program = self.program()?;
        let certificate = match (&self.fleet_server_cert, &self.fleet_server_cert_key) {
            (Some(chain), Some(key)) => Some(Certificate {
                chain: absolute("--fleet-server-cert", chain)?,
                key: absolute("--fleet-server-cert-key", key)?,
            }),
            // The options require each other, so that there is no certificate without a key.
            _ => None,
        };
        // The name in the certificate cannot be guessed (AG97).
        if certificate.is_some() && urls.is_empty() {
            let message = "--url: with --fleet-server-cert, the URL of the server for other agents is required";
            return Err(Failure::new(exit::USAGE, message).hint("pass a URL with a name that the certificate covers"));
        }
        // Agents of other hosts would never use it.
        let is_public = |server: &&Server| !server.tls && !server.is_loopback();
        if let Some(url) = urls.iter().find(is_public) {
            let message = format!("--url: agents of other hosts do not use plain HTTP, as in {url}");
            return Err(Failure::new(exit::USAGE, message).hint("pass the https URL of the proxy before the server"));
        }
        let data_dir = match &self.fleet_server_data_dir {
            Some(directory) => absolute("--fleet-server-data-dir", directory)?,
            None => layout.server_data(),
        };
        if data_dir.starts_with(layout.base()) {
            let message = format!("--fleet-server-data-dir: {data_dir} is in the base path, which uninstall deletes");
            return Err(Failure::new(exit::USAGE, message));
        }
        let loopback = self.fleet_server_insecure_http;
        let server = LocalServer {
            version: LOCAL_SERVER_VERSION,
            data_dir,
            host: self.fleet_server_host.unwrap_or(if loopback { [127, 0, 0, 1] } else { [0; 4] }.into()),
            port: self.fleet_server_port.unwrap_or(8220),
            local_port: self.fleet_server_local_port.unwrap_or(8221),
            external_urls: urls.iter().map(ToString::to_string).collect(),
            certificate,
            insecure_http: loopback,
            database: self.database()?,
            elasticsearch: None,
            settings: self.fleet_server_set.clone(),
        };
        let policy = self.fleet_server_policy.clone().unwrap_or_else(|| DEFAULT_POLICY.into());
        let timeout = self.fleet_server_timeout.unwrap_or(Duration::from_secs(120));
        Ok(Bootstrap { server, program, policy, elasticsearch: None, timeout })
    }

    /// Returns the settings of the server for certificates of agents, and for the passphrase of its own.
    fn client_settings(&self, authorities: &[Utf8PathBuf]) -> Result<Vec<String>, Failure> {
        let mut settings = Vec::new();
        if let Some(path) = &self.fleet_server_cert_key_passphrase {
            let path = absolute("--fleet-server-cert-key-passphrase", path)?;
            settings.push(format!("tls.key_passphrase={path}"));
        }
        let mode = match self.fleet_server_client_auth {
            None | Some(ClientAuth::None) => return Ok(settings),
            Some(ClientAuth::Optional) => "optional",
            Some(ClientAuth::Required) => "required",
        };
        // `none` is Elastic's default, and may be passed with everything.
        if self.fleet_server_insecure_http {
            let message = "--fleet-server-client-auth: there are no certificates with --fleet-server-insecure-http";
            return Err(Failure::new(exit::USAGE, message));
        }
        let [authorities] = authorities else {
            let message = "--fleet-server-client-auth: needs one file of --certificate-authorities";
            return Err(
                Failure::new(exit::USAGE, message).hint("write all CAs of agents' certificates into one PEM file")
            );
        };
        let authorities = absolute("--certificate-authorities", authorities)?;
        settings.extend([format!("tls.client_ca={authorities}"), format!("tls.client_auth={mode}")]);
        Ok(settings)
    }

    fn program(&self) -> Result<Utf8PathBuf, Failure> {
        let Some(given) = &self.fleet_server_program else {
            let missing =
                Failure::new(exit::USAGE, "the server's program `muster` is neither beside this program nor in PATH");
            return program::find().ok_or_else(|| missing.hint("pass it with --fleet-server-program"));
        };
        if !program::is_executable(given) {
            return Err(Failure::new(exit::USAGE, format!("--fleet-server-program: {given} is not a program")));
        }
        Ok(given.clone())
    }

    /// Rejects a password, which would be in the process list.
    fn database(&self) -> Result<Option<String>, Failure> {
        let Some(url) = &self.fleet_server_database else { return Ok(None) };
        let authority = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        if user.contains(':') || url.contains("password=") {
            let failure = Failure::new(exit::USAGE, "--fleet-server-database: the URL contains a password");
            return Err(
                failure.hint("put it into a file in the format of .pgpass, and append ?passfile=FILE to the URL")
            );
        }
        Ok(Some(url.clone()))
    }
}

/// Checks that nobody else runs the server of this base path.
pub fn check_stopped(layout: &Layout, server: &ServerOptions) -> Result<(), Failure> {
    if !server.is_wanted() || !removal::is_running(layout) {
        return Ok(());
    }
    let failure = Failure::new(exit::FAILED, format!("an agent is running in {}", layout.base()));
    Err(failure.hint("stop it before it gets a fleet server"))
}

/// The server runs in another directory (AG10).
pub(super) fn absolute(flag: &str, path: &Utf8Path) -> Result<Utf8PathBuf, Failure> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(Failure::new(exit::USAGE, format!("{flag}: {path} is not absolute")))
}
