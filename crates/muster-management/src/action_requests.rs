//! Conversion of action request bodies to the types of the services.

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

/// Converts the upgrade of one agent, which starts immediately: start time and rollout window exist only in bulk
/// (MG §1.2.2).
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

/// Converts the upgrade of many agents. `start_time` is RFC 3339. The rollout window is in seconds; core validates it.
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

/// Validates both lists; at least one must contain a tag.
pub fn tags(add: Option<Vec<String>>, remove: Option<Vec<String>>) -> Result<TagChange, Error> {
    TagChange::parse(&add.unwrap_or_default(), &remove.unwrap_or_default())
}

/// Converts a migration. The service checks the keys of `settings`, and passes the values to the agent unchanged.
pub fn migrate(uri: String, enrollment_token: String, settings: Option<Map<String, Value>>) -> MigrateRequest {
    MigrateRequest { uri, enrollment_token, settings: settings.unwrap_or_default() }
}

/// Converts the migration of many agents. A replace token belongs to a single agent, so it is rejected here
/// (MG §1.2.3).
pub fn bulk_migrate(uri: String, token: String, settings: Option<Map<String, Value>>) -> Result<MigrateRequest, Error> {
    if settings.as_ref().is_some_and(|settings| settings.contains_key("replace_token")) {
        return Err(Error::invalid(
            "settings.replace_token",
            "valid only for a single agent; migrate that agent separately",
        ));
    }
    Ok(migrate(uri, token, settings))
}

/// Returns the fields that are present. Agents leave a value unchanged if its field is absent, but not if it is null.
pub fn user(user: Option<UserInfo>) -> Option<Value> {
    user.map(|UserInfo { username, groupname, password }| {
        // The password is sealed by the service before it is stored (EA84).
        let given = [("username", username), ("groupname", groupname), ("password", password)];
        given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect::<Map<_, _>>().into()
    })
}

/// Returns whether an action changes settings of agents, which has a privilege of its own.
pub fn is_settings(action: &NewAction) -> bool {
    action.kind == ActionType::Settings.as_str()
}

/// Converts an action of any type, by its wire name. Times are RFC 3339; the expiration can also be a duration from
/// `now`.
pub fn any(action: NewAction, now: Timestamp) -> Result<ActionRequest, Error> {
    // Parsed here and not in the body's type, so that the error names the field and the value.
    let kind: ActionType = serde_json::from_value(Value::String(action.kind.clone()))
        .map_err(|_| Error::invalid("action.type", format!("unknown action type {:?}", action.kind)))?;
    let mut request = ActionRequest::new(kind, action.data.unwrap_or_default());
    request.input_type = action.input_type.unwrap_or_default();
    request.timeout = action.timeout;
    request.expiration =
        action.expiration.as_deref().map(|text| parse_end("action.expiration", text, now)).transpose()?;
    request.start_time = action.start_time.as_deref().map(|text| parse_time("action.start_time", text)).transpose()?;
    Ok(request)
}
