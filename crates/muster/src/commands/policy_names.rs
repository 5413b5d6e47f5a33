//! Names of policies for tables whose rows hold ids.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use muster_client::Client;
use muster_protocol::management::agent_policy::ListAgentPolicies;
use serde::{Serialize, Serializer};

use super::failure::Failed;
use super::find::{MOST_ROWS, if_there};
use super::listing::{Format, or_dash};

/// Up to this many policies are read one by one.
const FEW: usize = 3;
/// Policies per request.
const PER_PAGE: u32 = 1000;

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

/// Adds the names of policies, for formats that show them.
pub async fn with_policy_names<T>(
    client: &Client,
    format: Format,
    items: Vec<T>,
    policy: impl Fn(&T) -> Option<&str>,
) -> Result<Vec<Named<T>>, Failed> {
    let wanted: HashSet<String> = match format {
        Format::Table | Format::Wide => items.iter().filter_map(&policy).map(str::to_owned).collect(),
        Format::Json | Format::Yaml | Format::Name => HashSet::new(),
    };
    let names = names(client, &wanted).await?;
    let named = |item: T| {
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
    if wanted.len() <= FEW {
        for id in wanted {
            if let Some(policy) = if_there(client.agent_policy(id).await)? {
                names.insert(policy.id, policy.name);
            }
        }
        return Ok(names);
    }
    for page in 1..=MOST_ROWS / PER_PAGE {
        let query = ListAgentPolicies { page: Some(page), per_page: Some(PER_PAGE), ..ListAgentPolicies::default() };
        let listed = client.agent_policies(&query).await?.items;
        let last = listed.len() < PER_PAGE as usize;
        names.extend(listed.into_iter().map(|policy| (policy.id, policy.name)));
        if last {
            break;
        }
    }
    Ok(names)
}
