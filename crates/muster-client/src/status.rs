//! The server itself.

use muster_protocol::management::ServerStatus;
use reqwest::Method;

use crate::{Client, Result};

impl Client {
    /// `GET /api/status`: whether the server is there, and what API level it speaks.
    pub async fn server_status(&self) -> Result<ServerStatus> {
        let url = self.path(["api", "status"])?;
        self.answer(self.request(Method::GET, url)).await
    }
}
