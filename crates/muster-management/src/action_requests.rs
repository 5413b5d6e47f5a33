//! Bodies of orders, in the words of the operations.

use muster_core::Error;
use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::time::Timestamp;
use muster_protocol::management::action::NewAction;
use muster_protocol::management::agent_action::{Upgrade, UserInfo};
use muster_protocol::management::bulk::BulkUpgrade;
use serde_json::{Map, Value, json};

use muster_fleet::actions::{MigrateRequest, UpgradeRequest};
use muster_fleet::moment::{parse_end, parse_time};
use muster_fleet::tags::TagChange;

/// An upgrade of one agent begins at once: start and window belong to many (MG §1.2.2).
pub fn upgrade(body: Upgrade) -> UpgradeRequest {
    UpgradeRequest {
        version: body.version,
        source_uri: body.source_uri,
        force: body.force.into(),
        skip_rate_limit: body.skip_rate_limit_check == Some(true),
        start_time: None,
        rollout_seconds: None,
    }
}

/// `start_time` is RFC 3339; the window is in seconds, checked by core.
pub fn bulk_upgrade(body: BulkUpgrade) -> Result<UpgradeRequest, Error> {
    Ok(UpgradeRequest {
        version: body.version,
        source_uri: body.source_uri,
        force: body.force.into(),
        skip_rate_limit: body.skip_rate_limit_check == Some(true),
        start_time: body.start_time.as_deref().map(|text| parse_time("start_time", text)).transpose()?,
        rollout_seconds: body.rollout_duration_seconds,
    })
}

/// Checks both lists; at least one must name a tag.
pub fn tags(add: Option<Vec<String>>, remove: Option<Vec<String>>) -> Result<TagChange, Error> {
    TagChange::parse(&add.unwrap_or_default(), &remove.unwrap_or_default())
}

/// `settings` go to the agent as they are, once their keys are known.
pub fn migrate(uri: String, enrollment_token: String, settings: Option<Map<String, Value>>) -> MigrateRequest {
    MigrateRequest { uri, enrollment_token, settings: settings.unwrap_or_default() }
}

/// One replace token can't be for many agents (MG §1.2.3).
pub fn bulk_migrate(uri: String, token: String, settings: Option<Map<String, Value>>) -> Result<MigrateRequest, Error> {
    if settings.as_ref().is_some_and(|settings| settings.contains_key("replace_token")) {
        return Err(Error::invalid(
            "settings.replace_token",
            "valid only for a single agent; migrate that agent separately",
        ));
    }
    Ok(migrate(uri, token, settings))
}

/// Only the fields that were given: agents take an absent one as "as it is".
pub fn user(user: Option<UserInfo>) -> Option<Value> {
    user.map(|UserInfo { username, groupname, password }| {
        let given = [("username", username), ("groupname", groupname), ("password", password)];
        given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect::<Map<_, _>>().into()
    })
}

/// Any type by its word on the wire; times are RFC 3339, an expiration also a duration from `now`.
pub fn any(action: NewAction, now: Timestamp) -> Result<ActionRequest, Error> {
    let kind: ActionType = serde_json::from_value(Value::String(action.kind.clone()))
        .map_err(|_| Error::invalid("action.type", format!("unknown action type {:?}", action.kind)))?;
    let mut order = ActionRequest::new(kind, action.data.unwrap_or_default());
    order.input_type = action.input_type.unwrap_or_default();
    order.timeout = action.timeout;
    order.expiration =
        action.expiration.as_deref().map(|text| parse_end("action.expiration", text, now)).transpose()?;
    order.start_time = action.start_time.as_deref().map(|text| parse_time("action.start_time", text)).transpose()?;
    Ok(order)
}
