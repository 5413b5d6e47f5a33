//! Live and saved queries.

use muster_protocol::management::live_query::{ListResults, LiveQuery, LiveQueryResults, RunQuery};
use muster_protocol::management::saved_query::{SaveQuery, SavedQuery};
use muster_protocol::management::{Empty, Item, Items};
use reqwest::Method;

use crate::transport::DRY_RUN;
use crate::{Client, Result};

const RUN: [&str; 2] = ["queries", "run"];

impl Client {
    /// Creates a live query.
    pub async fn run_query(&self, query: &RunQuery) -> Result<LiveQuery> {
        self.v1_item(Method::POST, &RUN, query).await
    }

    /// Returns the live query that [`Self::run_query`] would create.
    pub async fn try_run_query(&self, query: &RunQuery) -> Result<LiveQuery> {
        let request = self.request(Method::POST, self.v1_url(&RUN)?).query(&DRY_RUN).json(query);
        Ok(self.answer::<Item<_>>(request).await?.item)
    }

    /// Returns the live queries, newest first.
    pub async fn live_queries(&self) -> Result<Vec<LiveQuery>> {
        Ok(self.v1_get::<Items<_>>(&RUN, &()).await?.items)
    }

    /// Returns a live query.
    pub async fn live_query(&self, id: &str) -> Result<LiveQuery> {
        Ok(self.v1_get::<Item<_>>(&["queries", "run", id], &()).await?.item)
    }

    /// Returns results of a live query, and its state.
    pub async fn live_query_results(&self, id: &str, page: &ListResults) -> Result<LiveQueryResults> {
        self.v1_get(&["queries", "run", id, "results"], page).await
    }

    /// Stops a live query.
    pub async fn stop_query(&self, id: &str) -> Result<LiveQuery> {
        self.v1_item(Method::POST, &["queries", "run", id, "stop"], &Empty {}).await
    }

    /// Returns the saved queries by name.
    pub async fn saved_queries(&self) -> Result<Vec<SavedQuery>> {
        Ok(self.v1_get::<Items<_>>(&["queries"], &()).await?.items)
    }

    /// Saves a query under a name.
    pub async fn save_query(&self, query: &SaveQuery) -> Result<SavedQuery> {
        self.v1_item(Method::POST, &["queries"], query).await
    }

    /// Deletes a saved query, or only validates that.
    pub async fn delete_saved_query(&self, id: &str, dry_run: bool) -> Result<()> {
        let request = self.request(Method::DELETE, self.v1_url(&["queries", id])?);
        let request = if dry_run { request.query(&DRY_RUN) } else { request };
        self.answer::<Empty>(request).await.map(drop)
    }
}
