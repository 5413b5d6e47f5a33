//! The commands of `/add-agent`, made for the certificate of this server (MG183, MG184).

use askama::Template;
use muster_core::shell;

/// Elastic Agent's image, in the version that Muster is tested with.
const IMAGE: &str = "docker.elastic.co/elastic-agent/elastic-agent:9.5.2";
/// Name of the file with the CA certificate in the directory where a command runs.
const CA_FILE: &str = "ca.crt";
/// Path of the CA certificate in a container.
const CA_IN_CONTAINER: &str = "/etc/muster/ca.crt";

/// How agents verify the server's certificate.
pub struct ServerTrust {
    /// Path of the CA certificate of the server's own CA; `None` if its certificate is another CA's.
    pub ca: Option<String>,
    /// Whether agents connect over plain HTTP.
    pub is_plain: bool,
}

impl ServerTrust {
    /// Returns the path of the CA certificate, if agents need it.
    pub(super) fn needed_ca(&self) -> Option<&str> {
        self.ca.as_deref().filter(|_| !self.is_plain)
    }

    /// Returns the CA certificate, PEM; empty if agents need none or it cannot be read.
    pub(super) async fn ca_text(&self) -> String {
        let Some(path) = self.needed_ca() else { return String::new() };
        let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
        let is_certificate = text.starts_with("-----BEGIN CERTIFICATE-----") && !text.contains("PRIVATE KEY");
        if is_certificate { text.trim_end().to_owned() } else { String::new() }
    }

    /// The options of an enrollment that the server's certificate makes necessary, and no others. `ca`: the path of the CA
    /// certificate, in the syntax of the shell.
    fn options(&self, ca: &str) -> String {
        match (self.needed_ca(), self.is_plain) {
            (_, true) => " --insecure".to_owned(),
            (Some(_), false) => format!(" --certificate-authorities={ca}"),
            (None, false) => String::new(),
        }
    }
}

/// Commands that enroll an agent.
pub(super) struct EnrollCommands {
    /// Options of `muster-agent`.
    pub muster_agent: String,
    /// Elastic Agent's, for a POSIX shell.
    pub elastic_agent: String,
    /// Elastic Agent's, for PowerShell.
    pub windows: String,
    /// Elastic Agent's in a container.
    pub docker: String,
    /// Creates the secret that the manifest refers to.
    pub secret: String,
    /// The manifest of Elastic Agent for Kubernetes.
    pub manifest: String,
}

/// Elastic Agent on each node of a cluster, as in Elastic's own manifest, with what its policies for Kubernetes read.
#[derive(Template)]
#[template(path = "agents/kubernetes.yml", escape = "none")]
struct Manifest<'a> {
    /// A JSON string, which is a YAML string, whatever it contains.
    url: String,
    image: &'a str,
    ca: Option<&'a str>,
    is_plain: bool,
}

impl EnrollCommands {
    /// Returns the commands that enroll with a token at a URL.
    pub(super) fn new(trust: &ServerTrust, url: &str, token: &str) -> Self {
        let flags = format!("{} {}", shell::option("--url", url), shell::option("--enrollment-token", token));
        // Elastic Agent rejects relative paths.
        let (posix, windows) = (format!("\"$PWD/{CA_FILE}\""), format!("\"$PWD\\{CA_FILE}\""));
        let from_file = if trust.needed_ca().is_some() { " --from-file=ca.crt" } else { "" };
        Self {
            elastic_agent: format!("./elastic-agent install {flags}{}", trust.options(&posix)),
            windows: format!(".\\elastic-agent.exe install {flags}{}", trust.options(&windows)),
            docker: docker(trust, url, token),
            secret: format!(
                "kubectl create secret generic muster-elastic-agent --namespace=kube-system {}{from_file}",
                shell::word(&format!("--from-literal=token={token}"))
            ),
            manifest: manifest(trust, url),
            muster_agent: flags + &trust.options(CA_FILE),
        }
    }
}

fn docker(trust: &ServerTrust, url: &str, token: &str) -> String {
    let variable = |name: &str, value: &str| format!(" -e {}", shell::word(&format!("{name}={value}")));
    let mut command = "docker run -d --name elastic-agent --restart unless-stopped -e FLEET_ENROLL=1".to_owned();
    command += &(variable("FLEET_URL", url) + &variable("FLEET_ENROLLMENT_TOKEN", token));
    if trust.is_plain {
        command += " -e FLEET_INSECURE=true";
    }
    if trust.needed_ca().is_some() {
        command += &format!(" -e FLEET_CA={CA_IN_CONTAINER} -v \"$PWD/{CA_FILE}:{CA_IN_CONTAINER}:ro\"");
    }
    format!("{command} {IMAGE}")
}

fn manifest(trust: &ServerTrust, url: &str) -> String {
    let manifest = Manifest {
        url: serde_json::Value::from(url).to_string(),
        image: IMAGE,
        ca: trust.needed_ca().map(|_| CA_IN_CONTAINER),
        is_plain: trust.is_plain,
    };
    // Fails only if a value cannot be formatted, and strings always can.
    manifest.render().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn commands(ca: Option<&str>, is_plain: bool) -> EnrollCommands {
        let trust = ServerTrust { ca: ca.map(Into::into), is_plain };
        EnrollCommands::new(&trust, "https://f:8220", "dG9rOmVu")
    }

    #[test]
    fn mg179_the_commands_of_elastic_agent_have_absolute_paths_in_the_syntax_of_each_shell() {
        let own = commands(Some("/var/lib/muster/ca.crt"), false);
        let flags = "--url=https://f:8220 --enrollment-token=dG9rOmVu";
        // Linux and macOS.
        let posix = format!("./elastic-agent install {flags} --certificate-authorities=\"$PWD/ca.crt\"");
        assert_eq!(own.elastic_agent, posix);
        let windows = format!(r#".\elastic-agent.exe install {flags} --certificate-authorities="$PWD\ca.crt""#);
        assert_eq!(own.windows, windows);
        assert_eq!(own.muster_agent, format!("{flags} --certificate-authorities=ca.crt"));
    }

    #[test]
    fn mg184_commands_contain_what_the_certificate_needs() {
        let shown = |ca, is_plain| {
            let EnrollCommands { muster_agent, elastic_agent, windows, docker, secret, manifest } =
                commands(ca, is_plain);
            [muster_agent, elastic_agent, windows, docker, secret, manifest]
        };
        let (own, public, plain) = (shown(Some("/ca.crt"), false), shown(None, false), shown(None, true));
        for text in &own {
            assert!(text.contains("ca.crt") && !text.to_lowercase().contains("insecure"), "{text}");
        }
        assert!(own[3].contains("-e FLEET_CA=/etc/muster/ca.crt") && own[4].contains("--from-file=ca.crt"), "{own:?}");
        for text in &public {
            assert!(!text.contains("ca.crt") && !text.to_lowercase().contains("insecure"), "{text}");
        }
        for text in &plain[..4] {
            assert!(text.contains(" --insecure") || text.contains(" -e FLEET_INSECURE=true"), "{text}");
        }
        assert!(plain[5].contains("{name: FLEET_INSECURE, value: \"true\"}"), "{}", plain[5]);
    }

    #[test]
    fn the_manifest_runs_an_agent_as_root_on_each_node_whatever_the_url_is() {
        for url in ["https://fleet.example:8220", "https://a\"b: {c}#"] {
            let trust = ServerTrust { ca: Some("/ca.crt".into()), is_plain: false };
            let documents: Vec<Value> = serde_saphyr::from_multiple(&manifest(&trust, url)).unwrap();
            let kinds: Vec<&Value> = documents.iter().map(|one| &one["kind"]).collect();
            let all = ["DaemonSet", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
            assert_eq!(kinds, all);
            let pod = &documents[0]["spec"]["template"]["spec"];
            assert_eq!(pod["serviceAccountName"], documents[1]["metadata"]["name"]);
            assert_eq!(pod["tolerations"][0]["key"], "node-role.kubernetes.io/control-plane");
            let container = &pod["containers"][0];
            assert_eq!(container["securityContext"], json!({"runAsUser": 0}));
            let env = container["env"].as_array().unwrap();
            assert!(env.contains(&json!({"name": "FLEET_URL", "value": url})), "{env:?}");
            // Each mount has its volume.
            let volumes: Vec<&Value> = pod["volumes"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
            let mounts = container["volumeMounts"].as_array().unwrap();
            assert_eq!(mounts.iter().map(|one| &one["name"]).collect::<Vec<_>>(), volumes);
        }
    }
}
