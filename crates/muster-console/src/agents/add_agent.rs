//! `/add-agent`: creates an enrollment key, shows the commands that enroll an agent with it, and waits for the agent.

use std::net::IpAddr;
use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use muster_core::Error;
use muster_core::authorization::{
    AgentsRead, EnrollmentCreate, EnrollmentRead, EnrollmentReveal, PoliciesRead, PrivilegeName, RefusalsRead,
};
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::id::EnrollmentKeyId;
use muster_core::shell;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::agent_views::{AgentListQuery, Rows};
use muster_fleet::keys::NewEnrollmentKey;
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, Page};
use serde::Deserialize;

use super::agent::name_of;
use super::asked::TAB;
use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Base;
use crate::policies::{PolicyRow, rows};
use crate::request::Posted;
use crate::settings::keys::not_retrievable;
use crate::text::{Badge, Moment};
use crate::visitor::{Params, Visitor};

/// Lifetime of the keys that the page creates: long enough to enroll a number of hosts by hand.
const LIFETIME: &str = "1d";
/// Number of agents and rejected requests that the page shows.
const SHOWN: u32 = 10;
/// Elastic Agent's image, in the version that Muster is tested with.
const IMAGE: &str = "docker.elastic.co/elastic-agent/elastic-agent:9.5.2";

/// How agents verify the server's certificate.
pub struct ServerTrust {
    /// Path of the CA certificate of the server's own CA; `None` if its certificate is another CA's.
    pub ca: Option<String>,
    /// Whether agents connect over plain HTTP.
    pub is_plain: bool,
}

impl ServerTrust {
    /// The path of the CA certificate, if agents need it.
    fn needed_ca(&self) -> Option<&str> {
        self.ca.as_deref().filter(|_| !self.is_plain)
    }

    /// The flags of an enrollment (MG184): only what the server's certificate makes necessary. `ca` is the path of the CA
    /// certificate on the new host, as a shell reads it.
    fn flags(&self, ca: &str) -> String {
        match (self.needed_ca(), self.is_plain) {
            (_, true) => " --insecure".to_owned(),
            (Some(_), false) => format!(" --certificate-authorities={ca}"),
            (None, false) => String::new(),
        }
    }
}

/// Parameters of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The key whose agents a waiting page asks for.
    key: String,
    /// When the key was created, microseconds: what was rejected before is not shown.
    since: i64,
}

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    policy: String,
}

#[derive(Template)]
#[template(path = "agents/add_agent.html")]
struct AddAgentPage<'a> {
    frame: Frame,
    policies: Vec<PolicyRow>,
    has_url: bool,
    /// The URL of the commands if only this host can reach it; otherwise empty.
    loopback: String,
    commands: Option<Commands<'a>>,
    /// What has come until now; `None` if the person may not see agents.
    arrivals: Option<Arrivals>,
    error: Option<Error>,
}

/// The commands that enroll an agent.
struct Commands<'a> {
    key: String,
    since: i64,
    /// Why no agent can enroll with the key any more; empty if it can.
    unusable: String,
    /// Whether the token is shown. It is not on a page that was reloaded: whoever reveals it is in the audit log.
    has_token: bool,
    /// The privilege that revealing the token needs, if the person lacks it.
    lacks: &'static str,
    ca: Option<&'a str>,
    /// Command that creates the file with the CA certificate; empty if the certificate cannot be read here.
    ca_file: String,
    /// Flags for muster-agent, and for Elastic Agent in the shells of Unix and of Windows.
    flags: String,
    elastic: String,
    windows: String,
    docker: String,
    secret: String,
    manifest: String,
}

#[derive(Template)]
#[template(path = "agents/arrivals.html")]
struct Arrivals {
    base: Base,
    key: String,
    agents: Vec<Arrival>,
    refused: Vec<Refusal>,
}

struct Arrival {
    id: String,
    name: String,
    badge: Badge,
    policy: Option<(i64, Moment)>,
}

/// A rejected request that may have been the agent's.
struct Refusal {
    address: String,
    version: String,
    text: String,
    remedy: &'static str,
    at: Moment,
}

/// Shows the form; or, for a waiting page, the agents that have enrolled with its key.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    Extension(trust): Extension<Arc<ServerTrust>>,
    visitor: Visitor,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    let shown = match asked.key.as_str() {
        "" => form_page(&fleet, &visitor).await.map(|form| page(StatusCode::OK, &form)),
        _ if headers.contains_key("hx-request") => {
            arrivals(&fleet, &visitor, &asked).await.map(|arrivals| page(StatusCode::OK, &arrivals))
        }
        key => again(&fleet, &trust, &visitor, key).await,
    };
    shown.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

async fn form_page(fleet: &Fleet, visitor: &Visitor) -> Result<AddAgentPage<'static>, Error> {
    visitor.context.grant::<EnrollmentCreate>()?;
    let url = fleet.urls().first();
    Ok(AddAgentPage {
        frame: Frame::new(visitor, "Add an agent", TAB),
        policies: rows(fleet, &visitor.context.grant::<PoliciesRead>()?).await?,
        has_url: url.is_some(),
        loopback: url.filter(|url| is_loopback(url)).unwrap_or_default(),
        commands: None,
        arrivals: None,
        error: None,
    })
}

/// Creates a key for the chosen policy, and shows the commands.
pub async fn create(
    State(fleet): State<Arc<Fleet>>,
    Extension(trust): Extension<Arc<ServerTrust>>,
    Posted(visitor, fields): Posted<Fields>,
) -> Response {
    match created(&fleet, &trust, &visitor, fields).await {
        Ok(response) => response.into_response(),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn created(fleet: &Fleet, trust: &ServerTrust, visitor: &Visitor, fields: Fields) -> Result<Response, Error> {
    let mut form = form_page(fleet, visitor).await?;
    let Some(url) = fleet.urls().first() else { return Ok(page(StatusCode::OK, &form)) };
    let now = fleet.now();
    let new = NewEnrollmentKey {
        policy_id: Some(fields.policy).filter(|policy| !policy.is_empty()),
        name: Some(format!(
            "added by {}, {}",
            visitor.name,
            now.to_rfc3339_seconds().replace('T', " ").replace('Z', " UTC")
        )),
        expiration: Some(LIFETIME.to_owned()),
        // The page of the key, which can be reloaded, reveals the token again.
        retrievable: true,
        ..NewEnrollmentKey::default()
    };
    let (key, token) = fleet.enrollment_keys().create(&visitor.context.grant()?, &new).await?;
    form.commands = Some(of_key(trust, visitor, &key, &url, Some(&token), now).await);
    form.arrivals = arrived(fleet, visitor, &key).await?;
    Ok(page(StatusCode::OK, &form))
}

/// Returns the commands for a key. Without the token, they have a word in its place.
async fn of_key<'a>(
    trust: &'a ServerTrust,
    visitor: &Visitor,
    key: &EnrollmentKey,
    url: &str,
    token: Option<&str>,
    now: Timestamp,
) -> Commands<'a> {
    Commands {
        key: key.id.to_string(),
        since: key.created_at.as_micros(),
        unusable: key.admits(now).err().map(|reason| reason.to_string()).unwrap_or_default(),
        has_token: token.is_some(),
        lacks: visitor.lacks(PrivilegeName::EnrollmentReveal),
        ca_file: ca_file(trust).await,
        ..commands(trust, url, token.unwrap_or("TOKEN"))
    }
}

/// Shows the page of a key again, which was reloaded or shared: without the token.
async fn again(fleet: &Fleet, trust: &ServerTrust, visitor: &Visitor, id: &str) -> Result<Response, Error> {
    let key = fleet.enrollment_keys().find::<EnrollmentRead>(&visitor.context, id).await?.into_inner();
    with_commands(fleet, trust, visitor, &key, None).await
}

async fn with_commands(
    fleet: &Fleet,
    trust: &ServerTrust,
    visitor: &Visitor,
    key: &EnrollmentKey,
    token: Option<&str>,
) -> Result<Response, Error> {
    let url = fleet.urls().first();
    let commands = match &url {
        Some(url) => Some(of_key(trust, visitor, key, url, token, fleet.now()).await),
        None => None,
    };
    let shown = AddAgentPage {
        frame: Frame::new(visitor, "Add an agent", TAB),
        policies: Vec::new(),
        has_url: url.is_some(),
        loopback: url.filter(|url| is_loopback(url)).unwrap_or_default(),
        commands,
        arrivals: arrived(fleet, visitor, key).await?,
        error: None,
    };
    Ok(page(StatusCode::OK, &shown))
}

/// Returns whether only this host can reach a URL.
fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The form that reveals the token of a key.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Revealed {
    key: String,
}

/// Shows the page of a key with its token. An audit event, so it is not a link.
pub async fn reveal(
    State(fleet): State<Arc<Fleet>>,
    Extension(trust): Extension<Arc<ServerTrust>>,
    Posted(visitor, form): Posted<Revealed>,
) -> Response {
    let made = async {
        let keys = fleet.enrollment_keys();
        let (key, token) = keys.reveal(keys.find::<EnrollmentReveal>(&visitor.context, &form.key).await?).await?;
        let token = token.ok_or_else(not_retrievable)?;
        with_commands(&fleet, &trust, &visitor, &key, Some(&token)).await
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// Returns the CA certificate, PEM; empty if agents need none or it cannot be read.
async fn ca_file(trust: &ServerTrust) -> String {
    let Some(path) = trust.needed_ca() else { return String::new() };
    let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
    let is_certificate = text.starts_with("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE KEY");
    if is_certificate { text.trim_end().to_owned() } else { String::new() }
}

/// Returns the commands that enroll with a token at a URL.
fn commands<'a>(trust: &'a ServerTrust, url: &str, token: &str) -> Commands<'a> {
    let ca = trust.needed_ca();
    let flags = format!("{} {}", shell::option("--url", url), shell::option("--enrollment-token", token));
    // Elastic Agent rejects relative paths.
    let of = |ca| format!("{flags}{}", trust.flags(ca));
    let variable = |name: &str, value: &str| format!(" -e {}", shell::word(&format!("{name}={value}")));
    let mut docker = "docker run -d --name muster-agent --restart unless-stopped -e FLEET_ENROLL=1".to_owned();
    docker += &(variable("FLEET_URL", url) + &variable("FLEET_ENROLLMENT_TOKEN", token));
    docker += if trust.is_plain { " -e FLEET_INSECURE=true" } else { "" };
    docker +=
        if ca.is_some() { " -e FLEET_CA=/etc/muster/ca.crt -v \"$PWD/ca.crt:/etc/muster/ca.crt:ro\"" } else { "" };
    let from_file = if ca.is_some() { " --from-file=ca.crt" } else { "" };
    Commands {
        key: String::new(),
        since: 0,
        unusable: String::new(),
        has_token: true,
        lacks: "",
        ca,
        ca_file: String::new(),
        flags: of("ca.crt"),
        elastic: of("\"$PWD/ca.crt\""),
        windows: of("\"$PWD\\ca.crt\""),
        docker: format!("{docker} {IMAGE}"),
        secret: format!(
            "kubectl create secret generic muster-agent --namespace=kube-system {}{from_file}",
            shell::word(&format!("--from-literal=token={token}"))
        ),
        manifest: manifest(url, trust.is_plain, ca.is_some()),
    }
}

/// Returns the manifest of a DaemonSet: an agent on each node of a cluster.
fn manifest(url: &str, is_plain: bool, has_ca: bool) -> String {
    // A JSON string is a YAML string, whatever it contains.
    let url = serde_json::Value::from(url).to_string();
    let mut env = format!(
        "        - {{name: FLEET_ENROLL, value: \"1\"}}\n        - {{name: FLEET_URL, value: {url}}}\n        \
         - {{name: FLEET_ENROLLMENT_TOKEN, valueFrom: {{secretKeyRef: {{name: muster-agent, key: token}}}}}}\n        \
         - {{name: NODE_NAME, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}\n"
    );
    if is_plain {
        env += "        - {name: FLEET_INSECURE, value: \"true\"}\n";
    }
    if has_ca {
        env += "        - {name: FLEET_CA, value: /etc/muster/ca.crt}\n";
    }
    format!(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: muster-agent, namespace: kube-system}}\nspec:\n  \
         selector: {{matchLabels: {{app: muster-agent}}}}\n  template:\n    metadata: {{labels: {{app: muster-agent}}}}\n    \
         spec:\n      hostNetwork: true\n      dnsPolicy: ClusterFirstWithHostNet\n      \
         tolerations:\n      - {{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}}\n      containers:\n      \
         - name: agent\n        image: {IMAGE}\n        securityContext: {{runAsUser: 0}}\n        env:\n{env}        volumeMounts:\n        \
         - {{name: muster, mountPath: /etc/muster, readOnly: true}}\n        \
         - {{name: state, mountPath: /usr/share/elastic-agent/state}}\n      volumes:\n      \
         - {{name: muster, secret: {{secretName: muster-agent}}}}\n      \
         - {{name: state, hostPath: {{path: /var/lib/muster-agent, type: DirectoryOrCreate}}}}\n"
    )
}

/// Returns the agents that have enrolled with a key, and what this server has rejected since the key was created: an agent
/// that does not come may be among it.
async fn arrivals(fleet: &Fleet, visitor: &Visitor, asked: &Asked) -> Result<Arrivals, Error> {
    let key = &asked.key;
    let id = EnrollmentKeyId::parse(key).map_err(|_| Error::not_found("enrollment key", key))?;
    let question = AgentListQuery {
        filter: AgentFilter::all([AgentCondition::EnrollmentKeys(vec![id])]),
        sort: AgentSort::EnrolledAt,
        descending: true,
        rows: Rows::Page(Page { offset: 0, limit: SHOWN }),
    };
    let found = fleet.agents().list(&visitor.context.grant::<AgentsRead>()?, &question).await?;
    let now = fleet.now();
    let agents = found.items.into_iter().map(|view| {
        let record = view.details.record;
        let applied = record.policy_revision_at.map(|at| (record.policy_revision, Moment::new(at, now)));
        Arrival {
            name: name_of(&record),
            badge: Badge(record.status),
            policy: applied.filter(|(revision, _)| *revision > 0),
            id: record.id.to_string(),
        }
    });
    Ok(Arrivals {
        base: visitor.base.clone(),
        key: key.clone(),
        agents: agents.collect(),
        refused: refusals(fleet, visitor, Timestamp::from_micros(asked.since)),
    })
}

/// Returns what has come with a key until now, for a page without a script; `None` if the person may not see agents.
async fn arrived(fleet: &Fleet, visitor: &Visitor, key: &EnrollmentKey) -> Result<Option<Arrivals>, Error> {
    if visitor.context.check(PrivilegeName::AgentsRead).is_err() {
        return Ok(None);
    }
    let asked = Asked { key: key.id.to_string(), since: key.created_at.as_micros() };
    arrivals(fleet, visitor, &asked).await.map(Some)
}

fn refusals(fleet: &Fleet, visitor: &Visitor, since: Timestamp) -> Vec<Refusal> {
    let Ok(grant) = visitor.context.grant::<RefusalsRead>() else { return Vec::new() };
    let now = fleet.now();
    let mut rows = fleet.refusals().list(&grant);
    // A connection that fails before a request has no operation: TLS was refused, or the certificate was not trusted.
    rows.retain(|row| row.last >= since && matches!(row.refused.operation, "enroll" | ""));
    rows.sort_by_key(|row| std::cmp::Reverse(row.last));
    let refusal = |row: muster_fleet::refusals::RefusedRow| Refusal {
        address: row.refused.address,
        version: row.refused.version,
        text: row.refused.message,
        remedy: row.refused.remedy,
        at: Moment::new(row.last, now),
    };
    rows.into_iter().take(SHOWN as usize).map(refusal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(ca: Option<&str>, is_plain: bool) -> ServerTrust {
        ServerTrust { ca: ca.map(Into::into), is_plain }
    }

    #[test]
    fn mg184_commands_contain_what_the_certificate_needs() {
        let flags = |ca, is_plain| trust(ca, is_plain).flags("ca.crt");
        assert_eq!(flags(Some("/var/lib/muster/ca.crt"), false), " --certificate-authorities=ca.crt");
        assert_eq!((flags(None, false).as_str(), flags(None, true).as_str()), ("", " --insecure"));
        let shown = |ca, is_plain| {
            let trust = trust(ca, is_plain);
            let commands = commands(&trust, "https://f:8220", "dG9rOmVu");
            commands.docker + &commands.secret + &commands.manifest
        };
        let own = shown(Some("/ca.crt"), false);
        let with_ca = trust(Some("/ca.crt"), false);
        let with_ca = commands(&with_ca, "https://f:8220", "dG9rOmVu");
        assert!(with_ca.elastic.ends_with(r#" --certificate-authorities="$PWD/ca.crt""#), "{}", with_ca.elastic);
        assert!(with_ca.windows.ends_with(r#" --certificate-authorities="$PWD\ca.crt""#), "{}", with_ca.windows);
        // Elastic's image has another user, who cannot write to the directory of the node.
        assert!(own.contains("securityContext: {runAsUser: 0}"), "{own}");
        assert!(own.contains("FLEET_CA=/etc/muster/ca.crt") && own.contains("--from-file=ca.crt"), "{own}");
        let (public, plain) = (shown(None, false), shown(None, true));
        assert!(
            !public.contains("FLEET_CA") && !public.contains("INSECURE") && !public.contains("from-file"),
            "{public}"
        );
        assert!(
            plain.contains("-e FLEET_INSECURE=true") && plain.contains("FLEET_INSECURE, value: \"true\""),
            "{plain}"
        );
    }

    #[test]
    fn urls_that_only_this_host_reaches_are_recognized() {
        for url in ["https://127.0.0.1:8220", "https://localhost:8220", "http://[::1]:8220", "https://127.9.9.9"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["https://fleet.example:8220", "https://192.0.2.1", "https://localhost.example", "x"] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn the_manifest_is_yaml_whatever_the_url_is() {
        for url in ["https://fleet.example:8220", "https://a\"b: {c}#"] {
            let manifest: serde_json::Value = serde_saphyr::from_str(&manifest(url, false, true)).unwrap();
            let container = &manifest["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(container["env"][1]["value"], url);
            assert_eq!((&manifest["kind"], container["env"].as_array().unwrap().len()), (&"DaemonSet".into(), 5));
        }
    }
}
