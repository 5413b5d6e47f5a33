//! Connection flags: the admin socket on the same host, or a URL with a token.

use camino::Utf8PathBuf;
use clap::Args;
use muster_client::{Client, HttpOptions};

use super::authorities;
use super::failure::Failed;

/// Flags of every administration command.
#[derive(Args, Clone, Debug)]
pub struct Connect {
    // Not clap's `env`, because a flag must take precedence over the variable of the other flag.
    /// Data directory of the server on this host, which contains the admin socket [env: MUSTER_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "url", help_heading = "Connection")]
    pub data_dir: Option<Utf8PathBuf>,
    /// URL of the management API, instead of the socket. Not usable yet: this version issues no API tokens [env: MUSTER_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Connection")]
    pub url: Option<String>,
    /// API token for --url
    #[arg(long, env = "MUSTER_TOKEN", global = true, hide_env_values = true, help_heading = "Connection")]
    pub token: Option<String>,
    /// PEM file with the CA certificate to trust for --url
    #[arg(
        long,
        env = "MUSTER_CA",
        hide_env_values = true,
        global = true,
        value_name = "FILE",
        help_heading = "Connection"
    )]
    pub ca: Option<Utf8PathBuf>,
}

impl Connect {
    /// Returns a client for these flags.
    pub fn client(&self) -> Result<Client, Failed> {
        let variable = || std::env::var("MUSTER_URL").ok().filter(|url| !url.is_empty());
        // `--data-dir` takes precedence over MUSTER_URL.
        let url = self.url.clone().or_else(|| if self.data_dir.is_none() { variable() } else { None });
        let Some(url) = url else { return Ok(Client::unix(self.socket()?)?) };
        let options = HttpOptions { ca_pem: self.ca.as_deref().map(authorities::read).transpose()? };
        Ok(Client::http_with(&url, self.token.as_deref(), &options)?)
    }

    /// Returns the data directory that `muster serve` would use.
    pub fn data_dir(&self) -> Result<Utf8PathBuf, Failed> {
        let directory = self.data_dir.clone().or_else(data_dir_of_serve);
        directory.ok_or_else(|| Failed::usage("cannot find the server's data directory: there is no home directory"))
    }

    fn socket(&self) -> Result<Utf8PathBuf, Failed> {
        Ok(self.data_dir()?.join("admin.sock"))
    }
}

/// Finds the data directory as `muster serve` does: variable, configuration file, default. Ignores a configuration file
/// that this user cannot read.
fn data_dir_of_serve() -> Option<Utf8PathBuf> {
    muster_server::config::gather::data_dir().ok().or_else(default_data_dir)
}

fn default_data_dir() -> Option<Utf8PathBuf> {
    if let Ok(directory) = std::env::var("MUSTER_DATA_DIR") {
        return Some(directory.into());
    }
    let environment = std::env::vars().collect();
    muster_server::config::settings::default_data_dir(nix::unistd::Uid::effective().is_root(), &environment)
}
