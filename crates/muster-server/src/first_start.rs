//! First start in an empty data directory, and the startup message.

use std::fmt::Write;

use muster_core::Error;
use muster_core::authorization::{Actor, OpContext};
use muster_core::shell;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::Config;
use crate::config::settings::default_data_dir;
use crate::data_dir::ListenAddresses;
use crate::tls::Tls;
use crate::tls::authority::Authority;
use muster_fleet::Fleet;
use muster_management::base_path::BasePath;

/// Content of the startup message.
#[derive(Clone, Debug, Default)]
pub struct FirstStart {
    /// Token of the default enrollment key, if this start created it.
    pub enrollment_token: Option<String>,
    /// Token of the set-up link of the first administrator, if this start created that user.
    pub setup_token: Option<String>,
    /// SHA-256 of the certificate of the fleet's own CA.
    pub ca_fingerprint: Option<String>,
    /// Path of the certificate of the fleet's own CA, unless agents connect over plain HTTP.
    pub ca_path: Option<String>,
    /// URL of the server for agents.
    pub url: String,
    /// Id of the installation.
    pub installation: String,
    /// Name of a policy for which enrollment keys can be created; `None` if there is no policy.
    pub policy: Option<String>,
}

/// Creates the default policy and its enrollment key, unless an earlier start did.
pub async fn prepare(fleet: &Fleet, tls: &Tls, insecure_http: bool) -> Result<FirstStart, Error> {
    Ok(FirstStart {
        enrollment_token: make(fleet).await?,
        // A link, not a password: a password that was printed would stay in logs.
        setup_token: fleet.setup().ensure_administrator().await?,
        // Stored now, so that it is also available when the disk is full later.
        installation: fleet.server_status().installation().await?,
        policy: fleet.policies().first_policy_name().await?,
        // Without TLS, there is nothing that agents could verify with it.
        ca_fingerprint: tls.authority().filter(|_| !insecure_http).map(Authority::fingerprint),
        ca_path: tls.ca_path().filter(|_| !insecure_http).map(|path| absolute(&path)),
        url: fleet.urls().first().unwrap_or_default(),
    })
}

/// Returns the token of the default key, if it was created now.
async fn make(fleet: &Fleet) -> Result<Option<String>, Error> {
    let Some(key) = fleet.policies().ensure_default().await?.and_then(|saved| saved.enrollment_key) else {
        return Ok(None);
    };
    let context = OpContext::administrator(Actor::System);
    let key = fleet.enrollment_keys().find(&context, key.id.as_str()).await?;
    // Shown once, here: it is the only key that exists before anybody can log in.
    let (_, token) = fleet.enrollment_keys().reveal(key).await?;
    Ok(token)
}

fn absolute(path: &camino::Utf8Path) -> String {
    match camino::absolute_utf8(path) {
        Ok(path) => path.into(),
        Err(_) => path.to_string(),
    }
}

impl FirstStart {
    /// Returns the startup message, printed once the server accepts connections.
    pub fn greeting(&self, config: &Config, addresses: &ListenAddresses) -> String {
        let mut text = String::new();
        let agents = addresses.agent.or(addresses.local);
        push(&mut text, format_args!("Muster accepts agents at {}", self.url));
        if let Some(address) = agents {
            push(&mut text, format_args!(" (listening on {address})"));
        }
        push(&mut text, format_args!("\nData: {}\n", config.data_dir));
        if let Some(address) = addresses.admin {
            // The admin listener has no certificate on a loopback address.
            let scheme = if address.ip().is_loopback() { "http" } else { "https" };
            let base = &config.base_path;
            text.push_str("Management: run `muster` on this host, as root or as the user that runs the server\n");
            push(&mut text, format_args!("Web pages: {scheme}://{address}{base}/\n"));
            push(&mut text, format_args!("REST API: {scheme}://{address}{base}/api, for users and API tokens\n"));
            push(&mut text, format_args!("Health and metrics: {scheme}://{address}/healthz, /readyz, /metrics\n"));
        }
        if let Some(fingerprint) = &self.ca_fingerprint {
            push(&mut text, format_args!("CA fingerprint (SHA-256): {fingerprint}\n"));
        }
        if let Some(token) = &self.setup_token {
            self.setup_lines(&mut text, token, addresses, &config.base_path);
        }
        match &self.enrollment_token {
            Some(token) => self.enroll_lines(&mut text, token),
            None => push(&mut text, format_args!("{}\n", self.hint(config))),
        }
        text
    }

    fn setup_lines(&self, text: &mut String, token: &str, addresses: &ListenAddresses, base: &BasePath) {
        let Some(address) = addresses.admin else { return };
        let scheme = if address.ip().is_loopback() { "http" } else { "https" };
        // Escaped, because a token is base64 and may contain `+`, `/` and `=`.
        let link = format!("{scheme}://{address}{base}/setup?token={}", utf8_percent_encode(token, NON_ALPHANUMERIC));
        let (url, token) = (shell::option("--url", &format!("{scheme}://{address}{base}")), shell::argument(token));
        push(
            text,
            format_args!(
                "\nTo set the password of the user `admin`, open this page, or run the command. The link can be used once, within an hour;\n\
                 later, run: muster user setup-link admin\n  {link}\n  muster user setup {token} {url}\n"
            ),
        );
    }

    /// Returns the next command to run, for later starts. It can be pasted as it is.
    fn hint(&self, config: &Config) -> String {
        let environment = std::env::vars_os()
            // Variables that are not UTF-8 cannot change the default directory.
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        // The option is printed only if the commands would not find the directory by themselves.
        let usual = default_data_dir(nix::unistd::geteuid().is_root(), &environment);
        let place = match usual.is_some_and(|usual| usual == config.data_dir) {
            true => String::new(),
            false => format!(" {}", shell::option("--data-dir", &absolute(&config.data_dir))),
        };
        // A policy without an enrollment key is the usual state after the first hour.
        match &self.policy {
            Some(policy) => {
                format!(
                    "To create an enrollment key: muster enrollment-key create{place} {}",
                    shell::option("--policy", policy)
                )
            }
            None => format!("There is no policy for agents yet. To create one: muster policy create{place} NAME"),
        }
    }

    fn enroll_lines(&self, text: &mut String, token: &str) {
        let ca = match &self.ca_path {
            Some(path) => format!(" {}", shell::option("--certificate-authorities", path)),
            None => String::new(),
        };
        let insecure = if self.url.starts_with("http:") { " --insecure" } else { "" };
        let (url, token) = (shell::option("--url", &self.url), shell::option("--enrollment-token", token));
        let flags = format!("{url} {token}{ca}{insecure}");
        push(
            text,
            format_args!("\nTo enroll an agent on this host (on another host, use a copy of the CA certificate):\n"),
        );
        push(text, format_args!("  muster-agent enroll {flags}\n  elastic-agent enroll {flags}\n\n"));
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string can't fail");
}
