//! `muster-agent enroll`.
//!
//! Everything that can be checked without the server is checked first. Nothing on disk is changed until the server has
//! accepted the agent.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use muster_core::entropy::random_uuid;
use muster_core::error_chain::chain;
use muster_core::pem::no_certificate;
use muster_protocol::elastic::enroll::EnrolledItem;

use super::{check_base, transport};
use crate::clock::SystemClock;
use crate::control::{Answer, client};
use crate::coordinator::leave;
use crate::duration;
use crate::enroll::{Patience, enroll};
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::fleet::FleetClient;
use crate::fleet::enroll::Wish;
use crate::host::{Facts, HostFacts, Own};
use crate::net::Server;
use crate::net::tls::check_authority;
use crate::paths::Layout;
use crate::state::disk::DiskStore;
use crate::state::enrollment::{ENROLLMENT_VERSION, Enrollment, Secret, Trust};
use crate::state::{State, Store, StoreError};
use crate::token;

/// Maximum time to notify the previous server that this agent has left.
const FAREWELL: Duration = Duration::from_secs(10);

/// Arguments of `enroll`.
#[derive(clap::Args)]
pub struct Args {
    /// URL of the server's agent listener (repeatable)
    #[arg(long = "url", required = true, value_name = "URL")]
    urls: Vec<String>,
    /// Enrollment token; other users can see arguments in the process list, so the environment variable is safer
    #[arg(long, env = "MUSTER_ENROLLMENT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    enrollment_token: String,
    /// PEM files with the CA certificates to trust [default: the system's trust store]
    #[arg(long, short = 'a', value_name = "FILE", value_delimiter = ',')]
    certificate_authorities: Vec<Utf8PathBuf>,
    /// SHA-256 fingerprint of the CA: of its certificate in hex, or of its public key in base64
    #[arg(long, short = 'p', value_name = "SHA256", value_delimiter = ',')]
    ca_sha256: Vec<String>,
    /// Allow plain HTTP to a loopback address
    #[arg(long, short = 'i')]
    insecure: bool,
    /// Tags of the agent, separated by commas (repeatable)
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<String>,
    /// Agent id to request [default: the server generates one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Secret that allows a later enrollment under the same id
    #[arg(long, env = "MUSTER_REPLACE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    replace_token: Option<String>,
    /// Enroll even if the agent is already enrolled, and notify its previous server that it has left
    #[arg(long, short = 'f')]
    force: bool,
    /// Maximum total time for retries; 0 means no limit
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
    /// Maximum number of attempts
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
}

impl std::fmt::Debug for Args {
    /// Omits the tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// The previous enrollment in an existing base path.
enum Former {
    None,
    Enrolled(Box<Enrollment>),
    /// The document cannot be read; contains the reason.
    Unreadable(String),
}

/// Enrolls, stores the result, and reloads a running daemon.
pub async fn run(layout: &Layout, args: Args) -> Result<u8, Failure> {
    // All usage errors are reported before the first connection.
    let servers = servers(&args)?;
    check_tokens(&args)?;
    let trust = trust(&args)?;
    check_base(layout.base())?;
    // This opens nothing yet, because the directory may not exist.
    let store = DiskStore::new(layout.clone());
    let former = former(&store, args.force)?;
    let client =
        FleetClient::new(transport(&trust)?, servers.clone(), Secret::new(&*args.enrollment_token), Arc::new(System));
    let wish = Wish {
        id: args.id.clone(),
        replace_token: args.replace_token.clone(),
        enrollment_id: random_uuid(&System),
        tags: tags(&args.tags),
    };
    let facts = HostFacts.local_metadata(Own { agent_id: "", log_level: "info", upgradeable: false });
    let timeout = (!args.timeout.is_zero()).then_some(args.timeout);
    let patience = Patience { timeout, attempts: args.attempts, ..Patience::default() };
    eprintln!("Enrolling at {} …", list(&servers));
    let item = enroll(&client, &wish, &facts, &patience, &System, |line| eprintln!("{line}")).await?;
    // From here on, the server knows the agent. If storing the enrollment fails, the agent is known only to the server.
    store.prepare()?;
    keep(&store, &servers, trust, &item)?;
    println!("Enrolled as agent {}{}", item.id, on_policy(&item));
    reload_daemon(layout).await;
    say_farewell(former, &item.id).await;
    Ok(exit::DONE)
}

fn on_policy(item: &EnrolledItem) -> String {
    if item.policy_id.is_empty() { ", without a policy yet".into() } else { format!(" on policy {}", item.policy_id) }
}

fn servers(args: &Args) -> Result<Vec<Server>, Failure> {
    let mut servers = Vec::new();
    for url in &args.urls {
        let server = Server::parse(url).map_err(|error| Failure::new(exit::USAGE, format!("--url: {error}")))?;
        // Plain HTTP cannot be intercepted on loopback. On any other network, it would expose the access key.
        if !(server.tls || args.insecure && server.is_loopback()) {
            let failure = Failure::new(exit::USAGE, format!("--url: {server} would send credentials unencrypted"));
            return Err(failure.hint("use https; --insecure allows http only to a loopback address"));
        }
        servers.push(server);
    }
    Ok(servers)
}

/// Checks the format of the tokens, so that a paste error is a usage error instead of a rejection by the server.
fn check_tokens(args: &Args) -> Result<(), Failure> {
    token::check(&args.enrollment_token).map_err(|error| {
        Failure::new(exit::USAGE, format!("--enrollment-token: {error}")).hint(
            "pass the token exactly as `muster enrollment-key create` prints it: one line, without quotes or spaces",
        )
    })?;
    let breaks = |text: &str| text.trim() != text || text.is_empty() || text.chars().any(char::is_control);
    if args.replace_token.as_deref().is_some_and(breaks) {
        let message = "--replace-token: empty, or contains line breaks, control characters or surrounding spaces";
        return Err(Failure::new(exit::USAGE, message)
            .hint("pass it exactly as in the first enrollment, without quotes or line breaks"));
    }
    Ok(())
}

fn trust(args: &Args) -> Result<Trust, Failure> {
    let certificate_authorities = args.certificate_authorities.iter().map(authority).collect::<Result<_, _>>()?;
    Ok(Trust { certificate_authorities, ca_sha256: args.ca_sha256.clone(), insecure: args.insecure })
}

/// Reads a file of `--certificate-authorities`, which must contain certificates and nothing else.
fn authority(path: &Utf8PathBuf) -> Result<String, Failure> {
    let wrong = |reason: String| {
        Failure::new(exit::USAGE, format!("--certificate-authorities: {path}: {reason}"))
            .hint("pass the PEM file of the server's CA certificate: ca.crt in the server's data directory")
    };
    let bytes = std::fs::read(path).map_err(|error| wrong(format!("cannot read the file: {error}")))?;
    if let Some(reason) = no_certificate(&bytes) {
        return Err(wrong(reason));
    }
    let pem = String::from_utf8_lossy(&bytes).into_owned();
    check_authority(&pem).map_err(|error| wrong(chain(&error).to_string()))?;
    Ok(pem)
}

fn tags(given: &[String]) -> Vec<String> {
    // `--tag web,` and `--tag "web, prod"` are common, and servers reject empty tags.
    given.iter().map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect()
}

fn list(servers: &[Server]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn former(store: &DiskStore, force: bool) -> Result<Former, Failure> {
    match store.enrollment() {
        Ok(None) => Ok(Former::None),
        Ok(Some(enrollment)) if force => Ok(Former::Enrolled(Box::new(enrollment))),
        Ok(Some(enrollment)) => {
            let message = format!("already enrolled as agent {}", enrollment.agent_id);
            Err(Failure::new(exit::ALREADY_ENROLLED, message)
                .hint("unenroll the agent first, or add --force to replace the enrollment"))
        }
        // --force also replaces a document that is corrupt or of a newer version.
        Err(error @ (StoreError::Damaged { .. } | StoreError::Newer { .. })) if force => {
            Ok(Former::Unreadable(chain(&error).to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

fn keep(store: &DiskStore, servers: &[Server], trust: Trust, item: &EnrolledItem) -> Result<(), Failure> {
    // The state is replaced first, so that nothing of the previous fleet can run under the new enrollment, even if this
    // process is killed in between.
    store.save_state(&State::default())?;
    store.save_enrollment(&Enrollment {
        version: ENROLLMENT_VERSION,
        agent_id: item.id.clone(),
        access_api_key: Secret::new(&*item.access_api_key),
        servers: servers.iter().map(ToString::to_string).collect(),
        trust,
        signing_key: None,
        previous_signing_key: None,
        tags: item.tags.clone(),
        enrolled_at: item.enrolled_at.clone(),
    })?;
    Ok(())
}

async fn reload_daemon(layout: &Layout) {
    // Without this, a running daemon would continue to use the previous enrollment until its next start.
    let answer =
        client::call::<Answer>(&layout.socket(), http::Method::POST, "/v1/reload", Duration::from_secs(10)).await;
    match answer {
        Ok(Some(_)) => println!("The running agent now uses the new enrollment"),
        Ok(None) => println!("To start the agent: muster-agent run --base-path {}", layout.base()),
        Err(failure) => eprintln!("Warning: {}; restart the running agent", failure.message),
    }
}

/// Notifies the server of the previous enrollment that its agent has left. This happens after the new enrollment,
/// because a failed enrollment must leave the agent unchanged, and after the reload, because a check-in under the
/// previous id would clear the notice.
async fn say_farewell(former: Former, agent_id: &str) {
    let (id, failed) = match former {
        // After a first enrollment, there is no previous server.
        Former::None => return,
        // It is the same agent with a new key, so that no agent has left.
        Former::Enrolled(former) if former.agent_id == agent_id => return,
        Former::Enrolled(former) => match farewell(&former).await {
            Ok(()) => return println!("Notified the previous server that agent {} has left", former.agent_id),
            Err(error) => (former.agent_id, error),
        },
        Former::Unreadable(reason) => ("of the previous enrollment".into(), reason),
    };
    eprintln!("Warning: the agent {id} is still enrolled at its previous server: {failed}");
    eprintln!("hint: to revoke its access key, run on the previous server: muster agent unenroll AGENT --force");
}

async fn farewell(former: &Enrollment) -> Result<(), String> {
    let transport = transport(&former.trust).map_err(|failure| failure.message)?;
    // A URL that this version cannot parse must not prevent the notice to the others.
    let servers = former.servers.iter().filter_map(|url| Server::parse(url).ok()).collect();
    let client = FleetClient::new(transport, servers, former.access_api_key.clone(), Arc::new(System));
    // With the previous key, because the new one is valid only at the new server.
    let told = leave::tell(&client, &former.agent_id, "uninstall", FAREWELL, &SystemClock, &System).await;
    told.map_err(|error| chain(&error).to_string())
}
