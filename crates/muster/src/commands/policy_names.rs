//! Names of policies, for tables whose rows contain ids.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use muster_client::{Client, Failure};
use muster_protocol::management::agent_policy::BulkGet;
use serde::{Serialize, Serializer};

use super::failure::Failed;
use super::listing::{Format, or_dash};

/// Policies per request.
const AT_ONCE: usize = 500;

/// An item with the name of its policy. Serializes as the item alone.
pub struct Named<T> {
    item: T,
    policy: Option<String>,
}

impl<T> Deref for Named<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.item.serialize(serializer)
    }
}

impl<T> Named<T> {
    /// Returns the policy's name, its id if the policy was deleted, or a dash.
    pub fn policy(&self) -> String {
        or_dash(self.policy.as_deref())
    }
}

/// Adds the names of policies, if the format prints them.
pub async fn with_policy_names<T>(
    client: &Client,
    format: Format,
    items: Vec<T>,
    policy: impl Fn(&T) -> Option<&str>,
) -> Result<Vec<Named<T>>, Failed> {
    // Formats for programs contain only the fields of the API, which saves the request for the names.
    let wanted: HashSet<String> = match format {
        Format::Table | Format::Wide | Format::Csv => items.iter().filter_map(&policy).map(str::to_owned).collect(),
        Format::Json | Format::Yaml | Format::Name => HashSet::new(),
    };
    let names = names(client, &wanted).await?;
    let named = |item: T| {
        // A policy that was deleted in the meantime is shown by its id.
        let policy = policy(&item).map(|id| names.get(id).map_or(id, String::as_str).to_owned());
        Named { item, policy }
    };
    Ok(items.into_iter().map(named).collect())
}

/// Adds the name of the policy to one item.
pub async fn with_policy_name<T>(
    client: &Client,
    format: Format,
    item: T,
    policy: impl Fn(&T) -> Option<&str>,
) -> Result<Named<T>, Failed> {
    let mut named = with_policy_names(client, format, vec![item], policy).await?;
    named.pop().ok_or_else(|| Failed::new("internal error: an item is missing"))
}

async fn names(client: &Client, wanted: &HashSet<String>) -> Result<HashMap<String, String>, Failed> {
    let mut names = HashMap::new();
    let ids: Vec<String> = wanted.iter().cloned().collect();
    for some in ids.chunks(AT_ONCE) {
        let request = BulkGet { ids: some.to_vec(), ignore_missing: Some(true), ..BulkGet::default() };
        match client.agent_policies_of(&request).await {
            Ok(found) => names.extend(found.into_iter().map(|policy| (policy.id, policy.name))),
            // Whoever may read agents only sees the ids of their policies.
            Err(error) if error.failure() == Failure::Refused => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(names)
}
