//! Installers: create, upload block by block, show, delete.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use muster_core::authorization::{Grant, InstallersWrite, OpContext, OsqueryRead, SoftwareInstall};
use muster_core::entropy::random_uuid;
use muster_core::file::ChunkInfo;
use muster_core::fleetd::labels::name_key;
use muster_core::fleetd::platform::Platform;
use muster_core::id::InstallerId;
use muster_core::installer::{Format, Installer, named_in};
use muster_core::{Error, hex};
use muster_store::{FileWrite, InstallerWrite, Precondition, StoreError};
use serde_json::json;

use super::{Installs, unknown_installer};
use crate::audit::audit_line;
use crate::offered_files::sha256;
use crate::removed_files::remove_chunks;
use crate::scope::Scoped;
use crate::upload_limits::UploadLimits;

/// A new installer.
#[derive(Clone, Debug, Default)]
pub struct NewInstaller {
    /// Name of the file, whose extension tells the format.
    pub file_name: String,
    /// Length of the package, bytes.
    pub size: u64,
    /// SHA-256 that the package must have.
    pub sha256: Option<String>,
    /// Name of the software; by default, the one in the name of the file.
    pub name: Option<String>,
    /// Version; by default, the one in the name of the file.
    pub version: Option<String>,
    /// Platform; by default, the one of the format.
    pub platform: Option<String>,
    /// Query that must return rows.
    pub condition: String,
    /// Script that installs; by default, the one of the format.
    pub install_script: Option<String>,
    /// Script that runs after it.
    pub post_install_script: String,
    /// Script that uninstalls; by default, the one of the format, which may have none.
    pub uninstall_script: Option<String>,
}

/// By which right a caller reads installers.
enum Reader {
    Read(Grant<OsqueryRead>),
    Write(Grant<InstallersWrite>),
    /// Without the scripts.
    Install(Grant<SoftwareInstall>),
}

impl Reader {
    fn of(context: &OpContext) -> Result<Self, Error> {
        if let Ok(grant) = context.grant() {
            return Ok(Self::Read(grant));
        }
        match context.grant() {
            Ok(grant) => Ok(Self::Write(grant)),
            Err(_) => Ok(Self::Install(context.grant()?)),
        }
    }
}

impl Installs {
    /// Creates an installer, whose package is uploaded afterwards.
    pub async fn create_installer(
        &self,
        grant: &Grant<InstallersWrite>,
        new: NewInstaller,
    ) -> Result<Installer, Error> {
        let installer = Installer {
            id: InstallerId::trusted(random_uuid(&*self.entropy)),
            space: grant.space().clone(),
            created_by: grant.actor().to_string(),
            created_at: self.clock.now(),
            ..drafted(new)?
        };
        installer.check()?;
        // Before the first block: a package that cannot fit costs no transfer.
        UploadLimits::default().check_room(self.store.free_bytes(), installer.size)?;
        // Hosts run the texts with full privileges. They may contain secrets; their hashes tell which ones they were.
        let hash = |text: &str| hex::encode(&sha256(text.as_bytes()));
        let detail = json!({"name": installer.name, "version": installer.version, "file_name": installer.file_name,
            "size": installer.size, "condition_sha256": hash(&installer.condition),
            "install_script_sha256": hash(&installer.install_script),
            "post_install_script_sha256": hash(&installer.post_install_script),
            "uninstall_script_sha256": hash(&installer.uninstall_script)});
        let subject = format!("installer:{}", installer.id);
        let line = audit_line(grant.origin(), installer.created_at, "installer.create", subject, detail);
        let insert = InstallerWrite::Insert(Box::new(installer.clone()));
        match self.store.commit(grant, vec![insert.into(), line]).await {
            Ok(_) => Ok(installer),
            Err(StoreError::Conflict(Precondition::NameTaken(name))) => {
                let message = format!("there is an installer of {name} for {}", installer.platform.as_str());
                Err(Error::conflict("installer_exists", message).remedy("delete it, or state another version"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stores a block of a package. The same block again changes nothing.
    pub async fn store_block(
        &self,
        grant: &Grant<InstallersWrite>,
        id: &str,
        number: i64,
        data: &Bytes,
    ) -> Result<(), Error> {
        let installer = self.found(self.store.seen_by(grant), id).await?;
        let expected = installer.blocks().find(|(one, _)| *one == number);
        let Some((_, length)) = expected else {
            return Err(Error::invalid("number", format!("the package has {} blocks", installer.blocks().count())));
        };
        if data.len() as u64 != length {
            return Err(Error::invalid("body", format!("the block {number} must have {length} bytes")));
        }
        if number == 0 && !installer.format.matches(data) {
            let reason = format!("the file is not of the format {}", installer.format.as_str());
            return Err(Error::invalid("body", reason));
        }
        // Again for each block: the disk may have filled up since the upload began.
        UploadLimits::default().check_room(self.store.free_bytes(), length)?;
        let put = FileWrite::PutChunk { file: installer.content(), number, sha256: sha256(data), data: data.to_vec() };
        let writes = vec![InstallerWrite::IsUploading(installer.id).into(), put.into()];
        self.store.commit(grant, writes).await.map(drop).map_err(if_complete)
    }

    /// Completes the upload of a package: verifies that all blocks are there, and their hash.
    pub async fn complete_installer(&self, grant: &Grant<InstallersWrite>, id: &str) -> Result<Installer, Error> {
        let installer = self.found(self.store.seen_by(grant), id).await?;
        if installer.uploaded_at.is_some() {
            return Ok(installer);
        }
        let (blocks, sha256) = self.verified(&installer).await?;
        if !installer.sha256.is_empty() && installer.sha256 != sha256 {
            let reason = format!("the package has the SHA-256 {sha256}");
            return Err(Error::invalid("sha256", reason).remedy("upload the package again"));
        }
        let now = self.clock.now();
        let detail = json!({"name": installer.name, "version": installer.version, "sha256": sha256});
        let line = audit_line(grant.origin(), now, "installer.upload", format_args!("installer:{id}"), detail);
        let complete = InstallerWrite::Complete { id: installer.id.clone(), blocks, sha256: sha256.clone(), now };
        self.store.commit(grant, vec![complete.into(), line]).await.map_err(if_complete)?;
        Ok(Installer { sha256, uploaded_at: Some(now), ..installer })
    }

    /// Reads the blocks of an installer that was found with the caller's authority. Fails unless all are there.
    async fn verified(&self, installer: &Installer) -> Result<(Vec<ChunkInfo>, String), Error> {
        let files = self.store.share_files();
        let blocks = files.chunks(&installer.content()).await?;
        let mut hash = Context::new(&SHA256);
        for (number, length) in installer.blocks() {
            // One block in memory at a time.
            let data = files.chunk(&installer.content(), number).await?;
            let Some(data) = data.filter(|data| data.len() as u64 == length) else {
                let message = format!("the block {number} of the package is missing");
                return Err(Error::conflict("installer_not_complete", message));
            };
            hash.update(&data);
        }
        Ok((blocks, hex::encode(hash.finish().as_ref())))
    }

    /// Returns the installers of the space without their conditions and scripts, for those who may read, upload or install them.
    pub async fn installers(&self, context: &OpContext) -> Result<Vec<Installer>, Error> {
        Ok(self.view(&Reader::of(context)?).installers().await?)
    }

    /// Finds an installer by its id, or by a name of which there is one. Those who may only install it get it without its scripts.
    pub async fn installer(&self, context: &OpContext, named: &str) -> Result<Installer, Error> {
        let reader = Reader::of(context)?;
        let found = self.found(self.view(&reader), named).await?;
        Ok(match reader {
            Reader::Read(_) | Reader::Write(_) => found,
            Reader::Install(_) => {
                let [condition, install_script, post_install_script, uninstall_script] = Default::default();
                Installer { condition, install_script, post_install_script, uninstall_script, ..found }
            }
        })
    }

    /// Deletes an installer with its package. Runs that have ended keep their results. Fails while hosts may need it.
    pub async fn delete_installer(&self, grant: &Grant<InstallersWrite>, id: &str) -> Result<(), Error> {
        let found = self.found(self.store.seen_by(grant), id).await?;
        let (now, subject) = (self.clock.now(), format!("installer:{}", found.id));
        let detail = json!({"name": found.name, "version": found.version, "sha256": found.sha256});
        let line = audit_line(grant.origin(), now, "installer.delete", subject, detail);
        let delete = InstallerWrite::Delete { id: found.id, now };
        match self.store.commit(grant, vec![delete.into(), line]).await {
            Ok(_) => {
                remove_chunks(&self.store).await;
                Ok(())
            }
            Err(StoreError::Conflict(Precondition::InUse(_))) => {
                let message = "hosts have yet to install or uninstall this software";
                Err(Error::conflict("installer_in_use", message).remedy("stop the running installs first"))
            }
            Err(StoreError::Conflict(Precondition::Missing(_))) => Err(unknown_installer(id)),
            Err(error) => Err(error.into()),
        }
    }

    fn view<'a>(&'a self, reader: &'a Reader) -> Scoped<'a> {
        match reader {
            Reader::Read(grant) => self.store.seen_by(grant),
            Reader::Write(grant) => self.store.seen_by(grant),
            Reader::Install(grant) => self.store.seen_by(grant),
        }
    }

    async fn found(&self, seen: Scoped<'_>, named: &str) -> Result<Installer, Error> {
        if let Ok(id) = InstallerId::parse(named)
            && let Some(found) = seen.installer(&id).await?
        {
            return Ok(found);
        }
        let key = name_key(named);
        let mut of_name = seen.installers().await?;
        of_name.retain(|one| name_key(&one.name) == key);
        match of_name.as_slice() {
            // Read again: the list lacks the scripts.
            [one] => seen.installer(&one.id).await?.ok_or_else(|| unknown_installer(named)),
            [] => Err(unknown_installer(named)),
            several => {
                let message = format!("{} installers have the name {named:?}", several.len());
                Err(Error::conflict("installer_ambiguous", message).remedy("use the id of one of them"))
            }
        }
    }
}

/// Fills in what follows from the name of the file.
fn drafted(new: NewInstaller) -> Result<Installer, Error> {
    let format = Format::of_file(&new.file_name).ok_or_else(|| {
        let formats = Format::ALL.map(Format::as_str).join(", ");
        Error::invalid("file_name", format!("must end with one of {formats}"))
    })?;
    let platform = match &new.platform {
        Some(name) => {
            let known = Platform::NAMES.join(", ");
            Platform::parse(name).ok_or_else(|| Error::invalid("platform", format!("must be one of {known}")))?
        }
        None => format.platform().ok_or_else(|| Error::invalid("platform", "is required for archives"))?,
    };
    let (name, version) = named_in(&new.file_name);
    let name = new.name.map_or(name, |name| name.trim().to_owned());
    Ok(Installer {
        id: InstallerId::trusted(""),
        space: Default::default(),
        version: new.version.map_or(version, |version| version.trim().to_owned()),
        format,
        platform,
        file_name: new.file_name,
        size: new.size,
        sha256: new.sha256.unwrap_or_default(),
        condition: new.condition,
        install_script: new.install_script.unwrap_or_else(|| format.default_install().to_owned()),
        post_install_script: new.post_install_script,
        uninstall_script: new.uninstall_script.unwrap_or_else(|| format.default_uninstall(&name)),
        created_by: String::new(),
        created_at: muster_core::Timestamp::default(),
        uploaded_at: None,
        name,
    })
}

fn if_complete(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::Changed(_)) => {
            let message = "the package is complete, or was changed in the meantime";
            Error::conflict("installer_changed", message)
        }
        error => error.into(),
    }
}
