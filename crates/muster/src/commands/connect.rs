//! Connection flags: the admin socket on the same host, or a URL with a token.

use camino::Utf8PathBuf;
use clap::Args;
use muster_client::{Client, HttpOptions};

use super::authorities;
use super::contexts::{Context, Contexts};
use super::failure::Failed;

/// Flags of every administration command.
#[derive(Args, Clone, Debug)]
pub struct Connect {
    // Not clap's `env`, because a flag must take precedence over the variable of the other flag.
    /// Data directory of the server on this host, which contains the admin socket [env: MUSTER_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "url", help_heading = "Connection")]
    pub data_dir: Option<Utf8PathBuf>,
    /// URL of the management API, instead of the socket [env: MUSTER_URL]
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
    /// Context, as listed by `muster context list`, instead of --url [env: MUSTER_CONTEXT]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        conflicts_with_all = ["url", "data_dir"],
        help_heading = "Connection"
    )]
    pub context: Option<String>,
    /// Space [default: that of the context, or `default`]
    #[arg(
        long,
        env = "MUSTER_SPACE",
        hide_env_values = true,
        global = true,
        value_name = "ID",
        help_heading = "Connection"
    )]
    pub space: Option<String>,
}

/// What a command connects to.
enum Target {
    /// The socket of the server on this host.
    Socket(Utf8PathBuf),
    /// A URL, with credentials.
    Http(Context),
}

impl Connect {
    /// Returns a client for these flags.
    pub fn client(&self) -> Result<Client, Failed> {
        let (client, space) = match self.target()? {
            Target::Socket(path) => (Client::unix(path)?, None),
            Target::Http(Context { url, token, ca, space }) => {
                let options = HttpOptions { ca_pem: ca.as_deref().map(authorities::read).transpose()? };
                (Client::http_with(&url, token.as_deref(), &options)?, space)
            }
        };
        let space = self.space.clone().or(space).filter(|space| !space.is_empty());
        Ok(match space {
            Some(space) => client.in_space(&space),
            None => client,
        })
    }

    /// Flags take precedence over variables, and these over the current context.
    fn target(&self) -> Result<Target, Failed> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let with_flags = |context: &Context| {
            let Context { url, token, ca, space } = context.clone();
            Target::Http(Context { url, token: self.token.clone().or(token), ca: self.ca.clone().or(ca), space })
        };
        if let Some(url) = self.url.clone() {
            return Ok(with_flags(&Context { url, ..Context::default() }));
        }
        if self.data_dir.is_some() {
            return Ok(Target::Socket(self.socket()?));
        }
        if let Some(name) = &self.context {
            return Ok(with_flags(Contexts::load()?.find(name)?));
        }
        if let Some(url) = variable("MUSTER_URL") {
            return Ok(with_flags(&Context { url, ..Context::default() }));
        }
        let contexts = Contexts::load()?;
        let chosen = match variable("MUSTER_CONTEXT") {
            Some(name) => Some(contexts.find(&name)?),
            // A variable that names the server of this host is more specific than the current context.
            None if variable("MUSTER_DATA_DIR").is_some() => None,
            None => contexts.current()?,
        };
        match chosen {
            Some(context) => Ok(with_flags(context)),
            None => Ok(Target::Socket(self.socket()?)),
        }
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
