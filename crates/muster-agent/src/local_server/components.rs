//! The components of an agent that also runs a server.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::components::{ComponentState, Components, Diagnostics, InputAction, ProxiedAction};
use crate::model::{Component, Model};

/// Adds the server to the components of every policy. A revocation or an unenrollment removes the components of the
/// policy, and not the server.
pub struct WithServer {
    components: Arc<dyn Components>,
    server: Arc<Component>,
}

impl WithServer {
    /// Adds `server` to `components`.
    pub fn new(components: Arc<dyn Components>, server: Arc<Component>) -> Self {
        Self { components, server }
    }
}

#[async_trait]
impl Components for WithServer {
    fn want(&self, mut model: Model) {
        model.retain(|component| component.id != self.server.id);
        model.push(self.server.clone());
        self.components.want(model);
    }

    fn set_signed_policy(&self, signed: Option<Arc<Value>>) {
        self.components.set_signed_policy(signed);
    }

    async fn updated(&self) {
        self.components.updated().await;
    }

    fn states(&self) -> Vec<ComponentState> {
        self.components.states()
    }

    async fn changed(&self) {
        self.components.changed().await;
    }

    async fn settled(&self) {
        self.components.settled().await;
    }

    async fn perform(&self, request: InputAction) -> Result<Value, String> {
        self.components.perform(request).await
    }

    fn proxies(&self, kind: &str) -> bool {
        self.components.proxies(kind)
    }

    async fn proxy(&self, action: ProxiedAction) -> Result<(), String> {
        self.components.proxy(action).await
    }

    async fn diagnostics(&self) -> Vec<Diagnostics> {
        self.components.diagnostics().await
    }

    async fn cleared(&self) {
        self.components.cleared().await;
    }

    async fn halt(&self) {
        self.components.halt().await;
    }
}
