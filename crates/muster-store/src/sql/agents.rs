//! Agents, their documents and tags.
//!
//! Columns form three groups, so that an update touches only the indexes concerned: those in no index
//! (`plain`), the status and its deadline (`status`), and the rest that is indexed (`keys`).

use super::statements;

macro_rules! plain {
    () => {
        "version, kind, replace_token, updated_at, running_policy_id, policy_revision, action_position, \
         action_token, tags, namespaces, agent_version, newer_than_tested, hostname, last_checkin, health_status, \
         health_message, unhealthy_reason, status_since, audit_reason, audit_at, unenrollment_started_at, \
         unenrolled_at, unenrolled_reason, upgrade_started_at, upgraded_at, upgrade_details, upgrade_rollbacks, \
         user_metadata, first_address, last_address, inactivity_timeout"
    };
}
macro_rules! plain_values {
    () => {
        "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, \
         $24, $25, $26, $27, $28, $29, $30, $31"
    };
}
macro_rules! status {
    () => {
        "status, status_deadline"
    };
}
macro_rules! status_values {
    () => {
        "$32, $33"
    };
}
macro_rules! keys {
    () => {
        "active, access_key_id, access_key_hash, enrollment_key_id, enrollment_id, enrolled_at, policy_id"
    };
}
macro_rules! keys_values {
    () => {
        "$34, $35, $36, $37, $38, $39, $40"
    };
}
macro_rules! columns {
    () => {
        concat!(plain!(), ", ", status!(), ", ", keys!(), ", id")
    };
}
macro_rules! values {
    () => {
        concat!(plain_values!(), ", ", status_values!(), ", ", keys_values!())
    };
}

statements! {
    /// Inserts an agent unless the id is taken.
    INSERT = concat!(
        "INSERT INTO agents (", columns!(), ") VALUES (", values!(), ", $41) ON CONFLICT (id) DO NOTHING"
    );
    /// Updates columns without an index.
    UPDATE_PLAIN = concat!(
        "UPDATE agents SET (", plain!(), ") = (", plain_values!(), ") WHERE id = $32 AND version = $33"
    );
    /// Updates the status as well.
    UPDATE_STATUS = concat!(
        "UPDATE agents SET (", plain!(), ", ", status!(), ") = (", plain_values!(), ", ", status_values!(),
        ") WHERE id = $34 AND version = $35"
    );
    /// Updates everything except the id.
    UPDATE_ALL = concat!(
        "UPDATE agents SET (", plain!(), ", ", status!(), ", ", keys!(), ") = (", values!(),
        ") WHERE id = $41 AND version = $42"
    );
    /// Sets the check-in time if it is later.
    SEEN = "UPDATE agents SET last_checkin = $1 WHERE id = $2 AND (last_checkin IS NULL OR last_checkin < $1)";
    /// Deletes an agent with its documents and tags.
    DELETE = "DELETE FROM agents WHERE id = $1";
    /// Selects whether it exists.
    EXISTS = "SELECT 1 FROM agents WHERE id = $1";

    /// Inserts the documents of an agent.
    INSERT_DOCUMENTS = "INSERT INTO agent_documents (agent_id, local_metadata, components) VALUES ($1, $2, $3)";
    /// Updates the documents that are not NULL.
    UPDATE_DOCUMENTS = "UPDATE agent_documents SET local_metadata = coalesce($1, local_metadata), \
        components = coalesce($2, components) WHERE agent_id = $3";
    /// Moves components to their table; ignored if the agent does not exist.
    SETTLE_COMPONENTS = "UPDATE agent_documents SET components = $1 WHERE agent_id = $2";
    /// Writes a page of pending components.
    PUT_RECENT = "INSERT INTO recent_components (slot, seq, entries) VALUES ($1, $2, $3) \
        ON CONFLICT (slot) DO UPDATE SET seq = excluded.seq, entries = excluded.entries";
    /// Selects all pages, oldest first: at most the size of the ring.
    ALL_RECENT = "SELECT seq, entries FROM recent_components ORDER BY seq";
    /// Clears the ring.
    CLEAR_RECENT = "DELETE FROM recent_components";
    /// Selects the documents of an agent.
    DOCUMENTS = "SELECT local_metadata, components FROM agent_documents WHERE agent_id = $1";
    /// Selects the document that lists show.
    LOCAL_METADATA = "SELECT local_metadata FROM agent_documents WHERE agent_id = $1";

    /// Inserts a tag of an agent.
    INSERT_TAG = "INSERT INTO agent_tags (agent_id, tag) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    /// Deletes the tags of an agent.
    DELETE_TAGS = "DELETE FROM agent_tags WHERE agent_id = $1";

    /// Selects an agent.
    BY_ID = concat!("SELECT ", columns!(), " FROM agents WHERE id = $1");
    /// Selects the agent with an access key.
    BY_ACCESS_KEY = concat!("SELECT ", columns!(), " FROM agents WHERE access_key_id = $1");
    /// Selects the agent that enrolled with a key and an idempotency handle and has never checked in.
    BY_ENROLLMENT_ID = concat!(
        "SELECT ", columns!(), " FROM agents WHERE enrollment_id = $1 AND enrollment_key_id = $2 \
         AND last_checkin IS NULL"
    );
    /// Selects agents whose status deadline has passed.
    DUE = concat!(
        "SELECT ", columns!(),
        " FROM agents WHERE status_deadline IS NOT NULL AND status_deadline <= $1 ORDER BY status_deadline LIMIT $2"
    );
    /// Counts the active agents of each policy.
    PER_POLICY = "SELECT policy_id, count(*) FROM agents WHERE active = 1 AND policy_id IS NOT NULL \
        GROUP BY policy_id ORDER BY policy_id";
    /// Selects whether a policy has active agents.
    ACTIVE_ON_POLICY = "SELECT 1 FROM agents WHERE policy_id = $1 AND active = 1 LIMIT 1";
}
