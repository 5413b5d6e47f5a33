//! `/settings/servers`: the servers of the fleet, and the key that signs policies and actions.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use muster_core::authorization::NodesRead;
use muster_fleet::Fleet;

use super::side::Side;
use super::{TAB, shown};
use crate::elsewhere::{cli, curl};
use crate::frame::Frame;
use crate::text::Moment;
use crate::visitor::Visitor;

/// Path of the page.
const PATH: &str = "/settings/servers";

#[derive(Template)]
#[template(path = "settings/servers.html")]
struct ServersPage {
    frame: Frame,
    side: Side,
    rows: Vec<Row>,
    lost: Vec<(String, String)>,
    urls: Vec<String>,
    /// Why the store is read-only or corrupt; empty if it is neither.
    trouble: String,
    installation: String,
    /// Fingerprint of the signing key.
    key: String,
    cli: String,
    api: String,
}

struct Row {
    name: String,
    version: String,
    addresses: String,
    state: (&'static str, &'static str, &'static str),
    started: Moment,
    is_this: bool,
}

/// Shows the servers.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let grant = visitor.context.grant::<NodesRead>()?;
        let nodes = fleet.nodes().list(&grant).await?;
        let now = fleet.now();
        let urls = fleet.urls().watch().borrow().clone();
        let rows = nodes.live.into_iter().map(|node| Row {
            is_this: node.id == nodes.this,
            addresses: node.addresses.join(", "),
            state: if node.is_draining { ("warn", "▲", "draining") } else { ("good", "●", "accepts agents") },
            started: Moment::new(node.started_at, now),
            name: node.name,
            version: node.version,
        });
        let lost = nodes.lost.into_iter().map(|node| (node.name, Moment::new(now.minus(node.since), now).relative));
        Ok(ServersPage {
            frame: Frame::new(&visitor, "Servers", TAB),
            side: Side::new(&visitor, PATH),
            rows: rows.collect(),
            lost: lost.collect(),
            urls,
            trouble: fleet.server_status().trouble().unwrap_or_default(),
            installation: fleet.server_status().installation().await?,
            key: fleet.policies().signing_fingerprint(&grant).await?,
            cli: cli(&visitor, "node list"),
            api: curl(&visitor, "GET", "/api/fleet/nodes", ""),
        })
    };
    shown(&visitor, TAB, made.await)
}
