//! The provider `kubernetes`: one set of variables for each pod, and one for each of its containers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::Cluster;
use super::objects::{List, Node, PROVIDER, Pod};
use crate::host;
use crate::variables::api::{ApiError, Documents, encoded};
use crate::variables::board::Board;
use crate::variables::lingering::{FOUND_MAX, Lingering};
use crate::variables::settings::{Kubernetes, Scope};

/// Number of pods in a part of a list: few enough for a small response.
const PAGE: u32 = 50;
/// Time after which a watch is renewed, and with it the list.
const WATCH: Duration = Duration::from_secs(600);
/// Time without the end of a watch after which the connection is lost.
const LOST: Duration = Duration::from_secs(630);
/// Delay before another try after an error.
const AGAIN: Duration = Duration::from_secs(10);
/// Time between the end of a watch and the next list.
const PAUSE: Duration = Duration::from_secs(1);
/// Time to wait for further events before the sets are published.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Finds pods until it is aborted.
pub async fn run(settings: Kubernetes, board: Arc<Board>) {
    let mut found = Lingering::new(settings.cleanup_timeout);
    loop {
        match Cluster::find(settings.kube_config.as_deref()) {
            // No fault: the same policy may be meant for hosts of a cluster.
            Ok(None) => board.set_fault(PROVIDER, None),
            Ok(Some(cluster)) => {
                let mut pods =
                    Pods { cluster: &cluster, settings: &settings, found: &mut found, board: &board, node: None };
                if let Err(reason) = pods.follow().await {
                    board.set_fault(PROVIDER, Some(reason));
                }
            }
            Err(reason) => board.set_fault(PROVIDER, Some(reason)),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

struct Pods<'a> {
    cluster: &'a Cluster,
    settings: &'a Kubernetes,
    found: &'a mut Lingering,
    board: &'a Board,
    /// Variables of the node, in its scope.
    node: Option<Value>,
}

/// An event of a watch.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Box<RawValue>,
}

/// The object of an event that ends the watch.
#[derive(Deserialize)]
struct Status {
    code: u16,
    #[serde(default)]
    message: String,
}

impl Pods<'_> {
    /// Lists and watches pods until something fails.
    async fn follow(&mut self) -> Result<(), String> {
        let mut selector = String::new();
        if self.settings.scope == Scope::Node {
            let name = self.node_name().await?;
            selector = format!("&fieldSelector={}", encoded(&format!("spec.nodeName={name}")));
            // The labels of the node are an addition that the agent may not be allowed to read.
            let path = format!("/api/v1/nodes/{}", encoded(&name));
            self.node = self.cluster.get::<Node>(&path).await.ok().map(|node| node.values());
        }
        let path = match &self.settings.namespace {
            Some(namespace) => format!("/api/v1/namespaces/{}/pods", encoded(namespace)),
            None => "/api/v1/pods".to_owned(),
        };
        loop {
            let version = self.list(&path, &selector).await.map_err(|error| error.to_string())?;
            match self.watch(&path, &selector, &version).await {
                // The usual end of a watch.
                Ok(()) | Err(ApiError::Ended) => {}
                // The version is too old. The list has a new one.
                Err(error) if error.is(StatusCode::GONE) => {}
                Err(error) => return Err(error.to_string()),
            }
            // A server that ends every watch at once must not be asked all the time.
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Returns the name of the node: from the settings or the environment, or that of the agent's own pod.
    async fn node_name(&self) -> Result<String, String> {
        let expand = |text: &str| match text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => std::env::var(name).unwrap_or_default(),
            None => text.to_owned(),
        };
        let given = expand(self.settings.node.as_deref().unwrap_or("${NODE_NAME}"));
        if !given.is_empty() {
            return Ok(given);
        }
        let path = format!("/api/v1/namespaces/{}/pods/{}", self.cluster.namespace(), encoded(&host::hostname()));
        match self.cluster.get::<Pod>(&path).await {
            Ok(pod) if !pod.spec.node_name.is_empty() => Ok(pod.spec.node_name),
            _ => Err("the name of the node is unknown; set NODE_NAME or providers.kubernetes.node".into()),
        }
    }

    /// Reads all pods. Returns the version of the list.
    async fn list(&mut self, path: &str, selector: &str) -> Result<String, ApiError> {
        let (mut ids, mut next) = (BTreeSet::new(), String::new());
        loop {
            let part = encoded(&next).to_string();
            let list: List<Pod> = self.cluster.get(&format!("{path}?limit={PAGE}&continue={part}{selector}")).await?;
            for pod in list.items {
                ids.insert(pod.metadata.uid.clone());
                self.put(&pod);
            }
            next = list.metadata.next;
            // More than the maximum is not kept, so the rest of a large list is not read either.
            if next.is_empty() || ids.len() > FOUND_MAX {
                self.found.keep_only(&ids, Instant::now());
                return Ok(list.metadata.resource_version);
            }
        }
    }

    /// Follows changes until the watch ends.
    async fn watch(&mut self, path: &str, selector: &str, version: &str) -> Result<(), ApiError> {
        let seconds = WATCH.as_secs();
        let watch = format!("{path}?watch=true&resourceVersion={version}&timeoutSeconds={seconds}{selector}");
        let mut events = self.cluster.watch(&watch).await?;
        // The server ends a watch after the requested time. One that is still open has lost its connection unnoticed.
        let lost = Instant::now() + LOST;
        loop {
            let (sets, next) = self.found.valid(Instant::now());
            self.board.set_dynamic(PROVIDER, sets);
            self.board.set_fault(PROVIDER, self.found.overflow("pods"));
            tokio::select! {
                ended = self.apply_next(&mut events) => ended?,
                () = tokio::time::sleep_until(next.unwrap_or(lost).min(lost)) => {
                    if Instant::now() >= lost {
                        return Err(ApiError::Timeout(LOST));
                    }
                }
            }
            // A status of a pod often changes several times in a row.
            let quiet = Instant::now() + DEBOUNCE;
            while Instant::now() < quiet
                && let Ok(applied) = tokio::time::timeout_at(quiet, self.apply_next(&mut events)).await
            {
                applied?;
            }
        }
    }

    async fn apply_next(&mut self, events: &mut Documents) -> Result<(), ApiError> {
        let Event { kind, object } = events.next().await?;
        match kind.as_str() {
            "ADDED" | "MODIFIED" => self.put(&read(&object)?),
            "DELETED" => self.found.remove(&read::<Pod>(&object)?.metadata.uid, Instant::now()),
            "ERROR" => {
                let Status { code, message } = read(&object)?;
                let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Err(ApiError::Status { status, message });
            }
            // Bookmarks, and types of later versions.
            _ => {}
        }
        Ok(())
    }

    fn put(&mut self, pod: &Pod) {
        self.found.put(pod.metadata.uid.clone(), pod.sets(self.settings.scope, self.node.as_ref()));
    }
}

fn read<T: DeserializeOwned>(object: &RawValue) -> Result<T, ApiError> {
    serde_json::from_str(object.get()).map_err(|error| ApiError::Malformed(error.into()))
}
