//! Objects of a cluster, as far as variables need them, and the variables of a pod.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::variables::DynamicSet;
use crate::variables::labels::{dedotted, with_aliases};
use crate::variables::settings::Scope;

/// Name of the provider.
pub const PROVIDER: &str = "kubernetes";
/// Maximum number of sets of one pod.
const SETS_MAX: usize = 50;

/// A list of objects, or a part of it.
#[derive(Debug, Deserialize)]
pub struct List<T> {
    /// Its version, and how to get the next part.
    pub metadata: ListMeta,
    /// The objects.
    #[serde(default = "Vec::new", deserialize_with = "nullable", bound(deserialize = "T: Deserialize<'de>"))]
    pub items: Vec<T>,
}

/// Metadata of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    /// Version, after which a watch begins.
    #[serde(default)]
    pub resource_version: String,
    /// Token for the next part; empty at the end.
    #[serde(default, rename = "continue")]
    pub next: String,
}

/// Metadata of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Id, which no other object ever has.
    pub uid: String,
    /// Version.
    pub resource_version: String,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    /// What manages it.
    #[serde(deserialize_with = "nullable")]
    pub owner_references: Vec<Owner>,
}

/// A reference to an object that manages another one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Owner {
    kind: String,
    name: String,
    controller: bool,
}

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Metadata.
    pub metadata: Meta,
    /// What it should be.
    pub spec: PodSpec,
    status: PodStatus,
}

/// `spec` of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Node on which it runs.
    pub node_name: String,
    #[serde(deserialize_with = "nullable")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    image: String,
    #[serde(deserialize_with = "nullable")]
    ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    container_port: u16,
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(deserialize_with = "nullable")]
    container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "nullable")]
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: String,
}

/// A node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Metadata.
    pub metadata: Meta,
}

impl Node {
    /// Returns its variables.
    pub fn values(&self) -> Value {
        let meta = &self.metadata;
        let hostname = meta.labels.get("kubernetes.io/hostname").unwrap_or(&meta.name);
        json!({"name": meta.name, "uid": meta.uid, "hostname": hostname, "labels": with_aliases(meta.labels.clone()),
            "annotations": with_aliases(meta.annotations.clone())})
    }
}

/// `null` as the default value: servers write both.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Pod {
    /// Returns the variables of the pod, and those of each of its containers that has been started. An input that uses only
    /// variables of pods exists once for each pod.
    pub fn sets(&self, scope: Scope, node: Option<&Value>) -> Vec<DynamicSet> {
        let (values, event) = (self.values(scope, node), self.event());
        let mut sets = vec![set(&self.metadata.uid, values.clone().into(), vec![add_fields(PROVIDER, &event)])];
        // Containers come from the specification, whose order is stable; the status only tells which of them run.
        for container in self.spec.containers.iter().chain(&self.spec.init_containers) {
            if let Some((runtime, id)) = self.started(&container.name) {
                sets.extend(self.sets_of(container, &container.values(runtime, id), &values, &event));
            }
        }
        // The set of the pod is the first, so it is never cut off.
        sets.truncate(SETS_MAX);
        sets
    }

    /// Returns the variables of a container: one set, or one for each of its ports.
    fn sets_of(
        &self,
        container: &Container,
        own: &Value,
        of_pod: &Map<String, Value>,
        event: &Value,
    ) -> Vec<DynamicSet> {
        let mut event = event.clone();
        event["container"] = json!({"name": container.name});
        let fields = json!({"id": own["id"], "runtime": own["runtime"], "image": {"name": container.image}});
        let processors = vec![add_fields("container", &fields), add_fields(PROVIDER, &event)];
        let id = format!("{}.{}", self.metadata.uid, container.name);
        let with = |id: &str, own: Value| {
            let mut values = of_pod.clone();
            values.insert("container".into(), own);
            set(id, values.into(), processors.clone())
        };
        let mut taken = BTreeSet::new();
        let of_port = |(place, port): (usize, &Port)| {
            let mut own = own.clone();
            own["port"] = port.container_port.to_string().into();
            own["port_name"] = port.name.clone().into();
            // The first one has the id of the container, which therefore stays when ports are added.
            let name = if place == 0 { id.clone() } else { format!("{id}.{}", port.container_port) };
            // A port is in the list twice if it is used with two protocols.
            let name = if taken.insert(name.clone()) { name } else { format!("{name}.{place}") };
            with(&name, own)
        };
        let sets: Vec<_> = container.ports.iter().enumerate().map(of_port).collect();
        if sets.is_empty() { vec![with(&id, own.clone())] } else { sets }
    }

    /// Returns the runtime and the id of a container, once it has been started.
    fn started(&self, name: &str) -> Option<(&str, &str)> {
        let statuses = self.status.container_statuses.iter().chain(&self.status.init_container_statuses);
        let status = statuses.into_iter().find(|status| status.name == name)?;
        status.container_id.split_once("://").filter(|(_, id)| !id.is_empty())
    }

    fn values(&self, scope: Scope, node: Option<&Value>) -> Map<String, Value> {
        let meta = &self.metadata;
        let labels = with_aliases(meta.labels.clone());
        let annotations = with_aliases(meta.annotations.clone());
        let mut values = Map::new();
        let mut add = |name: &str, value: Value| drop(values.insert(name.to_owned(), value));
        add("scope", scope.as_str().into());
        add("namespace", meta.namespace.clone().into());
        add("pod", json!({"name": meta.name, "uid": meta.uid, "ip": self.status.pod_ip, "labels": labels}));
        add("node", node.cloned().unwrap_or_else(|| json!({"name": self.spec.node_name})));
        add("labels", labels);
        add("annotations", annotations);
        for (kind, name) in self.owners() {
            add(kind, json!({ "name": name }));
        }
        values
    }

    /// Returns the fields of events from this pod.
    fn event(&self) -> Value {
        let meta = &self.metadata;
        let mut fields = json!({"namespace": meta.namespace, "node": {"name": self.spec.node_name},
            "pod": {"name": meta.name, "uid": meta.uid, "ip": self.status.pod_ip}, "labels": dedotted(&meta.labels)});
        for (kind, name) in self.owners() {
            fields[kind] = json!({ "name": name });
        }
        fields
    }

    /// Returns what manages the pod, and what manages that. Names of objects in between end with what they add, so that they
    /// need not be read.
    fn owners(&self) -> Vec<(&'static str, String)> {
        let Some(owner) = self.metadata.owner_references.iter().find(|owner| owner.controller) else {
            return Vec::new();
        };
        let direct = |kind| vec![(kind, owner.name.clone())];
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let hash = self.metadata.labels.get("pod-template-hash");
                let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
                let deployment = deployment.map(|name| ("deployment", name.to_owned()));
                direct("replicaset").into_iter().chain(deployment).collect()
            }
            "Job" => {
                // Jobs of a CronJob end with the time of their run, in minutes.
                let run = owner
                    .name
                    .rsplit_once('-')
                    .filter(|(_, time)| time.len() >= 8 && time.bytes().all(|b| b.is_ascii_digit()));
                direct("job").into_iter().chain(run.map(|(name, _)| ("cronjob", name.to_owned()))).collect()
            }
            "DaemonSet" => direct("daemonset"),
            "StatefulSet" => direct("statefulset"),
            _ => Vec::new(),
        }
    }
}

impl Container {
    fn values(&self, runtime: &str, id: &str) -> Value {
        json!({"id": id, "name": self.name, "image": self.image, "runtime": runtime})
    }
}

fn set(id: &str, values: Value, processors: Vec<Value>) -> DynamicSet {
    DynamicSet { id: format!("{PROVIDER}-{id}"), provider: PROVIDER.into(), values, processors }
}

/// Returns a processor that adds fields to events.
fn add_fields(target: &str, fields: &Value) -> Value {
    json!({"add_fields": {"target": target, "fields": fields}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-5d4f-x", "namespace": "shop", "uid": "u1", "annotations": null,
                "labels": {"app": "web", "app.kubernetes.io/name": "web", "pod-template-hash": "5d4f"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d4f", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "nginx", "image": "nginx:1", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 443}]},
                {"name": "waiting", "image": "x"}]},
            "status": {"podIP": "10.0.0.7", "containerStatuses": [
                {"name": "nginx", "containerID": "containerd://abc"}, {"name": "waiting", "containerID": ""}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_has_variables_and_each_of_its_started_containers_has_them_too() {
        let sets = pod().sets(Scope::Node, None);
        let ids: Vec<_> = sets.iter().map(|set| set.id.as_str()).collect();
        assert_eq!(ids, ["kubernetes-u1", "kubernetes-u1.nginx", "kubernetes-u1.nginx.443"]);
        let value = |place: usize, pointer: &str| sets[place].values.pointer(pointer).cloned().unwrap_or_default();
        for (place, pointer, expected) in [
            (0, "/pod/ip", "10.0.0.7"),
            (0, "/namespace", "shop"),
            (0, "/labels/app_kubernetes_io~1name", "web"),
            (0, "/pod/labels/app.kubernetes.io~1name", "web"),
            (0, "/deployment/name", "web"),
            (0, "/replicaset/name", "web-5d4f"),
            (0, "/node/name", "n1"),
            (0, "/scope", "node"),
            (1, "/container/id", "abc"),
            (1, "/container/runtime", "containerd"),
            (1, "/container/port", "80"),
            (2, "/container/port", "443"),
        ] {
            assert_eq!(value(place, pointer), expected, "{place} {pointer}");
        }
        assert!(value(0, "/container").is_null());
        assert_eq!(sets[1].processors[0]["add_fields"]["fields"]["image"]["name"], "nginx:1");
    }

    #[test]
    fn sets_of_a_pod_have_different_ids_even_if_a_port_is_used_with_two_protocols() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"uid": "u"},
            "spec": {"containers": [{"name": "dns", "ports": [{"containerPort": 8080}, {"containerPort": 53, "name": "udp"},
                {"containerPort": 53, "name": "tcp"}]}]},
            "status": {"containerStatuses": [{"name": "dns", "containerID": "containerd://a"}]},
        }))
        .unwrap();
        let ids: Vec<_> = pod.sets(Scope::Node, None).into_iter().map(|set| set.id).collect();
        assert_eq!(ids, ["kubernetes-u", "kubernetes-u.dns", "kubernetes-u.dns.53", "kubernetes-u.dns.53.2"]);
    }

    #[test]
    fn a_job_of_a_cron_job_names_it() {
        let mut pod = pod();
        pod.metadata.owner_references =
            vec![Owner { kind: "Job".into(), name: "backup-28912345".into(), controller: true }];
        let values = pod.values(Scope::Cluster, None);
        assert_eq!((&values["job"]["name"], &values["cronjob"]["name"]), (&json!("backup-28912345"), &json!("backup")));
    }
}
