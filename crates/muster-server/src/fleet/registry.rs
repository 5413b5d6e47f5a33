//! Agents known to this node, and who of them is connected: presence and parking.

/// The agents that this node has heard of since it started.
#[derive(Debug, Default)]
pub struct Registry {}
