//! The check-in: what it changes, what is due, and the held poll (EA §4).
//!
//! The order is the reference's (EA §4.2): decide, write what changed, then look for actions, then for a policy, then
//! hold. A look for actions that found none remembers the agent's generation of orders, and a hold the generation of
//! wake-ups, so that a wake-up between look and hold is never lost (EA72) and the next heartbeat need not look again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use muster_core::Entropy;
use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::audit::AuditEvent;
use muster_core::check_in::{Circumstances, Decision, KnownDocuments, Report, decide};
use muster_core::delivery::{Delivered, deliver, secrets_of};
use muster_core::documents::Digest;
use muster_core::entropy::random_bytes;
use muster_core::id::{ActionId, PolicyId};
use muster_core::policy::render::RenderedPolicy;
use muster_core::poll::{GoDuration, PollLimits};
use muster_core::seal::Sealer;
use muster_core::signing::Signer;
use muster_core::status::Status;
use muster_core::time::{Clock, Timestamp};
use muster_store::{AgentWrite, Write};
use tokio::time::Instant;

use super::authenticate::unauthorized;
use super::authority::System;
use super::policy_cache::{PolicyCache, open_secrets};
use super::records::Records;
use super::registry::{AgentEntry, LastRequest, PollSlot, Registry};
use super::stopping::Stopping;
use super::update::{AgentChange, end_of_upgrade};
use super::watched_store::WatchedStore;

/// Actions in one reply, at most (EA75).
const BATCH: u32 = 100;

/// A policy that was offered this often without being adopted is offered more and more rarely (D11).
const OFFERS_AT_ONCE: u32 = 3;
const FIRST_OFFER_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_OFFER_PAUSE: Duration = Duration::from_secs(300);

/// A check-in as its adapter read it, and what the adapter knows besides.
#[derive(Debug)]
pub struct CheckInInput<'a> {
    /// What the agent reports.
    pub report: &'a Report<'a>,
    /// Version from the User-Agent, normalised.
    pub agent_version: &'a str,
    /// It is above what this server was tested with.
    pub newer_than_tested: bool,
    /// The agent's address.
    pub address: &'a str,
    /// Fingerprint of the request's bytes and of the headers that matter.
    pub digest: Digest,
}

/// What a check-in comes to.
pub enum Poll {
    /// This is due now.
    Due(Delivery),
    /// Nothing is due yet.
    Held(HeldPoll),
}

/// What an agent is answered.
#[derive(Clone)]
pub enum Delivery {
    /// Nothing.
    Nothing,
    /// Nothing, before the poll's time is over: the agent has begun more polls than it may have held.
    Superseded,
    /// Orders, and the token that confirms them.
    Actions {
        /// Presented later, it suppresses these and everything before (EA73).
        ack_token: ActionId,
        /// In the order in which to run them; may be empty when all were of types that are not delivered (EA77).
        actions: Vec<Delivered>,
    },
    /// A policy, alone (EA95).
    Policy(Arc<RenderedPolicy>),
}

/// A held poll: all that is kept of a check-in while nothing is due.
pub struct HeldPoll {
    check_ins: Arc<CheckIns>,
    slot: PollSlot,
    deadline: Instant,
    baseline: Baseline,
    generation: u64,
}

/// The policy and revision that the agent has: its target is due when it is another one.
#[derive(Clone, Debug)]
struct Baseline {
    policy: Option<PolicyId>,
    revision: i64,
}

impl Baseline {
    /// The revision that the agent has of its policy; 0 when it was put on another one meanwhile.
    fn revision_for(&self, record: &AgentRecord) -> i64 {
        if self.policy == record.policy_id { self.revision } else { 0 }
    }
}

enum Due {
    Now(Delivery),
    /// A policy is due, but was offered too often lately.
    Later(Duration),
    Nothing,
}

/// The service of what agents send after enrolment: check-ins, acks, reports that they left.
pub struct CheckIns {
    pub(super) store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    sealer: Arc<Sealer>,
    pub(super) signer: Arc<Signer>,
    registry: Arc<Registry>,
    pub(super) records: Arc<Records>,
    pub(super) policies: Arc<PolicyCache>,
    limits: PollLimits,
    stopping: Arc<Stopping>,
}

/// What [`CheckIns`] stand on.
pub(crate) struct CheckInParts {
    pub(crate) store: Arc<WatchedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) signer: Arc<Signer>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) records: Arc<Records>,
    pub(crate) policies: Arc<PolicyCache>,
    pub(crate) limits: PollLimits,
    pub(crate) stopping: Arc<Stopping>,
}

impl CheckIns {
    pub(crate) fn new(parts: CheckInParts) -> Self {
        let CheckInParts { store, clock, entropy, sealer, signer, registry, records, policies, limits, stopping } =
            parts;
        Self { store, clock, entropy, sealer, signer, registry, records, policies, limits, stopping }
    }

    /// A check-in with the very bytes of the last one, from an agent whose record is still the one that it left:
    /// nothing need be decoded or decided. `None`: decode it and call [`CheckIns::check_in`].
    pub async fn check_in_unchanged(
        self: &Arc<Self>,
        entry: &Arc<AgentEntry>,
        digest: &Digest,
    ) -> Result<Option<Poll>, Error> {
        let Some(last) = entry.same_request(digest) else { return Ok(None) };
        let Some(record) = entry.record().filter(|record| is_settled(record.status)) else { return Ok(None) };
        entry.seen(self.clock.now());
        let baseline = Baseline { policy: record.policy_id.clone(), revision: last.policy_revision };
        self.answer(entry, baseline, last.poll).await.map(Some)
    }

    /// A check-in. Everything it changes is on disk before anything is answered.
    pub async fn check_in(self: &Arc<Self>, entry: &Arc<AgentEntry>, input: CheckInInput<'_>) -> Result<Poll, Error> {
        // Before any decision: even a check-in that is refused afterwards shows that the agent is there.
        entry.seen(self.clock.now());
        let (record, revision, poll) = self.take_report(entry, &input).await?;
        let (digest, version) = (input.digest, record.version);
        entry.remember_request(LastRequest { digest, version, policy_revision: revision, poll });
        self.answer(entry, Baseline { policy: record.policy_id.clone(), revision }, poll).await
    }

    /// Decides and writes what the check-in changes; answers the record after it, the policy revision to compare and
    /// how long the client waits.
    async fn take_report(
        &self,
        entry: &Arc<AgentEntry>,
        input: &CheckInInput<'_>,
    ) -> Result<(Arc<AgentRecord>, i64, Option<GoDuration>), Error> {
        let before = entry.record().ok_or_else(unauthorized)?;
        let mut known = self.known_documents(entry).await?;
        let circumstances = Circumstances {
            agent_version: input.agent_version,
            newer_than_tested: input.newer_than_tested,
            address: input.address,
            polled: entry.is_connected(),
            acknowledged: self.acknowledged(&before, input.report).await?,
            upgrade_action_known: self.upgrade_action_known(input.report).await?,
            newest_revision: self.newest_revision(&before, input.report.running).await?,
        };
        let (mut revision, mut poll, before_known) = (0, None, known);
        let after = self
            .records
            .update(&**entry, entry, |record, now| {
                if !record.active {
                    return Err(unauthorized());
                }
                let decision = decide(record, before_known, input.report, &circumstances, now)?;
                (revision, poll) = (decision.policy_revision, decision.poll_timeout);
                let change = to_change(record, &decision, now);
                known = decision.known;
                Ok(AgentChange { record: decision.record, ..change })
            })
            .await?;
        entry.remember_documents(known);
        Ok((after, revision, poll))
    }

    async fn known_documents(&self, entry: &AgentEntry) -> Result<KnownDocuments, Error> {
        if let Some(known) = entry.known_documents() {
            return Ok(known);
        }
        let documents = self.store.everywhere(entry).agent_documents(entry.id()).await?.unwrap_or_default();
        Ok(KnownDocuments::of(&documents))
    }

    /// The action that the ack token names (EA §4.4). The record's own token needs no look-up.
    async fn acknowledged(&self, record: &AgentRecord, report: &Report<'_>) -> Result<Option<(ActionId, i64)>, Error> {
        let token = report.confirmed;
        // Agents send their last token with every check-in, so this is nearly every one of them.
        if token.is_empty() || record.action_token.as_ref().is_some_and(|own| own.as_str() == token) {
            return Ok(None);
        }
        let Ok(id) = ActionId::parse(token) else { return Ok(None) };
        Ok(self.store.everywhere(&System).action(&id).await?.map(|action| (id, action.seq)))
    }

    async fn upgrade_action_known(&self, report: &Report<'_>) -> Result<bool, Error> {
        match report.upgrade.as_ref().map(|upgrade| ActionId::parse(&upgrade.action_id)) {
            Some(Ok(id)) => Ok(self.store.everywhere(&System).action(&id).await?.is_some()),
            _ => Ok(false),
        }
    }

    async fn newest_revision(&self, record: &AgentRecord, running: Option<(&str, i64)>) -> Result<Option<i64>, Error> {
        let Some(id) = &record.policy_id else { return Ok(None) };
        let newest = self.policies.newest_revision(id).await?;
        // Another node may have told the agent of a revision that this one has not heard of yet.
        let claimed = running.filter(|(policy, _)| *policy == id.as_str()).map(|(_, revision)| revision);
        if newest.is_some_and(|newest| claimed.is_some_and(|claimed| claimed > newest)) {
            return Ok(self.policies.refresh(id).await?.map(|policy| policy.revision));
        }
        Ok(newest)
    }

    /// The revision that the agent should run, if that is another one than it has: its own target, else a newer one of
    /// its policy.
    async fn due_revision(&self, record: &AgentRecord, policy: &PolicyId, has: i64) -> Result<Option<i64>, Error> {
        if let Some(target) = record.target_revision {
            return Ok(Some(target).filter(|target| *target != has));
        }
        Ok(self.policies.newest_revision(policy).await?.filter(|newest| *newest > has))
    }

    /// Delivers what is due, or holds the poll.
    async fn answer(
        self: &Arc<Self>,
        entry: &Arc<AgentEntry>,
        baseline: Baseline,
        poll: Option<GoDuration>,
    ) -> Result<Poll, Error> {
        // Read before the look: whatever changes during it raises the generation, and the held poll looks again at once.
        let generation = entry.generation();
        let mut hold = self.hold(poll);
        match self.due(entry, &baseline).await? {
            Due::Now(delivery) => return Ok(Poll::Due(delivery)),
            Due::Later(pause) => hold = hold.min(pause),
            Due::Nothing => {}
        }
        // A stopping server answers what is parked (EA87); it must not park anew meanwhile.
        if hold.is_zero() || self.stopping.has_begun() {
            return Ok(Poll::Due(Delivery::Nothing));
        }
        let slot = PollSlot::new(&self.registry, Arc::clone(entry), Arc::clone(&self.clock));
        let deadline = Instant::now() + hold;
        Ok(Poll::Held(HeldPoll { check_ins: Arc::clone(self), slot, deadline, baseline, generation }))
    }

    /// How long to hold a poll. A default of zero means that polls are not held.
    fn hold(&self, poll: Option<GoDuration>) -> Duration {
        let limits = self.limits;
        // A client that names a time is held for it even so; the minimum of a minute is the protocol's (EA68).
        if poll.is_none() && limits.default.is_zero() {
            return Duration::ZERO;
        }
        limits.duration(poll, Duration::ZERO, u64::from_le_bytes(random_bytes(&*self.entropy)))
    }

    /// What is due to the agent now: actions first, then a policy (EA95).
    async fn due(&self, entry: &AgentEntry, baseline: &Baseline) -> Result<Due, Error> {
        let record = entry.record().filter(|record| record.active).ok_or_else(unauthorized)?;
        if let Some(delivery) = self.due_actions(entry, &record).await? {
            return Ok(Due::Now(delivery));
        }
        self.due_policy(entry, &record, baseline).await
    }

    async fn due_actions(&self, entry: &AgentEntry, record: &AgentRecord) -> Result<Option<Delivery>, Error> {
        let orders = entry.orders();
        if entry.is_without_actions(orders) {
            return Ok(None);
        }
        // Boxed: a heartbeat does not get as far, and need not carry the room.
        Box::pin(self.look_for_actions(entry, record, orders)).await
    }

    async fn look_for_actions(
        &self,
        entry: &AgentEntry,
        record: &AgentRecord,
        orders: u64,
    ) -> Result<Option<Delivery>, Error> {
        let due = self
            .store
            .everywhere(&System)
            .actions_due(&record.id, record.action_position, self.clock.now(), BATCH)
            .await?;
        if due.is_empty() {
            entry.remember_without_actions(orders);
            return Ok(None);
        }
        // Opened as late as possible: secrets are in memory while a reply is made, not while a poll is held.
        let secrets = open_secrets(self.store.everywhere(&System), &self.sealer, &secrets_of(&due)).await?;
        let due = self.sign_for(&record.id, due)?;
        let delivery = deliver(&due, record.action_position, &|id| secrets.get(id).map(|value| value.to_string()));
        for action in &delivery.misfits {
            tracing::warn!(%action, agent = %record.id, "skipped an action: its data is not valid for its type");
        }
        let actions = delivery.actions;
        Ok(delivery.ack_token.map(|ack_token| Delivery::Actions { ack_token, actions }))
    }

    async fn due_policy(&self, entry: &AgentEntry, record: &AgentRecord, baseline: &Baseline) -> Result<Due, Error> {
        let Some(policy_id) = &record.policy_id else { return Ok(Due::Nothing) };
        let has = baseline.revision_for(record);
        let Some(revision) = self.due_revision(record, policy_id, has).await? else { return Ok(Due::Nothing) };
        let Some(policy) = self.policies.get(policy_id, revision).await? else {
            tracing::warn!(agent = %record.id, policy = %policy_id, revision, "the target revision does not exist");
            return Ok(Due::Nothing);
        };
        let (offers, now) = (entry.offers(), self.clock.now());
        // An agent that turns a revision down asks for it again at once, and would be given it in a circle (D11).
        if offers.revision == policy.revision && offers.count >= OFFERS_AT_ONCE {
            let doublings = (offers.count - OFFERS_AT_ONCE).min(6);
            let pause = (FIRST_OFFER_PAUSE * (1 << doublings)).min(LONGEST_OFFER_PAUSE);
            let waited = now.since(offers.last);
            if waited < pause {
                return Ok(Due::Later(pause - waited));
            }
        }
        entry.remember_offer(policy.revision, now);
        Ok(Due::Now(Delivery::Policy(policy)))
    }
}

impl HeldPoll {
    /// Waits until something is due, the poll's time is over, the agent is shut out, or the server stops.
    pub async fn wait(mut self) -> Result<Delivery, Error> {
        loop {
            // Before each wait: the server may have begun to stop before this poll counted as held.
            if let Some(ended) = self.ended() {
                return Ok(ended);
            }
            let over = tokio::select! {
                () = self.slot.entry().woken_after(self.generation) => false,
                () = tokio::time::sleep_until(self.deadline) => true,
            };
            if let Some(ended) = self.ended() {
                return Ok(ended);
            }
            self.generation = self.slot.entry().generation();
            // Boxed, so that a poll that only waits does not carry the look's state.
            let look: Pin<Box<dyn Future<Output = Result<Due, Error>> + Send + '_>> =
                Box::pin(self.check_ins.due(self.slot.entry(), &self.baseline));
            match look.await? {
                Due::Now(delivery) => return Ok(delivery),
                // The look comes before this even when the time is over: what came at the last moment is delivered, not lost
                // until the next check-in.
                Due::Later(_) | Due::Nothing if over => return Ok(Delivery::Nothing),
                // The poll ends at the pause's end and not later, else the offer would wait for the whole long poll.
                Due::Later(pause) => self.deadline = self.deadline.min(Instant::now() + pause),
                Due::Nothing => {}
            }
        }
    }

    /// The answer of a poll that is over whatever is due.
    fn ended(&self) -> Option<Delivery> {
        if self.check_ins.stopping.has_begun() {
            return Some(Delivery::Nothing);
        }
        self.slot.is_superseded().then_some(Delivery::Superseded)
    }

    /// The agent.
    pub fn entry(&self) -> &Arc<AgentEntry> {
        self.slot.entry()
    }
}

/// In these statuses a check-in by itself changes nothing.
fn is_settled(status: Status) -> bool {
    matches!(status, Status::Online | Status::Degraded | Status::Error | Status::Updating | Status::Unenrolling)
}

fn to_change(record: &AgentRecord, decision: &Decision, now: Timestamp) -> AgentChange {
    let documents = &decision.documents;
    let changed = documents.local_metadata.is_some() || documents.components.is_some();
    let mut writes = Vec::new();
    if changed {
        writes.push(Write::Agent(AgentWrite::Documents { id: record.id.clone(), documents: documents.clone() }));
    }
    if decision.has_duplicate {
        writes.push(Write::Audit(duplicate_line(record, decision, now)));
    }
    writes.extend(decision.upgrade.as_ref().map(|ended| end_of_upgrade(&record.id, ended, now)));
    AgentChange { record: None, writes }
}

fn duplicate_line(record: &AgentRecord, decision: &Decision, now: Timestamp) -> AuditEvent {
    let hosts = decision.record.as_ref().and_then(|record| record.duplicate_hosts.as_deref()).map(|known| &known.hosts);
    tracing::warn!(
        agent = %record.id, host = %record.hostname, ?hosts,
        hint = "a machine was cloned with its agent; enroll the agent on the copy again",
        "two hosts use the key of one agent"
    );
    AuditEvent {
        at: now,
        actor: format!("agent:{}", record.id),
        action: "agent.duplicate_hosts".to_owned(),
        subject: format!("agent:{}", record.id),
        detail: serde_json::json!({"hosts": hosts, "hostname": record.hostname}),
    }
}
