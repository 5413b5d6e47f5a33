//! Hosts: the machines that agents run on.

use http::Method;
use muster_core::agent::{AgentRecord, Family};
use muster_core::id::{AgentId, HostId};
use serde_json::json;

use crate::support::{Api, column};

/// Enrolls an agent on a machine; returns its id.
async fn agent(api: &Api, machine: &str, hostname: &str) -> String {
    let key = api.add_key(None, |_| {}).await;
    let local = json!({"host": {"hostname": hostname}, "os": {"name": "Ubuntu", "version": "24.04"}});
    let body = json!({"type": "PERMANENT", "machine_id": machine, "metadata": {"local": local}});
    api.enroll(&key, &body).await.unwrap().id
}

#[tokio::test]
async fn a_host_has_all_agents_of_its_machine_and_is_deleted_with_them() {
    let api = Api::new();
    let (first, second) = (agent(&api, "m-1", "web-1").await, agent(&api, "M-1", "web-1").await);
    agent(&api, "m-2", "db-1").await;
    let list = api.get("/hosts").await.ok();
    assert_eq!((column(&list, "/hostname"), &list["total"]), (vec!["db-1".into(), "web-1".into()], &json!(2)));
    let host = list["items"][1].clone();
    assert_eq!((&host["machine_id"], &host["os"]), (&json!("m-1"), &json!("Ubuntu 24.04")));
    let found = api.get(&format!("/hosts?kuery=host_id:{}", host["id"].as_str().unwrap())).await.ok();
    assert_eq!(column(&found, "/hostname"), ["web-1"]);
    let path = format!("/hosts/{}", host["id"].as_str().unwrap());
    let shown = api.get(&path).await.ok();
    let mut ids: Vec<_> = shown["item"]["agents"].as_array().unwrap().iter().map(|agent| agent["id"].clone()).collect();
    ids.sort_by_key(ToString::to_string);
    let mut expected = vec![json!(first), json!(second)];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(ids, expected);
    assert_eq!(shown["item"]["agents"][0]["local_metadata"]["host"]["hostname"], "web-1");
    assert!(host["agents"][0].get("local_metadata").is_none(), "lists are small");
    assert_eq!(api.delete(&format!("{path}?dryRun=true")).await.ok()["agents"], 2);
    assert_eq!(api.get("/hosts").await.ok()["total"], 2);
    assert_eq!(api.delete(&path).await.ok()["agents"], 2);
    for id in [first, second] {
        assert_eq!(api.store().agent(&AgentId::trusted(id)).await.unwrap(), None);
    }
    api.get(&path).await.refused(404);
    api.delete(&path).await.refused(404);
    assert_eq!(column(&api.get("/hosts").await.ok(), "/hostname"), ["db-1"]);
}

#[tokio::test]
async fn hosts_are_found_by_serial_number_and_hardware_uuid() {
    let api = Api::new();
    let enroll = async |machine: &str, serial: &str| {
        let key = api.add_key(None, |_| {}).await;
        let host = json!({"hostname": machine, "id": machine});
        let body = json!({"type": "PERMANENT", "machine_id": machine,
            "metadata": {"local": {"host": host, "hardware": {"serial": serial}}}});
        api.enroll(&key, &body).await.unwrap();
    };
    enroll("M-1", "5JX82").await;
    enroll("M-2", "").await;
    for kuery in ["serial:5jx82", "local_metadata.hardware.serial:*", "hardware_uuid:m-1", "5jx8"] {
        let found = api.get(&format!("/hosts?kuery={kuery}")).await.ok();
        assert_eq!((column(&found, "/serial"), &found["total"]), (vec!["5JX82".into()], &json!(1)), "{kuery}");
        assert_eq!(found["items"][0]["hardware_uuid"], "M-1");
    }
    let without = api.get("/hosts?kuery=not%20serial:*").await.ok();
    assert_eq!((column(&without, "/hostname"), without["items"][0].get("serial")), (vec!["M-2".into()], None));
}

#[tokio::test]
async fn a_host_of_another_space_is_not_found() {
    let api = Api::new();
    agent(&api, "m-1", "web-1").await;
    let host = api.get("/hosts").await.ok()["items"][0]["id"].as_str().unwrap().to_owned();
    for bad in ["nowhere", "%2e%2e", "a%2fb"] {
        api.get(&format!("/hosts/{bad}")).await.refused(404);
    }
    api.get(&format!("/hosts/{host}")).await.ok();
}

#[tokio::test]
async fn hosts_are_transferred_one_by_one_and_those_that_stay_have_a_reason() {
    let api = Api::new();
    api.v1(Method::POST, "/spaces", json!({"id": "red"})).await.ok();
    agent(&api, "m-1", "web-1").await;
    let elastic = agent(&api, "m-2", "web-2").await;
    let hosts = column(&api.get("/hosts").await.ok(), "/id");
    let orbit = |record: &mut AgentRecord| {
        (record.family, record.host_id) = (Family::Orbit, Some(HostId::trusted(hosts[1].as_str())));
    };
    api.agent_with("orbit-2", None, orbit).await;
    for body in [
        json!({"to_space": "red"}),
        json!({"to_space": "red", "hosts": hosts, "kuery": "status:*"}),
        json!({"to_space": "red", "kuery": "  "}),
        json!({"to_space": "default", "hosts": hosts}),
        json!({"to_space": "red", "hosts": hosts, "force": true}),
    ] {
        api.post("/hosts/_transfer", body).await.refused(400);
    }
    api.post("/hosts/_transfer", json!({"to_space": "blue", "hosts": hosts})).await.refused(404);
    let body = json!({"to_space": "red", "kuery": "status:* or not status:*"});
    let tried = api.post("/hosts/_transfer?dryRun=true", body.clone()).await.ok();
    assert_eq!((&tried["moved"], &tried["refused"]), (&json!(0), &json!(2)), "{tried}");
    let refusal = &tried["items"][0]["refusal"];
    assert_eq!((&refusal["code"], &tried["items"][0]["moved"]), (&json!("no_fleetd"), &json!(false)), "{tried}");
    assert_eq!(tried["items"][1]["refusal"]["code"], "other_agents");
    api.delete(&format!("/agents/{elastic}")).await.ok();
    let done = api.post("/hosts/_transfer", body).await.ok();
    assert_eq!((&done["moved"], &done["refused"]), (&json!(1), &json!(1)), "{done}");
    let moved = &done["items"][1];
    assert_eq!((&moved["id"], &moved["agents"], &moved["disk_key"]), (&json!(hosts[1]), &json!(1), &json!(false)));
    assert!(moved["new_id"].is_string() && moved["new_id"] != hosts[1].as_str(), "{done}");
    assert_eq!(
        column(&api.get("/hosts").await.ok(), "/id"),
        hosts,
        "an unenrolled agent stays behind, and its host with it"
    );
}

#[tokio::test]
async fn hosts_are_listed_behind_a_cursor() {
    let api = Api::new();
    for (machine, name) in [("m-1", "Web"), ("m-2", "web"), ("m-3", "a\"b"), ("m-4", "db"), ("m-5", "")] {
        agent(&api, machine, name).await;
    }
    let mut found = Vec::new();
    let mut path = "/hosts?perPage=2".to_owned();
    loop {
        let page = api.get(&path).await.ok();
        assert_eq!(page["total"], 5);
        found.extend(column(&page, "/id"));
        let Some(next) = page["nextSearchAfter"].as_str() else { break };
        let next = percent_encoding::utf8_percent_encode(next, percent_encoding::NON_ALPHANUMERIC);
        path = format!("/hosts?perPage=2&searchAfter={next}");
    }
    assert_eq!(found, column(&api.get("/hosts").await.ok(), "/id"));
    for bad in ["searchAfter=garbage", "searchAfter=[1]", "page=1&searchAfter=[%22a%22,%22b%22]"] {
        assert_eq!(api.get(&format!("/hosts?{bad}")).await.refused(400)["field"], "searchAfter", "{bad}");
    }
}
