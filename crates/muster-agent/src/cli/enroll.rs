//! `muster-agent enroll`.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use muster_core::entropy::random_uuid;
use muster_core::pem::no_certificate;
use muster_protocol::elastic::enroll::EnrolledItem;

use super::transport;
use crate::control::{Answer, client};
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

/// Arguments of `enroll`.
#[derive(clap::Args)]
pub struct Args {
    /// Address of the server's listener for agents; may be given several times.
    #[arg(long = "url", required = true, value_name = "URL")]
    urls: Vec<String>,
    /// The enrollment token. Better in the environment than among the arguments, which every user of the host can see.
    #[arg(long, env = "MUSTER_ENROLLMENT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    enrollment_token: String,
    /// PEM files of the authorities that the server's certificate comes from; without them the system's are trusted.
    #[arg(long, short = 'a', value_name = "FILE", value_delimiter = ',')]
    certificate_authorities: Vec<Utf8PathBuf>,
    /// SHA-256 fingerprint of the authority (hex of the certificate, or base64 of its public key).
    #[arg(long, short = 'p', value_name = "SHA256", value_delimiter = ',')]
    ca_sha256: Vec<String>,
    /// Allow plain HTTP to a loopback address.
    #[arg(long, short = 'i')]
    insecure: bool,
    /// Tags of this agent.
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<String>,
    /// The agent id to take, in place of one that the server makes.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Secret that allows to enrol again under the same id.
    #[arg(long, env = "MUSTER_REPLACE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    replace_token: Option<String>,
    /// Enrol even if this agent is enrolled already.
    #[arg(long, short = 'f')]
    force: bool,
    /// How long to go on trying; 0: for ever.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
    /// How often to try at most.
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
}

impl std::fmt::Debug for Args {
    /// Leaves the tokens out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// Enrols, stores what came, and tells a running daemon.
pub async fn run(layout: &Layout, args: Args) -> Result<u8, Failure> {
    let servers = servers(&args)?;
    let trust = trust(&args)?;
    let store = DiskStore::new(layout.clone());
    store.prepare()?;
    refuse_second(&store, args.force)?;
    let client =
        FleetClient::new(transport(&trust)?, servers.clone(), Secret::new(&*args.enrollment_token), Arc::new(System));
    let wish = Wish {
        id: args.id.clone(),
        replace_token: args.replace_token.clone(),
        enrollment_id: random_uuid(&System),
        tags: tags(&args.tags),
    };
    let facts = HostFacts.local_metadata(Own { agent_id: "", log_level: "info" });
    let timeout = (!args.timeout.is_zero()).then_some(args.timeout);
    let patience = Patience { timeout, attempts: args.attempts, ..Patience::default() };
    eprintln!("Enrolling at {} …", list(&servers));
    let item = enroll(&client, &wish, &facts, &patience, &System, |line| eprintln!("{line}")).await?;
    keep(&store, &servers, trust, &item)?;
    println!("Enrolled as agent {}{}", item.id, on_policy(&item));
    tell_daemon(layout).await;
    Ok(exit::DONE)
}

fn on_policy(item: &EnrolledItem) -> String {
    if item.policy_id.is_empty() { ", without a policy yet".into() } else { format!(" on policy {}", item.policy_id) }
}

fn servers(args: &Args) -> Result<Vec<Server>, Failure> {
    let usage = |message: String| Failure::new(exit::USAGE, message);
    let mut servers = Vec::new();
    for url in &args.urls {
        let server = Server::parse(url).map_err(|error| usage(error.to_string()))?;
        if !(server.tls || args.insecure && server.is_loopback()) {
            return Err(usage(format!(
                "{server} would carry credentials in clear text. Use https; --insecure allows http to a loopback address only"
            )));
        }
        servers.push(server);
    }
    Ok(servers)
}

fn trust(args: &Args) -> Result<Trust, Failure> {
    let certificate_authorities = args.certificate_authorities.iter().map(authority).collect::<Result<_, _>>()?;
    Ok(Trust { certificate_authorities, ca_sha256: args.ca_sha256.clone(), insecure: args.insecure })
}

/// A file of `--certificate-authorities`, which holds certificates and nothing that is none.
fn authority(path: &Utf8PathBuf) -> Result<String, Failure> {
    let wrong = |reason: String| {
        let message = format!(
            "--certificate-authorities: {path}: {reason}. Give the PEM file of the server's authority, ca.crt in its data folder"
        );
        Failure::new(exit::USAGE, message)
    };
    let bytes = std::fs::read(path).map_err(|error| wrong(format!("can't read it: {error}")))?;
    if let Some(reason) = no_certificate(&bytes) {
        return Err(wrong(reason));
    }
    let pem = String::from_utf8_lossy(&bytes).into_owned();
    check_authority(&pem).map_err(|error| wrong(error.to_string()))?;
    Ok(pem)
}

fn tags(given: &[String]) -> Vec<String> {
    given.iter().map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect()
}

fn list(servers: &[Server]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn refuse_second(store: &DiskStore, force: bool) -> Result<(), Failure> {
    match store.enrollment() {
        Ok(Some(enrollment)) if !force => Err(Failure::new(
            exit::ALREADY_ENROLLED,
            format!("already enrolled as agent {}. Add --force to enrol anew, or unenroll first", enrollment.agent_id),
        )),
        // A damaged or newer document is what --force is for, too.
        Err(StoreError::Damaged { .. } | StoreError::Newer { .. }) if force => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

fn keep(store: &DiskStore, servers: &[Server], trust: Trust, item: &EnrolledItem) -> Result<(), Failure> {
    // The old state first: nothing of a former fleet may run under the new enrolment.
    store.save_state(&State::default())?;
    store.save_enrollment(&Enrollment {
        version: ENROLLMENT_VERSION,
        agent_id: item.id.clone(),
        access_api_key: Secret::new(&*item.access_api_key),
        servers: servers.iter().map(ToString::to_string).collect(),
        trust,
        signing_key: None,
        tags: item.tags.clone(),
        enrolled_at: item.enrolled_at.clone(),
    })?;
    Ok(())
}

async fn tell_daemon(layout: &Layout) {
    let told =
        client::call::<Answer>(&layout.socket(), http::Method::POST, "/v1/reload", Duration::from_secs(10)).await;
    match told {
        Ok(Some(_)) => println!("The running agent takes it up"),
        Ok(None) => println!("Start it with: muster-agent run --base-path {}", layout.base()),
        Err(failure) => eprintln!("Restart the running agent by hand: {}", failure.message),
    }
}
