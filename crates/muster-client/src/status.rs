//! Status of the server.

use muster_protocol::management::ServerStatus;
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::refused::RefusedRequests;
use reqwest::Method;

use crate::{Client, Result};

impl Client {
    /// Returns the server's status and version (`GET /api/status`).
    pub async fn server_status(&self) -> Result<ServerStatus> {
        let url = self.path(["api", "status"])?;
        self.answer(self.request(Method::GET, url)).await
    }

    /// Returns requests of agents that the server recently rejected, newest first.
    pub async fn refused_requests(&self) -> Result<Vec<RefusedRequests>> {
        Ok(self.get::<Whole<RefusedRequests>>(&["refused_requests"]).await?.items)
    }
}
