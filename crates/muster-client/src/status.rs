//! Status of the server.

use muster_protocol::management::ServerStatus;
use reqwest::Method;

use crate::{Client, Result};

impl Client {
    /// Returns the server's status and version (`GET /api/status`).
    pub async fn server_status(&self) -> Result<ServerStatus> {
        let url = self.path(["api", "status"])?;
        self.answer(self.request(Method::GET, url)).await
    }
}
