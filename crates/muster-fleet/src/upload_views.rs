//! Read access to uploads for administrators: diagnostics bundles, and pending requests for them.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use muster_core::Error;
use muster_core::action::{Action, ActionType, TargetState};
use muster_core::agent::AgentRecord;
use muster_core::authorization::{DiagnosticsDownload, OpContext, Privilege};
use muster_core::file::{DeliverableFile, FileStatus, Upload};
use muster_core::id::{ActionId, AgentId, FileId};
use muster_core::time::Timestamp;
use muster_store::query::{ActionFilter, Page};
use muster_store::{FileWrite, Write};
use serde_json::json;
use tokio::sync::mpsc;

use super::audit::{audit_line, commit_disclosure};
use super::authority::Authorized;
use super::files::{Files, Piece};
use super::scope::Scoped;

/// Maximum actions of one agent that are searched, newest first.
const MAX_SCANNED: u32 = 1000;
/// Time for which a request without a file is listed (MG §5.6).
const SHOWN_FOR: Duration = Duration::from_secs(89 * 86_400);

/// State of an upload or of the request for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// The file is complete.
    Ready,
    /// The upload has started.
    AwaitingUpload,
    /// It was requested.
    InProgress,
    /// The file was deleted.
    Deleted,
    /// The request expired without a result.
    Expired,
    /// It failed, with the reason.
    Failed(String),
}

/// An upload, or the request for one.
#[derive(Clone, Debug)]
pub struct UploadView {
    /// The action that requested it.
    pub action_id: ActionId,
    /// Time of the request; of the start, if the request is unknown.
    pub at: Timestamp,
    /// The upload, once started.
    pub upload: Option<Upload>,
    /// Its state.
    pub state: UploadState,
}

impl Files {
    /// Returns an agent's uploads and pending requests, newest first.
    pub async fn uploads_of(
        &self,
        agent: &Authorized<AgentRecord, DiagnosticsDownload>,
    ) -> Result<Vec<UploadView>, Error> {
        let seen = self.store.seen_by(agent.grant());
        let uploads = seen.uploads(agent).await?;
        // An action has at most one upload per agent that counts; a later one replaces a failed one.
        let mut by_action: HashMap<ActionId, Upload> =
            uploads.into_iter().map(|upload| (upload.action_id.clone(), upload)).collect();
        let mut views = Vec::new();
        for action in diagnostics_of(seen, &agent.id).await? {
            let upload = by_action.remove(&action.id);
            views.extend(self.requested(seen, &agent.id, action, upload).await?);
        }
        // Uploads whose action was deleted or is beyond the search limit, or that no action of this server requested.
        views.extend(by_action.into_values().map(|upload| UploadView {
            action_id: upload.action_id.clone(),
            at: upload.started_at,
            state: file_state(upload.status),
            upload: Some(upload),
        }));
        views.sort_by_key(|view| std::cmp::Reverse(view.at));
        Ok(views)
    }

    /// Returns a complete upload and a stream of its bytes; the download is an audit event.
    pub async fn download(
        &self,
        upload: Authorized<Upload, DiagnosticsDownload>,
    ) -> Result<(Upload, mpsc::Receiver<Bytes>), Error> {
        let grant = upload.grant().clone();
        let upload = upload.into_inner();
        if upload.status != FileStatus::Ready {
            return Err(Error::not_found("file", &upload.id));
        }
        let detail = json!({"agent": upload.agent_id, "name": upload.name});
        let line = audit_line(grant.origin(), self.clock.now(), "file.download", format!("file:{}", upload.id), detail);
        // A bundle may contain secrets.
        commit_disclosure(&self.store, &grant, vec![line]).await?;
        let length = u64::try_from(upload.size).unwrap_or(0);
        let bytes = self.read_file(&as_file(&upload), Piece { first: 0, length }, ()).await?;
        Ok((upload, bytes))
    }

    /// Deletes an upload's data; its record remains.
    pub async fn delete_upload(&self, upload: Authorized<Upload, DiagnosticsDownload>) -> Result<(), Error> {
        let grant = upload.grant().clone();
        let upload = upload.into_inner();
        let detail = json!({"agent": upload.agent_id, "name": upload.name});
        let line = audit_line(grant.origin(), self.clock.now(), "file.delete", format!("file:{}", upload.id), detail);
        let status = Write::File(FileWrite::UploadStatus {
            id: upload.id,
            status: FileStatus::Deleted,
            transit_hash: upload.transit_hash,
        });
        self.store.commit(&grant, vec![status, line]).await?;
        Ok(())
    }

    /// Finds an upload of an agent in the caller's space.
    pub async fn find_upload<P: Privilege>(
        &self,
        context: &OpContext,
        id: &str,
    ) -> Result<Authorized<Upload, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match FileId::parse(id) {
            Ok(id) => self.store.seen_by(&grant).upload(&id).await?,
            Err(_) => None,
        };
        // A deleted upload is still listed, but there is nothing left to download or delete.
        let upload = found.filter(|upload| upload.status != FileStatus::Deleted);
        Ok(Authorized::new(upload.ok_or_else(|| Error::not_found("file", id))?, grant))
    }

    async fn requested(
        &self,
        seen: Scoped<'_>,
        agent: &AgentId,
        action: Action,
        upload: Option<Upload>,
    ) -> Result<Option<UploadView>, Error> {
        let now = self.clock.now();
        let state = match &upload {
            // An agent that gives up while it uploads says so in its result.
            Some(upload) if upload.status == FileStatus::AwaitingUpload => {
                match state_without_file(seen, agent, &action, now).await? {
                    failed @ UploadState::Failed(_) => failed,
                    _ => UploadState::AwaitingUpload,
                }
            }
            Some(upload) => file_state(upload.status),
            None if now.since(action.created_at) > SHOWN_FOR => return Ok(None),
            None => state_without_file(seen, agent, &action, now).await?,
        };
        Ok(Some(UploadView { action_id: action.id, at: action.created_at, upload, state }))
    }
}

async fn diagnostics_of(seen: Scoped<'_>, agent: &AgentId) -> Result<Vec<Action>, Error> {
    let filter = ActionFilter { agent_id: Some(agent.clone()), ..ActionFilter::default() };
    let found = seen.actions(filter, Page { offset: 0, limit: MAX_SCANNED }).await?.items;
    let wanted = found.into_iter().map(|(action, _)| action);
    Ok(wanted.filter(|action| action.kind == ActionType::RequestDiagnostics).collect())
}

async fn state_without_file(
    seen: Scoped<'_>,
    agent: &AgentId,
    action: &Action,
    now: Timestamp,
) -> Result<UploadState, Error> {
    let target = seen.action_target(action, agent).await?;
    if target.is_some_and(|target| target.state == TargetState::Failed) {
        let results = seen.action_results(action, true, u32::MAX).await?;
        let own = results.into_iter().find(|result| result.agent_id == *agent);
        return Ok(UploadState::Failed(
            own.and_then(|result| result.outcome.message().map(str::to_owned)).unwrap_or_default(),
        ));
    }
    let expired = action.expiration.is_some_and(|end| end <= now);
    Ok(if expired { UploadState::Expired } else { UploadState::InProgress })
}

fn file_state(status: FileStatus) -> UploadState {
    match status {
        FileStatus::Ready => UploadState::Ready,
        FileStatus::AwaitingUpload => UploadState::AwaitingUpload,
        FileStatus::UploadError => UploadState::Failed("the received data does not match the declaration".into()),
        FileStatus::Deleted => UploadState::Deleted,
    }
}

/// Converts an upload for [`Files::read_file`], which uses only its id and size.
fn as_file(upload: &Upload) -> DeliverableFile {
    DeliverableFile {
        id: upload.id.clone(),
        name: upload.name.clone(),
        mime_type: upload.mime_type.clone(),
        size: upload.size,
        sha256: String::new(),
        agents: Vec::new(),
        created_at: upload.started_at,
    }
}
