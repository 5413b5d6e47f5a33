//! How to reach the server: the admin socket on the same host, else a URL with a token.

use camino::Utf8PathBuf;
use clap::Args;
use muster_client::{Client, HttpOptions};

use super::failure::Failed;

/// Flags that every administrator's command takes.
#[derive(Args, Clone, Debug)]
pub struct Connect {
    /// The server's data directory; its admin socket lies in it
    #[arg(long, env = "MUSTER_DATA_DIR", global = true, value_name = "DIR", help_heading = "Connection")]
    pub data_dir: Option<Utf8PathBuf>,
    /// The server's management address, instead of the socket on this host
    #[arg(long, env = "MUSTER_URL", global = true, help_heading = "Connection")]
    pub url: Option<String>,
    /// API token for --url
    #[arg(long, env = "MUSTER_TOKEN", global = true, hide_env_values = true, help_heading = "Connection")]
    pub token: Option<String>,
    /// Certificate (PEM) of the authority to trust for --url
    #[arg(long, env = "MUSTER_CA", global = true, value_name = "FILE", help_heading = "Connection")]
    pub ca: Option<Utf8PathBuf>,
}

impl Connect {
    /// The client these flags lead to.
    pub fn client(&self) -> Result<Client, Failed> {
        let Some(url) = &self.url else { return Ok(Client::unix(self.socket()?)?) };
        let ca_pem = self.ca.as_ref().map(std::fs::read).transpose();
        let ca_pem = ca_pem.map_err(|error| Failed::usage(format!("--ca: can't read the file: {error}")))?;
        Ok(Client::http_with(url, self.token.as_deref(), &HttpOptions { ca_pem })?)
    }

    /// The socket in the folder that `muster serve` would use.
    fn socket(&self) -> Result<Utf8PathBuf, Failed> {
        let folder = self.data_dir.clone().or_else(default_data_dir);
        let folder = folder.ok_or_else(|| Failed::usage("there is no home folder to find the server's data in"))?;
        Ok(folder.join("admin.sock"))
    }
}

fn default_data_dir() -> Option<Utf8PathBuf> {
    let environment = std::env::vars().collect();
    muster_server::config::settings::default_data_dir(nix::unistd::Uid::effective().is_root(), &environment)
}
