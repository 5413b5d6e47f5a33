//! The provider `docker`: one set of variables for each running container (AG §4.2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::DynamicSet;
use super::api::{ApiError, Ask, Documents, Place, encoded};
use super::board::Board;
use super::labels::{dedotted, with_aliases};
use super::lingering::Lingering;
use super::settings::Docker;
use crate::net::{Server, tls};
use crate::state::enrollment::Trust;

/// Name of the provider.
pub const PROVIDER: &str = "docker";
/// Events after which the containers are listed again.
const EVENTS: &str = r#"{"type":["container"],"event":["start","die","destroy","rename"]}"#;
/// Time to wait for further events. Starting a group of containers causes many.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Interval at which a socket that does not exist is looked for, and a connection that failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// A container, as far as it is needed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Finds containers until it is aborted.
pub async fn run(settings: Docker, board: Arc<Board>) {
    let place = match place(&settings.host) {
        Ok(place) => place,
        Err(reason) => return board.set_fault(PROVIDER, Some(reason)),
    };
    // Outside of the loop: a lost connection must not stop the inputs of containers that still run.
    let mut found = Lingering::new(settings.cleanup_timeout);
    loop {
        // A host without containers is no fault: the same policy may be meant for hosts with containers.
        if matches!(&place, Place::Socket(path) if path.symlink_metadata().is_err()) {
            // A runtime that is being restarted removes its socket, too.
            found.keep_only(&BTreeSet::new(), Instant::now());
            board.set_dynamic(PROVIDER, found.valid(Instant::now()).0);
            board.set_fault(PROVIDER, None);
        } else if let Err(error) = follow(&place, &mut found, &board).await {
            board.set_fault(PROVIDER, Some(format!("{}: {error}", settings.host)));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Returns where the API is. Only the containers of this host are meant, which no other host may define.
fn place(host: &str) -> Result<Place, String> {
    if let Some(path) = host.strip_prefix("unix://") {
        return Ok(Place::Socket(Utf8PathBuf::from(path)));
    }
    let url = host.strip_prefix("tcp://").map_or_else(|| host.to_owned(), |rest| format!("http://{rest}"));
    let server = Server::parse(&url).map_err(|error| error.to_string())?;
    if server.tls || !server.is_loopback() {
        return Err(format!("{host}: must be unix://PATH, or http:// with a loopback address"));
    }
    let tls = tls::client_config(&Trust::default()).map_err(|error| error.to_string())?;
    Ok(Place::server(server, tls))
}

/// Follows the containers until the connection is lost.
async fn follow(place: &Place, found: &mut Lingering, board: &Board) -> Result<(), ApiError> {
    // Before the list, so that no change in between is missed.
    let mut events = place.stream(Ask::get(&format!("/events?filters={}", encoded(EVENTS)))).await?;
    loop {
        let containers: Vec<Container> = place.document(Ask::get("/containers/json")).await?;
        let ids: BTreeSet<String> = containers.iter().map(|container| container.id.clone()).collect();
        for container in containers {
            found.put(container.id.clone(), vec![set(&container)]);
        }
        found.keep_only(&ids, Instant::now());
        board.set_fault(PROVIDER, found.overflow("containers"));
        wait(&mut events, found, board).await?;
        tokio::time::sleep(DEBOUNCE).await;
    }
}

/// Publishes the sets, and waits for an event.
async fn wait(events: &mut Documents, found: &mut Lingering, board: &Board) -> Result<(), ApiError> {
    loop {
        let (sets, next) = found.valid(Instant::now());
        board.set_dynamic(PROVIDER, sets);
        let ended = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        // The contents of the event do not matter: the containers are listed again in any case.
        tokio::select! {
            event = events.next::<IgnoredAny>() => return event.map(drop),
            () = ended => {}
        }
    }
}

fn set(container: &Container) -> DynamicSet {
    let names = container.names.as_deref().unwrap_or_default();
    // A container that is linked to others has further names, which consist of two parts.
    let own = names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
    let (id, name, image) = (&container.id, own.unwrap_or_default(), &container.image);
    let labels = container.labels.clone().unwrap_or_default();
    let fields: Value = json!({"id": id, "name": name, "image.name": image, "labels": dedotted(&labels)});
    DynamicSet {
        id: format!("{PROVIDER}-{id}"),
        provider: PROVIDER.into(),
        values: json!({"container": {"id": id, "name": name, "image": {"name": image}, "labels": with_aliases(labels)}}),
        processors: vec![json!({"add_fields": {"target": "container", "fields": fields}})],
    }
}
