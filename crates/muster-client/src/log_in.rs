//! OpenID providers, and logins of devices.

use muster_protocol::management::envelope::Whole;
use muster_protocol::management::identity::{Token, User};
use muster_protocol::management::log_in::{
    BeginDevice, CreateOidcProvider, DecideDevice, Device, DeviceBegun, LinkUser, OidcProvider, PollDevice,
    UpdateOidcProvider,
};
use muster_protocol::management::{Empty, Item};
use reqwest::Method;

use crate::{Client, Result};

impl Client {
    /// Returns all OpenID providers.
    pub async fn oidc_providers(&self) -> Result<Vec<OidcProvider>> {
        Ok(self.v1_get::<Whole<_>>(&["oidc_providers"], &()).await?.items)
    }

    /// Returns an OpenID provider.
    pub async fn oidc_provider(&self, id: &str) -> Result<OidcProvider> {
        Ok(self.v1_get::<Item<_>>(&["oidc_providers", id], &()).await?.item)
    }

    /// Adds an OpenID provider.
    pub async fn create_oidc_provider(&self, provider: &CreateOidcProvider) -> Result<OidcProvider> {
        self.v1_item(Method::POST, &["oidc_providers"], provider).await
    }

    /// Changes an OpenID provider.
    pub async fn update_oidc_provider(&self, id: &str, change: &UpdateOidcProvider) -> Result<OidcProvider> {
        self.v1_item(Method::PUT, &["oidc_providers", id], change).await
    }

    /// Deletes an OpenID provider, and ends the sessions of its users. A dry run changes nothing.
    pub async fn delete_oidc_provider(&self, id: &str, dry_run: bool) -> Result<()> {
        self.v1_delete(&["oidc_providers", id], dry_run).await
    }

    /// Links a user with a person at an OpenID provider.
    pub async fn link_user(&self, user: &str, identity: &LinkUser) -> Result<User> {
        self.v1_item(Method::PUT, &["users", user, "identity"], identity).await
    }

    /// Removes the link of a user with a person at an OpenID provider.
    pub async fn unlink_user(&self, user: &str) -> Result<User> {
        self.v1_item(Method::DELETE, &["users", user, "identity"], &Empty {}).await
    }

    /// Begins the login of a device. Needs no credentials.
    pub async fn begin_device(&self, device: &BeginDevice) -> Result<DeviceBegun> {
        self.v1_item(Method::POST, &["device", "authorize"], device).await
    }

    /// Polls for the token of a device. Needs no credentials.
    pub async fn poll_device(&self, poll: &PollDevice) -> Result<Token> {
        self.v1_item(Method::POST, &["device", "token"], poll).await
    }

    /// Approves a device: it gets a token of the caller.
    pub async fn approve_device(&self, code: &DecideDevice) -> Result<Device> {
        self.v1_item(Method::POST, &["device", "approve"], code).await
    }

    /// Denies a device.
    pub async fn deny_device(&self, code: &DecideDevice) -> Result<Device> {
        self.v1_item(Method::POST, &["device", "deny"], code).await
    }

    /// Returns the device that shows a code.
    pub async fn device(&self, code: &str) -> Result<Device> {
        Ok(self.v1_get::<Item<_>>(&["device", "codes", code], &()).await?.item)
    }
}
