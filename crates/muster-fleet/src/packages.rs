//! Packages of muster-agent, which every muster-agent may fetch. Agents verify their signatures.

use bytes::Bytes;
use muster_core::authorization::{Grant, PackagesWrite};
use muster_core::file::DeliverableFile;
use muster_core::hex;
use muster_core::id::FileId;
use muster_core::{Error, ErrorKind, package};
use muster_store::{FileWrite, Precondition, StoreError};

use serde_json::json;

use super::audit::audit_line;
use super::authority::System;
use super::files::Files;
use super::offered_files::{length, sha256, with_content};

impl Files {
    /// Stores a file of a package of muster-agent, which every muster-agent may fetch. Its name is its id. The same content
    /// again changes nothing; other content is a conflict, because agents may be downloading the file.
    pub async fn store_package(
        &self,
        grant: &Grant<PackagesWrite>,
        name: &str,
        data: &Bytes,
    ) -> Result<DeliverableFile, Error> {
        if !package::is_package_file(name) {
            let reason = "expected muster-agent-VERSION-OS-ARCH.tar.gz or muster-agent-VERSION-OS-ARCH.manifest.json";
            return Err(Error::invalid("name", reason));
        }
        let (id, now) = (FileId::trusted(name), self.clock.now());
        let file = DeliverableFile {
            id: id.clone(),
            name: name.to_owned(),
            mime_type: "application/octet-stream".to_owned(),
            size: length(data),
            sha256: hex::encode(&sha256(data)),
            agents: Vec::new(),
            created_at: now,
        };
        if let Some(known) = self.store.everywhere(&System).file(&id).await? {
            // Also the repetition of a request whose response was lost.
            if known.sha256 == file.sha256 {
                return Ok(known);
            }
            let message = format!("{name} is already stored with other content");
            return Err(Error::new(ErrorKind::Conflict, "package_exists", message)
                .remedy("if the stored file is wrong, delete it with `muster package delete` first"));
        }
        let detail = json!({"sha256": file.sha256, "size": file.size});
        let line = audit_line(grant.origin(), now, "package.store", format!("package:{name}"), detail);
        self.store.commit(grant, with_content(&file, data, line)).await?;
        Ok(file)
    }

    /// Deletes a file of a package. Agents that are downloading it fail, and retry.
    pub async fn delete_package(&self, grant: &Grant<PackagesWrite>, name: &str) -> Result<(), Error> {
        let id = FileId::trusted(name);
        let is_stored = package::is_package_file(name) && self.store.everywhere(&System).file(&id).await?.is_some();
        if !is_stored {
            return Err(Error::not_found("package", name));
        }
        let now = self.clock.now();
        let line = audit_line(grant.origin(), now, "package.delete", format!("package:{name}"), json!({}));
        match self.store.commit(grant, vec![FileWrite::DeleteFile { id }.into(), line]).await {
            Err(StoreError::Conflict(Precondition::Missing(_))) => Err(Error::not_found("package", name)),
            other => other.map(drop).map_err(Error::from),
        }
    }
}
