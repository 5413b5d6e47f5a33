//! Installers, and runs that install and uninstall software on hosts.

use muster_protocol::management::host_run::ListRunHosts;
use muster_protocol::management::install::{
    CreateInstall, CreateInstaller, HostInstalls, InstallOfHost, InstallRun, Installer,
};
use muster_protocol::management::{Empty, Item, Items};
use reqwest::Method;

use crate::transport::DRY_RUN;
use crate::{Client, Result};

const INSTALLERS: [&str; 2] = ["software", "installers"];
const INSTALLS: [&str; 2] = ["software", "installs"];

impl Client {
    /// Creates an installer without its package. A dry run only checks.
    pub async fn create_installer(&self, new: &CreateInstaller, dry_run: bool) -> Result<Installer> {
        let request = self.request(Method::POST, self.v1_url(&INSTALLERS)?).json(new);
        let request = if dry_run { request.query(&DRY_RUN) } else { request };
        Ok(self.answer::<Item<_>>(request).await?.item)
    }

    /// Uploads a block of a package.
    pub async fn upload_block(&self, id: &str, number: u64, data: Vec<u8>) -> Result<()> {
        let url = self.v1_url(&["software", "installers", id, "blocks", &number.to_string()])?;
        let request = self.request(Method::PUT, url).header("content-type", "application/octet-stream");
        self.answer::<Empty>(request.body(data)).await.map(drop)
    }

    /// Completes the upload of a package.
    pub async fn complete_installer(&self, id: &str) -> Result<Installer> {
        self.v1_item(Method::POST, &["software", "installers", id, "complete"], &Empty {}).await
    }

    /// Returns the installers by name, without their scripts.
    pub async fn installers(&self) -> Result<Vec<Installer>> {
        Ok(self.v1_get::<Items<_>>(&INSTALLERS, &()).await?.items)
    }

    /// Returns an installer, by id or name.
    pub async fn installer(&self, named: &str) -> Result<Installer> {
        Ok(self.v1_get::<Item<_>>(&["software", "installers", named], &()).await?.item)
    }

    /// Deletes an installer. A dry run only checks.
    pub async fn delete_installer(&self, id: &str, dry_run: bool) -> Result<()> {
        self.v1_delete(&["software", "installers", id], dry_run).await
    }

    /// Installs or uninstalls software. A dry run returns what would be created.
    pub async fn create_install(&self, new: &CreateInstall, dry_run: bool) -> Result<InstallRun> {
        let request = self.request(Method::POST, self.v1_url(&INSTALLS)?).json(new);
        let request = if dry_run { request.query(&DRY_RUN) } else { request };
        Ok(self.answer::<Item<_>>(request).await?.item)
    }

    /// Returns the runs, newest first.
    pub async fn installs(&self) -> Result<Vec<InstallRun>> {
        Ok(self.v1_get::<Items<_>>(&INSTALLS, &()).await?.items)
    }

    /// Returns a run.
    pub async fn install(&self, id: &str) -> Result<InstallRun> {
        Ok(self.v1_get::<Item<_>>(&["software", "installs", id], &()).await?.item)
    }

    /// Returns hosts of a run.
    pub async fn install_hosts(&self, id: &str, page: &ListRunHosts) -> Result<HostInstalls> {
        self.v1_get(&["software", "installs", id, "hosts"], page).await
    }

    /// Stops a run.
    pub async fn stop_install(&self, id: &str) -> Result<InstallRun> {
        self.v1_item(Method::POST, &["software", "installs", id, "stop"], &Empty {}).await
    }

    /// Returns the newest runs on a host, newest first.
    pub async fn installs_of_host(&self, host: &str) -> Result<Vec<InstallOfHost>> {
        Ok(self.get::<Items<_>>(&["hosts", host, "installs"]).await?.items)
    }
}
