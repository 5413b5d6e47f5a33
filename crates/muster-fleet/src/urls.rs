//! The URLs at which agents reach the fleet: one list for all servers, in the settings.
//!
//! They are compiled into policies, so two servers with lists of their own would revise every policy back and forth. A
//! server that was started with `external_url` sets the list; every other server uses it. Until one does, the first server
//! derives a URL from its own address.

use std::sync::Arc;

use muster_core::Error;
use muster_core::change::Change;
use muster_core::error_chain::SharedError;
use muster_core::id::NodeId;
use muster_core::time::Clock;
use muster_store::{SettingWrite, StoreError, Write};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use super::FleetSettings;
use super::audit::audit_line;
use super::authority::System;
use super::policies::Turn;
use super::watched_store::WatchedStore;

/// The setting that holds the list.
pub(crate) const SETTING: &str = "external_urls";
/// Maximum attempts to set the list while other servers set it, too.
const ATTEMPTS: usize = 10;

/// The stored list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    urls: Vec<String>,
    source: Source,
}

/// Where the list came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    /// The key `external_url` of some server.
    Configured,
    /// The address of the server with this node id. Only that server follows a change of its address.
    Derived(String),
}

/// What a server knows of its own URLs when it starts.
#[derive(Clone, Debug, Default)]
pub struct OwnUrls {
    /// The key `external_url`; empty if it is not set.
    pub configured: Vec<String>,
    /// Derived from the listener's address, for a fleet without `external_url`.
    pub derived: Option<String>,
}

impl OwnUrls {
    fn list(&self) -> Vec<String> {
        match &self.derived {
            Some(derived) if self.configured.is_empty() => vec![derived.clone()],
            _ => self.configured.clone(),
        }
    }

    /// Returns the list to store in place of `found`; `None` if that stays.
    fn replacing(&self, found: Option<&Stored>, node: &NodeId) -> Option<Stored> {
        let next = if !self.configured.is_empty() {
            Stored { urls: self.configured.clone(), source: Source::Configured }
        } else {
            let source = Source::Derived(node.as_str().to_owned());
            // A list that somebody configured, or another server derived, is left alone.
            if found.is_some_and(|found| found.source != source) {
                return None;
            }
            Stored { urls: vec![self.derived.clone()?], source }
        };
        (found != Some(&next)).then_some(next)
    }
}

/// The service of the fleet's URLs.
pub struct ServerUrls {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    own: OwnUrls,
    node: NodeId,
    current: watch::Sender<Vec<String>>,
}

impl ServerUrls {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, settings: &FleetSettings) -> Self {
        let own = settings.urls.clone();
        let node = store.everywhere(&System).this_node().borrow().node.clone();
        Self { store, clock, current: watch::Sender::new(own.list()), own, node }
    }

    /// Follows the list.
    pub fn watch(&self) -> watch::Receiver<Vec<String>> {
        self.current.subscribe()
    }

    /// Returns the first URL, as this server knows it.
    pub fn first(&self) -> Option<String> {
        self.current.borrow().first().cloned()
    }

    /// Sets the list from the configuration of this start, or adopts the one that is stored. Returns whether agents must be
    /// told another URL than before. To be called at startup, before policies are revised.
    pub async fn settle(&self) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            // First, because the commit must not pass a policy change that was compiled with the former list.
            let turn = Turn::begin(&self.store).await?;
            let text = self.store.everywhere(&System).setting(SETTING).await?;
            let found = text.as_deref().map(parse).transpose()?;
            let Some(next) = self.own.replacing(found.as_ref(), &self.node) else {
                self.adopt(found);
                return Ok(false);
            };
            let has_new_urls = found.as_ref().is_none_or(|found| found.urls != next.urls);
            match self.store.commit(&System, self.writes(&turn, text, found, &next)?).await {
                Ok(_) => {
                    self.adopt(Some(next));
                    return Ok(has_new_urls);
                }
                // Another server set the list, or changed a policy, in between.
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::conflict("external_urls", "other servers set external_url at the same time"))
    }

    fn writes(
        &self,
        turn: &Turn,
        text: Option<String>,
        found: Option<Stored>,
        next: &Stored,
    ) -> Result<Vec<Write>, Error> {
        let value = serde_json::to_string(next).map_err(Error::internal)?;
        let mut writes = vec![
            // With the turn, so that no policy is compiled with the former list at the same time.
            turn.write(),
            SettingWrite::Swap { name: SETTING.into(), before: text, value }.into(),
            Write::Changed(Change::Setting(SETTING.into())),
        ];
        if let Some(found) = found {
            let (before, after) = (found.urls.join(" "), next.urls.join(" "));
            tracing::warn!(before, after, "changing the external URLs of the fleet");
            let detail = json!({"before": found.urls, "after": next.urls});
            let line =
                audit_line(&System::ORIGIN, self.clock.now(), "server.external_url", "setting:external_url", detail);
            writes.push(line);
        }
        Ok(writes)
    }

    /// Reads the list from the store.
    pub(crate) async fn read(&self) -> Result<Vec<String>, Error> {
        let text = self.store.everywhere(&System).setting(SETTING).await?;
        let found = text.as_deref().map(parse).transpose()?;
        Ok(found.map_or_else(|| self.own.list(), |found| found.urls))
    }

    /// Reads the list again after another server has changed it.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        self.publish(self.read().await?);
        Ok(())
    }

    fn adopt(&self, stored: Option<Stored>) {
        let Some(Stored { urls, source }) = stored else { return };
        if let Source::Derived(node) = &source
            && *node != *self.node.as_str()
        {
            tracing::warn!(
                urls = urls.join(" "),
                hint = "set external_url to the address of the load balancer",
                "policies contain only the address of another server"
            );
        }
        self.publish(urls);
    }

    fn publish(&self, urls: Vec<String>) {
        // Only a difference wakes those who watch: they revise policies.
        self.current.send_if_modified(|current| {
            let is_new = *current != urls;
            *current = urls;
            is_new
        });
    }
}

fn parse(text: &str) -> Result<Stored, Error> {
    serde_json::from_str(text).map_err(|error| Error::internal(SharedError::during("setting external_urls", error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(configured: &[&str], derived: &str) -> OwnUrls {
        let configured = configured.iter().map(|url| (*url).to_owned()).collect();
        OwnUrls { configured, derived: Some(derived.to_owned()) }
    }

    fn stored(url: &str, source: Source) -> Stored {
        Stored { urls: vec![url.to_owned()], source }
    }

    #[test]
    fn configured_urls_replace_and_derived_ones_only_follow_their_own_server() {
        let (a, b) = (NodeId::trusted("a"), NodeId::trusted("b"));
        let of_a = |url| stored(url, Source::Derived("a".into()));
        let given = |url| stored(url, Source::Configured);
        assert_eq!(own(&[], "https://a:1").replacing(None, &a), Some(of_a("https://a:1")));
        assert_eq!(own(&[], "https://a:1").replacing(Some(&of_a("https://a:1")), &a), None);
        assert_eq!(own(&[], "https://a:2").replacing(Some(&of_a("https://a:1")), &a), Some(of_a("https://a:2")));
        assert_eq!(own(&[], "https://b:1").replacing(Some(&of_a("https://a:1")), &b), None);
        let balancer = own(&["https://lb:1"], "https://b:1");
        assert_eq!(balancer.replacing(Some(&of_a("https://a:1")), &b), Some(given("https://lb:1")));
        assert_eq!(balancer.replacing(Some(&given("https://lb:1")), &a), None);
        assert_eq!(own(&[], "https://a:1").replacing(Some(&given("https://lb:1")), &a), None);
    }
}
