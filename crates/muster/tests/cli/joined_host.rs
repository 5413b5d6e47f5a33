//! An Elastic Agent and an osqueryd of one machine, which enroll with different ids, are agents of one host.

use serde_json::{Value, json};

use crate::agents::answered_by;
use crate::world::World;

/// Machine ids, and what `sha256sum /etc/machine-id` prints on their machines.
const FIRST: (&str, &str) =
    ("5f2c9a1be8f94d0b8a4f0d7a6c3e1b20", "187c23a5cf4b49eb2e86a6c2b5fcda890dd47e8545b65ee0f1e73d7862e61c94");
const SECOND: (&str, &str) =
    ("5f2c9a1be8f94d0b8a4f0d7a6c3e1b21", "881eb66cbbb9d4cdc425e42b184ca0b236b9d697894544d7d6189b6278e14646");
const THIRD_HASH: &str = "2158014308b7bf6adc007323e42b9a6dc17744d30b04867f7b085d91ba0e40e0";
const GUID: &str = "4DB4F36D-88D2-4D1E-A4F3-9E3C8F1D2B7A";

/// A server, with the tokens for both families.
struct Fleet {
    world: World,
    token: String,
    secret: String,
}

impl Fleet {
    fn start() -> Self {
        let world = World::start();
        let key = |family: &str| -> String {
            let made = world.json(&["enrollment-key", "create", "--family", family, "--name", family]);
            made["api_key"].as_str().unwrap().to_owned()
        };
        let (token, secret) = (key("elastic"), key("fleetd"));
        Self { world, token, secret }
    }

    /// Enrolls an Elastic Agent.
    fn elastic(&self, name: &str, machine: &str) {
        let local = json!({"host": {"hostname": name, "id": machine}, "elastic": {"agent": {"version": "9.5.2"}}});
        let body = json!({"type": "PERMANENT", "metadata": {"local": local, "user_provided": {}}});
        let (status, text) =
            answered_by(&self.world, "/api/fleet/agents/enroll", &self.token, "elastic agent 9.5.2", &body);
        assert_eq!(status, 200, "{text}");
    }

    /// Enrolls an osqueryd, and returns its node key.
    fn osquery(&self, name: &str, uuid: &str) -> Value {
        let details = json!({"system_info": {"hostname": name, "uuid": uuid}, "os_version": {"platform": "ubuntu"},
            "osquery_info": {"version": "5.21.0"}});
        let body = json!({"enroll_secret": self.secret, "host_identifier": uuid, "host_details": details});
        self.send("enroll", &body)["node_key"].clone()
    }

    /// Reports what a detail query of the machine id returns.
    fn report(&self, key: &Value, query: &str, row: &Value) {
        let name = format!("fleet_detail_query_{query}");
        self.send("distributed/write", &json!({"node_key": key, "queries": {&name: [row]}, "statuses": {&name: 0}}));
    }

    fn send(&self, call: &str, body: &Value) -> Value {
        let path = format!("/api/v1/osquery/{call}");
        let (status, text) = answered_by(&self.world, &path, "-", "osquery/5.21.0", body);
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The families of the agents of each host with this name, sorted.
    fn hosts(&self, name: &str) -> Vec<Vec<String>> {
        let found = self.world.json(&["host", "list"]);
        let of_name =
            |host: &&Value| host["hostname"].as_str().is_some_and(|full| full.split('.').next() == Some(name));
        let mut hosts: Vec<Vec<String>> = found.as_array().unwrap().iter().filter(of_name).map(families).collect();
        hosts.sort();
        hosts
    }

    /// The details of audit events.
    fn events(&self, action: &str) -> Vec<Value> {
        let found = self.world.json(&["audit", "list", "--action", action]);
        let items = found.as_array().or_else(|| found["items"].as_array()).unwrap();
        items.iter().map(|event| event["detail"].clone()).collect()
    }
}

fn families(host: &Value) -> Vec<String> {
    let agents = host["agents"].as_array().unwrap();
    let mut families: Vec<String> = agents.iter().map(|agent| agent["family"].as_str().unwrap().to_owned()).collect();
    families.sort();
    families
}

#[test]
fn an_elastic_agent_and_an_osqueryd_of_one_machine_are_one_host() {
    let fleet = Fleet::start();
    let both = [["elastic", "osquery"]];
    // The Elastic Agent comes first, and osqueryd has the name with the domain.
    fleet.elastic("web-7", FIRST.0);
    let web = fleet.osquery("web-7.example.com", "4C4C4544-0042-3510-8052-000000000001");
    assert_eq!(fleet.hosts("web-7"), [["elastic"], ["osquery"]]);
    let asked = fleet.send("distributed/read", &json!({"node_key": web}));
    for query in ["machine_id", "machine_guid"] {
        assert!(asked["queries"][format!("fleet_detail_query_{query}")].is_string(), "{asked}");
    }
    let former = fleet.world.json(&["host", "list", "--filter", "family:elastic"])[0]["id"].clone();
    fleet.world.ok(&["label", "create", "Shops", "--host", former.as_str().unwrap()]);
    fleet.report(&web, "machine_id", &json!({"sha256": FIRST.1}));
    assert_eq!(fleet.hosts("web-7"), both);
    let joined = fleet.events("host.join");
    assert_eq!((&joined[0]["former_host"], joined[0]["labels"].as_array().unwrap().len()), (&former, 1));
    // No label follows, which would let a host that pretends to be another one see what that is asked.
    assert!(fleet.world.json(&["host", "list", "--label", "Shops"]).as_array().unwrap().is_empty());
    fleet.report(&web, "machine_id", &json!({"sha256": FIRST.1}));
    assert_eq!(fleet.events("host.join").len(), 1, "nothing has changed since");
    // osqueryd comes first.
    let database = fleet.osquery("db-1", "4C4C4544-0042-3510-8052-000000000002");
    fleet.report(&database, "machine_id", &json!({"sha256": SECOND.1}));
    fleet.elastic("db-1", SECOND.0);
    assert_eq!(fleet.hosts("db-1"), both);
    // Windows tells the id itself.
    let windows = fleet.osquery("PC-1", "4C4C4544-0042-3510-8052-000000000003");
    fleet.elastic("pc-1", &GUID.to_lowercase());
    fleet.report(&windows, "machine_guid", &json!({"data": GUID}));
    assert_eq!(fleet.hosts("PC-1"), both);
    // A clone of the image has the same machine id and another name; a rival has both.
    fleet.elastic("web-8", FIRST.0);
    assert_eq!((fleet.hosts("web-8").concat(), fleet.hosts("web-7").len()), (vec!["elastic".to_owned()], 1));
    let rival = fleet.osquery("web-7", "4C4C4544-0042-3510-8052-000000000004");
    fleet.report(&rival, "machine_id", &json!({"sha256": FIRST.1}));
    fleet.report(&rival, "machine_id", &json!({"sha256": "not a hash"}));
    assert_eq!(fleet.hosts("web-7"), [vec!["elastic", "osquery"], vec!["osquery"]]);
    let claimed = fleet.events("agent.claimed_identifier");
    assert_eq!((claimed.len(), &claimed[0]["identifier"]), (1, &json!("machine_id")));
    assert_eq!(fleet.events("host.join").len(), 2, "the one that enrolled last joined with its enrollment");
    // Nor does a host collect the agents of several machines, one after the other.
    fleet.elastic("web-9", "5f2c9a1be8f94d0b8a4f0d7a6c3e1b22");
    let details = json!([{"hostname": "web-9", "uuid": "4C4C4544-0042-3510-8052-000000000001"}]);
    fleet.send(
        "distributed/write",
        &json!({"node_key": web, "queries": {"fleet_detail_query_system_info": details},
        "statuses": {"fleet_detail_query_system_info": 0}}),
    );
    fleet.report(&web, "machine_id", &json!({"sha256": THIRD_HASH}));
    let hosts = fleet.world.json(&["host", "list"]);
    let elastic = |host: &Value| families(host).iter().filter(|family| *family == "elastic").count();
    assert!(hosts.as_array().unwrap().iter().all(|host| elastic(host) <= 1), "{hosts}");
    assert_eq!(fleet.events("agent.claimed_identifier").len(), 2);
    // The host is deleted with all of its agents.
    fleet.world.ok(&["host", "delete", "db-1", "--yes"]);
    assert!(fleet.hosts("db-1").is_empty());
}
