//! The API of a cluster, with the credentials of the agent.

use camino::{Utf8Path, Utf8PathBuf};
use http::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kube_config;
use crate::net::{Server, tls};
use crate::state::atomic;
use crate::state::enrollment::{Secret, Trust};
use crate::variables::api::{ApiError, Ask, Documents, Place};

/// Directory of the service account in a pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Variable with the path of the client's configuration.
const KUBECONFIG: &str = "KUBECONFIG";
/// Namespace, if nothing defines another one.
const DEFAULT_NAMESPACE: &str = "default";

/// A token for the API.
pub enum Token {
    /// This one.
    Text(Secret),
    /// The content of a file, which the cluster replaces before the token expires.
    File(Utf8PathBuf),
}

/// The API of a cluster.
pub struct Cluster {
    place: Place,
    token: Option<Token>,
    namespace: String,
}

impl Cluster {
    /// Returns the cluster that `kube_config` or the environment names, or that this pod runs in. `None` if there is none.
    pub fn find(kube_config: Option<&Utf8Path>) -> Result<Option<Self>, String> {
        let of_environment = || std::env::var(KUBECONFIG).ok().filter(|path| !path.is_empty()).map(Utf8PathBuf::from);
        match kube_config.map(Utf8Path::to_owned).or_else(of_environment) {
            Some(path) => Self::configured(&path).map(Some).map_err(|reason| format!("{path}: {reason}")),
            // A file that is named but missing is an error; only without one is the service account used.
            None => Self::around(),
        }
    }

    /// Returns the namespace of the agent's pod, or of the client's configuration.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Reads an object or a list.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.send(Method::GET, path, None).await
    }

    /// Creates or replaces an object.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, ApiError> {
        self.place.document(Ask { method, path, token: self.token()?, body }).await
    }

    /// Watches a list.
    pub async fn watch(&self, path: &str) -> Result<Documents, ApiError> {
        self.place.stream(Ask { method: Method::GET, path, token: self.token()?, body: None }).await
    }

    fn configured(path: &Utf8Path) -> Result<Self, String> {
        let context = kube_config::read(path)?;
        let place = place(context.server, &context.trust)?;
        let namespace = context.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.into());
        Ok(Self { place, token: context.token, namespace })
    }

    /// Returns the cluster that this pod runs in.
    fn around() -> Result<Option<Self>, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(host) = variable("KUBERNETES_SERVICE_HOST") else { return Ok(None) };
        let port = variable("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok()).unwrap_or(443);
        let read = |name: &str| {
            let path = Utf8Path::new(SERVICE_ACCOUNT).join(name);
            let bytes = atomic::read(&path).map_err(|error| format!("{path}: {error}"))?;
            Ok::<_, String>(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
        };
        // Without a service account, a pod cannot use the API.
        let Some(authority) = read("ca.crt")? else { return Ok(None) };
        let trust = Trust { certificate_authorities: vec![authority], ..Trust::default() };
        let namespace = read("namespace")?.unwrap_or_else(|| DEFAULT_NAMESPACE.into());
        let place = place(Server { tls: true, host, port, prefix: String::new() }, &trust)?;
        let token = Some(Token::File(Utf8Path::new(SERVICE_ACCOUNT).join("token")));
        Ok(Some(Self { place, token, namespace }))
    }

    fn token(&self) -> Result<Option<Secret>, ApiError> {
        match &self.token {
            None => Ok(None),
            Some(Token::Text(token)) => Ok(Some(token.clone())),
            // Read for each request: the cluster replaces the file about once an hour.
            Some(Token::File(path)) => {
                let read = atomic::read(path).map_err(|error| ApiError::Connection(error.into()))?;
                let bytes = read.ok_or_else(|| ApiError::Connection(format!("{path}: not found").into()))?;
                Ok(Some(Secret::new(String::from_utf8_lossy(&bytes).trim())))
            }
        }
    }
}

fn place(server: Server, trust: &Trust) -> Result<Place, String> {
    Ok(Place::server(server, tls::client_config(trust).map_err(|error| error.to_string())?))
}
