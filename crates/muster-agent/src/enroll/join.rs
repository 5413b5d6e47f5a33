//! Enrolls and stores the result.

use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;
use muster_core::Entropy;
use muster_core::entropy::{random_bytes, random_uuid};
use muster_core::time::Clock as _;
use muster_protocol::elastic::enroll::EnrolledItem;

use super::plan::Plan;
use super::{EnrollError, Patience, enroll};
use crate::clock::SystemClock;
use crate::entropy::System;
use crate::exit::Failure;
use crate::fleet::FleetClient;
use crate::fleet::enroll::Wish;
use crate::host::fingerprint::Fingerprint;
use crate::host::{Facts, HostFacts, Own};
use crate::net::Transport;
use crate::notice::departure::Departure;
use crate::notice::{Event, Notice};
use crate::standalone;
use crate::state::disk::DiskStore;
use crate::state::enrollment::{Enrollment, Secret};
use crate::state::{State, Store, StoreError};
use muster_core::hex;

/// Maximum time to tell the server that an enrollment could not be stored.
const WITHDRAWAL: Duration = Duration::from_secs(10);

/// An enrollment that is about to take place.
pub struct Joining<'a> {
    /// What was requested.
    pub plan: &'a Plan,
    /// Connection to the servers.
    pub transport: Arc<dyn Transport>,
    /// The previous enrollment in the same base path.
    pub former: Option<&'a Enrollment>,
    /// Limits on the attempts.
    pub patience: &'a Patience,
    /// Called with a line for every failed attempt.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

impl Joining<'_> {
    /// Enrolls, and replaces the enrollment and the state. Nothing is written until the server has accepted the agent.
    /// Also returns where the policy of a standalone agent is kept, if it was one.
    pub async fn join(&self, store: &DiskStore) -> Result<(EnrolledItem, Option<Utf8PathBuf>), Failure> {
        let (item, replace_token) = self.enroll().await?;
        // From here on, the server knows the agent.
        let enrollment = self.enrollment(&item, replace_token);
        if let Err(error) = keep(store, &enrollment) {
            self.withdraw(&enrollment).await;
            return Err(error.into());
        }
        // The enrollment takes precedence anyway, so that a failure is only untidy.
        let kept = standalone::retire(store.layout(), SystemClock.now());
        Ok((item, kept.unwrap_or_default()))
    }

    /// Tells the server that an agent that could not be stored does not exist: each further attempt would leave another one.
    async fn withdraw(&self, enrollment: &Enrollment) {
        // An agent that enrolls again under its id exists.
        if self.former.is_some_and(|former| former.agent_id == enrollment.agent_id) {
            return;
        }
        let departure = Departure::by_this_process("enroll", Some("the enrollment could not be stored"), None);
        let notice = Notice::new(Event::Uninstall, enrollment, departure, SystemClock.now());
        let key = enrollment.access_api_key.clone();
        let client = FleetClient::new(self.transport.clone(), self.plan.servers(), key, Arc::new(System));
        // If this fails too, somebody has to remove the agent by hand.
        let _ = tokio::time::timeout(WITHDRAWAL, notice.deliver(&client)).await;
    }

    /// Requests the previous id if this is the same server (AG86), and otherwise a new one.
    async fn enroll(&self) -> Result<(EnrolledItem, Secret), EnrollError> {
        if let Some((id, token)) = self.previous_identity() {
            match self.request(Some(id), &token).await {
                // The key is for another policy, or somebody has deleted the agent: it becomes a new one.
                Err(error) if error.is_id_rejected() => {}
                other => return other.map(|item| (item, token)),
            }
        }
        let token = self.plan.replace_token.clone().unwrap_or_else(|| new_replace_token(&System));
        let item = self.request(self.plan.id.clone(), &token).await?;
        Ok((item, token))
    }

    fn previous_identity(&self) -> Option<(String, Secret)> {
        let former = self.former.filter(|former| self.plan.has_server_of(&former.servers))?;
        // An explicit id or token of the command takes precedence.
        let token =
            former.replace_token.clone().filter(|_| self.plan.id.is_none() && self.plan.replace_token.is_none());
        // A copy on another machine must not take over the identity of the original.
        let copied = former.machine.as_ref().is_some_and(|machine| machine.differs(&Fingerprint::here()));
        token.filter(|_| !copied).map(|token| (former.agent_id.clone(), token))
    }

    async fn request(&self, id: Option<String>, replace_token: &Secret) -> Result<EnrolledItem, EnrollError> {
        let (token, servers) = (self.plan.token.clone(), self.plan.servers());
        let client = FleetClient::new(self.transport.clone(), servers, token, Arc::new(System));
        let wish = Wish {
            id,
            replace_token: Some(replace_token.expose().to_owned()),
            enrollment_id: random_uuid(&System),
            tags: self.plan.tags.clone(),
        };
        let facts = HostFacts.local_metadata(Own { agent_id: "", log_level: "info", upgradeable: false });
        enroll(&client, &wish, &facts, self.patience, &System, |line| (self.progress)(line)).await
    }

    fn enrollment(&self, item: &EnrolledItem, replace_token: Secret) -> Enrollment {
        Enrollment {
            access_api_key: Secret::new(&*item.access_api_key),
            servers: self.plan.servers.clone(),
            trust: self.plan.trust.clone(),
            tags: item.tags.clone(),
            enrolled_at: item.enrolled_at.clone(),
            replace_token: Some(replace_token),
            machine: Some(Fingerprint::here()),
            local_server: self.plan.local_server,
            ..Enrollment::without_server(item.id.clone())
        }
    }
}

/// Stores the enrollment. The state is replaced first, so that nothing of the previous fleet can run under the new enrollment,
/// even if this process is killed in between (AG82).
fn keep(store: &DiskStore, enrollment: &Enrollment) -> Result<(), StoreError> {
    store.prepare()?;
    store.save_state(&State::default())?;
    store.save_enrollment(enrollment)
}

/// Generates a replace token: 64 hexadecimal digits.
fn new_replace_token(entropy: &dyn Entropy) -> Secret {
    Secret::new(hex::encode(&random_bytes::<32>(entropy)))
}
