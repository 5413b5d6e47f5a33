//! The check-in: what it changes, what is due, and the held poll (EA §4).
//!
//! The steps are in the order of the reference (EA §4.2): decide, commit the changes, look for actions, then for a
//! policy, then hold the poll. Two counters of the agent's entry replace locks. `generation` rises with each wake-up: a
//! poll remembers its value from before the query, so that a wake-up between query and hold is never lost (EA72).
//! `action_generation` rises with each wake-up that may bring actions: a query that found none remembers its value, so
//! that the next heartbeat needs no read.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use muster_core::Entropy;
use muster_core::Error;
use muster_core::action::{ActionType, DueAction};
use muster_core::agent::AgentRecord;
use muster_core::audit::AuditEvent;
use muster_core::check_in::{Circumstances, Decision, KnownDocuments, Report, decide};
use muster_core::delivery::{Delivered, deliver, secrets_of};
use muster_core::documents::Digest;
use muster_core::duplicate_hosts::HostMark;
use muster_core::entropy::random_bytes;
use muster_core::id::{ActionId, PolicyId};
use muster_core::output_key::AgentKeys;
use muster_core::policy::render::RenderedPolicy;
use muster_core::poll::{GoDuration, PollLimits};
use muster_core::reenroll::delivered_to;
use muster_core::seal::Sealer;
use muster_core::signing::Signer;
use muster_core::status::Status;
use muster_core::time::{Clock, Timestamp};
use muster_store::{AgentWrite, Write};
use tokio::time::Instant;

use super::authenticate::unauthorized;
use super::authority::System;
use super::currency::Currency;
use super::members::Members;
use super::output_keys::{Keys, Look, OutputKeys};
use super::policy_cache::{PolicyCache, open_secrets};
use super::records::Records;
use super::registry::{AgentEntry, LastRequest, PolicyOffers, PollSlot, Registry};
use super::secrets::SealedSecrets;
use super::shutdown::Shutdown;
use super::update::{AgentChange, end_of_upgrade};
use super::urls::ServerUrls;
use super::watched_store::WatchedStore;

/// Maximum actions in one response (EA75).
const BATCH: u32 = 100;

/// Maximum attempts to take the report of an agent that moves between servers at the same time.
const MOVES: usize = 3;

/// The updated record, the policy revision that the agent runs, and its requested poll time.
type Taken = (Arc<AgentRecord>, i64, Option<GoDuration>);

/// Number of times that a revision is delivered without a pause to an agent that does not apply it (D11).
const OFFERS_WITHOUT_PAUSE: u32 = 3;
const FIRST_OFFER_PAUSE: Duration = Duration::from_secs(5);
/// The pause doubles with each further delivery up to this maximum.
const LONGEST_OFFER_PAUSE: Duration = Duration::from_secs(300);
/// Number of deliveries after which a key that was missing in an earlier one counts as received.
const MOST_REPETITIONS: u32 = 5;

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

/// Outcome of a check-in.
pub enum Poll {
    /// Respond with this now.
    Due(Delivery),
    /// Nothing is due; hold the poll.
    Held(HeldPoll),
}

/// What the response delivers.
#[derive(Clone)]
pub enum Delivery {
    /// Nothing.
    Nothing,
    /// Nothing, before the deadline of the poll, because the agent has started more polls than can be held.
    Superseded,
    /// Actions, and the token that confirms them.
    Actions {
        /// Sent back by the agent, it suppresses these actions and all earlier ones (EA73).
        ack_token: ActionId,
        /// In the order of execution; empty if all due actions are of types that are not delivered (EA77).
        actions: Vec<Delivered>,
    },
    /// A policy, alone (EA95).
    Policy(PolicyDelivery),
}

/// A policy with the keys of the agent that gets it.
#[derive(Clone)]
pub struct PolicyDelivery {
    policy: Arc<RenderedPolicy>,
    /// The agent's keys.
    pub keys: AgentKeys,
}

impl Deref for PolicyDelivery {
    type Target = RenderedPolicy;

    fn deref(&self) -> &RenderedPolicy {
        &self.policy
    }
}

/// A held poll: all that remains of a check-in while nothing is due. With a hundred thousand of them, every byte
/// counts.
pub struct HeldPoll {
    check_ins: Arc<CheckIns>,
    slot: PollSlot,
    deadline: Instant,
    baseline: Baseline,
    generation: u64,
}

/// Who polls, and the policy and revision that the agent has: its target is due when it is another one.
#[derive(Clone, Debug)]
struct Baseline {
    policy: Option<PolicyId>,
    revision: i64,
    /// The host that polls, if the agent's key is shared by several.
    sharer: Option<Box<HostMark>>,
}

impl Baseline {
    /// The revision that the agent runs of its policy; 0 if it was reassigned since, which makes any revision due.
    fn revision_for(&self, record: &AgentRecord) -> i64 {
        if self.policy == record.policy_id { self.revision } else { 0 }
    }
}

enum Due {
    Now(Delivery),
    /// A policy is due, but was delivered too often recently.
    Later(Duration),
    Nothing,
}

/// The service of requests after enrollment: check-ins, acks, uninstallation reports.
pub struct CheckIns {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    sealer: Arc<Sealer>,
    pub(super) signer: Arc<Signer>,
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
}

/// The dependencies of [`CheckIns`].
pub(crate) struct CheckInParts {
    pub(crate) store: Arc<WatchedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) signer: Arc<Signer>,
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
            signer: parts.signer,
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

    /// Decides and commits the changes. Returns the updated record, the policy revision that the agent runs, and its
    /// requested poll time.
    async fn take_report(&self, entry: &Arc<AgentEntry>, input: &CheckInInput<'_>) -> Result<Taken, Error> {
        for _ in 0..MOVES {
            if let Some(taken) = self.try_report(entry, input).await? {
                return Ok(taken);
            }
        }
        Err(Error::conflict("agent_busy", "the agent checks in to several servers at once; retry"))
    }

    /// Returns `None` if the agent has checked in to another server in the meantime, because the documents that are cached
    /// here may then differ from the stored ones.
    async fn try_report(&self, entry: &Arc<AgentEntry>, input: &CheckInInput<'_>) -> Result<Option<Taken>, Error> {
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
        let (mut revision, mut poll, before_known, mut has_moved) = (0, None, known, false);
        // The closure may run several times, after conflicts. Each run starts from the documents known before the
        // first, so that a retry does not take its own attempt for stored.
        let update = self
            .records
            .update(&**entry, entry, |record, now| {
                if !record.active {
                    return Err(unauthorized());
                }
                if record.node != before.node {
                    has_moved = true;
                    return Ok(AgentChange::default());
                }
                let decision = decide(record, before_known, input.report, &circumstances, now)?;
                (revision, poll) = (decision.policy_revision, decision.poll_timeout);
                let change = to_change(record, &decision, now);
                known = decision.known;
                Ok(AgentChange { record: self.taken_over(record, decision.record, now), ..change })
            })
            .await;
        let after = update?;
        if has_moved {
            return Ok(None);
        }
        entry.remember_documents(known);
        if (after.policy_revision, &after.running_policy_id) != (before.policy_revision, &before.running_policy_id) {
            // A confirmed policy ends the use of former keys and permissions (EA106).
            entry.forget_keys();
        }
        Ok(Some((after, revision, poll)))
    }

    /// Returns the changed record with this server as its node, which also is a change by itself: the agent has moved here.
    /// Other servers learn of it, and trust their cached records of the agent no longer.
    fn taken_over(&self, before: &AgentRecord, after: Option<AgentRecord>, now: Timestamp) -> Option<AgentRecord> {
        let node = Some(&self.records.node);
        match after {
            Some(after) if after.node.as_ref() != node => Some(AgentRecord { node: node.cloned(), ..after }),
            None if !self.records.is_own(before) => {
                let version = before.version + 1;
                Some(AgentRecord { node: node.cloned(), version, updated_at: now, ..before.clone() })
            }
            unchanged => unchanged,
        }
    }

    async fn known_documents(&self, entry: &AgentEntry) -> Result<KnownDocuments, Error> {
        let is_own = entry.record().is_some_and(|record| self.records.is_own(&record));
        if let Some(known) = entry.known_documents().filter(|_| is_own) {
            return Ok(known);
        }
        let documents = self.store.everywhere(entry).agent_documents(entry.id()).await?.unwrap_or_default();
        Ok(KnownDocuments::of(&documents))
    }

    /// Returns the action that the ack token names (EA §4.4); `None` if the token is the stored one, unknown or empty.
    async fn acknowledged(&self, record: &AgentRecord, report: &Report<'_>) -> Result<Option<(ActionId, i64)>, Error> {
        let token = report.confirmed;
        // The usual case: agents repeat their last token in every check-in.
        if token.is_empty() || record.action_token.as_ref().is_some_and(|own| own.as_str() == token) {
            return Ok(None);
        }
        let Ok(id) = ActionId::parse(token) else { return Ok(None) };
        Ok(self.store.everywhere(&System).action(&id).await?.map(|action| (id, action.seq)))
    }

    // Upgrade details of an unknown action are not stored (EA63): agents keep them across a change of servers.
    async fn upgrade_action_known(&self, report: &Report<'_>) -> Result<bool, Error> {
        match report.upgrade.as_ref().map(|upgrade| ActionId::parse(&upgrade.action_id)) {
            Some(Ok(id)) => Ok(self.store.everywhere(&System).action(&id).await?.is_some()),
            _ => Ok(false),
        }
    }

    async fn newest_revision(&self, record: &AgentRecord, running: Option<(&str, i64)>) -> Result<Option<i64>, Error> {
        let Some(id) = &record.policy_id else { return Ok(None) };
        let newest = self.policies.newest_revision(id).await?;
        // The agent may have got a revision from another node before this node's change feed saw it. Without the
        // refresh, the claim would look like a revision that does not exist.
        let claimed = running.filter(|(policy, _)| *policy == id.as_str()).map(|(_, revision)| revision);
        if newest.is_some_and(|newest| claimed.is_some_and(|claimed| claimed > newest)) {
            return Ok(self.policies.refresh(id).await?.map(|policy| policy.revision));
        }
        Ok(newest)
    }

    /// Returns the revision that is due: the agent's own target if it differs, else the newest one if it is newer.
    async fn due_revision(&self, record: &AgentRecord, policy: &PolicyId, has: i64) -> Result<Option<i64>, Error> {
        // A target differs in either direction, so that a rollback is delivered. A follower must never go back: it may
        // run a revision that this node does not know yet.
        if let Some(target) = record.target_revision {
            return Ok(Some(target).filter(|target| *target != has));
        }
        Ok(self.policies.newest_revision(policy).await?.filter(|newest| *newest > has))
    }

    /// Returns what is due, or holds the poll.
    async fn answer(
        self: &Arc<Self>,
        entry: &Arc<AgentEntry>,
        baseline: Baseline,
        poll: Option<GoDuration>,
    ) -> Result<Poll, Error> {
        // Read before the query: a change during it raises the generation, and the held poll queries again immediately.
        let generation = entry.generation();
        let mut hold = self.hold(poll);
        match self.due(entry, &baseline).await? {
            Due::Now(delivery) => return Ok(Poll::Due(delivery)),
            // Held only until the pause is over, or else the policy would wait for the end of the long poll.
            Due::Later(pause) => hold = hold.min(pause),
            Due::Nothing => {}
        }
        // During shutdown, held polls are answered (EA87), so no new ones may be held.
        if hold.is_zero() || self.shutdown.has_begun() {
            return Ok(Poll::Due(Delivery::Nothing));
        }
        if self.members.is_draining() {
            // Not at once: until the load balancer sends the agent elsewhere, it would poll in a loop.
            hold = hold.min(Members::hold_while_draining(&*self.entropy));
        }
        let slot = PollSlot::new(&self.registry, Arc::clone(entry), Arc::clone(&self.clock));
        let deadline = Instant::now() + hold;
        Ok(Poll::Held(HeldPoll { check_ins: Arc::clone(self), slot, deadline, baseline, generation }))
    }

    /// Returns the time to hold a poll. A default of zero disables long polling for clients that request no time.
    fn hold(&self, poll: Option<GoDuration>) -> Duration {
        let limits = self.limits;
        // A client that requests a time gets it anyway, with the protocol's minimum of one minute (EA68).
        if poll.is_none() && limits.default.is_zero() {
            return Duration::ZERO;
        }
        limits.duration(poll, Duration::ZERO, u64::from_le_bytes(random_bytes(&*self.entropy)))
    }

    /// Returns what is due now: actions before a policy (EA95). Nothing for a record that may be outdated.
    async fn due(&self, entry: &AgentEntry, baseline: &Baseline) -> Result<Due, Error> {
        self.currency.ensure(&self.records, entry).await?;
        // Every wake-up comes through here. A held poll of an agent that was unenrolled ends with this error.
        let record = entry.record().filter(|record| record.active).ok_or_else(unauthorized)?;
        if let Some(delivery) = self.due_actions(entry, &record, baseline.sharer.as_deref()).await? {
            return Ok(Due::Now(delivery));
        }
        self.due_policy(entry, &record, baseline).await
    }

    async fn due_actions(
        &self,
        entry: &AgentEntry,
        record: &AgentRecord,
        sharer: Option<&HostMark>,
    ) -> Result<Option<Delivery>, Error> {
        let generation = entry.action_generation();
        if entry.is_without_actions(generation) {
            return Ok(None);
        }
        // Boxed, so that a heartbeat, which does not reach this point, does not reserve the space of its state.
        Box::pin(self.look_for_actions(entry, record, sharer, generation)).await
    }

    async fn look_for_actions(
        &self,
        entry: &AgentEntry,
        record: &AgentRecord,
        sharer: Option<&HostMark>,
        generation: u64,
    ) -> Result<Option<Delivery>, Error> {
        let now = self.clock.now();
        // Checked again: time has passed since the change feed read the action.
        let known = entry.only_due(generation).filter(|due| due.action.is_deliverable(record.action_position, now));
        let due = match known {
            Some(due) => vec![due],
            None => self.store.everywhere(&System).actions_due(&record.id, record.action_position, now, BATCH).await?,
        };
        if due.is_empty() {
            entry.remember_without_actions(generation);
            return Ok(None);
        }
        // The agent may have confirmed these actions to another server a moment ago. Agents repeat their token only until
        // the next response, so nothing else would keep this server from delivering them again.
        self.currency.confirm(&self.records, entry).await?;
        let current = entry.record().filter(|record| record.active).ok_or_else(unauthorized)?;
        if current.version != record.version {
            return Box::pin(self.look_for_actions(entry, &current, sharer, generation)).await;
        }
        let due = for_host(due, sharer);
        if due.is_empty() {
            return Ok(None);
        }
        // Opened as late as possible: secrets are in memory while a response is built, not while a poll is held.
        let secrets = open_secrets(self.store.everywhere(&System), &self.sealer, &secrets_of(&due)).await?;
        let due = self.sign_for(&record.id, due)?;
        let delivery = deliver(&due, record.action_position, &|id| secrets.get(id).map(|value| value.to_string()));
        for action in &delivery.invalid {
            // Skipped and not an error: one corrupt action must not block all later ones.
            tracing::warn!(%action, agent = %record.id, "skipped an action whose data is invalid for its type");
        }
        let actions = delivery.actions;
        Ok(delivery.ack_token.map(|ack_token| Delivery::Actions { ack_token, actions }))
    }

    async fn due_policy(&self, entry: &AgentEntry, record: &AgentRecord, baseline: &Baseline) -> Result<Due, Error> {
        let Some(policy_id) = &record.policy_id else { return Ok(Due::Nothing) };
        let has = baseline.revision_for(record);
        let revision = match self.due_revision(record, policy_id, has).await? {
            Some(revision) => revision,
            None if self.is_due_again(entry, record, policy_id, has).await? => has,
            None => return Ok(Due::Nothing),
        };
        let Some(policy) = self.policies.get(policy_id, revision).await? else {
            tracing::warn!(agent = %record.id, policy = %policy_id, revision, "the target revision does not exist");
            // The agent keeps what it runs; an error would only make it retry.
            return Ok(Due::Nothing);
        };
        let now = self.clock.now();
        if let Some(pause) = offer_pause(entry.offers(), policy.revision, now) {
            return Ok(Due::Later(pause));
        }
        // Boxed, because most agents reach this point only when their policy changes.
        let (keys, is_whole) = match Box::pin(self.keys.for_delivery(record, &policy)).await? {
            Keys::Ready { keys, is_whole } => (keys, is_whole),
            Keys::Wait(left) => return Ok(Due::Later(left)),
        };
        // Counted when it is delivered, since nothing tells whether the response arrives.
        entry.remember_offer(policy.revision, is_whole, now);
        Ok(Due::Now(Delivery::Policy(PolicyDelivery { policy, keys })))
    }

    /// Returns true if the agent must get the policy again that it has, because a key was missing in it (EA110).
    async fn is_due_again(
        &self,
        entry: &AgentEntry,
        record: &AgentRecord,
        policy: &PolicyId,
        has: i64,
    ) -> Result<bool, Error> {
        // A change of the agent's keys is announced as a change of the agent, which brings no action.
        let generation = entry.generation();
        if has <= 0 || entry.is_without_keys(generation) {
            return Ok(false);
        }
        // Boxed, so that a heartbeat, which does not reach this point, does not reserve the space of its state.
        let look = Box::pin(self.look_at_keys(entry, record, policy, has)).await?;
        if look == Look::Nothing {
            entry.remember_without_keys(generation);
        }
        Ok(look == Look::Deliver)
    }

    async fn look_at_keys(
        &self,
        entry: &AgentEntry,
        record: &AgentRecord,
        policy: &PolicyId,
        has: i64,
    ) -> Result<Look, Error> {
        if !self.keys.are_any().await? {
            return Ok(Look::Nothing);
        }
        let Some(policy) = self.policies.get(policy, has).await? else { return Ok(Look::Nothing) };
        let offers = entry.offers();
        // Agents can be told not to ack policies. Without a limit, they would get the same one for ever.
        let is_given_up = offers.revision == has && offers.whole >= MOST_REPETITIONS;
        let acked = if is_given_up { has } else { entry.acked_policy() };
        self.keys.look(record, &policy, acked).await
    }
}

/// Returns the rest of the pause before a revision is delivered again. An agent that rejects a revision checks in again
/// immediately and still reports the old one; without the pause, it would get the same revision in an endless loop (D11).
fn offer_pause(offers: PolicyOffers, revision: i64, now: Timestamp) -> Option<Duration> {
    if offers.revision != revision || offers.count < OFFERS_WITHOUT_PAUSE {
        return None;
    }
    let doublings = (offers.count - OFFERS_WITHOUT_PAUSE).min(6);
    // Six doublings exceed the maximum; more would overflow the shift.
    let pause = (FIRST_OFFER_PAUSE * (1 << doublings)).min(LONGEST_OFFER_PAUSE);
    pause.checked_sub(now.since(offers.last)).filter(|left| !left.is_zero())
}

impl HeldPoll {
    /// Waits until something is due, the deadline has passed, the agent is unenrolled, a newer poll replaces this one,
    /// or the server shuts down.
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
            // Boxed, so that a waiting poll does not reserve the space of the query's state.
            let look: Pin<Box<dyn Future<Output = Result<Due, Error>> + Send + '_>> =
                Box::pin(self.check_ins.due(self.slot.entry(), &self.baseline));
            match look.await? {
                Due::Now(_) if self.has_moved() => return Ok(Delivery::Nothing),
                Due::Now(delivery) => return Ok(delivery),
                // Reached only after a query, even at the deadline: what became due at the last moment is delivered and
                // does not wait for the next check-in.
                Due::Later(_) | Due::Nothing if over => return Ok(Delivery::Nothing),
                // Shortens the poll to the pause, or else the policy would wait for the end of the long poll.
                Due::Later(pause) => self.deadline = self.deadline.min(Instant::now() + pause),
                Due::Nothing => {}
            }
        }
    }

    /// Returns whether the agent has checked in to another server in the meantime. The connection of this poll may then
    /// be dead, and what it delivers would be lost. An agent that is still connected polls again and gets what is due.
    fn has_moved(&self) -> bool {
        self.slot.entry().record().is_some_and(|record| !self.check_ins.records.is_own(&record))
    }

    /// Returns the response of a poll that ends whatever is due.
    fn ended(&self) -> Option<Delivery> {
        if self.check_ins.shutdown.has_begun() || self.slot.is_dismissed() {
            return Some(Delivery::Nothing);
        }
        self.slot.is_superseded().then_some(Delivery::Superseded)
    }

    /// The agent.
    pub fn entry(&self) -> &Arc<AgentEntry> {
        self.slot.entry()
    }
}

/// Returns whether a check-in by itself changes nothing. With duplicate hosts, each check-in may be from another host.
fn is_settled(record: &AgentRecord) -> bool {
    let status = record.status;
    record.duplicate_hosts.is_none()
        && matches!(status, Status::Online | Status::Degraded | Status::Error | Status::Updating | Status::Unenrolling)
}

/// Returns what is due, without the reenrollments of other hosts. A reenrollment of this host waits until nothing else
/// is due, because its ack token also confirms everything before it (EA73).
fn for_host(due: Vec<DueAction>, host: Option<&HostMark>) -> Vec<DueAction> {
    let (mut reenrollments, others): (Vec<_>, Vec<_>) =
        due.into_iter().partition(|one| one.action.kind == ActionType::Reenroll);
    if !others.is_empty() {
        return others;
    }
    reenrollments.retain_mut(|one| match delivered_to(&one.action, host) {
        Some(migration) => {
            one.action = Arc::new(migration);
            true
        }
        None => false,
    });
    reenrollments
}

fn to_change(record: &AgentRecord, decision: &Decision, now: Timestamp) -> AgentChange {
    let documents = &decision.documents;
    let changed = documents.local_metadata.is_some() || documents.components.is_some();
    let mut writes = Vec::new();
    if changed {
        writes.push(Write::Agent(AgentWrite::Documents { id: record.id.clone(), documents: documents.clone() }));
    }
    // The audit event is in the same commit, so that the record is never marked without one.
    if decision.has_duplicate {
        writes.push(Write::Audit(duplicate_line(record, decision, now)));
    }
    writes.extend(decision.upgrade.as_ref().map(|ended| end_of_upgrade(&record.id, ended, now)));
    AgentChange { record: None, writes }
}

fn duplicate_line(record: &AgentRecord, decision: &Decision, now: Timestamp) -> AuditEvent {
    let hosts = decision.record.as_ref().and_then(|record| record.duplicate_hosts.as_deref()).map(|known| &known.hosts);
    tracing::warn!(
        agent = %record.id, hostname = %record.hostname, host_id = hosts.and_then(|hosts| hosts.last()),
        hint = "cloned machine? If the policy has `duplicate_hosts: reenroll`, the server reenrolls the copies; otherwise, enroll them again",
        "two hosts use the key of one agent"
    );
    AuditEvent {
        address: None,
        reason: None,
        at: now,
        actor: format!("agent:{}", record.id),
        action: "agent.duplicate_hosts".to_owned(),
        subject: format!("agent:{}", record.id),
        detail: serde_json::json!({"hosts": hosts, "hostname": record.hostname}),
    }
}
