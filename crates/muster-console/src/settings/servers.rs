//! `/settings/servers`: the servers of the fleet, and the key that signs policies and actions.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use muster_core::authorization::{NodesRead, NodesWrite, PrivilegeName};
use muster_core::{Error, shell};
use muster_fleet::Fleet;

use super::side::Side;
use super::{TAB, shown};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::frame::Frame;
use crate::request::{Id, Pressed};
use crate::text::Moment;
use crate::visitor::Visitor;
use crate::{failure, notice};

/// Path of the page.
pub const PATH: &str = "/settings/servers";
/// Path of the servers in the API.
const API: &str = "/api/fleet/nodes";

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
    lacks_drain: &'static str,
    lacks_rotate: &'static str,
    cli: String,
    api: String,
}

struct Row {
    name: String,
    version: String,
    addresses: String,
    id: String,
    state: (&'static str, &'static str, &'static str),
    started: Moment,
    is_this: bool,
    is_draining: bool,
}

/// Shows the servers.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        let grant = visitor.context.grant::<NodesRead>()?;
        let nodes = fleet.nodes().list(&grant).await?;
        let now = fleet.now();
        let urls = fleet.urls().watch().borrow().clone();
        let rows = nodes.live.into_iter().map(|node| Row {
            id: node.id.to_string(),
            is_this: node.id == nodes.this,
            is_draining: node.is_draining,
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
            lacks_drain: visitor.lacks(PrivilegeName::NodesWrite),
            lacks_rotate: visitor.lacks(PrivilegeName::SigningRotate),
            cli: cli(&visitor, "node list"),
            api: curl(&visitor, "GET", API, ""),
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Asks before a server is drained.
pub async fn ask_to_drain(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    let made = async {
        let node = fleet.nodes().find::<NodesWrite>(&visitor.context, &id).await?;
        let title = format!("Drain the server {}?", node.name);
        let (action, back) = (visitor.base.link(format_args!("{PATH}/{id}/drain")), visitor.base.link(PATH));
        Ok(Confirm {
            text: vec![
                "The server closes the connections of its agents over a few minutes, and accepts no new \
                 ones. They connect to the other servers. The server itself keeps running, and can be \
                 resumed."
                    .to_owned(),
            ],
            button: "Drain the server",
            cli: cli(&visitor, &format!("node drain {}", shell::argument(&node.name))),
            api: curl(&visitor, "POST", &format!("{API}/{id}/drain"), ""),
            ..Confirm::new(&visitor, title, TAB, action, back)
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Sends the agents of a server to the others.
pub async fn drain(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let node = fleet.nodes().find(&visitor.context, &id).await?;
        fleet.nodes().drain(&node).await?;
        let text = format!("The server {} is draining.", node.name);
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// Makes a draining server accept agents again.
pub async fn resume(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let node = fleet.nodes().find(&visitor.context, &id).await?;
        fleet.nodes().resume(&node).await?;
        let text = format!("The server {} accepts agents again.", node.name);
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
