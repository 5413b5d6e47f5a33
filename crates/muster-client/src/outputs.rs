//! Outputs.

use muster_protocol::management::output::{DeletedId, Output, OutputHealth, OutputTest};
use muster_protocol::management::{Item, Items};
use serde_json::{Map, Value};

use crate::{Client, Result};

const OUTPUTS: &str = "outputs";

impl Client {
    /// Returns a page of outputs, sorted by name.
    pub async fn outputs(&self, page: u32, per_page: u32) -> Result<Items<Output>> {
        self.get_with(&[OUTPUTS], &[("page", page), ("perPage", per_page)]).await
    }

    /// Returns one output.
    pub async fn output(&self, id: &str) -> Result<Output> {
        Ok(self.get::<Item<_>>(&[OUTPUTS, id]).await?.item)
    }

    /// Creates an output; see MG §2.5 for the fields.
    pub async fn create_output(&self, output: &Map<String, Value>) -> Result<Output> {
        Ok(self.post::<Item<_>>(&[OUTPUTS], output).await?.item)
    }

    /// Connects to the Elasticsearch of an output that need not exist; its secrets are plain text.
    pub async fn test_output(&self, output: &Map<String, Value>) -> Result<OutputTest> {
        self.post(&[OUTPUTS, "_test"], output).await
    }

    /// Updates an output.
    pub async fn update_output(&self, id: &str, output: &Map<String, Value>) -> Result<Output> {
        Ok(self.put::<Item<_>>(&[OUTPUTS, id], output).await?.item)
    }

    /// Deletes an output, unless it is the default.
    pub async fn delete_output(&self, id: &str) -> Result<DeletedId> {
        self.delete(&[OUTPUTS, id], &()).await
    }

    /// Returns the health of an output. An output in the `config` of a policy is specified by its name instead of an
    /// id.
    pub async fn output_health(&self, id: &str) -> Result<OutputHealth> {
        self.get(&[OUTPUTS, id, "health"]).await
    }
}
