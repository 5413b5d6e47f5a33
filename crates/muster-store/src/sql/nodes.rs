//! Nodes.

use super::{now, statements};

statements! {
    /// Selects the nodes whose leases are valid, by name.
    NODES = concat!(
        "SELECT id, name, version, addresses, is_draining, handled, started_at, expires_at FROM nodes \
         WHERE expires_at > ", now!(), " ORDER BY name, id"
    );
    /// Selects the nodes that were lost within the last day, the latest first.
    LOST_NODES = concat!(
        "SELECT id, name, ", now!(), " - lost_at FROM lost_nodes \
         WHERE lost_at > ", now!(), " - 86400000000 ORDER BY lost_at DESC, id"
    );
    /// Describes a node.
    DESCRIBE = "UPDATE nodes SET name = $1, version = $2, addresses = $3 WHERE id = $4";
    /// Sets whether a node sends its agents away.
    SET_DRAINING = "UPDATE nodes SET is_draining = $1 WHERE id = $2";
}
