//! The provider `kubernetes_secrets`: values of secrets, `${kubernetes_secrets.NAMESPACE.NAME.KEY}`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Cluster;
use crate::state::enrollment::Secret;
use crate::variables::api::{ApiError, encoded};
use crate::variables::board::Board;
use crate::variables::settings::KubernetesSecrets;

/// Name of the provider.
pub const PROVIDER: &str = "kubernetes_secrets";
/// Maximum number of secrets of a policy.
const SECRETS_MAX: usize = 100;

/// A value of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    namespace: String,
    name: String,
    key: String,
}

impl Reference {
    /// Parses `NAMESPACE.NAME.KEY`. Names may contain dots; namespaces and keys must not.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, rest) = text.split_once('.')?;
        let (name, key) = rest.rsplit_once('.')?;
        let all = [namespace, name, key];
        all.iter().all(|part| !part.is_empty()).then(|| Self {
            namespace: namespace.into(),
            name: name.into(),
            key: key.into(),
        })
    }
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    data: Option<BTreeMap<String, Secret>>,
}

/// Reads these values, now and again after a while, until it is aborted.
pub async fn run(settings: KubernetesSecrets, wanted: BTreeSet<Reference>, board: Arc<Board>) {
    let mut values = Map::new();
    loop {
        let fault = match Cluster::find(settings.kube_config.as_deref()) {
            Ok(None) => None,
            Ok(Some(cluster)) => read(&cluster, &wanted, &mut values).await,
            Err(reason) => Some(reason),
        };
        // Also if some could not be read: inputs that need only the others can run.
        board.set_context(PROVIDER, values.clone().into());
        board.set_fault(PROVIDER, fault);
        tokio::time::sleep(settings.refresh_interval).await;
    }
}

/// Reads all values. Returns why some are missing. A value that cannot be read now stays as it was, unless it was deleted.
async fn read(cluster: &Cluster, wanted: &BTreeSet<Reference>, values: &mut Map<String, Value>) -> Option<String> {
    let mut fault = (wanted.len() > SECRETS_MAX).then(|| format!("more than {SECRETS_MAX} secrets"));
    for Reference { namespace, name, key } in wanted.iter().take(SECRETS_MAX) {
        let place = values.entry(namespace.as_str()).or_insert_with(|| json!({}));
        match value(cluster, namespace, name, key).await {
            Ok(value) => place[name][key] = value.into(),
            // A cluster that is unreachable for a while must not stop inputs, but a deleted secret must not stay in
            // use.
            Err(Failed { reason, deleted }) => {
                if let Some(secret) = place.get_mut(name).and_then(Value::as_object_mut).filter(|_| deleted) {
                    secret.remove(key);
                }
                fault.get_or_insert(format!("{namespace}.{name}.{key}: {reason}"));
            }
        }
    }
    fault
}

/// Why there is no value.
struct Failed {
    reason: String,
    deleted: bool,
}

async fn value(cluster: &Cluster, namespace: &str, name: &str, key: &str) -> Result<String, Failed> {
    let path = format!("/api/v1/namespaces/{}/secrets/{}", encoded(namespace), encoded(name));
    let failed = |error: ApiError| Failed { deleted: error.is(StatusCode::NOT_FOUND), reason: error.to_string() };
    let object: Object = cluster.get(&path).await.map_err(failed)?;
    let data = object.data.and_then(|mut data| data.remove(key));
    let data = data.ok_or_else(|| Failed { reason: "the secret has no such key".into(), deleted: true })?;
    let text = STANDARD.decode(data.expose()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| Failed { reason: "the value is not text".into(), deleted: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_a_namespace_a_name_and_a_key() {
        let parsed = |text| Reference::parse(text).map(|found| [found.namespace, found.name, found.key].join("/"));
        assert_eq!(parsed("ns.name.key").as_deref(), Some("ns/name/key"));
        assert_eq!(parsed("ns.a.b.key").as_deref(), Some("ns/a.b/key"));
        for bad in ["ns.name", "ns", "ns..key", ".name.key", "ns.name."] {
            assert_eq!(Reference::parse(bad), None, "{bad}");
        }
    }
}
