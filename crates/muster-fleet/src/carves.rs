//! The service of carves: what osqueryd uploads, and what people download (FL §1.9).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use muster_core::authorization::{CarvesDownload, Grant, OpContext};
use muster_core::carve::{Announced, Carve, CarveState, KEPT, MAX_ID};
use muster_core::credential::{ApiKey, SecretHash};
use muster_core::denial::Denial;
use muster_core::entropy::random_uuid;
use muster_core::id::{AgentId, FileId, HostId};
use muster_core::time::Clock;
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::{CarveWrite, FileWrite, Precondition, StoreError, Write};
use serde_json::json;
use tokio::sync::mpsc;

use super::audit::{audit_line, commit_disclosure};
use super::authority::{Authorized, System};
use super::files::{Slice, send};
use super::registry::AgentEntry;
use super::removed_files::remove_chunks;
use super::upload_limits::UploadLimits;
use super::watched_store::WatchedStore;

/// Maximum number of carves in a list.
pub const MAX_LISTED: u32 = 1_000;

/// A carve whose block has been authenticated by its session.
#[derive(Clone, Debug)]
pub struct OpenCarve(Carve);

impl OpenCarve {
    /// Returns the agent that began it.
    pub fn agent(&self) -> &AgentId {
        &self.0.agent
    }

    /// Returns whether the carve is one of this agent.
    pub fn is_of(&self, entry: &AgentEntry) -> bool {
        self.0.agent == *entry.id()
    }
}

/// The service of carves.
pub struct Carves {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Carves {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { store, clock, entropy }
    }

    /// Begins a carve, and ends the one that the agent has in progress. Returns the session id.
    pub async fn begin(
        &self,
        entry: &AgentEntry,
        announced: Announced,
        limits: &UploadLimits,
    ) -> Result<ApiKey, Error> {
        let record = entry.record().ok_or_else(super::authenticate::unauthorized)?;
        if limits.max_bytes == 0 {
            return Err(Denial::UploadsDisabled.into());
        }
        announced.check(limits.max_bytes)?;
        // The announced size is checked before the first block, so that a carve that cannot fit costs no transfer.
        limits.check_room(self.store.free_bytes(), announced.size)?;
        let (now, session) = (self.clock.now(), ApiKey::generate_opaque(&*self.entropy));
        let carve = Carve {
            id: FileId::trusted(random_uuid(&*self.entropy)),
            space: record.space.clone(),
            agent: entry.id().clone(),
            host: record.host_id.clone(),
            hostname: record.hostname.clone(),
            announced,
            session: session.hash(),
            blocks: 0,
            is_compressed: false,
            state: CarveState::Receiving,
            error: None,
            began_at: now,
            ended_at: None,
            expires_at: now.plus(KEPT),
        };
        let begin = CarveWrite::Begin { carve: Box::new(carve), max_bytes: limits.max_bytes_per_agent };
        match self.store.commit(entry, vec![begin.into()]).await {
            Ok(_) => {
                // Those of the carve that this one replaces.
                remove_chunks(&self.store).await;
                Ok(session)
            }
            // The total of the agent is checked by the write: two carves that begin at the same time must not both
            // fit.
            Err(StoreError::Conflict(Precondition::OverLimit(_))) => Err(too_much()),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds the carve of a session, if the query is the one that it began with.
    pub async fn of_session(&self, session: &str, request: &str) -> Result<Option<OpenCarve>, Error> {
        // Before the hash: the text comes from a client that is not authenticated yet.
        if session.is_empty() || session.len() > MAX_ID {
            return Ok(None);
        }
        // The session ids are random, so a look-up by their hash tells nothing by its duration.
        let hash = SecretHash::of(session.as_bytes());
        let found = self.store.everywhere(&System).carve_of_session(&hash).await?;
        Ok(found.filter(|carve| carve.announced.request_id == request).map(OpenCarve))
    }

    /// Stores the next block. The caller ends the carve with [`Self::fail`] if it is refused.
    pub async fn take_block(
        &self,
        OpenCarve(carve): &OpenCarve,
        number: u64,
        data: Vec<u8>,
        limits: &UploadLimits,
    ) -> Result<(), Error> {
        let refused = |reason| Error::new(ErrorKind::Invalid, "bad_block", reason);
        let taken = carve.take(number, &data).map_err(refused)?;
        // Again for each block: the disk may have filled up since the carve began.
        limits.check_room(self.store.free_bytes(), data.len() as u64)?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, &data).as_ref());
        let (id, now) = (&carve.id, self.clock.now());
        // The block and the counter of blocks are one transaction, so a repeated block is never stored twice.
        let put = FileWrite::PutChunk { file: id.clone(), number: stored(number), sha256, data };
        let mut writes: Vec<Write> =
            vec![CarveWrite::Block { id: id.clone(), number, is_compressed: taken.is_compressed }.into(), put.into()];
        if taken.is_last {
            writes.push(CarveWrite::Complete { id: id.clone(), now, expires_at: now.plus(KEPT) }.into());
        }
        match self.store.commit(&System, writes).await {
            Ok(_) => Ok(()),
            // Another server has taken the block, or the carve has ended meanwhile.
            Err(StoreError::Conflict(_)) => Err(refused(format!("block {number} was not expected now"))),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends a carve because of a refused block. One that has ended stays as it is.
    pub async fn fail(&self, OpenCarve(carve): &OpenCarve, reason: &str) -> Result<(), Error> {
        let fail = CarveWrite::Fail { id: carve.id.clone(), reason: reason.to_owned(), now: self.clock.now() };
        self.store.commit(&System, vec![fail.into()]).await?;
        remove_chunks(&self.store).await;
        Ok(())
    }

    /// Returns the newest carves of a host.
    pub async fn of_host(&self, grant: &Grant<CarvesDownload>, host: &HostId) -> Result<Vec<Carve>, Error> {
        let mut found = self.list(grant).await?;
        found.retain(|carve| carve.host.as_ref() == Some(host));
        Ok(found)
    }

    /// Returns the newest carves of the space.
    pub async fn list(&self, grant: &Grant<CarvesDownload>) -> Result<Vec<Carve>, Error> {
        Ok(self.store.seen_by(grant).carves(MAX_LISTED).await?)
    }

    /// Finds a carve.
    pub async fn find(&self, context: &OpContext, id: &str) -> Result<Authorized<Carve, CarvesDownload>, Error> {
        let grant = context.grant::<CarvesDownload>()?;
        let found = match FileId::parse(id) {
            Ok(id) => self.store.seen_by(&grant).carve(&id).await?,
            Err(_) => None,
        };
        Ok(Authorized::new(found.ok_or_else(|| Error::not_found("carve", id))?, grant))
    }

    /// Returns a stream of the bytes of a complete archive; the download is an audit event.
    pub async fn download(&self, carve: &Authorized<Carve, CarvesDownload>) -> Result<mpsc::Receiver<Bytes>, Error> {
        if carve.state != CarveState::Complete {
            let message = format!("the carve is not complete: {}", carve.state.as_str());
            return Err(Error::conflict("carve_not_complete", message));
        }
        commit_disclosure(&self.store, carve.grant(), vec![self.line(carve, "carve.download")]).await?;
        let (count, record) = (carve.announced.block_count, (**carve).clone());
        let slice = move |number| Slice {
            number: stored(number),
            start: 0,
            end: usize::try_from(record.length_of(number)).unwrap_or(0),
        };
        // One piece of buffer: a slow reader must slow down the reads, not fill the memory.
        let (sender, receiver) = mpsc::channel(1);
        let slices = (0..count).map(slice);
        tokio::spawn(send(self.store.share_files(), carve.id.clone(), slices, sender, ()));
        Ok(receiver)
    }

    /// Deletes a carve and its bytes.
    pub async fn delete(&self, carve: &Authorized<Carve, CarvesDownload>) -> Result<(), Error> {
        let delete = CarveWrite::Delete { id: carve.id.clone() };
        self.store.commit(carve.grant(), vec![delete.into(), self.line(carve, "carve.delete")]).await?;
        remove_chunks(&self.store).await;
        Ok(())
    }

    fn line(&self, carve: &Authorized<Carve, CarvesDownload>, action: &str) -> Write {
        let detail = json!({"agent": carve.agent, "hostname": carve.hostname, "size": carve.announced.size, "query": carve.query()});
        audit_line(carve.grant().origin(), self.clock.now(), action, format_args!("carve:{}", carve.id), detail)
    }
}

/// Returns the number of a block as it is stored. There are far fewer.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn too_much() -> Error {
    Denial::UploadTooLarge.because("the archives of this host would exceed the limit: delete older carves")
}
