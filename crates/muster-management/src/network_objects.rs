//! `/fleet_server_hosts`, `/proxies` and `/agent_download_sources` (MG §1.5, §2.6–2.8).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::connection_test::{Step, Tested};
use muster_core::network_object::NetworkObject as Record;
use muster_protocol::management::network_object::{AddressTest, ConnectionTest, NetworkObject, TestStep};
use muster_protocol::management::output::DeletedId;
use muster_protocol::management::{Item, Items};
use serde_json::{Map, Value};

use super::answer::{Answer, every, item};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::object_fields::{flag, given, reference, text};
use muster_core::authorization::{Privilege, PrivilegeName};
use muster_fleet::Fleet;
use muster_fleet::network_objects::{
    DownloadSources, NetworkFamily, NetworkObjectDraft, NetworkObjects, Proxies, ServerHosts,
};

/// A kind of network objects with its routes.
trait Served: NetworkFamily + Sized {
    const LIST: &'static str;
    const ONE: &'static str;
    /// Tests of a new object, and of one that exists.
    const TESTS: [&'static str; 2];
    /// Fields that an update removes if they are absent (MG §13). All others are kept.
    const DROPPED: &'static [&'static str];
    /// Descriptions of the endpoints: list, create, get, update, delete, test of a new object, test.
    const ABOUT: [&'static str; 7];
    /// What the reading endpoints need.
    const READ: &'static [PrivilegeName] = &[<Self::Read as Privilege>::NAME];
    /// What the changing endpoints need.
    const WRITE: &'static [PrivilegeName] = &[<Self::Write as Privilege>::NAME];

    fn service(fleet: &Fleet) -> &NetworkObjects<Self>;
}

impl Served for ServerHosts {
    const LIST: &'static str = "/fleet_server_hosts";
    const ONE: &'static str = "/fleet_server_hosts/{id}";
    const TESTS: [&'static str; 2] = ["/fleet_server_hosts/_test", "/fleet_server_hosts/{id}/_test"];
    const ABOUT: [&'static str; 7] = [
        "List Fleet Server hosts",
        "Create a Fleet Server host",
        "Get a Fleet Server host",
        "Update a Fleet Server host",
        "Delete a Fleet Server host",
        "Test the connection to a Fleet Server host without creating it",
        "Test the connection to a Fleet Server host, optionally with changes that are not saved",
    ];
    const DROPPED: &'static [&'static str] = &["proxy_id"];

    fn service(fleet: &Fleet) -> &NetworkObjects<Self> {
        fleet.server_hosts()
    }
}

impl Served for Proxies {
    const LIST: &'static str = "/proxies";
    const ONE: &'static str = "/proxies/{id}";
    const TESTS: [&'static str; 2] = ["/proxies/_test", "/proxies/{id}/_test"];
    const ABOUT: [&'static str; 7] = [
        "List proxies",
        "Create a proxy",
        "Get a proxy",
        "Update a proxy",
        "Delete a proxy",
        "Test the connection through a proxy without creating it",
        "Test the connection through a proxy, optionally with changes that are not saved",
    ];
    const DROPPED: &'static [&'static str] =
        &["proxy_headers", "certificate_authorities", "certificate", "certificate_key"];

    fn service(fleet: &Fleet) -> &NetworkObjects<Self> {
        fleet.proxies()
    }
}

impl Served for DownloadSources {
    const LIST: &'static str = "/agent_download_sources";
    const ONE: &'static str = "/agent_download_sources/{id}";
    const TESTS: [&'static str; 2] = ["/agent_download_sources/_test", "/agent_download_sources/{id}/_test"];
    const ABOUT: [&'static str; 7] = [
        "List download sources",
        "Create a download source",
        "Get a download source",
        "Update a download source",
        "Delete a download source",
        "Test the connection to a download source without creating it",
        "Test the connection to a download source, optionally with changes that are not saved",
    ];
    const DROPPED: &'static [&'static str] = &[];

    fn service(fleet: &Fleet) -> &NetworkObjects<Self> {
        fleet.download_sources()
    }
}

/// Endpoints for Fleet Server hosts, proxies and download sources (MG §1.5).
pub fn endpoints() -> Vec<Endpoint> {
    let families = [family::<ServerHosts>(), family::<Proxies>(), family::<DownloadSources>()];
    families.into_iter().flatten().collect()
}

fn family<F: Served>() -> [Endpoint; 7] {
    let [list_all, create_one, get_one, update_one, delete_one, test_new_one, test_one] = F::ABOUT;
    let [new_path, one_path] = F::TESTS;
    [
        Endpoint::get(F::LIST, list::<F>).about(list_all).needs(F::READ),
        Endpoint::post(F::LIST, create::<F>).about(create_one).needs(F::WRITE),
        Endpoint::get(F::ONE, get::<F>).about(get_one).needs(F::READ),
        Endpoint::put(F::ONE, update::<F>).about(update_one).needs(F::WRITE),
        Endpoint::delete(F::ONE, delete::<F>).about(delete_one).needs(F::WRITE),
        Endpoint::post(new_path, test_new::<F>).about(test_new_one).needs(F::WRITE),
        Endpoint::post(one_path, test::<F>).about(test_one).needs(F::WRITE),
    ]
}

fn object(record: Record) -> NetworkObject {
    let fields = match record.fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    NetworkObject {
        id: record.id.to_string(),
        name: record.name,
        // An explicit `false` is among the fields.
        is_default: record.is_default.then_some(true),
        created_at: time(record.created_at),
        updated_at: time(record.updated_at),
        fields,
    }
}

/// Extracts the common fields. The service checks the others.
fn draft(mut fields: Map<String, Value>) -> Result<NetworkObjectDraft, Error> {
    // Accepted and ignored: clients read an object, change a field, and send everything back.
    for read_only in ["created_at", "updated_at"] {
        fields.remove(read_only);
    }
    reference(&mut fields, "proxy_id");
    Ok(NetworkObjectDraft {
        id: given(text(&mut fields, "id")?),
        name: text(&mut fields, "name")?,
        is_default: flag(&mut fields, "is_default")?,
        fields,
    })
}

async fn list<F: Served>(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<NetworkObject>> {
    let all = F::service(&fleet).list(&context.grant()?).await?;
    Ok(every(all.into_iter().map(object).collect()))
}

async fn create<F: Served>(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<Map<String, Value>>,
) -> Answer<Item<NetworkObject>> {
    Ok(item(object(F::service(&fleet).create(&context.grant()?, draft(body)?).await?)))
}

async fn get<F: Served>(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<NetworkObject>> {
    Ok(item(object(F::service(&fleet).find(&context, &id).await?.into_inner())))
}

async fn update<F: Served>(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Map<String, Value>>,
) -> Answer<Item<NetworkObject>> {
    let mut draft = draft(body)?;
    if draft.id.as_ref().is_some_and(|other| *other != id) {
        return Err(Error::invalid("id", format!("the id of a {} cannot be changed", F::KIND)).into());
    }
    for dropped in F::DROPPED {
        draft.fields.entry(*dropped).or_insert(Value::Null);
    }
    let before = F::service(&fleet).find_to_change(&context, &id).await?;
    Ok(item(object(F::service(&fleet).update(&before, draft).await?)))
}

async fn delete<F: Served>(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<DeletedId> {
    let found = F::service(&fleet).find_to_change(&context, &id).await?;
    let gone = F::service(&fleet).delete(&found).await?;
    Ok(Json(DeletedId { id: gone.id.to_string() }))
}

async fn test_new<F: Served>(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<Map<String, Value>>,
) -> Answer<ConnectionTest> {
    Ok(Json(tested(F::service(&fleet).test_new(&context.grant()?, draft(body)?).await?)))
}

async fn test<F: Served>(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Map<String, Value>>,
) -> Answer<ConnectionTest> {
    let found = F::service(&fleet).find_to_change(&context, &id).await?;
    Ok(Json(tested(F::service(&fleet).test(&found, draft(body)?).await?)))
}

fn tested(all: Vec<Tested>) -> ConnectionTest {
    let usable = all.iter().all(Tested::is_usable);
    let address = |one: Tested| AddressTest {
        usable: one.is_usable(),
        address: one.url,
        steps: one.steps.into_iter().map(step).collect(),
    };
    ConnectionTest { usable, addresses: all.into_iter().map(address).collect() }
}

fn step(step: Step) -> TestStep {
    let passed = step.outcome.is_ok();
    let (message, remedy) = match step.outcome {
        Ok(found) => (found, None),
        Err(failure) => (failure.reason, Some(failure.remedy)),
    };
    TestStep { step: step.name.word().to_owned(), passed, message, remedy }
}

#[cfg(test)]
mod tests {
    use muster_protocol::management::network_object::NetworkRoute;

    use super::*;

    #[test]
    fn routes_are_those_of_the_client() {
        fn check<F: Served>(route: NetworkRoute) {
            assert_eq!(F::LIST, format!("/{}", route.segment()));
            assert_eq!(F::ONE, format!("{}/{{id}}", F::LIST));
            assert_eq!(F::TESTS, [format!("{}/_test", F::LIST), format!("{}/_test", F::ONE)]);
        }
        check::<ServerHosts>(NetworkRoute::ServerHosts);
        check::<Proxies>(NetworkRoute::Proxies);
        check::<DownloadSources>(NetworkRoute::DownloadSources);
    }
}
