//! The Elasticsearch of the server on this host: the output of this agent's policy, with the bootstrap settings that the
//! server uses while the output does not work (AG103, AG172).

use std::fmt;
use std::time::Duration;

use http::{Method, StatusCode};
use muster_core::hex;
use muster_protocol::management::output::{Output, OutputTest};
use muster_protocol::management::{Item, Items};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::bootstrap::{Bootstrap, refused};
use crate::exit::{self, Failure};

/// Pause between two tests.
const PAUSE: Duration = Duration::from_secs(2);
/// Id of the output, if the policy has none.
const OUTPUT: &str = "fleet-server-elasticsearch";
/// Name of this output.
const OUTPUT_NAME: &str = "Elasticsearch of the fleet servers";
/// The setting without which a server connects to no Elasticsearch of its own host.
const LOCAL_TARGETS: &str = "outgoing.allow_local_targets";

/// An Elasticsearch. The debug output omits the settings, which contain credentials.
#[derive(Clone)]
pub struct Elasticsearch {
    /// Fields of the output for agents.
    pub shared: Map<String, Value>,
    /// Its bootstrap settings, with the credentials of the server.
    pub block: Map<String, Value>,
}

impl fmt::Debug for Elasticsearch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elasticsearch").finish_non_exhaustive()
    }
}

impl Elasticsearch {
    /// Returns a hash of all settings, by which a changed one is recognized.
    pub fn hash(&self) -> String {
        hex::encode(&hex::sha256(json!([self.shared, self.block]).to_string().as_bytes()))
    }
}

/// An output object that exists.
struct Found {
    output: Output,
    /// Whether the policy uses it, or would if it existed.
    is_used: bool,
}

impl Bootstrap {
    /// Configures the output of the policy, if there is an Elasticsearch. It is tested first: a failed attempt must leave no
    /// settings behind.
    pub async fn provide_output(&self) -> Result<(), Failure> {
        let Some(elasticsearch) = &self.elasticsearch else { return Ok(()) };
        self.until_usable(elasticsearch).await?;
        let policy = self.policy().await?;
        let found = self.output_of(policy.as_ref()).await?;
        match &found {
            Some(found) => self.complete_output(&found.output, elasticsearch).await?,
            None => self.create_output(elasticsearch).await?,
        }
        if found.is_some_and(|found| found.is_used) { Ok(()) } else { self.use_output(policy.as_ref()).await }
    }

    /// Waits until the server can use the cluster. Ends early if waiting cannot help.
    async fn until_usable(&self, elasticsearch: &Elasticsearch) -> Result<(), Failure> {
        let deadline = Instant::now() + self.timeout;
        let mut settings = elasticsearch.block.clone();
        settings.insert("type".into(), "elasticsearch".into());
        let settings = Value::Object(settings);
        let mut last = "no response".to_owned();
        loop {
            let test = self.request(Method::POST, "outputs/_test", Some(&settings));
            // The test of a silent host would take longer than the command may.
            let Ok(answered) = timeout_at(deadline, test).await else { return Err(late(self.timeout, &last)) };
            let (status, body) = answered?;
            let test: OutputTest =
                read(status, &body).ok_or_else(|| refused("connection to Elasticsearch", status, &body))?;
            if test.usable {
                eprintln!("Elasticsearch {} accepts the server", test.version.unwrap_or_default());
                return Ok(());
            }
            if !matches!(test.failure.as_deref(), Some("overloaded" | "unavailable")) {
                return Err(unusable(&test));
            }
            if test.message != last {
                eprintln!("Waiting for Elasticsearch: {}", test.message);
                last = test.message;
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(late(self.timeout, &last));
            }
            sleep(PAUSE).await;
        }
    }

    /// Returns the output object that the policy uses, or that an earlier attempt has created for it.
    async fn output_of(&self, policy: Option<&Value>) -> Result<Option<Found>, Failure> {
        if policy.is_some_and(|policy| !policy["config"]["outputs"]["default"].is_null()) {
            let message =
                format!("--fleet-server-es: the policy {} defines its output in its configuration", self.policy);
            return Err(
                Failure::new(exit::FAILED, message).hint("add the settings there, below `bootstrap` of the output")
            );
        }
        let (status, body) = self.request(Method::GET, "outputs?perPage=1000", None).await?;
        let outputs: Items<Output> = read(status, &body).ok_or_else(|| refused("list of outputs", status, &body))?;
        let named = policy.and_then(|policy| policy["data_output_id"].as_str());
        let is_used = |output: &Output| named.map_or(output.is_default, |id| output.id == id);
        let used = outputs.items.iter().find(|output| is_used(output));
        let found = used.or_else(|| outputs.items.iter().find(|output| output.id == OUTPUT));
        match found {
            Some(output) if !matches!(output.kind.as_str(), "elasticsearch" | "remote_elasticsearch") => {
                let message =
                    format!("--fleet-server-es: the output {:?} of the policy is of type {}", output.name, output.kind);
                Err(Failure::new(exit::FAILED, message).hint("assign another output to the policy first"))
            }
            found => Ok(found.map(|output| Found { output: output.clone(), is_used: used.is_some() })),
        }
    }

    /// Adds the bootstrap settings to an output. Its own settings take precedence, unless an earlier start made them.
    async fn complete_output(&self, output: &Output, elasticsearch: &Elasticsearch) -> Result<(), Failure> {
        let mut change = Map::new();
        let former = output.fields.get("bootstrap").and_then(|block| block.get("hosts"));
        if output.id == OUTPUT && output.fields.get("hosts") == former {
            change.insert("ssl".into(), Value::Null);
            change.extend(elasticsearch.shared.clone());
        }
        change.insert("bootstrap".into(), elasticsearch.block.clone().into());
        let path = format!("outputs/{}", super::bootstrap::segment(&output.id));
        self.written(Method::PUT, &path, change, "output").await
    }

    async fn create_output(&self, elasticsearch: &Elasticsearch) -> Result<(), Failure> {
        let mut output = elasticsearch.shared.clone();
        for (name, value) in [("id", OUTPUT), ("name", OUTPUT_NAME), ("type", "elasticsearch")] {
            output.insert(name.into(), value.into());
        }
        output.insert("bootstrap".into(), elasticsearch.block.clone().into());
        self.written(Method::POST, "outputs", output, "output").await
    }

    /// Creates the policy with the output, or assigns the output to it.
    async fn use_output(&self, policy: Option<&Value>) -> Result<(), Failure> {
        let Some(policy) = policy else { return self.create_policy(Some(OUTPUT)).await };
        let kept = ["name", "namespace", "inactivity_timeout"].into_iter();
        let mut change: Map<String, Value> = kept.map(|name| (name.to_owned(), policy[name].clone())).collect();
        change.insert("data_output_id".into(), OUTPUT.into());
        self.written(Method::PUT, &self.policy_path(), change, "policy").await
    }

    async fn written(&self, method: Method, path: &str, body: Map<String, Value>, what: &str) -> Result<(), Failure> {
        let (status, answer) = self.request(method, path, Some(&Value::Object(body))).await?;
        if status.is_success() { Ok(()) } else { Err(refused(what, status, &answer)) }
    }

    /// Returns the policy of this agent; `None` if it does not exist.
    async fn policy(&self) -> Result<Option<Value>, Failure> {
        let (status, body) = self.request(Method::GET, &self.policy_path(), None).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let found: Item<Value> = read(status, &body).ok_or_else(|| refused("policy", status, &body))?;
        Ok(Some(found.item))
    }
}

fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Option<T> {
    status.is_success().then(|| serde_json::from_slice(body).ok()).flatten()
}

fn unusable(test: &OutputTest) -> Failure {
    let failure = Failure::new(exit::REFUSED, format!("the server cannot use Elasticsearch: {}", test.message));
    match test.failure.as_deref() {
        Some("refused") => failure.hint("check --fleet-server-service-token, and the privileges of its account"),
        _ if test.message.contains(LOCAL_TARGETS) => {
            failure.hint(format!("add --fleet-server-set {LOCAL_TARGETS}=true"))
        }
        _ => failure,
    }
}

fn late(timeout: Duration, last: &str) -> Failure {
    let message = format!("the server could not use Elasticsearch within {timeout:?}: {last}");
    Failure::new(exit::TIMEOUT, message)
        .hint("check --fleet-server-es and its CA; --fleet-server-timeout is the maximum time to wait")
}
