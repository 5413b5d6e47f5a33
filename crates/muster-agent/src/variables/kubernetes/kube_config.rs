//! The file `kubeconfig`: how clients outside of a cluster reach its API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::cluster::Token;
use crate::net::Server;
use crate::state::atomic;
use crate::state::enrollment::{ClientCertificate, Secret, Trust};
use crate::yaml;

/// Maximum size of the file, and of those that it names.
const FILE_MAX: usize = 1 << 20;
/// Port of servers whose URL has none.
const HTTPS: u16 = 443;

/// The current context of a file.
pub struct Context {
    /// The server.
    pub server: Server,
    /// How to verify it, with the certificate of the user.
    pub trust: Trust,
    /// Token of the user.
    pub token: Option<Token>,
    /// Namespace.
    pub namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    current_context: String,
    contexts: Vec<Named>,
    clusters: Vec<Named>,
    users: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    context: Option<Names>,
    #[serde(default)]
    cluster: Option<ClusterPart>,
    #[serde(default)]
    user: Option<User>,
}

#[derive(Clone, Deserialize)]
struct Names {
    cluster: String,
    user: String,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterPart {
    server: String,
    #[serde(default)]
    certificate_authority: Option<Utf8PathBuf>,
    #[serde(default)]
    certificate_authority_data: Option<String>,
    #[serde(default)]
    tls_server_name: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(default)]
    token: Option<Secret>,
    #[serde(default, rename = "tokenFile")]
    token_file: Option<Utf8PathBuf>,
    #[serde(default)]
    client_certificate: Option<Utf8PathBuf>,
    #[serde(default)]
    client_certificate_data: Option<String>,
    #[serde(default)]
    client_key: Option<Utf8PathBuf>,
    #[serde(default)]
    client_key_data: Option<Secret>,
    #[serde(default)]
    exec: Option<IgnoredAny>,
    #[serde(default)]
    auth_provider: Option<IgnoredAny>,
}

/// Reads the current context.
pub fn read(path: &Utf8Path) -> Result<Context, String> {
    let text = String::from_utf8(file(path)?).map_err(|_| "not UTF-8".to_owned())?;
    let File { current_context, contexts, clusters, users } = yaml::read(&text).map_err(|error| error.to_string())?;
    let named = |all: Vec<Named>, name: &str| {
        all.into_iter().find(|one| one.name == name).ok_or_else(|| format!("{name:?} is not defined"))
    };
    let names = named(contexts, &current_context)?.context.ok_or("the current context is empty")?;
    let cluster = named(clusters, &names.cluster)?.cluster.ok_or("the cluster is empty")?;
    let user = named(users, &names.user)?.user.unwrap_or_default();
    // Relative paths are relative to the file.
    let directory = path.parent().unwrap_or(Utf8Path::new("/"));
    let (server, trust) = (server(&cluster.server)?, trust(directory, cluster, &user)?);
    // `exec` runs a program with the privileges of the agent; `auth-provider` is its predecessor.
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err("users with `exec` or `auth-provider` are not supported".into());
    }
    let token = user.token.map(Token::Text);
    let token = token.or_else(|| user.token_file.map(|file| Token::File(directory.join(file))));
    Ok(Context { server, trust, token, namespace: names.namespace })
}

fn server(url: &str) -> Result<Server, String> {
    let server = Server::parse_with_port(url, HTTPS).map_err(|error| error.to_string())?;
    // A token must not cross a network in clear text.
    if server.tls || server.is_loopback() {
        return Ok(server);
    }
    Err(format!("{server}: without TLS, only a loopback address is allowed"))
}

fn trust(directory: &Utf8Path, cluster: ClusterPart, user: &User) -> Result<Trust, String> {
    // The connection carries secrets of the cluster.
    if cluster.insecure_skip_tls_verify {
        return Err("`insecure-skip-tls-verify` is not supported".into());
    }
    let authority = pem(directory, cluster.certificate_authority_data.as_deref(), cluster.certificate_authority)?;
    let certificate = pem(directory, user.client_certificate_data.as_deref(), user.client_certificate.clone())?;
    let key = pem(directory, user.client_key_data.as_ref().map(Secret::expose), user.client_key.clone())?;
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key: Secret::new(key) }),
        (None, None) => None,
        _ => return Err("the certificate of the user and its key must both be given".into()),
    };
    Ok(Trust {
        certificate_authorities: authority.into_iter().collect(),
        server_name: cluster.tls_server_name,
        client,
        ..Trust::default()
    })
}

/// Returns PEM text, from base64 or from a file.
fn pem(directory: &Utf8Path, data: Option<&str>, path: Option<Utf8PathBuf>) -> Result<Option<String>, String> {
    let bytes = match (data, path) {
        // Without the reason, which could quote a key.
        (Some(data), _) => STANDARD.decode(data.trim()).map_err(|_| "malformed base64".to_owned())?,
        (None, Some(path)) => file(&directory.join(path))?,
        (None, None) => return Ok(None),
    };
    String::from_utf8(bytes).map(Some).map_err(|_| "a certificate or key is not PEM".into())
}

fn file(path: &Utf8Path) -> Result<Vec<u8>, String> {
    let read = atomic::read(path).map_err(|error| format!("{path}: {error}"))?;
    let bytes = read.ok_or_else(|| format!("{path}: not found"))?;
    if bytes.len() > FILE_MAX { Err(format!("{path}: larger than {FILE_MAX} bytes")) } else { Ok(bytes) }
}
