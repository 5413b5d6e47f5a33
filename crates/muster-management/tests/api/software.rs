//! `/software`, and the software of a host.

use muster_core::agent::{AgentRecord, Family};
use muster_core::fleetd::software::{Software, Source, packed};
use muster_core::host::{self, Host};
use muster_core::id::{AgentId, HostId, SpaceId};
use muster_store::{AgentWrite, SoftwareWrite};
use serde_json::json;

use crate::support::{Api, column};

const UUID: &str = "4c4c4544-0042-3510-8052-b7c04f584432";

async fn host(api: &Api, id: &str, versions: &[&str]) {
    let machine = Host {
        id: HostId::trusted(format!("host-of-{id}")),
        space: SpaceId::default(),
        machine_id: None,
        hostname: format!("{id}.example"),
        created_at: api.now(),
        system_id: None,
    };
    let change = |agent: &mut AgentRecord| {
        (agent.family, agent.hostname) = (Family::Osquery, format!("{id}.example"));
        agent.host_id = Some(machine.id.clone());
    };
    api.store().commit(vec![AgentWrite::PutHost(machine.clone()).into()]).await.unwrap();
    api.agent_with(id, None, change).await;
    let software =
        |version: &&str| Software { name: "OpenSSL".into(), version: (*version).into(), source: Source::DebPackages };
    let mut new: Vec<Software> = versions.iter().map(software).collect();
    new.sort_by_key(Software::id);
    let list = packed(new.iter().map(Software::id));
    let write = SoftwareWrite::List { agent: AgentId::trusted(id), list, new, left_out: 2, now: api.now() };
    api.store().commit(vec![write.into()]).await.unwrap();
    api.fleet.software().index().await.unwrap();
}

#[tokio::test]
async fn software_is_searched_by_name_version_and_source() {
    let api = Api::new();
    host(&api, "a", &["3.0.2", "3.0.10"]).await;
    host(&api, "b", &["3.0.10"]).await;
    let all = api.get("/software").await.ok();
    assert_eq!((&all["total"], &all["items"][0]["source"]), (&json!(2), &json!("deb_packages")));
    let found = api.get("/software?name=openssl").await.ok();
    assert_eq!(
        (column(&found, "/version"), &found["items"][1]["hosts"]),
        (vec!["3.0.2".into(), "3.0.10".into()], &json!(2))
    );
    let old = api.get("/software?name=open*&version=%3C3.0.7").await.ok();
    assert_eq!(column(&old, "/version"), ["3.0.2"]);
    assert_eq!(column(&api.get("/software?name=openssl&perPage=1&page=2").await.ok(), "/version"), ["3.0.10"]);
    assert_eq!(api.get("/software?source=apps").await.ok()["total"], 0);
    for path in ["/software?", "/software?name=open*&version=%3C4&"] {
        let first = api.get(&format!("{path}perPage=1")).await.ok();
        let after = first["nextSearchAfter"].as_str().unwrap().replace('"', "%22");
        let second = api.get(&format!("{path}perPage=1&searchAfter={after}")).await.ok();
        assert_ne!(first["items"], second["items"]);
        assert_eq!((&second["total"], second["items"].as_array().unwrap().len()), (&json!(2), 1));
        let after = second["nextSearchAfter"].as_str().unwrap().replace('"', "%22");
        let last = api.get(&format!("{path}perPage=1&searchAfter={after}")).await.ok();
        assert!(last["items"].as_array().unwrap().is_empty() && last.get("nextSearchAfter").is_none(), "{last}");
    }
    for (query, field) in
        [("name=", "name"), ("version=1", "version"), ("name=x&version=%3C", "version"), ("source=x", "source")]
    {
        assert_eq!(api.get(&format!("/software?{query}")).await.refused(400)["field"], field, "{query}");
    }
    for query in ["searchAfter=x", "searchAfter=[1]", "page=1&searchAfter=[%22a%22,%221%22,%22apps%22]"] {
        assert_eq!(api.get(&format!("/software?{query}")).await.refused(400)["field"], "searchAfter", "{query}");
    }
    let id = found["items"][1]["id"].as_str().unwrap();
    let hosts = api.get(&format!("/software/{id}/hosts?perPage=1")).await.ok();
    let after = hosts["nextSearchAfter"].as_str().unwrap();
    let rest = api.get(&format!("/software/{id}/hosts?perPage=1&searchAfter={after}")).await.ok();
    assert_eq!((&rest["items"][0]["agent_id"], rest.get("nextSearchAfter")), (&json!("b"), None), "{rest}");
    assert_eq!(api.get(&format!("/software/{id}")).await.ok()["item"], found["items"][1]);
    let hosts = api.get(&format!("/software/{id}/hosts")).await.ok();
    assert_eq!(
        (column(&hosts, "/hostname"), &hosts["total"]),
        (vec!["a.example".into(), "b.example".into()], &json!(2))
    );
    for missing in ["x", "00000000000000"] {
        api.get(&format!("/software/{missing}")).await.refused(404);
        api.get(&format!("/software/{missing}/hosts")).await.refused(404);
    }
}

#[tokio::test]
async fn a_host_is_found_by_its_hardware_uuid_and_shown_with_its_software() {
    let api = Api::new();
    let agent = host::agent_id(Family::Osquery, &host::machine_id(UUID).unwrap());
    host(&api, agent.as_str(), &["3.0.2"]).await;
    let found = api.get("/hosts").await.ok()["items"][0].clone();
    assert!(found.get("software").is_none(), "not in lists");
    for id in [found["id"].as_str().unwrap(), UUID, &UUID.to_uppercase()] {
        let host = api.get(&format!("/hosts/{id}")).await.ok()["item"].clone();
        assert_eq!((&host["software"][0]["name"], &host["software_left_out"]), (&json!("OpenSSL"), &json!(2)), "{id}");
        assert_eq!(host["id"], found["id"]);
    }
    api.get("/hosts/4c4c4544-0042-3510-8052-000000000000").await.refused(404);
}
