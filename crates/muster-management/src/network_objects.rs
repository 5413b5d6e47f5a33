//! `/fleet_server_hosts`, `/proxies` and `/agent_download_sources` (MG §1.5, §2.6–2.8).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::network_object::NetworkObject as Record;
use muster_protocol::management::network_object::NetworkObject;
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
    /// Fields that an update removes if they are absent (MG §13). All others are kept.
    const DROPPED: &'static [&'static str];
    /// Descriptions of the endpoints: list, create, get, update, delete.
    const ABOUT: [&'static str; 5];
    /// What the reading endpoints need.
    const READ: &'static [PrivilegeName] = &[<Self::Read as Privilege>::NAME];
    /// What the changing endpoints need.
    const WRITE: &'static [PrivilegeName] = &[<Self::Write as Privilege>::NAME];

    fn service(fleet: &Fleet) -> &NetworkObjects<Self>;
}

impl Served for ServerHosts {
    const LIST: &'static str = "/fleet_server_hosts";
    const ONE: &'static str = "/fleet_server_hosts/{id}";
    const ABOUT: [&'static str; 5] = [
        "List Fleet Server hosts",
        "Create a Fleet Server host",
        "Get a Fleet Server host",
        "Update a Fleet Server host",
        "Delete a Fleet Server host",
    ];
    const DROPPED: &'static [&'static str] = &["proxy_id"];

    fn service(fleet: &Fleet) -> &NetworkObjects<Self> {
        fleet.server_hosts()
    }
}

impl Served for Proxies {
    const LIST: &'static str = "/proxies";
    const ONE: &'static str = "/proxies/{id}";
    const ABOUT: [&'static str; 5] =
        ["List proxies", "Create a proxy", "Get a proxy", "Update a proxy", "Delete a proxy"];
    const DROPPED: &'static [&'static str] =
        &["proxy_headers", "certificate_authorities", "certificate", "certificate_key"];

    fn service(fleet: &Fleet) -> &NetworkObjects<Self> {
        fleet.proxies()
    }
}

impl Served for DownloadSources {
    const LIST: &'static str = "/agent_download_sources";
    const ONE: &'static str = "/agent_download_sources/{id}";
    const ABOUT: [&'static str; 5] = [
        "List download sources",
        "Create a download source",
        "Get a download source",
        "Update a download source",
        "Delete a download source",
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

fn family<F: Served>() -> [Endpoint; 5] {
    let [list_all, create_one, get_one, update_one, delete_one] = F::ABOUT;
    [
        Endpoint::get(F::LIST, list::<F>).about(list_all).needs(F::READ),
        Endpoint::post(F::LIST, create::<F>).about(create_one).needs(F::WRITE),
        Endpoint::get(F::ONE, get::<F>).about(get_one).needs(F::READ),
        Endpoint::put(F::ONE, update::<F>).about(update_one).needs(F::WRITE),
        Endpoint::delete(F::ONE, delete::<F>).about(delete_one).needs(F::WRITE),
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

#[cfg(test)]
mod tests {
    use muster_protocol::management::network_object::NetworkRoute;

    use super::*;

    #[test]
    fn routes_are_those_of_the_client() {
        fn check<F: Served>(route: NetworkRoute) {
            assert_eq!(F::LIST, format!("/{}", route.segment()));
            assert_eq!(F::ONE, format!("{}/{{id}}", F::LIST));
        }
        check::<ServerHosts>(NetworkRoute::ServerHosts);
        check::<Proxies>(NetworkRoute::Proxies);
        check::<DownloadSources>(NetworkRoute::DownloadSources);
    }
}
