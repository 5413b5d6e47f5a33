//! The client of a request.

use std::ops::Deref;
use std::sync::OnceLock;

use muster_core::id::AgentId;
use muster_fleet::registry::AgentEntry;
use muster_listen::reply::Peer;

/// The client of a request: the peer of its connection, and the agent whose key the request has.
pub(super) struct Client {
    peer: Peer,
    // Of the request, and not of the connection: a proxy sends the requests of many hosts over one.
    agent: OnceLock<AgentId>,
}

impl Client {
    /// Creates a client that has not authenticated.
    pub(super) fn new(peer: Peer) -> Self {
        Self { peer, agent: OnceLock::new() }
    }

    /// Records that the request has a key of this agent.
    pub(super) fn authenticated_as(&self, entry: &AgentEntry) {
        self.peer.set_key(|| Some(entry.id().as_str().into()));
        // A request has one key. It fails only for the second look-up of the same one.
        let _ = self.agent.set(entry.id().clone());
    }

    /// Returns the agent, if its key was valid.
    pub(super) fn agent(&self) -> Option<&AgentId> {
        self.agent.get()
    }
}

impl Deref for Client {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}
