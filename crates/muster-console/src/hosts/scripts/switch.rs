//! `/scripts/switch`: switches scripts of the space on or off.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::ScriptsWrite;
use muster_fleet::Fleet;
use serde::Deserialize;
use serde_json::json;

use super::super::TAB;
use super::{PATH, SAVED_API};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::request::Posted;
use crate::visitor::Visitor;
use crate::{confirm, failure, notice};

const OFF: &str = "No host of this space gets a script from then on, and new runs are rejected. A host that has not fetched the \
                   script of a run gets it if scripts are switched on again before the run expires. Scripts that run on hosts \
                   now go on.";
const ON: &str = "Everybody with the privilege scripts.run can then run scripts with full privileges on the hosts of this space \
                  whose fleetd package permits scripts. Hosts get the scripts of runs that have not expired.";

/// The form.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    /// `on` or `off`.
    to: String,
}

/// Asks before scripts are switched on or off.
pub async fn ask(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        visitor.context.grant::<ScriptsWrite>()?;
        let is_on = fleet.scripts().are_enabled(&visitor.context).await?;
        let (title, text, button, to) = match is_on {
            true => ("Switch scripts off?", OFF, "Switch scripts off", "off"),
            false => ("Switch scripts on?", ON, "Switch scripts on", "on"),
        };
        let flag = if is_on { "--disable" } else { "--enable" };
        let path = format!("{SAVED_API}/settings");
        let (action, back) = (visitor.base.link(format_args!("{PATH}/switch")), visitor.base.link(PATH));
        Ok(Confirm {
            text: vec![text.to_owned()],
            hidden: vec![("to", to.to_owned())],
            button,
            cli: cli(&visitor, &format!("script settings {flag}")),
            api: curl(&visitor, "PUT", &path, &json!({"enabled": !is_on}).to_string()),
            ..Confirm::new(&visitor, title, TAB, action, back)
        })
    };
    confirm::shown(&visitor, TAB, made.await)
}

/// Switches scripts on or off.
pub async fn switch(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    let made = async {
        let enabled = match fields.to.as_str() {
            "on" => true,
            "off" => false,
            _ => return Err(Error::invalid("to", "must be on or off")),
        };
        fleet.scripts().enable(&visitor.context.grant()?, enabled).await?;
        let text = if enabled { "Scripts are switched on." } else { "Scripts are switched off." };
        Ok(notice::redirect(visitor.base.link(PATH), text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}
