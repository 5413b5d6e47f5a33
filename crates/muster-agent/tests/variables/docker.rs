//! `docker`.

use std::time::Duration;

use muster_agent::variables::Variables as _;
use serde_json::{Value, json};

use crate::api::Api;
use crate::{providers, until, until_faults, used, values};

const NAME: &str = "docker.container.name";

fn container(id: &str, name: &str) -> Value {
    json!({"Id": id, "Names": [format!("/other/{name}"), format!("/{name}")], "Image": "nginx:1",
        "Labels": {"com.example.tier": "front"}, "State": "running", "Ports": []})
}

#[tokio::test]
async fn containers_are_variables_while_a_policy_uses_them() {
    let directory = tempfile::tempdir().unwrap();
    let (api, socket) = (Api::new(), directory.path().join("docker.sock"));
    api.set("/containers/json", json!([container("c1", "web")]));
    api.on_socket(&socket);
    let settings = format!("providers: {{docker: {{host: 'unix://{}', cleanup_timeout: 300ms}}}}", socket.display());
    let variables = providers(directory.path(), &settings);
    variables.observe(&used("${host.name}"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(api.requests().is_empty(), "nothing is asked for a policy without such variables");

    variables.observe(&used("${docker.container.id}"));
    variables.ready().await;
    let sets = until(&variables, |sets| !sets.dynamic.is_empty()).await;
    assert_eq!((sets.dynamic[0].id.as_str(), values(&sets, NAME)), ("docker-c1", vec![json!("web")]));
    for label in ["com.example.tier", "com_example_tier"] {
        assert_eq!(values(&sets, &format!("docker.container.labels.{label}")), [json!("front")]);
    }
    assert_eq!(values(&sets, "docker.container.image.name"), [json!("nginx:1")]);
    assert_eq!(sets.dynamic[0].processors[0]["add_fields"]["fields"]["labels"], json!({"com_example_tier": "front"}));

    api.set("/containers/json", json!([container("c2", "db")]));
    api.tell(&json!({"Type": "container", "Action": "die", "id": "c1"}));
    let both = until(&variables, |sets| sets.dynamic.len() == 2).await;
    assert_eq!(values(&both, NAME), [json!("db"), json!("web")], "the ended container stays for a while");
    let sets = until(&variables, |sets| sets.dynamic.len() == 1).await;
    assert_eq!(values(&sets, NAME), [json!("db")]);
    assert_eq!(variables.faults(), [""; 0]);

    variables.observe(&used("x"));
    assert!(variables.sets().dynamic.is_empty());
    for _ in 0..100 {
        if api.watchers() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the connection stays open");
}

#[tokio::test]
async fn a_host_without_containers_has_no_fault_and_a_broken_runtime_is_named_once() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let settings = format!("providers: {{docker: {{host: 'unix://{}'}}}}", socket.display());
    let variables = providers(directory.path(), &settings);
    variables.observe(&used("${docker.container.id}"));
    variables.ready().await;
    assert_eq!((variables.sets().dynamic.len(), variables.faults()), (0, vec![]));

    let api = Api::new();
    api.fail("/containers/json", 500, json!({"message": "out of\norder"}));
    api.on_socket(&socket);
    let variables = providers(directory.path(), &settings);
    variables.observe(&used("${docker.container.id}"));
    let faults = until_faults(&variables, |faults| !faults.is_empty()).await;
    assert!(faults[0].starts_with("variables of docker: unix://") && faults[0].ends_with("out oforder"), "{faults:?}");

    for host in ["http://10.0.0.1:2375", "https://127.0.0.1:2376", "/var/run/docker.sock", "ssh://x"] {
        let variables = providers(directory.path(), &format!("providers: {{docker: {{host: '{host}'}}}}"));
        variables.observe(&used("${docker.container.id}"));
        let faults = until_faults(&variables, |faults| !faults.is_empty()).await;
        assert_eq!(faults.len(), 1, "{faults:?}");
    }
    let variables = providers(directory.path(), "providers: {docker: {enabled: false}}");
    variables.observe(&used("${docker.container.id}"));
    variables.ready().await;
    assert_eq!(variables.faults(), [""; 0]);
}
