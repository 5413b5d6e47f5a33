//! The service of disk keys: what orbit reports, and what people reveal (FL §2.6).

use std::sync::Arc;

use muster_core::agent::Family;
use muster_core::authorization::{DiskKeysReveal, Grant, OpContext};
use muster_core::change::Change;
use muster_core::disk_key::{ASK_AGAIN, AgentDiskKey, DiskSecret, error_of};
use muster_core::error_chain::SharedError;
use muster_core::fleetd::platform::Platform;
use muster_core::id::{AgentId, HostId};
use muster_core::seal::{Place, Sealer};
use muster_core::time::Clock;
use muster_core::{Entropy, Error, ErrorKind, host};
use muster_store::query::{AgentCondition, AgentFilter, HostRows, Page};
use muster_store::{DiskKeyWrite, LEFT_SPACE, StoreError, Write};
use serde_json::json;

use super::audit::{audit_line, commit_disclosure};
use super::authority::{Authorized, System};
use super::registry::AgentEntry;
use super::shutdown::Shutdown;
use super::waiting::{self, BATCH, Waiting};
use super::watched_store::WatchedStore;

/// The service of disk keys.
pub struct DiskKeys {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    sealer: Arc<Sealer>,
    shutdown: Arc<Shutdown>,
    waiting: Waiting,
}

impl DiskKeys {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        sealer: Arc<Sealer>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { store, clock, entropy, sealer, shutdown, waiting: Waiting::default() }
    }

    /// Stores the key of an orbit's host.
    pub async fn store(&self, entry: &AgentEntry, secret: &DiskSecret) -> Result<(), Error> {
        secret.check()?;
        let text = zeroize::Zeroizing::new(serde_json::to_vec(secret).map_err(Error::internal)?);
        // The agent is authenticated together with the key, so that a row that was moved to another agent does not open.
        let sealed = self.sealer.seal(Place::disk_key(entry.id()), &text, &*self.entropy);
        let sealed = sealed.map_err(|error| Error::internal(SharedError::during("sealing a disk key", error)))?;
        let put = DiskKeyWrite::Put { agent: entry.id().clone(), sealed, now: self.clock.now() };
        self.store.commit(entry, vec![put.into()]).await?;
        Ok(())
    }

    /// Stores the error of an orbit's host. Its key stays (FL64).
    pub async fn store_error(&self, entry: &AgentEntry, client_error: &str) -> Result<(), Error> {
        let (agent, now) = (entry.id().clone(), self.clock.now());
        let error = DiskKeyWrite::Error { agent, error: error_of(client_error), now };
        self.store.commit(entry, vec![error.into()]).await?;
        Ok(())
    }

    /// Returns whether the host must ask its user for the disk passphrase now (FL56): once for a request, and again after a while as
    /// long as it does not answer. Reads the store only if that is possible.
    pub async fn take_escrow(&self, entry: &AgentEntry) -> Result<bool, Error> {
        // Read before the commit, so that a request that comes in meanwhile is not removed below.
        let now = self.clock.now();
        let Some(number) = self.waiting.number_of(entry.id(), now) else { return Ok(false) };
        // The write fails unless a request is due: of several servers, one tells the host.
        let again_at = now.plus(ASK_AGAIN);
        let told = DiskKeyWrite::EscrowTold { agent: entry.id().clone(), now, again_at };
        match self.store.commit(entry, vec![told.into()]).await {
            Ok(_) => {
                // The response may not reach the host, so it stays listed until it has answered.
                self.waiting.postpone(entry.id(), number, again_at);
                return Ok(true);
            }
            Err(StoreError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
        // The host has answered, was told often enough, or was told by another server, which may not live to tell it again.
        let Some(record) = entry.record() else { return Ok(false) };
        let stored = self.store.everywhere(entry).disk_key(entry.id(), &record.space).await?;
        let request = stored.and_then(|key| key.escrow);
        match request.and_then(|request| request.due_at) {
            Some(due_at) => self.waiting.postpone(entry.id(), number, due_at),
            None => self.waiting.remove(entry.id(), number),
        }
        Ok(false)
    }

    /// Returns a number that rises with each request for the passphrase that may be due for an orbit; 0 if there is none. Reads nothing
    /// from the store.
    pub(crate) fn newest_for(&self, orbit: &AgentId) -> u64 {
        self.waiting.newest_for(orbit, self.clock.now())
    }

    /// Finds the disk key of a host in the caller's scope, by the id of the host or its hardware UUID. The key of a host that has enrolled
    /// in another space is found by the UUID: it stays with the space to which it was reported.
    pub async fn find(
        &self,
        context: &OpContext,
        host: &str,
    ) -> Result<Authorized<AgentDiskKey, DiskKeysReveal>, Error> {
        let grant = context.grant::<DiskKeysReveal>()?;
        let agent = self.orbit_of(&grant, host).await?;
        // A host without a key is found, too: a key can be requested from it.
        let key = self.store.seen_by(&grant).disk_key(&agent).await?.unwrap_or_default();
        Ok(Authorized::new(AgentDiskKey { agent, key }, grant))
    }

    async fn orbit_of(&self, grant: &Grant<DiskKeysReveal>, named: &str) -> Result<AgentId, Error> {
        let unknown = || Error::not_found("orbit on the host", named).remedy("enroll orbit on the host");
        let id = HostId::parse(named).map_err(|_| unknown())?;
        let conditions = [AgentCondition::Hosts(vec![id.clone()]), AgentCondition::Families(vec![Family::Orbit])];
        // Filtered by the scope of the grant: a host outside of it is unknown to the caller.
        let seen = self.store.seen_by(grant);
        let found = seen.all_agent_ids(&AgentFilter::all(conditions)).await?.into_iter().next();
        if let Some(agent) = found {
            return Ok(agent);
        }
        // Whoever has an enroll secret of another space can take a host's orbit there. What is left of the host still leads to the key.
        let rest = AgentFilter::all([AgentCondition::Hosts(vec![id])]);
        let rows = HostRows::Page(Page { offset: 0, limit: 1 });
        let here = seen.hosts(&rest, &rows).await?.items.into_iter().next().and_then(|host| host.machine_id);
        let machine = here.or_else(|| host::machine_id(named)).ok_or_else(unknown)?;
        let agent = host::agent_id(Family::Orbit, &machine);
        let is_known = seen.agent(&agent).await?.is_some() || seen.has_left_key(&agent).await?;
        if is_known { Ok(agent) } else { Err(unknown()) }
    }

    /// Returns the key of a host; this is an audit event.
    pub async fn reveal(&self, key: &Authorized<AgentDiskKey, DiskKeysReveal>) -> Result<DiskSecret, Error> {
        let (grant, agent) = (key.grant(), &key.agent);
        let sealed = key
            .key
            .sealed
            .as_ref()
            .ok_or_else(|| Error::not_found("disk key of", agent).remedy("the host has not reported a key"))?;
        let text = self.sealer.open(Place::disk_key(agent), sealed);
        let text = text.map_err(|error| Error::internal(SharedError::during(format!("disk key of {agent}"), error)))?;
        let secret = serde_json::from_slice(&text).map_err(|_| Error::internal("a sealed disk key is not valid"))?;
        let line =
            audit_line(grant.origin(), self.clock.now(), "disk_key.reveal", format_args!("agent:{agent}"), json!({}));
        // The key was read before, and may have been handed over to another space since.
        let is_here = DiskKeyWrite::Holds { agent: agent.clone(), space: grant.space().clone() };
        commit_disclosure(&self.store, grant, vec![is_here.into(), line]).await.map_err(|error| moved(error, agent))?;
        Ok(secret)
    }

    /// Makes a Linux host ask its user for the disk passphrase. The host is told until it answers, at most
    /// [`MAX_ASKED`](muster_core::disk_key::MAX_ASKED) times. Fails for hosts that report another system.
    pub async fn escrow(&self, key: &Authorized<AgentDiskKey, DiskKeysReveal>) -> Result<(), Error> {
        let (grant, agent) = (key.grant(), &key.agent);
        let record = self.store.seen_by(grant).agent(agent).await?;
        // Other systems report their keys by themselves, and ignore the request. A host that has not reported its system may be Linux.
        if let Some(platform) = record.as_ref().and_then(Platform::of).filter(|platform| *platform != Platform::Linux) {
            let message =
                format!("only Linux hosts can ask for the passphrase; this host reports {}", platform.as_str());
            return Err(Error::new(ErrorKind::Invalid, "platform_unsupported", message));
        }
        let line =
            audit_line(grant.origin(), self.clock.now(), "disk_key.escrow", format_args!("agent:{agent}"), json!({}));
        let escrow = DiskKeyWrite::Escrow { agent: agent.clone(), now: self.clock.now() };
        let writes = vec![escrow.into(), Write::Changed(Change::DiskEscrow(agent.clone())), line];
        let committed = self.store.commit(grant, writes).await.map_err(|error| moved(error.into(), agent))?;
        if let Some(change) = committed.last_change {
            self.escrow_changed(agent, change);
        }
        Ok(())
    }

    /// Adds a host that may have a pending request, with the number of the change.
    pub(crate) fn escrow_changed(&self, agent: &AgentId, change: i64) {
        self.waiting.add_for(change, [agent.clone()]);
    }

    /// Reloads the pending requests: at startup, and when changes may have been missed.
    pub(crate) async fn start_over(&self) {
        waiting::insist("disk keys", &self.shutdown, || self.read_waiting()).await;
    }

    async fn read_waiting(&self) -> Result<(), Error> {
        let store = self.store.everywhere(&System);
        let read = |after: Option<AgentId>| async move { store.disk_escrows_due(after.as_ref(), BATCH).await };
        self.waiting.fill(None, read).await
    }
}

/// Returns the error for an agent that has left the space since it was found: the same as if it had left before.
fn moved(error: Error, agent: &AgentId) -> Error {
    if error.code == LEFT_SPACE { Error::not_found("host with orbit", agent) } else { error }
}
