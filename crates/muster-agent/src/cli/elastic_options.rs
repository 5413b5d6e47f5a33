//! Options of Elastic Agent that do not exist here. They are parsed so that a command line that was written for it fails with
//! the reason and a remedy.

use crate::exit::{self, Failure};

/// The common ones of `install` and `enroll`.
#[derive(Debug, Default, clap::Args)]
pub struct ElasticOptions {
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    fleet_server_client_auth: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    fleet_server_cert_key_passphrase: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    elastic_agent_cert_key_passphrase: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    staging: Option<String>,
}

/// Those of `enroll` only.
#[derive(Debug, Default, clap::Args)]
pub struct EnrollOptions {
    #[arg(long, hide = true)]
    delay_enroll: bool,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    daemon_timeout: Option<String>,
    #[arg(long, hide = true)]
    skip_daemon_reload: bool,
}

/// Remedy for encrypted keys.
const DECRYPT: &str = "decrypt the key first: openssl pkey -in KEY -out DECRYPTED";

impl ElasticOptions {
    /// Fails if one of them was passed.
    pub fn check(&self) -> Result<(), Failure> {
        refuse([
            (
                self.fleet_server_client_auth.is_some(),
                "--fleet-server-client-auth",
                "pass --fleet-server-set tls.client_auth=required and --fleet-server-set tls.client_ca=FILE",
            ),
            (self.fleet_server_cert_key_passphrase.is_some(), "--fleet-server-cert-key-passphrase", DECRYPT),
            (self.elastic_agent_cert_key_passphrase.is_some(), "--elastic-agent-cert-key-passphrase", DECRYPT),
            (self.staging.is_some(), "--staging", "set upgrade.source_uri in agent.yml"),
        ])
    }
}

impl EnrollOptions {
    /// Fails if one of them was passed.
    pub fn check(&self) -> Result<(), Failure> {
        refuse([
            (self.delay_enroll, "--delay-enroll", "pass it to install, or run reset-identity with --url"),
            (self.daemon_timeout.is_some(), "--daemon-timeout", "leave it out: enroll does not wait for the daemon"),
            (
                self.skip_daemon_reload,
                "--skip-daemon-reload",
                "stop the agent first, which otherwise uses the new enrollment",
            ),
        ])
    }
}

fn refuse<const N: usize>(options: [(bool, &str, &str); N]) -> Result<(), Failure> {
    match options.into_iter().find(|(is_passed, ..)| *is_passed) {
        None => Ok(()),
        Some((_, name, remedy)) => {
            Err(Failure::new(exit::USAGE, format!("{name} of Elastic Agent is not supported")).hint(remedy))
        }
    }
}
