//! Agents, their documents and tags.
//!
//! The columns stand in three groups, so that an update touches only the indexes concerned: those in no index
//! (`plain`), the status and its deadline (`status`), and the rest that is indexed (`keys`).

use super::statements;

macro_rules! plain {
    () => {
        "version, kind, replace_token, updated_at, running_policy_id, policy_revision, action_position, \
         action_token, tags, agent_version, newer_than_tested, hostname, last_checkin, health_status, \
         health_message, unhealthy_reason, status_since, audit_reason, audit_at, unenrollment_started_at, \
         unenrolled_at, unenrolled_reason, upgrade_started_at, upgraded_at, upgrade_details, upgrade_rollbacks, \
         user_metadata, first_address, last_address, inactivity_timeout"
    };
}
macro_rules! plain_values {
    () => {
        "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, \
         $24, $25, $26, $27, $28, $29, $30"
    };
}
macro_rules! status {
    () => {
        "status, status_deadline"
    };
}
macro_rules! status_values {
    () => {
        "$31, $32"
    };
}
macro_rules! keys {
    () => {
        "active, access_key_id, access_key_hash, enrollment_key_id, enrollment_id, enrolled_at, policy_id, space"
    };
}
macro_rules! keys_values {
    () => {
        "$33, $34, $35, $36, $37, $38, $39, $40"
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
    /// A new agent; nothing happens when the id is taken.
    INSERT = concat!(
        "INSERT INTO agents (", columns!(), ") VALUES (", values!(), ", $41) ON CONFLICT (id) DO NOTHING"
    );
    /// Changes no indexed column.
    UPDATE_PLAIN = concat!(
        "UPDATE agents SET (", plain!(), ") = (", plain_values!(), ") WHERE id = $31 AND version = $32"
    );
    /// Changes the status too.
    UPDATE_STATUS = concat!(
        "UPDATE agents SET (", plain!(), ", ", status!(), ") = (", plain_values!(), ", ", status_values!(),
        ") WHERE id = $33 AND version = $34"
    );
    /// Changes everything but the id.
    UPDATE_ALL = concat!(
        "UPDATE agents SET (", plain!(), ", ", status!(), ", ", keys!(), ") = (", values!(),
        ") WHERE id = $41 AND version = $42"
    );
    /// A later check-in; never an earlier one.
    SEEN = "UPDATE agents SET last_checkin = $1 WHERE id = $2 AND (last_checkin IS NULL OR last_checkin < $1)";
    /// Documents and tags go with it.
    DELETE = "DELETE FROM agents WHERE id = $1";
    /// Whether there is one.
    EXISTS = "SELECT 1 FROM agents WHERE id = $1";

    /// Documents of a new agent.
    INSERT_DOCUMENTS = "INSERT INTO agent_documents (agent_id, local_metadata, components) VALUES ($1, $2, $3)";
    /// Documents that are NULL stay as they are.
    UPDATE_DOCUMENTS = "UPDATE agent_documents SET local_metadata = coalesce($1, local_metadata), \
        components = coalesce($2, components) WHERE agent_id = $3";
    /// Brings components into their place; nothing happens when the agent is gone.
    SETTLE_COMPONENTS = "UPDATE agent_documents SET components = $1 WHERE agent_id = $2";
    /// Components on their way into their place: a page of them.
    PUT_RECENT = "INSERT INTO recent_components (slot, seq, entries) VALUES ($1, $2, $3) \
        ON CONFLICT (slot) DO UPDATE SET seq = excluded.seq, entries = excluded.entries";
    /// All of them, oldest first. At most a ring's worth.
    ALL_RECENT = "SELECT seq, entries FROM recent_components ORDER BY seq";
    /// None is on its way any more.
    CLEAR_RECENT = "DELETE FROM recent_components";
    /// One agent's documents.
    DOCUMENTS = "SELECT local_metadata, components FROM agent_documents WHERE agent_id = $1";
    /// The document that lists show.
    LOCAL_METADATA = "SELECT local_metadata FROM agent_documents WHERE agent_id = $1";

    /// One tag of an agent.
    INSERT_TAG = "INSERT INTO agent_tags (agent_id, tag) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    /// All tags of an agent.
    DELETE_TAGS = "DELETE FROM agent_tags WHERE agent_id = $1";

    /// One agent.
    BY_ID = concat!("SELECT ", columns!(), " FROM agents WHERE id = $1");
    /// One agent of a space.
    BY_ID_IN = concat!("SELECT ", columns!(), " FROM agents WHERE id = $1 AND space = $2");
    /// The holder of an access key.
    BY_ACCESS_KEY = concat!("SELECT ", columns!(), " FROM agents WHERE access_key_id = $1");
    /// The one that came in by a key with an idempotency handle and never checked in.
    BY_ENROLLMENT_ID = concat!(
        "SELECT ", columns!(), " FROM agents WHERE enrollment_id = $1 AND enrollment_key_id = $2 \
         AND last_checkin IS NULL"
    );
    /// Those whose deadline has come.
    DUE = concat!(
        "SELECT ", columns!(),
        " FROM agents WHERE status_deadline IS NOT NULL AND status_deadline <= $1 ORDER BY status_deadline LIMIT $2"
    );
    /// Active agents on each policy.
    PER_POLICY = "SELECT policy_id, count(*) FROM agents WHERE active = 1 AND policy_id IS NOT NULL \
        GROUP BY policy_id ORDER BY policy_id";
    /// Whether an active agent is on a policy.
    ACTIVE_ON_POLICY = "SELECT 1 FROM agents WHERE policy_id = $1 AND active = 1 LIMIT 1";
}
