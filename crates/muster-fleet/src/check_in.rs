//! The check-in: what it changes, what is due, and the held poll (EA §4).
//!
//! The steps are in the order of the reference (EA §4.2): decide and commit the changes (`report`), look for actions, then
//! for a policy (`due`), then hold the poll (`held_poll`). Counters of the agent's entry replace locks between them.

mod claims;
mod due;
mod held_poll;
mod join;
mod report;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use muster_core::Entropy;
use muster_core::Error;
use muster_core::agent::{AgentRecord, Family};
use muster_core::check_in::Report;
use muster_core::documents::Digest;
use muster_core::host;
use muster_core::poll::PollLimits;
use muster_core::seal::Sealer;
use muster_core::status::{self, Status, stored_interval};
use muster_core::time::Clock;
use muster_core::version::Version;

use self::due::Baseline;
pub use self::due::{Delivery, PolicyDelivery};
pub use self::held_poll::{HeldPoll, Poll};
use super::audit_report::GuardedCommands;
use super::currency::Currency;
use super::members::Members;
use super::output_keys::OutputKeys;
use super::policy_cache::PolicyCache;
use super::records::Records;
use super::registry::{AgentEntry, LastRequest, Registry};
use super::secrets::SealedSecrets;
use super::shutdown::Shutdown;
use super::signing_keys::SigningKeys;
use super::throttle::Throttle;
use super::update::AgentChange;
use super::urls::ServerUrls;
use super::watched_store::WatchedStore;

/// A decoded check-in with the adapter's facts about the request.
#[derive(Debug)]
pub struct CheckInInput<'a> {
    /// What the agent reports.
    pub report: &'a Report<'a>,
    /// Version from the User-Agent, normalized.
    pub agent_version: &'a str,
    /// Whether the version is above the highest one that this server was tested with.
    pub newer_than_tested: bool,
    /// The agent's address.
    pub address: &'a str,
    /// Digest of the request's body and the relevant headers.
    pub digest: Digest,
}

/// A request of an agent whose protocol has no check-ins: each request proves that it is alive, and some report facts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contact<'a> {
    /// Facts about the host and the agent, as JSON text; `None` if the request reports none.
    pub metadata: Option<&'a str>,
    /// The agent's version, if the request tells it.
    pub agent_version: &'a str,
    /// The agent's address.
    pub address: &'a str,
}

/// Time for which another server may have seen an agent last, before this one takes it over. A load balancer may pass each
/// request to another server, which must not cause a write each time.
const MAY_BE_ELSEWHERE: Duration = Duration::from_secs(180);

/// Time in which identifiers that a host claims are recorded once.
const CLAIMS_PERIOD: Duration = Duration::from_secs(12 * 3600);

/// Maximum length of a version, bytes.
const MAX_VERSION: usize = 64;

/// The service of requests after enrollment: check-ins, acks, uninstallation reports.
pub struct CheckIns {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    sealer: Arc<Sealer>,
    pub(super) signing: Arc<SigningKeys>,
    registry: Arc<Registry>,
    pub(super) records: Arc<Records>,
    pub(super) policies: Arc<PolicyCache>,
    pub(super) keys: Arc<OutputKeys>,
    pub(super) secrets: Arc<SealedSecrets>,
    urls: Arc<ServerUrls>,
    currency: Arc<Currency>,
    members: Arc<Members>,
    /// Certificate of the CA that agents must trust, PEM; empty while unknown, or if the platform's CAs suffice.
    pub(super) own_ca: OnceLock<String>,
    limits: PollLimits,
    shutdown: Arc<Shutdown>,
    pub(super) guarded_commands: GuardedCommands,
    /// Limits audit events about identifiers of other hosts.
    claims: Throttle,
}

/// The dependencies of [`CheckIns`].
pub(crate) struct CheckInParts {
    pub(crate) store: Arc<WatchedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) signing: Arc<SigningKeys>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) records: Arc<Records>,
    pub(crate) policies: Arc<PolicyCache>,
    pub(crate) keys: Arc<OutputKeys>,
    pub(crate) secrets: Arc<SealedSecrets>,
    pub(crate) urls: Arc<ServerUrls>,
    pub(crate) currency: Arc<Currency>,
    pub(crate) members: Arc<Members>,
    pub(crate) limits: PollLimits,
    pub(crate) shutdown: Arc<Shutdown>,
}

impl CheckIns {
    pub(crate) fn new(parts: CheckInParts) -> Self {
        Self {
            store: parts.store,
            clock: parts.clock,
            entropy: parts.entropy,
            sealer: parts.sealer,
            signing: parts.signing,
            registry: parts.registry,
            records: parts.records,
            policies: parts.policies,
            keys: parts.keys,
            secrets: parts.secrets,
            urls: parts.urls,
            currency: parts.currency,
            members: parts.members,
            own_ca: OnceLock::new(),
            limits: parts.limits,
            shutdown: parts.shutdown,
            guarded_commands: GuardedCommands::default(),
            claims: Throttle::new(CLAIMS_PERIOD),
        }
    }

    /// Sets the certificate of the CA that agents must trust to reach the server, PEM. Only the first call has an
    /// effect.
    pub fn set_own_ca(&self, pem: &str) {
        self.own_ca.get_or_init(|| pem.to_owned());
    }

    /// Returns the URL that agents use to reach the server.
    pub(super) fn own_url(&self) -> Option<String> {
        self.urls.first()
    }

    /// Handles a check-in that has the same bytes as the last one, from an agent whose record has not changed since. It
    /// needs neither decoding nor a decision. `None`: the caller must decode it and call [`CheckIns::check_in`].
    pub async fn check_in_unchanged(
        self: &Arc<Self>,
        entry: &Arc<AgentEntry>,
        digest: &Digest,
    ) -> Result<Option<Poll>, Error> {
        let Some(last) = entry.same_request(digest) else { return Ok(None) };
        // In any other status a check-in is news by itself: it brings the agent back online.
        let is_settled = |record: &Arc<AgentRecord>| is_settled(record) && self.records.is_own(record);
        let Some(record) = entry.record().filter(is_settled) else { return Ok(None) };
        entry.seen(self.clock.now());
        let baseline = Baseline { policy: record.policy_id.clone(), revision: last.policy_revision, sharer: None };
        self.answer(entry, baseline, last.poll).await.map(Some)
    }

    /// Handles a request of an agent whose protocol has no check-ins. Writes nothing unless the request reports something
    /// new, or the agent comes back.
    pub async fn contact(&self, entry: &Arc<AgentEntry>, contact: Contact<'_>) -> Result<(), Error> {
        let now = self.clock.now();
        entry.seen(now);
        let is_settled = entry.record().is_some_and(|record| {
            let seen = record.last_checkin.unwrap_or(record.enrolled_at);
            let is_near = self.records.is_own(&record) || now.since(seen) < MAY_BE_ELSEWHERE;
            record.last_checkin.is_some() && is_settled(&record) && is_near
        });
        if contact.metadata.is_none() && is_settled {
            return Ok(());
        }
        let report = Report { status: "online", metadata: contact.metadata, ..Report::default() };
        let input = CheckInInput {
            report: &report,
            agent_version: contact.agent_version,
            newer_than_tested: false,
            address: contact.address,
            digest: Digest::default(),
        };
        // Boxed: most requests end above.
        Box::pin(self.take_report(entry, &input)).await.map(drop)
    }

    /// Records how often an agent sends requests by the configuration that it is sent now, seconds (FL19). Writes nothing unless that
    /// changes when it is offline.
    pub async fn configured(&self, entry: &Arc<AgentEntry>, interval: u32) -> Result<(), Error> {
        let contact_interval = stored_interval(interval);
        if entry.record().is_none_or(|record| record.contact_interval == contact_interval) {
            return Ok(());
        }
        let update = self.records.update(&**entry, entry, |record, now| {
            let is_news = record.active && record.contact_interval != contact_interval;
            let after = || AgentRecord { contact_interval, ..(**record).clone() };
            let record = is_news.then(|| status::finish(record, after(), entry.last_seen(now), now));
            Ok(AgentChange { record, writes: Vec::new() })
        });
        // Boxed: most requests end above.
        Box::pin(update).await.map(drop)
    }

    /// Returns the stored metadata of an agent.
    pub async fn stored_metadata(&self, entry: &AgentEntry) -> Result<Option<Arc<str>>, Error> {
        let documents = self.store.everywhere(entry).agent_documents(entry.id()).await?;
        Ok(documents.and_then(|documents| documents.local_metadata))
    }

    /// Records the version of the orbit on the host of an osqueryd, which is the only one that is told it. `machine_ids`: those
    /// under which it may have enrolled.
    pub async fn version_of_orbit(
        &self,
        osquery: &AgentEntry,
        machine_ids: &[String],
        version: &str,
    ) -> Result<(), Error> {
        let Some(host) = osquery.record().and_then(|record| record.host_id.clone()) else { return Ok(()) };
        // As it is shown and compared; other texts are no versions.
        if Version::parse(version).is_none() || version.len() > MAX_VERSION {
            return Ok(());
        }
        for machine in machine_ids {
            let id = host::agent_id(Family::Orbit, machine);
            let Some(orbit) = self.records.loaded(osquery, &id).await? else { continue };
            let update = self.records.update(osquery, &orbit, |record, now| {
                // Another host's orbit is none of this osqueryd's business.
                let is_news = record.host_id.as_ref() == Some(&host) && record.agent_version != version;
                let after = || AgentRecord { agent_version: version.to_owned(), ..(**record).clone() };
                let record = is_news.then(|| status::finish(record, after(), orbit.last_seen(now), now));
                Ok(AgentChange { record, writes: Vec::new() })
            });
            update.await?;
        }
        Ok(())
    }

    /// Handles a check-in. All changes are on disk before the response.
    pub async fn check_in(self: &Arc<Self>, entry: &Arc<AgentEntry>, input: CheckInInput<'_>) -> Result<Poll, Error> {
        // Before any decision, since even a rejected check-in proves that the agent is alive.
        entry.seen(self.clock.now());
        let (record, revision, poll) = self.take_report(entry, &input).await?;
        let (digest, version) = (input.digest, record.version);
        entry.remember_request(LastRequest { digest, version, policy_revision: revision, poll });
        let sharer = match record.duplicate_hosts {
            // Boxed, because few check-ins reach this point, and all would have the size of its state.
            Some(_) => Box::pin(self.sharer(entry, &record, input.report.metadata)).await.map(Box::new),
            None => None,
        };
        self.answer(entry, Baseline { policy: record.policy_id.clone(), revision, sharer }, poll).await
    }
}

/// Returns whether a check-in by itself changes nothing. With duplicate hosts, each check-in may be from another host.
fn is_settled(record: &AgentRecord) -> bool {
    let status = record.status;
    record.duplicate_hosts.is_none()
        && matches!(status, Status::Online | Status::Degraded | Status::Error | Status::Updating | Status::Unenrolling)
}
