//! The variables of a host: those that the agent knows itself (`host`, `env`, `path`, `agent`, `local`, `local_dynamic`), and
//! those of its [`background`](super::background).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::background::Background;
use super::settings::{Local, ProviderSettings};
use super::used::Used;
use super::{DynamicSet, VariableSets, Variables};
use crate::environment;
use crate::host::variables;
use crate::paths::Layout;
use crate::state::enrollment::Secret;
use crate::version;

/// Interval at which the host is looked at. Its name and its addresses can change.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// The variables of this host.
pub struct HostVariables {
    fixed: VariableSets,
    last: Mutex<Value>,
    // Kept here, because a wait that is given up must not begin anew.
    look_at: Mutex<Instant>,
    background: Background,
}

impl HostVariables {
    /// Creates the providers with these settings.
    pub fn new(layout: &Layout, settings: &ProviderSettings, agent_id: &str) -> Self {
        let fixed = VariableSets { context: context(layout, settings, agent_id), dynamic: dynamic(settings) };
        let look_at = Mutex::new(Instant::now() + LOOK_EVERY);
        let background = Background::new(settings, agent_id);
        Self { fixed, last: Mutex::new(variables::host()), look_at, background }
    }

    async fn host_changed(&self) {
        loop {
            let look_at = *self.look_at.lock().unwrap_or_else(PoisonError::into_inner);
            tokio::time::sleep_until(look_at).await;
            *self.look_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + LOOK_EVERY;
            let now = variables::host();
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if *last != now {
                *last = now;
                return;
            }
        }
    }
}

fn context(layout: &Layout, settings: &ProviderSettings, agent_id: &str) -> Map<String, Value> {
    let visible = |(name, value): (String, String)| {
        let seen = environment::visible(&name, &value)?.into_owned();
        Some((name, seen.into()))
    };
    let env: Map<String, Value> = std::env::vars().filter_map(visible).collect();
    let path = json!({"home": layout.base(), "data": layout.run(), "config": layout.base(), "logs": layout.logs()});
    let agent = json!({"id": agent_id, "version": {"version": version::PROTOCOL_VERSION, "snapshot": false}});
    let providers = [
        ("env", env.into()),
        ("path", path),
        ("agent", agent),
        ("local", settings.local.vars.clone().into()),
        ("runtime", variables::runtime()),
        ("user", json!({"root": nix::unistd::geteuid().is_root()})),
    ];
    providers.map(|(name, values)| (name.to_owned(), values)).into_iter().collect()
}

fn dynamic(settings: &ProviderSettings) -> Vec<DynamicSet> {
    let set = |(place, item): (usize, &Local)| DynamicSet {
        id: format!("local_dynamic-{place}"),
        provider: "local_dynamic".into(),
        values: item.vars.clone().into(),
        processors: Vec::new(),
    };
    settings.local_dynamic.items.iter().enumerate().map(set).collect()
}

#[async_trait]
impl Variables for HostVariables {
    fn sets(&self) -> VariableSets {
        let mut sets = self.fixed.clone();
        let host = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sets.context.insert("host".into(), host);
        self.background.board().add_to(&mut sets);
        sets
    }

    async fn changed(&self) {
        tokio::select! {
            () = self.host_changed() => {}
            () = self.background.board().changed() => {}
        }
    }

    fn observe(&self, used: &Used) {
        self.background.observe(used);
    }

    fn is_ready(&self) -> bool {
        self.background.is_ready()
    }

    async fn ready(&self) {
        self.background.ready().await;
    }

    async fn stop(&self) {
        self.background.stop().await;
    }

    fn faults(&self) -> Vec<String> {
        self.background.board().faults()
    }

    fn secrets(&self) -> Vec<Secret> {
        self.background.secrets()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_has_values() {
        let text = r#"{"local": {"vars": {"a": {"b": 1}}}, "local_dynamic": {"items": [{"vars": {"k": "x"}}, {}]}}"#;
        let settings: ProviderSettings = serde_json::from_str(text).unwrap();
        let sets = HostVariables::new(&Layout::new("/base"), &settings, "agent-1").sets();
        let scope = sets.context();
        for (name, value) in [
            ("local.a.b", json!(1)),
            ("path.home", json!("/base")),
            ("path.logs", json!("/base/logs")),
            ("agent.id", json!("agent-1")),
            ("host.platform", json!("linux")),
            ("PATH", std::env::var("PATH").unwrap().into()),
        ] {
            assert_eq!(scope.get(name), Some(&value), "{name}");
        }
        assert!(!scope.get("host.name").unwrap().as_str().unwrap().is_empty());
        let ids: Vec<_> = sets.scopes().map(|scope| (scope.id(), scope.get("local_dynamic.k").cloned())).collect();
        assert_eq!(ids, [(None, None), (Some("local_dynamic-0"), Some(json!("x"))), (Some("local_dynamic-1"), None)]);
        assert!(sets.context["env"].as_object().unwrap().keys().all(|name| !name.starts_with("MUSTER_")));
    }
}
