//! `kubernetes`, `kubernetes_secrets` and `kubernetes_leaderelection`.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_agent::state::enrollment::Secret;
use muster_agent::variables::providers::HostVariables;
use muster_agent::variables::{VariableSets, Variables as _};
use serde_json::{Value, json};

use crate::api::{Api, HANGS};
use crate::{providers, until, until_faults, used, values};

const PODS: &str = "/api/v1/pods";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/fleet/leases/elastic-agent-cluster-leader";
const LEADER: &str = "kubernetes_leaderelection.leader";

/// Writes the configuration of a client.
async fn kube_config(api: &Api, directory: &Path) {
    let url = api.on_port().await;
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         contexts: [{{name: here, context: {{cluster: c, user: u, namespace: fleet}}}}]\n\
         clusters: [{{name: c, cluster: {{server: '{url}'}}}}]\nusers: [{{name: u, user: {{token: s3cret}}}}]\n"
    );
    std::fs::write(directory.join("kubeconfig"), text).unwrap();
}

fn with_settings(directory: &Path, provider: &str, more: &str) -> HostVariables {
    let file = directory.join("kubeconfig");
    providers(directory, &format!("providers: {{{provider}: {{kube_config: '{}'{more}}}}}", file.display()))
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"app": name}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "x:1"}]},
        "status": {"podIP": "10.0.0.1", "containerStatuses": [{"name": "main", "containerID": format!("containerd://id-{name}")}]}})
}

#[tokio::test]
async fn pods_of_the_node_are_variables_and_follow_the_watch() {
    let directory = tempfile::tempdir().unwrap();
    let api = Api::new();
    kube_config(&api, directory.path()).await;
    api.set(PODS, json!({"metadata": {"resourceVersion": "5", "continue": "part2"}, "items": [pod("a")]}));
    api.set(&format!("{PODS}#part2"), json!({"metadata": {"resourceVersion": "5"}, "items": [pod("b")]}));
    api.set("/api/v1/nodes/node-1", json!({"metadata": {"name": "node-1", "uid": "n", "labels": {"zone": "z1"}}}));
    let variables = with_settings(directory.path(), "kubernetes", ", node: node-1, cleanup_timeout: 200ms");
    variables.observe(&used("${kubernetes.pod.name}"));
    let sets = until(&variables, |sets| sets.dynamic.len() == 4).await;
    assert_eq!(values(&sets, "kubernetes.pod.name"), [json!("a"), json!("b")]);
    assert_eq!(values(&sets, "kubernetes.container.id"), [json!("id-a"), json!("id-b")]);
    assert_eq!(values(&sets, "kubernetes.node.labels.zone"), [json!("z1")]);
    let first = api.requests().into_iter().find(|request| request.path == PODS).unwrap();
    assert!(first.query.contains("fieldSelector=spec.nodeName%3Dnode-1"), "{first:?}");
    assert_eq!(first.authorization.as_deref(), Some("Bearer s3cret"));

    until(&variables, |_| true).await;
    while api.watchers() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    api.tell(&json!({"type": "ADDED", "object": pod("c")}));
    api.tell(&json!({"type": "DELETED", "object": pod("a")}));
    api.tell(&json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}));
    let sets = until(&variables, |sets| values(sets, "kubernetes.pod.name") == [json!("b"), json!("c")]).await;
    assert_eq!(values(&sets, "kubernetes.pod.uid"), [json!("uid-b"), json!("uid-c")], "a bookmark is no pod");

    // The watch was interrupted for too long: the list counts.
    api.set(PODS, json!({"metadata": {"resourceVersion": "20"}, "items": [pod("d")]}));
    api.tell(&json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}));
    until(&variables, |sets| values(sets, "kubernetes.pod.name") == [json!("d")]).await;
    let last = api.requests().into_iter().rfind(|request| request.query.contains("watch=true")).unwrap();
    assert!(last.query.contains("resourceVersion=20"), "{last:?}");
    assert_eq!(variables.faults(), [""; 0]);
}

#[tokio::test]
async fn an_account_that_may_not_read_pods_is_a_fault() {
    let directory = tempfile::tempdir().unwrap();
    let api = Api::new();
    kube_config(&api, directory.path()).await;
    api.fail(PODS, 403, json!({"kind": "Status", "message": "pods is forbidden", "code": 403}));
    let variables = with_settings(directory.path(), "kubernetes", ", scope: cluster");
    variables.observe(&used("${kubernetes.pod.name}"));
    let faults = until_faults(&variables, |faults| !faults.is_empty()).await;
    assert_eq!(faults, ["variables of kubernetes: 403 Forbidden: pods is forbidden"]);

    for (user, cluster, reason) in [
        ("exec: {command: x}", "", "users with `exec` or `auth-provider` are not supported"),
        ("token: x", ", insecure-skip-tls-verify: true", "`insecure-skip-tls-verify` is not supported"),
        ("client-certificate-data: eA==", "", "the certificate of the user and its key must both be given"),
    ] {
        let text = format!(
            "current-context: here\ncontexts: [{{name: here, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://k.example'{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        );
        std::fs::write(directory.path().join("kubeconfig"), text).unwrap();
        let variables = with_settings(directory.path(), "kubernetes", "");
        variables.observe(&used("${kubernetes.pod.name}"));
        let faults = until_faults(&variables, |faults| !faults.is_empty()).await;
        assert!(faults[0].ends_with(&format!("kubeconfig: {reason}")), "{faults:?}");
    }
}

#[tokio::test]
async fn secrets_that_a_policy_names_are_read_and_read_again() {
    const KEY: &str = "kubernetes_secrets.shop.db.password";
    let directory = tempfile::tempdir().unwrap();
    let api = Api::new();
    kube_config(&api, directory.path()).await;
    let path = "/api/v1/namespaces/shop/secrets/db";
    let secret = |value: &str| json!({"data": {"password": STANDARD.encode(value), "other": STANDARD.encode("x")}});
    api.set(path, secret("one"));
    let variables = with_settings(directory.path(), "kubernetes_secrets", ", refresh_interval: 100ms");
    variables.observe(&used(&format!("${{{KEY}}} ${{kubernetes_secrets.shop.none.key}}")));
    variables.ready().await;
    let sets = variables.sets();
    assert_eq!(sets.context().get(KEY), Some(&json!("one")));
    assert_eq!(sets.context().get("kubernetes_secrets.shop.db.other"), None, "only what the policy names");
    assert_eq!(variables.secrets(), [Secret::new("one")]);
    assert_eq!(variables.faults(), ["variables of kubernetes_secrets: shop.none.key: 404 Not Found: not found"]);

    api.set(path, secret("two"));
    until(&variables, |sets| sets.context().get(KEY) == Some(&json!("two"))).await;
    api.fail(path, 503, json!({"message": "later"}));
    until_faults(&variables, |faults| faults.iter().any(|fault| fault.contains("503"))).await;
    assert_eq!(variables.sets().context().get(KEY), Some(&json!("two")), "the last value stays");
    api.fail(path, 404, json!({"message": "gone"}));
    until(&variables, |sets| sets.context().get(KEY).is_none()).await;
    variables.observe(&used("x"));
    assert!(variables.sets().context().get("kubernetes_secrets.shop").is_none() && variables.faults().is_empty());
}

#[tokio::test]
async fn of_the_agents_of_a_cluster_one_is_the_leader() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let api = Api::new();
    let more = ", leader_leaseduration: 1s, leader_renewdeadline: 500ms, leader_retryperiod: 50ms";
    let mut agents = Vec::new();
    for (directory, holder) in [(&first, "agent-1"), (&second, "other")] {
        kube_config(&api, directory.path()).await;
        let text = format!(
            "providers: {{kubernetes_leaderelection: {{kube_config: '{}'{more}}}}}",
            directory.path().join("kubeconfig").display()
        );
        agents.push(crate::providers_of(directory.path(), &text, holder));
    }
    let leads = |variables: &HostVariables| variables.sets().context().get(LEADER) == Some(&json!(true));
    agents[0].observe(&used(&format!("${{{LEADER}}}")));
    until(&agents[0], |sets| sets.context().get(LEADER) == Some(&json!(true))).await;
    agents[1].observe(&used(&format!("${{{LEADER}}}")));
    agents[1].ready().await;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(leads(&agents[0]) && !leads(&agents[1]), "the leader renews its lease");
    }
    let lease = api.document(LEASE);
    assert_eq!(lease["spec"]["holderIdentity"], "elastic-agent-leader-agent-1", "{lease}");
    drop(agents.remove(0));
    until(&agents[0], |sets| sets.context().get(LEADER) == Some(&json!(true))).await;
    let lease = api.document(LEASE);
    assert_eq!(
        (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]),
        (&"elastic-agent-leader-other".into(), &json!(1))
    );
}

#[tokio::test]
async fn a_leader_that_stops_or_is_not_needed_releases_its_lease() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let api = Api::new();
    let more = ", leader_leaseduration: 60s, leader_renewdeadline: 40s, leader_retryperiod: 50ms";
    let mut agents = Vec::new();
    for (directory, id) in directories.iter().zip(["agent-1", "agent-2"]) {
        kube_config(&api, directory.path()).await;
        let config = directory.path().join("kubeconfig");
        let text = format!("providers: {{kubernetes_leaderelection: {{kube_config: '{}'{more}}}}}", config.display());
        agents.push(crate::providers_of(directory.path(), &text, id));
    }
    let holder = || api.document(LEASE)["spec"]["holderIdentity"].as_str().unwrap().to_owned();
    let policy = used(&format!("${{{LEADER}}}"));
    let leads = |sets: &VariableSets| sets.context().get(LEADER) == Some(&json!(true));

    agents[0].observe(&policy);
    until(&agents[0], leads).await;
    agents[1].observe(&policy);
    agents[1].ready().await;
    agents[1].stop().await;
    assert_eq!(holder(), "elastic-agent-leader-agent-1", "only the leader releases the lease");

    agents[1].observe(&policy);
    let stopped = Instant::now();
    agents[0].stop().await;
    until(&agents[1], leads).await;
    assert!(stopped.elapsed() < Duration::from_secs(20), "{:?}", stopped.elapsed());
    let lease = api.document(LEASE);
    assert_eq!((holder().as_str(), &lease["spec"]["leaseTransitions"]), ("elastic-agent-leader-agent-2", &json!(1)));

    agents[1].observe(&used("x"));
    while !holder().is_empty() {
        assert!(stopped.elapsed() < Duration::from_secs(20), "{}", api.document(LEASE));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(api.document(LEASE)["spec"]["leaseDurationSeconds"], 1);
    // It takes part again, with a lease that nobody has.
    agents[1].observe(&policy);
    until(&agents[1], leads).await;

    // A cluster that does not answer does not keep the agent from stopping.
    api.fail(LEASE, HANGS, api.document(LEASE));
    let stopped = Instant::now();
    agents[1].stop().await;
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
}

#[tokio::test]
async fn a_leader_that_stops_while_it_renews_its_lease_releases_it() {
    let directory = tempfile::tempdir().unwrap();
    let api = Api::new();
    kube_config(&api, directory.path()).await;
    let more = ", leader_leaseduration: 60s, leader_renewdeadline: 40s, leader_retryperiod: 50ms";
    let variables = with_settings(directory.path(), "kubernetes_leaderelection", more);
    variables.observe(&used(&format!("${{{LEADER}}}")));
    until(&variables, |sets| sets.context().get(LEADER) == Some(&json!(true))).await;
    api.answer_writes(false);
    let renewed = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
    // The next renewal is written, and its response held back.
    let before = renewed(&api.document(LEASE));
    while renewed(&api.document(LEASE)) == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::join!(variables.stop(), async { api.answer_writes(true) });
    assert_eq!(api.document(LEASE)["spec"]["holderIdentity"], "", "{}", api.document(LEASE));
}

#[tokio::test]
async fn a_leader_gives_up_when_the_time_after_its_last_renewal_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let api = Api::new();
    kube_config(&api, directory.path()).await;
    // The next try begins shortly before the end, and hangs.
    let more = ", leader_leaseduration: 5s, leader_renewdeadline: 2s, leader_retryperiod: 1900ms";
    let variables = with_settings(directory.path(), "kubernetes_leaderelection", more);
    variables.observe(&used(&format!("${{{LEADER}}}")));
    until(&variables, |sets| sets.context().get(LEADER) == Some(&json!(true))).await;
    let renewed = Instant::now();
    api.fail(LEASE, HANGS, api.document(LEASE));
    until(&variables, |sets| sets.context().get(LEADER) == Some(&json!(false))).await;
    assert!(renewed.elapsed() < Duration::from_secs(3), "{:?}", renewed.elapsed());
}
